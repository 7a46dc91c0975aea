"""Decompression against hdf5plugin (which wrote the bytes), and against headers that lie."""

import contextlib
import struct
import threading
import time
import tracemalloc
from collections import deque
from typing import Any

import hdf5plugin  # noqa: F401  (its filters read what we are given)
import numpy as np
import pytest
from beamsieve.stream.decode.decompress import decompress, decompress_many
from beamsieve.stream.emulators.compress import COMPRESSIONS, Compressor
from beamsieve.stream.flow.frame import BadData, Encoded
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = ["u1", "u2", "u4", "i2", "i4", "f4", "f8"]


def encode(array: Any, compression: str = "bslz4") -> Any:
    with Compressor(compression) as compressor:
        return Encoded(memoryview(compressor.compress(array)), array.shape, array.dtype.newbyteorder("<"), compression)


def photons(shape: Any = (40, 50), dtype: str = "u2", seed: int = 0) -> Any:
    return np.random.default_rng(seed).poisson(0.5, shape).astype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(COMPRESSIONS),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 70), min_size=1, max_size=3),
    st.integers(0, 100),
)
def test_gives_back_what_went_in(compression: str, dtype: str, shape: Any, seed: int) -> None:
    array = photons(tuple(shape), dtype, seed)
    encoded = encode(array, compression)
    decoded = decompress(encoded)
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)
    out = np.empty_like(array)
    assert decompress(encoded, out) is out
    np.testing.assert_array_equal(out, array)


def test_a_bare_lz4_block_is_accepted() -> None:
    array = photons()
    framed = encode(array, "lz4")
    assert struct.unpack_from(">QII", framed.buffer)[0] == array.nbytes
    bare = Encoded(framed.buffer[16:], array.shape, array.dtype, "lz4")
    np.testing.assert_array_equal(decompress(bare), array)


def test_column_major_and_big_endian() -> None:
    array = photons((5, 7))
    for compression in COMPRESSIONS:
        flipped = encode(np.ascontiguousarray(array.T), compression)
        encoded = Encoded(flipped.buffer, array.shape, array.dtype, compression + "/F")
        np.testing.assert_array_equal(decompress(encoded), array)
        np.testing.assert_array_equal(decompress(encoded, np.empty_like(array)), array)
        swapped = encode(array.byteswap(), compression)
        decoded = decompress(Encoded(swapped.buffer, array.shape, np.dtype(">u2"), compression))
        assert decoded.dtype.isnative
        np.testing.assert_array_equal(decoded, array)


