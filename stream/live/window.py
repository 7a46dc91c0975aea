"""Hit rates over windows of time, from counts per second: 10 s, 1 min, 10 min, the run; and an hour's curve.

Nothing is filled in before the first shot, and every rate has its Wilson interval.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ..flow.rates import wilson
from .page import JSON

HOUR = 3600
WINDOWS = (("10 s", 10), ("1 min", 60), ("10 min", 600))
EMPTY = -1


def share(hits: int, shots: int) -> JSON:
    """``rate``, ``low`` and ``high`` (95 %, Wilson); all None without shots."""
    if not shots:
        return {"rate": None, "low": None, "high": None}
    low, high = wilson(hits, shots)
    return {"rate": hits / shots, "low": low, "high": high}


class Window:
    """Hits and shots per second, for the last hour, and of the run. Any thread; ``add`` takes about a microsecond.

    Times are monotonic seconds. ``offset`` (whole seconds) makes Unix time of them; it stays what it was at the start,
    so that a second keeps its name when a clock is set.
    """

    def __init__(self, now: float, offset: int = 0) -> None:
        self._offset = offset
        self._lock = threading.Lock()
        self._second = np.full(HOUR, EMPTY, np.int64)
        self._hits = np.zeros(HOUR, np.int64)
        self._shots = np.zeros(HOUR, np.int64)
        self._first: float | None = None
        self._run = [0, 0]
        self._run_since = now

    def add(self, now: float, hits: int, shots: int) -> None:
        """So many shots were judged, and so many of them are hits."""
        second = int(now)
        at = second % HOUR
        with self._lock:
            if self._first is None:
                self._first = now
            if self._second[at] != second:
                self._second[at], self._hits[at], self._shots[at] = second, 0, 0
            self._hits[at] += hits
            self._shots[at] += shots
            self._run[0] += hits
            self._run[1] += shots

    def new_run(self, now: float) -> None:
        """The window of the run begins; the others go on, since they are windows of time."""
        with self._lock:
            self._run, self._run_since = [0, 0], now

    def windows(self, now: float) -> list[JSON]:
        """``name``, ``seconds`` covered, ``hits``, ``shots`` and their share, for each window and for the run."""
        with self._lock:
            second, hits, shots = self._second.copy(), self._hits.copy(), self._shots.copy()
            first, run, since = self._first, tuple(self._run), self._run_since
        found = [_window("run", now - since, *run)]
        for name, length in reversed(WINDOWS):
            start = int(now) - length + 1
            inside = second >= start
            covered = 0.0 if first is None else now - max(first, start)
            found.insert(0, _window(name, max(0.0, covered), int(hits[inside].sum()), int(shots[inside].sum())))
        return found

    def points(self, now: float, seconds: int = HOUR) -> list[JSON]:
        """``t`` (Unix seconds), share and ``frames_per_s`` of each of the last seconds that are over, oldest first.

        A second without shots is there, with no rate; those before the first shot are not.
        """
        with self._lock:
            second, hits, shots = self._second.copy(), self._hits.copy(), self._shots.copy()
            first = self._first
        if first is None:
            return []
        wanted = np.arange(max(int(first), int(now) - min(seconds, HOUR - 1)), int(now))
        there = second[wanted % HOUR] == wanted
        n, of = (np.where(there, counts[wanted % HOUR], 0).tolist() for counts in (hits, shots))
        return [self._point(t, k, m) for t, k, m in zip(wanted.tolist(), n, of, strict=True)]

    def _point(self, second: int, hits: int, shots: int) -> dict[str, Any]:
        return {"t": second + self._offset, **share(hits, shots), "frames_per_s": shots}


def _window(name: str, seconds: float, hits: int, shots: int) -> JSON:
    return {"name": name, "seconds": seconds, "hits": hits, "shots": shots, **share(hits, shots)}
