"""Yields: what micrographs give, counted: particles, picks per micrograph, scores, quality, seconds, waiting files.

``Metrics`` holds one of these for beamlines whose items are micrographs; the facts are told once per micrograph.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.core import Metric

from .families import Histogram, counter, gauge, histogram, histograms, single

PICKS = (0, 1, 3, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 2000, 4000)
SCORES = tuple(round(0.05 * i, 2) for i in range(1, 21))
SECONDS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 60)
LAST = 10
REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Yield:
    """What one micrograph gave.

    ``picks``: accepted particles. ``scores``: of all candidates above the low floor. ``skipped``: quality numbers
    outside their skip range (then it is rejected), ``warnings``: outside their warning range. ``seconds``: work by
    stage.
    """

    picks: int
    scores: Sequence[float]
    quality: Mapping[str, float]
    seconds: Mapping[str, float]
    warnings: Sequence[str] = ()
    skipped: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Trend:
    """Picks per micrograph: the last one's, the median of the last ten, and of the whole session. NaN before the first.

    Micrographs that were skipped for their quality count with 0 picks: a grid that goes bad must show in the trend.
    """

    micrographs: int = 0
    particles: int = 0
    last: float = float("nan")
    recent: float = float("nan")
    median: float = float("nan")

    @property
    def ratio(self) -> float:
        """The median of the last ten over that of the session; NaN where that is 0 or unknown."""
        return self.recent / self.median if self.median > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Files seen that are not read yet, by why, and how long the oldest waits, in seconds."""

    reasons: Mapping[str, int] = field(default_factory=dict)
    oldest_s: float = 0.0


class Yields:
    """Facts of micrographs. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._particles = 0
        self._picks = Histogram(PICKS)
        self._scores = Histogram(SCORES)
        self._seconds: dict[str, Histogram] = {}
        self._quality: dict[str, float] = {}
        self._outside: Counter[tuple[str, str]] = Counter()
        self._history: deque[int] = deque(maxlen=REMEMBERED)
        self._waiting = Waiting()

    def add(self, found: Yield) -> None:
        """A micrograph was picked, or skipped for its quality."""
        with self._lock:
            self._particles += found.picks
            self._picks.add([found.picks])
            if len(found.scores):
                self._scores.add(found.scores)
            for stage, seconds in found.seconds.items():
                self._seconds.setdefault(stage, Histogram(SECONDS)).add([seconds])
            self._quality = dict(found.quality)
            self._outside.update((name, "skip") for name in found.skipped)
            self._outside.update((name, "warn") for name in found.warnings)
            self._history.append(found.picks)

    def wait(self, waiting: Waiting) -> None:
        """These files wait now."""
        with self._lock:
            self._waiting = waiting

    def trend(self) -> Trend:
        """Picks per micrograph until now."""
        with self._lock:
            past, particles = np.fromiter(self._history, np.float64), self._particles
        if not len(past):
            return Trend()
        recent = float(np.median(past[-LAST:]))
        return Trend(len(past), particles, float(past[-1]), recent, float(np.median(past)))

    def waiting(self) -> Waiting:
        """Which files wait, as told last."""
        with self._lock:
            return self._waiting

    def warnings(self) -> Mapping[tuple[str, str], int]:
        """Micrographs by (quality number, range it was outside of)."""
        with self._lock:
            return dict(self._outside)

    def seconds(self) -> Mapping[str, float]:
        """Mean seconds per micrograph, by stage."""
        with self._lock:
            return {stage: times.total / max(1, int(times.counts.sum())) for stage, times in self._seconds.items()}

    def collect(self) -> Iterable[Metric]:
        """Prometheus' view."""
        trend = self.trend()
        with self._lock:
            yield counter("beamsieve_particles", "Particles picked.", [((), self._particles)])
            yield histogram("beamsieve_picks_per_micrograph", "Particles picked per micrograph.", self._picks)
            yield histogram("beamsieve_pick_score", "Scores of all candidates above the floor.", self._scores)
            text = "Work on one micrograph, by stage."
            yield histograms("beamsieve_micrograph_seconds", text, "stage", self._seconds)
            quality = single(self._quality)
            yield gauge("beamsieve_micrograph_quality", "Quality numbers of the last micrograph.", quality, "number")
            outside = list(self._outside.items())
            text = "Micrographs with a quality number outside its range; outside `skip` they are rejected."
            yield counter("beamsieve_micrographs_outside", text, outside, "number", "range")
            yield from collect_waiting(self._waiting)
        medians = [(("session",), trend.median), (("last_10",), trend.recent)]
        yield gauge("beamsieve_yield_median", "Median picks per micrograph.", medians, "over")
        text = "Median picks of the last ten micrographs over the session's."
        yield gauge("beamsieve_yield_ratio", text, [((), trend.ratio)])


def collect_waiting(waiting: Waiting) -> Iterable[Metric]:
    """Prometheus' view of files that wait."""
    reasons = single(waiting.reasons)
    yield gauge("beamsieve_waiting_files", "Files seen and not read yet, by why.", reasons, "reason")
    oldest = [((), waiting.oldest_s)]
    yield gauge("beamsieve_waiting_oldest_seconds", "How long the oldest of them waits.", oldest)
