"""What CBOR tags mean to a detector: arrays (RFC 8746), DECTRIS's compressed bytes, dates and large numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...flow.frame import BadData, Encoded

COLUMN_MAJOR = "/F"
"""Added to the name of the compression of an array stored column-major, so that nothing takes it for a plain one."""

# RFC 8746, table 1: unsigned, signed and floating point, big- and little-endian. 128-bit floats have no portable dtype.
TYPED = {
    tag: np.dtype(name)
    for tag, name in {
        64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: "u1", 69: "<u2", 70: "<u4", 71: "<u8",
        72: "i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
        80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8",
    }.items()
}  # fmt: skip


class Tagged(NamedTuple):
    """A value under a tag this reader does not know."""

    tag: int
    value: Any


class Compressed(NamedTuple):
    """Tag 56500 in place of a byte string: name of the algorithm, bytes per element, compressed bytes."""

    algorithm: str
    itemsize: int
    buffer: memoryview


def under_tag(tag: int, value: Any) -> Any:
    """The value a tag makes of what stands under it; ``Tagged`` for an unknown one.

    Raises ``BadData``: ``cbor`` (the value is not what the tag says), ``dtype``, ``shape``, ``size``.
    """
    if tag in TYPED:
        return _typed(TYPED[tag], value)
    handler = _TAGS.get(tag)
    return handler(value) if handler else Tagged(tag, value)


def _typed(dtype: np.dtype[Any], value: object) -> Encoded:
    """A one-dimensional typed array (tags 64-87)."""
    if isinstance(value, memoryview):
        if len(value) % dtype.itemsize:
            raise BadData("size", f"CBOR: {len(value)} bytes hold no whole number of {dtype}")
        return Encoded(value, (len(value) // dtype.itemsize,), dtype)
    if isinstance(value, Compressed):
        if value.itemsize != dtype.itemsize:
            raise BadData("dtype", f"CBOR: compressed elements of {value.itemsize} bytes where the type is {dtype}")
        nbytes = int.from_bytes(value.buffer[:8], "big")
        return Encoded(value.buffer, (nbytes // dtype.itemsize,), dtype, value.algorithm)
    raise BadData("cbor", "CBOR: a typed array holds neither a byte string nor compressed bytes")


def _shaped(value: object) -> Encoded:
    """A multi-dimensional array, row-major (tag 40)."""
    if not (isinstance(value, list) and len(value) == 2):
        raise BadData("cbor", "CBOR: a multi-dimensional array is not [dimensions, array]")
    dims, array = value
    if not (isinstance(dims, list) and 0 < len(dims) <= 8 and all(type(n) is int and 0 <= n < 1 << 40 for n in dims)):
        raise BadData("shape", "CBOR: the dimensions of an array are not a short list of sizes")
    if isinstance(array, Encoded):
        return Encoded(array.buffer, tuple(dims), array.dtype, array.compression)
    if isinstance(array, memoryview):
        return Encoded(array, tuple(dims), TYPED[64])
    raise BadData("cbor", "CBOR: a multi-dimensional array holds no typed array")


def _column_major(value: object) -> Encoded:
    """A multi-dimensional array, column-major (tag 1040)."""
    array = _shaped(value)
    return Encoded(array.buffer, array.shape, array.dtype, array.compression + COLUMN_MAJOR)


def _compressed(value: object) -> Compressed:
    """DECTRIS's compressed byte string (tag 56500): [algorithm, bytes per element, bytes]."""
    if isinstance(value, list) and len(value) == 3:
        algorithm, itemsize, buffer = value
        if isinstance(algorithm, str) and type(itemsize) is int and isinstance(buffer, memoryview):
            return Compressed(algorithm, itemsize, buffer)
    raise BadData("cbor", "CBOR: compressed data is not [algorithm, bytes per element, bytes]")


def _number(value: object) -> int | float:
    if isinstance(value, int | float):
        return value
    raise BadData("cbor", "CBOR: a time is not a number")


def _date(value: object) -> str:
    if isinstance(value, str):
        return value
    raise BadData("cbor", "CBOR: a date is not text")


def _big(value: object) -> int:
    if isinstance(value, memoryview) and len(value) <= 64:
        return int.from_bytes(value, "big")
    raise BadData("cbor", "CBOR: a large number is not a short byte string")


def _big_negative(value: object) -> int:
    return -1 - _big(value)


def _as_it_is(value: object) -> object:
    return value


_TAGS: dict[int, Callable[[Any], Any]] = {
    0: _date,
    1: _number,
    2: _big,
    3: _big_negative,
    40: _shaped,
    1040: _column_major,
    56500: _compressed,
    55799: _as_it_is,
}
