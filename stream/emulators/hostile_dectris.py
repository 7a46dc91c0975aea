"""Malformed DECTRIS messages: JSON and CBOR that lie about lengths, shapes and types, or are cut."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import cbor2
import numpy as np

from .dectris_messages import Blob, SeriesInfo, WriterV1, WriterV2

Named: TypeAlias = tuple[str, tuple[bytes, ...]]

SHAPE = (8, 16)
_HUGE = [1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def good_series(version: int, compression: str = "none") -> list[tuple[bytes, ...]]:
    """A well-formed series of three images (8, 16) uint16, start and end included: what the others are made from."""
    info = SeriesInfo(7, SHAPE, np.dtype("u2"), 3, compression, unique="GOOD")
    writer = WriterV2(info) if version == 2 else WriterV1(info)
    blob = Blob.of(_payload())
    images = [writer.image(n, blob, {}) for n in range(3)]
    return [tuple(parts) for parts in [*writer.start(), *images, writer.end()]]


def version_1() -> list[Named]:
    """Stream 1."""
    start, image, *_, end = good_series(1)
    found: list[Named] = []
    for name, message in (("header", start), ("image", image), ("end", end)):
        for count in range(1, len(message)):
            found.append((f"{name}: only the first {count} parts", message[:count]))
            found.append((f"{name}: without the first {count} parts", message[count:]))
        for index, part in enumerate(message):
            for what, bad in _bad_parts(part):
                found.append((f"{name}: part {index} {what}", (*message[:index], bad, *message[index + 1 :])))
    found += [
        (f"image: part {index} with {name!r} = {str(value)[:24]}", _with(image, index, {name: value}))
        for index, name, values in _V1_LIES
        for value in values
    ]
    found += [("header: " + name, _with(start, 1, {name: value})) for name, value in _V1_CONFIGURATION.items()]
    return [*found, ("image twice in one message", (*image, *image)), ("a thousand parts", image[:1] * 1000)]


def version_2() -> list[Named]:
    """Stream 2."""
    start, image, *_, end = (parts[0] for parts in good_series(2))
    found: list[Named] = []
    for name, message in (("start", start), ("image", image), ("end", end)):
        found += [(f"{name}: cut after {n} bytes", (message[:n],)) for n in _places(len(message))]
        found += [(f"{name}: byte {n} is 0x{b:02x}", (_poke(message, n, b),)) for n, b in _pokes(len(message))]
        found.append((f"{name}: bytes after the end", (message + b"\x00" * 16,)))
        found.append((f"{name}: as two parts", (message[: len(message) // 2], message[len(message) // 2 :])))
    fields = _fields()
    found += [
        (f"image: without {name!r}", (cbor2.dumps({k: v for k, v in fields.items() if k != name}),)) for name in fields
    ]
    found += [
        (f"image: {name!r} = {str(value)[:32]}", (cbor2.dumps(fields | {name: value}),))
        for name, values in _V2_LIES.items()
        for value in values
    ]
    found += [
        (f"image: data is {name}", (cbor2.dumps(fields | {"data": {"threshold_1": v}}),)) for name, v in _arrays()
    ]
    found += [(name, (data,)) for name, data in _CBOR]
    found += [
        (f"start: {name!r} is a list", (cbor2.dumps({"type": "start", "series_id": 7, name: [1]}),)) for name in _START
    ]
    return found


def _payload() -> bytes:
    return np.arange(SHAPE[0] * SHAPE[1], dtype="<u2").tobytes()


def _places(size: int) -> list[int]:
    return sorted({*range(0, min(size, 40)), *range(40, size, max(size // 30, 1)), size - 1})


def _pokes(size: int) -> list[tuple[int, int]]:
    """Places, and what to put there: heads of items that announce more than there is."""
    return [(n, b) for n in _places(size) for b in (0x00, 0x1F, 0x5B, 0x5F, 0x7B, 0x9B, 0x9F, 0xBB, 0xDB, 0xFB, 0xFF)]


def _poke(message: bytes, place: int, byte: int) -> bytes:
    return message[:place] + bytes([byte]) + message[place + 1 :]


def _bad_parts(part: bytes) -> list[tuple[str, bytes]]:
    return [
        ("is empty", b""),
        ("is cut", part[: len(part) // 2]),
        ("is one byte short", part[:-1]),
        ("is a number", b"1"),
        ("is a list", b"[]"),
        ("is an empty object", b"{}"),
        ("is null", b"null"),
        ("is not UTF-8", b'{"htype":"\xff\xfe"}'),
        ("is nested without end", b'{"htype":' * 20000),
        ("is a list nested without end", b"[" * 100000),
        ("is large", b'{"htype":"dimage-1.0","x":[' + b"{}," * 200000 + b"{}]}"),
        ("holds a number of ten thousand digits", b'{"htype":"dimage-1.0","series":' + b"9" * 10000 + b"}"),
        ("has an unknown htype", b'{"htype":"dsecret-9.9","series":7}'),
        ("has a numeric htype", b'{"htype":7,"series":7}'),
    ]


def _with(message: tuple[bytes, ...], index: int, changes: Mapping[str, Any]) -> tuple[bytes, ...]:
    changed = json.loads(message[index]) | changes
    return (*message[:index], json.dumps(changed).encode(), *message[index + 1 :])


_ODD: list[Any] = [None, True, -1, 1.5, "7", [], {}, float("nan"), float("inf"), 10**400, *_HUGE]
_V1_LIES: list[tuple[int, str, list[Any]]] = [
    (0, "series", _ODD),
    (0, "frame", _ODD),
    (0, "htype", [*_ODD, "dimage", "dimage-", "-", "x" * 10000]),
    (1, "htype", [*_ODD, "dimage-1.0"]),
    (1, "shape", [*_ODD, [0, 0], [16], [16, -8], [16, 8, 1, 1], [1 << 20, 1 << 20], [1 << 31, 1 << 31], ["16", "8"]]),
    (1, "type", [*_ODD, "uint128", "O", "float16", "V8", "U100000"]),
    (1, "encoding", [*_ODD, "", "bs16<", "bs3-lz4<", "bs32-lz4<", "bs16-lz4<", "lz4<", "lz4", "gzip<", "<<"]),
    (1, "size", _ODD),
    (3, "start_time", _ODD),
    (3, "real_time", _ODD),
]
_V1_CONFIGURATION: dict[str, Any] = {
    "nimages": 10**400,
    "ntrigger": -1,
    "photon_energy": float("inf"),
    "wavelength": "long",
    "x_pixels_in_detector": 1 << 40,
    "y_pixels_in_detector": None,
    "bit_depth_image": [32],
    "description": {"a": 1},
    "threshold_energy": [1, 2],
}

_V2_ODD: list[Any] = [None, True, -1, 1.5, "7", b"7", [], {}, float("nan"), 1 << 64, -(1 << 70), 1 << 600, *_HUGE]
_V2_LIES: dict[str, list[Any]] = {
    "type": [*_V2_ODD, "Image", "images", "calibration", "metadata", "x" * 10000],
    "series_id": _V2_ODD,
    "series_unique_id": [*_V2_ODD, "x" * 100000],
    "image_id": _V2_ODD,
    "data": [*_V2_ODD, {"": 1}, {1: b"x"}, {"threshold_1": b"raw"}, {"threshold_1": [1, 2, 3]}],
    "start_time": [*_V2_ODD, [1, 0], [0, 0], [1], [1, 2, 3], ["1", "2"], [1 << 64, 1], [1, float("nan")]],
    "real_time": [[1, 0], [None, None], [1 << 600, 3]],
    "user_data": [b"x" * 1000, [[[[[[[[]]]]]]]], {"a": cbor2.CBORTag(40, [[1], 2])}],
}
_START = (
    "channels",
    "flatfield",
    "pixel_mask",
    "image_size_x",
    "threshold_energy",
    "detector_translation",
    "number_of_images",
    "incident_energy",
    "series_unique_id",
    "user_data",
)


def _fields() -> dict[str, Any]:
    return {
        "type": "image",
        "series_id": 7,
        "series_unique_id": "GOOD",
        "image_id": 1,
        "real_time": [1, 50],
        "series_date": "2024-01-01T00:00:00Z",
        "start_time": [1, 50],
        "stop_time": [2, 50],
        "data": {"threshold_1": _array(list(SHAPE), 69, _payload())},
    }


def _array(dims: object, tag: int, content: object) -> cbor2.CBORTag:
    return cbor2.CBORTag(40, [dims, cbor2.CBORTag(tag, content)])


def _arrays() -> list[tuple[str, Any]]:
    """Arrays that contradict themselves, and compressed bytes that lie about what they hold."""
    dims, plain = list(SHAPE), _payload()
    nbytes = len(plain)
    named: list[tuple[str, Any]] = [
        ("of unlike size", _array([8, 17], 69, plain)),
        ("huge", _array([1 << 30, 1 << 30], 69, plain)),
        ("empty", _array([0, 16], 69, b"")),
        ("of one dimension", _array([128], 69, plain)),
        ("of nine dimensions", _array([1] * 9, 69, plain)),
        ("of negative size", _array([-8, -16], 69, plain)),
        ("of text sizes", _array(["8", "16"], 69, plain)),
        ("of half a pixel", _array(dims, 69, plain[:-1])),
        ("of an unknown type", _array(dims, 83, plain)),
        ("without a type", cbor2.CBORTag(40, [dims, 5])),
        ("without a shape", cbor2.CBORTag(69, plain)),
        ("of a list", cbor2.CBORTag(69, [1, 2, 3])),
        ("a nested array", cbor2.CBORTag(40, [dims, _array(dims, 69, plain)])),
        ("column-major and cut", cbor2.CBORTag(1040, [dims, cbor2.CBORTag(69, plain[:-2])])),
    ]
    headers = {
        "says nothing": b"",
        "is cut": plain[:7],
        "has no data": struct.pack(">QI", nbytes, 8192),
        "has a block of no bytes": struct.pack(">QI", nbytes, 0) + plain,
        "has a block of all bytes": struct.pack(">QI", nbytes, 0xFFFFFFFF) + plain,
        "has an odd block": struct.pack(">QI", nbytes, 8191) + plain,
        "says 2^64-1 bytes": struct.pack(">QI", (1 << 64) - 1, 8192) + plain,
        "says 8 GB": struct.pack(">QI", 8 << 30, 8192) + plain,
        "says one byte more": struct.pack(">QI", nbytes + 1, 8192) + plain,
        "is noise": struct.pack(">QI", nbytes, 8192) + b"\xa5" * 64,
        "has a huge block length": struct.pack(">QII", nbytes, 8192, 0xFFFFFFFF) + plain,
    }
    named += [
        (f"{algorithm} that {name}", _array(dims, 69, cbor2.CBORTag(56500, [algorithm, 2, data])))
        for algorithm in ("bslz4", "lz4", "bszstd")
        for name, data in headers.items()
    ]
    lies: list[tuple[str, Any]] = [
        ("of an unknown compression", ["gzip", 2, plain]),
        ("compressed for another type", ["bslz4", 4, plain]),
        ("compressed for no type", ["bslz4", 0, plain]),
        ("compressed for text", ["bslz4", "2", plain]),
        ("compressed by a number", [1, 2, plain]),
        ("compressed in two fields", ["bslz4", plain]),
    ]
    return named + [(name, _array(dims, 69, cbor2.CBORTag(56500, value))) for name, value in lies]


_CBOR: list[tuple[str, bytes]] = [
    ("a map of 2^64-1 entries", b"\xbb" + b"\xff" * 8),
    ("a list of 2^64-1 entries", b"\xa1\x64type\x9b" + b"\xff" * 8),
    ("a string of 2^63 bytes", b"\xa1\x64type\x5b\x80" + bytes(7)),
    ("text of 4 GB", b"\xa1\x64type\x7a\xff\xff\xff\xff"),
    ("nested lists", b"\xa1\x64type" + b"\x81" * 100000),
    ("nested open lists", b"\xa1\x64type" + b"\x9f" * 100000),
    ("nested tags", b"\xa1\x64type" + b"\xc1" * 100000),
    ("self-described without end", b"\xd9\xd9\xf7" * 100000),
    ("a hundred thousand empty lists", b"\xa1\x64type\x9a\x00\x01\x86\xa0" + b"\x80" * 100000),
    ("a million empty texts", b"\xa1\x64type\x9f" + b"\x60" * 1000000),
    ("text in a million pieces", b"\xa1\x64type\x7f" + b"\x60" * 1000000 + b"\xff"),
    ("bytes in pieces of text", b"\xa1\x64type\x5f\x61a\xff"),
    ("a stray break", b"\xa1\x64type\xff"),
    ("a break as the message", b"\xff"),
    ("a break in a list of known length", b"\xa1\x64type\x82\x01\xff"),
    ("an open map with a key alone", b"\xbf\x64type\xff"),
    ("a map as a key", b"\xa1\xa0\x01"),
    ("bytes as a key", b"\xa1\x44type\x65image"),
    ("text that is not UTF-8", b"\xa1\x64type\x62\xff\xfe"),
    ("a reserved head", b"\xa1\x64type\x1c"),
    ("an unused simple value", b"\xa1\x64type\xf8\x30"),
    ("a number of a megabyte", b"\xa1\x64type\xc2\x5a\x00\x10\x00\x00" + b"\xff" * (1 << 20)),
    ("the type twice", b"\xa2\x64type\x65image\x64type\x63end"),
    ("an empty map", b"\xa0"),
    ("a list", b"\x83\x01\x02\x03"),
    ("tag 0 around a number", b"\xa1\x64type\xc0\x01"),
    ("tag 1 around text", b"\xa1\x64type\xc1\x61a"),
]
