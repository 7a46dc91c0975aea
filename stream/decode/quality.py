"""How good a micrograph is, in numbers that need no model: brightness, carbon, ice, gradient, spectrum, contrast.

The picture is read once, in strips, and binned to at most 1024 pixels a side; all but the first four numbers are of
the binned picture, so that a 4096² micrograph takes a fraction of a second and no second copy of it is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .quality_settings import NAMES, Bounds, Limits, QualitySettings

Floats = npt.NDArray[np.float32]

__all__ = ["NAMES", "Bounds", "Limits", "QualitySettings", "judge", "measure"]

WORK_PX = 1024
STRIP_PX = 1 << 20
TEXTURE_A, WINDOW_A, CARBON_RATIO = 8.0, 250.0, 1.35
ICE_A, ICE_BACKGROUND_A, ICE_SD = 30.0, 1500.0, 5.0
CONTRAST_A = (30.0, 120.0)
SPECTRUM_A = (200.0, 12.0)
TILE_PX = 256
LARGEST = 1e30


def measure(image: npt.NDArray[Any], pixel_a: float, *, saturation: float | None = None) -> dict[str, float]:
    """The numbers of ``NAMES`` of a micrograph (ny, nx) of any real dtype; ``pixel_a``: ångström per pixel.

    ``mean``, ``sd``: of all pixels, in the picture's units. ``saturated_fraction``: of pixels at or above
    ``saturation``; without it, at the highest value of an integer type (0 for floats). ``missing_fraction``: of pixels
    that are NaN, infinite or beyond 1e30; the other numbers take them for the mean of those around.

    ``gradient``: how much a plane fitted to the medians of 16 × 16 blocks rises across the picture, in ``sd``.
    ``carbon_fraction``: of windows 250 Å wide whose texture (s.d. of the differences of neighbouring pixels of 8 Å) is
    more than 1.35 times that of the quietest fifth; a picture that is carbon all over has none by this measure.
    ``ice_fraction``: of the area that is darker than its surroundings of 1500 Å by more than 5 robust s.d., both of
    pixels of 30 Å. ``contrast``: robust s.d. of what varies over 30 to 120 Å, divided by what white noise with the
    picture's finest differences would give: about 1 where there is noise alone. ``falloff``: the exponent s of the
    power spectrum ~ frequency**s, fitted from 1/200 to 1/12 1/Å (less where the pixels are larger): 0 for white noise.

    All are finite; of a constant picture all but ``mean`` (and ``saturated_fraction``) are 0. Raises ``ValueError`` for
    what is no picture or no pixel size.
    """
    if image.ndim != 2 or min(image.shape) < 2 or image.dtype.kind not in "biuf":
        raise ValueError(f"a micrograph is (ny, nx) of a real type, not {image.shape} of {image.dtype}")
    if not (math.isfinite(pixel_a) and pixel_a > 0):
        raise ValueError(f"{pixel_a} Å per pixel: state the pixel size")
    by = min(max(1, -(-max(image.shape) // WORK_PX)), *image.shape)
    small, numbers = _read(image, by, saturation)
    numbers |= dict.fromkeys(NAMES[4:], 0.0)
    if numbers["sd"] > 1e-6 * abs(numbers["mean"]) and min(small.shape) >= 8:
        work_a = pixel_a * by
        small = ((small - numbers["mean"]) / numbers["sd"]).astype(np.float32)
        numbers["gradient"] = _gradient(small)
        numbers["carbon_fraction"] = _carbon(small, work_a)
        numbers["ice_fraction"] = _ice(small, work_a)
        numbers["contrast"] = _contrast(small, work_a)
        numbers["falloff"] = _falloff(small, work_a)
    return {name: float(numbers[name]) for name in NAMES}


def _read(image: npt.NDArray[Any], by: int, saturation: float | None) -> tuple[Floats, dict[str, float]]:
    """The picture binned, and the numbers of its own pixels, in one pass over strips of rows."""
    if saturation is None and image.dtype.kind in "iu":
        saturation = float(np.iinfo(image.dtype).max)
    rows = max(1, STRIP_PX // (image.shape[1] * by)) * by
    parts, saturated, missing, count, mean, squares = [], 0, 0, 0, 0.0, 0.0
    for top in range(0, image.shape[0], rows):
        with np.errstate(over="ignore"):
            strip = image[top : top + rows].astype(np.float32)
        if saturation is not None:
            saturated += int(np.count_nonzero(strip >= saturation))
        # Written so that NaN, which is neither smaller nor larger than anything, is caught too.
        if not (strip.min() > -LARGEST and strip.max() < LARGEST):
            bad = ~(np.abs(strip) < LARGEST)
            missing += int(bad.sum())
            strip[bad] = strip[~bad].mean() if not bad.all() else mean
        own, n = float(strip.mean(dtype=np.float64)), strip.size
        # Two means and two sums of squares into one (Chan, Golub and LeVeque 1979): squares of large values would lose
        # the small differences between them.
        squares += float(strip.var(dtype=np.float64)) * n + (own - mean) ** 2 * count * n / (count + n)
        mean += (own - mean) * n / (count + n)
        count += n
        if len(strip) >= by:
            parts.append(_binned(strip, by))
    numbers = {
        "mean": mean,
        "sd": math.sqrt(squares / count),
        "saturated_fraction": saturated / count,
        "missing_fraction": missing / count,
    }
    return np.concatenate(parts), numbers


def _binned(image: Floats, by: int) -> Floats:
    """Means of ``by`` × ``by`` pixels; rows and columns left over are cut off."""
    if by <= 1:
        return image
    ny, nx = image.shape[0] // by, image.shape[1] // by
    # Rows first: adding whole rows is many times faster than a mean over two axes of a four-dimensional view.
    rows = image[: ny * by, : nx * by].reshape(ny, by, nx * by).sum(axis=1)
    sums: Floats = np.add.reduceat(rows, np.arange(0, nx * by, by), axis=1)
    sums /= by * by
    return sums


def _bin_to(image: Floats, work_a: float, wanted_a: float) -> tuple[Floats, float]:
    by = min(max(1, round(wanted_a / work_a)), min(image.shape) // 8)
    return _binned(image, by), work_a * by


def _robust_sd(values: Floats) -> float:
    """1.4826 times the median distance from the median: the s.d. of a normal distribution, deaf to a few outliers."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _blocks(image: Floats, side: int) -> Floats:
    """Blocks of ``side`` × ``side`` pixels: (rows, columns, pixels of a block)."""
    ny, nx = image.shape[0] // side, image.shape[1] // side
    cut = image[: ny * side, : nx * side].reshape(ny, side, nx, side)
    return cut.transpose(0, 2, 1, 3).reshape(ny, nx, -1)


