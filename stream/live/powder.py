"""Virtual powder: running sum and maximum of the hits and of the misses of a run, within a share of a processor.

A thread of its own adds the frames up. What it is given is what its share of the time allows, at most; the rest is
counted and left out, so a fast stream gives a powder of a part of its frames, and says of how many.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ...models.hits.infer import bad_pixels
from ..flow.frame import Frame, Outcome, Result
from .page import JSON

log = logging.getLogger(__name__)

Array: TypeAlias = npt.NDArray[Any]

HITS, MISSES = "hits", "misses"
SHARE = 0.02
WAITING = 2
SECONDS_PER_PIXEL = 2e-9
LEARN = 0.2


@dataclass(slots=True, eq=False)
class Sum:
    """Sum (float64) and maximum (the frames' dtype) of ``summed`` frames, out of ``of``; None before the first."""

    of: int = 0
    summed: int = 0
    total: Array | None = None
    highest: Array | None = None


@dataclass(slots=True, eq=False)
class Run:
    """The sums of one run."""

    name: str = ""
    sums: dict[str, Sum] = field(default_factory=lambda: {HITS: Sum(), MISSES: Sum()})


class Work(NamedTuple):
    """Frames to be added to one of a run's sums."""

    run: Run
    kind: str
    frames: list[Frame]


class Powder:
    """``offer`` and ``start`` are called by the sinks' thread and never wait; all else by any.

    ``share``: of one processor, half of it for hits and half for misses. ``cpu``: seconds that the calling thread has
    worked; ``clock``: monotonic seconds.
    """

    def __init__(
        self,
        share: float = SHARE,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._share, self._clock, self._cpu = share / 2, clock, cpu
        # Few, because what waits here holds on to its burst's array.
        self._queue: queue.Queue[Work | None] = queue.Queue(WAITING)
        self._adding = threading.Lock()
        self._run = Run()
        self._left = {HITS: 0.0, MISSES: 0.0}
        self._at: float | None = None
        self._seconds: float | None = None
        self._thread: threading.Thread | None = None
        self._version = 0
        self._told: tuple[Run, int, int] = (self._run, 0, 0)

    def start(self, run: str) -> None:
        """A run begins, and with it new sums; what still waits belongs to those before."""
        self._run = Run(run)

    def offer(self, results: Sequence[Result], hits: int) -> None:
        """Add some of these up, as many as there is time for; ``hits`` of them are accepted."""
        self._refill()
        self._give(HITS, results, Outcome.ACCEPTED, hits)
        self._give(MISSES, results, Outcome.REJECTED, len(results) - hits)

    def state(self) -> JSON:
        """``hits`` and ``misses`` summed, ``of_hits`` and ``of_misses`` there were in this run, and a ``version``.

        The version counts up whenever this is asked for and the sums have changed.
        """
        run = self._run
        hits, misses = run.sums[HITS], run.sums[MISSES]
        with self._adding:
            told = (run, hits.summed, misses.summed)
            self._version += told != self._told
            self._told = told
        counts = {"hits": hits.summed, "misses": misses.summed, "of_hits": hits.of, "of_misses": misses.of}
        return {"version": self._version, "run": run.name, **counts}

    @property
    def version(self) -> int:
        """As ``state`` told it last."""
        return self._version

    def array(self, kind: str, highest: bool) -> tuple[npt.NDArray[np.float32], int, str] | None:
        """Sum or maximum of ``hits`` or ``misses`` in the shape of the frames, how many, and the run; None before any.

        Pixels that were masked in every frame have a maximum of NaN and a sum of 0.
        """
        run = self._run
        with self._adding:
            one = run.sums[kind]
            found = one.highest if highest else one.total
            if found is None:
                return None
            made = found.astype(np.float32)
            frames = one.summed
        if highest and found.dtype.kind != "u":
            made[made == np.float32(_lowest(found.dtype))] = np.nan
        return made, frames, run.name

    def settle(self) -> None:
        """Wait until all that was taken is added up."""
        self._queue.join()

    def close(self) -> None:
        """End the thread, once it has added up what it was given."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _refill(self) -> None:
        now = self._clock()
        most = max(self._share, self._seconds or 0.0)
        for kind, left in self._left.items():
            more = most if self._at is None else (now - self._at) * self._share
            self._left[kind] = min(most, left + more)
        self._at = now

    def _give(self, kind: str, results: Sequence[Result], outcome: Outcome, there: int) -> None:
        self._run.sums[kind].of += there
        if not there:
            return
        each = self._seconds or results[0].frame.data.size * SECONDS_PER_PIXEL
        many = int(self._left[kind] / each) if each else there
        if many < 1 or self._queue.full():
            return
        frames = list(islice((result.frame for result in reversed(results) if result.outcome is outcome), many))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="powder", daemon=True)
            self._thread.start()
        # Nobody else puts, so there is room still.
        self._queue.put_nowait(Work(self._run, kind, frames))
        self._left[kind] -= len(frames) * each

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                self._add_up(work)
            except Exception:
                # A picture is not worth a daemon: say it, and go on with the next.
                log.exception("powder: %d frames were left out: a bug", len(work.frames))
            # What waits for the next work must not hold on to this one's burst.
            del work
            self._queue.task_done()
        self._queue.task_done()

    def _add_up(self, work: Work) -> None:
        since = self._cpu()
        for frame in work.frames:
            with self._adding:
                _add(work.run.sums[work.kind], frame)
        each = (self._cpu() - since) / len(work.frames)
        self._seconds = each if self._seconds is None else (1 - LEARN) * self._seconds + LEARN * each


def _add(one: Sum, frame: Frame) -> None:
    data = frame.data
    if one.total is None or one.highest is None:
        one.total = np.zeros(data.shape, np.float64)
        one.highest = np.full(data.shape, _lowest(data.dtype), data.dtype)
    if (data.shape, data.dtype) != (one.highest.shape, one.highest.dtype):
        return
    good = _good(frame)
    np.add(one.total, data, out=one.total, where=good)
    np.maximum(one.highest, data, out=one.highest, where=good)
    one.summed += 1


def _good(frame: Frame) -> npt.NDArray[np.bool_] | bool:
    """Which pixels count: True for all."""
    good: npt.NDArray[np.bool_] | bool = True if frame.mask is None else ~bad_pixels(frame.mask)
    if frame.data.dtype.kind != "f":
        return good
    finite = np.isfinite(frame.data)
    return good if finite.all() else finite & good


def _lowest(dtype: np.dtype[Any]) -> float:
    return -np.inf if dtype.kind == "f" else float(np.iinfo(dtype).min)
