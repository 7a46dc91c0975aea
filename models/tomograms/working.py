"""The working volume: a tomogram as the networks see it, computed box by box as it is read.

Voxels of the size a network was trained on, density bright, mean 0 and standard deviation 1 over the tomogram. Every
axis is low-passed with a windowed sinc (Lanczos' of three lobes) and sampled, on the file's voxels after outliers were
cut off and what is no tomogram (padding, NaN) was replaced by the mean. Where the file's voxels differ from the asked
size by less than ``NEAR``, they are taken as they are: no network can tell, and rescaling would cost more than picking.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from .banded import along, matrix_of, rows
from .statistics import Statistics, statistics
from .volume import Floats, Shape, Volume, checked_box

__all__ = ["BOX", "VOXEL_A", "Statistics", "Working", "scale_factor", "statistics"]

VOXEL_A = 14.2
"""Å: the published voxels, four times 3.55 Å."""
BOX = 32
NEAR = 0.03
LARGEST_UPSCALING = 1.5
LARGEST_BINNING = 32.0
_LOBES = 3
_ROWS = 64
_SAMPLES, _SAMPLE = 5, 16


def scale_factor(file_a: float, target_a: float) -> float:
    """File voxels per working voxel; 1 where they differ by less than ``NEAR``.

    Raises ``ValueError`` for voxels that are not above 0, and for factors outside 1/1.5 to 32.
    """
    for name, value in (("the tomogram's voxel", file_a), ("the working voxel", target_a)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: {value} Å is not above 0; state the right size (decode.voxel_a, --voxel-a)")
    factor = target_a / file_a
    if not 1 / LARGEST_UPSCALING <= factor <= LARGEST_BINNING:
        raise ValueError(
            f"voxels of {file_a:.4g} Å, to be rescaled to {target_a:.4g} Å, are a factor of {factor:.3g}; between "
            f"{1 / LARGEST_UPSCALING:.3g} and {LARGEST_BINNING:g} is possible: check the voxel size (decode.voxel_a, "
            "--voxel-a), or take a network of another voxel"
        )
    return 1.0 if abs(factor - 1) < NEAR else factor


class Working:
    """A ``Volume`` of ``voxel_a`` Å, bright density, mean 0 and s.d. 1, over ``volume``.

    ``bright``: density is bright in the file already. ``statistics``: of the file's voxels, where they are known; else
    they are taken now, in one pass over the file. ``voxel_a`` is the size asked for, also where the file's voxels are
    near enough to be taken as they are, and ``factor`` is 1. Raises ``ValueError`` for impossible voxel sizes, volumes
    of less than ``box`` working voxels along an axis, and as ``statistics`` does.
    """

    def __init__(
        self,
        volume: Volume,
        voxel_a: float = VOXEL_A,
        *,
        bright: bool = False,
        statistics: Statistics | None = None,
        box: int = BOX,
    ) -> None:
        self.volume, self.bright = volume, bright
        self.factor = scale_factor(volume.voxel_a, voxel_a)
        self.voxel_a = float(voxel_a)
        z, y, x = (math.floor(n / self.factor + 1e-9) for n in volume.shape)
        self.shape: Shape = (z, y, x)
        if min(self.shape) < box:
            raise ValueError(
                f"volume: {_said(volume.shape)} voxels of {volume.voxel_a:.4g} Å are {_said(self.shape)} of the "
                f"working {self.voxel_a:.4g} Å (z × y × x), less than one box of {box}; check the voxel size, or take "
                "a tomogram that was not binned as far"
            )
        self.statistics = _taken(volume) if statistics is None else statistics
        self._axes = None if self.factor == 1 else [_resampler(n, self.factor) for n in volume.shape]
        self._scale = (1.0 if bright else -1.0) / self.statistics.sd
        if self._axes:
            self._scale /= self._spread()

    def read(self, low: Shape, high: Shape) -> Floats:
        """The working voxels from ``low`` up to, not including, ``high`` (z, y, x): see ``Volume.read``."""
        checked_box(self.shape, low, high)
        data = self._rescaled(low, high) if self._axes else self.statistics.cleaned(self.volume.read(low, high))
        data *= np.float32(self._scale)
        return data

    def to_file(self, xyz: npt.ArrayLike) -> Floats:
        """Positions in voxels of the file for those in working voxels; (…, 3) or any shape, float32."""
        return ((np.asarray(xyz, np.float64) + 0.5) * self.factor - 0.5).astype(np.float32)

    def to_work(self, xyz: npt.ArrayLike) -> Floats:
        """Positions in working voxels for those in voxels of the file; (…, 3) or any shape, float32."""
        return ((np.asarray(xyz, np.float64) + 0.5) / self.factor - 0.5).astype(np.float32)

    def _rescaled(self, low: Shape, high: Shape) -> Floats:
        assert self._axes is not None
        spans = [_span(matrix, a, b) for matrix, a, b in zip(self._axes, low, high, strict=True)]
        source = self.volume.read((spans[0][0], spans[1][0], spans[2][0]), (spans[0][1], spans[1][1], spans[2][1]))
        data = torch.from_numpy(self.statistics.cleaned(source))
        # The axis along the memory first: what the others work on is then smaller by the factor.
        for axis in (2, 1, 0):
            data = _resampled(data, axis, self._axes[axis], low[axis], high[axis], spans[axis][0])
        return np.ascontiguousarray(data.numpy())

    def _spread(self) -> float:
        """What is left of the standard deviation by rescaling, from boxes spread evenly over the volume."""
        assert self._axes is not None
        size = [min(n, _SAMPLE) for n in self.shape]
        starts = [np.unique(np.linspace(0, n - m, _SAMPLES).astype(int)) for n, m in zip(self.shape, size, strict=True)]
        found = [
            self._rescaled((z, y, x), (z + size[0], y + size[1], x + size[2])).ravel()
            for z, y, x in itertools.product(*(start.tolist() for start in starts))
        ]
        values = np.concatenate(found)
        spread = float(values[values != 0].std(dtype=np.float64)) / self.statistics.sd
        return spread if spread > 0 else 1.0


def _taken(volume: Volume) -> Statistics:
    return statistics(volume)


def _said(shape: Shape) -> str:
    return " × ".join(map(str, shape))


def _resampler(n: int, factor: float) -> sparse.csr_matrix:
    """The (floor(n / factor), n) matrix that low-passes and samples one axis; every row adds up to 1."""
    m = math.floor(n / factor + 1e-9)
    width = max(factor, 1.0)  # in upscaling nothing has to be filtered away
    centre = (np.arange(m) + 0.5) * factor - 0.5
    at = np.floor(centre - _LOBES * width).astype(np.intp)[:, None] + np.arange(math.ceil(2 * _LOBES * width) + 2)
    t = (at - centre[:, None]) / width
    weight = np.where(np.abs(t) < _LOBES, np.sinc(t) * np.sinc(t / _LOBES), 0.0)
    weight[(at < 0) | (at >= n)] = 0
    row, tap = np.nonzero(weight)
    return matrix_of(row, at[row, tap], weight[row, tap], (m, n))


def _span(matrix: sparse.csr_matrix, low: int, high: int) -> tuple[int, int]:
    """The voxels of the source that rows ``low`` to ``high`` need."""
    column = matrix.indices[matrix.indptr[low] : matrix.indptr[high]]
    return int(column.min()), int(column.max()) + 1


def _resampled(
    data: torch.Tensor, axis: int, matrix: sparse.csr_matrix, low: int, high: int, first: int
) -> torch.Tensor:
    """``data``, whose voxel 0 along ``axis`` is ``first`` of the file, at the rows ``low`` to ``high``.

    A block of rows at a time: of one dense matrix for a long axis nearly all would be 0.
    """
    parts = []
    for start in range(low, high, _ROWS):
        weights, begin, end = rows(matrix, start, min(start + _ROWS, high))
        parts.append(along(axis, torch.from_numpy(weights), data.narrow(axis, begin - first, end - begin)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
