"""TIFF movies and images: the chain of directories is walked and checked here, pixels are decoded by tifffile.

A truncated multi-page TIFF opens without a word in most readers, which then answer with the pages they found. So the
chain of image file directories (IFDs) is followed to its end, each strip or tile is compared with the file's size, and
the pages that were decoded are counted. Source: TIFF 6.0 (1992), section 2; BigTIFF as of libtiff's description.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..flow.frame import BadData

MOST_PAGES = 100_000
LARGEST_SIDE = 1 << 17
LARGEST_PAGE = 1 << 29
EER_CODES = (65000, 65001, 65002)
# No compression of the kinds that occur gains more than LZW's 4096 strings of up to 4096 bytes, 12 bits each.
_MOST_GAIN = 4096
_MOST_ENTRIES = 4096
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION = 254, 256, 257, 258, 259
_STRIPS, _SAMPLES, _STRIP_COUNTS = 273, 277, 279
_TILES, _TILE_COUNTS, _FORMAT = 324, 325, 339
_TILE_WIDTH, _TILE_LENGTH, _EER_SKIP, _EER_X, _EER_Y = 322, 323, 65007, 65008, 65009
_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True, slots=True)
class Page:
    """One directory of the chain: its image's size, type and place. ``end``: the byte after the last of its pixels."""

    width: int
    length: int
    bits: int
    samples: int
    sample_format: int
    compression: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    end: int
    reduced: bool = False
    eer_bits: tuple[int, int, int] = (7, 2, 2)

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """The numpy type of a pixel as tifffile decodes it, or None for what is no plain number."""
        kind = _KINDS.get(self.sample_format)
        if kind == "u" and self.bits < 8:
            return np.dtype(np.uint8)
        if kind is None or self.bits not in ((16, 32, 64) if kind == "f" else (8, 16, 32)):
            return None
        return np.dtype(f"{kind}{self.bits // 8}")


@dataclass(frozen=True, slots=True)
class Chain:
    """All pages of a TIFF, in order, and how the file is written. ``end``: the byte after the last directory or tag."""

    pages: tuple[Page, ...]
    big: bool
    order: str
    first_tags: Mapping[int, bytes]
    end: int

    @property
    def expected_bytes(self) -> int:
        """The least size of a file that has all that its directories speak of."""
        return max(self.end, *(page.end for page in self.pages))


class _Reader:
    """Reads numbers at places in the file, and raises ``BadData`` for places outside it."""

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self.stream, self.size, self.name = stream, size, name
        self.end = 0
        self.order = ">" if self.bytes(0, 4, "header")[:2] == b"MM" else "<"
        self.big = struct.unpack(f"{self.order}H", self.bytes(2, 2, "header"))[0] == 43
        place = self.bytes(8, 8, "header") if self.big else self.bytes(4, 4, "header")
        self.first = int(struct.unpack(self.order + ("Q" if self.big else "I"), place)[0])

    def bytes(self, at: int, n: int, what: str) -> bytes:
        """``n`` bytes at ``at``."""
        self.end = max(self.end, at + n)
        if at + n > self.size:
            raise BadData(
                "truncated",
                f"{self.name}: {what} at byte {at} is behind the end ({self.size}); wait, or copy it again",
            )
        self.stream.seek(at)
        data = self.stream.read(n)
        if len(data) < n:
            raise BadData("truncated", f"{self.name}: {what} at byte {at} cannot be read whole; copy it again")
        return data


def read_chain(stream: BinaryIO, size: int, name: str) -> Chain:
    """Follow the chain of directories of a TIFF of ``size`` bytes.

    Raises ``BadData``: ``truncated`` (a directory lies behind the end of the file), ``empty`` (no directory),
    ``header`` (a chain that bites its tail, impossible sizes). Strips behind the end are no error here: compare
    ``expected_bytes`` with ``size``.
    """
    reader = _Reader(stream, size, name)
    pages: list[Page] = []
    seen: set[int] = set()
    first_tags: dict[int, bytes] = {}
    at = reader.first
    while at:
        if at in seen:
            raise BadData("header", f"{name}: page {len(pages)} leads back to byte {at}; the file is damaged")
        if len(pages) == MOST_PAGES:
            raise BadData("header", f"{name}: more than {MOST_PAGES} pages; this is no movie")
        seen.add(at)
        tags, following = _directory(reader, at, len(pages))
        if not pages:
            first_tags = {code: data for code, (_, _, data) in tags.items() if len(data) <= 1 << 20}
        pages.append(_page(reader, tags, len(pages)))
        at = following
    if not pages:
        raise BadData("empty", f"{name}: a TIFF without a page; it is being written, or was never finished")
    return Chain(tuple(pages), reader.big, reader.order, first_tags, reader.end)


