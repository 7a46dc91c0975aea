"""Particle images simulated from a density map, with their truth: what the denoiser learns from and is measured on.

Projections are central slices of the map's Fourier transform (models/particles/projector.py, which a slow real-space
projector checks), times the microscope's transfer function where that is asked for. The signal-to-noise ratio is that
of Lei and Yang (2021): the variance of the clean image over the variance of the noise, both over the whole box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..particles.ctf import Ctf
from ..particles.maps import Volume
from ..particles.projector import projector_for, random_rotations
from .working import EDGE, Floats

Ints = npt.NDArray[np.int32]
Rotations = npt.NDArray[np.float64]

_CHUNK = 512
_COLOUR_EDGE = 0.08
"""Cycles per pixel at which coloured noise has lost half of what it has more than white noise."""
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """Simulated particles, white on dark.

    ``images``: noisy, float32 (n, e, e), mean 0 and s.d. 1 each. ``clean``: the same without noise, in the same units
    (scaled and offset by the same numbers). ``orientation``: int32 (n,), the index of the view; each particle its own
    where views are random. ``rotations``: float64 (n, 3, 3), with the turn in the plane. ``angle_deg``: float32 (n,),
    that turn, from x towards y. ``shift_px``: float32 (n, 2), x and y, of the middle from pixel [e / 2, e / 2].
    ``snr``: float32 (n,).
    """

    images: Floats
    clean: Floats
    orientation: Ints
    rotations: Rotations
    angle_deg: Floats
    shift_px: Floats
    snr: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """How particles lie: ``rotations`` (n, 3, 3), and what led to them; see ``Particles``."""

    rotations: Rotations
    orientation: Ints
    angle_deg: Floats
    shift_px: Floats


def particles(
    volume: Volume,
    n: int,
    *,
    seed: int,
    snr: float | Sequence[float] | Floats,
    pixel_a: float,
    orientations: int | npt.ArrayLike | None = None,
    edge: int = EDGE,
    ctf: tuple[float, float] | None = None,
    in_plane: bool = False,
    shift_px: float = 0.0,
    colour: float = 0.0,
) -> Particles:
    """``n`` particles of ``volume``; the same seed gives the same particles, whatever the SNR.

    ``snr``: of all, or one for each. ``pixel_a``: ångström per pixel of the image. ``orientations``: so many random
    views, or given ones (m, 3, 3), taken in turn; None: a random view for each particle. ``edge``: of the image, even.
    ``ctf``: lowest and highest defocus in micrometres, drawn evenly for each particle; None: no transfer function.
    ``in_plane``: turn each by a random angle. ``shift_px``: move each by up to so many pixels in x and in y.
    ``colour``: how many times more power the noise has at low frequencies, above that of white noise.

    Raises ``ValueError`` for numbers that cannot be.
    """
    ratio = _ratios(snr, n)
    if not (math.isfinite(pixel_a) and pixel_a > 0):
        raise ValueError(f"pixel_a: {pixel_a} Å is not above 0")
    seen = views(n, seed=seed, orientations=orientations, in_plane=in_plane, shift_px=shift_px)
    clean = project(volume, seen, pixel_a=pixel_a, edge=edge, defocus_um=defoci(n, seed, ctf))
    found = noise(n, edge, seed=seed, colour=colour)
    images, clean = noisy(clean, found, ratio)
    return Particles(images, clean, seen.orientation, seen.rotations, seen.angle_deg, seen.shift_px, ratio)


def views(
    n: int,
    *,
    seed: int,
    orientations: int | npt.ArrayLike | None = None,
    in_plane: bool = False,
    shift_px: float = 0.0,
) -> Views:
    """How ``n`` particles lie; the arguments are those of ``particles``. Raises ``ValueError``."""
    rng = np.random.default_rng([seed, 1])
    if orientations is None:
        basis = random_rotations(rng, n)
    elif isinstance(orientations, int):
        if orientations < 1:
            raise ValueError(f"orientations: {orientations} is not at least 1")
        basis = random_rotations(rng, orientations)
    else:
        basis = np.asarray(orientations, np.float64).reshape(-1, 3, 3)
        if not len(basis) or not np.allclose(basis @ basis.transpose(0, 2, 1), np.eye(3), atol=1e-3):
            raise ValueError("orientations: not rotation matrices (m, 3, 3)")
    which = (np.arange(n) % max(1, len(basis))).astype(np.int32)
    rng = np.random.default_rng([seed, 2])
    angle = rng.uniform(-np.pi, np.pi, n) if in_plane else np.zeros(n)
    shift = rng.uniform(-shift_px, shift_px, (n, 2)).astype(np.float32) if shift_px else np.zeros((n, 2), np.float32)
    turn = np.zeros((n, 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 1, 0] = np.sin(angle)
    turn[:, 0, 1] = -turn[:, 1, 0]
    turn[:, 2, 2] = 1
    return Views(turn @ basis[which], which, np.rad2deg(angle).astype(np.float32), shift)


def defoci(n: int, seed: int, between_um: tuple[float, float] | None) -> npt.NDArray[np.float64] | None:
    """``n`` defocus values in micrometres, drawn evenly; ``ValueError`` where there is nothing between the ends."""
    if between_um is None:
        return None
    low, high = between_um
    if not 0 <= low <= high < 100:
        raise ValueError(f"ctf: {low:g} to {high:g} µm is no range of defocus; 0.8 to 3 is usual")
    return np.random.default_rng([seed, 3]).uniform(low, high, n)


def project(
    volume: Volume,
    seen: Views,
    *,
    pixel_a: float,
    edge: int = EDGE,
    defocus_um: npt.NDArray[np.float64] | None = None,
) -> Floats:
    """Clean images, float32 (n, edge, edge), white on dark, in any unit; see ``particles`` for the arguments."""
    # The transfer function carries detail away from the particle; a wider box keeps it from coming around.
    size = edge if defocus_um is None else 2 * (3 * edge // 4)
    first = (size - edge) // 2
    projector = projector_for(volume)
    found = np.empty((len(seen.rotations), edge, edge), np.float32)
    for start in range(0, len(found), _CHUNK):
        some = slice(start, start + _CHUNK)
        waves = projector.slices(seen.rotations[some], size, pixel_a, seen.shift_px[some])
        if defocus_um is not None:
            # Dark protein is made white, as every later step wants it.
            response = [-Ctf(1e4 * um, 1e4 * um).image((size, size), pixel_a) for um in defocus_um[some]]
            waves = waves * torch.from_numpy(np.stack(response))
        images = torch.fft.irfft2(waves, s=(size, size)).numpy()
        found[some] = images[:, first : first + edge, first : first + edge]
    return found


def noise(n: int, edge: int, *, seed: int, colour: float = 0.0) -> Floats:
    """Gaussian noise of variance 1, float32 (n, edge, edge); see ``particles`` for ``colour``."""
    if not (math.isfinite(colour) and colour >= 0):
        raise ValueError(f"colour: {colour} is not at least 0")
    white = np.random.default_rng([seed, 4]).standard_normal((n, edge, edge), np.float32)
    return coloured(white, np.full(n, colour, np.float32)) if colour else white


def coloured(white: Floats, colour: Floats) -> Floats:
    """White noise (n, e, e) with 1 + colour / (1 + (f / f0)²) times the power at frequency f, scaled to variance 1.

    ``colour``: float32 (n,). f0 is 0.08 cycles per pixel.
    """
    edge = white.shape[-1]
    square = np.fft.fftfreq(edge)[:, None] ** 2 + np.fft.rfftfreq(edge) ** 2
    extra = torch.from_numpy((1 / (1 + square / _COLOUR_EDGE**2)).astype(np.float32))
    power = 1 + torch.from_numpy(colour)[:, None, None] * extra
    # A column of rfft2 but the first and the last stands for two.
    twice = torch.full((edge // 2 + 1,), 2.0)
    twice[[0, -1]] = 1
    power = power / ((power * twice).sum((1, 2), keepdim=True) / edge**2)
    found: Floats = torch.fft.irfft2(torch.fft.rfft2(torch.from_numpy(white)) * power.sqrt(), s=(edge, edge)).numpy()
    return found


def noisy(clean: Floats, noise: Floats, snr: Floats) -> tuple[Floats, Floats]:
    """Clean images with noise of variance 1 added at ``snr`` (n,): noisy, standardised, and clean in the same units."""
    spread = clean.std((1, 2), dtype=np.float64)
    sigma = np.maximum(spread, _LEAST) / np.sqrt(snr)
    images = clean + noise * sigma[:, None, None].astype(np.float32)
    mean, scale = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True)
    return (images - mean) / scale, (clean - mean) / scale


def _ratios(snr: float | Sequence[float] | Floats, n: int) -> Floats:
    found = np.broadcast_to(np.asarray(snr, np.float32), (n,)).copy()
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise ValueError(f"snr: {snr} is not above 0")
    return found
