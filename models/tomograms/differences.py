"""A difference of Gaussians over a tomogram, computed tile by tile at a fraction of the cost of filtering it.

Gaussians compose: smoothing with s and then with σ is one Gaussian of variance s² + σ². It is done in two halves. The
first half low-passes so far that every d-th voxel says all there is to say (what folding back adds is 3e-7 at most),
and these coarse values are kept: one in d³. The second half, different for the two Gaussians, goes from the coarse
values straight to the voxels of a tile. The volume is read once; of what is computed nothing is thrown away. At the
faces the volume goes on as its mirror image (scipy's ``reflect``), for both halves.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import sparse

from .ahead import ahead
from .banded import along, matrix_of, rows
from .told import Told
from .volume import Floats, Shape, Volume

_TAILS = 5.5
"""Gaussians end at this many standard deviations: beyond is 4e-8 of them."""
_FOLDED = 3.1
"""Variance of the whole Gaussian per d²: folding back then is below 3e-7."""
_MOST_APART = 8
_ROWS = 32
_AT_ONCE = 8_000_000


class Difference:
    """Gaussian of standard deviation ``narrow`` minus that of ``wide`` (voxels), over a ``volume``."""

    def __init__(self, volume: Volume, narrow: float, wide: float, *, threads: int, told: Told) -> None:
        self.shape = volume.shape
        self.step = min(max(1, math.floor(narrow / math.sqrt(_FOLDED))), _MOST_APART)
        first = narrow**2 / 2
        second = [math.sqrt(sigma**2 - first) for sigma in (narrow, wide)]
        self._pad = math.ceil(_TAILS * max(second) / self.step)
        self._out = [[self._finer(n, sigma) for n in self.shape] for sigma in second]
        self._coarse = self._coarsened(volume, math.sqrt(first), threads, told)

    def tile(self, low: Shape, high: Shape) -> torch.Tensor:
        """The difference from ``low`` up to, not including, ``high`` (z, y, x), float32."""
        narrow, wide = (self._finer_tile(matrices, low, high) for matrices in self._out)
        return narrow.sub_(wide)

    def _finer_tile(self, matrices: list[sparse.csr_matrix], low: Shape, high: Shape) -> torch.Tensor:
        data = self._coarse
        weights = []
        for axis, matrix in enumerate(matrices):
            dense, begin, end = rows(matrix, low[axis], high[axis])
            data = data.narrow(axis, begin, end - begin)
            weights.append(torch.from_numpy(dense))
        for axis in (0, 1, 2):
            data = along(axis, weights[axis], data)
        return data

    def _coarsened(self, volume: Volume, sigma: float, threads: int, told: Told) -> torch.Tensor:
        z, y, x = self.shape
        matrices = [self._coarser(n, sigma) for n in self.shape]
        found = torch.zeros([matrix.shape[0] for matrix in matrices])
        deep = max(1, _AT_ONCE // (y * x))
        starts = range(0, z, deep)

        def thinned(start: int) -> torch.Tensor:
            planes = torch.from_numpy(volume.read((start, 0, 0), (min(start + deep, z), y, x)))
            return _whole(1, matrices[1], _whole(2, matrices[2], planes))

        # By columns: what some planes add to the coarse ones around them. In order, so that sums are always the same.
        spread = matrices[0].T.tocsr()
        for number, (start, planes) in enumerate(zip(starts, ahead(thinned, starts, threads), strict=True)):
            weights, begin, end = rows(spread, start, start + len(planes))
            found[begin:end] += along(0, torch.from_numpy(np.ascontiguousarray(weights.T)), planes)
            told("pick", number + 1, 2 * len(starts))
        return found

    def _coarser(self, n: int, sigma: float) -> sparse.csr_matrix:
        """Coarse values, some of them beyond the ends, from the n voxels of an axis."""
        reach = math.ceil(_TAILS * sigma)
        count = (n - 1) // self.step + 2 + 2 * self._pad
        middle = self.step * (np.arange(count) - self._pad)
        away = np.arange(-reach, reach + 1)
        at = (middle[:, None] + away) % (2 * n)
        column = np.where(at < n, at, 2 * n - 1 - at)
        row = np.repeat(np.arange(count), len(away))
        return matrix_of(row, column.ravel(), np.tile(_gauss(away, sigma), count), (count, n))

    def _finer(self, n: int, sigma: float) -> sparse.csr_matrix:
        """The n voxels of an axis from its coarse values."""
        count = (n - 1) // self.step + 2 + 2 * self._pad
        first = np.arange(n) // self.step  # the coarse value ``pad`` before the one at or below a voxel
        near = first[:, None] + np.arange(2 * self._pad + 2)
        away = np.arange(n)[:, None] - self.step * (near - self._pad)
        keep = np.abs(away) <= _TAILS * sigma
        row = np.broadcast_to(np.arange(n)[:, None], near.shape)
        return matrix_of(row[keep], near[keep], _gauss(away[keep], sigma), (n, count))


def _gauss(away: np.ndarray, sigma: float) -> np.ndarray:
    found: np.ndarray = np.exp(-0.5 * (away / sigma) ** 2)
    return found


def _whole(axis: int, matrix: sparse.csr_matrix, data: torch.Tensor) -> torch.Tensor:
    """The whole matrix along ``axis``, some rows at a time: of a dense one nearly all would be 0."""
    parts = []
    for low in range(0, matrix.shape[0], _ROWS):
        weights, begin, end = rows(matrix, low, min(low + _ROWS, matrix.shape[0]))
        parts.append(along(axis, torch.from_numpy(weights), data.narrow(axis, begin, end - begin)))
    return torch.cat(parts, axis)


def response(volume: Volume, narrow: float, wide: float) -> Floats:
    """The difference over a whole small volume, float32 (z, y, x): for pictures and tests."""
    return np.asarray(Difference(volume, narrow, wide, threads=1, told=Told()).tile((0, 0, 0), volume.shape))
