"""One CXI file while it is being written: created, appended to, flushed, closed under its name, or given up.

What a reader may rely on, live or after the writer was killed: the first ``entry_1/number_of_frames`` entries of every
dataset are complete. A flush writes that number last, after everything it speaks of, so datasets may be longer for a
moment but never shorter. HDF5 in SWMR mode orders its own writes such that the file opens at any moment.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..flow.frame import Frame, Key, Result
from .cxi import (
    CHANGES,
    COUNT,
    DETECTOR,
    END_REASON,
    END_TIME,
    LIBVER,
    MOST_CHANGES,
    RESULT,
    About,
    Layout,
    iso_time,
    lay_out,
    put_change,
)
from .cxi_disk import SUFFIX, claim, let_go, publish
from .cxi_rows import IDENTIFIER, row_dtype, to_rows

log = logging.getLogger(__name__)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class PartError(Exception):
    """A file could not be written. ``full``: because there is no room. The message names the file and what failed."""

    def __init__(self, detail: str, full: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.full = full


class Part:
    """One file of a run, for one thread. What raises ``PartError`` leaves nothing to do but ``abandon``."""

    def __init__(self, path: Path, layout: Layout, about: About, *, swmr: bool = True) -> None:
        """Create ``<path>.inprogress`` and lay it out; neither it nor ``path`` may exist."""
        self.path = path
        self.layout = layout
        self.count = 0
        self.unflushed: list[Key] = []
        self._working = path.with_name(path.name + SUFFIX)
        self._shared_mask = np.zeros(layout.shape, np.uint32) if about.mask is None else about.mask
        self._rows: list[npt.NDArray[Any]] = []
        self._changes = min(len(about.changes), MOST_CHANGES // 2)
        self._last_wall = about.started
        self._claim = self._handle = -1
        try:
            with self._told("create"):
                # No chunk cache: a frame that was written is on disk, or its failure is told at once.
                self._file = h5py.File(self._working, "x", libver=LIBVER, rdcc_nbytes=0)
        except PartError:
            with suppress(OSError):
                if not self._working.stat().st_size:
                    self._working.unlink()
            raise
        try:
            with self._told("lay out"):
                self._prepare(about, swmr)
        except PartError:
            self.abandon()
            with suppress(OSError):
                self._working.unlink()
            raise

    def _prepare(self, about: About, swmr: bool) -> None:
        lay_out(self._file, self.layout, about)
        if swmr:
            self._file.swmr_mode = True
            self._claim = claim(self._working, fcntl.LOCK_SH)
        self._file.flush()
        self._data = _Images(self._file[f"{DETECTOR}/data"], self.layout)
        mask = self._file[f"{DETECTOR}/mask"]
        self._masks = _Masks(mask, self.layout, self._shared_mask) if self.layout.mask_per_frame else None
        names = row_dtype(self.layout.classes, self.layout.identifier_bytes).names or ()
        self._columns = {
            name: self._file[f"entry_1/{name}" if name == IDENTIFIER else f"{RESULT}/{name}"] for name in names
        }
        self._handle = int(self._file.id.get_vfd_handle())
        self._number = self._file[COUNT]
        self._end_time = self._file[END_TIME]

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """h5py tells of failed writes as OSError, and as RuntimeError where the failure came while closing."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            number = getattr(error, "errno", None)
            short = str(error).split(", buf =")[0].replace("\n", " ")
            raise PartError(f"{self._working}: cannot {what}: {short}", number in FULL) from error

    @property
    def size(self) -> int:
        """Bytes on disk; 0 if somebody took the file away."""
        try:
            return os.stat(self._working).st_size
        except OSError:
            return 0

    def append(self, results: Sequence[Result]) -> None:
        """Write frames that fit the layout. Raises ``PartError``, and then none of them counts as written."""
        total = self.count + len(results)
        with self._told("write"):
            self._data.grow(total)
            for at, result in enumerate(results, self.count):
                self._data.put(at, result.frame)
            if self._masks is not None:
                self._masks.grow(total)
                for at, result in enumerate(results, self.count):
                    self._masks.put_mask(at, result.frame.mask)
        self._rows.append(to_rows(results, self.layout.classes, self.layout.identifier_bytes))
        self._last_wall = max(self._last_wall, results[-1].frame.wall)
        self.count = total
        self.unflushed += [result.frame.key for result in results]

    def note(self, changes: Sequence[str]) -> None:
        """Keep what people changed while this file is open, a line of JSON each. Raises ``PartError``."""
        with self._told("write"):
            for line in changes:
                put_change(self._file[CHANGES], self._changes, line)
                self._changes += 1
            self._file[CHANGES].id.flush()

    def flush(self) -> None:
        """Show readers everything appended so far: all values first, then how many of them count."""
        if not self.unflushed:
            return
        with self._told("flush"):
            rows = np.concatenate(self._rows)
            start = self.count - len(rows)
            for name, column in self._columns.items():
                column.id.set_extent((self.count, *column.shape[1:]))
                column[start:] = rows[name]
            self._end_time[()] = iso_time(self._last_wall)
            self._file.flush()
            self._number[()] = self.count
            self._number.id.flush()
        self._rows.clear()
        self.unflushed.clear()

    def close(self, reason: str, path: Path) -> Path:
        """Finish: flush, write why it ended, close, and give the file its name ``path`` for good; returns that name."""
        self.flush()
        with self._told("close"):
            self._file[END_REASON][()] = reason.encode()[:16]
            # All that can fail for want of room fails here, while the file can still be abandoned as a whole.
            self._file.flush()
            self._file.close()
        self._release()
        with self._told("rename"):
            return publish(self._working, path)

    def abandon(self) -> None:
        """Let go of a file that cannot be written, keeping on disk what was flushed. Never raises.

        HDF5 insists on writing what it holds: closing fails, fails again at exit, and then crashes the interpreter.
        So the file's descriptor is turned to anonymous memory first, which takes it all.
        """
        if not let_go(self._file, self._descriptor()):
            log.error("%s: HDF5 cannot let go of it", self._working)
        self._release()

    def _descriptor(self) -> int:
        """HDF5's file descriptor; -1 once it is closed, when its number may belong to another file."""
        if self._file:
            return int(self._file.id.get_vfd_handle())
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._handle), os.stat(self._working)):
                return self._handle
        return -1

    def _release(self) -> None:
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1


