"""k-means of images that may be turned in the plane: seeding, Lloyd's iterations, restarts.

Spectra of length 1 are grouped by their correlation after the best turn; a centre is the mean of its members, each
turned onto it, made to length 1: spherical k-means (Dhillon and Modha, Machine Learning 42, 2001) of things that turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .polar import Complexes, Floats, compare, normalised, turned_spectra
from .seeding import seeds
from .ward import ward

Ints = npt.NDArray[np.int32]
Progress = Callable[[str, int, int], None]

RESTARTS = 4
ITERATIONS = 30
_SEEDED_FROM = 2000
_ITERATIONS_OF_A_TRY = 8
_SETTLED = 0.001
_PREFERENCE = 0.997
_FINE_PER_GROUP = 4
_FINE_MEMBERS = 4
_FINE_ITERATIONS = 4
_MOST_FINE = 160
_MIDDLE_ITERATIONS = 3
_AT_ONCE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """n images in k groups: ``centres`` complex64 (k, R, M) of length 1, ``label`` int32 (n,) from 0, ``angle`` float32
    (n,) degrees by which each image turns onto its centre, ``similarity`` float32 (n,), ``finished`` whether it
    was not stopped before its end.
    """  # noqa: D205

    centres: Complexes
    label: Ints
    angle: Floats
    similarity: Floats
    finished: bool


def never() -> bool:
    """The ``stop`` of one who waits."""
    return False


def kmeans(
    spectra: Complexes,
    k: int,
    *,
    seed: int = 0,
    restarts: int = RESTARTS,
    iterations: int = ITERATIONS,
    first: Complexes | None = None,
    stop: Callable[[], bool] = never,
    progress: Progress | None = None,
) -> Grouping:
    """Group spectra (n, R, M) around k centres, the same for the same ``seed``.

    ``restarts`` seedings are tried for a few iterations on at most 2000 of the images: one by Ward's tree of many
    small groups, the others by k-means++. The one of highest mean similarity goes on with all, until less than one
    image in a thousand changes its group, or for ``iterations``. ``first``: centres there are already, (at most k, R,
    M); they are one more try, with further seeds if there are fewer than k, and are preferred unless another leaves
    0.3 % less unexplained, so that groups do not change for nothing. An empty group is seeded anew with the image that
    fits its own centre least. ``stop`` is asked every few thousand images; once it says true the best so far is
    returned. Raises ``ValueError`` unless 1 <= k <= n.
    """
    n = len(spectra)
    if not 1 <= k <= n:
        raise ValueError(f"k: {k} groups of {n} images; ask for 1 to {n}")
    rng = np.random.default_rng(seed)
    some = spectra if n <= _SEEDED_FROM else spectra[np.sort(rng.choice(n, max(_SEEDED_FROM, k), replace=False))]
    steps = restarts + iterations
    best, least = some[:k].copy(), math.inf
    for trial, start in enumerate(_starts(some, k, restarts, first, rng)):
        found = lloyd(some, start, _ITERATIONS_OF_A_TRY, stop=stop)
        left = 1 - float(found.similarity.mean())
        if left < least:
            # The first of the starts are the centres there were, if there were any.
            best, least = found.centres, left * (_PREFERENCE if first is not None and trial == 0 else 1)
        if stop():
            break
        if progress is not None:
            progress("seeds", min(trial + 1, restarts), steps)

    def told(done: int) -> None:
        if progress is not None:
            progress("iterations", restarts + done, steps)

    return lloyd(spectra, best, iterations, stop=stop, told=told)


def _starts(
    some: Complexes, k: int, restarts: int, first: Complexes | None, rng: np.random.Generator
) -> Iterator[Complexes]:
    """Centres to start from, made one by one as they are asked for."""
    if first is not None:
        yield seeds(some, k, rng, first[:k])
    for trial in range(restarts):
        yield seeds(some, k, rng) if trial else _from_tree(some, k, rng)


def _from_tree(some: Complexes, k: int, rng: np.random.Generator) -> Complexes:
    """Centres of the k classes of Ward's tree over some small groups, which were made in a few iterations."""
    fine = max(k, min(_FINE_PER_GROUP * k, len(some) // _FINE_MEMBERS, _MOST_FINE))
    groups = lloyd(some, some[rng.choice(len(some), fine, replace=False)], _FINE_ITERATIONS)
    # Fewer groups than k can only be left where images are equal.
    return seeds(some, k, rng, merged(groups, k))


def merged(groups: Grouping, k: int) -> Complexes:
    """Centres of the at most k classes of Ward's tree over groups, complex64 (k, R, M)."""
    counts = np.bincount(groups.label, minlength=len(groups.centres))
    of = ward(groups.centres, counts, k)
    return np.stack([_middle(groups.centres[of == i], counts[of == i]) for i in range(int(of.max()) + 1)])


def _middle(centres: Complexes, counts: npt.NDArray[np.int64]) -> Complexes:
    """The centre of a few weighted ones, which lie as the heaviest of them."""
    found: Complexes = centres[int(counts.argmax())]
    for _ in range(_MIDDLE_ITERATIONS):
        _, angle = compare(centres, found[None])
        turned = turned_spectra(centres, angle[:, 0]) * counts[:, None, None].astype(np.float32)
        found = normalised(turned.sum(0, keepdims=True))[0]
    return found


def lloyd(
    spectra: Complexes,
    centres: Complexes,
    iterations: int,
    *,
    stop: Callable[[], bool] = never,
    told: Callable[[int], None] | None = None,
) -> Grouping:
    """Lloyd's iterations from given centres (k, R, M); see ``kmeans``."""
    centres = centres.copy()
    label, angle, similarity, finished = nearest(spectra, centres, stop)
    for done in range(iterations):
        if not finished:
            break
        sums, counts = turned_sums(spectra, label, angle, len(centres))
        centres = np.where(counts[:, None, None] > 0, normalised(sums), centres)
        _seed_empty(centres, counts, spectra, similarity)
        before = label
        label, angle, similarity, finished = nearest(spectra, centres, stop)
        if told is not None:
            told(done + 1)
        if counts.all() and np.count_nonzero(label != before) <= _SETTLED * len(label):
            break
    return Grouping(centres, label, angle, similarity, finished)


def _seed_empty(centres: Complexes, counts: npt.NDArray[np.int64], spectra: Complexes, similarity: Floats) -> None:
    """Put the images that fit worst in the place of centres that lost all their members."""
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        centres[empty] = spectra[np.argsort(similarity, kind="stable")[: len(empty)]]


def nearest(
    spectra: Complexes, centres: Complexes, stop: Callable[[], bool] = never
) -> tuple[Ints, Floats, Floats, bool]:
    """Which centre each image is most like: label int32, angle, similarity, and whether all were looked at."""
    n = len(spectra)
    label, angle, similarity = np.zeros(n, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32)
    for first in range(0, n, _AT_ONCE):
        if stop():
            return label, angle, similarity, False
        some = slice(first, first + _AT_ONCE)
        height, turn = compare(spectra[some], centres)
        best = height.argmax(1)
        label[some] = best
        similarity[some], angle[some] = (np.take_along_axis(a, best[:, None], 1)[:, 0] for a in (height, turn))
    return label, angle, similarity, True


def turned_sums(
    spectra: Complexes, label: npt.NDArray[Any], angle: Floats, k: int
) -> tuple[Complexes, npt.NDArray[np.int64]]:
    """Sums of the images of each of k groups, each image turned by its angle: (k, R, M); and their numbers (k,)."""
    sums = np.zeros((k, *spectra.shape[1:]), np.complex64)
    for first in range(0, len(spectra), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        turned = turned_spectra(spectra[some], angle[some])
        member = (label[some] == np.arange(k)[:, None]).astype(np.complex64)
        sums += (member @ turned.reshape(len(turned), -1)).reshape(sums.shape)
    return sums, np.bincount(label, minlength=k)[:k]
