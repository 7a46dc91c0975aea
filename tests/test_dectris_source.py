"""The DECTRIS source and the emulator over real sockets."""

import threading
import time
from collections import Counter
from typing import Any, Literal

import cbor2
import numpy as np
import pytest
import zmq
import zmq.auth
from beamsieve.stream.decode.decompress import decompress
from beamsieve.stream.emulators.dectris import DectrisEmulator, Faults, frames_of
from beamsieve.stream.emulators.dectris_messages import Blob, SeriesInfo, WriterV1, WriterV2
from beamsieve.stream.flow.frame import BadData, Discard, Failure, Raw, RunEnd, RunStart
from beamsieve.stream.flow.settings import Settings
from beamsieve.stream.sources.dectris import Assembler, DectrisSettings, DectrisSource
from pydantic import ValidationError

ANY_PORT = "tcp://127.0.0.1:*"


class Told:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def event(self, kind: str, n: int = 1) -> None:
        self.events[kind] += n


def frames(count: int = 20, shape: Any = (16, 24)) -> Any:
    return np.random.default_rng(1).poisson(3, (count, *shape)).astype("u2")


def collect(source: Any, done: Any, seconds: float = 30.0) -> Any:
    """Read until ``done(messages)``, or fail."""
    got: list[Any] = []
    deadline = time.monotonic() + seconds
    while not done(got):
        assert time.monotonic() < deadline, f"only {len(got)} messages: {got[-3:]}"
        got += source.read(0.1) or []
    return got


def ended(got: Any) -> Any:
    return any(isinstance(item, RunEnd) for item in got)


def receive(emulator: Any, done: Any = ended, **settings: Any) -> Any:
    told = Told()
    with emulator:
        source = DectrisSource(DectrisSettings(endpoint=emulator.endpoint, **settings), told)
        source.open()
        try:
            got = collect(source, done)
        finally:
            source.close()
    return got, told.events


def kinds(got: Any) -> Any:
    return Counter(type(item).__name__ for item in got)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compression", ["none", "lz4", "bslz4"])
def test_every_frame_arrives_as_it_was_sent(version: Literal[1, 2], compression: str) -> None:
    stack = frames()
    begin = time.monotonic(), time.time()
    emulator = DectrisEmulator(ANY_PORT, frames_of(stack), version=version, compression=compression, images=20)
    got, events = receive(emulator)
    assert isinstance(got[0], RunStart)
    assert isinstance(got[-1], RunEnd)
    raws = got[1:-1]
    assert [raw.key.number for raw in raws] == list(range(20))
    np.testing.assert_array_equal([decompress(raw.image) for raw in raws], stack)
    assert all(begin[0] <= raw.arrived <= time.monotonic() and begin[1] <= raw.wall <= time.time() for raw in raws)
    assert not events - Counter(disconnected=1)
    assert got[0].info["image_size"] == (16, 24)
    assert got[0].info["error_value"] == 65535


def test_detects_the_version_and_follows_a_change_of_it() -> None:
    stack = frames(3)
    versions: tuple[Literal[1, 2], ...] = (1, 2, 1)
    source = DectrisSource(DectrisSettings(endpoint=ANY_PORT, bind=True), Told())
    source.open()
    try:
        for number, version in enumerate(versions, start=1):
            emulator = DectrisEmulator(source.endpoint, frames_of(stack), version=version, bind=False, series=number)
            with emulator:
                got = collect(source, ended)
            assert kinds(got) == {"RunStart": 1, "Raw": 3, "RunEnd": 1}
            assert got[0].run == str(number)
    finally:
        source.close()


@pytest.mark.parametrize("version", [1, 2])
def test_faults_of_the_sender(version: Literal[1, 2]) -> None:
    """Skipped, doubled, corrupted and cut images: each is counted for what it is."""
    faults = Faults(skip=frozenset({2, 3}), twice=frozenset({5}), corrupt=frozenset({7}), cut=frozenset({9}))
    emulator = DectrisEmulator(ANY_PORT, frames_of(frames()), version=version, faults=faults, images=20)
    got, events = receive(emulator)
    assert [d.key.number for d in got if isinstance(d, Discard)] == [5]
    failures = [f for f in got if isinstance(f, Failure)]
    assert [f.reason for f in failures] == ["cut" if version == 1 else "cbor"]
    raws = [raw for raw in got if isinstance(raw, Raw)]
    assert [raw.key.number for raw in raws] == [n for n in range(20) if n not in {2, 3, 9}]
    with pytest.raises(BadData):
        decompress(next(raw.image for raw in raws if raw.key.number == 7))
    # Of a cut CBOR message not even the number can be read, so that image is missing, too.
    assert events["missing"] == (2 if version == 1 else 3)


