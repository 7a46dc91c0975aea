"""The karabo source over real sockets: against senders that we did not write, ours, and senders that go away."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.auth
from beamsieve.stream.decode.trains import split_train
from beamsieve.stream.emulators.karabo import Faults, KaraboEmulator, Layout, encode, metadata_of
from beamsieve.stream.flow.frame import Discard, Failure, Incoming, Raw, RunEnd, RunStart
from beamsieve.stream.sources.karabo import KaraboSettings, KaraboSource
from beamsieve.stream.sources.sockets import CurveSettings
from karabo_bridge import Client
from karabo_bridge.server import ServerInThread, SimServerInThread

PAIRS = [("REP", "req"), ("PUB", "sub"), ("PUSH", "pull")]
AGIPD_MODULE = "SPB_DET_AGIPD1M-1/DET/0CH0:xtdf"
PATIENCE_S = 20.0


class Told:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def event(self, kind: str, n: int = 1) -> None:
        self.events[kind] += n


@contextmanager
def opened(told: Told | None = None, /, **values: Any) -> Iterator[KaraboSource]:
    source = KaraboSource(KaraboSettings.model_validate(values), told or Told())
    source.open()
    try:
        yield source
    finally:
        source.close()


def read_until(source: KaraboSource, enough: Callable[[list[Incoming]], bool]) -> list[Incoming]:
    """Read until ``enough`` says so; fails after PATIENCE_S."""
    found: list[Incoming] = []
    deadline = time.monotonic() + PATIENCE_S
    while not enough(found):
        assert time.monotonic() < deadline, f"only {[type(i).__name__ for i in found]} came"
        found += source.read(0.1)
    return found


def trains(n: int) -> Callable[[list[Incoming]], bool]:
    return lambda found: sum(isinstance(item, Raw) for item in found) >= n


def raws(items: list[Incoming]) -> list[Raw]:
    return [item for item in items if isinstance(item, Raw)]


def shots_of(raw: Raw) -> list[np.ndarray]:
    return split_train(raw, np.frombuffer(raw.image.buffer, raw.image.dtype).reshape(raw.image.shape))


@pytest.fixture
def ipc(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/bridge"


@pytest.mark.parametrize("protocol", ["1.0", "2.2"])
@pytest.mark.parametrize(("side", "pattern"), PAIRS)
def test_karabo_bridges_simulated_server(side: str, pattern: str, protocol: str, ipc: str) -> None:
    server = SimServerInThread(ipc, sock=side, detector="AGIPDModule", raw=True, protocol_version=protocol, debug=False)
    with server, opened(endpoint=ipc, pattern=pattern, source=AGIPD_MODULE, axes="online") as source:
        found = read_until(source, trains(3))
    assert isinstance(found[0], RunStart)
    assert {raw.key.run for raw in raws(found)} == {found[0].run}
    for raw in raws(found):
        assert (raw.count, raw.pulses) == (64, tuple(range(64)))
        shots = shots_of(raw)
        # The simulation calls the axes (y, x, pulse) = (128, 512, 64), and numbers 1500 to 1600 everywhere.
        assert shots[0].shape == (512, 128)
        assert all(int(s.min()) >= 1500 and int(s.max()) <= 1600 for s in shots)
    numbers = [raw.key.number for raw in raws(found)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("data_like", ["online", "file"])
def test_a_simulated_megapixel_train_in_both_orders(data_like: str, ipc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karabo_bridge.simulation.AGIPD.pulses", 4)
    settings: dict[str, Any] = {
        "modules": 16,
        "module_shape": (512, 128),
        "source": "SPB_DET_AGIPD1M-1/CAL/APPEND_CORRECTED",
    }
    server = SimServerInThread(ipc, detector="AGIPD", data_like=data_like, debug=False)
    with server, opened(endpoint=ipc, axes=data_like, **settings) as source:
        (raw, *_) = raws(read_until(source, trains(1)))
    assert raw.count == 4
    assert [s.shape for s in shots_of(raw)] == [(16, 512, 128)] * 4
    assert raw.image.dtype == np.float32


def test_another_detector_among_several_sources(ipc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karabo_bridge.simulation.LPD.pulses", 2)
    source_name = "FXE_DET_LPD1M-1/CAL/APPEND_CORRECTED-2"
    server = SimServerInThread(ipc, detector="LPD", nsources=2, debug=False)
    with server, opened(endpoint=ipc, axes="online", modules=16, source=source_name) as source:
        (raw, *_) = raws(read_until(source, trains(1)))
    assert (raw.count, shots_of(raw)[0].shape) == (2, (16, 256, 256))


@pytest.mark.parametrize(("side", "pattern"), [("REP", "req"), ("PUSH", "pull")])
def test_every_value_arrives_from_the_bridges_own_server(side: str, pattern: str, ipc: str) -> None:
    rng = np.random.default_rng(3)
    sent = [rng.integers(0, 1000, (3, 2, 5, 4)).astype(np.uint16) for _ in range(8)]
    settings: dict[str, Any] = {"source": "DET", "axes": "file", "values": {"mJ": "XGM i"}}
    with ServerInThread(ipc, sock=side) as server, opened(endpoint=ipc, pattern=pattern, **settings) as source:
        for n, image in enumerate(sent):
            data = {"DET": {"image.data": image}, "XGM": {"i": n / 2}}
            server.feed(data, {s: {"source": s, "timestamp.tid": 100 + n} for s in data})
        found = raws(read_until(source, trains(len(sent))))
    assert [raw.key.number for raw in found] == list(range(100, 108))
    for n, raw in enumerate(found):
        np.testing.assert_array_equal(shots_of(raw), sent[n])
        assert raw.info["mJ"] == n / 2


def shots(n: int = 5) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    images = [np.full((32, 8), 10 * k, np.uint16) + np.arange(8, dtype=np.uint16) for k in range(n)]
    return itertools.cycle([(image, {"truth": k % 5}) for k, image in enumerate(images)])


@contextmanager
def emulated(endpoint: str = "tcp://127.0.0.1:0", **values: Any) -> Iterator[tuple[str, KaraboEmulator]]:
    emulator = KaraboEmulator(endpoint, values.pop("frames", None) or shots(), **{"rate_hz": 0.0, **values})
    stop = threading.Event()
    address = emulator.open()

    def run() -> None:
        try:
            emulator.run(stop)
        finally:
            emulator.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield address, emulator
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("protocol", ["1.0", "2.0", "2.1", "2.2"])
@pytest.mark.parametrize(("side", "pattern"), PAIRS)
def test_our_emulator_and_our_source(side: str, pattern: str, protocol: str) -> None:
    layout = Layout(source="D", pulses=5, order="online", modules=2)
    rate = 100.0 if side == "pub" else 0.0
    with emulated(layout=layout, side=side.lower(), protocol=protocol, rate_hz=rate) as (endpoint, _):
        settings: dict[str, Any] = {"source": "D", "axes": "online", "modules": 2, "module_shape": (16, 8)}
        with opened(endpoint=endpoint, pattern=pattern, **settings) as source:
            found = raws(read_until(source, trains(4)))
    expected = np.stack([image for image, _ in itertools.islice(shots(), 5)]).reshape(5, 2, 16, 8)
    for raw in found:
        np.testing.assert_array_equal(shots_of(raw), expected)


@pytest.mark.parametrize("protocol", ["1.0", "2.2"])
@pytest.mark.parametrize(("side", "pattern"), PAIRS)
def test_our_emulator_and_the_bridges_client(side: str, pattern: str, protocol: str) -> None:
    layout = Layout(source="D", pulses=5, order="file")
    rate = 100.0 if side == "PUB" else 0.0
    with (
        emulated(layout=layout, side=side.lower(), protocol=protocol, rate_hz=rate) as (endpoint, emulator),
        Client(endpoint, sock=pattern.upper(), timeout=PATIENCE_S) as client,
    ):
        seen = [client.next() for _ in range(3)]
    for data, meta in seen:
        assert meta["D"]["timestamp.tid"] >= emulator.first_train
        np.testing.assert_array_equal(data["D"]["image.data"][1][:, 0], np.full(32, 10))
    assert emulator.tally.report()["true_hits"] == emulator.tally.sent // 5


def test_a_bad_request_is_answered_and_forgotten() -> None:
    layout = Layout(source="D", pulses=1)
    with emulated(layout=layout) as (endpoint, _), zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(endpoint)
        for request, answer in ((b"hello", b"Error: bad request hello"), (b"next", b"\x83\xa6source")):
            socket.send(request)
            assert socket.poll(int(PATIENCE_S * 1000))
            assert socket.recv_multipart()[0].startswith(answer)


def test_faults_are_counted_for_what_they_are() -> None:
    told = Told()
    faults = Faults(drop=0.2, duplicate=0.2, corrupt=0.2, restart_every=40, seed=5)
    layout = Layout(source="D", pulses=2, order="file")
    with (
        emulated(layout=layout, side="push", faults=faults) as (endpoint, emulator),
        opened(told, endpoint=endpoint, pattern="pull", source="D", axes="file") as source,
    ):
        found = read_until(source, trains(120))
    counts = Counter(type(item).__name__ for item in found)
    assert counts["Failure"] > 10
    assert counts["Discard"] > 10
    assert told.events["missing"] > 10
    assert told.events["restart"] >= 2
    assert counts["RunStart"] == counts["RunEnd"] + 1
    assert emulator.tally.dropped > 20
    keys = [raw.key for raw in raws(found)]
    assert len(keys) == len(set(keys))


def test_lost_modules_are_marked() -> None:
    layout = Layout(source="S/DET/*CH0:xtdf", pulses=2, order="file", modules=4, split=True)
    with emulated(layout=layout, side="push", faults=Faults(lose_module=0.5, seed=1)) as (endpoint, _):
        settings: dict[str, Any] = {"source": layout.source, "modules": 4, "axes": "file"}
        with opened(endpoint=endpoint, pattern="pull", **settings) as source:
            found = raws(read_until(source, trains(30)))
    missing = Counter(len(raw.info.get("missing_modules", ())) for raw in found)
    assert set(missing) == {0, 1}
    # A burst may hold more trains than were waited for.
    assert len(found) / 6 < missing[1] < 5 * len(found) / 6


def test_a_restarted_rep_server_is_asked_again_at_once(ipc: str) -> None:
    told = Told()
    layout = Layout(source="D", pulses=2, order="file")
    with opened(told, endpoint=ipc, source="D", axes="file", request_timeout_s=1000) as source:
        with emulated(ipc, layout=layout):
            first = read_until(source, trains(50))
        began = time.monotonic()
        with emulated(ipc, layout=layout):
            second = read_until(source, lambda found: any(isinstance(item, RunStart) for item in found))
            second += read_until(source, trains(2))
    assert time.monotonic() - began < 20
    assert told.events["disconnected"] >= 1
    assert told.events["restart"] == 1
    assert isinstance(first[0], RunStart)
    assert RunEnd(first[0].run, "aborted") in second


def test_a_lost_request_is_made_again_on_a_new_socket() -> None:
    """A server that takes a request and never answers: after the timeout the source asks again."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        settings: dict[str, Any] = {
            "endpoint": f"tcp://127.0.0.1:{port}",
            "source": "D",
            "axes": "file",
            "request_timeout_s": 0.2,
        }
        with opened(**settings) as source:
            asked: list[list[bytes]] = []
            deadline = time.monotonic() + PATIENCE_S
            while len(asked) < 2 and time.monotonic() < deadline:
                source.read(0.05)
                while router.poll(0):
                    asked.append(router.recv_multipart())
            assert [request[-1] for request in asked] == [b"next", b"next"]
            assert asked[0][0] != asked[1][0]
            data = {"D": {"image.data": np.zeros((1, 2, 2), np.uint8)}}
            router.send_multipart([asked[1][0], b"", *encode(data, metadata_of(data, 7, 0.0))])
            assert raws(read_until(source, trains(1)))[0].key.number == 7


