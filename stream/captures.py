"""Captures of other programs: dranspose's ``.cbors``, a CBOR sequence (RFC 8742) of lists of byte strings, no times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from .flow.frame import BadData

_LISTS, _BYTES, _TAGS = 4, 2, 6
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}


def read_capture(file: BinaryIO, end: int) -> Iterator[tuple[bytes, ...]]:
    """The messages of a capture, one at a time; ``end`` is the file's size in bytes.

    Raises ``BadData``: ``truncated`` when the file ends inside a message, ``recording`` for anything that is not a list
    of byte strings. Lengths are compared with the bytes left in the file before anything is allocated.
    """
    while file.tell() < end:
        n = _length(file, _LISTS, end)
        if n > end - file.tell():
            raise BadData("truncated", f"a list of {n} parts begins, but the file ends at byte {end}")
        yield tuple(_take(file, _length(file, _BYTES, end), end) for _ in range(n))


def _length(file: BinaryIO, expected: int, end: int) -> int:
    """Read the head of an item of major type ``expected`` (RFC 8949, section 3), skipping tags."""
    while True:
        at = file.tell()
        initial = _take(file, 1, end)[0]
        major, info = initial >> 5, initial & 31
        if (info >= 24 and info not in _WIDTHS) or major not in (expected, _TAGS):
            raise BadData("recording", f"byte {at} begins no {'list' if expected == _LISTS else 'byte string'}")
        value = info if info < 24 else int.from_bytes(_take(file, _WIDTHS[info], end), "big")
        if major == expected:
            return value


def _take(file: BinaryIO, n: int, end: int) -> bytes:
    left = end - file.tell()
    data = file.read(n) if n <= left else b""
    if len(data) < n:
        raise BadData("truncated", f"{n} bytes needed, {left} left before the end of the file at byte {end}")
    return data
