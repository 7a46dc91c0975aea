"""Stages between source and sinks: the contract, the rules all keep, and ``Each``, which maps items.

A stage reads bursts from an inlet and puts what it makes on an outlet, in order. Marks (start and end of a run) keep
their place among the items. Data that cannot be used becomes a ``Failure``; any other exception is a bug and ends the
pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol, TypeAlias

from .channel import Channel, Closed
from .frame import BadData, Discard, Failure, Frame, Mark, Raw, Result, RunEnd, RunStart
from .metrics import Metrics, StageClock
from .turns import Turn

Item: TypeAlias = Raw | Frame | Result | Mark
Made: TypeAlias = Raw | Frame | Result | Failure | Discard
Inlet: TypeAlias = Channel[Any]
Outlet: TypeAlias = Channel[Any]
MARKS = (RunStart, RunEnd)
BURST_BYTES = 1 << 26


weigh: Callable[[Any], int] = attrgetter("count")
"""Shots in an item: 0 for a mark, the train's pulses for a train, the sum for a batch."""


def nbytes(item: Any) -> int:
    """Bytes of an item's images: as they came for a message, decoded for a frame and a result; 0 for others."""
    if isinstance(item, Raw):
        return len(item.image.buffer)
    frame = item.frame if isinstance(item, Result) else item
    return int(frame.data.nbytes) if isinstance(frame, Frame) else 0


class AccountingError(RuntimeError):
    """A stage answered for more or fewer shots than it was given: a bug, never bad data."""


class Stage(Protocol):
    """What the pipeline runs in a thread between two channels. Must return once the inlet is closed and empty."""

    name: str

    def channels(self, make: Callable[[str, int], Channel[Any]]) -> None:
        """Build the channels inside the stage with ``make(name, size)``, if it has any."""

    def threads(self, inlet: Inlet, outlet: Outlet, metrics: Metrics) -> Sequence[tuple[str, Callable[[], None]]]:
        """Name and body of each thread; the last one closes the outlet."""


class Work(Protocol):
    """What an ``Each`` does with a burst; called from any of its workers at once, so it keeps no unguarded state."""

    def __call__(self, items: Sequence[Any], /) -> Sequence[Made]:
        """Answer for every shot in ``items``.

        Raise ``BadData`` when the burst cannot be used: its items are then tried one by one, so that one bad item
        loses nothing else.
        """

    def mark(self, mark: Mark, /) -> Mark:
        """Hear of a run's start or end, with no item of another run in work; returns the mark to pass on."""


def kind_of(item: Any) -> type:
    """RunStart for a mark, Result for what is decided already, Frame for what needs work."""
    return RunStart if isinstance(item, MARKS) else Result if isinstance(item, Result) else Frame


def keep_order(items: Sequence[Any]) -> Iterator[tuple[type, list[Any]]]:
    """Split a burst, in order, into marks (RunStart), decided results (Result) and items that need work (Frame)."""
    if len(set(map(type, items))) == 1:
        yield kind_of(items[0]), list(items)
        return
    for kind, group in groupby(items, key=kind_of):
        yield kind, list(group)


def count_shots(items: Sequence[Any]) -> int:
    """Shots in all items."""
    return sum(map(weigh, items))


def do(name: str, work: Callable[[Sequence[Any]], Sequence[Made]], items: Sequence[Any]) -> Sequence[Made]:
    """Do the work on a burst and check that it answers for every shot; isolate bad data item by item."""
    try:
        made = work(items)
    except BadData as bad:
        if len(items) > 1:
            return [one for item in items for one in do(name, work, [item])]
        item = items[0]
        made = [Failure(item.key, bad.reason, bad.detail, item.count, item)]
    if count_shots(made) != count_shots(items):
        raise AccountingError(f"stage {name}: {count_shots(items)} shots in, {count_shots(made)} out")
    return made


def pass_on(made: Sequence[Any], outlet: Outlet, metrics: Metrics, clock: StageClock) -> None:
    """Account for failures, discards and verdicts, and put what goes on on the outlet."""
    kinds = set(map(type, made))
    if Result in kinds:
        metrics.judged(made if len(kinds) == 1 else [item for item in made if isinstance(item, Result)])
    if Failure in kinds or Discard in kinds:
        for item in made:
            if isinstance(item, Failure):
                metrics.failed(item)
            elif isinstance(item, Discard):
                metrics.dropped(item.reason, item.count)
        made = [item for item in made if not isinstance(item, Failure | Discard)]
    if made:
        clock.blocked(outlet.put(made))


