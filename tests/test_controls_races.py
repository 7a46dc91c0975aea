"""Changes that come at a bad moment: twice, beside a command, across a promotion, on a full disk, at a restart."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from beamsieve.models.bundle import load_bundle
from beamsieve.stream.beamlines.classify import Classify, ModelSettings, Shadow
from beamsieve.stream.beamlines.control_hits import HitLevers
from beamsieve.stream.beamlines.control_picks import PickLevers
from beamsieve.stream.beamlines.hits import Keep, KeepSettings, View
from beamsieve.stream.beamlines.picking import PickerSettings, PickWork
from beamsieve.stream.decode.calibrate import CalibrateSettings
from beamsieve.stream.decode.frames import Decode, DetectorSettings
from beamsieve.stream.decode.quality import QualitySettings
from beamsieve.stream.flow.frame import Frame, Key, RunStart
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.operation import Operation
from beamsieve.stream.flow.pipeline import Pipeline
from beamsieve.stream.live.page import Refused
from beamsieve.stream.live.trial import Trial
from beamsieve.stream.sinks.picks import again
from beamsieve.stream.sinks.picks.record import read
from beamsieve.stream.sinks.picks.rows import record_files
from beamsieve.stream.sinks.picks.settings import PickSettings
from beamsieve.stream.sinks.picks.sink import PickSink
from beamsieve.stream.sinks.picks.threshold import Moved, read_moved, write_moved
from beamsieve.tests.test_controls import BY, Fake, made
from beamsieve.tests.test_rethreshold import picked, session, sink, tell

SHA = "ab" * 32


# --- the control ---------------------------------------------------------------------------------------------------


def test_a_model_that_is_promoted_again_has_its_own_threshold_also_after_a_restart(tmp_path: Path) -> None:
    control, _ = made(tmp_path, Fake())
    control.act("threshold", {"value": 0.8}, BY)
    for name in ("two", "one"):
        control.act("candidate", {"bundle": name}, BY)
        control.act("promote", {}, BY)
    again = Fake()
    made(tmp_path, again)[0].restore()
    assert (again.bundle, again.value) == ("one", 0.5)


def test_a_threshold_is_not_for_another_training_of_the_same_name(tmp_path: Path) -> None:
    control, metrics = made(tmp_path, Fake())
    metrics.model(name="one", hash="aaa")
    control.act("threshold", {"value": 0.8}, BY)
    for found, value in (("aaa", 0.8), ("bbb", 0.5)):
        levers = Fake()
        control, metrics = made(tmp_path, levers)
        metrics.model(name="one", hash=found)
        control.restore()
        assert levers.value == value


def test_a_threshold_below_a_floor_that_was_raised_is_not_taken_up_again(tmp_path: Path) -> None:
    made(tmp_path, Fake())[0].act("threshold", {"value": 0.2}, BY)

    class Higher(Fake):
        def check_threshold(self, value: float) -> None:
            if value < 0.3:
                raise Refused("value: 0.3 to 1")

    levers = Higher()
    made(tmp_path, levers)[0].restore()
    assert levers.value == 0.5


def test_a_threshold_that_could_not_be_moved_is_not_moved_by_a_restart(tmp_path: Path) -> None:
    class Full(Fake):
        def move(self, value: float) -> None:
            raise Refused("no space left")

    control, _ = made(tmp_path, Full())
    with pytest.raises(Refused, match="no space"):
        control.act("threshold", {"value": 0.8}, BY)
    levers = Fake()
    made(tmp_path, levers)[0].restore()
    assert levers.value == 0.5


def test_what_failed_is_not_promoted_nor_what_was_tried_before_it(tmp_path: Path) -> None:
    levers = Fake()
    control, _ = made(tmp_path, levers)
    control.act("candidate", {"bundle": "two"}, BY)
    levers.broken = True
    with pytest.raises(Refused, match="damaged"):
        control.act("candidate", {"bundle": "one"}, BY)
    assert control.state()["candidate"]["bundle"] == "one", "this is what the page shows"
    with pytest.raises(Refused, match="dismiss it"):
        control.act("promote", {}, BY)
    assert (levers.bundle, [change["what"] for change in control.state()["changes"]]) == ("one", ["candidate"])


def test_a_candidate_that_cannot_be_written_down_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levers = Fake()
    control, _ = made(tmp_path, levers)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Refused, match="no candidate is tried"):
        control.act("candidate", {"bundle": "two"}, BY)
    assert (levers.tried, control.state()["candidate"]) == (None, None)


def test_two_runs_begun_at_once_are_two_and_the_last_title_holds() -> None:
    titles: list[str] = []

    class Shelf:
        def start(self, mark: RunStart) -> None:
            titles.append(mark.info.get("title", ""))

        def end(self, mark: Any) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...
        def lost(self) -> tuple[()]:
            return ()

    class Beam:
        at = 0

        def open(self) -> None: ...
        def close(self) -> None: ...
        def read(self, _: float) -> Any:
            self.at += 1
            if self.at == 2:
                line.new_run("a")
                line.new_run("b")
            return [[RunStart("r")], [], []][self.at - 1] if self.at < 4 else None

    line = Pipeline(Beam(), [], [Shelf()], Metrics("t"))  # type: ignore[arg-type, list-item]
    line.new_run("before the first")
    line.start()
    assert line.wait(10)
    assert titles == ["before the first", "a", "b"]
    assert line.metrics.operation.current_run[:2] == ("r", "b")


def test_a_bug_in_what_was_changed_before_does_not_keep_the_daemon_from_starting(tmp_path: Path) -> None:
    control, _ = made(tmp_path, Fake())
    control.act("candidate", {"bundle": "two"}, BY)
    control.act("promote", {}, BY)

    class Broken(Fake):
        def try_out(self, bundle: str) -> Trial:
            raise RuntimeError("out of memory")

    levers = Broken()
    made(tmp_path, levers)[0].restore()
    assert levers.bundle == "one"


# --- a candidate that cannot -----------------------------------------------------------------------------------------


class Broken:
    """A runner whose memory is full."""

    def __init__(self, at: str) -> None:
        self.at = at

    def prepare(self, images: Any) -> Any:
        if self.at == "prepare":
            raise RuntimeError("out of memory")
        return images

    def run(self, batch: Any) -> Any:
        if self.at == "run":
            raise RuntimeError("out of memory")
        return np.zeros(())


def classify(threshold: float | None = None) -> Classify:
    detector = DetectorSettings(shape=(128, 128), centre_px=(-50.0, 64.0))
    settings = ModelSettings(bundle="hits-resnet10", dtype="float32", threads=1, batch=4, threshold=threshold)
    decode = Decode(CalibrateSettings(), detector, Path())
    view = View(detector, Path(), (128, 128))
    return Classify(settings, load_bundle("hits-resnet10"), decode, view, Keep(KeepSettings()))


@pytest.mark.parametrize("at", ["input", "prepare", "run", "decide"])
def test_a_candidate_that_fails_costs_no_frame(at: str) -> None:
    model = classify()
    model.loaded.runner.warm_up()
    trial = Trial("other", 0.5, Operation())
    loaded: Any = SimpleNamespace(runner=Broken(at), threshold=0.5, name="other", size=32 if at == "input" else 128)
    model.shadow = Shadow(loaded, trial)
    frames = [Frame(Key("r", n), np.ones((128, 128), np.uint16), 0.0, 0.0) for n in range(3)]
    for _ in range(2):
        results = model.decide(frames, model.run(model.prepare(frames)))
        assert [result.frame for result in results] == frames
    state = trial.state("hits")
    assert (state["state"], state["frames"]) == ("failed", 0)
    assert not trial.due(1)


def test_the_configured_model_comes_back_with_its_configured_threshold() -> None:
    model = classify(threshold=0.77)
    found = SimpleNamespace(load=load_bundle)
    levers = HitLevers(model, found, Keep(KeepSettings()), None, None, Metrics("t"))  # type: ignore[arg-type]
    assert levers.try_out("hits-resnet10").threshold == 0.77
    levers.promote()
    assert levers.threshold()["value"] == levers.threshold()["configured"] == 0.77


# --- picks -----------------------------------------------------------------------------------------------------------


class Work:
    """What the levers ask of the picker, without a network."""

    def __init__(self, directory: Path, sha: str = SHA) -> None:
        self._directory = directory
        self.settings = PickerSettings(floor=0.1)
        card = SimpleNamespace(sha256=sha, threshold=0.7)
        self.loaded: Any = SimpleNamespace(bundle=SimpleNamespace(card=card), threshold=0.7)
        self.in_force = 0.7

    def moved(self, loaded: Any) -> Moved | None:
        return PickWork.moved(self, loaded)  # type: ignore[arg-type]


def levers_of(tmp_path: Path) -> tuple[PickLevers, Work, PickSink]:
    picks = sink(tmp_path)
    work = Work(picks.directory)
    return PickLevers(work, None, picks, None, Metrics("t")), work, picks  # type: ignore[arg-type]


def stored(out: Path) -> list[float]:
    return [read(out / "micrographs" / name).micrograph.threshold for name in ("a.mrc.h5", "g/b.mrc.h5")]


def settled(levers: PickLevers) -> None:
    end = time.monotonic() + 20
    while not levers.wait(0.1):
        assert time.monotonic() < end


def test_a_second_move_is_never_undone_by_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = session(tmp_path)
    levers, _, _ = levers_of(tmp_path)
    began, go = threading.Event(), threading.Event()
    real = record_files

    def slow(folder: Path) -> Any:
        began.set()
        assert go.wait(10)
        return real(folder)

    monkeypatch.setattr(again, "record_files", slow)
    levers.move(0.9)
    assert began.wait(10)
    levers.move(0.3)
    announced: list[float] = []
    monkeypatch.setattr(again, "write_moved", lambda _, moved: announced.extend(m.threshold for m in moved))
    go.set()
    settled(levers)
    assert stored(out) == [0.3, 0.3]
    assert 0.9 not in announced, "the daemon would pick at it"
    assert [m.threshold for m in read_moved(out)] == [0.3]


def test_a_command_that_moves_it_meanwhile_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = session(tmp_path)
    levers, _, _ = levers_of(tmp_path)
    real, once = again._again, iter([True])

    def beside(*words: Any) -> Any:
        if threading.current_thread().name == "rethreshold" and next(once, False):
            # Between two micrographs; the lock is the caller's.
            write_moved(out, [Moved(SHA, 0.7, 0.5, None, "2026-11-20T08:00:00Z")])
        return real(*words)

    monkeypatch.setattr(again, "_again", beside)
    levers.move(0.9)
    settled(levers)
    assert stored(out) == [0.7, 0.7], "left to the command, which announced first"
    assert tell(out, "-t", 0.5).exit_code == 0
    assert stored(out) == [0.5, 0.5]


def test_a_move_after_a_command_reaches_what_comes_next(tmp_path: Path) -> None:
    """What was picked at a moved threshold is still of the configured one: an older move must not find it."""
    out = session(tmp_path)
    levers, work, picks = levers_of(tmp_path)

    def comes(name: str, seed: int, threshold: float) -> float:
        found = picked(tmp_path / "in", name, seed, threshold)
        assert not picks.write([_configured(found, 0.7)])
        return read(out / "micrographs" / f"{name}.h5").micrograph.threshold

    levers.move(0.9)
    settled(levers)
    assert comes("d.mrc", 4, 0.9) == 0.9
    assert tell(out, "-t", 0.3).exit_code == 0
    levers.move(0.9)
    settled(levers)
    assert comes("e.mrc", 5, 0.9) == 0.9
    record = read(out / "micrographs" / "e.mrc.h5")
    assert (record.configured, [change.threshold for change in record.changes]) == (0.7, [0.9])
    assert work.in_force == 0.9


def _configured(result: Any, threshold: float) -> Any:
    found = replace(result.found["micrograph"], configured=threshold)
    return replace(result, found={"micrograph": found})


def test_a_band_that_was_moved_stays(tmp_path: Path) -> None:
    out = session(tmp_path)
    levers, _, _ = levers_of(tmp_path)
    assert tell(out, "-t", 0.9, "--sd", 0.5, 4).exit_code == 0
    levers.move(0.6)
    settled(levers)
    assert [(m.threshold, m.sd_range) for m in read_moved(out)] == [(0.6, (0.5, 4.0))]
    assert read(out / "micrographs/a.mrc.h5").micrograph.picked.tolist() == [True, True, True, False, False]


def test_a_restart_goes_by_whoever_moved_it_last(tmp_path: Path) -> None:
    out = session(tmp_path)
    assert tell(out, "-t", 0.3).exit_code == 0
    levers, work, _ = levers_of(tmp_path)
    levers.resume(0.9, time.time() - 3600)
    settled(levers)
    assert stored(out) == [0.3, 0.3]
    assert work.moved(work.loaded).threshold == 0.3  # type: ignore[union-attr]
    levers.resume(0.9, time.time() + 3600)
    settled(levers)
    assert stored(out) == [0.9, 0.9]


def test_a_bug_while_picking_again_does_not_stop_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = session(tmp_path)
    levers, _, _ = levers_of(tmp_path)

    def bug(*_: Any, **__: Any) -> Any:
        raise KeyError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(again, "rethreshold", bug)
        levers.move(0.9)
        settled(levers)
    assert levers.further() == {"rethreshold": None}
    levers.move(0.3)
    settled(levers)
    assert stored(out) == [0.3, 0.3]


def test_a_move_waits_for_its_model_also_when_another_is_promoted(tmp_path: Path) -> None:
    out = session(tmp_path)
    levers, work, _ = levers_of(tmp_path)
    levers._thread = threading.current_thread()  # as if it were busy with an earlier move
    levers.move(0.9)
    work.loaded = Work(out, "cd" * 32).loaded
    levers._thread = None
    levers._pick_again()
    assert stored(out) == [0.9, 0.9]


def test_a_daemon_ends_in_the_middle_of_picking_again_and_goes_on_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process would hang: HDF5's lock is with a thread that never runs again."""
    out = session(tmp_path)
    levers, _, _ = levers_of(tmp_path)
    real, began, go = again._again, threading.Event(), threading.Event()

    def slow(*words: Any) -> Any:
        began.set()
        assert go.wait(10)
        return real(*words)

    with monkeypatch.context() as waits:
        waits.setattr(again, "_again", slow)
        levers.move(0.9)
        assert began.wait(10)
        threading.Timer(0.1, go.set).start()
        levers.close()
    assert levers.wait(0)
    assert stored(out) == [0.9, 0.7]
    following, _, _ = levers_of(tmp_path)
    following.resume(0.9, time.time())
    settled(following)
    assert stored(out) == [0.9, 0.9]


