"""Fourier ring correlation of two averages, and the resolution at which it falls below 0.143."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

CRITERION = 0.143
LEAST_PER_HALF = 10
_FALL_PX = 6.0
_LOW_RINGS = 4


def ring_correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> Doubles:
    """Correlation of two pictures (s, s) on the rings of their transforms: float64 (s // 2 + 1,), ring 0 being 1.

    Ring i holds the frequencies nearest to i / s per pixel (Saxton and Baumeister, J. Microsc. 127, 1982; van Heel,
    Ultramicroscopy 21, 1987). Both are masked by a circle whose last 6 pixels fall like a cosine, after
    their mean inside it was taken away. Rings without power are 0.
    """
    pair = np.stack([np.asarray(one, np.float64), np.asarray(other, np.float64)])
    size = pair.shape[-1]
    mask, ring = _circle(size), _ring(size)
    pair = (pair - (pair * mask).sum((1, 2), keepdims=True) / mask.sum()) * mask
    a, b = np.fft.fft2(pair)
    cross, left, right = (
        np.bincount(ring.ravel(), p.ravel(), size // 2 + 2)[: size // 2 + 1]
        for p in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    )
    power = np.sqrt(left * right)
    found: Doubles = np.where(power > 0, cross / np.where(power > 0, power, 1), 0)
    found[0] = 1
    return found


def resolution(one: npt.ArrayLike, other: npt.ArrayLike, pixel_a: float) -> float:
    """Where the ring correlation of two half-set averages first falls below 0.143, in ångström.

    The criterion is Rosenthal and Henderson's (J. Mol. Biol. 333, 2003) for two half sets. Between rings it is
    interpolated linearly. Never finer than Nyquist (2 pixels); NaN where the four lowest rings together do not rise
    above the criterion and three times their chance correlation.
    """
    curve = ring_correlation(one, other)
    size = 2 * (len(curve) - 1)
    counts = np.bincount(_ring(size).ravel())[: len(curve)] / 2
    low = slice(1, 1 + _LOW_RINGS)
    mean = float(np.average(curve[low], weights=counts[low]))
    if mean < max(CRITERION, 3 / math.sqrt(counts[low].sum())):
        return math.nan
    below = np.flatnonzero(curve[2:] < CRITERION) + 2
    if not len(below):
        return 2 * pixel_a
    ring = int(below[0])
    above = max(float(curve[ring - 1]), CRITERION)
    at = ring - 1 + (above - CRITERION) / max(above - float(curve[ring]), 1e-9)
    return float(size * pixel_a / max(at, 1.0))


@lru_cache(maxsize=4)
def _circle(size: int) -> Doubles:
    at = np.arange(size) - size // 2
    inside = (size / 2 - 1 - np.hypot(at[:, None], at)) / _FALL_PX
    mask: Doubles = 0.5 - 0.5 * np.cos(np.pi * np.clip(inside, 0, 1))
    return mask


@lru_cache(maxsize=4)
def _ring(size: int) -> npt.NDArray[np.intp]:
    f = np.fft.fftfreq(size, 1 / size)
    whole: npt.NDArray[np.intp] = np.minimum(np.rint(np.hypot(f[:, None], f)), size // 2 + 1).astype(np.intp)
    return whole