def test_the_next_request_is_under_way_while_a_train_is_looked_at() -> None:
    with zmq.Context() as context, context.socket(zmq.REP) as server:
        port = server.bind_to_random_port("tcp://127.0.0.1")
        with opened(endpoint=f"tcp://127.0.0.1:{port}", source="D", axes="file") as source:
            assert server.poll(int(PATIENCE_S * 1000))
            server.recv()
            data = {"D": {"image.data": np.zeros((1, 2, 2), np.uint8)}}
            server.send_multipart(encode(data, metadata_of(data, 7, 0.0)))
            read_until(source, trains(1))
            assert server.poll(int(PATIENCE_S * 1000)), "the source did not ask before it was read again"


def test_silence_ends_the_run(ipc: str) -> None:
    frames = itertools.islice(shots(), 4)
    with (
        opened(endpoint=ipc, pattern="pull", source="D", axes="file", idle_s=0.3) as source,
        emulated(ipc, side="push", layout=Layout(source="D", pulses=2, order="file"), frames=frames),
    ):
        found = read_until(source, lambda items: any(isinstance(item, RunEnd) for item in items))
    assert [type(item).__name__ for item in found] == ["RunStart", "Raw", "Raw", "RunEnd"]
    assert isinstance(found[-1], RunEnd)
    assert found[-1].reason == "idle"


