"""What every live page says of its daemon, whatever the beamline: counts, losses, speed, latency, stages, queues.

All of it comes from ``Metrics``. Counters become rates over about the last ten seconds, from one sample per second.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..flow.metrics import Metrics
from .page import JSON

OVER_S = 10.0
BETWEEN_S = 0.5
LEAST_BUSY = 0.05
STATES = ("busy", "starved", "blocked")


def finite(value: float | None) -> float | None:
    """``value`` as JSON takes it: None for None and for what is not a finite number."""
    return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment (monotonic seconds)."""

    at: float
    frames: int
    nbytes: float
    stages: Mapping[str, Mapping[str, float]]
    verdicts: Mapping[tuple[str, str], int]


class Common:
    """The fields of a snapshot that both beamlines have. Any thread.

    ``clock`` gives monotonic seconds, ``wall`` Unix seconds. ``tick`` is to be called about once a second by something
    that runs without browsers (a ``Listener``'s ``flush``), so that the last ten seconds are known when one comes.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.metrics = metrics
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._since = clock()
        self._samples: deque[Sample] = deque([self._sample()])

    def tick(self) -> None:
        """Note the counters, unless that was done less than half a second ago. Takes about 0.1 ms."""
        with self._lock:
            if self._clock() - self._samples[-1].at >= BETWEEN_S:
                self._samples.append(self._sample())
                # Rather a shorter stretch than one that begins with minutes in which nobody called.
                while len(self._samples) > 2 and self._samples[0].at < self._samples[-1].at - OVER_S:
                    self._samples.popleft()

    def snapshot(self) -> JSON:
        """``time``, ``beamline``, ``ready``, ``problems``, ``uptime_s``, ``counts``, ``losses``, ``speed`` and more.

        Every number is finite or None. ``stages``: shares of the last ten seconds; what is missing to 1 is a wait or
        work that is not over yet. ``bottleneck``: the busiest of them, empty when none has much to do.
        """
        self.tick()
        first, last = self._span()
        seconds = last.at - first.at
        stages = _shares(first, last, idle=not any(depth for _, depth, _ in self.metrics.depths()))
        busiest = max(stages, key=lambda stage: stage["busy"], default=None)
        tally, problems = self.metrics.tally(), list(self.metrics.problems())
        median, p99 = self.metrics.latency(0.5, 0.99)
        outcomes = {name: getattr(tally, name) for name in ("read", "accepted", "rejected", "failed", "dropped")}
        losses = [("dropped", tally.drops), ("failed", tally.failures)]
        return {
            "time": self._wall(),
            "beamline": self.metrics.beamline,
            "ready": not problems,
            "problems": problems,
            "uptime_s": self._clock() - self._since,
            "counts": {**outcomes, "in_flight": tally.in_flight},
            "losses": [{"kind": kind, "reason": why, "count": n} for kind, whys in losses for why, n in whys.items()],
            "speed": {
                "frames_per_s": _per_s(last.frames - first.frames, seconds),
                "bytes_per_s": _per_s(last.nbytes - first.nbytes, seconds),
            },
            "latency_s": {"median": finite(median), "p99": finite(p99)},
            "stages": stages,
            "bottleneck": busiest["name"] if busiest and busiest["busy"] >= LEAST_BUSY else "",
            "queues": [{"name": name, "depth": depth, "size": size} for name, depth, size in self.metrics.depths()],
        }

    def classes(self) -> list[JSON]:
        """``label``, ``count`` since the start and ``per_s`` over the last ten seconds, of the metrics' labels."""
        first, last = self._span()
        seconds = last.at - first.at
        found = []
        for label in self.metrics.labels:
            now, then = (_labelled(sample.verdicts, label) for sample in (last, first))
            found.append({"label": label, "count": now, "per_s": _per_s(now - then, seconds)})
        return found

    def _span(self) -> tuple[Sample, Sample]:
        with self._lock:
            return self._samples[0], self._samples[-1]

    def _sample(self) -> Sample:
        metrics = self.metrics
        stages = {name: dict(seconds) for name, seconds in metrics.stage_seconds().items()}
        return Sample(self._clock(), metrics.tally().read, metrics.bytes_read(), stages, metrics.verdicts())


def _labelled(verdicts: Mapping[tuple[str, str], int], label: str) -> int:
    return sum(n for (_, name), n in verdicts.items() if name == label)


def _per_s(n: float, seconds: float) -> float | None:
    return n / seconds if seconds > 0 else None


def _shares(first: Sample, last: Sample, *, idle: bool) -> list[dict[str, Any]]:
    """Where each stage's time went between two samples: shares 0..1.

    A clock hears of a wait when it is over: what is missing was a wait for input only if nothing waits in any queue
    (``idle``); otherwise it may as well be a disk that hangs, and is left out.
    """
    found = []
    seconds = last.at - first.at
    for name, times in last.stages.items():
        spent = {state: times[state] - first.stages.get(name, {}).get(state, 0.0) for state in STATES}
        # A stage of several threads spends more than one second per second.
        whole = max(seconds, sum(spent.values()))
        if idle:
            spent["starved"] += whole - sum(spent.values())
        found.append({"name": name, **{state: spent[state] / whole if whole else 0.0 for state in STATES}})
    return found