@pytest.mark.parametrize("version", [1, 2])
def test_a_restart_of_the_sender(version: Literal[1, 2]) -> None:
    emulator = DectrisEmulator(ANY_PORT, frames_of(frames()), version=version, faults=Faults(restart_at=8), images=20)
    got, events = receive(emulator, done=lambda got: sum(isinstance(x, RunEnd) for x in got) == 2)
    marks = [x for x in got if isinstance(x, RunStart | RunEnd)]
    assert [(type(m).__name__, m.run, getattr(m, "reason", "")) for m in marks] == [
        ("RunStart", "1", ""), ("RunEnd", "1", "aborted"), ("RunStart", "1.2", ""), ("RunEnd", "1.2", "end"),
    ]  # fmt: skip
    assert [r.key.number for r in got if isinstance(r, Raw)] == [*range(8), *range(12)]
    assert events["restart"] == 1


def test_joining_late_and_an_end_that_never_comes() -> None:
    faults = Faults(no_start=True, no_end=True)
    emulator = DectrisEmulator(ANY_PORT, frames_of(frames()), faults=faults, images=20)
    got, events = receive(emulator, series_idle_s=0.05)
    assert kinds(got) == {"RunStart": 1, "Raw": 20, "RunEnd": 1}
    assert got[0].info == {}
    assert got[-1].reason == "idle"
    assert (events["joined_late"], events["no_end"]) == (1, 1)