def test_a_part_that_is_too_long_closes_the_connection(ipc: str) -> None:
    told = Told()
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        push.bind(ipc)
        settings: dict[str, Any] = {"pattern": "pull", "source": "D", "axes": "file", "max_message_mb": 1}
        with opened(told, endpoint=ipc, **settings) as source:
            push.send(bytes(1_100_000))
            deadline = time.monotonic() + PATIENCE_S
            while not told.events["disconnected"] and time.monotonic() < deadline:
                assert source.read(0.05) == []
            assert told.events["disconnected"] >= 1
            data = {"D": {"image.data": np.zeros((1, 2, 2), np.uint8)}}
            parts = [bytes(part) for part in encode(data, metadata_of(data, 7, 0.0))]
            found: list[Incoming] = []
            while not found and time.monotonic() < deadline:
                if push.poll(50, zmq.POLLOUT):
                    push.send_multipart(parts, zmq.NOBLOCK)
                found += source.read(0.05)
            assert raws(found)[0].key.number == 7


@pytest.mark.parametrize("known", [True, False])
def test_curve_keeps_out_who_does_not_know_the_key(known: bool, tmp_path: Path) -> None:
    theirs, _ = zmq.auth.create_certificates(tmp_path, "bridge")
    other, _ = zmq.auth.create_certificates(tmp_path, "other")
    public, secret = zmq.auth.load_certificate(tmp_path / "bridge.key_secret")
    data = {"D": {"image.data": np.zeros((1, 2, 2), np.uint8)}}
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        push.curve_publickey, push.curve_secretkey, push.curve_server = public, secret, True
        port = push.bind_to_random_port("tcp://127.0.0.1")
        curve = CurveSettings(server_key_file=Path(theirs if known else other))
        endpoint = f"tcp://127.0.0.1:{port}"
        with opened(endpoint=endpoint, pattern="pull", source="D", axes="file", curve=curve) as source:
            assert bool(push.poll(5000 if known else 300, zmq.POLLOUT)) == known
            if known:
                push.send_multipart(encode(data, metadata_of(data, 7, 0.0)))
                assert raws(read_until(source, trains(1)))[0].key.number == 7


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"endpoint": "bridge:4500"}, "tcp://HOST:PORT"),
        ({"endpoint": "tcp://192.0.2.1:99", "bind": True}, "one of its own addresses"),
        ({"endpoint": "tcp://127.0.0.1:1", "curve": {"key_file": "/nowhere.key_secret"}}, "create_certificates"),
    ],
)
def test_an_endpoint_that_cannot_be_opened_is_an_oserror(values: dict[str, Any], remedy: str) -> None:
    with pytest.raises(OSError, match=remedy), opened(pattern="pull", source="D", axes="file", **values):
        pass


