"""Histogram equalisation of denoised images, the last step of CDAE (Lei and Yang 2021, section 3.4, Algorithm 1).

A denoiser's grey values crowd into a narrow range; equalised, each grey value is the share of the image's pixels that
are not brighter (Gonzalez and Woods, Digital Image Processing, section 3.3). Order is kept, contrast is not: equalised
images are for looking at and for the paper's scores, never for averages.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def equalised(images: npt.ArrayLike, bins: int = 256) -> Floats:
    """Each of ``images`` (n, y, x) on its own, as float32 0..1: the cumulative histogram of ``bins`` equal bins.

    Values between the middles of two bins are interpolated linearly. A constant image becomes 0. Raises ``ValueError``
    for images of another shape, values that are not finite, or fewer than 2 bins.
    """
    given = np.asarray(images, np.float32)
    if given.ndim != 3 or bins < 2:
        raise ValueError(f"equalised: images of shape {given.shape} in {bins} bins; give (n, y, x) and 2 bins or more")
    if not np.isfinite(given).all():
        raise ValueError("equalised: an image holds values that are not finite; leave it out first")
    out = np.zeros_like(given)
    for image, equal in zip(given, out, strict=True):
        low, high = float(image.min()), float(image.max())
        if high > low:
            _equalise(image, equal, np.linspace(low, high, bins + 1))
    return out


def _equalise(image: Floats, out: Floats, edges: npt.NDArray[np.float64]) -> None:
    bins = len(edges) - 1
    width = (edges[-1] - edges[0]) / bins
    # Bins of equal width need no search, which takes most of numpy's histogram.
    at = np.minimum(((image.ravel() - edges[0]) / width).astype(np.intp), bins - 1)
    share = np.cumsum(np.bincount(at, minlength=bins)) / image.size
    out[...] = np.interp(image, (edges[1:] + edges[:-1]) / 2, share)
