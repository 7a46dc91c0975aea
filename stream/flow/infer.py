"""``Infer``: groups frames into batches and runs a model on them, with one thread that owns the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from .channel import Channel, Closed
from .frame import Discard, Failure, Frame, Result, RunStart
from .metrics import Metrics, StageClock
from .stages import AccountingError, Inlet, Outlet, bursts, do, keep_order, pass_on

BURST = 512
Judged: TypeAlias = Result | Failure | Discard


class Model(Protocol):
    """The seam to a model. ``prepare`` may run in any thread, ``run`` in the one thread that owns the device."""

    def prepare(self, frames: Sequence[Frame]) -> Any:
        """Stack the frames into the model's input. Raise ``BadData`` when one does not fit: they are tried singly."""

    def run(self, batch: Any) -> Any:
        """Scores for a prepared batch."""

    def decide(self, frames: Sequence[Frame], scores: Any) -> Sequence[Judged]:
        """One result per frame, in order; for one that could not be judged after all, why."""


class Batch:
    """Frames on their way through the model, and what the model makes of them."""

    __slots__ = ("count", "data", "frames")

    def __init__(self, frames: Sequence[Frame], data: Any) -> None:
        self.frames = frames
        self.data = data
        self.count = len(frames)


class Infer:
    """Groups frames into batches and runs the model on them.

    A batch leaves when ``size`` frames are there, or ``wait_s`` after the first of them came, but not while another one
    waits for the device: under load batches grow instead of queueing up small. Results that were decided earlier (by a
    pre-screen) pass by at once; only a mark waits for what is before it, and holds up what is behind it.

    Three threads: one groups and prepares, one owns the device, one decides; between the first two a channel of one
    batch, so that the next batch is ready when the device is (double buffering).
    """

    def __init__(self, name: str, model: Model, *, size: int, wait_s: float) -> None:
        self.name = name
        self._model = model
        self._size = size
        self._wait_s = wait_s
        self._prepared: Channel[Any]
        self._scored: Channel[Any]
        self._marks: Channel[Any]

    def channels(self, make: Callable[[str, int], Channel[Any]]) -> None:
        """One batch ready for the device, one coming from it, and a mark that has come through."""
        self._prepared = make(f"{self.name}.prepared", 1)
        self._scored = make(f"{self.name}.scored", 1)
        self._marks = make(f"{self.name}.marks", 1)

    def threads(self, inlet: Inlet, outlet: Outlet, metrics: Metrics) -> Sequence[tuple[str, Callable[[], None]]]:
        """Group, run and decide."""
        return [
            (f"{self.name}.group", lambda: self._group(inlet, outlet, metrics)),
            (f"{self.name}.run", lambda: self._run(inlet, metrics)),
            (f"{self.name}.decide", lambda: self._decide(outlet, metrics)),
        ]

    def _group(self, inlet: Inlet, outlet: Outlet, metrics: Metrics) -> None:
        clock = metrics.stage(f"{self.name}.group")
        waiting: list[Frame] = []
        due = 0.0
        while True:
            since = time.monotonic()
            if waiting and since >= due and not self._prepared.depth:
                self._send(waiting, metrics, clock)
                waiting = []
            # Past its time, a batch waits for the device, which wakes us, and takes what comes meanwhile.
            timeout = due - since if waiting and due > since else None
            try:
                items = inlet.get(BURST, timeout)
            except Closed:
                break
            now = time.monotonic()
            clock.starved(now - since)
            for kind, some in keep_order(items):
                if kind is Result:
                    clock.blocked(outlet.put(some))
                elif kind is RunStart:
                    self._send(waiting, metrics, clock)
                    waiting = []
                    self._pass_marks(some)
                else:
                    due = due if waiting else now + self._wait_s
                    waiting += some
                    while len(waiting) >= self._size:
                        self._send(waiting[: self._size], metrics, clock)
                        waiting = waiting[self._size :]
        self._send(waiting, metrics, clock)
        self._prepared.close()

    def _send(self, frames: list[Frame], metrics: Metrics, clock: StageClock) -> None:
        if frames:
            with clock.busy():
                made = do(f"{self.name}.prepare", self._prepare, frames)
            pass_on(made, self._prepared, metrics, clock)

    def _pass_marks(self, marks: Sequence[Any]) -> None:
        """Send marks behind the batches, and wait until they are out: what follows may pass by, but not them."""
        for mark in marks:
            self._prepared.put([mark])
            with suppress(Closed):  # by an abort, which drops what follows
                self._marks.get(1)

    def _prepare(self, frames: Sequence[Frame]) -> Sequence[Any]:
        return [Batch(frames, self._model.prepare(frames))]

    def _run(self, inlet: Inlet, metrics: Metrics) -> None:
        clock = metrics.stage(f"{self.name}.run")
        for items in bursts(self._prepared, lambda: 1, clock):
            inlet.wake()
            for item in items:
                if isinstance(item, Batch):
                    with clock.busy():
                        item.data = self._model.run(item.data)
            clock.blocked(self._scored.put(items))
        self._scored.close()

    def _decide(self, outlet: Outlet, metrics: Metrics) -> None:
        clock = metrics.stage(f"{self.name}.decide")
        for items in bursts(self._scored, lambda: 1, clock):
            for item in items:
                if isinstance(item, Batch):
                    with clock.busy():
                        made = do(f"{self.name}.decide", self._judge, [item])
                    pass_on(made, outlet, metrics, clock)
                else:
                    outlet.put([item])
                    self._marks.put([item])
        outlet.close()

    def _judge(self, batches: Sequence[Batch]) -> Sequence[Judged]:
        (batch,) = batches
        results = self._model.decide(batch.frames, batch.data)
        if len(results) != len(batch.frames):
            raise AccountingError(f"{self.name}: {len(batch.frames)} frames in, {len(results)} results out")
        return results