class _Images:
    """A growing dataset of images, written below h5py's indexing, which costs more than the rest of a small frame."""

    def __init__(self, dataset: h5py.Dataset, layout: Layout) -> None:
        self._id = dataset.id
        self._shape = layout.shape
        self._dtype = dataset.dtype
        self._start = (0,) * len(layout.shape)
        self._direct = layout.compressed and layout.chunk[1:] == layout.shape
        self._memory = h5py.h5s.create_simple((1, *layout.shape))
        self._space: Any = None

    def grow(self, count: int) -> None:
        self._id.set_extent((count, *self._shape))
        self._space = self._id.get_space()

    def put(self, at: int, frame: Frame) -> None:
        chunk = frame.chunk
        if (
            chunk is not None
            and self._direct
            and chunk.compression == "bslz4"
            and chunk.dtype == self._dtype
            and chunk.shape == self._shape
        ):
            self._id.write_direct_chunk((at, *self._start), chunk.buffer)
        else:
            self.put_array(at, frame.data)

    def put_array(self, at: int, image: npt.NDArray[Any]) -> None:
        self._space.select_hyperslab((at, *self._start), (1, *self._shape))
        self._id.write(self._memory, self._space, np.ascontiguousarray(image))


class _Masks(_Images):
    """Pixel masks per frame, most of which are the run's: those cost nothing but their place.

    A chunk that is never written reads as zeros and takes no room, which serves where the run has no bad pixel. Where
    it has, the first such mask is compressed, and its bytes are stored again for each frame.
    """

    def __init__(self, dataset: h5py.Dataset, layout: Layout, shared: npt.NDArray[np.uint32]) -> None:
        super().__init__(dataset, layout)
        self._shared = shared
        self._any = bool(shared.any())
        self._bytes: bytes | None = None

    def put_mask(self, at: int, mask: npt.NDArray[np.uint32] | None) -> None:
        if mask is not None:
            self.put_array(at, mask)
        elif self._bytes is not None:
            self._id.write_direct_chunk((at, *self._start), self._bytes)
        elif self._any:
            self.put_array(at, self._shared)
            if self._direct:
                self._bytes = self._id.read_direct_chunk((at, *self._start))[1]
