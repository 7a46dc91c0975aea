"""How far from the beam a pixel is, in terms of the sample: the momentum transfer q and the resolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

PLANCK_EV_M = 1.239841984e-6  # photon energy in eV times wavelength in m (CODATA 2018)


def wavelength_m(photon_energy_ev: float) -> float:
    """Wavelength in metres of photons of this energy in eV."""
    return PLANCK_EV_M / photon_energy_ev


def momentum_transfer(radius_m: npt.NDArray[Any] | float, distance_m: float, wavelength: float) -> npt.NDArray[Any]:
    """Length of q in 1/m, 4 pi / wavelength sin(theta/2), at ``radius_m`` from the beam, ``distance_m`` downstream.

    theta is the full scattering angle, atan(radius / distance); ``wavelength`` is in metres. Keeps the shape of the
    radius.
    """
    theta = np.arctan2(radius_m, distance_m)
    return np.asarray(4 * math.pi / wavelength * np.sin(theta / 2))


def q_map(
    shape: tuple[int, int],
    centre: tuple[float, float],
    pixel_size_m: tuple[float, float],
    distance_m: float,
    wavelength: float,
) -> npt.NDArray[np.float32]:
    """Length of q in 1/m at the centre of each pixel of a flat detector: float32 of ``shape`` (y, x).

    ``centre`` (y, x) is the beam in pixels, the first pixel reaching from 0 to 1; ``pixel_size_m`` is (y, x).
    Resolution (the period of a grating that scatters there) is 2 pi / q.
    """
    y = (np.arange(shape[0]) + 0.5 - centre[0]) * pixel_size_m[0]
    x = (np.arange(shape[1]) + 0.5 - centre[1]) * pixel_size_m[1]
    return momentum_transfer(np.hypot(y[:, None], x), distance_m, wavelength).astype(np.float32)
