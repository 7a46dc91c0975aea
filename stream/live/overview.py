"""A micrograph for the eye: binned to what a screen holds, stretched between percentiles, in bytes.

All takes an image (ny, nx) of any real type and reads it in strips, so that no second copy of it is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE_PX, SMALL_PX = 2048, 512
PERCENTILES = (0.5, 99.5)
SAMPLED = 200_000
_STRIP_PX = 1 << 20

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One micrograph in three sizes, uint8: ``full`` (ny, nx); ``large`` and ``small``, binned by a whole number.

    Pixel (i, j) of a binned one is the mean of ``factor`` × ``factor`` pixels from (i · factor, j · factor) on; what is
    left over at the far edges is cut off. ``low``, ``high``: values of ``full``'s 0 and 255, in the image's units.
    """

    full: Bytes
    large: Bytes
    large_factor: int
    small: Bytes
    small_factor: int
    low: float
    high: float


def view_of(image: npt.NDArray[Any]) -> View:
    """The three sizes of an image (ny, nx). Raises ``ValueError`` for what is no image of at least 1 × 1 pixel."""
    if image.ndim != 2 or not image.size:
        raise ValueError(f"a micrograph is (ny, nx), not of shape {image.shape}")
    factor = factor_for(image.shape, LARGE_PX)
    large = binned(image, factor)
    again = factor_for(large.shape, SMALL_PX)
    small = binned(large, again)
    low, high = levels(image)
    return View(grey(image, low, high), stretched(large), factor, stretched(small), factor * again, low, high)


def factor_for(shape: tuple[int, ...], most: int) -> int:
    """By how much to bin so that no edge is longer than ``most``."""
    return max(1, math.ceil(max(shape) / most))


def binned(image: npt.NDArray[Any], factor: int) -> Floats:
    """Means of ``factor`` × ``factor`` pixels, float32; edges shorter than ``factor`` are one pixel."""
    down, across = (min(factor, edge) for edge in image.shape)
    ny, nx = image.shape[0] // down, image.shape[1] // across
    if down == across == 1:
        return np.asarray(image, np.float32)
    out = np.empty((ny, nx), np.float32)
    rows = max(1, _STRIP_PX // (image.shape[1] * down))
    for top in range(0, ny, rows):
        strip = image[top * down : (top + rows) * down, : nx * across][: (ny - top) * down]
        # Rows first: summing both axes at once takes four times as long.
        sums = strip.reshape(len(strip) // down, down, nx * across).sum(axis=1, dtype=np.float32)
        out[top : top + len(sums)] = sums.reshape(-1, nx, across).sum(axis=2)
    out /= np.float32(down * across)
    return out


def levels(image: npt.NDArray[Any]) -> tuple[float, float]:
    """The values at ``PERCENTILES``, from a regular grid of pixels; (0, 1) where none of them is finite."""
    step = max(1, math.isqrt(image.size // SAMPLED))
    some = np.asarray(image[::step, ::step], np.float32)
    good = some[np.isfinite(some)]
    if not good.size:
        return 0.0, 1.0
    low, high = np.percentile(good, PERCENTILES)
    return float(low), float(high)


def stretched(image: Floats) -> Bytes:
    """The image between its own levels."""
    return grey(image, *levels(image))


def grey(image: npt.NDArray[Any], low: float, high: float) -> Bytes:
    """uint8: ``low`` and less is 0, ``high`` and more is 255. What is no number is black."""
    out = np.empty(image.shape, np.uint8)
    span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-30)
    scale, lowest = np.float32(255.0 / span), np.float32(low)
    rows = max(1, _STRIP_PX // max(1, image.shape[1]))
    for top in range(0, len(image), rows):
        strip = np.subtract(image[top : top + rows], lowest, dtype=np.float32, casting="unsafe")
        strip *= scale
        # fmax and fmin, unlike clip, take the bound where a pixel is NaN, and casting NaN is undefined.
        np.fmin(np.fmax(strip, np.float32(0), out=strip), np.float32(255), out=strip)
        out[top : top + rows] = strip
    return out
