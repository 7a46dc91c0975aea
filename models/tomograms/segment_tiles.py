"""Windows that a network sees at a time: a tile, and around it what its voxels depend on, so that there is no seam.

EDSS3D is convolutional, with two poolings by 2: what it says of a voxel depends on where the voxel lies modulo 4, and
on nothing farther than 11 voxels, along each axis, from the block of four that it lies in. Windows that begin at
multiples of 4 and reach ``HALO`` voxels over their tile therefore give the tile's voxels the same probabilities as one
window over the whole tomogram would: windows overlap, and nothing is left to blend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .boxes import cut
from .nets import POOLED
from .volume import Floats, Shape, Volume

HALO = 12
"""Voxels around a tile; at least 11, and a multiple of 4. ``tests/test_tomogram_segment.py`` measures it."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile from ``low`` up to ``high`` (z, y, x)."""

    low: Shape
    high: Shape

    @property
    def size(self) -> Shape:
        """Voxels along z, y, x."""
        z, y, x = (b - a for a, b in zip(self.low, self.high, strict=True))
        return z, y, x


def tiles(shape: Shape, z0: int, z1: int, edge: int) -> Iterator[Tile]:
    """Tiles of at most ``edge`` voxels along y and x, a multiple of 4, that cover planes ``z0`` to ``z1``."""
    if edge % POOLED:
        raise ValueError(f"edge: {edge} is no multiple of {POOLED}")
    for y in range(0, shape[1], edge):
        for x in range(0, shape[2], edge):
            yield Tile((z0, y, x), (z1, min(y + edge, shape[1]), min(x + edge, shape[2])))


def window(volume: Volume, tile: Tile) -> Floats:
    """The voxels of a tile and ``HALO`` around, edges filled up to multiples of 4; what is outside is mirrored."""
    z, y, x = (n + 2 * HALO + (-n) % POOLED for n in tile.size)
    return cut(volume, (tile.low[0] - HALO, tile.low[1] - HALO, tile.low[2] - HALO), (z, y, x))


def inner(values: npt.NDArray[np.generic], tile: Tile) -> npt.NDArray[np.generic]:
    """What belongs to the tile of (…, z, y, x) of its window."""
    z, y, x = (slice(HALO, HALO + n) for n in tile.size)
    return values[..., z, y, x]


class Near:
    """Which voxels lie within ``reach`` voxels, along each axis, of one of ``xyz`` (n, 3) in voxels."""

    def __init__(self, xyz: npt.NDArray[np.floating], reach: float) -> None:
        self._zyx = np.asarray(xyz, np.float32).reshape(-1, 3)[:, ::-1]
        self._reach = reach

    def mask(self, tile: Tile) -> npt.NDArray[np.bool_] | None:
        """Bool (z, y, x) of a tile's voxels; None where there are none."""
        low, high = np.array(tile.low), np.array(tile.high)
        near = ((self._zyx > low - 1 - self._reach) & (self._zyx < high + self._reach)).all(1)
        if not near.any():
            return None
        found = np.zeros(tile.size, np.bool_)
        first = np.maximum(np.ceil(self._zyx[near] - self._reach).astype(int) - low, 0)
        last = np.minimum(np.floor(self._zyx[near] + self._reach).astype(int) + 1 - low, tile.size)
        for (za, ya, xa), (zb, yb, xb) in zip(first.tolist(), last.tolist(), strict=True):
            found[za:zb, ya:yb, xa:xb] = True
        return found if found.any() else None
