"""Planes of a volume kept in memory while the boxes in them are cut out, so that no voxel is read twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .pose import reach
from .volume import Floats, Shape, Volume, checked_box

_DEEP = 24


class Slabs:
    """A ``Volume`` whose planes have to be fetched before they are read: ``move``. For one thread."""

    def __init__(self, volume: Volume) -> None:
        self.shape, self.voxel_a = volume.shape, volume.voxel_a
        self._volume, self._low = volume, 0
        self._planes: Floats = np.empty((0, *self.shape[1:]), np.float32)

    def move(self, low: int, high: int) -> None:
        """Have the planes ``low`` to ``high``, and no others; those that are here already are not read again."""
        low, high = max(low, 0), min(high, self.shape[0])
        had = range(max(low, self._low), min(high, self._low + len(self._planes)))
        planes: Floats = np.empty((high - low, *self.shape[1:]), np.float32)
        if had:
            planes[had.start - low : had.stop - low] = self._planes[had.start - self._low : had.stop - self._low]
            missing = [(low, had.start), (had.stop, high)]
        else:
            missing = [(low, high)]
        for a, b in missing:
            if a < b:
                planes[a - low : b - low] = self._volume.read((a, 0, 0), (b, *self.shape[1:]))
        self._planes, self._low = planes, low

    def read(self, low: Shape, high: Shape) -> Floats:
        """See ``Volume.read``. Raises ``ValueError`` for planes that are not here."""
        z, y, x = checked_box(self.shape, low, high)
        here = slice(z.start - self._low, z.stop - self._low)
        if here.start < 0 or here.stop > len(self._planes):
            raise ValueError(f"planes {z.start} to {z.stop} were not fetched")
        return self._planes[here, y, x].copy()


def by_slab(
    xyz: Floats, shape: Shape, edge: int, posed: bool, batch: int
) -> Iterator[tuple[npt.NDArray[np.intp], int, int]]:
    """Rows of ``xyz`` (n, 3), at most ``batch`` at a time, in order of z, and the planes that their boxes need."""
    around = reach(edge) if posed else edge // 2 + 1
    z = xyz[:, 2]
    for first in range(0, shape[0], _DEEP):
        here = np.flatnonzero((np.floor(z + 0.5) >= first) & (np.floor(z + 0.5) < first + _DEEP))
        for start in range(0, len(here), batch):
            yield here[start : start + batch], first - around, first + _DEEP + around
