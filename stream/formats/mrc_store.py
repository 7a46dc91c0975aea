"""Voxels of an MRC file, read with ``pread``: no position in the file is shared, so that threads may read at once.

Nothing is mapped into memory: a file that is cut short under a map ends the process (SIGBUS), a read of it is an error
that can be told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .mrc import MrcHeader

Shape: TypeAlias = tuple[int, int, int]
Floats: TypeAlias = npt.NDArray[np.float32]


class MrcStore:
    """Boxes of the stored axes (sections, rows, columns). ``descriptor`` is closed with it."""

    def __init__(self, descriptor: int, header: MrcHeader, path: Path) -> None:
        self._descriptor, self._header, self._path = descriptor, header, path
        self._convert = _converter(header.dtype)

    def read(self, low: Shape, high: Shape) -> Floats:
        """A box. One read per section, from the first voxel to the last: rows lie close, and a read costs more."""
        header = self._header
        rows, columns = high[1] - low[1], high[2] - low[2]
        out = np.empty((high[0] - low[0], rows, columns), np.float32)
        buffer = np.empty(rows * header.nx, header.dtype)
        span = buffer[: (rows - 1) * header.nx + columns].view(np.uint8).data
        start = header.offset + (low[1] * header.nx + low[2]) * header.dtype.itemsize
        shown = buffer.reshape(rows, header.nx)[:, :columns]
        for at in range(len(out)):
            self._fill(span, start + (low[0] + at) * header.frame_bytes)
            self._convert(out[at], shown)
        return out

    def _fill(self, view: memoryview, offset: int) -> None:
        got = 0
        while got < len(view):
            try:
                n = os.preadv(self._descriptor, [view[got:]], offset + got)
            except OSError as error:
                raise gone(self._path, error) from None
            if not n:
                raise BadData("truncated", f"{self._path}: ends before byte {offset + len(view)}; copy it again")
            got += n

    def close(self) -> None:
        """Close the file. May be called more than once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # A frame that is dropped on its way has nobody to close its file.
        with suppress(OSError):
            self.close()


def _converter(dtype: np.dtype[Any]) -> Callable[[Floats, npt.NDArray[Any]], None]:
    def convert(out: Floats, stored: npt.NDArray[Any]) -> None:
        out[...] = stored

    # A signalling NaN of a file makes numpy warn as it widens float16; what is no number is for the reader to judge.
    def quietly(out: Floats, stored: npt.NDArray[Any]) -> None:
        with np.errstate(invalid="ignore"):
            out[...] = stored

    return convert if dtype.kind in "iu" else quietly


def gone(path: Path, error: OSError) -> BadData:
    """What to say of a file that cannot be read any more."""
    if isinstance(error, FileNotFoundError):
        return BadData("vanished", f"{path}: no longer there; was it moved or renamed?")
    return BadData("vanished", f"{path}: cannot be read ({error.strerror}); check its permissions and the disk")
