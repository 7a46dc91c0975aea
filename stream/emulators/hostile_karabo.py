"""karabo-bridge messages that a receiver must survive: broken, lying and malicious ones."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

from .hostile import HostileMessage, register
from .karabo import FIRST_TRAIN, Layout, encode, metadata_of, train_data

SOURCE = "SPB_DET_AGIPD1M-1/DET/0CH0:xtdf"
"""The detector in these messages: 4 pulses of 16 × 8 uint16 pixels, in file order (pulse, ss, fs)."""


def good_message(protocol: Any = "2.2", train_id: int = FIRST_TRAIN) -> list[bytes]:
    """The train that the corpus damages, undamaged."""
    images = [np.full((16, 8), n, np.uint16) for n in range(4)]
    data = train_data(Layout(source=SOURCE, pulses=4, order="file"), images, train_id)
    return [bytes(part) for part in encode(data, metadata_of(data, train_id, 1.7e9), protocol)]


def karabo_corpus() -> list[HostileMessage]:
    """Every message here must come out of the source as a failure, a foreign message, or not at all."""
    good, single = good_message(), good_message("1.0")
    messages = {
        "no parts that mean anything": [b""],
        "two empty parts": [b"", b""],
        "an odd number of parts": good[:-1],
        "headers and payloads swapped": [p for i in range(0, len(good), 2) for p in (good[i + 1], good[i])],
        "an error text of the bridge": [b"Error: bad request hello"],
        "a DECTRIS message": [b'{"htype":"dimage-1.0","series":1,"frame":0}', b"{}", b"\0" * 16, b"{}"],
        "a CBOR message": [bytes.fromhex("d9d9f7a1647479706565696d616765")],
        "1.0 cut in half": [single[0][: len(single[0]) // 2]],
        "1.0 with a tail": [single[0] + b"\0"],
        "1.0 is a number": [msgpack.packb(7)],
        "1.0 is a list": [msgpack.packb([SOURCE])],
        "1.0 source is no map": [msgpack.packb({SOURCE: 3})],
        "1.0 keys are lists": [b"\x81\x91\x01\x02"],
        "1.0 nested a thousand deep": [b"\x91" * 2000 + b"\x01"],
        "1.0 claims 4 billion entries": [b"\xdf\xff\xff\xff\xff" + b"\0" * 64],
        "1.0 claims 4 GB of bytes": [b"\x81\xa1a\xc6\xff\xff\xff\xff" + b"\0" * 64],
        "1.0 lists of lists, all long": [b"\xdd\x00\x0f\xff\xff" * 2000],
        "1.0 without a train id": [msgpack.packb({SOURCE: {"image.data": _map("<u2", [2], b"\0" * 4)}})],
    }
    messages |= {f"1.0 array {name}": [_single(change)] for name, change in _ARRAYS.items()}
    messages |= {f"2.2 array {name}": _pairs(change) for name, change in _HEADERS.items()}
    messages |= {f"2.2 metadata {name}": _metadata(value) for name, value in _METADATA.items()}
    return [HostileMessage(name, tuple(parts)) for name, parts in messages.items()]


def _map(dtype: Any, shape: Any, data: Any, kind: Any = b"") -> dict[bytes, Any]:
    return {b"nd": True, b"type": dtype, b"kind": kind, b"shape": shape, b"data": data}


_PICKLE = b"cos\nsystem\n(S'false'\ntR."
_ARRAYS: dict[str, dict[bytes, Any]] = {
    "is a pickle": _map("|O", [1], _PICKLE, kind=b"O"),
    "is structured": _map([["a", "<u2"], ["b", "<u2"]], [1], b"\0" * 4, kind=b"V"),
    "of text": _map("<U4", [1], b"\0" * 16),
    "of no known type": _map("<u3", [4, 16, 8], b"\0" * 1024),
    "too short": _map("<u2", [4, 16, 8], b"\0" * 1000),
    "of negative shape": _map("<u2", [-4, 16, -8], b"\0" * 1024),
    "whose size overflows 64 bits": _map("<u2", [1 << 32, 1 << 32, 512], b"\0" * 1024),
    "without a shape": {b"nd": True, b"type": "<u2", b"kind": b"", b"data": b"\0" * 1024},
    "whose bytes are text": _map("<u2", [2], "\0\0\0\0"),
}


def _single(array: dict[bytes, Any]) -> bytes:
    meta = {"source": SOURCE, "timestamp.tid": FIRST_TRAIN}
    packed: bytes = msgpack.packb({SOURCE: {"image.data": array, "metadata": meta}})
    return packed


_HEADERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "with a lying shape": lambda h: {**h, "shape": [4, 16, 9]},
    "of 10^30 pixels": lambda h: {**h, "shape": [10**10, 10**10, 10**10]},
    "whose size overflows 64 bits": lambda h: {**h, "shape": [1 << 32, 1 << 32, 1 << 3]},
    "of negative shape": lambda h: {**h, "shape": [-4, -16, 8]},
    "of fractional shape": lambda h: {**h, "shape": [4.0, 16.0, 8.0]},
    "of 33 axes": lambda h: {**h, "shape": [1] * 30 + [4, 16, 8]},
    "of true shape": lambda h: {**h, "shape": [True, 64, 8]},
    "of objects": lambda h: {**h, "dtype": "object"},
    "of structures": lambda h: {**h, "dtype": "u1,u1"},
    "of text": lambda h: {**h, "dtype": "<U1"},
    "of times": lambda h: {**h, "dtype": "datetime64[s]"},
    "of numeric dtype 7": lambda h: {**h, "dtype": 7},
    "without a dtype": lambda h: {k: v for k, v in h.items() if k != "dtype"},
    "without a path": lambda h: {k: v for k, v in h.items() if k != "path"},
    "without a source": lambda h: {k: v for k, v in h.items() if k != "source"},
    "of unknown content": lambda h: {**h, "content": "pickle"},
    "with other axes": lambda h: {**h, "shape": [16, 8, 4]},
    "with one axis": lambda h: {**h, "shape": [512]},
}


def _pairs(change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[bytes]:
    parts = good_message()
    for i in range(0, len(parts), 2):
        header = msgpack.unpackb(parts[i])
        if header.get("path") == "image.data":
            parts[i] = msgpack.packb(change(header)) if header["shape"] else parts[i]
    return parts


_METADATA: dict[str, Any] = {
    "train id is text": {"timestamp.tid": "10000000000"},
    "train id is negative": {"timestamp.tid": -1},
    "train id is a float": {"timestamp.tid": 1e10},
    "train id is a list": {"timestamp.tid": [1]},
    "is a list": [1, 2],
    "timestamp is a map of nothing": {"timestamp": {}},
}


def _metadata(value: Any) -> list[bytes]:
    parts = good_message()[:2]
    parts[0] = msgpack.packb({"source": SOURCE, "content": "msgpack", "metadata": value})
    header = {"source": SOURCE, "content": "array", "path": "image.data", "dtype": "uint16", "shape": [4, 16, 8]}
    return [*parts, msgpack.packb(header), struct.pack("<512H", *range(512))]


register("karabo", karabo_corpus)
