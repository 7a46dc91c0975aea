"""From a micrograph as it was read to what the network sees: one pixel size, flat background, mean 0 and s.d. 1.

Training and picking call ``prepare``, so that they cannot differ. The steps one by one: ``rescale``, ``normalise``.

Rescaling low-passes with a windowed sinc (Lanczos' of three lobes) and samples, along one axis after the other: what
Fourier cropping does, but with exactly the factor that was asked for (Fourier cropping can only give n / whole number),
without wrapping one edge into the other, and with a cost that grows with the pixels only. Plain area binning leaves a
pattern in the noise where the factor is no whole number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from .candidates import Floats

LARGEST_UPSCALING = 1.5
LARGEST_BINNING = 32.0
CLIP_RAW = 10.0
"""Pixels further from the median than this many (robust) standard deviations are cut off before rescaling: a hot pixel
or an X-ray would ring."""
CLIP = 6.0
"""Pixels are cut off at this many standard deviations in the end."""
FLATTEN_DIAMETERS = 2.0
"""Standard deviation, in particle diameters, of the Gaussian that is taken as the background."""
_LOBES = 3
_SAMPLE = 500
_BLOCK = 512


def scale_factor(pixel_a: float, target_a: float) -> float:
    """How many pixels of the micrograph make one pixel of ``target_a`` Å; 1 where they differ by less than 1e-4.

    Raises ``ValueError`` for pixel sizes that are not positive, and for factors outside 1/1.5 to 32.
    """
    for name, value in (("pixel size", pixel_a), ("target pixel size", target_a)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: {value} Å is not above 0; state the right one")
    factor = target_a / pixel_a
    if not 1 / LARGEST_UPSCALING <= factor <= LARGEST_BINNING:
        raise ValueError(
            f"pixel size: {pixel_a:.4g} Å, to be rescaled to {target_a:.4g} Å, is a factor of {factor:.3g}; between "
            f"{1 / LARGEST_UPSCALING:.3g} and {LARGEST_BINNING:g} is possible: check the pixel size, or take another "
            "bundle"
        )
    return 1.0 if abs(factor - 1) < 1e-4 else factor


def to_full(small: npt.ArrayLike, factor: float) -> npt.NDArray[np.float64]:
    """Coordinates of the micrograph for those of the rescaled one: (x + 0.5) * factor - 0.5, whole = pixel middles.

    Of any shape, in pixels; ``factor``: pixels of the micrograph per pixel of the rescaled one.
    """
    return (np.asarray(small, np.float64) + 0.5) * factor - 0.5


def to_small(full: npt.ArrayLike, factor: float) -> npt.NDArray[np.float64]:
    """Coordinates of the rescaled micrograph (any shape, pixels) for those of the micrograph: ``to_full`` backwards."""
    return (np.asarray(full, np.float64) + 0.5) / factor - 0.5


def prepare(image: npt.NDArray[Any], pixel_a: float, target_a: float, diameter_a: float) -> Floats:
    """What the network sees of a micrograph: ``rescale`` to ``target_a``, then ``normalise``.

    ``image``: (ny, nx), any real dtype. Gives float32 (floor(ny / factor), floor(nx / factor)), see ``scale_factor``.
    ``diameter_a``: the particle's diameter in Å. Raises ``ValueError`` as those two do.
    """
    return normalise(rescale(image, pixel_a, target_a), diameter_px=diameter_a / target_a)


def rescale(image: npt.NDArray[Any], pixel_a: float, target_a: float) -> Floats:
    """Rescale ``image`` (ny, nx) of ``pixel_a`` to ``target_a`` Å per pixel; a new array, contiguous.

    Pixels that are not finite become the median, outliers are cut off (``CLIP_RAW``). Pixel i of the result lies at
    ``to_full(i, factor)``; what is left over at the end, less than a pixel, is dropped. Raises ``ValueError`` for
    arrays that are not (ny, nx) real numbers, images without a finite pixel, and as ``scale_factor`` does.
    """
    factor = scale_factor(pixel_a, target_a)
    _check(image)
    low, high, middle = _limits(image)
    if factor == 1:
        return _cleaned(image, low, high, middle)
    ny, nx = image.shape
    rows, columns = _resampler(ny, factor), _resampler(nx, factor)
    thin = np.empty((rows.shape[0], nx), np.float32)
    # Column by column: the whole image as float32 would be 380 MB for the largest.
    for first in range(0, nx, _BLOCK):
        block = slice(first, first + _BLOCK)
        thin[:, block] = rows @ _cleaned(image[:, block], low, high, middle)
    return np.ascontiguousarray((columns @ np.ascontiguousarray(thin.T)).T)


def normalise(image: npt.NDArray[Any], *, diameter_px: float | None = None) -> Floats:
    """Flatten slow gradients, and bring the micrograph to mean 0 and s.d. 1, both robust; a new float32 (ny, nx).

    The background is the best-fitting surface of second order (a Gaussian alone leaves the ends of a gradient, where it
    mirrors the image), and then the image under a Gaussian (three box filters) of ``FLATTEN_DIAMETERS`` particle
    diameters, or of an eighth of the shorter edge where ``diameter_px`` (pixels of this image) is None. Mean and s.d.
    are those of the pixels within five (robust) s.d. of the median; what lies beyond ``CLIP`` in the end is cut off.
    Pixels that are not finite become the median. Raises ``ValueError`` for constant images and for arrays that are not
    (ny, nx) real numbers.
    """
    _check(image)
    flat = _cleaned(image, *_limits(image))
    centre, spread = robust(flat)
    # Rescaling a constant image leaves rounding errors, some 1e-7 of its value: nothing to find in these either.
    if not spread > 1e-6 * abs(centre):
        raise ValueError("image: every pixel has the same value; there is nothing to find")
    flat -= centre
    flat /= spread
    np.clip(flat, -CLIP, CLIP, out=flat)
    _take_surface(flat)
    flat -= _background(flat, FLATTEN_DIAMETERS * diameter_px if diameter_px else min(flat.shape) / 8)
    centre, spread = robust(flat)
    flat -= centre
    flat /= spread or 1.0
    return np.clip(flat, -CLIP, CLIP, out=flat)


def robust(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of the pixels within five robust s.d. of the median, of an image (ny, nx).

    The robust s.d. is half of what lies between the 15.9th and 84.1th percentile, of up to 250 000 pixels. Counts of a
    very low dose, of which most are 0, have none: then all pixels count.
    """
    centre, spread = _moments(_sample(image).astype(np.float64))
    if spread > 0:
        return centre, spread
    return float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))


