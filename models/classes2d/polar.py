"""What of an image does not change when the particle turns in the plane, and the angle between two images.

An image is sampled on rings around its centre of mass and Fourier transformed along each ring; turning it multiplies
order m by exp(-i m angle). The correlation of two images over all angles is then one product per order and one inverse
transform (as in rotational alignment: Penczek, Radermacher and Frank, Ultramicroscopy 40, 1992; Joyeux and Penczek,
Ultramicroscopy 92, 2002).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch

from .working import EDGE

Floats = npt.NDArray[np.float32]
Complexes = npt.NDArray[np.complex64]

RINGS = 24
ORDERS = 20
MOST_SHIFT_PX = 8.0
_SAMPLES = 64
_ANGLES = 96
_FEATURES_AT_ONCE = 128
_COMPARED_AT_ONCE = 1 << 15
_MASK_PX = (18.0, 26.0)
_BORDER_PX = 27.0
_PASSES = 3
_LEVEL_SD = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What ``features`` makes of n images.

    ``spectra`` complex64 (n, RINGS, ORDERS): angular orders 0 to ORDERS - 1 of each ring, weighted with the root of its
    radius, orders above 0 also with √2, so that the sum of squares is that of the real polar image: 1 (0 where an image
    has no contrast). ``shift`` float32 (n, 2): x and y of the centre of mass from pixel [32, 32], in pixels.
    """

    spectra: Complexes
    shift: Floats

    def __len__(self) -> int:
        return len(self.shift)


def features(denoised: Floats) -> Features:
    """Centres of mass and rotational spectra of images to compare (``compared``), float32 (n, 64, 64), particles white.

    The centre is that of what rises above the border by 1.5 times its s.d., inside a soft mask that follows it; it
    moves by at most ``MOST_SHIFT_PX``. From there the image is read bilinearly on RINGS rings half a pixel to 23.5
    pixels wide, and its mean over the disc is taken away. Raises ``ValueError`` for another shape.
    """
    if denoised.ndim != 3 or denoised.shape[1:] != (EDGE, EDGE):
        raise ValueError(f"images of shape {denoised.shape}: {EDGE} × {EDGE} pixels are needed; see working()")
    spectra = np.empty((len(denoised), RINGS, ORDERS), np.complex64)
    shift = np.empty((len(denoised), 2), np.float32)
    for first in range(0, len(denoised), _FEATURES_AT_ONCE):
        some = slice(first, first + _FEATURES_AT_ONCE)
        images = np.ascontiguousarray(denoised[some], np.float32)
        shift[some] = centres_of_mass(images)
        spectra[some] = _spectra(_on_rings(images, shift[some]))
    return Features(spectra, shift)


def centres_of_mass(images: Floats) -> Floats:
    """Where the particles are: float32 (n, 2), x and y from pixel [32, 32] in pixels, each length at most 8.

    ``images``: float32 (n, 64, 64), particles white.
    """
    at = np.arange(EDGE, dtype=np.float32) - EDGE // 2
    border = np.flatnonzero(np.hypot(at[:, None], at) > _BORDER_PX)
    ground = images.reshape(len(images), -1).take(border, axis=1)
    level = ground.mean(1) + _LEVEL_SD * ground.std(1)
    mass = np.maximum(images - level[:, None, None], 0)
    found = np.zeros((len(images), 2), np.float32)
    for _ in range(_PASSES):
        inside = _mask(at, found)
        inside *= mass
        rows, columns = inside.sum(2), inside.sum(1)
        total = np.maximum(rows.sum(1), 1e-12)
        found = np.stack([columns @ at / total, rows @ at / total], 1)
        length = np.maximum(np.hypot(found[:, 0], found[:, 1]), 1e-12)
        found *= np.minimum(1, MOST_SHIFT_PX / length)[:, None]
    return found.astype(np.float32)


def _mask(at: Floats, centre: Floats) -> Floats:
    """1 near each centre, falling with the square of the distance to 0: (n, 64, 64)."""
    inner, outer = (radius**2 for radius in _MASK_PX)
    x, y = ((outer - (at - centre[:, i : i + 1]) ** 2) / (outer - inner) for i in (0, 1))
    # outer² - x² - y², in one sum of two rows instead of a square per pixel
    mask: Floats = x[:, None, :] + (y - np.float32(outer / (outer - inner)))[:, :, None]
    return np.clip(mask, 0, 1, out=mask)


