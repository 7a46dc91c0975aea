"""Rates with their uncertainty, from counters: nothing is pre-filled, so a rate is right from the first shot on."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


def wilson(hits: int, shots: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion: (low, high), both in 0..1; (0, 1) when there are no shots.

    ``z`` is the normal quantile, 1.96 for 95 %. Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    if shots == 0:
        return 0.0, 1.0
    p = hits / shots
    middle = p + z * z / (2 * shots)
    half = z * math.sqrt(p * (1 - p) / shots + z * z / (4 * shots * shots))
    scale = 1 + z * z / shots
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True, slots=True)
class Rate:
    """Hits of shots within ``seconds``; the interval is Wilson's at 95 %."""

    hits: int
    shots: int
    seconds: float

    @property
    def fraction(self) -> float:
        """Hits per shot; NaN before the first shot."""
        return self.hits / self.shots if self.shots else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) of the fraction."""
        return wilson(self.hits, self.shots)

    @property
    def per_second(self) -> float:
        """Shots per second."""
        return self.shots / self.seconds if self.seconds > 0 else float("nan")


class Window:
    """A counter's past: the rate over the last ``seconds``, or since the first shot while that is less.

    The time before the first shot does not count: a daemon that waits for beam has no rate, not a low one.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._past: deque[tuple[float, int, int]] = deque([(now, 0, 0)])

    def rate(self, now: float, hits: int, shots: int) -> Rate:
        """Note the counters at ``now`` (monotonic seconds) and give the rate since the window's start."""
        if not shots:
            self._past[0] = (now, 0, 0)
            return Rate(0, 0, 0.0)
        self._past.append((now, hits, shots))
        while len(self._past) > 2 and self._past[1][0] <= now - self._seconds:
            self._past.popleft()
        then, hits_then, shots_then = self._past[0]
        return Rate(hits - hits_then, shots - shots_then, now - then)
