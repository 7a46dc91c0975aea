"""The contrast transfer function of an electron microscope.

Rohou and Grigorieff, "CTFFIND4: fast and accurate defocus estimation from electron micrographs", J. Struct. Biol. 192
(2015), equations 1 to 3; the astigmatic defocus is that of Mindell and Grigorieff, J. Struct. Biol. 142 (2003). Defocus
is positive where the lens is weaker than in focus (underfocus), so that protein comes out darker than the ice around
it. The envelope is a Gaussian, exp(-B k²/4), as crystallographers write a temperature factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PLANCK = 6.62607015e-34
ELECTRON_MASS = 9.1093837015e-31
ELEMENTARY_CHARGE = 1.602176634e-19
SPEED_OF_LIGHT = 299792458.0


def wavelength_a(voltage_kv: float) -> float:
    """De Broglie wavelength in ångström of an electron accelerated by ``voltage_kv`` kilovolts, with relativity.

    Reimer and Kohl, "Transmission electron microscopy" (2008), equation 2.5. Raises ``ValueError`` below 1 kV.
    """
    if not voltage_kv >= 1:
        raise ValueError(f"voltage_kv: {voltage_kv:g} is no microscope's; 80 to 300 are usual")
    energy = ELEMENTARY_CHARGE * voltage_kv * 1e3
    momentum = math.sqrt(2 * ELECTRON_MASS * energy * (1 + energy / (2 * ELECTRON_MASS * SPEED_OF_LIGHT**2)))
    return PLANCK / momentum * 1e10


@dataclass(frozen=True, slots=True)
class Ctf:
    """One micrograph's transfer function.

    ``defocus_u_a``, ``defocus_v_a``: in ångström, underfocus positive, along the axis at ``angle_deg`` (from x towards
    y) and at right angles to it. ``cs_mm``: spherical aberration. ``amplitude_contrast``: 0..1. ``b_factor_a2``: Å².
    """

    defocus_u_a: float
    defocus_v_a: float
    angle_deg: float = 0.0
    voltage_kv: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.07
    b_factor_a2: float = 0.0

    def __post_init__(self) -> None:
        wavelength_a(self.voltage_kv)
        if not 0 <= self.amplitude_contrast <= 1:
            raise ValueError(f"amplitude_contrast: {self.amplitude_contrast:g} is not within 0..1")

    def at(self, kx: Floats, ky: Floats) -> Floats:
        """Values -1..1 at spatial frequencies in 1/Å (float32 arrays that broadcast): -amplitude_contrast at zero."""
        square = kx * kx + ky * ky
        mean, half = (self.defocus_u_a + self.defocus_v_a) / 2, (self.defocus_u_a - self.defocus_v_a) / 2
        length = wavelength_a(self.voltage_kv)
        phase: Floats = square * np.float32(mean)
        if half:
            # k² cos(2(angle - axis)), written without an arctangent per pixel.
            axis = 2 * math.radians(self.angle_deg)
            phase += (kx * kx - ky * ky) * np.float32(half * math.cos(axis))
            phase += (kx * ky) * np.float32(2 * half * math.sin(axis))
        phase -= square * square * np.float32(0.5 * length**2 * self.cs_mm * 1e7)
        phase *= np.float32(math.pi * length)
        phase += np.float32(math.asin(self.amplitude_contrast))
        found: Floats = -np.sin(phase, dtype=np.float32)
        if self.b_factor_a2:
            found *= np.exp(np.float32(-self.b_factor_a2 / 4) * square)
        return found

    def image(self, shape: tuple[int, int], pixel_a: float) -> Floats:
        """Values at the frequencies of ``rfft2`` of an image (ny, nx): float32 (ny, nx // 2 + 1)."""
        kx, ky = frequencies(shape, pixel_a)
        return self.at(kx, ky)

    def delocalisation_a(self, pixel_a: float) -> float:
        """How far, in ångström, the finest detail that ``pixel_a`` holds is carried away from where it belongs.

        The gradient of the phase by the frequency, over 2π, at Nyquist; where the envelope has left less than 2 % of
        the amplitude the frequency is that instead.
        """
        length, defocus = wavelength_a(self.voltage_kv), max(abs(self.defocus_u_a), abs(self.defocus_v_a))
        k = 0.5 / pixel_a
        if self.b_factor_a2:
            k = min(k, math.sqrt(4 * math.log(50) / self.b_factor_a2))
        return length * defocus * k + length**3 * self.cs_mm * 1e7 * k**3


def frequencies(shape: tuple[int, int], pixel_a: float) -> tuple[Floats, Floats]:
    """Spatial frequencies in 1/Å of ``rfft2``: kx float32 (1, nx // 2 + 1), ky float32 (ny, 1)."""
    ny, nx = shape
    kx = np.fft.rfftfreq(nx, pixel_a).astype(np.float32)[None, :]
    ky = np.fft.fftfreq(ny, pixel_a).astype(np.float32)[:, None]
    return kx, ky
