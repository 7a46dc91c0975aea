"""Recordings: raw multipart messages with their arrival times, in a file that survives whatever happens to its writer.

A recording begins with the 8 bytes 89 42 53 52 45 43 0D 0A (``BSREC`` between guards), a u32 length and that many bytes
of JSON (what was recorded, from where, and when). Then come records, all integers little-endian::

    4 bytes  "MSG1"
    u32      number of parts n
    u64      time.monotonic_ns() at arrival
    u64      time.time_ns() at arrival
    u32      CRC-32 of the n lengths and of everything before them but this field
    u32      CRC-32 of the parts, one after the other
    n · u64  lengths of the parts in bytes
    the parts

Records are only ever appended, each is handed to the operating system whole, and its lengths have a checksum of their
own: after a SIGKILL, or a full disk, everything up to the last complete record can be read, and a record whose pixels
were damaged costs that record only. Captures of dranspose (see ``captures.py``) are read too.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from .captures import read_capture
from .flow.frame import BadData

Part: TypeAlias = bytes | memoryview

MAGIC = b"\x89BSREC\r\n"
_TAG = b"MSG1"
_HEAD = struct.Struct("<4sIQQ")
_CHECKS = struct.Struct("<II")
_MOST_PARTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One message: its parts, and when it arrived (monotonic and wall clock, ns; both None where nobody noted it)."""

    parts: tuple[bytes, ...]
    monotonic_ns: int | None
    wall_ns: int | None


class Writer:
    """Appends messages to a recording; begins a new file beside the first when one is ``roll_bytes`` long.

    The files are ``path``, then ``stem-001.suffix`` and so on; ``paths`` lists them. An existing file is never
    overwritten: raises ``FileExistsError``. Raises ``OSError`` when the disk is full; what was written before stays
    readable. One record is held in memory at a time, and nothing is copied.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], roll_bytes: int = 0) -> None:
        self._path, self._about, self._roll = path, dict(about), roll_bytes
        self.paths: list[Path] = []
        self.messages = self.bytes = 0
        self._size = 0
        self._file = self._next()

    def write(self, parts: Sequence[Part], monotonic_ns: int, wall_ns: int) -> None:
        """Append one message. It reaches the file with the next ``flush`` at the latest."""
        if self._roll and self._size >= self._roll:
            self._file.close()
            self._file = self._next()
        sizes = [memoryview(part).nbytes for part in parts]
        lengths = struct.pack(f"<{len(sizes)}Q", *sizes)
        head = _HEAD.pack(_TAG, len(sizes), monotonic_ns, wall_ns)
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        self._file.write(b"".join((head, _CHECKS.pack(zlib.crc32(lengths, zlib.crc32(head)), crc), lengths)))
        for part in parts:
            self._file.write(part)
        self._size += _HEAD.size + _CHECKS.size + len(lengths) + sum(sizes)
        self.messages += 1
        self.bytes += sum(sizes)

    def flush(self) -> None:
        """Hand everything to the operating system: from now on it survives the end of this process."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _next(self) -> BinaryIO:
        n = len(self.paths)
        path = self._path if n == 0 else self._path.with_name(f"{self._path.stem}-{n:03d}{self._path.suffix}")
        file = path.open("xb", buffering=1 << 20)
        about = json.dumps({**self._about, "part": n}).encode()
        file.write(MAGIC + struct.pack("<I", len(about)) + about)
        file.flush()
        self._size = len(MAGIC) + 4 + len(about)
        self.paths.append(path)
        return file


class Reader:
    """Reads a recording, or a ``.cbors`` capture, record by record; memory holds one record.

    ``about`` is what the writer noted. After the last record, ``damaged`` counts records that were skipped because
    their parts were changed, and ``truncated`` says where and why the rest could not be read ("" if all was). Raises
    ``BadData("recording")`` for a file that is neither, and ``OSError``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.truncated = ""
        self.about: dict[str, Any] = {}
        with path.open("rb") as file:
            self._end = path.stat().st_size
            if file.read(len(MAGIC)) == MAGIC:
                self.about = self._read_about(file)
                self._first: int | None = file.tell()
            else:
                self._first = None
                self._check_capture(file)

    def __iter__(self) -> Iterator[Record]:
        self.damaged, self.truncated = 0, ""
        return self._capture() if self._first is None else self._records(self._first)

    def _check_capture(self, file: BinaryIO) -> None:
        file.seek(0)
        try:
            next(read_capture(file, self._end), None)
        except BadData as bad:
            if bad.reason != "truncated" or self.path.suffix != ".cbors":
                raise BadData("recording", f"{self.path}: neither a recording nor a .cbors capture") from bad

    def _read_about(self, file: BinaryIO) -> dict[str, Any]:
        try:
            (size,) = struct.unpack("<I", file.read(4))
            about = json.loads(file.read(min(size, self._end)))
        except (struct.error, ValueError) as error:
            raise BadData("recording", f"{self.path}: its first lines are damaged ({error})") from error
        return about if isinstance(about, dict) else {}

    def _records(self, at: int) -> Iterator[Record]:
        with self.path.open("rb") as file:
            file.seek(at)
            while True:
                at = file.tell()
                head = file.read(_HEAD.size + _CHECKS.size)
                if not head:
                    return
                record = self._record(file, head)
                if isinstance(record, str):
                    self.truncated = f"{self.path}: {record} at byte {at}; the rest cannot be read"
                    return
                if record is None:
                    self.damaged += 1
                else:
                    yield record

    def _record(self, file: BinaryIO, head: bytes) -> Record | str | None:
        """The record, None if its parts were changed, or why nothing after it can be found."""
        if len(head) < _HEAD.size + _CHECKS.size:
            return "the last record is incomplete"
        tag, n, monotonic_ns, wall_ns = _HEAD.unpack_from(head)
        lengths_crc, parts_crc = _CHECKS.unpack_from(head, _HEAD.size)
        if tag != _TAG or n > _MOST_PARTS:
            return "a record is damaged"
        lengths = file.read(8 * n)
        if len(lengths) < 8 * n:
            return "the last record is incomplete"
        if zlib.crc32(lengths, zlib.crc32(head[: _HEAD.size])) != lengths_crc:
            return "a record is damaged"
        sizes = struct.unpack(f"<{n}Q", lengths)
        if sum(sizes) > self._end - file.tell():
            return "the last record is incomplete"
        parts = tuple(file.read(size) for size in sizes)
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return Record(parts, monotonic_ns, wall_ns) if crc == parts_crc else None

    def _capture(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            try:
                for parts in read_capture(file, self._end):
                    yield Record(parts, None, None)
            except BadData as bad:
                self.truncated = f"{self.path}: {bad.detail}; the rest cannot be read"
