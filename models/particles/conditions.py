"""Under which conditions micrographs are simulated: microscope, noise, and what lies on the grid beside particles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

Range = tuple[float, float]
Count = tuple[int, int]

_COUNTS = ("particles", "ice", "aggregates", "overlaps", "gold")
_RANGES = ("defocus_um", "carbon")
# Name: lowest and highest value that makes sense, both allowed.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "snr": (1e-6, 1e3),
    "pixel_a": (0.1, 50),
    "distance": (0.1, 20),
    "border": (0, 5),
    "defocus_um": (0, 20),
    "astigmatism_a": (0, 1e5),
    "voltage_kv": (1, 3000),
    "cs_mm": (0, 10),
    "amplitude_contrast": (0, 1),
    "b_factor_a2": (0, 1e4),
    "solvent": (0, 0.99),
    "gradient": (0, 1),
    "carbon": (0, 0.9),
    "hot_pixels": (0, 1e6),
    "views": (0, 200),
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a simulated micrograph is drawn from. A pair is the lowest and highest value, drawn evenly per micrograph.

    ``snr``: variance of the noise-free particle image (after the contrast transfer function) within the disc of the
    particle's diameter, over the variance of the noise of one pixel at ``pixel_a``. ``shape``: (ny, nx) pixels.
    ``pixel_a``: ångström per pixel. ``particles``: how many, or as many as fit. ``distance``: least distance of two
    particles' centres, ``border``: of a centre from the picture's edge, both in particle diameters.

    The microscope: ``defocus_um`` (underfocus, µm), ``astigmatism_a`` (largest difference of the two defocus values,
    Å), ``voltage_kv``, ``cs_mm``, ``amplitude_contrast``, ``b_factor_a2`` (envelope, Å²).

    The noise: ``solvent``, the share of its variance that comes from the ice, coloured and through the contrast
    transfer function; the rest is the detector's, white. ``dose``: electrons per Å²; given, the picture is uint16
    counts with the detector's noise drawn from Poisson's distribution; None, float32 with Gaussian noise.

    Beside particles: ``gradient``, the illumination's change across the picture as a fraction of its mean; ``carbon``,
    the fraction of the picture on the carbon film; ``ice`` crystals; ``aggregates`` of 5 to 12 particles; ``overlaps``,
    pairs of particles that lie on each other; ``gold`` beads; ``hot_pixels`` (and a third as many dead ones).

    ``views``: how many orientations particles have, each turned in the plane by any angle; 0: any orientation.
    Raises ``ValueError`` for what no microscope gives.
    """

    snr: float = 0.1
    shape: tuple[int, int] = (2048, 2048)
    pixel_a: float = 2.5
    particles: Count = (100, 150)
    distance: float = 1.1
    border: float = 0.55
    defocus_um: Range = (1.2, 2.8)
    astigmatism_a: float = 300.0
    voltage_kv: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.07
    b_factor_a2: float = 100.0
    solvent: float = 0.25
    dose: float | None = None
    gradient: float = 0.0
    carbon: Range = (0.0, 0.0)
    ice: Count = (0, 0)
    aggregates: Count = (0, 0)
    overlaps: Count = (0, 0)
    gold: Count = (0, 0)
    hot_pixels: int = 0
    views: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or not all(16 <= side <= 20000 for side in self.shape):
            raise ValueError(f"shape: {self.shape} is not (ny, nx) of 16 to 20000 pixels")
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            for number in value if name in _RANGES else (value,):
                if not (math.isfinite(number) and low <= number <= high):
                    raise ValueError(f"{name}: {number} is not within {low:g} to {high:g}")
        for name in (*_COUNTS, *_RANGES):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 <= pair[0] <= pair[1]:
                raise ValueError(f"{name}: {pair} is not a lowest and a highest value from 0 on")
        if self.dose is not None and not 0.01 <= self.dose <= 1000:
            raise ValueError(f"dose: {self.dose} electrons per Å² is not within 0.01 to 1000")


PAPER = Conditions(carbon=(0.0, 0.12), ice=(2, 5), aggregates=(0, 1), gradient=0.1)

NAMED: Mapping[str, Conditions] = MappingProxyType(
    {
        # As the paper's Fig. 6: 70S particles about 104 pixels wide, some carbon and contaminants.
        "paper": PAPER,
        "clean": Conditions(),
        "crowded": replace(PAPER, particles=(330, 380), distance=0.8, overlaps=(10, 20), carbon=(0.0, 0.0)),
        "carbon": replace(PAPER, particles=(60, 100), carbon=(0.3, 0.5)),
        "contaminated": replace(PAPER, ice=(15, 25), aggregates=(3, 6), overlaps=(3, 8), gold=(0, 6), hot_pixels=60),
        "empty": replace(PAPER, particles=(0, 0), aggregates=(0, 0), ice=(0, 4), carbon=(0.0, 0.15)),
        # Small and quick, not square: for tests and the demonstration.
        "small": replace(
            PAPER, snr=0.4, shape=(1024, 960), pixel_a=5.0, particles=(30, 45), ice=(1, 3), aggregates=(0, 1)
        ),
        # Counts as a direct detector writes them.
        "counts": replace(PAPER, dose=8.0, hot_pixels=40),
    }
)


def named(name: str, **changes: Any) -> Conditions:
    """Named conditions with some values changed. Raises ``ValueError`` for an unknown name or value."""
    if name not in NAMED:
        raise ValueError(f"conditions {name!r} are unknown; known are {', '.join(NAMED)}")
    unknown = set(changes) - {f.name for f in fields(Conditions)}
    if unknown:
        raise ValueError(f"conditions have no {', '.join(sorted(unknown))}")
    return replace(NAMED[name], **changes)
