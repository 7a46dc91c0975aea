"""The karabo-bridge codec against the bridge's own serializer and deserializer, and against what must be refused."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from beamsieve.stream.emulators.karabo import Layout, Protocol, encode, metadata_of, train_data
from beamsieve.stream.flow.frame import BadData, Encoded
from beamsieve.stream.sources.wire.karabo import DTYPES, Train, Unusable, decode, integers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from karabo_bridge import deserialize, serialize

TID = 10_000_000_123
PROTOCOLS = ("1.0", "2.0", "2.1", "2.2")
NUMBERS = ["bool", "i1", "<u2", "<i4", "<f4", ">u2", ">i4", ">f8", "<f2", "<u8"]


def array_of(encoded: object) -> np.ndarray:
    assert isinstance(encoded, Encoded)
    flat = np.frombuffer(encoded.buffer, encoded.dtype) if encoded.nbytes else np.empty(0, encoded.dtype)
    return flat.reshape(encoded.shape)


def as_bytes(parts: list[Any]) -> list[bytes]:
    return [bytes(part) for part in parts]


def values_of(train: Train, source: str) -> dict[str, Any]:
    return {k: v for k, v in train.devices[source].values.items() if k != "metadata" and not k.startswith("metadata.")}


@settings(deadline=None, max_examples=40)
@given(
    array=st.sampled_from(NUMBERS).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    ),
    number=st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20) | st.booleans(),
    protocol=st.sampled_from(("1.0", "2.2")),
)
def test_reads_what_the_bridge_serializes(array: np.ndarray, number: object, protocol: str) -> None:
    data = {"A/DET/0": {"image.data": array, "n": number, "list": [1, 2.5, "x"]}, "B": {"only": 1}}
    metadata = {s: {"source": s, "timestamp": 1.5e9, "timestamp.tid": TID} for s in data}
    train = decode(as_bytes(serialize(data, metadata, protocol_version=protocol)))
    assert set(train.names) == {"A/DET/0", "B"}
    device = train.devices["A/DET/0"]
    found = array_of(device.arrays["image.data"])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert device.values["n"] == number
    assert device.values["list"] == [1, 2.5, "x"]
    assert device.train_id() == TID
    assert device.timestamp() == 1.5e9


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_bridges_client_reads_what_we_encode(protocol: Protocol) -> None:
    images = [np.arange(6 * 4, dtype=np.uint16).reshape(6, 4) + n for n in range(3)]
    data = train_data(Layout(pulses=3, modules=2, order="online"), images, TID)
    parts = as_bytes(encode(data, metadata_of(data, TID, 1.7e9), protocol))
    theirs, meta = deserialize(parts)
    ours = decode(parts)
    source = Layout().source
    expected = np.stack(images).reshape(3, 2, 3, 4).transpose(1, 3, 2, 0)
    np.testing.assert_array_equal(theirs[source]["image.data"], expected)
    np.testing.assert_array_equal(array_of(ours.devices[source].arrays["image.data"]), expected)
    assert theirs[source]["modulesPresent"] == values_of(ours, source)["modulesPresent"] == [True, True]
    if protocol in ("1.0", "2.2"):
        assert meta[source]["timestamp.tid"] == TID
    elif protocol == "2.1":
        assert theirs[source]["metadata.timestamp.tid"] == TID
    else:
        assert theirs[source]["metadata"]["timestamp.tid"] == TID
    assert ours.devices[source].train_id() == TID
    assert ours.devices[source].timestamp() == 1.7e9


def test_arrays_stay_where_they_came() -> None:
    data = train_data(Layout(pulses=2, order="file"), [np.ones((4, 4), np.uint16)] * 2, TID)
    parts = [memoryview(bytes(p)) for p in encode(data, metadata_of(data, TID, 0.0))]
    image = decode(parts).devices[Layout().source].arrays["image.data"]
    assert isinstance(image, Encoded)
    assert any(image.buffer is part for part in parts)


def test_old_senders_say_image_data_and_nest_their_train_id() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    parts = [
        msgpack.packb({"source": "CAM", "content": "msgpack"}),
        msgpack.packb({"metadata": {"source": "CAM", "timestamp": {"tid": TID, "sec": "1", "frac": "0"}}}),
        msgpack.packb(
            {"source": "CAM", "content": "ImageData", "path": "data.image", "dtype": "uint8", "shape": [3, 4]}
        ),
        image.tobytes(),
    ]
    device = decode(parts).devices["CAM"]
    np.testing.assert_array_equal(array_of(device.arrays["data.image"]), image)
    assert device.train_id() == TID


def test_train_id_from_the_images_where_the_metadata_are_silent() -> None:
    parts = as_bytes(serialize({"D": {"image.trainId": np.array([TID, TID], np.uint64)}}, {"D": {}}))
    assert decode(parts).devices["D"].train_id() == TID
    assert decode(as_bytes(serialize({"D": {"x": 1}}, {"D": {}}))).devices["D"].train_id() is None


def test_1_0_keys_may_be_bytes_or_text() -> None:
    body = {"nd": True, "type": "<u2", "kind": "", "shape": [2], "data": b"\1\0\2\0"}
    message = msgpack.packb({"D": {"a": body, "b": {k.encode(): v for k, v in body.items()}, "c": {"x": 1}}})
    device = decode([message]).devices["D"]
    assert array_of(device.arrays["a"]).tolist() == array_of(device.arrays["b"]).tolist() == [1, 2]
    assert device.values["c"] == {"x": 1}
    scalar = msgpack.packb({"D": {"n": {b"nd": False, b"type": "<f8", b"data": np.float64(2.5).tobytes()}}})
    assert decode([scalar]).devices["D"].values["n"] == 2.5


def test_sources_nobody_wants_are_named_but_not_read() -> None:
    parts = as_bytes(serialize({"A": {"x": 1}, "B": {"y": 2}}, {"A": {}, "B": {}}))
    parts[3] = b"\xc1 no msgpack"
    train = decode(parts, lambda source: source == "A")
    assert train.names == ("A", "B")
    assert list(train.devices) == ["A"]
    with pytest.raises(BadData, match="part 3"):
        decode(parts)


def test_only_plain_numbers_have_a_type() -> None:
    assert DTYPES[">u2"] == np.dtype(">u2")
    for name in ("object", "O", "V2", "<U4", "u1,u1", "datetime64[s]", "S3", "complex64", ""):
        assert name not in DTYPES


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [([2, 3], "uint16", "size"), ([-2, -2], "uint16", "shape"), ([1 << 40], "uint16", "shape"), ([4], "O", "dtype")],
)
def test_an_unusable_array_says_why(shape: list[int], dtype: str, reason: str) -> None:
    header = {"source": "D", "content": "array", "path": "a", "dtype": dtype, "shape": shape}
    array = decode([msgpack.packb(header), b"\0" * 8]).devices["D"].arrays["a"]
    assert isinstance(array, Unusable)
    assert array.reason == reason


def test_pickled_arrays_are_never_opened() -> None:
    body = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"cbuiltins\nexit\n(tR."}
    array = decode([msgpack.packb({"D": {"a": body}})]).devices["D"].arrays["a"]
    assert isinstance(array, Unusable)
    assert "plain numbers" in array.detail


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "framing"),
        ([b"\x80"] * 3, "framing"),
        ([b"\xc1"], "msgpack"),
        ([msgpack.packb([1])], "msgpack"),
        ([msgpack.packb({"content": "array"}), b""], "header"),
        ([msgpack.packb({"source": "D", "content": "pickle"}), b""], "header"),
    ],
)
def test_messages_that_are_not_trains(parts: list[bytes], reason: str) -> None:
    with pytest.raises(BadData) as caught:
        decode(parts)
    assert caught.value.reason == reason


def test_identifiers_are_integers() -> None:
    assert integers(Encoded(b"\1\0\2\0", (2,), np.dtype("<u2"))).tolist() == [1, 2]
    assert integers(Encoded(b"", (0,), np.dtype("<u2"))).size == 0
    with pytest.raises(BadData):
        integers(Encoded(b"\0" * 4, (1,), np.dtype("<f4")))
