"""``Infer``: batches grow while the device is busy, decided results pass it, marks hold their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from beamsieve.stream.flow.channel import Channel, Closed
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result, RunEnd, RunStart
from beamsieve.stream.flow.infer import Infer
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.stages import weigh

PIXELS = np.zeros((1, 1), np.uint16)


@dataclass
class Device:
    """A model whose device works when it is let."""

    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    started: list[int] = field(default_factory=list)

    def prepare(self, frames: Sequence[Frame]) -> Any:
        return len(frames)

    def run(self, batch: Any) -> Any:
        self.started.append(batch)
        assert self.go.acquire(timeout=20)
        return batch

    def decide(self, frames: Sequence[Frame], scores: Any) -> Sequence[Result]:
        assert scores == len(frames)
        return [Result(frame, Outcome.ACCEPTED, 1.0) for frame in frames]


class Stage:
    """An ``Infer`` alone, with its threads running."""

    def __init__(self, size: int, wait_s: float) -> None:
        self.device, self.metrics = Device(), Metrics("t")
        infer = Infer("model", self.device, size=size, wait_s=wait_s)
        self.channels: list[Channel[Any]] = []
        infer.channels(self.channel)
        self.inlet, self.outlet = self.channel("in", 1000), self.channel("out", 1000)
        self.threads = [
            threading.Thread(target=body, daemon=True)
            for _, body in infer.threads(self.inlet, self.outlet, self.metrics)
        ]
        for thread in self.threads:
            thread.start()

    def channel(self, name: str, size: int) -> Channel[Any]:
        made: Channel[Any] = Channel(name, size, weigh=weigh)
        self.channels.append(made)
        return made

    def close(self) -> list[Any]:
        self.inlet.close()
        for _ in range(100):
            self.device.go.release()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        out: list[Any] = []
        while True:
            try:
                out += self.outlet.get(1000)
            except Closed:
                return out


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def frame(number: int, run: str = "r") -> Frame:
    return Frame(Key(run, number), PIXELS, 0.0, 0.0)


def decided(number: int, run: str = "r") -> Result:
    return Result(frame(number, run), Outcome.REJECTED, 0.0, "prescreen")


def test_batches_grow_while_the_device_is_busy() -> None:
    stage = Stage(size=100, wait_s=0)
    stage.inlet.put([frame(0)])
    until(lambda: stage.device.started == [1])
    stage.inlet.put([frame(1)])
    until(lambda: stage.channels[0].depth == 1)
    for number in range(2, 42):
        stage.inlet.put([frame(number)])
        until(lambda: not stage.inlet.depth)
    out = stage.close()
    assert stage.device.started == [1, 1, 40]
    assert [result.frame.key.number for result in out] == list(range(42))


def test_a_batch_is_never_larger_than_the_device_takes() -> None:
    stage = Stage(size=8, wait_s=10)
    stage.inlet.put([frame(number) for number in range(20)])
    out = stage.close()
    assert stage.device.started == [8, 8, 4]
    assert len(out) == 20


def test_decided_results_pass_a_busy_device() -> None:
    stage = Stage(size=1, wait_s=0)
    stage.inlet.put([frame(0)])
    until(lambda: stage.device.started)
    stage.inlet.put([decided(1), decided(2)])
    assert [result.frame.key.number for result in stage.outlet.get(10, 10)] == [1, 2]
    assert [result.frame.key.number for result in stage.close()] == [0]


def test_nothing_passes_a_mark_and_a_mark_passes_nothing() -> None:
    stage = Stage(size=4, wait_s=10)
    for run in "ab":
        stage.inlet.put([RunStart(run), frame(0, run), decided(1, run), frame(2, run), RunEnd(run)])
    out = stage.close()
    runs = [item.run if isinstance(item, RunStart | RunEnd) else item.frame.key.run for item in out]
    assert runs == ["a"] * 5 + ["b"] * 5
    assert [type(item) for item in out] == 2 * [RunStart, Result, Result, Result, RunEnd]


def test_an_abort_ends_a_mark_that_waits_for_the_device() -> None:
    stage = Stage(size=4, wait_s=10)
    stage.inlet.put([frame(0), RunEnd("r"), frame(1)])
    until(lambda: stage.device.started)
    for channel in stage.channels:
        channel.abort()
    stage.device.go.release()
    for thread in stage.threads:
        thread.join(20)
        assert not thread.is_alive()