def test_what_was_begun_before_a_promotion_says_nothing_of_the_threshold_in_force(tmp_path: Path) -> None:
    bundle = load_bundle("particles-ribosome")
    settings = PickerSettings(bundle="particles-ribosome", threads=1, threshold=0.6)
    work = PickWork(settings, bundle, QualitySettings(), PickSettings(directory=tmp_path), Metrics("t"), tmp_path)
    work.warm_up()
    data = np.random.default_rng(1).normal(0, 1, (400, 400)).astype(np.float32)
    frame = Frame(Key("s", 1), data, 0.0, 0.0, info={"pixel_a": bundle.card.to_json().get("pixel_a", 4.0), "path": "a"})
    begun = work.run(work.prepare([frame]))
    other = replace(work.loaded, name="other", picker=work.loaded.picker)
    trial = Trial("other", 0.6, Operation())
    work.shadow = Shadow(other, trial)  # type: ignore[assignment, arg-type]
    work.promote()
    work.in_force = 0.9
    (result,) = work.decide([frame], begun)
    assert result.found["micrograph"].configured == 0.6
    assert work.in_force == 0.9
    write_moved(tmp_path, [Moved(bundle.card.sha256, 0.6, 0.8, None, "2026-11-20T08:00:00Z")])
    work.warm_up()
    assert work.in_force == 0.8, "before the first micrograph too"