def _moments(sample: npt.NDArray[np.float64]) -> tuple[float, float]:
    """What ``robust`` says of a sample."""
    low, middle, high = np.percentile(sample, (15.865, 50, 84.135))
    half = (high - low) / 2
    near = sample[np.abs(sample - middle) <= 5 * half] if half > 0 else sample
    return float(near.mean()), float(near.std())


def _check(image: npt.NDArray[Any]) -> None:
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"image: its shape {image.shape} is not (ny, nx)")
    if image.dtype.kind not in "biuf":
        raise ValueError(f"image: {image.dtype} is not a dtype of real numbers")


def _sample(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Up to about 250 000 pixels, evenly spread."""
    ny, nx = image.shape
    return image[:: max(1, ny // _SAMPLE), :: max(1, nx // _SAMPLE)].ravel()


def _limits(image: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Lowest and highest pixel that is believed, and the median."""
    sample = _sample(image)
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        sample = image[np.isfinite(image)]
    if not len(sample):
        raise ValueError("image: not one pixel is a finite number")
    middle = float(np.median(sample))
    spread = _moments(sample.astype(np.float64))[1]
    if not spread > 0:  # all the sampled pixels are equal: the few that differ may be all there is
        return -math.inf, math.inf, middle
    return middle - CLIP_RAW * spread, middle + CLIP_RAW * spread, middle


def _cleaned(image: npt.NDArray[Any], low: float, high: float, middle: float) -> Floats:
    """A float32 copy, outliers cut off and the median where it is not finite."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is an outlier anyway
        clean: Floats = image.astype(np.float32)
    if image.dtype.kind == "f":
        # NaN passes through a clip; an infinity would be taken for a bright pixel.
        clean[~np.isfinite(clean)] = middle
    return np.clip(clean, low, high, out=clean)


def _resampler(n: int, factor: float) -> sparse.csr_matrix:
    """The (floor(n / factor), n) matrix that low-passes and samples one axis; every row adds up to 1."""
    m = math.floor(n / factor + 1e-9)
    if m < 1:
        raise ValueError(f"image: {n} pixels are less than one after binning by {factor:.3g}")
    width = max(factor, 1.0)  # in upscaling nothing has to be filtered away
    centre = to_full(np.arange(m), factor)
    first = np.floor(centre - _LOBES * width).astype(np.intp)
    at = first[:, None] + np.arange(math.ceil(2 * _LOBES * width) + 2)
    t = (at - centre[:, None]) / width
    weight = np.where(np.abs(t) < _LOBES, np.sinc(t) * np.sinc(t / _LOBES), 0.0)
    weight[(at < 0) | (at >= n)] = 0
    weight /= weight.sum(axis=1, keepdims=True)
    row, tap = np.nonzero(weight)
    return sparse.csr_matrix((weight[row, tap].astype(np.float32), (row, at[row, tap])), shape=(m, n))


def _take_surface(image: Floats) -> None:
    """Take away the surface of second order that fits an evenly spread sample best."""
    ny, nx = image.shape
    y, x = (np.linspace(-1, 1, n) for n in (ny, nx))
    rows, columns = slice(None, None, max(1, ny // _SAMPLE)), slice(None, None, max(1, nx // _SAMPLE))
    # Products of 1, t and t² - mean along each axis are orthogonal on a full grid: each is fitted by itself.
    down, across = _orders(y[rows]), _orders(x[columns])
    found = down @ image[rows, columns].astype(np.float64) @ across.T
    found /= np.outer((down**2).sum(1), (across**2).sum(1)) + 1e-30
    found[np.add.outer(range(3), range(3)) > 2] = 0
    at_y, at_x = _orders(y, y[rows]), _orders(x, x[columns])
    image -= ((at_y.T @ found).astype(np.float32)) @ at_x.astype(np.float32)


def _orders(t: npt.NDArray[np.float64], sample: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float64]:
    """The polynomials of order 0, 1, 2 that are orthogonal on ``sample`` (default: ``t``), at ``t``: (3, n)."""
    sample = t if sample is None else sample
    middle = sample.mean()
    square = (sample - middle) ** 2
    return np.stack([np.ones_like(t), t - middle, (t - middle) ** 2 - square.mean()])


def _background(image: Floats, sigma: float) -> Floats:
    """The image under a Gaussian: three box filters of the same total variance, whose cost is that of none."""
    width = 2 * round((math.sqrt(4 * sigma**2 + 1) - 1) / 2) + 1
    blurred = image.copy()
    for _ in range(
        3
    ):  # each axis is filtered line by line, so that the result may take the place of what it is made of
        ndimage.uniform_filter(blurred, width, output=blurred, mode="reflect")
    return blurred
