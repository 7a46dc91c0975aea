"""What a micrograph shows where no particle is: ice, carbon film, crystals, gold, through the microscope's optics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from .conditions import Conditions
from .ctf import Ctf, frequencies
from .scenery import Blob, stamp

Floats = npt.NDArray[np.float32]

SOLVENT_LENGTH_A = 10.0
CARBON_LENGTH_A = 40.0
CARBON_GRAIN = 1.0  # s.d. of the carbon's texture, in those of the noise
CARBON_ABSORBS = 1.5  # how much darker the film is, likewise
CARBON_PHASE = 4.0
ICE_ABSORBS = 3.0
ICE_PHASE = 6.0
GOLD_ABSORBS = 8.0


def background(
    rng: np.random.Generator, c: Conditions, ctf: Ctf, film: Floats | None, blobs: list[tuple[str, Blob]]
) -> Floats:
    """Solvent, carbon, ice and gold, (ny, nx) in standard deviations of the noise, as the microscope shows them."""
    # Wider than the picture, so that what a Fourier transform carries around the edge is cut off.
    margin = 2 * int(np.ceil(ctf.delocalisation_a(c.pixel_a) / c.pixel_a)) + 8
    ny, nx = (scipy.fft.next_fast_len(side + 2 * margin, real=True) for side in c.shape)
    kx, ky = frequencies((ny, nx), c.pixel_a)
    transfer, square = ctf.at(kx, ky), kx * kx + ky * ky
    grain = rng.standard_normal((ny, nx), dtype=np.float32)
    wave = scipy.fft.rfft2(grain, overwrite_x=True) * _shaped(square, transfer, SOLVENT_LENGTH_A, nx, c.solvent)
    dark, phase = np.zeros(c.shape, np.float32), np.zeros(c.shape, np.float32)
    for kind, blob in blobs:
        absorbs, shifts = (GOLD_ABSORBS, 0.0) if kind == "gold" else (ICE_ABSORBS, ICE_PHASE)
        stamp(dark, np.float32(absorbs) * blob.thickness, blob.x, blob.y)
        stamp(phase, np.float32(shifts) * blob.thickness, blob.x, blob.y)
    if film is not None:
        dark += np.float32(CARBON_ABSORBS) * film
        phase += np.float32(CARBON_PHASE) * film
        # Its own random numbers: those of the ice would make the carbon's grain a copy of it, which no film is.
        grain = rng.standard_normal((ny, nx), dtype=np.float32) * _widened(film, (ny, nx), margin)
        wave += scipy.fft.rfft2(grain, overwrite_x=True) * _shaped(
            square, transfer, CARBON_LENGTH_A, nx, CARBON_GRAIN**2
        )
    if blobs or film is not None:
        wave += scipy.fft.rfft2(_widened(phase, (ny, nx), margin), overwrite_x=True) * transfer
    whole: Floats = scipy.fft.irfft2(wave, s=(ny, nx), overwrite_x=True)
    return whole[margin : margin + c.shape[0], margin : margin + c.shape[1]] - dark


def _widened(image: Floats, shape: tuple[int, int], margin: int) -> Floats:
    """The image continued by its edge pixels to ``shape``, ``margin`` of them at the top and at the left."""
    widths = [(margin, side - margin - own) for side, own in zip(shape, image.shape, strict=True)]
    return np.pad(image, widths, mode="edge")


def _shaped(square: Floats, transfer: Floats, length_a: float, nx: int, variance: float) -> Floats:
    """The transfer function of noise of a given length, such that white noise through it has this variance."""
    shaped = transfer / np.sqrt(1 + np.float32(length_a**2) * square)
    power = shaped * shaped
    # All columns but the first (and, of an even width, the last) stand for two frequencies each.
    total = 2 * power.sum() - power[:, 0].sum() - (power[:, -1].sum() if nx % 2 == 0 else 0)
    found: Floats = shaped * np.float32(np.sqrt(variance * nx * len(square) / max(float(total), 1e-30)))
    return found
