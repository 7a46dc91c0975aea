"""What people change on a running daemon: written down, done, undone by nobody, done again after a restart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import pytest
from beamsieve.models.hits.infer import CLASSES
from beamsieve.models.hits.simulator import Recipe, simulate_block
from beamsieve.stream.beamlines.xfel_hits import XfelHits, build
from beamsieve.stream.emulators.dectris import DectrisEmulator
from beamsieve.stream.flow.frame import Encoded, Key, Raw, RunEnd, RunStart
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.operation import Operation
from beamsieve.stream.flow.ports import Apart, Listener
from beamsieve.stream.flow.settings import Where
from beamsieve.stream.live.changes import Changes
from beamsieve.stream.live.control import Control
from beamsieve.stream.live.page import JSON, Refused
from beamsieve.stream.live.trial import SHARE, Trial

BY = "Ana"


def until(true: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.01)
    return found


# --- the log -------------------------------------------------------------------------------------------------------


def test_a_change_is_written_down_and_stands_while_the_configuration_says_the_same(tmp_path: Path) -> None:
    operation = Operation()
    log = Changes(tmp_path / "new", operation, wall=lambda: 12.5)
    log.note("threshold", BY, 0.5, 0.4, configured=0.5)
    log.note("pause", BY, False, True)
    log.note("threshold", "Bo", 0.4, 0.3, configured=0.5)
    again = Changes(tmp_path / "new", Operation())
    assert [line["new"] for line in map(json.loads, log.path.read_text().splitlines())] == [0.4, True, 0.3]
    last = again.standing("threshold", 0.5)
    assert last is not None
    assert (last["new"], last["by"], last["time"]) == (0.3, "Bo", 12.5)
    assert again.standing("threshold", 0.6) is None, "who edits the configuration means it"
    assert again.standing("run") is None
    assert again.recent()[0] == {"time": 12.5, "by": BY, "what": "threshold", "old": 0.5, "new": 0.4}
    assert [json.loads(text)["new"] for text in again.texts(1)] == [True, 0.3]
    assert [json.loads(text)["new"] for text in again.standing_texts()] == [True, 0.3]
    changes = {sample.labels["what"]: sample.value for sample in _samples(operation, "beamsieve_changes_total")}
    assert changes == {
        "threshold": 2,
        "pause": 1,
        "run": 0,
        "model": 0,
        "candidate": 0,
        "class": 0,
        "group": 0,
        "clusters": 0,
    }


def test_what_cannot_be_written_down_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    levers = Fake()
    control = Control(levers, Metrics("t"), Changes(tmp_path / "file" / "below", Operation()))
    with pytest.raises(Refused, match="nothing was changed"):
        control.act("threshold", {"value": 0.3}, BY)
    assert levers.value == 0.5


def _samples(operation: Operation, name: str) -> list[Any]:
    return [sample for family in operation.collect() for sample in family.samples if sample.name == name]


# --- the trial -----------------------------------------------------------------------------------------------------


def test_a_candidate_gets_its_share_of_the_time_and_its_verdicts_are_compared() -> None:
    now = [0.0]
    operation = Operation()
    trial = Trial("other", 0.6, operation, clock=lambda: now[0])
    assert trial.due(10)
    trial.spent(0.2)
    assert not trial.due(10), "it just had its turn"
    now[0] = 0.2 * (1 / SHARE - 1) - 0.01
    assert not trial.due(10)
    now[0] += 0.02
    assert trial.due(10)
    current = np.array([True, True, True, False, False, False, False, False, False, False])
    candidate = np.array([True, True, False, True, False, False, False, False, False, False])
    trial.compare(current, candidate, 10)
    state = trial.state("hits")
    assert state["table"] == [[2, 1], [1, 6]]
    assert state["frames"] == 10
    assert state["share"] == 10 / 40
    assert state["agree"]["value"] == 0.8
    assert state["rate"]["value"] == state["current_rate"]["value"] == 0.3
    assert state["rate"]["low"] < 0.3 < state["rate"]["high"]
    assert sum(sample.value for sample in _samples(operation, "beamsieve_shadow_frames_total")) == 10
    picks = trial.state("picks")
    assert picks["agree"]["value"] == 2 / 10
    assert picks["rate"]["value"] == 0.3, "picks per micrograph"


def test_a_candidate_that_has_seen_nothing_says_nothing() -> None:
    state = Trial("other", 0.6, Operation()).state("hits")
    assert (state["agree"], state["rate"], state["share"]) == (None, None, None)
    json.dumps(state, allow_nan=False)


# --- the control ---------------------------------------------------------------------------------------------------


class Fake:
    """Levers that remember."""

    kind: Final = "hits"

    def __init__(self, configured: str = "one", value: float = 0.5) -> None:
        self.bundle, self.configured, self.value, self.paused = configured, configured, value, False
        self.names = ["one", "two"]
        self.runs: list[tuple[str, bool]] = []
        self.tried: str | None = None
        self.broken = False

    def threshold(self) -> JSON:
        return {"value": self.value, "configured": 0.5, "card": 0.5, "floor": 0.1}

    def check_threshold(self, value: float) -> None:
        if not 0.1 <= value <= 1:
            raise Refused("value: 0.1 to 1")

    def move(self, value: float) -> None:
        self.value = value

    def resume(self, value: float, since: float) -> None:
        self.move(value)

    def pause(self, paused: bool) -> None:
        self.paused = paused

    def new_run(self, title: str, *, now: bool) -> None:
        self.runs.append((title, now))

    def writing_to(self) -> str | None:
        return "a.cxi"

    def further(self) -> JSON:
        return {"more": 1}

    def model(self) -> str:
        return self.bundle

    def configured_model(self) -> str:
        return self.configured

    def models(self) -> Sequence[str]:
        return self.names

    def try_out(self, bundle: str) -> Trial:
        if self.broken:
            raise Refused("its file is damaged")
        self.tried = bundle
        return Trial(bundle, 0.7, Operation())

    def drop(self) -> None:
        self.tried = None

    def promote(self) -> None:
        assert self.tried
        self.bundle, self.tried = self.tried, None


def made(folder: Path, levers: Fake) -> tuple[Control, Metrics]:
    metrics = Metrics("t")
    return Control(levers, metrics, Changes(folder, metrics.operation)), metrics


def test_everything_a_person_changes_is_found_again_after_a_restart(tmp_path: Path) -> None:
    levers = Fake()
    control, metrics = made(tmp_path, levers)
    control.restore()
    control.act("candidate", {"bundle": "two"}, BY)
    assert control.state()["candidate"]["bundle"] == "two"
    control.act("promote", {}, BY)
    control.act("threshold", {"value": 0.25}, BY)
    control.act("pause", {"paused": True}, BY)
    state = control.act("run", {"title": "  lysozyme, jet 2 "}, BY)
    assert levers.runs == [("lysozyme, jet 2", True)]
    assert [change["what"] for change in state["changes"]] == ["candidate", "model", "threshold", "pause", "run"]
    assert all(change["by"] == BY for change in state["changes"])
    assert state["writing"] == {"paused": True, "file": "a.cxi"}
    assert [sample.value for sample in _samples(metrics.operation, "beamsieve_writing")] == [0]
    assert [sample.value for sample in _samples(metrics.operation, "beamsieve_threshold")] == [0.25]

    levers = Fake()
    control, metrics = made(tmp_path, levers)
    control.restore()
    assert (levers.bundle, levers.value, levers.paused) == ("two", 0.25, True)
    assert levers.runs == [("lysozyme, jet 2", False)], "the title goes on, without another run"
    assert metrics.operation.is_paused
    assert len(control.state()["changes"]) == 5, "doing it again is no change"

    other = Fake(configured="three")
    made(tmp_path, other)[0].restore()
    assert (other.bundle, other.value) == ("three", 0.5), "the configuration was edited: it holds"
    assert other.paused

    gone = Fake()
    gone.names = ["one"]
    made(tmp_path, gone)[0].restore()
    assert (gone.bundle, gone.value) == ("one", 0.5), "without its model the threshold means nothing"


@pytest.mark.parametrize(
    ("action", "body", "says"),
    [
        ("threshold", {}, "as a number"),
        ("threshold", {"value": "0.5"}, "as a number"),
        ("threshold", {"value": True}, "as a number"),
        ("threshold", {"value": float("nan")}, "as a number"),
        ("threshold", {"value": 0.05}, "0.1 to 1"),
        ("pause", {"paused": 1}, "true or false"),
        ("run", {"title": 7}, "at most 80 printable"),
        ("run", {"title": "x" * 81}, "at most 80 printable"),
        ("run", {"title": "a\nb"}, "at most 80 printable"),
        ("candidate", {"bundle": "../../etc/passwd"}, "choose one of one, two"),
        ("candidate", {"bundle": None}, "choose one of"),
        ("candidate", {"bundle": ["one"]}, "choose one of"),
        ("promote", {}, "no candidate"),
        ("format_disk", {}, "no such action"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    tmp_path: Path, action: str, body: dict[str, Any], says: str
) -> None:
    levers = Fake()
    control, _ = made(tmp_path, levers)
    with pytest.raises(Refused, match=says):
        control.act(action, body, BY)
    assert (levers.value, levers.paused, levers.runs, levers.tried, levers.bundle) == (0.5, False, [], None, "one")
    assert not list(tmp_path.iterdir())


def test_a_candidate_that_cannot_be_loaded_says_why_until_it_is_dismissed(tmp_path: Path) -> None:
    levers = Fake()
    levers.broken = True
    control, _ = made(tmp_path, levers)
    with pytest.raises(Refused, match="damaged"):
        control.act("candidate", {"bundle": "two"}, BY)
    candidate = control.state()["candidate"]
    assert (candidate["state"], candidate["error"]) == ("failed", "its file is damaged")
    assert control.act("dismiss", {}, BY)["candidate"] is None
    levers.broken = False
    control.act("candidate", {"bundle": "two"}, BY)
    assert levers.tried == "two"
    control.act("dismiss", {}, BY)
    assert levers.tried is None


# --- a run that a person begins ------------------------------------------------------------------------------------


def test_a_person_begins_a_run_and_no_frame_is_lost() -> None:
    from beamsieve.stream.flow.pipeline import Pipeline

    asked, told = threading.Event(), threading.Event()
    marks: list[RunStart | RunEnd] = []

    class Beam:
        at = 0

        def open(self) -> None: ...
        def close(self) -> None: ...
        def done(self, keys: Any) -> None: ...

        def read(self, timeout: float) -> Sequence[Any] | None:
            self.at += 1
            if self.at == 3:
                asked.set()
                assert told.wait(5)
                return []
            if self.at > 5:
                return None
            shot = Raw(Key("r", self.at), Encoded(b"\0", (1,), np.dtype("u1")), time.monotonic(), 0.0)
            return [RunStart("r", {"sample": "x"}), shot] if self.at == 1 else [shot]

    class Shelf:
        def start(self, mark: RunStart) -> None:
            marks.append(mark)

        def end(self, mark: RunEnd) -> None:
            marks.append(mark)

        def write(self, results: Any) -> Sequence[Any]:
            return ()

        def flush(self) -> None: ...
        def lost(self) -> Sequence[Any]:
            return ()

        def close(self) -> None: ...

    metrics = Metrics("t")
    line = Pipeline(Beam(), [Judge()], [Shelf()], metrics)
    line.start()
    assert asked.wait(5)
    line.new_run("the second half")
    told.set()
    assert line.wait(10)
    assert metrics.tally().balanced
    assert metrics.tally().rejected == 4
    first, end, second, over = marks
    assert isinstance(first, RunStart)
    assert isinstance(second, RunStart)
    assert end == RunEnd("r", "operator")
    assert "title" not in first.info
    assert second.info["title"] == "the second half"
    assert second.info["sample"] == "x", "what the sender said holds for both halves"
    assert over == RunEnd("r", "end")
    assert metrics.operation.current_run[:2] == ("r", "the second half")


def Judge() -> Any:  # noqa: N802
    from beamsieve.stream.flow.frame import Frame, Outcome, Result
    from beamsieve.stream.flow.stages import Each

    class Work:
        def mark(self, mark: Any) -> Any:
            return mark

        def __call__(self, raws: Sequence[Raw]) -> Sequence[Any]:
            return [Result(Frame(raw.key, np.zeros((1, 1)), raw.arrived, 0.0), Outcome.REJECTED, 0.0) for raw in raws]

    return Each("judge", Work())


def test_a_bug_in_what_shows_frames_ends_the_page_and_not_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    class Buggy(Listener):
        def start(self, mark: RunStart) -> None:
            heard.append("start")

        def write(self, results: Sequence[Any]) -> Sequence[Any]:
            heard.append("write")
            raise KeyError("a bug")

        def close(self) -> None:
            heard.append("close")

    metrics = Metrics("t")
    apart = Apart(Buggy(), metrics)
    apart.start(RunStart("r"))
    assert apart.write([]) == ()
    assert apart.write([]) == ()
    apart.flush()
    apart.close()
    assert heard == ["start", "write"]
    assert metrics.events() == {"page_bug": 1}
    assert "the analysis goes on" in caplog.text


# --- on the real beamline ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hits() -> np.ndarray[Any, Any]:
    """Single hits and misses in turn, of a particle that no training has seen."""
    labels = np.tile(np.array([1, 0], np.int8), 16)
    made = simulate_block(Recipe(seed=78, stream="test", per_model=32), 4, labels=labels)
    return np.minimum(made.images, 65534)


def beamline(folder: Path, endpoint: str) -> Any:
    settings = {
        "beamline": "xfel_hits",
        "source": {"kind": "dectris", "endpoint": endpoint},
        "model": {"bundle": "hits-resnet10", "batch": 8, "dtype": "float32", "threads": 1},
        "keep": {"miss_fraction": 0},
        "files": {"directory": str(folder / "out"), "min_free_gb": 0, "flush_s": 0.05},
        "service": {"port": 0},
    }
    return build(XfelHits.model_validate(settings), Where(folder / "x.yaml"))


def test_threshold_pause_run_and_model_are_changed_while_frames_flow(
    tmp_path: Path, hits: np.ndarray[Any, Any]
) -> None:
    shots: list[tuple[Any, dict[str, Any]]] = [(image, {}) for image in hits]
    sender = DectrisEmulator("tcp://127.0.0.1:*", shots, images=10**6, repeat=len(shots), rate_hz=400)
    with sender:
        daemon = beamline(tmp_path, sender.endpoint)
        page, metrics = daemon.page, daemon.pipeline.metrics
        daemon.pipeline.start()
        try:
            _change_everything(page, metrics)
        finally:
            daemon.pipeline.stop()
            assert daemon.pipeline.wait(20)
    tally = metrics.tally()
    assert tally.balanced
    assert tally.failed == 0
    names = sorted(path.name for path in daemon.files.files if "master" not in path.name)
    assert len(names) == 2, "the new run has a file of its own"
    first, second = (h5py.File(tmp_path / "out" / name) for name in names)
    with first, second:
        titles = {file["entry_1/title"][()].decode(): file for file in (first, second)}
        assert "with the other model" in titles
        result = titles["with the other model"]["entry_1/result_1"]
        noted = [json.loads(line) for line in result["process_1/changes"][()] if line]
        assert {"threshold", "pause", "model", "run"} <= {change["what"] for change in noted}
        thresholds = set(np.round(result["threshold"][()], 3))
        assert thresholds == {np.round(np.float32(metrics.operation.threshold()), 3)}

    again = beamline(tmp_path, "tcp://127.0.0.1:1")
    again.pipeline._warm_up()
    state = again.page.snapshot()
    assert state["model"]["name"] == "hits-resnet10-paper"
    assert state["threshold"]["value"] == metrics.operation.threshold()
    assert len(state["changes"]) >= 6


def test_a_bug_of_the_page_leaves_the_beamline_at_work(
    tmp_path: Path, hits: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shots: list[tuple[Any, dict[str, Any]]] = [(image, {}) for image in hits]
    sender = DectrisEmulator("tcp://127.0.0.1:*", shots)
    with sender:
        daemon = beamline(tmp_path, sender.endpoint)
        monkeypatch.setattr(daemon.page.watch, "write", lambda results: 1 / 0)
        metrics = daemon.pipeline.metrics
        daemon.pipeline.start()
        until(lambda: metrics.tally().read == len(shots) and not metrics.tally().in_flight, "all shots")
        daemon.pipeline.stop()
        assert daemon.pipeline.wait(20)
    assert daemon.pipeline.error is None
    assert metrics.events()["page_bug"] == 1
    assert metrics.tally().accepted + metrics.tally().rejected == len(shots)


def _change_everything(page: Any, metrics: Metrics) -> None:
    until(lambda: metrics.written().get("hit", 0) > 20, "hits in a file")
    page.act("threshold", {"value": 1.0}, BY)
    before = metrics.hits()
    until(lambda: metrics.hits()[1] > before[1] + 64, "shots at the new threshold")
    settled = metrics.hits()
    until(lambda: metrics.hits()[1] > settled[1] + 64, "more of them")
    few = metrics.hits()[0] - settled[0]
    assert few <= 8, "hardly a shot has a score of 1"
    page.act("threshold", {"value": 0.5}, BY)
    page.act("pause", {"paused": True}, BY)
    until(lambda: metrics.events().get("not_kept", 0) > 20, "hits that were not kept")
    kept = metrics.written().get("hit", 0)
    page.act("pause", {"paused": False}, BY)
    until(lambda: metrics.written().get("hit", 0) > kept + 20, "hits in a file again")
    page.act("candidate", {"bundle": "hits-resnet10-paper"}, BY)
    until(lambda: (page.snapshot()["candidate"]["frames"] or 0) > 40, "frames that both judged")
    candidate = page.snapshot()["candidate"]
    assert candidate["agree"]["value"] > 0.8
    assert sum(map(sum, candidate["table"])) == candidate["frames"]
    page.act("promote", {}, BY)
    assert metrics.which_model()["name"] == "hits-resnet10-paper"
    time.sleep(0.3)
    page.act("run", {"title": "with the other model"}, BY)
    until(lambda: page.snapshot()["run"]["title"] == "with the other model", "the new run")
    kept = metrics.written().get("hit", 0)
    until(lambda: metrics.written().get("hit", 0) > kept + 20, "hits in its file")
    assert set(CLASSES) == set(metrics.labels)
