"""What is known of a micrograph when its picks are written: the one value that every writer of picks takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ....models.particles.candidates import Candidates


@dataclass(frozen=True, slots=True, eq=False)
class PickedMicrograph:
    """One micrograph, picked.

    ``name``: its path below the watched folder, with forward slashes; files are named by it. ``path``: where it lies.
    ``revision``: 0, or how many times it has changed since it was first picked. ``shape``: (ny, nx) as read.
    ``pixel_a``: ångström per pixel. ``candidates`` above the low floor, and which of them are ``picked`` at
    ``threshold``. ``diameter_a``: the particle's, in ångström. ``box_px``: edge of a particle's box in pixels of the
    micrograph, even. ``quality``: numbers by name; ``warnings``: which of them lie outside their warning range;
    ``skipped``: which lie outside their skip range (then the micrograph is rejected and nothing is picked).
    ``particles``: float32 (picks, size, size), one per pick in order, normalised, of ``particle_pixel_a`` ångström per
    pixel; None where none are kept. ``info``: what the microscope said, by name: ``voltage_kv``,
    ``spherical_aberration_mm``, ``amplitude_contrast``, ``dose_e_a2``, ``acquired`` (ISO 8601), ``grid_square``,
    ``foil_hole``, ``stage_x_um``, ``stage_y_um`` …, where known. ``sd_range``: the band of standard deviations that
    picks lie in. ``floor``: candidates with a lower score were not kept. ``configured``: the threshold by
    configuration, where ``threshold`` may be one that was moved.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    pixel_a: float
    candidates: Candidates
    picked: npt.NDArray[np.bool_]
    threshold: float
    model: str
    model_sha256: str
    diameter_a: float
    box_px: int
    quality: Mapping[str, float]
    revision: int = 0
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    particles: npt.NDArray[np.float32] | None = None
    particle_pixel_a: float = 0.0
    info: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    sd_range: tuple[float, float] = (0.0, math.inf)
    floor: float = 0.0
    configured: float | None = None

    @property
    def picks(self) -> Candidates:
        """The candidates that are picks, the best first."""
        return self.candidates.take(self.picked)