def test_uncompressed_data_is_not_copied() -> None:
    array = photons()
    encoded = Encoded(memoryview(array).cast("B"), array.shape, array.dtype)
    assert np.shares_memory(decompress(encoded), array)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: e | {"buffer": b""}, "decompress"),
        (lambda e: e | {"buffer": e["buffer"][:12]}, "decompress"),
        (lambda e: e | {"buffer": e["buffer"][:-1]}, "decompress"),
        (lambda e: e | {"buffer": struct.pack(">QI", 1 << 40, 8192) + bytes(e["buffer"][12:])}, "size"),
        (lambda e: e | {"buffer": bytes(e["buffer"][:8]) + bytes(4) + bytes(e["buffer"][12:])}, "decompress"),
        (lambda e: e | {"buffer": bytes(e["buffer"][:8]) + b"\xff" * 4 + bytes(e["buffer"][12:])}, "decompress"),
        (lambda e: e | {"buffer": bytes(e["buffer"][:12]) + b"\xa5" * 40}, "decompress"),
        (lambda e: e | {"shape": (40, 51)}, "size"),
        (lambda e: e | {"shape": (-40, -50)}, "shape"),
        (lambda e: e | {"shape": (0, 50)}, "shape"),
        (lambda e: e | {"shape": (1 << 20, 1 << 20)}, "size"),
        (lambda e: e | {"dtype": np.dtype("u4")}, "size"),
        (lambda e: e | {"dtype": np.dtype("O")}, "dtype"),
        (lambda e: e | {"dtype": np.dtype("V2")}, "dtype"),
        (lambda e: e | {"compression": "gzip"}, "decompress"),
        (lambda e: e | {"compression": "none"}, "size"),
    ],
)
def test_lies_are_refused(change: Any, reason: str) -> None:
    good = encode(photons())
    lie = change({name: getattr(good, name) for name in ("buffer", "shape", "dtype", "compression")})
    with pytest.raises(BadData) as caught:
        decompress(Encoded(**lie))
    assert caught.value.reason == reason


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["bslz4", "lz4", "bszstd"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_any_change_gives_an_array_or_bad_data(compression: str, place: int, noise: Any) -> None:
    good = encode(photons(), compression)
    data = bytearray(good.buffer)
    place %= len(data)
    data[place : place + len(noise)] = noise
    tracemalloc.start()
    with contextlib.suppress(BadData):
        array = decompress(Encoded(bytes(data), good.shape, good.dtype, compression))
        assert (array.shape, array.dtype) == (good.shape, good.dtype)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("block", [0, 8, 8191, 1 << 21, 0xFFFFFFF0])
def test_blocks_that_make_no_sense_are_refused_before_decoding(block: int) -> None:
    good = encode(photons())
    header = struct.pack(">QI", photons().nbytes, block)
    with pytest.raises(BadData, match=f"block of {block} bytes does not fit"):
        decompress(Encoded(header + bytes(good.buffer[12:]), good.shape, good.dtype, "bslz4"))


def test_many_go_into_one_stack() -> None:
    stack = photons((6, 20, 30))
    items = [encode(array, COMPRESSIONS[i % 4]) for i, array in enumerate(stack)]
    np.testing.assert_array_equal(decompress_many(items), stack)
    out = np.empty_like(stack)
    assert decompress_many(items, out) is out
    np.testing.assert_array_equal(out, stack)


def test_one_bad_item_does_not_take_the_others_with_it() -> None:
    stack = photons((4, 20, 30))
    items = [encode(array) for array in stack]
    items[0] = Encoded(b"nonsense nonsense", (20, 30), items[0].dtype, "bslz4")
    items[2] = encode(photons((20, 31)))
    with pytest.raises(BadData):
        decompress_many(items)
    errors: dict[int, BadData] = {}
    got = decompress_many(items, errors=errors)
    assert {index: error.reason for index, error in errors.items()} == {0: "size", 2: "shape"}
    np.testing.assert_array_equal(got[[1, 3]], stack[[1, 3]])
    assert not got[[0, 2]].any()


def test_an_item_without_sense_does_not_name_the_stack() -> None:
    stack = photons((3, 20, 30))
    items = [encode(array) for array in stack]
    items[0] = Encoded(b"x", (1 << 40, 1 << 40), items[0].dtype, "bslz4")
    errors: dict[int, BadData] = {}
    got = decompress_many(items, errors=errors)
    assert list(errors) == [0]
    np.testing.assert_array_equal(got[1:], stack[1:])


def test_nothing_usable_is_bad_data() -> None:
    errors: dict[int, BadData] = {}
    with pytest.raises(BadData):
        decompress_many([Encoded(b"x", (1 << 40, 1 << 40), np.dtype("u2"))], errors=errors)
    assert list(errors) == [0]
    with pytest.raises(BadData, match="no image"):
        decompress_many([])


def test_other_threads_run_meanwhile() -> None:
    """Decoding frees the GIL: a thread that notes the time goes on doing so in the middle of a decoding."""
    encoded = encode(photons((3000, 3000)))
    decompress(encoded)
    times: deque[float] = deque(maxlen=1_000_000)
    spans = []
    stop, go = threading.Event(), threading.Event()

    def note() -> None:
        go.set()
        while not stop.is_set():
            times.append(time.perf_counter())

    thread = threading.Thread(target=note)
    thread.start()
    go.wait(10)
    for _ in range(20):
        begin = time.perf_counter()
        decompress(encoded)
        spans.append((begin, time.perf_counter()))
    stop.set()
    thread.join()
    noted = np.array(times)
    # Before the middle only: at its end a decoding that held the GIL would let the other thread run, too.
    middles = [(begin + 0.2 * (end - begin), begin + 0.5 * (end - begin)) for begin, end in spans]
    assert sum(bool(((noted > low) & (noted < high)).any()) for low, high in middles) >= 3