class Each:
    """Does ``work`` on bursts of up to ``burst`` shots, in ``workers`` threads, and keeps their order.

    Bursts of large frames are smaller: at most about ``burst_bytes`` of what the work makes.
    """

    def __init__(
        self, name: str, work: Work, *, workers: int = 1, burst: int = 64, burst_bytes: int = BURST_BYTES
    ) -> None:
        self.name = name
        self._work = work
        self._workers = workers
        self._burst = burst
        self._burst_bytes = burst_bytes
        # Until the first frame says how large they are.
        self._limit = 1

        self._pending: Channel[Any]

    def channels(self, make: Callable[[str, int], Channel[Any]]) -> None:
        """With several workers: what was handed out, in order, at most two bursts."""
        if self._workers > 1:
            self._pending = make(f"{self.name}.pending", 2 * self._burst)

    def threads(self, inlet: Inlet, outlet: Outlet, metrics: Metrics) -> Sequence[tuple[str, Callable[[], None]]]:
        """One thread that works itself, or one that hands out to a pool and one that collects in order."""
        if self._workers == 1:
            return [(self.name, lambda: self._alone(inlet, outlet, metrics))]
        return [
            (self.name, lambda: self._hand_out(inlet, metrics)),
            (f"{self.name}.collect", lambda: self._collect(outlet, metrics)),
        ]

    def _alone(self, inlet: Inlet, outlet: Outlet, metrics: Metrics) -> None:
        clock, turn = metrics.stage(self.name), Turn()
        for items in bursts(inlet, self._size, clock):
            for kind, some in keep_order(items):
                if kind is RunStart:
                    outlet.put([self._work.mark(mark) for mark in some])
                elif kind is Result:
                    clock.blocked(outlet.put(some))
                else:
                    with turn.take(count_shots(some)), clock.busy():
                        made = self._do(some)
                    pass_on(made, outlet, metrics, clock)
        outlet.close()

    def _size(self) -> int:
        return self._limit

    def _do(self, items: Sequence[Any]) -> Sequence[Any]:
        made = do(self.name, self._work, items)
        size = next(filter(None, map(nbytes, made)), 0)
        self._limit = max(1, min(self._burst, self._burst_bytes // size)) if size else self._limit
        return made

    def _hand_out(self, inlet: Inlet, metrics: Metrics) -> None:
        clock = metrics.stage(self.name)
        running: list[Future[Sequence[Any]]] = []
        with ThreadPoolExecutor(self._workers, thread_name_prefix=self.name) as pool:
            for items in bursts(inlet, self._size, clock):
                for kind, some in keep_order(items):
                    if kind is RunStart:
                        wait(running)
                        self._pending.put([self._work.mark(mark) for mark in some])
                        continue
                    if kind is Result:
                        clock.blocked(self._pending.put(some))
                        continue
                    share = -(-len(some) // self._workers)
                    for at in range(0, len(some), share):
                        part = some[at : at + share]
                        job = pool.submit(self._timed(clock, part))
                        running = [old for old in running if not old.done()] + [job]
                        clock.blocked(self._pending.put([Pending(job, count_shots(part))]))
        self._pending.close()

    def _timed(self, clock: StageClock, items: Sequence[Any]) -> Callable[[], Sequence[Any]]:
        def work() -> Sequence[Any]:
            with clock.busy():
                return self._do(items)

        return work

    def _collect(self, outlet: Outlet, metrics: Metrics) -> None:
        clock = metrics.stage(f"{self.name}.collect")
        for items in bursts(self._pending, lambda: 1, clock):
            for item in items:
                if isinstance(item, Pending):
                    pass_on(item.future.result(), outlet, metrics, clock)
                else:
                    outlet.put([item])
        outlet.close()


class Pending:
    """Work handed to a pool, in its place in the order, with the shots it stands for."""

    __slots__ = ("count", "future")

    def __init__(self, future: Future[Sequence[Any]], count: int) -> None:
        self.future = future
        self.count = count


def bursts(inlet: Inlet, limit: Callable[[], int], clock: StageClock) -> Iterator[list[Any]]:
    """Bursts of up to ``limit()`` shots until the inlet is closed and empty; the waiting is counted as starved."""
    while True:
        since = time.monotonic()
        try:
            items = inlet.get(limit())
        except Closed:
            return
        clock.starved(time.monotonic() - since)
        yield items