@lru_cache(maxsize=1)
def _rings() -> tuple[torch.Tensor, Floats]:
    """Places of the samples in x and y from the centre (RINGS, samples, 2), and the rings' weights (RINGS,)."""
    radius = np.arange(RINGS) + 0.5
    angle = np.arange(_SAMPLES) * (2 * np.pi / _SAMPLES)
    places = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return torch.from_numpy(places.astype(np.float32)), (radius / radius.sum()).astype(np.float32)


def _on_rings(images: Floats, shift: Floats) -> Floats:
    """Images read on rings around their centres: (n, RINGS, samples)."""
    places, _ = _rings()
    moved = places + torch.from_numpy(shift)[:, None, None] + float(EDGE // 2)
    # grid_sample with align_corners counts from -1 at the first pixel's middle to 1 at the last one's.
    found = torch.nn.functional.grid_sample(
        torch.from_numpy(images)[:, None],
        moved * (2 / (EDGE - 1)) - 1,
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    polar: Floats = found[:, 0].numpy()
    return polar


def _spectra(polar: Floats) -> Complexes:
    _, weight = _rings()
    mean = polar.mean(2) @ weight
    found = scipy.fft.rfft(polar - mean[:, None, None], axis=2, norm="ortho")[:, :, :ORDERS]
    found *= np.sqrt(weight)[:, None]
    found[:, :, 1:] *= np.float32(np.sqrt(2))
    return normalised(found)


def normalised(spectra: Complexes) -> Complexes:
    """Spectra (n, R, M) made to length 1 each; what is shorter than a millionth is nothing and becomes 0."""
    length = np.sqrt((spectra.real**2 + spectra.imag**2).sum((1, 2)))
    scale = np.where(length > 1e-6, 1 / np.maximum(length, 1e-6), 0).astype(np.float32)
    unit: Complexes = (spectra * scale[:, None, None]).astype(np.complex64, copy=False)
    return unit


def turned_spectra(spectra: Complexes, angle: npt.ArrayLike) -> Complexes:
    """Spectra (n, R, M) of the same images turned by ``angle`` (n,), degrees."""
    orders = np.arange(spectra.shape[2])
    phase = np.exp(-1j * np.radians(np.asarray(angle, np.float64))[:, None] * orders).astype(np.complex64)
    turned: Complexes = spectra * phase[:, None, :]
    return turned


def compare(spectra: Complexes, centres: Complexes) -> tuple[Floats, Floats]:
    """How like each of k centres each of n images is when turned best, and by which angle.

    ``spectra`` (n, R, M) and ``centres`` (k, R, M), both of length 1. Returns the normalised cross-correlation, float32
    (n, k) in -1..1, and the angle in degrees, float32 (n, k) in -180..180, by which the image has to be turned to lie
    as the centre does. The best of 96 angles, made finer by a parabola.
    """
    n, k = len(spectra), len(centres)
    similarity, angle = np.zeros((n, k), np.float32), np.zeros((n, k), np.float32)
    if not (n and k):
        return similarity, angle
    others = np.ascontiguousarray(centres.transpose(2, 1, 0))
    rows = max(1, _COMPARED_AT_ONCE // k)
    for first in range(0, n, rows):
        some = slice(first, first + rows)
        similarity[some], angle[some] = _best(_correlations(spectra[some], others))
    return similarity, angle


def _correlations(spectra: Complexes, others: Complexes) -> Floats:
    """Correlations at all angles: (n, k, angles), for ``others`` (M, R, k)."""
    # Orders first: each is then one product of two plain matrices, which BLAS takes.
    product = np.ascontiguousarray(spectra.conj().transpose(2, 0, 1)) @ others
    # irfft counts orders above 0 twice; here they carry √2 on both sides already.
    product[1:] *= np.float32(0.5)
    waves = np.ascontiguousarray(product.transpose(1, 2, 0))
    found: Floats = scipy.fft.irfft(waves, _ANGLES, axis=2, norm="forward")
    return found


def _best(curves: Floats) -> tuple[Floats, Floats]:
    """Top of the parabola through the highest point and its neighbours: height (n, k) and angle in degrees."""
    top = curves.argmax(2)[..., None]
    low, high, after = (np.take_along_axis(curves, (top + d) % _ANGLES, 2)[..., 0] for d in (-1, 0, 1))
    bend = low - 2 * high + after
    step = np.where(bend < -1e-9, 0.5 * (low - after) / np.minimum(bend, -1e-9), 0)
    height = np.clip(high - 0.25 * (low - after) * step, -1, 1)
    angle = ((top[..., 0] + step) * (360 / _ANGLES) + 180) % 360 - 180
    return height.astype(np.float32), angle.astype(np.float32)
