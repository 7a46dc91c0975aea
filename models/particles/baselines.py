"""Two pickers that need no network, to know what one is worth: differences of Gaussians, and a radial template.

Both are fitted on micrographs with known particles and never see those they are tested on. Their settings are few, so
all of a small grid are tried, and the ones with the highest average precision at 0.2 diameters are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal
from scipy.spatial import cKDTree

from .candidates import Candidates, Floats
from .fields import Field
from .matching import average_precision, join, rank
from .prepare import prepare, scale_factor, to_full, to_small

MOST = 3000
"""Candidates that are kept of one micrograph: the best."""
_RADIUS = 0.2
_STEPS = 80
Doubles: TypeAlias = npt.NDArray[np.float64]
P = TypeVar("P", "Gaussians", "Template")


@dataclass(frozen=True, slots=True, eq=False)
class Binned:
    """A prepared image, how many pixels of the micrograph make one of its own, and the particle's width in it.

    That width is what was asked for, or less where the micrograph is coarser, which is not blown up.
    """

    image: Floats
    factor: float
    width: float


@dataclass(frozen=True, slots=True)
class Gaussians:
    """Differences of Gaussians (Voss et al. 2009, DoG Picker): sd ``sigma`` minus sd ``sigma * ratio``, in diameters.

    ``sign``: 1 for particles brighter than what surrounds them, -1 for darker ones. ``apart``: smallest distance of two
    picks, in diameters. ``width_px``: the particle's width after binning.
    """

    diameter_a: float
    sigma: float = 0.2
    ratio: float = 1.6
    sign: float = -1.0
    apart: float = 0.7
    width_px: float = 20.0

    def __call__(self, image: Floats, pixel_a: float) -> Candidates:
        """The candidates of an image (ny, nx), in its pixels; their scores are in s.d. of the filtered image."""
        return self.of(_binned(image, pixel_a, self.diameter_a, self.width_px))

    def of(self, binned: Binned) -> Candidates:
        """The candidates of an image that is binned already."""
        sigma = self.sigma * binned.width
        narrow = ndimage.gaussian_filter(binned.image, sigma, mode="reflect")
        wide = ndimage.gaussian_filter(binned.image, sigma * self.ratio, mode="reflect")
        response = self.sign * (narrow - wide)
        return _maxima(response / (response.std() or 1.0), self.apart * binned.width, binned.factor)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A radially symmetric template: the mean of the training particles over all angles.

    ``profile``: float64 (k,), by distance from the centre in steps of 1/80 of a diameter. The score is the normalised
    cross-correlation with the picture in a disc of ``reach`` diameters, -1 to 1.
    """

    diameter_a: float
    profile: Doubles
    reach: float = 0.7
    apart: float = 0.7
    width_px: float = 40.0

    def __call__(self, image: Floats, pixel_a: float) -> Candidates:
        """The candidates of an image (ny, nx), in its pixels."""
        return self.of(_binned(image, pixel_a, self.diameter_a, self.width_px))

    def of(self, binned: Binned) -> Candidates:
        """The candidates of an image that is binned already."""
        response = _correlate(binned.image, *self._disc(binned.width))
        return _maxima(response, self.apart * binned.width, binned.factor)

    def _disc(self, width: float) -> tuple[Doubles, npt.NDArray[np.bool_]]:
        reach = self.reach * width
        half = math.ceil(reach)
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        distance = np.hypot(x, y)
        disc = distance <= reach
        template = np.interp(distance * _STEPS / width, np.arange(len(self.profile)), self.profile)
        return np.where(disc, template - template[disc].mean(), 0.0), disc


def fit_gaussians(fields: Sequence[Field], diameter_a: float) -> Gaussians:
    """The settings that do best on ``fields``. Raises ``ValueError`` for none."""
    settings = product((-1.0, 1.0), (0.1, 0.14, 0.2, 0.28, 0.4), (1.1, 1.6, 2.5))
    pickers = [Gaussians(diameter_a, sigma, ratio, sign) for sign, sigma, ratio in settings]
    return _best(pickers, fields, _all_binned(fields, diameter_a, pickers[0].width_px))


def fit_template(fields: Sequence[Field], diameter_a: float) -> Template:
    """The radial template of ``fields``, with the reach that does best on them. Raises ``ValueError`` for none."""
    bare = Template(diameter_a, np.zeros(1))
    binned = _all_binned(fields, diameter_a, bare.width_px)
    profile = _profile(fields, binned)
    return _best([replace(bare, profile=profile, reach=r) for r in (0.5, 0.6, 0.7, 0.85, 1.0)], fields, binned)


