"""Which new class is which old one: numbers that stay over a re-clustering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Table = npt.NDArray[np.integer[Any]]
Kind = Literal["split", "merged", "new", "gone"]

_LEAST_SHARED = 1 / 3
_ALIKE = 0.9


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the class ``id``, and which ``others`` it came from or went to; ``text`` says it in a sentence.

    ``split``: ``id`` is new, and most of its members were of the class ``others[0]``, which lives on. ``new``: ``id``
    is new, its members came from everywhere. ``merged``: ``id`` is no more, most of its members went to ``others[0]``.
    ``gone``: ``id`` is no more, its members went everywhere.
    """

    kind: Kind
    id: int
    others: tuple[int, ...]
    text: str


def matched(shared: Table, alike: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.intp]:
    """The old class (row) that each new one (column) continues, or -1: int (k_new,).

    ``shared``: how many images of a sample were of the old and are of the new class. The pairing that keeps most images
    in their class (Hungarian method; Kuhn, Naval Research Logistics 2, 1955) stands where a pair shares at least a
    third of the smaller of the two. What is left over is paired by the similarity ``alike`` of its centres, if that is
    at least 0.9.
    """
    continues = np.full(shared.shape[1], -1, np.intp)
    smaller = np.minimum(shared.sum(1)[:, None], shared.sum(0)[None])
    for old, new in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
        if shared[old, new] > 0 and shared[old, new] >= _LEAST_SHARED * smaller[old, new]:
            continues[new] = old
    olds, news = np.setdiff1d(np.arange(len(shared)), continues), np.flatnonzero(continues < 0)
    left = alike[np.ix_(olds, news)]
    for i, j in zip(*linear_sum_assignment(left, maximize=True), strict=True):
        if left[i, j] >= _ALIKE:
            continues[news[j]] = olds[i]
    return continues


def changes(shared: Table, old: Sequence[int], new: Sequence[int]) -> tuple[Change, ...]:
    """What an operator should hear of: classes that appeared and disappeared between the numbers ``old`` and ``new``.

    ``shared`` (k_old, k_new) as in ``matched``.
    """
    said = [_appeared(number, shared[:, j], old, new) for j, number in enumerate(new) if number not in old]
    said += [_disappeared(number, shared[i], new) for i, number in enumerate(old) if number not in new]
    return tuple(said)


def _appeared(number: int, members: Table, old: Sequence[int], new: Sequence[int]) -> Change:
    source = _most(members, old)
    if source is not None and source in new:
        return Change("split", number, (source,), f"Class {number} was split off class {source}.")
    return Change("new", number, (), f"Class {number} is new.")


def _disappeared(number: int, members: Table, new: Sequence[int]) -> Change:
    target = _most(members, new)
    if target is not None:
        return Change("merged", number, (target,), f"Class {number} was merged into class {target}.")
    return Change("gone", number, (), f"Class {number} is no more; its particles went to several classes.")


def _most(members: Table, numbers: Sequence[int]) -> int | None:
    """The class that holds more than half of the members, if one does."""
    if not members.any() or 2 * members.max() <= members.sum():
        return None
    return numbers[int(members.argmax())]
