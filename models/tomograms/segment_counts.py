"""What a label volume holds, counted slab by slab: voxels of each class, and pieces that hang together.

Globules that do not touch are pieces; so are membranes, but their number says little. How many sub-volumes lie in
clusters of a class is the better count of particles: pieces that touch are one, and one may be torn in two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .labels import BACKGROUND, Labels
from .segment_slabs import Slab

LEAST_NM3 = 250.0
"""Volume from which on a piece counts: that of a ball 8 nm across. What is smaller is mostly noise."""


@dataclass(frozen=True, slots=True)
class Count:
    """Of one class: its voxels, their share of the volume, and pieces of at least ``LEAST_NM3``."""

    voxels: int
    fraction: float
    pieces: int


class Counter:
    """Counts in slabs as they pass. ``classes``: how many there are with the background; ``voxel_a``: of the file.

    Voxels that share a face hang together, also across slabs.
    """

    def __init__(self, classes: int, voxel_a: float) -> None:
        self._voxels = np.zeros(classes, np.int64)
        self._pieces = [_Pieces() for _ in range(classes)]
        self._least = max(1, math.ceil(LEAST_NM3 * 1e3 / voxel_a**3))

    def passing(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """The same slabs, counted."""
        for slab in slabs:
            self.add(slab.labels)
            yield slab

    def add(self, labels: Labels) -> None:
        """The next planes (dz, y, x)."""
        self._voxels += np.bincount(labels.ravel(), minlength=len(self._voxels))[: len(self._voxels)]
        for value, pieces in enumerate(self._pieces):
            if value != BACKGROUND:
                pieces.add(labels == value)

    def counts(self) -> list[Count]:
        """By label value."""
        total = max(1, int(self._voxels.sum()))
        pairs = zip(self._voxels.tolist(), self._pieces, strict=True)
        return [Count(n, n / total, pieces.number(self._least)) for n, pieces in pairs]


class _Pieces:
    """Pieces of one class. Only those that reach the last plane may still grow."""

    def __init__(self) -> None:
        self._sizes: list[int] = [0]
        self._same: list[int] = [0]
        self._last: npt.NDArray[np.intp] | None = None

    def add(self, mask: npt.NDArray[np.bool_]) -> None:
        parts, _ = ndimage.label(mask)
        first = len(self._sizes)
        sizes = np.bincount(parts.ravel())[1:]
        self._sizes += sizes.tolist()
        self._same += range(first, first + len(sizes))
        numbers = np.where(parts > 0, parts.astype(np.intp) + (first - 1), 0)
        if self._last is not None:
            touching = (self._last > 0) & (numbers[0] > 0)
            for a, b in np.unique(np.stack([self._last[touching], numbers[0][touching]], 1), axis=0).tolist():
                self._join(a, b)
        self._last = numbers[-1]

    def number(self, least: int) -> int:
        """Pieces of at least ``least`` voxels."""
        return sum(size >= least and self._root(at) == at for at, size in enumerate(self._sizes) if at)

    def _join(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a != b:
            self._same[b] = a
            self._sizes[a] += self._sizes[b]

    def _root(self, at: int) -> int:
        while self._same[at] != at:
            self._same[at] = at = self._same[self._same[at]]
        return at
