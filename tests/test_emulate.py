"""Emulated detectors: the frames they show, their pace, and the commands as real processes."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cbor2
import h5py
import numpy as np
import pytest
import zmq
from beamsieve.stream.commands.emulate import app
from beamsieve.stream.emulators.frames import FrameSpec, frames_from
from beamsieve.stream.emulators.jet import Jet, pause
from beamsieve.stream.emulators.karabo import KaraboEmulator, Layout, damaged, train_data
from beamsieve.stream.emulators.tally import Pace, Tally
from beamsieve.stream.flow.frame import BadData, Raw
from beamsieve.stream.flow.ports import NoFacts
from beamsieve.stream.sources.karabo import KaraboSettings, KaraboSource
from typer.testing import CliRunner

PATIENCE_S = 30.0
STACK = np.arange(4 * 3 * 5, dtype=np.uint16).reshape(4, 3, 5)


def first(spec: FrameSpec, n: int) -> list[tuple[np.ndarray, Any]]:
    return list(itertools.islice(frames_from(spec), n))


@pytest.fixture(scope="module")
def simulated() -> FrameSpec:
    return FrameSpec(hits=0.3, multiples=0.2, size=32, pool=1, seed=4)


def test_simulated_shots_have_the_fractions_asked_for(simulated: FrameSpec) -> None:
    n = 4000
    shots = first(simulated, n)
    assert {(image.shape, image.dtype) for image, _ in shots} == {((32, 32), np.dtype("u2"))}
    counts = Counter(info["truth"] for _, info in shots)
    for label, fraction in enumerate((0.5, 0.3, 0.08, 0.08, 0.04)):
        spread = 5 * (n * fraction * (1 - fraction)) ** 0.5
        assert abs(counts[label] - n * fraction) < spread


def test_without_a_jet_no_shot_shows_a_particle() -> None:
    now = [100.0]
    jet = Jet([pause("20:40")], clock=lambda: now[0])
    shots = frames_from(FrameSpec(hits=1.0, multiples=0.0, size=16, pool=1, jet=jet))

    def seen(at: float) -> int:
        now[0] = 100.0 + at
        return int(next(shots)[1]["truth"])

    assert [seen(at) for at in (0, 19.9, 20, 39.9, 40, 50)] == [1, 1, 0, 0, 1, 1]
    jet.toggle()
    assert seen(51) == 0
    jet.toggle()
    assert seen(52) == 1


@pytest.mark.parametrize("text", ["40:20", "20", "a:b", "20:", "-1:5", "5:5"])
def test_a_pause_of_the_jet_is_from_and_to(text: str) -> None:
    with pytest.raises(ValueError, match="FROM:TO"):
        pause(text)


def test_a_seed_gives_the_same_shots(simulated: FrameSpec) -> None:
    one, two = first(simulated, 50), first(simulated, 50)
    other = first(FrameSpec(hits=0.3, multiples=0.2, size=32, pool=1, seed=5), 50)
    assert all(np.array_equal(a, b) and i == j for (a, i), (b, j) in zip(one, two, strict=True))
    assert [info["truth"] for _, info in one] != [info["truth"] for _, info in other]


def test_only_hits_or_none(simulated: FrameSpec) -> None:
    for hits, label in ((1.0, 1), (0.0, 0)):
        spec = FrameSpec(hits=hits, multiples=0.0, size=32, pool=1)
        assert {info["truth"] for _, info in first(spec, 200)} == {label}


@pytest.mark.parametrize(("hits", "multiples"), [(0.8, 0.3), (-0.1, 0.0)])
def test_fractions_that_are_none(hits: float, multiples: float) -> None:
    with pytest.raises(ValueError, match="fractions"):
        FrameSpec(hits=hits, multiples=multiples)


def hdf5(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=data)
    return path


def saved(folder: Path, kind: str) -> tuple[Path, str | None]:
    labels = np.array([0, 1, 2, 1])
    if kind == "npy":
        np.save(folder / "a.npy", STACK)
        return folder / "a.npy", None
    if kind == "npz":
        np.savez(folder / "a.npz", other=np.zeros(3), patterns=STACK, labels=labels)
        return folder / "a.npz", None
    if kind == "cxi":
        small = np.zeros((1, 2, 2), np.uint8)
        return hdf5(folder / "a.cxi", entry_1__data_1__data=STACK, entry_1__data_1__labels=labels, x=small), None
    if kind == "found":
        return hdf5(folder / "a.h5", small=np.zeros((1, 2, 2), np.uint8), deep__in__it=STACK), None
    return hdf5(folder / "a.h5", entry__data__data=np.zeros((9, 9, 9)), mine=STACK), "mine"


@pytest.mark.parametrize("kind", ["npy", "npz", "cxi", "found", "named"])
def test_frames_of_a_file(kind: str, tmp_path: Path) -> None:
    path, dataset = saved(tmp_path, kind)
    once = first(FrameSpec(file=path, dataset=dataset, once=True), 99)
    assert len(once) == 4
    for (image, _), expected in zip(once, STACK, strict=True):
        np.testing.assert_array_equal(image, expected)
    again = first(FrameSpec(file=path, dataset=dataset), 9)
    assert [int(image[0, 0]) for image, _ in again] == [0, 15, 30, 45, 0, 15, 30, 45, 0]
    truths = [info.get("truth") for _, info in once]
    assert truths == ([0, 1, 2, 1] if kind in ("npz", "cxi") else [None] * 4)


def test_a_single_image_and_modules_are_frames_too(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", STACK[0])
    assert [image.shape for image, _ in first(FrameSpec(file=tmp_path / "one.npy"), 2)] == [(3, 5), (3, 5)]
    path = hdf5(tmp_path / "m.h5", data__data=np.zeros((2, 16, 4, 3), np.float32))
    assert [image.shape for image, _ in first(FrameSpec(file=path, once=True), 9)] == [(16, 4, 3)] * 2
    flat = hdf5(tmp_path / "f.h5", image=STACK[0])
    assert [image.shape for image, _ in first(FrameSpec(file=flat, dataset="image", once=True), 9)] == [(3, 5)]


def test_many_frames_are_read_in_pieces(tmp_path: Path) -> None:
    many = np.arange(50 * 4, dtype=np.int32).reshape(50, 2, 2)
    path = hdf5(tmp_path / "many.h5", data__data=many)
    np.testing.assert_array_equal([image for image, _ in first(FrameSpec(file=path, once=True), 99)], many)


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "flat", "no such dataset", "npz without"])
def test_files_without_frames_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    path, dataset = tmp_path / "x.h5", None
    if kind == "empty":
        hdf5(path)
    elif kind == "text":
        hdf5(path, data__data=np.array([[[b"a"]]]))
    elif kind == "pickle":
        path = tmp_path / "x.npy"
        np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    elif kind == "flat":
        path = tmp_path / "x.npy"
        np.save(path, np.zeros(5))
    elif kind == "no such dataset":
        hdf5(path, a=STACK)
        dataset = "b"
    else:
        path = tmp_path / "x.npz"
        np.savez(path, a=np.zeros(3))
    with pytest.raises(BadData) as caught:
        next(frames_from(FrameSpec(file=path, dataset=dataset)))
    assert caught.value.reason == "frames"
    assert str(path) in caught.value.detail


def test_files_that_are_not_there_or_something_else(tmp_path: Path) -> None:
    for name in ("none.npy", "none.h5"):
        with pytest.raises(FileNotFoundError, match=name):
            next(frames_from(FrameSpec(file=tmp_path / name)))
    for name in ("x.h5", "x.npy", "x.npz"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(BadData, match=name):
            next(frames_from(FrameSpec(file=tmp_path / name)))


class Recorded(threading.Event):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return False


def test_pace_is_a_schedule_not_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Recorded()
    monkeypatch.setattr("beamsieve.stream.emulators.tally.time.monotonic", lambda: clock.now)
    pace, sent = Pace(10.0), []
    for work in (0.03, 0.03, 0.25, 0.0, 0.0, 0.0):
        pace.wait(clock)
        sent.append(round(clock.now - 100, 6))
        clock.now += work
    assert sent == [0.0, 0.1, 0.2, 0.45, 0.45, 0.5]
    clock.now += 60
    pace.wait(clock)
    resumed = clock.now
    pace.wait(clock)
    assert clock.now == pytest.approx(resumed + 0.1)
    with pytest.raises(ValueError, match="rate"):
        Pace(-1)


def test_the_tally_knows_only_the_truth_it_was_told() -> None:
    tally = Tally()
    tally.count([{}, {}])
    assert tally.report()["true_hits"] is None
    tally.count([{"truth": 1}, {"truth": 0}, {"truth": 1}])
    report = tally.report()
    assert (report["sent"], report["messages"], report["true_hits"]) == (5, 2, 2)
    assert report["true_classes"] == {"0": 1, "1": 2}


def test_trains_nobody_takes_are_dropped_and_counted() -> None:
    frames = itertools.islice(itertools.cycle([(STACK[0], {"truth": 1})]), 30)
    emulator = KaraboEmulator("tcp://127.0.0.1:0", frames, Layout(source="D", pulses=3), rate_hz=500.0)
    emulator.open()
    tally = emulator.run(threading.Event())
    emulator.close()
    assert (tally.sent, tally.dropped) == (0, 30)


def test_modules_are_cut_along_y() -> None:
    images = [np.arange(24, dtype=np.uint16).reshape(6, 4)]
    split = train_data(Layout(source="M/DET/*CH0", pulses=1, order="file", modules=3, split=True), images, 7)
    assert list(split) == ["M/DET/0CH0", "M/DET/1CH0", "M/DET/2CH0"]
    assert split["M/DET/2CH0"]["image.data"].tolist() == [[[16, 17, 18, 19], [20, 21, 22, 23]]]
    with pytest.raises(ValueError, match="6 rows cannot be cut into 4 modules"):
        train_data(Layout(modules=4), images, 7)


@pytest.mark.parametrize("where", [0.2, 0.8])
def test_damaged_messages_differ(where: float) -> None:
    parts = [b"header", b"payload" * 10]
    broken = damaged(parts, where)
    assert broken != parts
    assert parts == [b"header", b"payload" * 10]


def start(*arguments: str) -> subprocess.Popen[str]:
    code = "from beamsieve.stream.commands.emulate import app; app()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    try:
        _, text = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return text


@pytest.fixture
def frames_file(tmp_path: Path) -> Path:
    path = tmp_path / "frames.npz"
    np.savez(path, patterns=np.arange(6 * 64, dtype=np.uint16).reshape(6, 8, 8), labels=np.array([0, 1, 1, 2, 4, 0]))
    return path


def test_emulate_dectris_sends_a_series_and_says_what_it_sent(tmp_path: Path, frames_file: Path) -> None:
    endpoint, out = f"ipc://{tmp_path}/detector", tmp_path / "sent.json"
    arguments = ["--endpoint", endpoint, "--from", str(frames_file), "--rate", "0", "--frames", "20"]
    process = start("dectris", *arguments, "--json", str(out), "--compression", "none")
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.connect(endpoint)
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["type"] != "end":
            assert pull.poll(int(PATIENCE_S * 1000)), "the series did not end"
            messages.append(cbor2.loads(pull.recv()))
    text = ended(process)
    assert process.returncode == 0, text
    assert Counter(message["type"] for message in messages) == {"start": 1, "image": 20, "end": 1}
    assert "truth" not in str(messages), "a receiver must not be told the answer"
    report = json.loads(out.read_text())
    assert (report["sent"], report["dropped"], report["true_hits"]) == (20, 0, 7)
    assert report["true_classes"] == {"0": 7, "1": 7, "2": 3, "4": 3}
    assert "20 shots sent" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["dectris", "karabo"])
def test_a_signal_ends_an_emulator_cleanly(kind: str, number: int, tmp_path: Path, frames_file: Path) -> None:
    endpoint, out = f"ipc://{tmp_path}/detector", tmp_path / "sent.json"
    more = ["--pattern", "push", "--pulses", "2"] if kind == "karabo" else []
    process = start(
        kind, "--endpoint", endpoint, "--from", str(frames_file), "--rate", "200", "--json", str(out), *more
    )
    last: list[bytes] = []
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.connect(endpoint)
        for n in range(10):
            assert pull.poll(int(PATIENCE_S * 1000)), f"only {n} messages came"
            last = pull.recv_multipart()
        process.send_signal(number)
        while pull.poll(300):
            last = pull.recv_multipart()
    text = ended(process)
    assert process.returncode == 0, text
    report = json.loads(out.read_text())
    assert report["sent"] >= 8
    assert report["seconds"] > 0
    if kind == "dectris":
        assert cbor2.loads(last[0])["type"] == "end"


def test_a_signal_ends_an_emulator_that_nobody_listens_to(tmp_path: Path, frames_file: Path) -> None:
    out = tmp_path / "sent.json"
    process = start("dectris", "--endpoint", f"ipc://{tmp_path}/x", "--from", str(frames_file), "--json", str(out))
    deadline = time.monotonic() + PATIENCE_S
    while not (tmp_path / "x").exists():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGTERM)
    text = ended(process)
    assert process.returncode == 0, text
    assert json.loads(out.read_text())["sent"] == 0


def test_emulate_karabo_feeds_the_karabo_source(tmp_path: Path, frames_file: Path) -> None:
    endpoint, out = f"ipc://{tmp_path}/bridge", tmp_path / "sent.json"
    arguments = ["--endpoint", endpoint, "--from", str(frames_file), "--rate", "0", "--pulses", "3", "--frames", "12"]
    process = start("karabo", *arguments, "--protocol", "1.0", "--split", "--modules", "2", "--json", str(out))
    settings = {"endpoint": endpoint, "source": "*/DET/*:xtdf", "modules": 2, "axes": "online"}
    source = KaraboSource(KaraboSettings.model_validate(settings), NoFacts())
    source.open()
    found: list[Raw] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < 4 and time.monotonic() < deadline:
        found += [item for item in source.read(0.1) if isinstance(item, Raw)]
    source.close()
    text = ended(process)
    assert process.returncode == 0, text
    assert [raw.count for raw in found] == [3] * 4
    assert found[0].info["axes"] == ("module", "fs", "ss", "pulse")
    assert json.loads(out.read_text())["true_hits"] == 4


def test_seconds_limit_the_sending(tmp_path: Path, frames_file: Path) -> None:
    endpoint, out = f"ipc://{tmp_path}/detector", tmp_path / "sent.json"
    arguments = ["--endpoint", endpoint, "--from", str(frames_file), "--rate", "100", "--seconds", "0.5", "--quiet"]
    process = start("dectris", *arguments, "--json", str(out))
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.connect(endpoint)
        while cbor2.loads(pull.recv())["type"] != "end":
            assert pull.poll(int(PATIENCE_S * 1000)), "the series did not end"
    assert ended(process) == ""
    report = json.loads(out.read_text())
    assert 30 <= report["sent"] <= 60


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["dectris", "--from", "none.h5"], 2, "none.h5"),
        (["dectris", "--from", "none.h5", "--simulate"], 2, "exclude each other"),
        (["dectris", "--hits", "0.9", "--multiples", "0.5"], 2, "together at most 1"),
        (["karabo", "--split", "--source", "A/B"], 2, "needs a *"),
        (["karabo", "--from", "{file}", "--endpoint", "nowhere"], 1, "tcp://HOST:PORT"),
        (["dectris", "--from", "{file}", "--endpoint", "tcp://192.0.2.1:9"], 1, "192.0.2.1"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], code: int, text: str, frames_file: Path) -> None:
    done = CliRunner().invoke(app, [a.replace("{file}", str(frames_file)) for a in arguments])
    assert done.exit_code == code, done.output
    assert text in done.output
    assert "Traceback" not in done.output