def _best(pickers: Sequence[P], fields: Sequence[Field], binned: Sequence[Binned]) -> P:
    """The picker of the highest average precision at 0.2 diameters, half a diameter of border not counted."""

    def precision(picker: P) -> float:
        parts = []
        for field, small in zip(fields, binned, strict=True):
            diameter, c = picker.diameter_a / field.pixel_a, picker.of(small)
            found, true = (c.x, c.y, c.score), (field.x, field.y)
            parts.append(rank(found, true, _RADIUS * diameter, shape=field.image.shape, border=diameter / 2))
        whole = join(parts)
        return average_precision(whole.score, whole.hit, whole.targets)

    return max(pickers, key=precision)


def _all_binned(fields: Sequence[Field], diameter_a: float, width_px: float) -> list[Binned]:
    return [_binned(field.image, field.pixel_a, diameter_a, width_px) for field in fields]


def _binned(image: Floats, pixel_a: float, diameter_a: float, width_px: float) -> Binned:
    target = max(diameter_a / width_px, pixel_a)
    small = prepare(image, pixel_a, target, diameter_a)
    return Binned(small, scale_factor(pixel_a, target), diameter_a / target)


def _profile(fields: Sequence[Field], binned: Sequence[Binned]) -> Doubles:
    """Mean pixel value by distance from a particle's centre, out to 1.2 diameters."""
    steps = math.ceil(1.2 * _STEPS)
    total, pixels = np.zeros(steps), np.zeros(steps)
    for field, one in zip(fields, binned, strict=True):
        small, factor, width = one.image, one.factor, one.width
        (ny, nx), half = small.shape, math.ceil(1.2 * width)
        for cx, cy in zip(to_small(field.x, factor), to_small(field.y, factor), strict=True):
            left, top = max(round(cx) - half, 0), max(round(cy) - half, 0)
            y, x = np.ogrid[top : min(top + 2 * half + 1, ny), left : min(left + 2 * half + 1, nx)]
            at = np.rint(np.hypot(y - cy, x - cx) * _STEPS / width).astype(np.intp).ravel()
            total += np.bincount(at, small[y, x].ravel(), steps)[:steps]
            pixels += np.bincount(at, minlength=steps)[:steps]
    if not pixels.any():
        raise ValueError("no particles to make a template of")
    known = np.flatnonzero(pixels)
    return np.interp(np.arange(steps), known, total[known] / pixels[known])


def _correlate(image: Floats, template: Doubles, disc: npt.NDArray[np.bool_]) -> Doubles:
    """Normalised cross-correlation of the image with a template of mean 0 within its disc; the same shape."""
    padded = np.pad(image.astype(np.float64), template.shape[0] // 2, mode="reflect")

    def sums(of: Doubles, kernel: Doubles) -> Doubles:
        found: Doubles = signal.oaconvolve(of, kernel[::-1, ::-1], mode="valid")
        return found

    n = disc.sum()
    mean = sums(padded, disc.astype(float)) / n
    variance = np.maximum(sums(padded**2, disc.astype(float)) / n - mean**2, 1e-6)
    return np.asarray(sums(padded, template) / np.sqrt(variance * n * (template**2).sum()))


def _maxima(response: npt.NDArray[np.floating[Any]], apart: float, factor: float) -> Candidates:
    """Local maxima, the best first, no two nearer than ``apart`` pixels; in pixels of the image as it was given."""
    y, x = np.nonzero(ndimage.maximum_filter(response, size=3, mode="nearest") == response)
    order = np.argsort(-response[y, x], kind="stable")[: 10 * MOST]
    x, y = x[order], y[order]
    tree = cKDTree(np.stack([x, y], 1))
    keep = np.ones(len(x), bool)
    for at, near in enumerate(tree.query_ball_point(tree.data, apart)):
        if keep[at]:
            keep[[other for other in near if other > at]] = False
    x, y = x[keep][:MOST], y[keep][:MOST]
    score = response[y, x].astype(np.float32)
    ones = np.ones(len(score), np.float32)
    return Candidates(to_full(x, factor).astype(np.float32), to_full(y, factor).astype(np.float32), score, ones)