def test_an_address_in_use_says_so() -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        port = push.bind_to_random_port("tcp://127.0.0.1")
        values = {"endpoint": f"tcp://127.0.0.1:{port}", "bind": True, "pattern": "pull", "source": "D", "axes": "file"}
        with pytest.raises(OSError, match="another process is bound to it"), opened(**values):
            pass


SERVE = """
import sys, warnings
warnings.simplefilter("ignore")
from extra_data.export import serve_files
serve_files(sys.argv[1], sys.argv[2], source_glob=sys.argv[3], sock=sys.argv[4],
            append_detector_modules=len(sys.argv) > 5)
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as the European XFEL writes it: LPD raw data of 16 modules, a camera, slow data."""
    for package in ("extra_data", "psutil"):
        pytest.importorskip(package, reason="the file server needs extra-data[bridge]")
    folder = tmp_path_factory.mktemp("run")
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from extra_data.tests.make_examples import make_fxe_run\n"
        "make_fxe_run(sys.argv[1], format_version='1.2')"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=50)
    return folder


@contextmanager
def serving(folder: Path, endpoint: str, glob: str, side: str, *more: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), endpoint, glob, side, *more],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


LPD = "FXE_DET_LPD1M-1/DET/*CH0:xtdf"


def test_extra_data_serves_modules_as_sources_of_their_own(run_folder: Path, ipc: str) -> None:
    settings: dict[str, Any] = {"source": LPD, "modules": 16, "axes": "file", "module_shape": (256, 256)}
    with serving(run_folder, ipc, "*LPD1M*", "REP"), opened(endpoint=ipc, **settings) as source:
        found = raws(read_until(source, trains(2)))
    assert [raw.key.number for raw in found[:2]] == [10000, 10001]
    raw = found[0]
    assert raw.info["axes"] == ("module", "pulse", "gain", "ss", "fs")
    assert raw.count == 128
    assert "missing_modules" not in raw.info
    assert shots_of(raw)[0].shape == (16, 256, 256)


