"""The CBOR reader against cbor2, and against bytes no sender would send."""

import math
import struct
from datetime import UTC, datetime
from typing import Any

import cbor2
import numpy as np
import pytest
from beamsieve.stream.flow.frame import BadData, Encoded
from beamsieve.stream.sources.wire.cbor import MAX_DEPTH, Reader, loads
from beamsieve.stream.sources.wire.cbor_tags import TYPED, Tagged
from hypothesis import given, settings
from hypothesis import strategies as st

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.integers(-(2**200), 2**200)
    | st.floats(width=16)
    | st.floats(width=32)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
keys = st.text(max_size=8) | st.integers(-(2**63), 2**63) | st.booleans()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=30) | st.dictionaries(keys, inner, max_size=30), max_leaves=40
)


def plain(value: Any) -> Any:
    """Both readers' answers in one form: lists, dicts, bytes; NaN equal to itself; True unlike 1."""
    if isinstance(value, memoryview):
        return (bytes, bytes(value))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "items"):
        return {(type(key), key): plain(item) for key, item in value.items()}
    if value is cbor2.undefined:
        return plain(None)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return (type(value), value)


@settings(max_examples=300, deadline=None)
@given(values, st.booleans())
def test_reads_what_cbor2_reads(value: Any, canonical: bool) -> None:
    data = cbor2.dumps(value, canonical=canonical)
    assert plain(loads(data)) == plain(cbor2.loads(data)) == plain(value)


def loose(value: Any, choose: Any) -> Any:
    """An encoder that uses heads longer than needed, and indefinite lengths, as RFC 8949 allows."""

    def head(major: Any, n: int) -> Any:
        sizes = [s for s in (0, 1, 2, 4, 8) if n < (24 if s == 0 else 1 << 8 * s)]
        size = choose(sizes)
        if size == 0:
            return bytes([major << 5 | n])
        return bytes([major << 5 | (23 + size.bit_length())]) + n.to_bytes(size, "big")

    if isinstance(value, bool) or value is None or isinstance(value, float):
        return cbor2.dumps(value)
    if isinstance(value, int):
        return cbor2.dumps(value) if not 0 <= value < 1 << 64 else head(0, value)
    if isinstance(value, bytes | str):
        raw = value if isinstance(value, bytes) else value.encode()
        major = 2 if isinstance(value, bytes) else 3
        if choose([True, False]):
            return head(major, len(raw)) + raw
        return bytes([major << 5 | 31]) + b"".join(head(major, 1) + raw[i : i + 1] for i in range(len(raw))) + b"\xff"
    items = [loose(v, choose) for v in value] if isinstance(value, list) else []
    if isinstance(value, dict):
        items = [loose(k, choose) + loose(v, choose) for k, v in value.items()]
    major = 4 if isinstance(value, list) else 5
    if choose([True, False]):
        return head(major, len(items)) + b"".join(items)
    return bytes([major << 5 | 31]) + b"".join(items) + b"\xff"


@settings(max_examples=200, deadline=None)
@given(values, st.randoms(use_true_random=False))
def test_reads_long_heads_and_indefinite_lengths(value: Any, random: Any) -> None:
    assert plain(loads(loose(value, random.choice))) == plain(value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_read_as_cbor2_reads_it_or_refused(data: Any) -> None:
    try:
        mine = loads(data)
    except BadData:
        return
    if all(not isinstance(part, Tagged | Encoded) for part in walk(mine)) and not any(b >> 5 == 6 for b in data):
        assert plain(mine) == plain(cbor2.loads(data))


def walk(value: Any) -> Any:
    yield value
    if isinstance(value, list):
        for item in value:
            yield from walk(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from walk(item)


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_a_cut_message_is_refused(value: Any, data: Any) -> None:
    whole = cbor2.dumps(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadData, match="CBOR"):
        loads(whole[:cut])


@pytest.mark.parametrize("tag", sorted(TYPED))
def test_typed_arrays(tag: int) -> None:
    dtype = TYPED[tag]
    array = np.arange(6).astype(dtype).reshape(2, 3)
    read = loads(cbor2.dumps(cbor2.CBORTag(40, [[2, 3], cbor2.CBORTag(tag, array.tobytes())])))
    assert (read.shape, read.dtype, read.compression) == ((2, 3), dtype, "none")
    np.testing.assert_array_equal(np.frombuffer(read.buffer, read.dtype).reshape(read.shape), array)


def test_rfc_8746_says_what_a_typed_tag_is() -> None:
    """Section 2.1: tag = 0b010_f_s_e_ll (float, signed, little-endian, length)."""
    for tag, dtype in TYPED.items():
        is_float, signed, little, ll = tag >> 4 & 1, tag >> 3 & 1, tag >> 2 & 1, tag & 3
        assert dtype.itemsize == 1 << (ll + is_float)
        assert dtype.kind == ("f" if is_float else "i" if signed else "u")
        if dtype.itemsize > 1:
            assert dtype.str[0] == ("<" if little else ">")


def test_compressed_arrays_stay_as_they_are() -> None:
    blob = struct.pack(">QI", 12, 8192) + b"whatever"
    typed = cbor2.CBORTag(69, cbor2.CBORTag(56500, ["bslz4", 2, blob]))
    message = cbor2.dumps([cbor2.CBORTag(40, [[2, 3], typed]), cbor2.CBORTag(1040, [[2, 3], typed]), typed])
    row, column, flat = loads(message)
    assert [a.compression for a in (row, column, flat)] == ["bslz4", "bslz4/F", "bslz4"]
    assert [a.shape for a in (row, column, flat)] == [(2, 3), (2, 3), (6,)]
    assert {bytes(a.buffer) for a in (row, column, flat)} == {blob}


def test_byte_strings_are_not_copied() -> None:
    message = bytearray(cbor2.dumps({"a": b"x" * 1000}))
    blob = loads(memoryview(message))["a"]
    message[-1] = ord("y")
    assert blob[-1] == ord("y")


def test_dates_and_self_description() -> None:
    message = cbor2.dumps(
        cbor2.CBORTag(55799, [datetime(2024, 3, 1, tzinfo=UTC), cbor2.CBORTag(1, 7), cbor2.CBORTag(99, 1)])
    )
    assert loads(message) == ["2024-03-01T00:00:00Z", 7, Tagged(99, 1)]


def test_where_the_values_of_a_map_lie() -> None:
    data = cbor2.dumps(cbor2.CBORTag(55799, {"a": 1000, "b": [1, 2], "c": b"xyz"}))
    values, spans = Reader(data).entries()
    assert values.keys() == spans.keys()
    for key, (start, end) in spans.items():
        assert plain(cbor2.loads(data[start:end])) == plain(values[key])


def test_depth_and_number_of_items_are_limited() -> None:
    assert loads(b"\x81" * MAX_DEPTH + b"\x00")
    for data in (
        b"\x81" * (MAX_DEPTH + 1) + b"\x00",
        b"\x9f" * 10**6,
        b"\xc1" * 10**6,
        b"\x9a\x00\x10\x00\x00" + bytes(1 << 20),
    ):
        with pytest.raises(BadData, match="too many items or too deeply"):
            loads(data)


@pytest.mark.parametrize("head", [b"\x5b", b"\x7b", b"\x9b", b"\xbb", b"\xa1\x61a\x5b"])
def test_lengths_beyond_the_message_are_refused(head: Any) -> None:
    for length in (100, 1 << 31, 1 << 62, (1 << 64) - 1):
        with pytest.raises(BadData, match=r"CBOR: \d+ items at byte|CBOR: a string of"):
            loads(head + length.to_bytes(8, "big") + bytes(3))