def test_two_receivers_share_a_sender() -> None:
    emulator = DectrisEmulator(ANY_PORT, frames_of(frames(60)), images=60, rate_hz=300)
    told = [Told(), Told()]
    with emulator:
        sources = [
            DectrisSource(DectrisSettings(endpoint=emulator.endpoint, shared=True, series_idle_s=0.3), t) for t in told
        ]
        for source in sources:
            source.open()
        results: list[list[Any]] = [[], []]
        threads = [
            threading.Thread(target=lambda i=i, s=s: results[i].extend(collect(s, ended)))
            for i, s in enumerate(sources)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for source in sources:
            source.close()
    numbers = [{x.key.number for x in got if isinstance(x, Raw)} for got in results]
    assert numbers[0] | numbers[1] == set(range(60))
    assert not numbers[0] & numbers[1]
    assert all(t.events["missing"] == 0 for t in told)


def test_a_slow_receiver_slows_a_sender_that_blocks() -> None:
    emulator = DectrisEmulator(ANY_PORT, frames_of(frames(400)), images=400, hwm=1)
    got, _ = receive(emulator, hwm=1)
    assert kinds(got)["Raw"] == 400
    assert emulator.tally.dropped == 0


def test_a_sender_that_drops_counts_what_it_drops() -> None:
    emulator = DectrisEmulator(
        ANY_PORT, frames_of(frames(4, (512, 512))), repeat=4, images=3000, hwm=1, when_full="drop"
    )
    emulator.compression = "none"
    told = Told()
    with emulator:
        source = DectrisSource(DectrisSettings(endpoint=emulator.endpoint, hwm=1), told)
        source.open()
        first = collect(source, lambda got: kinds(got)["RunStart"] == 1)
        deadline = time.monotonic() + 30
        while emulator.tally.sent + emulator.tally.dropped < 3000 and time.monotonic() < deadline:
            emulator.finished.wait(0.01)
        got = first + collect(source, ended)
        source.close()
    assert emulator.tally.dropped > 0
    assert kinds(got)["Raw"] == emulator.tally.sent == 3000 - emulator.tally.dropped


def test_the_emulator_keeps_its_rate() -> None:
    emulator = DectrisEmulator(ANY_PORT, frames_of(frames(1)), repeat=1, images=100, rate_hz=500)
    got, _ = receive(emulator)
    raws = [x for x in got if isinstance(x, Raw)]
    assert raws[-1].arrived - raws[0].arrived == pytest.approx(99 / 500, rel=0.5)
    assert raws[-1].info["start_s"] == pytest.approx(99 / 500)
    assert emulator.tally.report()["sent"] == 100


def test_a_part_larger_than_allowed_closes_the_connection() -> None:
    emulator = DectrisEmulator(ANY_PORT, frames_of(frames(4, (1024, 1024))), compression="none", images=4)
    told = Told()
    with emulator:
        source = DectrisSource(DectrisSettings(endpoint=emulator.endpoint, max_message_mb=1), told)
        source.open()
        deadline = time.monotonic() + 30
        got: list[Any] = []
        while not told.events["disconnected"]:
            assert time.monotonic() < deadline
            got += source.read(0.05) or []
        source.close()
    assert not any(isinstance(x, Raw) for x in got)


def test_encrypted(tmp_path: Any) -> None:
    zmq.auth.create_certificates(tmp_path, "detector")
    zmq.auth.create_certificates(tmp_path, "daemon")
    context = zmq.Context()
    sender = context.socket(zmq.PUSH)
    sender.curve_publickey, sender.curve_secretkey = zmq.auth.load_certificate(tmp_path / "detector.key_secret")
    sender.curve_server = True
    port = sender.bind_to_random_port("tcp://127.0.0.1")
    curve = {"key_file": tmp_path / "daemon.key_secret", "server_key_file": tmp_path / "detector.key"}
    source = DectrisSource(DectrisSettings(endpoint=f"tcp://127.0.0.1:{port}", curve=curve), Told())
    source.open()
    try:
        writer = WriterV2(SeriesInfo(3, (4, 4), np.dtype("u2"), 1, "none"))
        for parts in [*writer.start(), writer.image(0, Blob.of(bytes(32)), {}), writer.end()]:
            assert sender.poll(10_000, zmq.POLLOUT)
            sender.send_multipart(parts)
        assert kinds(collect(source, ended)) == {"RunStart": 1, "Raw": 1, "RunEnd": 1}
    finally:
        source.close()
        context.destroy(linger=0)


def test_a_preview_over_pub_and_sub() -> None:
    context = zmq.Context()
    sender = context.socket(zmq.XPUB)
    port = sender.bind_to_random_port("tcp://127.0.0.1")
    source = DectrisSource(DectrisSettings(endpoint=f"tcp://127.0.0.1:{port}", pattern="sub"), Told())
    source.open()
    try:
        assert sender.poll(10_000)
        sender.recv()
        writer = WriterV1(SeriesInfo(3, (4, 4), np.dtype("u2"), 1, "none"))
        for parts in [*writer.start(), writer.image(0, Blob.of(bytes(32)), {}), writer.end()]:
            sender.send_multipart(parts)
        assert kinds(collect(source, ended)) == {"RunStart": 1, "Raw": 1, "RunEnd": 1}
    finally:
        source.close()
        context.destroy(linger=0)


def test_an_endpoint_that_cannot_be_is_an_error_with_a_remedy() -> None:
    for endpoint in ("tcp:/nowhere", "detector:9999"):
        source = DectrisSource(DectrisSettings(endpoint=endpoint), Told())
        with pytest.raises(OSError, match="connect to"):
            source.open()
        source.close()
    with pytest.raises(OSError, match="bind to"):
        DectrisEmulator("tcp://no.such.host.invalid:1", []).open()


def test_channels() -> None:
    """The first threshold unless another is named; of one that is not there the failure names those that are."""

    def array(value: Any) -> Any:
        return cbor2.CBORTag(40, [[2, 2], cbor2.CBORTag(64, bytes([value] * 4))])

    masks = {"threshold_1": array(1), "threshold_2": array(2)}
    channels = ["threshold_1", "threshold_2"]
    start = cbor2.dumps({"type": "start", "series_id": 1, "channels": channels, "pixel_mask": masks})
    data = {"difference": array(9), "threshold_2": array(2), "threshold_1": array(1)}
    image = cbor2.dumps({"type": "image", "series_id": 1, "image_id": 0, "data": data})
    for channel, expected in (("", 1), ("threshold_2", 2), ("difference", 9)):
        out: list[Any] = []
        assembler = Assembler(DectrisSettings(endpoint="tcp://x:1", channel=channel), Told())
        for message in (start, image):
            assembler.take([memoryview(message)], 0.0, 0.0, out)
        assert decompress(out[1].image)[0, 0] == expected
        if expected < 9:
            assert out[0].info["pixel_mask"].dtype == np.uint32
            assert out[0].info["pixel_mask"][0, 0] == expected
    out = []
    assembler = Assembler(DectrisSettings(endpoint="tcp://x:1", channel="threshold_3"), Told())
    assembler.take([memoryview(image)], 0.0, 0.0, out)
    assert out[-1].reason == "channel"
    assert "threshold_2" in out[-1].detail


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_stream_2_begins_while_stream_1_lacks_parts(parts: int) -> None:
    """A sender of single parts dies inside an image; another version starts, and is not taken for its pixels."""
    info = SeriesInfo(3, (4, 4), np.dtype("u2"), 1, "none")
    first, second = WriterV1(info, flat=True), WriterV2(info)
    messages = [*first.start(), *([part] for part in first.image(0, Blob.of(bytes(32)), {})[:parts])]
    messages += [*second.start(), second.image(0, Blob.of(bytes(32)), {}), second.end()]
    out: list[Any] = []
    assembler = Assembler(DectrisSettings(endpoint="tcp://x:1"), Told())
    for message in messages:
        assembler.take([memoryview(part) for part in message], 0.0, 0.0, out)
    assert [item.key.run for item in out if isinstance(item, Raw)] == ["3.2"]


def test_settings_are_checked() -> None:
    assert issubclass(DectrisSettings, Settings)
    with pytest.raises(ValidationError, match="endpont"):
        DectrisSettings.model_validate({"endpoint": "tcp://a:1", "endpont": "tcp://b:1"})
    assert all(field.description for field in DectrisSettings.model_fields.values())


def test_frames_are_needed() -> None:
    emulator = DectrisEmulator(ANY_PORT, [])
    with pytest.raises(ValueError, match="at least one"), emulator:
        emulator.finished.wait(10)
