"""Recordings: what is written can be read, whatever happens to the writer, and comes out of a socket as it came in."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
import zmq
from beamsieve.stream.commands.record import record, replay
from beamsieve.stream.emulators.dectris import DectrisEmulator
from beamsieve.stream.emulators.karabo import KaraboEmulator, Layout
from beamsieve.stream.emulators.replay import replay as send_again
from beamsieve.stream.emulators.servers import Server
from beamsieve.stream.flow.frame import BadData, Failure, Incoming, Raw, RunEnd, RunStart
from beamsieve.stream.flow.ports import NoFacts
from beamsieve.stream.recording import Reader, Record, Writer
from beamsieve.stream.sources.receiver import Receiver
from beamsieve.stream.sources.recorder import Recorder
from beamsieve.stream.sources.replay import ReplaySettings, ReplaySource
from beamsieve.stream.sources.sockets import SocketSettings
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
PATIENCE_S = 20.0
MESSAGES = st.lists(st.lists(st.binary(max_size=200), max_size=6), max_size=8)


def write(path: Path, messages: list[list[bytes]], roll: int = 0) -> Writer:
    writer = Writer(path, {"source": "raw"}, roll)
    for n, parts in enumerate(messages):
        writer.write([memoryview(part) for part in parts], 10**9 + n * 10**6, 1_700_000_000 * 10**9 + n)
    writer.close()
    return writer


@settings(deadline=None, max_examples=50)
@given(messages=MESSAGES)
def test_every_part_and_time_comes_back(tmp_path_factory: pytest.TempPathFactory, messages: list[list[bytes]]) -> None:
    path = tmp_path_factory.mktemp("r") / "a.bsrec"
    write(path, messages)
    reader = Reader(path)
    assert reader.about == {"source": "raw", "part": 0}
    for _ in range(2):
        found = list(reader)
        assert [list(record.parts) for record in found] == messages
        assert [record.monotonic_ns for record in found] == [10**9 + n * 10**6 for n in range(len(messages))]
        assert [record.wall_ns for record in found] == [1_700_000_000 * 10**9 + n for n in range(len(messages))]
        assert (reader.truncated, reader.damaged) == ("", 0)


@settings(deadline=None, max_examples=80)
@given(messages=MESSAGES.filter(bool), cut=st.integers(1, 400))
def test_a_cut_file_gives_every_complete_record(
    tmp_path_factory: pytest.TempPathFactory, messages: list[list[bytes]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("r") / "a.bsrec"
    ends = []
    writer = Writer(path, {})
    writer.flush()
    begin = path.stat().st_size
    for parts in messages:
        writer.write(parts, 1, 1)
        writer.flush()
        ends.append(path.stat().st_size)
    writer.close()
    size = max(ends[-1] - cut, begin)
    os.truncate(path, size)
    reader = Reader(path)
    found = list(reader)
    whole = sum(end <= size for end in ends)
    assert [list(record.parts) for record in found] == messages[:whole]
    assert bool(reader.truncated) == (size not in (begin, *ends))


@settings(deadline=None, max_examples=120)
@given(at=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_changed_byte_is_never_taken_for_data(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    messages = [[b"header", bytes(range(50))], [b"x" * 40], [b"", b"last" * 10]]
    path = tmp_path_factory.mktemp("r") / "a.bsrec"
    write(path, messages)
    data = bytearray(path.read_bytes())
    begin = len(data) - sum(32 + 8 * len(m) + sum(map(len, m)) for m in messages)
    at = begin + at % (len(data) - begin)
    data[at] ^= value
    path.write_bytes(data)
    reader = Reader(path)
    found = [list(record.parts) for record in reader]
    assert len(found) < 3
    assert all(parts in messages for parts in found)
    assert reader.damaged == 1 or reader.truncated


def test_a_damaged_record_costs_that_record_only(tmp_path: Path) -> None:
    path = tmp_path / "a.bsrec"
    write(path, [[b"a" * 100], [b"b" * 100], [b"c" * 100]])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"b" * 100, b"b" * 99 + b"B"))
    reader = Reader(path)
    assert [record.parts[0][:1] for record in reader] == [b"a", b"c"]
    assert (reader.damaged, reader.truncated) == (1, "")


def test_lengths_that_lie_allocate_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.bsrec"
    write(path, [[b"a" * 100]])
    data = bytearray(path.read_bytes())
    at = data.index(b"MSG1")
    for field, width in ((4, 4), (32, 8)):
        broken = bytearray(data)
        broken[at + field : at + field + width] = b"\xff" * width
        path.write_bytes(broken)
        tracemalloc.start()
        assert list(Reader(path)) == []
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


def test_a_recording_is_never_overwritten_and_rolls(tmp_path: Path) -> None:
    messages = [[bytes([n]) * 1000] for n in range(10)]
    writer = write(tmp_path / "run.bsrec", messages, roll=3000)
    names = ["run.bsrec", "run-001.bsrec", "run-002.bsrec", "run-003.bsrec"]
    assert [path.name for path in writer.paths] == names
    assert [list(r.parts) for path in writer.paths for r in Reader(path)] == messages
    assert [Reader(path).about["part"] for path in writer.paths] == [0, 1, 2, 3]
    with pytest.raises(FileExistsError):
        Writer(tmp_path / "run.bsrec", {})


@pytest.mark.parametrize(
    "content", [b"\x89BSREC\r\n", b"\x89BSREC\r\n\x08\0\0\0not json", b"\x89HDF\r\n\x1a\n", b"hello"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(BadData) as caught:
        Reader(tmp_path / "x")
    assert caught.value.reason == "recording"
    assert str(tmp_path / "x") in caught.value.detail


@settings(deadline=None, max_examples=50)
@given(messages=MESSAGES.filter(bool), cut=st.integers(0, 60), tagged=st.booleans())
def test_captures_are_cbor_sequences(
    tmp_path_factory: pytest.TempPathFactory, messages: list[list[bytes]], cut: int, tagged: bool
) -> None:
    path = tmp_path_factory.mktemp("c") / "a.cbors"
    items = [cbor2.dumps(cbor2.CBORTag(55799, m) if tagged else m) for m in messages]
    ends = list(itertools.accumulate(map(len, items)))
    size = max(ends[-1] - cut, 0)
    path.write_bytes(b"".join(items)[:size])
    reader = Reader(path)
    whole = sum(end <= size for end in ends)
    assert [list(r.parts) for r in reader] == messages[:whole]
    assert bool(reader.truncated) == (size not in (0, *ends))
    assert all(r.monotonic_ns is None for r in reader)


@pytest.mark.parametrize("item", [{"a": 1}, [b"x", "text"], 7, [[b"x"]]])
def test_captures_of_something_else(tmp_path: Path, item: object) -> None:
    (tmp_path / "a.cbors").write_bytes(cbor2.dumps(item))
    with pytest.raises(BadData, match="neither a recording"):
        Reader(tmp_path / "a.cbors")
    (tmp_path / "b.cbors").write_bytes(cbor2.dumps([b"good"]) + cbor2.dumps(item))
    reader = Reader(tmp_path / "b.cbors")
    assert [r.parts for r in reader] == [(b"good",)]
    assert "no" in reader.truncated


@pytest.mark.parametrize("name", ["eiger-small", "xspress3-dump", "pcap-zmq", "albaem-dump"])
def test_real_captures(name: str) -> None:
    path = DATA / "streams" / f"{name}.cbors"
    if not path.exists():
        pytest.skip(f"no {path}")
    expected = []
    with path.open("rb") as file:
        decoder = cbor2.CBORDecoder(file)
        while file.tell() < path.stat().st_size:
            expected.append(tuple(decoder.decode()))
    reader = Reader(path)
    assert [r.parts for r in reader] == expected
    assert reader.truncated == ""


def pull_all(endpoint: str, n: int, kind: int = zmq.PULL) -> list[list[bytes]]:
    with zmq.Context() as context, context.socket(kind) as socket:
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(endpoint)
        found: list[list[bytes]] = []
        for _ in range(n):
            if kind == zmq.REQ:
                socket.send(b"next")
            assert socket.poll(int(PATIENCE_S * 1000)), f"only {len(found)} of {n} messages came"
            found.append(socket.recv_multipart())
        return found


@contextmanager
def replaying(paths: list[Path], side: str = "push", **more: Any) -> Iterator[str]:
    stop = threading.Event()
    server = Server("tcp://127.0.0.1:0", side)  # type: ignore[arg-type]

    def run() -> None:
        try:
            send_again([Reader(path) for path in paths], server, stop, **more)
        finally:
            server.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server.endpoint
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(("side", "kind"), [("push", zmq.PULL), ("rep", zmq.REQ)])
def test_replay_sends_every_byte_in_order(side: str, kind: int, tmp_path: Path) -> None:
    messages = [[bytes([n]), os.urandom(n * 100)] for n in range(20)]
    writer = write(tmp_path / "a.bsrec", messages, roll=5000)
    with replaying(writer.paths, side, speed=0) as endpoint:
        assert pull_all(endpoint, 20, kind) == messages


def test_replay_over_pub_loops_until_stopped(tmp_path: Path) -> None:
    messages = [[b"a", b"1"], [b"b"]]
    write(tmp_path / "a.bsrec", messages)
    with replaying([tmp_path / "a.bsrec"], "pub", rate_hz=500, loop=True) as endpoint:
        found = pull_all(endpoint, 7, zmq.SUB)
    assert all(first != second for first, second in itertools.pairwise(found))
    assert all(m in messages for m in found)


class Slow(threading.Event):
    """A stop event that notes how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        return False


