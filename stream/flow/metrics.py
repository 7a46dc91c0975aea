"""Everything that is counted, in one home: the ledger, verdicts, latency, queues and stages, as Prometheus metrics.

A stage tells a fact (``metrics.failed(failure)``); names and labels are chosen here only. Facts are told per batch and
summed as plain numbers; Prometheus' own format is made when somebody asks for it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from .channel import Channel
from .classed import Classed
from .families import Histogram, counter, gauge, histogram, single
from .frame import Failure, Outcome, Result
from .ledger import Ledger, Tally
from .mined import Mined
from .operation import Operation
from .yields import Waiting, Yield, Yields

TOMOGRAM_LATENCY_S = (1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
MICROGRAPH_LATENCY_S = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SCORE = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.99, 1.0)


class StageClock:
    """Where a stage's time goes: busy with work, starved of input, blocked by what comes after. Seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = {"busy": 0.0, "starved": 0.0, "blocked": 0.0}

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Time the work inside."""
        since = time.monotonic()
        try:
            yield
        finally:
            self._add("busy", time.monotonic() - since)

    def starved(self, seconds: float) -> None:
        """The stage waited for input."""
        self._add("starved", seconds)

    def blocked(self, seconds: float) -> None:
        """The stage waited for room behind it."""
        if seconds:
            self._add("blocked", seconds)

    def _add(self, state: str, seconds: float) -> None:
        with self._lock:
            self.seconds[state] += seconds


class Metrics:
    """The facts of one daemon. Every method may be called from any thread.

    ``labels`` names the model's answers in order (``"0", "1", "2", "3", "4+"``) for the verdict counters. ``yields``
    counts what micrographs give, where they are the items. ``latency_s``: upper bounds of the latency's buckets, in
    seconds. ``problems``, which the service sets, says why the daemon is not ready.
    """

    def __init__(
        self,
        beamline: str,
        labels: Sequence[str] = (),
        *,
        yields: Yields | None = None,
        latency_s: Sequence[float] = LATENCY_S,
    ) -> None:
        self.beamline = beamline
        self.yields = yields
        #: Counts 2-D classes, where particles are classified.
        self.classed: Classed | None = None
        #: Counts what tomograms give, where they are the items.
        self.mined: Mined | None = None
        self.labels = tuple(labels)
        self.ledger = Ledger()
        self.operation = Operation()
        self.started = time.monotonic()
        self.last_read = self.started
        self.first_read: float | None = None
        self.last_written = self.started
        self.on_failure: Callable[[Failure], None] | None = None
        self.problems: Callable[[], Sequence[str]] = lambda: ("not running yet",)
        self._lock = threading.Lock()
        self._events: Counter[str] = Counter()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._hits: Counter[str] = Counter()
        self._latency = Histogram(latency_s)
        self._recent_latency: deque[float] = deque(maxlen=4096)
        self._scores = Histogram(SCORE)
        self._written: Counter[str] = Counter()
        self._bytes = 0
        self._stages: dict[str, StageClock] = {}
        self._channels: list[Channel[Any]] = []
        self._model: dict[str, str] = {}
        self._failures_seen = 0

    # --- facts -------------------------------------------------------------------------------------------------

    def event(self, kind: str, n: int = 1) -> None:
        """See ``Facts.event``."""
        with self._lock:
            self._events[kind] += n

    def read(self, shots: int, nbytes: int) -> None:
        """The source gave ``shots`` shots in ``nbytes`` bytes."""
        self.last_read = time.monotonic()
        if self.first_read is None:
            self.first_read = self.last_read
        self.ledger.read(shots)
        with self._lock:
            self._bytes += nbytes

    def failed(self, failure: Failure) -> None:
        """A shot could not be used."""
        self.ledger.failed(failure.reason, failure.count)
        if self.on_failure:
            self.on_failure(failure)

    def dropped(self, reason: str, shots: int) -> None:
        """Shots were left out on purpose."""
        self.ledger.dropped(reason, shots)

    def judged(self, results: Sequence[Result]) -> None:
        """Verdicts were reached: count them by answer, and the time each shot waited for its own."""
        now = time.monotonic()
        waits = [now - result.frame.arrived for result in results]
        scores = [result.score for result in results if result.by == "model"]
        answers = Counter([(result.by, result.found.get("label")) for result in results])
        hits = sum([result.outcome is Outcome.ACCEPTED for result in results])
        with self._lock:
            for (by, label), n in answers.items():
                name = self.labels[label] if label is not None and label < len(self.labels) else "none"
                self._verdicts[(by, name)] += n
            self._hits["hit"] += hits
            self._hits["miss"] += len(results) - hits
            self._latency.add(waits)
            self._recent_latency.extend(waits)
            if scores:
                self._scores.add(scores)

    def micrograph(self, found: Yield) -> None:
        """A micrograph was picked, or skipped for its quality."""
        if self.yields is not None:
            self.yields.add(found)

    def waiting(self, reasons: Mapping[str, int], oldest_s: float) -> None:
        """Files the source has seen and not given yet, by why (short fixed words), and how long the oldest waits."""
        now = Waiting(dict(reasons), oldest_s)
        if self.yields is not None:
            self.yields.wait(now)
        if self.mined is not None:
            self.mined.wait(now)

    def ended(self, results: Sequence[Result]) -> None:
        """Every sink has what it keeps of these results, for good."""
        accepted = sum(result.outcome is Outcome.ACCEPTED for result in results)
        self.ledger.ended(accepted, len(results) - accepted)
        kept = [result.outcome is Outcome.ACCEPTED for result in results if result.weight > 0]
        if kept:
            with self._lock:
                self._written["hit"] += sum(kept)
                self._written["random_miss"] += len(kept) - sum(kept)

    def stage(self, name: str) -> StageClock:
        """The clock of the stage of that name."""
        with self._lock:
            return self._stages.setdefault(name, StageClock())

    def channel(self, channel: Channel[Any]) -> None:
        """Watch this queue."""
        self._channels.append(channel)

    def model(self, **info: str) -> None:
        """Which model answers: name, version, hash, device, dtype."""
        self._model = info

    # --- answers -----------------------------------------------------------------------------------------------

    def tally(self) -> Tally:
        """The ledger now."""
        return self.ledger.tally()

    def bytes_read(self) -> int:
        """Bytes of images read, as they came."""
        with self._lock:
            return self._bytes

    def which_model(self) -> Mapping[str, str]:
        """The model that answers: name, version, hash, device, dtype; empty before there is one."""
        return dict(self._model)

    def stage_seconds(self) -> Mapping[str, Mapping[str, float]]:
        """By stage: seconds busy, starved and blocked."""
        with self._lock:
            return {name: dict(clock.seconds) for name, clock in self._stages.items()}

    def events(self) -> Mapping[str, int]:
        """Counts by kind of event."""
        with self._lock:
            return dict(self._events)

    def hits(self) -> tuple[int, int]:
        """(hits, shots judged)."""
        with self._lock:
            return self._hits["hit"], self._hits.total()

    def verdicts(self) -> Mapping[tuple[str, str], int]:
        """Counts by (who decided, answer)."""
        with self._lock:
            return dict(self._verdicts)

    def written(self) -> Mapping[str, int]:
        """Counts by what was kept."""
        with self._lock:
            return dict(self._written)

    def latency(self, *quantiles: float) -> list[float]:
        """Quantiles (0..1) of the last few thousand waits from arrival to verdict, in seconds; NaN before the first."""
        with self._lock:
            recent = np.fromiter(self._recent_latency, np.float64)
        return [float(np.quantile(recent, q)) if len(recent) else float("nan") for q in quantiles]

    def active_s(self) -> float:
        """Seconds from the first shot read to the last one that every sink was given; 0 before there are both."""
        return 0.0 if self.first_read is None else max(0.0, self.last_written - self.first_read)

    def depths(self) -> list[tuple[str, int, int]]:
        """(queue, shots waiting, capacity)."""
        return [(channel.name, channel.depth, channel.size) for channel in self._channels]

    def bottleneck(self) -> str:
        """The stage that was busy the longest, or the empty string before there is one."""
        with self._lock:
            stages = {name: clock.seconds["busy"] for name, clock in self._stages.items()}
        return max(stages, key=lambda name: stages[name], default="")

    def registry(self) -> CollectorRegistry:
        """A Prometheus registry that holds exactly these metrics."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def collect(self) -> Iterable[Metric]:
        """Prometheus' view (``prometheus_client`` calls this at every scrape)."""
        tally = self.tally()
        yield counter("beamsieve_frames_read", "Frames (shots, micrographs) read from the source.", [((), tally.read)])
        outcomes = [((str(name),), getattr(tally, name)) for name in Outcome]
        yield counter("beamsieve_frames", "Frames by how they ended.", outcomes, "outcome")
        yield counter("beamsieve_frames_failed", "Unusable frames by reason.", single(tally.failures), "reason")
        yield counter("beamsieve_frames_dropped", "Left-out frames by reason.", single(tally.drops), "reason")
        yield gauge("beamsieve_frames_in_flight", "Frames read that have not ended yet.", [((), tally.in_flight)])
        with self._lock:
            yield counter("beamsieve_source_events", "What happened at the source.", single(self._events), "kind")
            hits = single({"hit": 0, "miss": 0} | dict(self._hits))
            yield counter(
                "beamsieve_verdicts", "Frames judged, hit or miss; accepted micrographs are hits.", hits, "verdict"
            )
            answers = [((by, label), n) for (by, label), n in self._verdicts.items()]
            yield counter("beamsieve_answers", "Frames by who judged them and the answer.", answers, "by", "label")
            yield counter("beamsieve_written", "Frames kept in files, by why.", single(self._written), "what")
            yield counter("beamsieve_read_bytes", "Bytes of images read, as they came.", [((), self._bytes)])
            yield histogram("beamsieve_latency_seconds", "From arrival to verdict.", self._latency)
            yield histogram("beamsieve_score", "Scores of the model.", self._scores)
            times = [((s, state), t) for s, clock in self._stages.items() for state, t in clock.seconds.items()]
            yield counter("beamsieve_stage_seconds", "Where each stage's time goes.", times, "stage", "state")
            if self._model:
                yield gauge(
                    "beamsieve_model_info", "The model that answers.", [(tuple(self._model.values()), 1)], *self._model
                )
        depths = self.depths()
        yield gauge("beamsieve_queue_depth", "Frames waiting.", [((n,), d) for n, d, _ in depths], "queue")
        yield gauge("beamsieve_queue_capacity", "Frames that fit.", [((n,), c) for n, _, c in depths], "queue")
        idle = time.monotonic() - self.last_read
        yield gauge("beamsieve_source_silent_seconds", "Time since the source last gave a frame.", [((), idle)])
        if self.yields is not None:
            yield from self.yields.collect()
        if self.classed is not None:
            yield from self.classed.collect()
        if self.mined is not None:
            yield from self.mined.collect()
        yield from self.operation.collect()
        yield gauge("beamsieve_ready", "1 when ready, as /readyz says.", [((), float(not self.problems()))])
