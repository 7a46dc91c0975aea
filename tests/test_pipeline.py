"""The invariant: read = accepted + rejected + failed + dropped, nothing twice, and stopping drains."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.flow.channel import WhenFull
from beamsieve.stream.flow.frame import (
    BadData,
    Discard,
    Encoded,
    Failure,
    Frame,
    Incoming,
    Key,
    Mark,
    Outcome,
    Raw,
    Result,
    RunEnd,
    RunStart,
)
from beamsieve.stream.flow.infer import Infer
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.pipeline import Pipeline
from beamsieve.stream.flow.ports import Listener
from beamsieve.stream.flow.stages import AccountingError, Each, Stage
from hypothesis import given, settings
from hypothesis import strategies as st

PIXELS = np.zeros((1, 1), np.uint16)
BLOB = Encoded(b"\0\0", (1, 1), np.dtype("<u2"))


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


@dataclass
class Script:
    """A source that plays a list of bursts, and remembers what it was told is done."""

    bursts: list[list[Incoming]]
    forever: bool = False
    finished: list[Key] = field(default_factory=list)
    closed: int = 0
    drained: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        self.at = 0

    def read(self, timeout: float) -> Sequence[Incoming] | None:
        if self.at == len(self.bursts):
            self.drained.set()
            if self.forever:
                pause(0.001)
                return []
            return None
        self.at += 1
        return self.bursts[self.at - 1]

    def done(self, keys: Sequence[Key]) -> None:
        self.finished.extend(keys)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Decode:
    """Each shot of a train becomes a frame, or a failure, as its number says."""

    bad: frozenset[int] = frozenset()
    raises: frozenset[int] = frozenset()
    slow: float = 0.0

    def __call__(self, items: Sequence[Raw]) -> Sequence[Any]:
        if self.slow:
            pause(self.slow)
        if any(raw.key.number in self.raises for raw in items):
            raise BadData("decompress", "this burst holds a bad one")
        out: list[Any] = []
        for raw in items:
            keys = [Key(raw.key.run, raw.key.number, pulse) for pulse in range(raw.count)]
            if raw.key.number in self.bad:
                out.append(Failure(raw.key, "shape", "bad", raw.count))
            else:
                out += [Frame(key, PIXELS, raw.arrived, raw.wall) for key in keys]
        return out

    def mark(self, mark: Mark) -> Mark:
        return mark


@dataclass
class Screen:
    """Rejects some frames before the model."""

    reject_every: int

    def __call__(self, items: Sequence[Frame]) -> Sequence[Any]:
        return [
            Result(frame, Outcome.REJECTED, 0.0, "prescreen") if frame.key.number % self.reject_every == 0 else frame
            for frame in items
        ]

    def mark(self, mark: Mark) -> Mark:
        return mark


@dataclass
class Net:
    slow: float = 0.0
    unfit: frozenset[int] = frozenset()
    forget: bool = False

    def prepare(self, frames: Sequence[Frame]) -> Any:
        if any(frame.key.number in self.unfit for frame in frames):
            raise BadData("model_shape", "does not fit")
        return [frame.key.number for frame in frames]

    def run(self, batch: Any) -> Any:
        if self.slow:
            pause(self.slow)
        return [number % 3 == 0 for number in batch]

    def decide(self, frames: Sequence[Frame], scores: Any) -> Sequence[Result]:
        results = [
            Result(frame, Outcome.ACCEPTED if hit else Outcome.REJECTED, float(hit), weight=float(frame.key.number % 2))
            for frame, hit in zip(frames, scores, strict=True)
        ]
        return results[1:] if self.forget else results


@dataclass
class Shelf:
    """A sink that keeps everything and fails on some."""

    refuse: frozenset[int] = frozenset()
    slow: float = 0.0
    got: list[Result] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    closed: int = 0
    flushed: int = 0
    loses: frozenset[int] = frozenset()
    asked: int = 0

    def start(self, mark: RunStart) -> None:
        self.marks.append(mark)

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        if self.slow:
            pause(self.slow)
        self.got += results
        return [Failure(r.frame.key, "disk_full", "no") for r in results if r.frame.key.number in self.refuse]

    def end(self, mark: RunEnd) -> None:
        self.marks.append(mark)

    def flush(self) -> None:
        self.flushed += 1

    def lost(self) -> Sequence[Failure]:
        fresh = self.got[self.asked :]
        self.asked = len(self.got)
        return [Failure(r.frame.key, "lost", "no") for r in fresh if r.weight > 0 and r.frame.key.number in self.loses]

    def close(self) -> None:
        self.closed += 1


def raw(number: int, run: str = "r", count: int = 1) -> Raw:
    return Raw(Key(run, number), BLOB, 0.0, 0.0, count)


numbers = st.frozensets(st.integers(0, 60), max_size=8)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_shot_ends_exactly_once(data: st.DataObject) -> None:
    draw = data.draw
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=10), "burst sizes")
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3), "train lengths")
    end = draw(st.sampled_from(["source", "stop", "abort"]), "end")
    bursts: list[list[Incoming]] = [[RunStart("r")]]
    number = 0
    for size in sizes:
        burst: list[Incoming] = []
        for _ in range(size):
            kind = draw(st.sampled_from("rrrrrfd"))
            key, count = Key("r", number), counts[number % len(counts)]
            choice: dict[str, Raw | Failure | Discard] = {
                "r": raw(number, count=count),
                "f": Failure(key, "cbor", "?", count),
                "d": Discard(key, "stale", count),
            }
            burst.append(choice[kind])
            number += 1
        bursts.append(burst)
    slow = st.sampled_from([0.0, 0.0, 0.002])
    source = Script(bursts, forever=end != "source")
    shelf = Shelf(draw(numbers, "refused"), draw(slow, "slow sink"), loses=draw(numbers, "lost after they were taken"))
    stages: list[Stage] = [
        Each(
            "decode",
            Decode(draw(numbers, "bad"), draw(numbers, "raising"), draw(slow)),
            workers=draw(st.integers(1, 3)),
            burst=4,
        ),
        Each("screen", Screen(draw(st.integers(1, 4))), burst=5),
        Infer(
            "model",
            Net(draw(slow), draw(numbers, "unfit")),
            size=draw(st.integers(1, 6)),
            wait_s=draw(st.sampled_from([0, 0.003])),
        ),
    ]
    metrics = Metrics("test", labels=("miss", "hit"))
    pipeline = Pipeline(
        source,
        stages,
        [shelf],
        metrics,
        queue=draw(st.integers(1, 12)),
        when_full=draw(st.sampled_from(WhenFull)),
        flush_s=0.001,
    )
    pipeline.start()
    if end == "stop":
        source.drained.wait(10)
        pipeline.stop()
    elif end == "abort":
        pause(draw(st.sampled_from([0.0, 0.001, 0.004])))
        pipeline.abort()
    assert pipeline.wait(20)
    assert pipeline.error is None
    left = pipeline.settle()
    tally = metrics.tally()
    assert left == 0, "a shot was lost on the way, and only the final settling found it"
    assert tally.balanced
    assert tally.read == sum(
        item.count for burst in bursts[: source.at] for item in burst if not isinstance(item, RunStart | RunEnd)
    )
    keys = [result.frame.key for result in shelf.got]
    assert len(keys) == len(set(keys)), "emitted twice"
    assert len(source.finished) == tally.accepted + tally.rejected
    gone = shelf.refuse | {n for n in shelf.loses if n % 2}
    kept = [r for r in shelf.got if r.frame.key.number not in (gone if r.weight > 0 else shelf.refuse)]
    assert tally.accepted == sum(r.outcome is Outcome.ACCEPTED for r in kept)
    assert tally.rejected == sum(r.outcome is Outcome.REJECTED for r in kept)
    assert shelf.closed == source.closed == 1
    if end != "abort":
        assert [type(mark) for mark in shelf.marks] == [RunStart, RunEnd]
        assert "abort" not in tally.drops


def test_marks_keep_their_place_among_the_frames() -> None:
    order: list[str] = []

    class Log(Shelf):
        def start(self, mark: RunStart) -> None:
            order.append(f"start {mark.run}")

        def end(self, mark: RunEnd) -> None:
            order.append(f"end {mark.run} {mark.reason}")

        def write(self, results: Sequence[Result]) -> Sequence[Failure]:
            order.extend(r.frame.key.run for r in results)
            return []

    runs: list[list[Incoming]] = []
    for run in ("a", "b", "c"):
        runs += [[RunStart(run), *(raw(i, run) for i in range(7))], [RunEnd(run)]]
    stages: list[Stage] = [
        Each("decode", Decode(slow=0.001), workers=3, burst=2),
        Infer("model", Net(), size=4, wait_s=1),
    ]
    Pipeline(Script(runs), stages, [Log()], Metrics("test")).run()
    assert order == [x for run in "abc" for x in (f"start {run}", *[run] * 7, f"end {run} end")]


def test_a_late_batch_is_not_kept_waiting() -> None:
    source = Script([[raw(0)]], forever=True)
    shelf = Shelf()
    pipeline = Pipeline(
        source, [Each("decode", Decode()), Infer("model", Net(), size=64, wait_s=0.01)], [shelf], Metrics("t")
    )
    pipeline.start()
    for _ in range(2000):
        if shelf.got:
            break
        pause(0.001)
    assert shelf.got, "one frame waited for a full batch"
    pipeline.stop()
    assert pipeline.wait(10)


def test_a_bug_in_a_stage_ends_the_pipeline_and_is_kept() -> None:
    class Broken(Decode):
        def __call__(self, items: Sequence[Raw]) -> Sequence[Any]:
            raise ZeroDivisionError

    shelf = Shelf()
    metrics = Metrics("t")
    pipeline = Pipeline(Script([[raw(0), raw(1)]], forever=True), [Each("decode", Broken())], [shelf], metrics)
    pipeline.start()
    assert pipeline.wait(10)
    pipeline.settle()
    assert isinstance(pipeline.error, ZeroDivisionError)
    assert metrics.tally().balanced
    assert shelf.closed == 1


class Forgetful(Screen):
    def __call__(self, items: Sequence[Frame]) -> Sequence[Any]:
        return items[1:]


@pytest.mark.parametrize("stage", [Infer("model", Net(forget=True), size=4, wait_s=0), Each("forgetful", Forgetful(1))])
def test_a_stage_that_forgets_a_frame_is_found_out(stage: Stage) -> None:
    pipeline = Pipeline(Script([[raw(0), raw(1)]]), [Each("d", Decode()), stage], [Shelf()], Metrics("t"))
    with pytest.raises(AccountingError):
        pipeline.run()


def test_metrics_tell_prometheus_the_ledger() -> None:
    source = Script([[RunStart("r"), *(raw(i) for i in range(30)), Failure(Key("r", 99), "cbor", "?")]])
    metrics = Metrics("t", labels=("miss", "hit"))
    Pipeline(source, [Each("decode", Decode()), Infer("model", Net(), size=8, wait_s=0)], [Shelf()], metrics).run()
    get = metrics.registry().get_sample_value
    assert get("beamsieve_frames_read_total") == 31
    assert get("beamsieve_frames_total", {"outcome": "accepted"}) == 10
    assert get("beamsieve_frames_total", {"outcome": "rejected"}) == 20
    assert get("beamsieve_frames_failed_total", {"reason": "cbor"}) == 1
    assert get("beamsieve_verdicts_total", {"verdict": "hit"}) == 10
    assert get("beamsieve_latency_seconds_count") == 30
    assert get("beamsieve_score_bucket", {"le": "0.99"}) == 20
    assert get("beamsieve_queue_capacity", {"queue": "source"}) == 1024
    assert get("beamsieve_stage_seconds_total", {"stage": "model.run", "state": "busy"}) is not None


def test_a_frame_lost_with_its_file_has_failed_and_was_never_accepted() -> None:
    shelf = Shelf(loses=frozenset({3, 9, 5}))
    metrics = Metrics("t")
    source = Script([[RunStart("r"), *(raw(i) for i in range(12))]])
    Pipeline(source, [Each("decode", Decode()), Infer("model", Net(), size=4, wait_s=0)], [shelf], metrics).run()
    tally = metrics.tally()
    # Of 0, 3, 6, 9 that are hits, 3 and 9 are lost; 5 is a miss that was kept, and is lost too.
    assert (tally.accepted, tally.rejected, tally.failed) == (2, 7, 3)
    assert tally.failures == {"lost": 3}
    assert {key.number for key in source.finished} == set(range(12)) - {3, 5, 9}


def test_what_a_sink_refused_those_after_it_do_not_hear_of() -> None:
    class Full(Listener):
        def write(self, results: Sequence[Result]) -> Sequence[Failure]:
            return [Failure(r.frame.key, "disk_full", "no room") for r in results if r.frame.key.number % 2]

    class Heard(Listener):
        def __init__(self) -> None:
            self.numbers: list[int] = []

        def write(self, results: Sequence[Result]) -> Sequence[Failure]:
            self.numbers += [result.frame.key.number for result in results]
            return ()

    heard, metrics = Heard(), Metrics("t")
    source = Script([[RunStart("r"), *(raw(i) for i in range(6))]])
    stages: list[Stage] = [Each("decode", Decode()), Infer("model", Net(), size=4, wait_s=0)]
    Pipeline(source, stages, [Full(), heard], metrics).run()
    assert sorted(heard.numbers) == [0, 2, 4]
    assert metrics.tally().failures == {"disk_full": 3}
