"""Histograms of scores, over the last ten minutes and of the run; and what each threshold would have kept of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .page import JSON

BINS = 200
PART_S = 30.0
PARTS = 20
REJECTED, ACCEPTED, BYTES = range(3)
PROBABILITIES = np.linspace(0, 1, BINS + 1).round(3)

Counts = npt.NDArray[np.int64]


class Scores:
    """Counts scores per bin: of rejected frames, of accepted ones, and the bytes of all. Any thread.

    A model's scores are probabilities: 200 bins from 0 to 1 (``lit`` false). Counts of lit pixels (``lit``) have no
    upper end: the 200 bins begin 1 wide, and whenever a score lies beyond the last, every two bins become one, so that
    nothing is counted anew or lost.

    The window is made of parts of 30 s, the last twenty of them; a part without any frame does not count as time.
    """

    def __init__(self, *, lit: bool = False) -> None:
        self._lit = lit
        self._lock = threading.Lock()
        # Compared as verdicts do it: a score that is the float32 of 0.9 passes a threshold of 0.9.
        self._limits = PROBABILITIES[1:-1].astype(np.float32).astype(np.float64)
        self._width = 1
        self._first: float | None = None
        self._run = _nothing()
        self._parts: dict[int, Counts] = {}

    def add(self, now: float, scores: Sequence[float], accepted: Sequence[bool], nbytes: Sequence[int]) -> None:
        """Count frames: their scores, whether they were accepted, and the bytes each takes when it is kept.

        Scores that are not finite are left out. About 30 µs for 512 frames.
        """
        x, y, size = np.array(scores, np.float64), np.array(accepted, np.bool_), np.array(nbytes, np.float64)
        finite = np.isfinite(x)
        if not finite.all():
            x, y, size = x[finite], y[finite], size[finite]
        if not len(x):
            return
        with self._lock:
            bins = self._bins(x)
            new = np.empty((3, BINS), np.int64)
            new[: ACCEPTED + 1] = np.bincount(bins + BINS * y, minlength=2 * BINS).reshape(2, BINS)
            new[BYTES] = np.bincount(bins, weights=size, minlength=BINS)
            self._first = now if self._first is None else self._first
            self._run += new
            self._part(now)[:] += new

    def new_run(self) -> None:
        """The run's histogram begins anew; the window goes on."""
        with self._lock:
            self._run = _nothing()

    def reset(self) -> None:
        """Forget all: another model's scores are another number."""
        with self._lock:
            self._run, self._first, self._parts, self._width = _nothing(), None, {}, 1

    def histogram(self, now: float) -> JSON:
        """``edges`` (201), ``accepted`` and ``rejected`` (200) of the window, its ``seconds``, and the ``run``'s."""
        edges, counts, seconds, run = self._state(now)
        return {
            "edges": edges.tolist(),
            "accepted": counts[ACCEPTED].tolist(),
            "rejected": counts[REJECTED].tolist(),
            "seconds": seconds,
            "run": {"accepted": run[ACCEPTED].tolist(), "rejected": run[REJECTED].tolist()},
        }

    def what_if(self, now: float) -> JSON:
        """``threshold`` (200 lower edges), and what each would keep: ``kept_per_s`` (frames), ``bytes_per_s``.

        Rates are means over the window; None before the first frame. Bytes are those the kept frames came in, or take
        in memory where they were calibrated; a file that compresses takes fewer.
        """
        edges, counts, seconds, _ = self._state(now)
        frames = _from_here_on(counts[REJECTED] + counts[ACCEPTED])
        nothing: list[float | None] = [None] * BINS
        return {
            "threshold": edges[:-1].tolist(),
            "kept_per_s": _rates(frames, seconds) if seconds > 0 else nothing,
            "bytes_per_s": _rates(_from_here_on(counts[BYTES]), seconds) if seconds > 0 else nothing,
        }

    def _state(self, now: float) -> tuple[npt.NDArray[np.float64], Counts, float, Counts]:
        with self._lock:
            self._forget(now)
            counts, seconds = _nothing(), 0.0
            for number, part in self._parts.items():
                counts += part
                start, end = number * PART_S, (number + 1) * PART_S
                seconds += max(0.0, min(now, end) - max(start, self._first or start))
            return self._all_edges(), counts, seconds, self._run.copy()

    def _all_edges(self) -> npt.NDArray[np.float64]:
        return np.arange(BINS + 1, dtype=np.float64) * self._width if self._lit else PROBABILITIES

    def _bins(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        if not self._lit:
            return np.searchsorted(self._limits, scores, side="right")
        while scores.max() >= BINS * self._width:
            self._width *= 2
            for counts in (self._run, *self._parts.values()):
                _halve(counts)
        return np.maximum(scores // self._width, 0).astype(np.intp)

    def _part(self, now: float) -> Counts:
        number = int(now // PART_S)
        if number not in self._parts:
            self._forget(now)
            self._parts[number] = _nothing()
        return self._parts[number]

    def _forget(self, now: float) -> None:
        oldest = int(now // PART_S) - PARTS + 1
        self._parts = {number: part for number, part in self._parts.items() if number >= oldest}


def _nothing() -> Counts:
    return np.zeros((3, BINS), np.int64)


def _halve(counts: Counts) -> None:
    counts[:, : BINS // 2] = counts[:, ::2] + counts[:, 1::2]
    counts[:, BINS // 2 :] = 0


def _from_here_on(counts: Counts) -> Counts:
    return counts[::-1].cumsum()[::-1]


def _rates(counts: Counts, seconds: float) -> list[float]:
    # Six digits: it is sent to every browser every second.
    return [float(f"{n / seconds:.6g}") for n in counts.tolist()]