def _gradient(small: Floats) -> float:
    side = max(1, min(small.shape) // 16)
    medians = np.median(_blocks(small, side), axis=2)
    ny, nx = medians.shape
    y, x = np.meshgrid(np.linspace(-0.5, 0.5, ny), np.linspace(-0.5, 0.5, nx), indexing="ij")
    design = np.stack([np.ones(ny * nx), y.ravel(), x.ravel()], axis=1)
    slopes = np.linalg.lstsq(design, medians.ravel().astype(np.float64), rcond=None)[0]
    return float(abs(slopes[1]) + abs(slopes[2]))


def _carbon(small: Floats, work_a: float) -> float:
    fine, fine_a = _bin_to(small, work_a, TEXTURE_A)
    steps = np.diff(fine, axis=1)[:-1] ** 2 + np.diff(fine, axis=0)[:, :-1] ** 2
    side = min(max(6, round(WINDOW_A / fine_a)), *steps.shape)
    # The median, not the mean: a crystal's edge in a corner of the window must not make it carbon.
    texture = np.sqrt(np.median(_blocks(steps, side), axis=2))
    return float(np.mean(texture > CARBON_RATIO * np.quantile(texture, 0.2)))


def _ice(small: Floats, work_a: float) -> float:
    coarse, coarse_a = _bin_to(small, work_a, ICE_A)
    wide, wide_a = _bin_to(coarse, coarse_a, 4 * ICE_A)
    reach = min(max(3, round(ICE_BACKGROUND_A / wide_a)), *wide.shape) | 1
    background = ndimage.median_filter(wide, reach, mode="nearest")
    factors = [a / b for a, b in zip(coarse.shape, background.shape, strict=True)]
    away = coarse - ndimage.zoom(background, factors, order=1, mode="nearest", grid_mode=True)
    return float(np.mean(away < -ICE_SD * max(_robust_sd(away), 1e-12)))


def _contrast(small: Floats, work_a: float) -> float:
    coarse, coarse_a = _bin_to(small, work_a, CONTRAST_A[0])
    noise = _robust_sd(np.diff(small, 2, axis=1)) / math.sqrt(6)
    band = coarse - ndimage.gaussian_filter(coarse, max(CONTRAST_A[1] / coarse_a, 1.0))
    return _robust_sd(band) * (coarse_a / work_a) / noise if noise > 0 else 0.0


def _tiles(small: Floats) -> Iterator[Floats]:
    side = min(TILE_PX, *small.shape)
    for top in range(0, small.shape[0] - side + 1, side):
        for left in range(0, small.shape[1] - side + 1, side):
            yield small[top : top + side, left : left + side]


def _falloff(small: Floats, work_a: float) -> float:
    side = min(TILE_PX, *small.shape)
    window = np.hanning(side).astype(np.float32)
    window = window[:, None] * window
    power = sum(np.abs(np.fft.rfft2((tile - tile.mean()) * window)) ** 2 for tile in _tiles(small))
    k = np.hypot(np.fft.fftfreq(side, work_a)[:, None], np.fft.rfftfreq(side, work_a))
    # From 2 steps on, where the window no longer smears the mean in; to half of Nyquist, where binning takes no power.
    low, high = max(1 / SPECTRUM_A[0], 2 / (side * work_a)), min(1 / SPECTRUM_A[1], 0.25 / work_a)
    if high < 1.5 * low:
        return 0.0
    edges = np.geomspace(low, high, 13)
    counts, _ = np.histogram(k, edges)
    sums, _ = np.histogram(k, edges, weights=power)
    use = (counts > 0) & (sums > 0)
    if use.sum() < 3:
        return 0.0
    middle = np.sqrt(edges[1:] * edges[:-1])[use]
    return float(np.polyfit(np.log(middle), np.log(sums[use] / counts[use]), 1)[0])


def judge(quality: Mapping[str, float], settings: QualitySettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the numbers outside their warning range, and of those outside their skip range, in ``NAMES``' order.

    A number that is not in ``quality`` is not judged; one that is NaN lies outside every range that has a bound.
    """
    limits = {name: getattr(settings, name) for name in NAMES if name in quality}
    warnings = tuple(name for name, limit in limits.items() if _outside(quality[name], limit.warn))
    skipped = tuple(name for name, limit in limits.items() if _outside(quality[name], limit.skip))
    return warnings, skipped


def _outside(value: float, bounds: Bounds) -> bool:
    low, high = bounds
    return not ((low is None or value >= low) and (high is None or value <= high))
