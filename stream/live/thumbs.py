"""Frames made small: block means for large arrays, and thumbnails of 8 bits on a logarithmic scale."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]

SIDE = 96
LARGEST = 2048
LEAST_HIGH = 3.0
TOP_SHARE = 99.8


def block_means(image: Array, factor: int) -> Floats:
    """Means of ``factor`` × ``factor`` blocks of (y, x), float32; of what is finite only, NaN where nothing is.

    Blocks at the lower and right edge are smaller where the image ends.
    """
    if factor <= 1:
        return image.astype(np.float32)
    starts = [np.arange(0, extent, factor) for extent in image.shape]
    values = image.astype(np.float32)
    good = np.isfinite(values)
    sums = _blocks(np.where(good, values, 0), starts)
    counts = _blocks(good.astype(np.float32), starts)
    empty = np.full(sums.shape, np.nan, np.float32)
    return np.divide(sums, counts, out=empty, where=counts > 0)


def fitting(image: Array, largest: int = LARGEST) -> tuple[Array, int]:
    """The image as it is, or its block means where a side is longer than ``largest``; and the factor (1: as it is)."""
    factor = math.ceil(max(image.shape) / largest)
    return (image, 1) if factor <= 1 else (block_means(image, factor), factor)


def thumbnail(image: Array, side: int = SIDE) -> tuple[npt.NDArray[np.uint8], float]:
    """(y, x) in photons to at most ``side`` × ``side`` pixels of 8 bits, and the photons per pixel that 255 means.

    Each small pixel is the mean over its area; 0..high becomes 0..255 on the scale log(1 + x). The scale ends where
    the brightest 2 of 1000 pixels begin, but at 3 photons at least: noise must not look like a hit.
    """
    small = np.nan_to_num(_shrunk(image, side), nan=0.0, posinf=0.0, neginf=0.0)
    high = max(LEAST_HIGH, float(np.percentile(small, TOP_SHARE)))
    scaled = np.log1p(np.clip(small, 0, high)) * (255 / math.log1p(high))
    return np.rint(scaled).astype(np.uint8), high


def _shrunk(image: Array, side: int) -> Floats:
    scale = max(image.shape) / side
    if scale <= 1:
        return image.astype(np.float32)
    # Whole blocks first: the exact resampling below then works on an image of less than twice the size.
    blocks: Floats = np.nan_to_num(block_means(image, math.floor(scale)), nan=0.0, posinf=0.0, neginf=0.0)
    scale = max(blocks.shape) / side
    rows, columns = (max(1, round(extent / scale)) for extent in blocks.shape)
    return _averaged(_averaged(blocks, rows).T, columns).T.astype(np.float32)


def _averaged(image: Array, to: int) -> Array:
    """(n, m) to (to, m): means over equal stretches of rows, with the parts of pixels that belong to each.

    By running sums, not by a matrix product, for which BLAS would wake threads on every core, and the network waits.
    """
    n = len(image)
    sums = np.zeros((n + 1, image.shape[1]))
    np.cumsum(image, axis=0, dtype=np.float64, out=sums[1:])
    ends = np.linspace(0, n, to + 1)
    first = np.minimum(ends.astype(np.intp), n - 1)
    at = sums[first] + (ends - first)[:, None] * (sums[first + 1] - sums[first])
    means: Array = np.diff(at, axis=0) * (to / n)
    return means


def _blocks(values: Array, starts: list[Array]) -> Array:
    # Rows first: whole rows are added many pixels at a time.
    return np.add.reduceat(np.add.reduceat(values, starts[0], axis=0), starts[1], axis=1)
