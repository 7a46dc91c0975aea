"""Working images: what the denoiser, the features and the class averages are made of.

Particles come in boxes of any even size. A working image is 64 × 64 pixels, made by cropping the box's Fourier
transform (or, for smaller boxes, by padding it with zeros), then mean 0 and standard deviation 1 over the whole image.
Particles are white; the middle, pixel [32, 32], is that of the box, pixel [size / 2, size / 2].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

EDGE = 64
_CHUNK = 256
_ROUNDING = 1e-6
"""Spread below this part of the largest value is arithmetic, no picture."""


def working(particles: npt.NDArray[Any], edge: int = EDGE) -> tuple[Floats, Bools]:
    """Working images float32 (n, ``edge``, ``edge``), and which of them are good, bool (n,).

    ``particles``: (n, s, s), any real dtype, s even; one pixel of the result is s / ``edge`` of theirs. An image that
    is constant, or holds NaN or infinity, is not good and becomes 0. Raises ``ValueError`` for other shapes and dtypes.
    """
    given = np.asarray(particles)
    if given.ndim != 3 or given.shape[1] != given.shape[2] or given.shape[1] < 4 or given.shape[1] % 2:
        raise ValueError(f"particles: a shape of {given.shape} is not (n, s, s) with s even; give square boxes")
    if given.dtype.kind not in "biuf":
        raise ValueError(f"particles: {given.dtype} are no real numbers")
    if edge < 4 or edge % 2:
        raise ValueError(f"edge: {edge} is not even; use {EDGE}")
    images = np.empty((len(given), edge, edge), np.float32)
    good = np.empty(len(given), np.bool_)
    for first in range(0, len(given), _CHUNK):
        some = slice(first, first + _CHUNK)
        images[some], good[some] = _worked(given[some], edge)
    return images, good


def _worked(boxes: npt.NDArray[Any], edge: int) -> tuple[Floats, Bools]:
    # Double precision, so that a small contrast on a high background (raw counts) is not lost.
    exact = boxes.astype(np.float64)
    good = np.asarray(np.isfinite(exact).all((1, 2)))
    exact[~good] = 0
    largest = np.abs(exact).max((1, 2))
    # Largest 1, so that no square overflows or is lost; the scale is taken out below.
    exact /= np.where(largest > 0, largest, 1)[:, None, None]
    good = good & (exact.std((1, 2)) > _ROUNDING)
    resized = scaled(exact - exact.mean((1, 2), keepdims=True), edge)
    spread = resized.std((1, 2))
    # What varied only at frequencies that are cut off has nothing left.
    good = good & (spread > _ROUNDING)
    resized /= np.where(good, spread, 1)[:, None, None]
    resized[~good] = 0
    return resized.astype(np.float32), good


def scaled(boxes: npt.NDArray[np.float64], edge: int) -> npt.NDArray[np.float64]:
    """Boxes (n, s, s) cropped or zero-padded in Fourier space to (n, edge, edge); means and the middle stay."""
    size = boxes.shape[-1]
    if size == edge:
        return boxes.copy()
    small = min(size, edge)
    half = small // 2
    seen = fft.rfft2(boxes)
    wave = np.zeros((len(boxes), edge, edge // 2 + 1), np.complex128)
    # The frequency of exactly half the smaller rate stands for two; without it the result is real and symmetric.
    wave[:, :half, :half] = seen[:, :half, :half]
    wave[:, edge - half + 1 :, :half] = seen[:, size - half + 1 :, :half]
    found: npt.NDArray[np.float64] = fft.irfft2(wave, s=(edge, edge)) * (edge / size) ** 2
    return found
