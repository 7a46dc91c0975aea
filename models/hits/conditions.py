"""Under which conditions patterns are simulated: ranges of the experiment, and what a real detector adds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Ranges from which every shot, and every block of 100 shots, draws. ``None`` or 0 switches an effect off.

    Of each shot: ``photons`` that one particle scatters onto the whole detector (log-uniform; a cluster scatters what
    its coherent sum gives); ``speckles`` across the detector for one particle (side × q-range × diameter, log-uniform);
    ``edge_angle_rad``: scattering angle in the middle of the detector's side (log-uniform), which sets the curvature;
    ``spacing`` of clusters in units of the contact distance; ``orientation`` of the particles in a cluster: ``own``,
    ``common`` or ``mixed``; ``residual_photons`` of smooth scatter in a shot that missed (log-uniform), of which a
    fraction ``empty`` has none at all.

    Of each block, being properties of a detector: ``beam_stop_px`` radius; ``missing_modules`` probability that
    modules are missing; ``gap_px`` width of the gap between modules; ``dead_pixels`` fraction; ``off_centre_px``
    largest shift of the beam; ``readout_photons`` standard deviation of the noise before rounding to photons;
    ``background_photons`` of smooth scatter in every shot; ``streak_photons`` of a jet's streak in some shots;
    ``fluence_spread`` relative standard deviation of the pulse energy. ``each`` is the probability per block that each
    effect that is switched on takes part.
    """

    photons: Range = (1e4, 1e6)
    speckles: Range = (8.0, 16.0)
    edge_angle_rad: Range = (0.05, 0.3)
    spacing: Range = (1.0, 1.0)
    orientation: str = "mixed"
    residual_photons: Range = (10.0, 3e4)
    empty: float = 0.2
    beam_stop_px: Range | None = None
    missing_modules: float = 0.0
    gap_px: Range | None = None
    dead_pixels: float = 0.0
    off_centre_px: float = 0.0
    readout_photons: Range | None = None
    background_photons: Range | None = None
    streak_photons: Range | None = None
    fluence_spread: float = 0.0
    each: float = 1.0


EFFECTS = (
    "beam_stop_px",
    "missing_modules",
    "gap_px",
    "dead_pixels",
    "off_centre_px",
    "readout_photons",
    "background_photons",
    "streak_photons",
    "fluence_spread",
)
_DEFAULTS = {f.name: f.default for f in fields(Conditions)}
PAPER = Conditions()
DETECTOR = Conditions(
    beam_stop_px=(2.0, 7.0),
    missing_modules=0.3,
    gap_px=(1.0, 6.0),
    dead_pixels=0.01,
    off_centre_px=3.0,
    readout_photons=(0.1, 0.35),
    background_photons=(3e2, 1e4),
    streak_photons=(1e2, 1e4),
    fluence_spread=0.3,
)


def _only(*names: str) -> Conditions:
    return replace(PAPER, **{name: getattr(DETECTOR, name) for name in names})


PRESETS: dict[str, Conditions] = {
    "paper": PAPER,
    "detector": DETECTOR,
    "mixed": replace(DETECTOR, each=0.4, photons=(3e3, 1e6)),
    "background": _only("background_photons", "streak_photons"),
    "gaps": _only("gap_px", "missing_modules", "dead_pixels"),
    "beam_stop": _only("beam_stop_px"),
    "noise": _only("readout_photons"),
    "off_centre": _only("off_centre_px"),
    "low_fluence": replace(PAPER, photons=(1e3, 1e4)),
    "separated": replace(PAPER, spacing=(1.2, 2.0)),
}


def preset(name: str) -> Conditions:
    """The conditions of that name; ``ValueError`` names those that exist."""
    if name not in PRESETS:
        raise ValueError(f"conditions {name!r}: unknown; choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def for_block(rng: np.random.Generator, conditions: Conditions) -> Conditions:
    """The conditions of one block: each effect stays with probability ``each``. Draws the same number always."""
    kept = rng.random(len(EFFECTS)) < conditions.each
    off: dict[str, Any] = {name: _DEFAULTS[name] for name, keep in zip(EFFECTS, kept, strict=True) if not keep}
    return replace(conditions, **off)


def log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    """One number between the bounds, its logarithm uniform."""
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
