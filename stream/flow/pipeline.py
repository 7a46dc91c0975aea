"""The pipeline: a source, stages and sinks, a thread each, a bounded channel on every arrow.

Stopping is an event. The source ends, each stage sees its inlet closed and empty and closes its outlet, the sinks get
what is left and close: everything read is accounted for. ``abort`` gives up on what is in flight, and counts it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .channel import Channel, Closed, WhenFull
from .frame import Discard, Failure, Incoming, Raw, Result, RunEnd, RunStart
from .metrics import Metrics
from .ports import Sink, Source
from .stages import AccountingError, Stage, count_shots, keep_order, nbytes, weigh

log = logging.getLogger(__name__)

SOURCE_WAIT_S = 0.1
SINK_BURST = 512
NO_PIXELS = np.zeros((0, 0))
INNER_QUEUE = 1024


class Pipeline:
    """Runs ``source`` through ``stages`` into ``sinks``.

    ``queue`` is the capacity of the first channel in shots, behind the source, and ``when_full`` what it does. Later
    ones hold at most ``INNER_QUEUE``, because what is decoded is larger, and always wait. No channel holds more than
    about ``queue_bytes``. ``warm_up`` runs before the first read, in the caller's thread of ``start``.
    """

    def __init__(
        self,
        source: Source,
        stages: Sequence[Stage],
        sinks: Sequence[Sink],
        metrics: Metrics,
        *,
        queue: int = 1024,
        queue_bytes: int = 1 << 29,
        when_full: WhenFull = WhenFull.DROP_OLDEST,
        flush_s: float = 1.0,
        warm_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.metrics = metrics
        self.finished = threading.Event()
        self.error: BaseException | None = None
        self._source = source
        self._stages = stages
        self._sinks = sinks
        self._flush_s = flush_s
        self._warm_up = warm_up
        self._title = ""
        self._start: RunStart | None = None
        self._asked: deque[str] = deque()
        self._stop = threading.Event()
        self._aborted = threading.Event()
        self._channels: list[Channel[Any]] = []
        self._queue_bytes = queue_bytes
        first = self._channel("source", queue, when_full)
        self._bodies: list[tuple[str, Callable[[], None]]] = []
        inlet = first
        for stage in stages:
            stage.channels(self._channel)
            outlet = self._channel(stage.name, min(queue, INNER_QUEUE))
            self._bodies += stage.threads(inlet, outlet, metrics)
            inlet = outlet
        self._bodies = [("source", lambda: self._read(first)), *self._bodies, ("sinks", lambda: self._sink(inlet))]
        self._threads: list[threading.Thread] = []
        self._alive = 0
        self._taken: list[Result] = []
        self._lock = threading.Lock()
        self.warm = False

    def start(self) -> None:
        """Warm up, then start every thread. Raises what ``warm_up`` or ``Source.open`` raise."""
        self._warm_up()
        self.warm = True
        self._source.open()
        self.metrics.last_read = time.monotonic()
        self._threads = [
            threading.Thread(target=self._guard, args=body, name=body[0], daemon=True) for body in self._bodies
        ]
        self._alive = len(self._threads)
        for thread in self._threads:
            thread.start()

    def new_run(self, title: str, *, now: bool = True) -> None:
        """Give runs this title from here on; ``now``: begin one at once, in the middle of the source's. Any thread.

        What was read before belongs to the run that ends, what is read after to the new one. The empty title leaves
        runs the names that the source gives them.
        """
        if now:
            self._asked.append(title)
        else:
            self._title = title

    def stop(self) -> None:
        """Ask the source to end; everything already read is drained. Returns at once."""
        self._stop.set()

    def abort(self) -> None:
        """Drop what is in flight and end. Returns at once."""
        self._aborted.set()
        self._stop.set()
        for channel in self._channels:
            channel.abort()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop, or to abort: what is long and not begun yet, need not begin. Any thread."""
        return self._stop.is_set()

    @property
    def aborted(self) -> threading.Event:
        """Set when what is in flight is given up: what is long, ends now. To be looked at only, by any thread."""
        return self._aborted

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every thread has ended; True when they have."""
        return self.finished.wait(timeout)

    def settle(self) -> int:
        """Count what never came out as dropped; returns how many shots. Call once, at the very end."""
        return self.metrics.ledger.settle("abort")

    def run(self) -> None:
        """Start, wait for the end of the source, and raise what went wrong, for tools without a daemon around them."""
        self.start()
        self.wait()
        self.settle()
        if self.error:
            raise self.error

    def _channel(self, name: str, size: int, when_full: WhenFull = WhenFull.WAIT) -> Channel[Any]:
        def lost(items: Sequence[Any]) -> None:
            self.metrics.dropped("abort" if channel.aborted else "full", sum(map(weigh, items)))

        channel: Channel[Any] = Channel(
            name, size, when_full, weigh=weigh, on_drop=lost, measure=nbytes, most_bytes=self._queue_bytes
        )
        self._channels.append(channel)
        self.metrics.channel(channel)
        return channel

    def _guard(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            log.exception("stage %s failed: a bug, not bad data; the daemon ends", name)
            with self._lock:
                self.error = self.error or error
            self.abort()
        with self._lock:
            self._alive -= 1
            over = self._alive == 0
        if over:
            self.finished.set()

    def _read(self, outlet: Channel[Any]) -> None:
        clock = self.metrics.stage("source")
        run: str | None = None
        try:
            while not self._stop.is_set():
                while self._asked:
                    self._begin_again(outlet, self._asked.popleft())
                since = time.monotonic()
                items = self._source.read(SOURCE_WAIT_S)
                if items is None:
                    break
                if not items:
                    clock.starved(time.monotonic() - since)
                    continue
                run = self._take(items, outlet, run)
            if run is not None:
                outlet.put([RunEnd(run, "stopped" if self._stop.is_set() else "end")])
        finally:
            self._source.close()
        outlet.close()

    def _begin_again(self, outlet: Channel[Any], title: str) -> None:
        """The run that a person asked for: the end of the one that is open, and the start of its other half."""
        self._title = title
        if self._start is not None:
            outlet.put([RunEnd(self._start.run, "operator"), self._named(self._start)])

    def _named(self, start: RunStart) -> RunStart:
        """The start with the operator's title, if there is one; and the metrics hear of it."""
        self._start = start
        self.metrics.operation.run(start.run, self._title)
        return RunStart(start.run, {**start.info, "title": self._title}) if self._title else start

    def _take(self, items: Sequence[Incoming], outlet: Channel[Any], run: str | None) -> str | None:
        good: Sequence[Any] = items
        if {type(item) for item in items} != {Raw}:
            good = [item for item in items if not isinstance(item, Failure | Discard)]
            marks = [item for item in items if isinstance(item, RunStart | RunEnd)]
            if marks:
                run = marks[-1].run if isinstance(marks[-1], RunStart) else None
                good = [self._named(item) if isinstance(item, RunStart) else item for item in good]
                self._start = None if run is None else self._start
        shots = count_shots(items)
        if shots:
            self.metrics.read(shots, sum([item.nbytes for item in good if isinstance(item, Raw)]))
        for item in items if good is not items else ():
            if isinstance(item, Failure):
                self.metrics.failed(item)
            elif isinstance(item, Discard):
                self.metrics.dropped(item.reason, item.count)
        if good:
            self.metrics.stage("source").blocked(outlet.put(good))
        return run

    def _sink(self, inlet: Channel[Any]) -> None:
        clock = self.metrics.stage("sinks")
        flushed = time.monotonic()
        try:
            while True:
                since = time.monotonic()
                try:
                    items = inlet.get(SINK_BURST, max(0.0, flushed + self._flush_s - since))
                except Closed:
                    break
                clock.starved(time.monotonic() - since)
                # No turn is taken: a disk that stalls must not hold up the stages before it.
                with clock.busy():
                    for kind, some in keep_order(items):
                        if kind is Result:
                            self._write(some)
                        elif kind is RunStart:
                            self._mark(some)
                        else:
                            raise AccountingError(f"{count_shots(some)} shots reached the sinks without a verdict")
                    if time.monotonic() - flushed >= self._flush_s:
                        for sink in self._sinks:
                            sink.flush()
                        self._settle_taken()
                        flushed = time.monotonic()
        finally:
            for sink in self._sinks:
                sink.close()
            self._settle_taken()

    def _mark(self, marks: Sequence[Any]) -> None:
        for mark in marks:
            for sink in self._sinks:
                sink.start(mark) if isinstance(mark, RunStart) else sink.end(mark)
        self._settle_taken()

    def _write(self, results: Sequence[Result]) -> None:
        """Frames nobody keeps have ended; those that sinks took end when they are safe."""
        good = results
        for sink in self._sinks:
            # What one could not keep is no result any more: those after it, which show and sort, do not hear of it.
            if failures := sink.write(good):
                good = self._fail(good, failures)
        self.metrics.last_written = time.monotonic()
        self._taken += [without_pixels(result) for result in good if result.weight > 0]
        self._end([result for result in good if result.weight <= 0])

    def _settle_taken(self) -> None:
        """What was flushed has ended; what was lost with its file has failed."""
        lost = [failure for sink in self._sinks for failure in sink.lost()]
        taken, self._taken = self._taken, []
        if taken:
            self._end(self._fail(taken, lost) if lost else taken)

    def _fail(self, results: Sequence[Result], failures: Sequence[Failure]) -> Sequence[Result]:
        """Count the failures, and give the results that are good."""
        # By key and at most once each: a frame ends once.
        failed = {failure.key: failure for failure in reversed(failures)}
        for result in results:
            if result.frame.key in failed:
                self.metrics.failed(replace(failed[result.frame.key], count=1))
        return [result for result in results if result.frame.key not in failed]

    def _end(self, results: Sequence[Result]) -> None:
        if results:
            self.metrics.ended(results)
            self._source.done([result.frame.key for result in results])


def without_pixels(result: Result) -> Result:
    """The result with a frame of no pixels, to be remembered without its memory."""
    return replace(result, frame=replace(result.frame, data=NO_PIXELS, mask=None, chunk=None), found={})