class Kept:
    """A server that takes everything."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, ...]] = []

    def send(self, parts: tuple[bytes, ...], stop: threading.Event, until: float | None = None) -> bool:
        self.sent.append(tuple(parts))
        return True


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_replay_keeps_the_recorded_intervals(speed: float, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a.bsrec", {})
    for at_s in (5.0, 5.0, 15.0, 45.0):
        writer.write([b"x"], int(at_s * 1e9), 0)
    writer.close()
    stop, kept = Slow(), Kept()
    send_again([Reader(tmp_path / "a.bsrec")], kept, stop, speed)  # type: ignore[arg-type]
    assert len(kept.sent) == 4
    # Nothing really waits here, so every wait reaches from the beginning to the message's time.
    assert stop.waited == [pytest.approx(10 / speed, abs=1.0), pytest.approx(40 / speed, abs=1.0)]


class ThreeRecords:
    damaged, truncated = 0, ""

    def __iter__(self) -> Iterator[Record]:
        return iter([Record((b"x",), 0, 0)] * 3)


def test_nothing_waits_at_full_speed() -> None:
    stop, kept = Slow(), Kept()
    sent = send_again([ThreeRecords()], kept, stop, speed=0)  # type: ignore[list-item, arg-type]
    assert (sent.messages, sent.bytes, stop.waited) == (3, 3, [])


def run_cli(function: Any, *arguments: str) -> Any:
    import typer

    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, list(arguments))


def test_what_an_emulated_detector_sends_is_recorded_and_replayed_to_the_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames: list[Any] = [(rng.integers(0, 9, (16, 16)).astype(np.uint16), {}) for _ in range(12)]
    out = tmp_path / "run.bsrec"
    with DectrisEmulator("tcp://127.0.0.1:0", frames, rate_hz=0) as emulator:
        done = run_cli(
            record, "--source", "dectris", "--endpoint", emulator.endpoint, "--out", str(out),
            "--messages", "14", "--quiet", "--json", str(tmp_path / "r.json"),
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "r.json").read_text())
    assert summary["messages"] == 14
    assert summary["files"] == [str(out)]
    records = list(Reader(out))
    assert [cbor2.loads(r.parts[0])["type"] for r in records] == ["start", *["image"] * 12, "end"]
    times = [r.monotonic_ns or 0 for r in records]
    assert times == sorted(times)
    assert abs((records[0].wall_ns or 0) / 1e9 - time.time()) < 60
    with replaying([out], speed=0) as endpoint:
        assert pull_all(endpoint, 14) == [list(r.parts) for r in records]


def replayed(paths: list[Path], stream: dict[str, Any], speed: float = 0.0) -> list[Incoming]:
    settings = ReplaySettings.model_validate({"files": paths, "stream": stream, "speed": speed})
    source = ReplaySource(settings, NoFacts())
    source.open()
    found: list[Incoming] = []
    deadline = time.monotonic() + PATIENCE_S
    while (items := source.read(0.05)) is not None:
        assert time.monotonic() < deadline
        found += items
    source.close()
    return found


@pytest.fixture(scope="module")
def karabo_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("k") / "trains.bsrec"
    images = [np.full((8, 4), n, np.uint16) for n in range(60)]
    layout = Layout(source="D", pulses=3, order="online")
    emulator = KaraboEmulator("tcp://127.0.0.1:0", iter([(i, {}) for i in images]), layout, rate_hz=0.0)
    endpoint = emulator.open()

    def run() -> None:
        emulator.run(threading.Event())
        emulator.close()

    thread = threading.Thread(target=run)
    thread.start()
    receiver, writer = Receiver(SocketSettings(endpoint=endpoint), "req", NoFacts()), Writer(path, {})
    receiver.open()
    Recorder(receiver, writer).run(threading.Event(), messages=20)
    receiver.close()
    writer.close()
    thread.join()
    return path


def test_recorded_trains_come_out_of_the_replay_source(karabo_recording: Path) -> None:
    stream = {"kind": "karabo", "endpoint": "tcp://x:1", "source": "D", "axes": "online"}
    found = replayed([karabo_recording], stream)
    kinds = Counter(type(item).__name__ for item in found)
    assert kinds == {"RunStart": 1, "Raw": 20, "RunEnd": 1}
    assert isinstance(found[0], RunStart)
    assert isinstance(found[-1], RunEnd)
    raw = found[1]
    assert isinstance(raw, Raw)
    assert raw.count == 3
    assert 0 <= time.monotonic() - raw.arrived < 60, "latencies are those of the replay"
    assert replayed([karabo_recording], stream) != []


def test_a_replay_at_recorded_speed_reads_the_same(tmp_path: Path, karabo_recording: Path) -> None:
    records = list(Reader(karabo_recording))
    path = tmp_path / "slow.bsrec"
    writer = Writer(path, {})
    for n, kept in enumerate(records[:5]):
        writer.write(kept.parts, n * 20_000_000, kept.wall_ns or 0)
    writer.close()
    began = time.monotonic()
    stream = {"kind": "karabo", "endpoint": "tcp://x:1", "source": "D", "axes": "online"}
    found = replayed([path], stream, speed=1.0)
    assert sum(isinstance(item, Raw) for item in found) == 5
    assert time.monotonic() - began >= 0.08


def test_recorded_silence_still_ends_runs_at_full_speed(tmp_path: Path, karabo_recording: Path) -> None:
    path = tmp_path / "gap.bsrec"
    writer = Writer(path, {})
    for n, kept in enumerate(Reader(karabo_recording)):
        writer.write(kept.parts, (n + 100 * (n >= 10)) * 10**9, kept.wall_ns or 0)
    writer.close()
    stream = {"kind": "karabo", "endpoint": "tcp://x:1", "source": "D", "axes": "online", "idle_s": 50}
    reasons = [item.reason for item in replayed([path], stream) if isinstance(item, RunEnd)]
    assert reasons == ["idle", "end"]


def test_a_recorded_dectris_series_comes_out_of_the_replay_source(tmp_path: Path) -> None:
    frames: list[Any] = [(np.full((16, 16), n, np.uint16), {}) for n in range(5)]
    path = tmp_path / "series.bsrec"
    with DectrisEmulator("tcp://127.0.0.1:0", frames, rate_hz=0, compression="none") as emulator:
        run_cli(record, "--endpoint", emulator.endpoint, "--out", str(path), "--messages", "7", "--quiet")
    found = replayed([path], {"kind": "dectris", "endpoint": "tcp://x:1"})
    assert [type(item).__name__ for item in found] == ["RunStart", *["Raw"] * 5, "RunEnd"]
    values = [int(np.frombuffer(item.image.buffer, "<u2")[0]) for item in found if isinstance(item, Raw)]
    assert values == [0, 1, 2, 3, 4]


def test_a_real_eiger_capture_through_the_replay_source() -> None:
    path = DATA / "streams" / "eiger-small.cbors"
    if not path.exists():
        pytest.skip(f"no {path}")
    found = replayed([path], {"kind": "dectris", "endpoint": "tcp://x:1"})
    assert isinstance(found[0], RunStart)
    # Its payloads were cut to 20 000 bytes: whether they become failures here or in decoding is DECTRIS's decoder's.
    assert [item.key.number for item in found if isinstance(item, Raw | Failure)] == [0, 1, 2]
    assert isinstance(found[-1], RunEnd)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from beamsieve.stream.commands.record import *\nimport typer\n"
         "app = typer.Typer()\napp.command()(record)\napp.command()(replay)\napp()", *arguments],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_recorder_may_be_ended_at_any_moment(number: int, tmp_path: Path) -> None:
    out = tmp_path / "run.bsrec"
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        port = push.bind_to_random_port("tcp://127.0.0.1")
        process = start("record", "--endpoint", f"tcp://127.0.0.1:{port}", "--out", str(out), "--quiet")
        sent = 0

        def enough() -> bool:
            nonlocal sent
            while push.poll(10, zmq.POLLOUT) and sent < 200:
                push.send_multipart([str(sent).encode(), bytes(10_000)])
                sent += 1
            return out.exists() and out.stat().st_size > 500_000

        wait_for(enough)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        assert process.stderr is not None
        process.stderr.close()
    records = list(Reader(out))
    assert len(records) >= 49
    assert [int(r.parts[0]) for r in records] == list(range(len(records)))


def test_replay_of_a_cut_file_says_so_and_sends_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "cut.bsrec"
    write(path, [[b"%d" % n] for n in range(10)])
    os.truncate(path, path.stat().st_size - 1)
    found: list[list[bytes]] = []
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        thread = threading.Thread(target=lambda: found.extend(pull.recv_multipart() for _ in range(9)))
        thread.start()
        arguments = [str(path), "--endpoint", f"tcp://127.0.0.1:{port}", "--connect", "--speed", "max"]
        done = run_cli(replay, *arguments, "--json", str(tmp_path / "x.json"))
        thread.join(PATIENCE_S)
    assert done.exit_code == 0, done.output
    assert found == [[b"%d" % n] for n in range(9)]
    assert "the last record is incomplete" in done.output
    assert json.loads((tmp_path / "x.json").read_text())["messages"] == 9


@pytest.mark.parametrize(
    ("function", "arguments", "code", "text"),
    [
        (replay, ["nowhere.bsrec", "--endpoint", "tcp://127.0.0.1:0"], 2, "nowhere.bsrec"),
        (replay, [__file__, "--endpoint", "tcp://127.0.0.1:0"], 2, "neither a recording nor"),
        (replay, [__file__, "--endpoint", "tcp://127.0.0.1:0", "--speed", "fast"], 2, "positive number, or max"),
        (record, ["--endpoint", "nowhere", "--out", "x.bsrec"], 1, "tcp://HOST:PORT"),
        (record, ["--endpoint", "ipc:///tmp/none", "--out", __file__], 2, "exists"),
    ],
)
def test_mistakes_are_one_line(
    function: Any, arguments: list[str], code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli(function, *arguments)
    assert done.exit_code == code, done.output
    assert text in done.output
    assert "Traceback" not in done.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_says_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: Writer) -> Any:
        writer.paths.append(Path("/dev/full"))
        return Path("/dev/full").open("wb")

    monkeypatch.setattr(Writer, "_next", full)
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        port = push.bind_to_random_port("tcp://127.0.0.1")
        thread = threading.Thread(target=lambda: push.send(b"x" * 100))
        thread.start()
        done = run_cli(record, "--endpoint", f"tcp://127.0.0.1:{port}", "--out", str(tmp_path / "x"), "--messages", "1")
        thread.join()
    assert done.exit_code == 1, done.output
    assert "the disk is full" in done.output
