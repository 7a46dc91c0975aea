"""``Infer``: groups frames into batches and runs a model on them, with one thread that owns the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .channel import Channel, Closed
from .frame import Frame, Result
from .metrics import Metrics, StageClock
from .stages import AccountingError, Inlet, Outlet, bursts, do, pass_on


class Model(Protocol):
    """The seam to a model. ``prepare`` may run in any thread, ``run`` in the one thread that owns the device."""

    def prepare(self, frames: Sequence[Frame]) -> Any:
        """Stack the frames into the model's input. Raise ``BadData`` when one does not fit: they are tried singly."""

    def run(self, batch: Any) -> Any:
        """Scores for a prepared batch."""

    def decide(self, frames: Sequence[Frame], scores: Any) -> Sequence[Result]:
        """One result per frame, in order."""


class Batch:
    """Frames on their way through the model, and what the model makes of them."""

    __slots__ = ("count", "data", "frames")

    def __init__(self, frames: Sequence[Frame], data: Any) -> None:
        self.frames = frames
        self.data = data
        self.count = len(frames)


class PassedBy:
    """Results decided before the model, on their way past it."""

    __slots__ = ("count", "results")

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results
        self.count = len(results)


class Infer:
    """Groups frames into batches of ``size``, or what came within ``wait_s`` of the first, and runs the model on them.

    Results that were decided earlier (by a pre-screen) pass by at once. Three threads: one groups and prepares, one
    owns the device, one decides; between them a channel of one batch, so that the next batch is ready (double
    buffering).
    """

    def __init__(self, name: str, model: Model, *, size: int, wait_s: float) -> None:
        self.name = name
        self._model = model
        self._size = size
        self._wait_s = wait_s
        self._prepared: Channel[Any]
        self._scored: Channel[Any]

    def channels(self, make: Callable[[str, int], Channel[Any]]) -> None:
        """One full batch ready for the device and one coming from it, with room for results that pass by."""
        self._prepared = make(f"{self.name}.prepared", 2 * self._size)
        self._scored = make(f"{self.name}.scored", 2 * self._size)

    def threads(self, inlet: Inlet, outlet: Outlet, metrics: Metrics) -> Sequence[tuple[str, Callable[[], None]]]:
        """Group, run and decide."""
        return [
            (f"{self.name}.group", lambda: self._group(inlet, metrics)),
            (f"{self.name}.run", lambda: self._run(metrics)),
            (f"{self.name}.decide", lambda: self._decide(outlet, metrics)),
        ]

    def _group(self, inlet: Inlet, metrics: Metrics) -> None:
        clock = metrics.stage(f"{self.name}.group")
        waiting: list[Frame] = []
        due = 0.0
        while True:
            timeout = max(0.0, due - time.monotonic()) if waiting else None
            since = time.monotonic()
            try:
                items = inlet.get(self._size, timeout)
            except Closed:
                break
            clock.starved(time.monotonic() - since)
            decided: list[Result] = []
            for item in items:
                if isinstance(item, Result):
                    decided.append(item)
                elif isinstance(item, Frame):
                    due = due if waiting else time.monotonic() + self._wait_s
                    waiting.append(item)
                else:
                    waiting = self._send(waiting, metrics, clock)
                    decided = self._pass_by(decided, clock)
                    self._prepared.put([item])
                if len(waiting) == self._size:
                    waiting = self._send(waiting, metrics, clock)
            self._pass_by(decided, clock)
            if waiting and time.monotonic() >= due:
                waiting = self._send(waiting, metrics, clock)
        self._send(waiting, metrics, clock)
        self._prepared.close()

    def _send(self, frames: list[Frame], metrics: Metrics, clock: StageClock) -> list[Frame]:
        if frames:
            with clock.busy():
                made = do(f"{self.name}.prepare", self._prepare, frames)
            pass_on(made, self._prepared, metrics, clock)
        return []

    def _pass_by(self, results: list[Result], clock: StageClock) -> list[Result]:
        if results:
            clock.blocked(self._prepared.put([PassedBy(results)]))
        return []

    def _prepare(self, frames: Sequence[Frame]) -> Sequence[Any]:
        return [Batch(frames, self._model.prepare(frames))]

    def _run(self, metrics: Metrics) -> None:
        clock = metrics.stage(f"{self.name}.run")
        for items in bursts(self._prepared, 1, clock):
            for item in items:
                if isinstance(item, Batch):
                    with clock.busy():
                        item.data = self._model.run(item.data)
            clock.blocked(self._scored.put(items))
        self._scored.close()

    def _decide(self, outlet: Outlet, metrics: Metrics) -> None:
        clock = metrics.stage(f"{self.name}.decide")
        for items in bursts(self._scored, self._size, clock):
            for item in items:
                if isinstance(item, Batch):
                    with clock.busy():
                        made = do(f"{self.name}.decide", self._judge, [item])
                    pass_on(made, outlet, metrics, clock)
                else:
                    clock.blocked(outlet.put(item.results if isinstance(item, PassedBy) else [item]))
        outlet.close()

    def _judge(self, batches: Sequence[Batch]) -> Sequence[Result]:
        (batch,) = batches
        results = self._model.decide(batch.frames, batch.data)
        if len(results) != len(batch.frames):
            raise AccountingError(f"{self.name}: {len(batch.frames)} frames in, {len(results)} results out")
        return results