def test_extra_data_serves_stacked_modules_and_cameras(run_folder: Path, ipc: str) -> None:
    stacked: dict[str, Any] = {
        "source": "FXE_DET_LPD1M-1/DET/APPEND",
        "modules": 16,
        "axes": "file",
        "module_shape": (256, 256),
    }
    bridge = serving(run_folder, ipc, "*LPD1M*", "PUSH", "stack")
    with bridge, opened(endpoint=ipc, pattern="pull", **stacked) as source:
        raw = raws(read_until(source, trains(1)))[0]
    assert raw.info["axes"] == ("pulse", "gain", "module", "ss", "fs")
    assert (raw.count, shots_of(raw)[0].shape) == (128, (16, 256, 256))
    camera: dict[str, Any] = {
        "source": "FXE_XAD_GEC/CAM/CAMERA:daqOutput",
        "image_key": "data.image.pixels",
        "axes": "camera",
    }
    bridge = serving(run_folder, ipc, "FXE_XAD_GEC/CAM/CAMERA:daqOutput", "PUSH")
    with bridge, opened(endpoint=ipc, pattern="pull", **camera) as source:
        raw = raws(read_until(source, trains(1)))[0]
    assert (raw.count, raw.pulses) == (1, ())
    assert shots_of(raw)[0].shape == raw.image.shape


def test_everything_read_is_accounted_for() -> None:
    layout = Layout(source="D", pulses=3, order="file")
    with (
        emulated(layout=layout, side="push", faults=Faults(corrupt=0.3, duplicate=0.3, seed=2)) as (endpoint, _),
        opened(endpoint=endpoint, pattern="pull", source="D", axes="file") as source,
    ):
        found = read_until(source, trains(40))
    for item in found:
        assert isinstance(item, Raw | Failure | Discard | RunStart)
        if isinstance(item, Raw | Discard):
            assert item.count == 3
