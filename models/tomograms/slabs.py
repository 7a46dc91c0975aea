"""Planes of a volume kept in memory while the boxes in them are cut out, so that no voxel is read twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .volume import Floats, Shape, Volume, checked_box

Rows = npt.NDArray[np.intp]

DEEP = 24
"""Planes whose picks are worked on together."""
_AT_ONCE = 8_000_000


class Slabs:
    """A ``Volume`` of which ``most`` planes can be read at a time: those that ``move`` has fetched.

    ``move`` is for one thread, with no reader beside it, and goes on towards higher planes; ``read`` is for any.
    """

    def __init__(self, volume: Volume, most: int) -> None:
        self.shape, self.voxel_a = volume.shape, volume.voxel_a
        self._volume, self._here = volume, range(0)
        self._deep = max(1, _AT_ONCE // (self.shape[1] * self.shape[2]))
        # Plane k is at k modulo its length: planes that stay are never copied.
        self._planes: Floats = np.empty((min(most, self.shape[0]), *self.shape[1:]), np.float32)

    def move(self, low: int, high: int) -> None:
        """Have the planes ``low`` to ``high``, as far as there are such, and no others; those here are not read again.

        Raises ``ValueError`` for more than ``most`` planes.
        """
        wanted = range(max(low, 0), min(high, self.shape[0]))
        if len(wanted) > len(self._planes):
            raise ValueError(f"planes {low} to {high} are more than {len(self._planes)}")
        missing = [plane for plane in wanted if plane not in self._here]
        for first in missing[:: self._deep]:
            # What is missing is one run of planes: picks are worked on in order of z.
            last = min(first + self._deep, missing[-1] + 1)
            read = self._volume.read((first, 0, 0), (last, *self.shape[1:]))
            self._planes[np.arange(first, last) % len(self._planes)] = read
        self._here = wanted

    def read(self, low: Shape, high: Shape) -> Floats:
        """See ``Volume.read``. Raises ``ValueError`` for planes that were not fetched."""
        z, y, x = checked_box(self.shape, low, high)
        if z.start not in self._here or z.stop - 1 not in self._here:
            raise ValueError(f"planes {z.start} to {z.stop} were not fetched, only {self._here}")
        return self._planes[np.arange(z.start, z.stop) % len(self._planes), y, x]


def by_slab(xyz: Floats, shape: Shape) -> Iterator[tuple[Rows, int]]:
    """Rows of ``xyz`` (n, 3) slab by slab of ``DEEP`` planes, in order of z, and each slab's first plane."""
    plane = np.floor(xyz[:, 2] + 0.5)
    for first in range(0, shape[0], DEEP):
        here = np.flatnonzero((plane >= first) & (plane < first + DEEP))
        if len(here):
            yield here, first
