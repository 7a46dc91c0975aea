"""Finish what a killed daemon left behind: ``*.inprogress`` files become proper CXI files with all that was flushed."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters
import numpy as np

from ..flow.frame import BadData
from .cxi import COUNT, END_REASON, LIBVER
from .cxi_copy import copy_attributes, copy_rest, growing_datasets
from .cxi_flags import AsIfClosed
from .cxi_part import SUFFIX, claim, free_name, publish

_BLOCK = 64 * 2**20  # bytes copied at once


@dataclass(frozen=True, slots=True)
class Recovered:
    """``path``: the finished file. ``frames`` in it; ``flushed``: how many its writer had vouched for."""

    path: Path
    frames: int
    flushed: int


def leftovers(directory: Path) -> list[Path]:
    """Files in progress whose writer is dead. Files of a live writer, here or elsewhere, hold a lock."""
    found = []
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        with suppress(OSError), _claimed(path):
            found.append(path)
    return found


def recover(path: Path, *, keep: bool = False) -> Recovered:
    """Copy what a dead writer flushed into a finished file beside it, then remove ``path`` unless ``keep``.

    The chunks are copied as they are, and ``path`` is only read, so nothing is at risk. Its first
    ``entry_1/number_of_frames`` entries are complete; should the index of the frames be damaged all the same (a kill
    within a write of more than a page), the copy ends before the damage.

    Raises:
        BadData: ``in_use`` (its writer lives), ``empty`` (no frame was flushed), ``space``, ``format``.

    """
    if not path.name.endswith(SUFFIX):
        raise BadData("format", f"{path}: not a file in progress; name files that end in {SUFFIX}")
    try:
        with _claimed(path):
            recovered = _copy(path)
            if not keep and recovered.frames == recovered.flushed:
                path.unlink()
            return recovered
    except BlockingIOError:
        raise BadData("in_use", f"{path}: is being written or read; stop the daemon that writes it first") from None
    except OSError as error:
        raise BadData("format", f"{path}: cannot be recovered: {error}") from None


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    descriptor = claim(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _copy(path: Path) -> Recovered:
    final = path.with_name(path.name.removesuffix(SUFFIX))
    with AsIfClosed(path) as stream, h5py.File(stream, "r") as source:
        flushed = int(source[COUNT][()])
        growing = growing_datasets(source)
        frames = min([flushed, *(_readable(source[name], flushed) for name in growing)])
        if frames < 1:
            raise BadData("empty", f"{path}: no frame had been flushed; it can be deleted")
        working = path.with_name(path.name + ".recovering")
        try:
            with h5py.File(working, "w", libver=LIBVER) as target:
                copy_rest(source, target, growing)
                for name in growing:
                    _copy_rows(source[name], target, frames)
                target[COUNT][()] = np.int64(frames)
                target[END_REASON][()] = b"recovered"
            return Recovered(publish(working, final if not final.exists() else free_name(final)), frames, flushed)
        except BaseException:
            with suppress(OSError):
                working.unlink()
            raise


def _readable(dataset: h5py.Dataset, count: int) -> int:
    """How many of the first ``count`` entries have an index entry that can be read and points into the file."""
    step = dataset.chunks[0]
    for start in range(0, min(count, dataset.shape[0]), step):
        for offsets in _chunks_at(dataset, start):
            try:
                info = dataset.id.get_chunk_info_by_coord(offsets)
            except (OSError, RuntimeError, ValueError):
                return start
            if info.byte_offset is None:
                return start
    return min(count, int(dataset.shape[0]))


def _chunks_at(dataset: h5py.Dataset, start: int) -> Iterator[tuple[int, ...]]:
    """Coordinates of the chunks that begin at entry ``start``: several where a frame is a stack of chunks."""
    grid = [range(0, extent, step) for extent, step in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
    return ((start, *rest) for rest in itertools.product(*grid))


def _copy_rows(source: h5py.Dataset, target: h5py.File, frames: int) -> None:
    properties = source.id.get_create_plist()
    shape = (frames, *source.shape[1:])
    space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED, *source.shape[1:]))
    made = h5py.Dataset(h5py.h5d.create(target.id, source.name.encode(), source.id.get_type(), space, properties))
    copy_attributes(source, made)
    if properties.get_nfilters():
        for start in range(frames):
            for offsets in _chunks_at(source, start):
                mask, chunk = source.id.read_direct_chunk(offsets)
                made.id.write_direct_chunk(offsets, chunk, mask)
    else:
        step = max(1, _BLOCK // max(1, source.dtype.itemsize * int(np.prod(shape[1:]))))
        for start in range(0, frames, step):
            made[start : start + step] = source[start : min(frames, start + step)]
