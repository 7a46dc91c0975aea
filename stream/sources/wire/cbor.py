"""A bounded CBOR reader (RFC 8949) that never copies an image and never trusts a length.

General readers copy byte strings and hold the GIL while they do, and some allocate what a length field says. This one
hands out byte strings as slices of the message, checks every length against what is left of the message, and limits
depth and number of items, so that the cost of any message is bounded by its size.

What comes out: int, float, str, bool, None (also for undefined), list, dict with text or number keys, ``memoryview``
for a byte string; ``Encoded`` for typed and multi-dimensional arrays (RFC 8746, tags 40, 64-87, 1040) with DECTRIS's
compression (tag 56500) left as it is; text for a date (tag 0), a number for an epoch time (tag 1); ``Tagged`` for a tag
not known here. The self-describe tag 55799 is dropped.
"""

from __future__ import annotations

import struct
from typing import Any

from ...flow.frame import BadData
from .cbor_tags import under_tag

MAX_DEPTH = 24
MAX_ITEMS = 1 << 16
MAX_CHUNKS = 1 << 10

_U16 = struct.Struct(">H").unpack_from
_U32 = struct.Struct(">I").unpack_from
_U64 = struct.Struct(">Q").unpack_from
_FLOATS = {info: struct.Struct(kind).unpack_from for info, kind in ((25, ">e"), (26, ">f"), (27, ">d"))}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}
_BREAK = object()
_INDEFINITE = -1


