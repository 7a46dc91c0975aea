"""Readiness by the clock, the server's answers, and what the grace period does to a stage that hangs."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.flow.frame import BadData, Encoded, Failure, Frame, Incoming, Key, Mark, Outcome, Raw, Result
from beamsieve.stream.flow.life import ServiceSettings
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.pipeline import Pipeline
from beamsieve.stream.flow.stages import Each
from beamsieve.stream.service import BROKEN, DRAINED, Readiness, open_server, serve

BLOB = Encoded(b"\0\0", (1, 1), np.dtype("<u2"))


class Beam:
    """A source that sends one burst of ten shots and then nothing."""

    def __init__(self) -> None:
        self.sent = False

    def open(self) -> None: ...

    def read(self, timeout: float) -> Sequence[Incoming]:
        if self.sent:
            threading.Event().wait(0.001)
            return []
        self.sent = True
        return [Raw(Key("r", i), BLOB, 0.0, 0.0) for i in range(10)]

    def done(self, keys: Sequence[Key]) -> None: ...

    def close(self) -> None: ...


class Judge:
    def __init__(self, hang: threading.Event | None = None, bug: bool = False) -> None:
        self.hang = hang
        self.bug = bug
        self.reached = threading.Event()

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        self.reached.set()
        if self.bug:
            raise KeyError("a bug")
        if self.hang:
            self.hang.wait(20)
        return [Result(Frame(raw.key, np.zeros((1, 1)), 0.0, 0.0), Outcome.REJECTED, 0.0) for raw in items]

    def mark(self, mark: Mark) -> Mark:
        return mark


def stop_when(judge: Judge, stop: threading.Event) -> None:
    judge.reached.wait(10)
    stop.set()


def pipeline(judge: Judge, **options: Any) -> Pipeline:
    return Pipeline(Beam(), [Each("judge", judge)], [], Metrics("t"), **options)


def test_ready_follows_warm_up_silence_failures_and_sinks() -> None:
    now = [0.0]
    said: list[str | None] = [None]
    line = pipeline(Judge())
    readiness = Readiness(
        line, ServiceSettings(silent_s=30, failure_limit=0.1), lambda: said[0], lambda: now[0], "listening to tcp://x:1"
    )
    assert readiness.problems() == ["warming up: the model has not run yet"]
    line.warm = True
    line.metrics.last_read = 0.0
    assert readiness.problems() == []
    now[0] = 31
    assert readiness.problems() == ["source silent for 31 s (limit 30 s), listening to tcp://x:1"]
    line.metrics.operation.paused(True)
    assert readiness.problems() == [], "a person paused it"
    line.metrics.operation.paused(False)
    line.metrics.last_read = 31.0
    line.metrics.ledger.read(100)
    for i in range(11):
        line.metrics.failed(Failure(Key("r", i), "decompress", "?"))
    assert readiness.problems() == ["11 of the last 100 frames failed (limit 10.0%), mostly decompress"]
    now[0] = line.metrics.last_read = 60.0
    readiness.problems()
    now[0] = line.metrics.last_read = 121.0
    assert readiness.problems() == [], "a minute later they are forgotten"
    said[0] = "disk full"
    assert readiness.problems() == ["disk full"]


def test_the_server_answers() -> None:
    metrics = Metrics("xfel_hits")
    problems: list[str] = ["cold"]
    server = open_server(ServiceSettings(port=0), metrics, lambda: problems, None, None)

    def get(path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    try:
        assert get("/readyz") == (503, b'{"ready": false, "problems": ["cold"]}\n')
        problems.clear()
        assert get("/readyz")[0] == 200
        assert json.loads(get("/healthz")[1])["alive"] is True
        assert b"beamsieve_frames_read_total 0.0" in get("/metrics?x=1")[1]
        assert get("/etc/passwd")[0] == 404
    finally:
        server.close()


def test_a_source_that_ends_or_a_stop_is_exit_0() -> None:
    judge, stop = Judge(), threading.Event()
    line = pipeline(judge)
    threading.Thread(target=stop_when, args=(judge, stop)).start()
    assert serve(line, ServiceSettings(port=0), stop=stop, show_s=0.01) == DRAINED
    assert line.metrics.tally().rejected == 10


def test_a_bug_is_exit_1_and_still_adds_up(caplog: pytest.LogCaptureFixture) -> None:
    line = pipeline(Judge(bug=True))
    assert serve(line, ServiceSettings(port=0), show_s=0.01) == BROKEN
    assert line.metrics.tally().balanced
    assert "a bug, not bad data" in caplog.text


def test_a_stage_that_hangs_is_aborted_within_the_grace_period(caplog: pytest.LogCaptureFixture) -> None:
    hang, stop = threading.Event(), threading.Event()
    judge = Judge(hang)
    line = pipeline(judge)
    threading.Thread(target=stop_when, args=(judge, stop)).start()
    serve(line, ServiceSettings(port=0, grace_s=0.4), stop=stop, show_s=0.01)
    tally = line.metrics.tally()
    assert tally.read == tally.dropped == 10
    assert "aborting with 10 frames in flight" in caplog.text
    hang.set()
    line.wait(10)
    assert line.metrics.tally() == tally, "what comes out after the end must not be counted again"


@pytest.mark.parametrize(
    "error",
    [
        OSError("cannot connect to tcp://x: use tcp://HOST:PORT"),
        OSError(22, "cannot connect to tcp://x: use tcp://HOST:PORT"),
        BadData("recording", "x.bsrec: not a recording; use tcp://HOST:PORT"),
    ],
)
def test_what_cannot_be_opened_is_exit_1(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    class Absent(Beam):
        def open(self) -> None:
            raise error

    line = Pipeline(Absent(), [Each("judge", Judge())], [], Metrics("t"))
    assert serve(line, ServiceSettings(port=0)) == BROKEN
    assert "use tcp://HOST:PORT" in caplog.text
    assert "Errno" not in caplog.text
    assert "Traceback" not in caplog.text
