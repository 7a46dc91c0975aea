"""Particles whose truth is known: a few blobs seen from some sides, turned, shifted, and noisy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
EDGE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """``at`` (k, blobs, 2): x, y of blobs from the middle, of which no two views have the same; ``width``, ``height``
    (k, blobs).
    """

    at: npt.NDArray[np.float64]
    width: npt.NDArray[np.float64]
    height: npt.NDArray[np.float64]

    def draw(self, view: npt.ArrayLike, angle: npt.ArrayLike = 0.0, shift: npt.ArrayLike = 0.0) -> Floats:
        """Views (n,) turned by ``angle`` degrees from x to y, then moved by ``shift`` (n, 2); without interpolation."""
        which = np.atleast_1d(view)
        a = np.broadcast_to(np.radians(np.asarray(angle, np.float64)), which.shape)[:, None]
        move = np.broadcast_to(np.asarray(shift, np.float64), (len(which), 2))
        x, y = self.at[which, :, 0], self.at[which, :, 1]
        u = np.cos(a) * x - np.sin(a) * y + move[:, :1]
        v = np.sin(a) * x + np.cos(a) * y + move[:, 1:]
        pixel = np.arange(EDGE) - EDGE // 2
        spread = 2 * self.width[which, :, None] ** 2
        along_x = self.height[which, :, None] * np.exp(-((pixel - u[..., None]) ** 2) / spread)
        along_y = np.exp(-((pixel - v[..., None]) ** 2) / spread)
        drawn: Floats = np.einsum("nbx,nby->nyx", along_x, along_y).astype(np.float32)
        return drawn


def views(k: int, seed: int = 0) -> Views:
    rng = np.random.default_rng(seed)
    radius, angle = rng.uniform(3, 13, (k, 5)), rng.uniform(0, 2 * np.pi, (k, 5))
    at = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    return Views(at - at.mean(1, keepdims=True), rng.uniform(2.5, 4, (k, 5)), rng.uniform(0.6, 1.4, (k, 5)))


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    images: Floats
    view: npt.NDArray[np.intp]
    angle: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]


def particles(of: Views, n: int, *, snr: float | None, seed: int = 0, shift_px: float = 3.0) -> Particles:
    """Particles of all views in equal numbers, in random order, turned and shifted; mean 0 and s.d. 1 each."""
    rng = np.random.default_rng(seed)
    view = rng.permutation(np.arange(n) % len(of.at))
    angle, shift = rng.uniform(-180, 180, n), rng.uniform(-shift_px, shift_px, (n, 2))
    images = of.draw(view, angle, shift)
    if snr is not None:
        noise = np.sqrt(images.var((1, 2), keepdims=True) / snr)
        images = images + (noise * rng.standard_normal(images.shape)).astype(np.float32)
    images -= images.mean((1, 2), keepdims=True)
    return Particles(images / images.std((1, 2), keepdims=True), view, angle, shift)


def smoothed(images: Floats, sigma: float = 2.5) -> Floats:
    """A denoiser that needs no training."""
    found: Floats = ndimage.gaussian_filter(images, (0, sigma, sigma))
    return found


def purity(labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    return sum(int(np.bincount(truth[labels == i]).max()) for i in np.unique(labels)) / len(truth)


def off(angle: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How far apart angles are, degrees, 0..180."""
    apart: npt.NDArray[np.float64] = np.abs((np.asarray(angle, float) - np.asarray(truth, float) + 180) % 360 - 180)
    return apart