class Reader:
    """Reads one message. ``blobs`` collects (start, end, slice) of every byte string met, for those who learn layouts.

    Every method that reads raises ``BadData("cbor", …)`` for bytes that are not CBOR, are cut, or ask for too much.
    """

    __slots__ = ("blobs", "buffer", "left", "pos", "size")

    def __init__(self, buffer: memoryview | bytes, *, max_items: int = MAX_ITEMS) -> None:
        self.buffer = memoryview(buffer)
        self.size = len(self.buffer)
        self.pos = 0
        self.left = max_items
        self.blobs: list[tuple[int, int, memoryview]] = []

    def read(self) -> Any:
        """The one item of the message. Bytes after it are an error."""
        value = self.item()
        self.finish()
        return value

    def item(self) -> Any:
        """The next item."""
        try:
            value = self._item(0)
        except (IndexError, struct.error):
            raise self._cut() from None
        if value is _BREAK:
            raise BadData("cbor", f"CBOR: break outside an indefinite item at byte {self.pos - 1}")
        return value

    def entries(self) -> tuple[dict[Any, Any], dict[Any, tuple[int, int]]]:
        """The message, which must be a map: its entries, and where in the message each value lies (start, end)."""
        try:
            self._skip_self_describe()
            major, count = self._head()
            if major != 5:
                raise BadData("cbor", "CBOR: the message is not a map")
            values: dict[Any, Any] = {}
            spans: dict[Any, tuple[int, int]] = {}
            self._check_count(2 * count)
            while count != 0:
                key = self._item(1)
                if key is _BREAK and count < 0:
                    break
                self._check_key(key)
                start = self.pos
                value = self._item(1)
                if value is _BREAK:
                    raise BadData("cbor", f"CBOR: key {key!r} without a value")
                values[key] = value
                spans[key] = (start, self.pos)
                count -= 1
        except (IndexError, struct.error):
            raise self._cut() from None
        self.finish()
        return values, spans

    def finish(self) -> None:
        """Check that the message ends here."""
        if self.pos != self.size:
            raise BadData("cbor", f"CBOR: {self.size - self.pos} bytes after the end of the message")

    def _cut(self) -> BadData:
        return BadData("cbor", f"CBOR: the message is cut: {self.size} bytes end inside an item")

    def _skip_self_describe(self) -> None:
        if bytes(self.buffer[:3]) == b"\xd9\xd9\xf7":
            self.pos = 3

    def _head(self) -> tuple[int, int]:
        """Major type and argument of the item at ``pos``; the argument of an indefinite item is -1."""
        buffer, pos = self.buffer, self.pos
        initial = buffer[pos]
        info = initial & 31
        if info < 24:
            self.pos = pos + 1
            return initial >> 5, info
        if info == 24:
            self.pos = pos + 2
            return initial >> 5, buffer[pos + 1]
        if info == 25:
            self.pos = pos + 3
            return initial >> 5, _U16(buffer, pos + 1)[0]
        if info == 26:
            self.pos = pos + 5
            return initial >> 5, _U32(buffer, pos + 1)[0]
        if info == 27:
            self.pos = pos + 9
            return initial >> 5, _U64(buffer, pos + 1)[0]
        if info == 31 and initial >> 5 in (2, 3, 4, 5):
            self.pos = pos + 1
            return initial >> 5, _INDEFINITE
        raise BadData("cbor", f"CBOR: byte {initial:#04x} at {pos} starts no item")

    def _item(self, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise BadData("cbor", "CBOR: too many items or too deeply nested for a detector's message")
        initial = self.buffer[self.pos]
        if initial >= 0xE0:
            return self._simple(initial)
        major, argument = self._head()
        if major == 0:
            return argument
        if major == 3:
            return self._text(argument)
        if major == 1:
            return -1 - argument
        if major == 2:
            return self._bytes(argument)
        return (self._array, self._map, self._tag)[major - 4](argument, depth)

    def _simple(self, initial: int) -> Any:
        info = initial & 31
        if info in _FLOATS:
            value = _FLOATS[info](self.buffer, self.pos + 1)[0]
            self.pos += 1 + (1 << (info - 24))
            return value
        self.pos += 1
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info == 31:
            return _BREAK
        raise BadData("cbor", f"CBOR: simple value {initial:#04x} at byte {self.pos - 1} is not used by detectors")

    def _slice(self, length: int) -> memoryview:
        start = self.pos
        end = start + length
        if end > self.size:
            raise BadData("cbor", f"CBOR: a string of {length} bytes at {start} where {self.size - start} are left")
        self.pos = end
        return self.buffer[start:end]

    def _text(self, length: int) -> str:
        try:
            if length >= 0:
                return str(self._slice(length), "utf-8")
            return b"".join(self._chunks(3)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadData("cbor", f"CBOR: text before byte {self.pos} is not UTF-8: {error.reason}") from error

    def _bytes(self, length: int) -> memoryview:
        if length < 0:
            return memoryview(b"".join(self._chunks(2)))
        start = self.pos
        blob = self._slice(length)
        self.blobs.append((start, self.pos, blob))
        return blob

    def _chunks(self, major: int) -> list[memoryview]:
        """Pieces of an indefinite-length string."""
        chunks: list[memoryview] = []
        while self.buffer[self.pos] != 0xFF:
            kind, length = self._head()
            if kind != major or length < 0 or len(chunks) >= MAX_CHUNKS:
                raise BadData("cbor", f"CBOR: string at byte {self.pos} has pieces of another kind, or too many")
            chunks.append(self._slice(length))
        self.pos += 1
        return chunks

    def _check_count(self, count: int) -> None:
        # Every item takes at least one byte, so a count beyond what is left of the message is a lie.
        if count > self.size - self.pos:
            raise BadData("cbor", f"CBOR: {count} items at byte {self.pos} with {self.size - self.pos} bytes left")

    def _array(self, count: int, depth: int) -> list[Any]:
        self._check_count(count)
        items: list[Any] = []
        depth += 1
        while count != 0:
            value = self._item(depth)
            if value is _BREAK:
                if count < 0:
                    return items
                raise BadData("cbor", f"CBOR: break inside an array of known length at byte {self.pos - 1}")
            items.append(value)
            count -= 1
        return items

    def _map(self, count: int, depth: int) -> dict[Any, Any]:
        self._check_count(2 * count)
        items: dict[Any, Any] = {}
        depth += 1
        while count != 0:
            key = self._item(depth)
            if key is _BREAK and count < 0:
                return items
            self._check_key(key)
            value = self._item(depth)
            if value is _BREAK:
                raise BadData("cbor", f"CBOR: key {key!r} without a value")
            items[key] = value
            count -= 1
        return items

    def _check_key(self, key: object) -> None:
        if not isinstance(key, str | int | float):
            raise BadData("cbor", f"CBOR: a map's key before byte {self.pos} is neither text nor number")

    def _tag(self, tag: int, depth: int) -> Any:
        value = self._item(depth + 1)
        if value is _BREAK:
            raise BadData("cbor", f"CBOR: tag {tag} without a value")
        return under_tag(tag, value)


def loads(buffer: memoryview | bytes, *, max_items: int = MAX_ITEMS) -> Any:
    """Read one message; see the module for what comes out. Raises ``BadData("cbor" | "dtype" | "shape", …)``."""
    return Reader(buffer, max_items=max_items).read()
