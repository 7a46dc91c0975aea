"""From class probabilities on working voxels, plane after plane, to labels and probabilities on the file's voxels.

The middle of working voxel w lies at ``(w + 0.5)·factor − 0.5`` in voxels of the file (``Working``); probabilities are
interpolated linearly along z, y and x, and the label is the class that is the most probable there. Before the middle
of the first voxel, and behind that of the last, the probabilities are those of the rim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .volume import Floats, Shape

Labels = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]
PLANES = 8
"""Planes of the file in one slab, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """Planes of the file from ``z0`` on: ``labels`` u1 (dz, y, x), ``probabilities`` f2 (classes, dz, y, x)."""

    z0: int
    labels: Labels
    probabilities: Halves


class Axis:
    """Where along one axis the ``size`` voxels of the file lie among ``given`` working voxels."""

    def __init__(self, size: int, given: int, factor: float) -> None:
        at = np.clip((np.arange(size) + 0.5) / factor - 0.5, 0, given - 1)
        self.low = np.minimum(at.astype(np.intp), max(given - 2, 0))
        self.high = np.minimum(self.low + 1, given - 1)
        self.share = (at - self.low).astype(np.float32)
        self.same = size == given and not bool(self.share[:-1].any())

    def apply(self, values: Floats, axis: int) -> Floats:
        """``values`` interpolated along ``axis``; the same array where nothing changes."""
        if self.same:
            return values
        share = self.share.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        low: Floats = np.take(values, self.low, axis)
        high: Floats = np.take(values, self.high, axis)
        high -= low
        high *= share
        high += low
        return high


class Enlarger:
    """Takes working planes in order, (classes, dz, y, x), and gives the file's as soon as they are known.

    ``shape``: of the file's volume. ``given``: of the working volume. ``factor``: file voxels per working voxel.
    """

    def __init__(self, shape: Shape, given: Shape, factor: float) -> None:
        self._z, self._y, self._x = (Axis(n, m, factor) for n, m in zip(shape, given, strict=True))
        self._given = given[0]
        self._done = 0
        self._first = 0
        self._planes: list[Floats] = []

    def add(self, planes: npt.NDArray[np.floating]) -> Iterator[Slab]:
        """The slabs that ``planes``, which follow those given before, complete."""
        # Linear interpolation along y and x is the same before and after that along z, and cheaper before: a working
        # plane serves several of the file's.
        for plane in np.moveaxis(planes, 1, 0):
            self._planes.append(self._x.apply(self._y.apply(np.asarray(plane, np.float32), 1), 2))
            while dz := self._ready():
                yield self._slab(dz)
                self._forget()

    def _ready(self) -> int:
        """How many planes of the file come next: a slab's number of which all is known, or at the end the rest."""
        known = self._first + len(self._planes)
        next_ones = self._z.high[self._done : self._done + PLANES]
        ready = int(np.searchsorted(next_ones, known, side="left"))
        return ready if ready == PLANES or known == self._given else 0

    def _slab(self, dz: int) -> Slab:
        z0, self._done = self._done, self._done + dz
        classes, y, x = self._planes[0].shape
        labels = np.empty((dz, y, x), np.uint8)
        probabilities = np.empty((classes, dz, y, x), np.float16)
        for i in range(dz):
            plane = self._plane(z0 + i)
            labels[i] = plane.argmax(0)
            probabilities[:, i] = plane
        return Slab(z0, labels, probabilities)

    def _plane(self, z: int) -> Floats:
        low, high = (self._planes[int(at[z]) - self._first] for at in (self._z.low, self._z.high))
        share = float(self._z.share[z])
        return low + np.float32(share) * (high - low) if share else low

    def _forget(self) -> None:
        """Let go of working planes that no plane to come needs."""
        needed = int(self._z.low[self._done]) if self._done < len(self._z.low) else self._given
        del self._planes[: needed - self._first]
        self._first = max(self._first, needed)
