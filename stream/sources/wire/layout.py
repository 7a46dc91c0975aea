"""Learned layouts: the images of a series differ only in a few numbers and their pixels, so the rest is compared.

From one message read in full, a layout keeps the constant bytes and where numbers and pixels stand between them, as
regular expressions. A later message that matches it to the last byte is one the full reader would have read to the
same values; any difference is answered with None, and the full reader takes over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

Span: TypeAlias = tuple[int, int]

_NUMBER = rb"([\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})"
_BYTES = rb"([\x40-\x57]|\x58.|\x59..|\x5a.{4}|\x5b.{8})"


class Layout(NamedTuple):
    """``pieces``: one expression per stretch between byte strings, and the count of numbers in each."""

    pieces: tuple[tuple[re.Pattern[bytes], int], ...]

    @classmethod
    def learn(cls, buffer: memoryview, numbers: Sequence[Span], blobs: Sequence[Span]) -> Layout:
        """Learn from a message: where unsigned numbers stand (whole items) and byte strings (their contents)."""
        pieces = []
        start = 0
        for begin, end in sorted(blobs):
            inside = [span for span in sorted(numbers) if start <= span[0] < begin]
            head = begin - _head_size(end - begin)
            pieces.append((_expression(buffer, start, head, inside, _BYTES), len(inside)))
            start = end
        inside = [span for span in sorted(numbers) if start <= span[0]]
        pieces.append((_expression(buffer, start, len(buffer), inside, rb"\Z"), len(inside)))
        return cls(tuple(pieces))

    def match(self, buffer: memoryview) -> tuple[list[int], list[memoryview]] | None:
        """The numbers and byte strings of a message, each in order; None when it has another layout."""
        numbers: list[int] = []
        blobs: list[memoryview] = []
        pos, size, last = 0, len(buffer), len(self.pieces) - 1
        for index, (expression, count) in enumerate(self.pieces):
            found = expression.match(buffer, pos)
            if found is None:
                return None
            items = found.groups()
            numbers += [int.from_bytes(item[1:]) if len(item) > 1 else item[0] for item in items[:count]]
            if index < last:
                head, start = items[count], found.end()
                pos = start + (int.from_bytes(head[1:]) if len(head) > 1 else head[0] & 31)
                if pos > size:
                    return None
                blobs.append(buffer[start:pos])
        return numbers, blobs


def _head_size(length: int) -> int:
    """Bytes of the shortest head of a byte string; a sender that uses a longer one is not learned from."""
    return 1 if length < 24 else 2 if length < 1 << 8 else 3 if length < 1 << 16 else 5 if length < 1 << 32 else 9


def _expression(buffer: memoryview, start: int, end: int, numbers: Sequence[Span], closing: bytes) -> re.Pattern[bytes]:
    parts = []
    for begin, stop in numbers:
        parts += [re.escape(bytes(buffer[start:begin])), _NUMBER]
        start = stop
    return re.compile(b"".join([*parts, re.escape(bytes(buffer[start:end])), closing]), re.DOTALL)
