"""Read an HDF5 file whose writer died, without changing it: as ``h5clear -s`` would leave it.

A writer marks the superblock, and HDF5 opens no file with such a mark. Source: HDF5 File Format Specification 3.0,
section II.A "Superblock", versions 2 and 3 (signature, version, sizes, consistency flags at byte 11, base, extension,
end-of-file and root addresses, and a lookup3 checksum over the bytes before it).
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from ..flow.frame import BadData

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FLAGS, _END, _CHECKSUM, _SIZE = 11, 28, 44, 48
_MASK = 0xFFFFFFFF


class AsIfClosed(io.RawIOBase):
    """The bytes of an HDF5 file, read-only, with a superblock that says it was closed. For ``h5py.File(stream, "r")``.

    The end of the file is said to be where it is: HDF5 had written beyond the end it last wrote down. Raises
    ``BadData("format")`` for another kind of file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        # Python closes a half-made object too, when it collects it: until then the descriptor must be ours.
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY)
        self._at = 0
        self._length = os.fstat(self._fd).st_size
        head = bytearray(os.pread(self._fd, _SIZE, 0))
        if len(head) < _SIZE or head[:8] != SIGNATURE or head[8] not in (2, 3) or head[9:11] != b"\x08\x08":
            self.close()
            raise BadData("format", f"{path}: does not begin as an HDF5 file with superblock version 2 or 3")
        head[_FLAGS] = 0
        head[_END : _END + 8] = self._length.to_bytes(8, "little")
        head[_CHECKSUM:] = lookup3(bytes(head[:_CHECKSUM])).to_bytes(4, "little")
        self._head = bytes(head)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, and say where to."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the file, with the closed superblock in place of its own."""
        view = memoryview(buffer).cast("B")
        try:
            got = os.preadv(self._fd, [view], self._at)
        except OverflowError as error:  # an offset of a damaged file that no file has
            raise OSError(f"offset {self._at} is beyond any file") from error
        if self._at < _SIZE:
            part = self._head[self._at : self._at + got]
            view[: len(part)] = part
        self._at += got
        return got

    def close(self) -> None:
        """Close the file."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash ``hashlittle`` with initial value 0, which HDF5 uses for its metadata: unsigned 32 bits."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
    words += [0] * (-len(words) % 3)
    triples = [words[at : at + 3] for at in range(0, len(words), 3)]
    for x, y, z in triples[:-1]:
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
    if not triples:
        return c
    x, y, z = triples[-1]
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _turn(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by_a, by_b, by_c in ((4, 6, 8), (16, 19, 4)):
        a = ((a - c) & _MASK) ^ _turn(c, by_a)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _turn(a, by_b)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _turn(b, by_c)
        b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for by_c, by_a, by_b in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - _turn(b, by_c)) & _MASK
        a = ((a ^ c) - _turn(c, by_a)) & _MASK
        b = ((b ^ a) - _turn(a, by_b)) & _MASK
    return ((c ^ b) - _turn(b, 24)) & _MASK
