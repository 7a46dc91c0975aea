"""A micrograph as numbers: a row of the table, and the scores that a threshold decides about.

Pixels and coordinates are elsewhere. With these scores every threshold's yield is known without asking the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .common import finite
from .maps import Place
from .page import JSON

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Micrograph:
    """One micrograph, picked.

    ``id``: of these picks of this content of the file, the same after a restart. ``name``: below the watched folder;
    a new revision replaces the older one of its name. ``path``: where the image lies. ``time``: when it was picked,
    Unix seconds. ``shape``: (ny, nx). ``scores``: float32, ascending, of the candidates that a threshold makes picks
    of: those whose standard deviation lies in ``sd_range``; empty for one that was skipped for its quality.
    ``candidates``: how many there are, all. ``seconds``: of work. ``floor``: candidates below it were not kept.
    ``changed``: when its threshold was moved, Unix seconds, if it was.
    """

    id: str
    name: str
    path: Path
    time: float
    shape: tuple[int, int]
    pixel_a: float
    diameter_a: float
    box_px: int
    threshold: float
    sd_range: tuple[float, float]
    floor: float
    scores: Floats
    candidates: int
    model: str
    seconds: float | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    changed: float = 0.0
    place: Place = field(default_factory=Place)

    @property
    def picks(self) -> int:
        """Candidates that are picks at its threshold."""
        return int(above(self.scores, [self.threshold])[0])

    def row(self, full: bool) -> JSON:
        """As the browser's table has it; ``full``: its pixels in full resolution are at hand."""
        place = self.place
        return {
            "id": self.id,
            "name": self.name,
            "time": self.time,
            "picks": self.picks,
            "candidates": self.candidates,
            "threshold": finite(self.threshold),
            "seconds": finite(self.seconds),
            "quality": {name: finite(value) for name, value in self.quality.items()},
            "warnings": list(self.warnings),
            "skipped": list(self.skipped),
            "square": place.square,
            "hole": place.hole,
            "stage": None if place.stage is None else list(place.stage),
            "full": full,
        }


def above(scores: Floats, thresholds: Sequence[float]) -> Counts:
    """How many of the ascending ``scores`` are at least each threshold."""
    # Compared as float32, as ``Candidates.picked`` does: 0.35 as float64 is less than the float32 of the same name.
    at = np.searchsorted(scores, np.asarray(thresholds, np.float32), side="left")
    return np.asarray(len(scores) - at, np.int64)