_Tags = dict[int, tuple[int, int, bytes]]


def _directory(reader: _Reader, at: int, number: int) -> tuple[_Tags, int]:
    """The tags of a directory as (type, count, bytes), and where the next one is (0: nowhere)."""
    what = f"directory of page {number + 1}"
    count_bytes, entry, inline = (8, 20, 8) if reader.big else (2, 12, 4)
    offset_code = "Q" if reader.big else "I"
    n = struct.unpack(reader.order + ("Q" if reader.big else "H"), reader.bytes(at, count_bytes, what))[0]
    if not 0 < n <= _MOST_ENTRIES:
        raise BadData("header", f"{reader.name}: {what} has {n} entries; the file is damaged")
    table = reader.bytes(at + count_bytes, n * entry + inline, what)
    tags: _Tags = {}
    for i in range(n):
        raw = table[i * entry : (i + 1) * entry]
        code, kind, count = struct.unpack(reader.order + "HH" + offset_code, raw[: 4 + inline])
        size = _SIZES.get(kind, 0) * count
        if size <= inline:
            tags[code] = (kind, count, raw[4 + inline : 4 + inline + size])
            continue
        place = struct.unpack(reader.order + offset_code, raw[4 + inline :])[0]
        if code in _WANTED or (number == 0 and size <= 1 << 20):
            tags[code] = (kind, count, reader.bytes(place, size, f"tag {code} of page {number + 1}"))
        else:
            reader.end = max(reader.end, place + size)
    return tags, int(struct.unpack(reader.order + offset_code, table[n * entry :])[0])


_WANTED = {_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _STRIP_COUNTS, _FORMAT}
_WANTED |= {_TILES, _TILE_COUNTS, _TILE_WIDTH, _TILE_LENGTH, _EER_SKIP, _EER_X, _EER_Y}


def _page(reader: _Reader, tags: _Tags, number: int) -> Page:
    def values(code: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        if code not in tags:
            return default
        kind, count, data = tags[code]
        if kind not in _CODES:
            raise BadData("header", f"{reader.name}: tag {code} of page {number + 1} has type {kind}; it is damaged")
        return tuple(int(value) for value in struct.unpack(f"{reader.order}{count}{_CODES[kind]}", data))

    def one(code: int, default: int) -> int:
        return (values(code) or (default,))[0]

    width, length, samples = one(_WIDTH, 0), one(_LENGTH, 0), one(_SAMPLES, 1)
    fits = 0 < width <= LARGEST_SIDE and 0 < length <= LARGEST_SIDE and width * length <= LARGEST_PAGE
    # A tile may stick out of its image, but one that is much larger only makes a reader allocate.
    tile_fits = one(_TILE_WIDTH, 0) <= 2 * width + 1024 and one(_TILE_LENGTH, 0) <= 2 * length + 1024
    if not (fits and tile_fits and 0 < samples < 256):
        raise BadData("header", f"{reader.name}: page {number + 1} is {width} × {length} × {samples}; it is damaged")
    offsets = values(_STRIPS) or values(_TILES)
    counts = values(_STRIP_COUNTS) or values(_TILE_COUNTS)
    if not offsets or len(offsets) != len(counts):
        raise BadData("header", f"{reader.name}: page {number + 1} has {len(offsets)} strips, {len(counts)} sizes")
    compression = one(_COMPRESSION, 1)
    page = Page(
        width=width,
        length=length,
        bits=one(_BITS, 1),
        samples=samples,
        sample_format=one(_FORMAT, 1),
        compression=compression,
        offsets=offsets,
        counts=counts,
        end=max(map(sum, zip(offsets, counts, strict=True))),
        reduced=bool(one(_SUBFILE, 0) & 1),
        eer_bits=_eer_bits(compression, one),
    )
    _believe(page, sum(counts), f"{reader.name}: page {number + 1}")
    return page


def _eer_bits(compression: int, one: Callable[[int, int], int]) -> tuple[int, int, int]:
    """Bits of the gap, of the sub-pixel along x, and of that along y, in an event of an EER frame."""
    if compression == 65002:
        return one(_EER_SKIP, 7), one(_EER_X, 2), one(_EER_Y, 2)
    return (8, 2, 2) if compression == 65000 else (7, 2, 2)


def _believe(page: Page, stored: int, where: str) -> None:
    """Refuse pages whose pixels cannot be in the bytes they name, before anybody allocates them."""
    nbytes = page.width * page.length * page.samples * max(page.bits, 1) // 8
    if page.compression in EER_CODES:
        return
    if nbytes > stored * (1 if page.compression == 1 else _MOST_GAIN) + 8:
        raise BadData(
            "header",
            f"{where}: {page.width} × {page.length} pixels cannot come out of {stored} bytes; the file is damaged",
        )
