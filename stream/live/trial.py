"""A candidate model beside the one in force: how often it is asked, and how its verdicts compare."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..flow.operation import Operation
from ..flow.rates import wilson
from .page import JSON

log = logging.getLogger(__name__)

SHARE = 0.2


class Trial:
    """Counts what a candidate and the model in force said of the same frames. Every method from any thread.

    The candidate gets at most ``SHARE`` of the time: ``due`` says whether it may judge what comes now, and ``spent``
    tells what that took. It looks at some of the frames then, at random as far as their verdicts go, since batches are
    left out by the clock alone.
    """

    def __init__(
        self, bundle: str, threshold: float, operation: Operation, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bundle, self.threshold = bundle, threshold
        self._operation, self._clock = operation, clock
        self._lock = threading.Lock()
        self._table = np.zeros((2, 2), np.int64)
        self._seen = self._judged = 0
        self._free_at = clock()
        self.error: str | None = None

    def due(self, frames: int) -> bool:
        """Whether the candidate shall judge these frames too."""
        with self._lock:
            self._seen += frames
            return self.error is None and self._clock() >= self._free_at

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What the candidate does inside may fail: it is asked no more, ``error`` says why, and the stream goes on."""
        try:
            yield
        except Exception as error:
            self.error = f"it cannot judge what comes here: {error}"
            log.exception("candidate %s: is asked no more", self.bundle)

    def spent(self, seconds: float) -> None:
        """Judging took the candidate so long; it pauses for as long as its share asks."""
        with self._lock:
            self._free_at = self._clock() + seconds * (1 / SHARE - 1)

    def compare(self, current: npt.NDArray[np.bool_], candidate: npt.NDArray[np.bool_], frames: int) -> None:
        """Verdicts (n,) of both on the same things: frames, or places that either of them picked on ``frames``."""
        with self._lock:
            np.add.at(self._table, (1 - current.astype(np.int64), 1 - candidate.astype(np.int64)), 1)
            self._judged += frames
        self._operation.shadowed(zip(current.tolist(), candidate.tolist(), strict=True))

    def state(self, kind: Literal["hits", "picks"]) -> JSON:
        """For the page: ``table`` is [[both, only the one in force], [only the candidate, neither]].

        ``hits``: rates are shares of frames; ``picks``: picks per micrograph, with an interval of two standard errors
        of a Poisson count, and agreement is the share of all picks that both have.
        """
        with self._lock:
            (both, old), (new, neither) = self._table.tolist()
            judged, seen = self._judged, self._seen
        n = both + old + new + neither
        rate = _share if kind == "hits" else _mean
        of = n if kind == "hits" else judged
        agree = both + neither if kind == "hits" else both
        return {
            "bundle": self.bundle,
            "state": "shadow" if self.error is None else "failed",
            "error": self.error,
            "unit": kind,
            "threshold": self.threshold,
            "frames": judged,
            "share": judged / seen if seen else None,
            "agree": _share(agree, n),
            "rate": rate(both + new, of),
            "current_rate": rate(both + old, of),
            "table": [[both, old], [new, neither]],
        }


def _share(k: int, n: int) -> JSON | None:
    if not n:
        return None
    low, high = wilson(k, n)
    return {"value": k / n, "low": low, "high": high}


def _mean(k: int, n: int) -> JSON | None:
    if not n:
        return None
    half = 2 * float(np.sqrt(max(k, 1)))
    return {"value": k / n, "low": max(0.0, k - half) / n, "high": (k + half) / n}
