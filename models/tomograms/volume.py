"""What a tomogram is to the models: voxels read box by box, so that no more of it is in memory than is worked on.

Axes are (z, y, x) in arrays and shapes. Positions are (x, y, z) in voxels: the middle of the first voxel is 0.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Shape: TypeAlias = tuple[int, int, int]


class Volume(Protocol):
    """Voxels that can be read a box at a time, by several threads. A file implements it, and ``ArrayVolume``."""

    @property
    def shape(self) -> Shape:
        """Voxels along z, y, x."""

    @property
    def voxel_a(self) -> float:
        """Ångström per voxel, the same along all axes."""

    def read(self, low: Shape, high: Shape) -> Floats:
        """The voxels from ``low`` up to, not including, ``high`` (z, y, x), float32, a copy.

        Raises ``ValueError`` for a box that is empty or reaches out of the volume; a file's may raise ``OSError`` and
        what its reader says of damage.
        """


class ArrayVolume:
    """A volume in memory: ``data`` (z, y, x) of any real dtype, ``voxel_a`` ångström per voxel."""

    def __init__(self, data: npt.NDArray[np.generic], voxel_a: float) -> None:
        if data.ndim != 3:
            raise ValueError(f"a volume has three axes (z, y, x), this has {data.ndim}")
        self._data = data
        self._voxel_a = float(voxel_a)

    @property
    def shape(self) -> Shape:
        """See ``Volume``, as all that follows."""
        z, y, x = self._data.shape
        return int(z), int(y), int(x)

    @property
    def voxel_a(self) -> float:
        """Ångström per voxel."""
        return self._voxel_a

    def read(self, low: Shape, high: Shape) -> Floats:
        """A copy of the box, float32."""
        box = checked_box(self.shape, low, high)
        return np.array(self._data[box], dtype=np.float32)


def checked_box(shape: Shape, low: Shape, high: Shape) -> tuple[slice, slice, slice]:
    """The box as slices. Raises ``ValueError`` where it is empty or reaches out of ``shape``."""
    if not all(0 <= a < b <= n for a, b, n in zip(low, high, shape, strict=True)):
        raise ValueError(f"box {low} to {high} is empty, or reaches out of a volume of {shape} voxels (z, y, x)")
    z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
    return z, y, x
