"""Micrographs counted: by score, at every threshold, and what that is for a session together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .micrographs import Counts, Micrograph, above
from .page import JSON

BINS = 200
STEPS = 100
LAST = 10
HOUR_S = 3600.0
EDGES = tuple(round(at / BINS, 6) for at in range(BINS + 1))

Ints = npt.NDArray[np.int32]
Grid = tuple[float, ...]


def grid_from(floor: float) -> Grid:
    """Thresholds from the floor up to 1, evenly spaced."""
    return tuple(round(floor + (1.0 - floor) * step / STEPS, 6) for step in range(STEPS + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """A micrograph with its counts: ``picks`` at its threshold, by bin of score, at each threshold of a grid."""

    micrograph: Micrograph
    picks: int
    bins: Ints
    at_least: Ints

    @classmethod
    def of(cls, found: Micrograph, grid: Grid, model: str) -> Counted:
        """Its counts. Picks of another ``model`` are the same at every threshold: its scores are on another scale."""
        if found.model != model:
            return cls(found, found.picks, np.zeros(BINS, np.int32), np.full(STEPS + 1, found.picks, np.int32))
        bins = np.diff(len(found.scores) - above(found.scores, EDGES))
        # The last bin has its upper edge, too.
        bins[-1] = above(found.scores, [EDGES[-2]])[0]
        return cls(found, found.picks, bins.astype(np.int32), above(found.scores, grid).astype(np.int32))

    def moved(self, threshold: float, when: float) -> Counted:
        """At another threshold; what is counted of its scores stays."""
        found = replace(self.micrograph, threshold=threshold, changed=when)
        return replace(self, micrograph=found, picks=found.picks)


def _none(n: int) -> Counts:
    return np.zeros(n, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """Sums over the micrographs that are no longer in the table; their scores are gone."""

    micrographs: int = 0
    particles: int = 0
    bins: Counts = field(default_factory=lambda: _none(BINS))
    at_least: Counts = field(default_factory=lambda: _none(STEPS + 1))

    def plus(self, one: Counted) -> Left:
        """With one more."""
        return Left(
            self.micrographs + 1, self.particles + one.picks, self.bins + one.bins, self.at_least + one.at_least
        )

    def on(self, grid: Grid, before: Grid) -> Left:
        """Counted at other thresholds, as far as the curve tells."""
        at_least = np.interp(grid, before, self.at_least).round().astype(np.int64)
        return replace(self, at_least=at_least)

    def at(self, threshold: float, grid: Grid) -> Left:
        """At another threshold, as far as the curve tells."""
        return replace(self, particles=int(np.interp(threshold, grid, self.at_least).round()))

    def of_another_model(self) -> Left:
        """No threshold changes them any more."""
        return Left(self.micrographs, self.particles, at_least=np.full(STEPS + 1, self.particles, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """All micrographs together: ``picks`` and ``median`` per micrograph at each threshold; candidates by score.

    ``run_bins``: those of the micrographs since the run began.
    """

    picks: Counts
    median: npt.NDArray[np.float64]
    bins: Counts
    run_bins: Counts


def summed(rows: Sequence[Counted], left: Left, run_since: float | None) -> Sums:
    """The sums over the rows and what left the table. ``run_since``: Unix seconds; None: the run is the session."""
    at_least = _stacked((one.at_least for one in rows), STEPS + 1)
    median = np.median(at_least, axis=0) if len(rows) else np.zeros(STEPS + 1)
    bins = _stacked((one.bins for one in rows), BINS).sum(axis=0, dtype=np.int64) + left.bins
    run_bins = bins
    if run_since is not None:
        late = (one.bins for one in rows if one.micrograph.time >= run_since)
        run_bins = _stacked(late, BINS).sum(axis=0, dtype=np.int64)
    return Sums(at_least.sum(axis=0, dtype=np.int64) + left.at_least, median, bins, run_bins)


def _stacked(parts: Iterable[Ints], columns: int) -> Ints:
    return np.array(list(parts), np.int32).reshape(-1, columns)


def trend(rows: Sequence[Counted], left: Left, now: float) -> JSON:
    """The field ``yield`` of the snapshot. Micrographs that were skipped count with 0 picks, as in the metrics.

    ``per_hour``: micrographs, over the last hour or the part of it since the first of that hour.
    """
    picks = np.array([one.picks for one in rows], np.int64)
    times = [one.micrograph.time for one in rows if now - HOUR_S <= one.micrograph.time <= now]
    hours = (now - times[0]) / HOUR_S if len(times) > 1 else 0.0
    recent = float(np.median(picks[-LAST:])) if len(picks) else None
    median = float(np.median(picks)) if len(picks) else None
    return {
        "micrographs": left.micrographs + len(rows),
        "particles": left.particles + int(picks.sum()),
        "last": int(picks[-1]) if len(picks) else None,
        "recent": recent,
        "median": median,
        "ratio": recent / median if recent is not None and median else None,
        "per_hour": (len(times) - 1) / hours if hours > 0 else None,
    }
