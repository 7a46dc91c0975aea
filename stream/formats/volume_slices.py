"""Three slices through the middle of a tomogram, for people: each the mean of some planes, binned, in grey."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from .volumes import Floats, Shape, VolumeFile

Bytes: TypeAlias = npt.NDArray[np.uint8]
LARGEST_PX = 1024
#: What a slice is the mean of, in ångström: about half a ribosome, so that noise goes and shapes stay.
THICK_A = 100.0
SMOOTH_A = 10.0
_GREYS = (0.3, 99.7)
_MIDDLE = 128


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """Central slices of the tomogram as it is in the file: ``xy`` (y, x), ``xz`` (z, x), ``yz`` (z, y), uint8.

    ``factor``: voxels of the file along a pixel's edge. ``at``: the middle of the planes they are means of, (x, y, z).
    """

    xy: Bytes
    xz: Bytes
    yz: Bytes
    factor: int
    at: tuple[int, int, int]


def central_slices(volume: VolumeFile, largest: int = LARGEST_PX) -> tuple[Slices, Floats]:
    """The slices, and the one across z as float32 (y, x). No edge is longer than ``largest`` pixels.

    The last plane of the file is read on the way, and all others are touched. Raises what ``volume.read`` does.
    """
    factor = max(1, math.ceil(max(volume.shape) / largest))
    thick = max(1, round(THICK_A / volume.voxel_a))
    means = [_smooth(_mean(volume, axis, thick, factor), SMOOTH_A / volume.voxel_a / factor) for axis in (0, 1, 2)]
    z, y, x = (n // 2 for n in volume.shape)
    good = means[0][np.isfinite(means[0])]
    low, high = np.percentile(good, _GREYS) if good.size else (0.0, 1.0)
    xy, xz, yz = (_grey(mean, float(low), float(high)) for mean in means)
    return Slices(xy, xz, yz, factor, (x, y, z)), np.nan_to_num(means[0], nan=0.0, posinf=0.0, neginf=0.0)


def _mean(volume: VolumeFile, axis: int, thick: int, factor: int) -> Floats:
    """The mean over the planes in the middle of ``axis``, binned; NaN where no voxel is a number."""
    n = volume.shape[axis]
    first = max(0, n // 2 - thick // 2)
    span = (first, min(n, first + thick))
    rows, columns = (at for at in range(3) if at != axis)
    out = np.empty((volume.shape[rows] // factor or 1, volume.shape[columns] // factor or 1), np.float32)
    # A band of the picture's rows at a time: of a slice along y or x, the whole would be gigabytes in one array.
    step = max(1, (1 << 24) // (volume.shape[columns] * (span[1] - span[0]) * factor))
    for start in range(0, len(out), step):
        stop = min(len(out), start + step)
        low, high = [0, 0, 0], list(volume.shape)
        low[axis], high[axis] = span
        low[rows], high[rows] = start * factor, min(volume.shape[rows], stop * factor)
        part = volume.read(_three(low), _three(high))
        out[start:stop] = _binned(_finite_mean(part, axis), factor, out[start:stop].shape)
    return out


def _finite_mean(part: Floats, axis: int) -> Floats:
    good = np.isfinite(part)
    if good.all():
        return np.asarray(part.mean(axis, dtype=np.float32))
    total = np.where(good, part, np.float32(0)).sum(axis, dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / good.sum(axis), np.float32)


def _smooth(mean: Floats, sd: float) -> Floats:
    """Less noise, for the eye; a pixel that is no number stays alone."""
    good = np.isfinite(mean)
    smooth = gaussian_filter(np.where(good, mean, mean[good].mean() if good.any() else 0), sd)
    return np.where(good, smooth, mean).astype(np.float32)


def _binned(image: Floats, factor: int, shape: tuple[int, ...]) -> Floats:
    if factor == 1:
        return image
    ny, nx = shape
    block = image[: ny * factor, : nx * factor]
    if block.size < ny * nx * factor * factor:
        return np.full(shape, block.mean(), np.float32)  # an axis shorter than one pixel
    return np.asarray(block.reshape(ny, factor, nx, factor).mean((1, 3)), np.float32)


def _grey(mean: Floats, low: float, high: float) -> Bytes:
    scaled = (mean - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-20))
    grey = np.clip(np.nan_to_num(scaled, nan=_MIDDLE, posinf=255, neginf=0), 0, 255)
    return np.asarray(grey, np.uint8)


def _three(values: list[int]) -> Shape:
    a, b, c = values
    return a, b, c
