"""Banded matrices along one axis of a volume: resampling and Gaussian filters as products that a BLAS computes.

A matrix has a row per voxel of the result and a column per voxel of the source; what lies off the band is 0. Only the
rows asked for are made dense, so that a box can be computed from the part of the source that it needs and no more.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from .volume import Floats


def rows(matrix: sparse.csr_matrix, low: int, high: int) -> tuple[Floats, int, int]:
    """Rows ``low`` to ``high``, dense float32 (high - low, last - first), and the columns ``first``, ``last``."""
    start, end = matrix.indptr[low], matrix.indptr[high]
    column = matrix.indices[start:end]
    first, last = int(column.min()), int(column.max()) + 1
    dense = np.zeros((high - low, last - first), np.float32)
    row = np.repeat(np.arange(high - low), np.diff(matrix.indptr[low : high + 1]))
    dense[row, column - first] = matrix.data[start:end]
    return dense, first, last


def along(axis: int, weights: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """``weights`` (m, n) times ``data`` (z, y, x) along ``axis``, which has n voxels; float32, then m."""
    z, y, x = data.shape
    if axis == 0:
        return (weights @ data.reshape(z, y * x)).reshape(-1, y, x)
    if axis == 1:
        # Not matmul, which would first copy the data to fold it.
        return torch.bmm(weights.expand(z, -1, -1), data)
    return (data.reshape(z * y, x) @ weights.T).reshape(z, y, -1)


def matrix_of(row: np.ndarray, column: np.ndarray, weight: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """The matrix of these entries, those at the same place added up, every row scaled to add up to 1."""
    found = sparse.coo_matrix((weight, (row, column)), shape=shape, dtype=np.float64).tocsr()
    found.sum_duplicates()
    total = np.asarray(found.sum(axis=1)).ravel()
    found.data /= np.repeat(total, np.diff(found.indptr))
    return found
