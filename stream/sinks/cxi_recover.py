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
from .cxi import COUNT, END_REASON, compression
from .cxi_copy import copy_attributes, copy_rest, growing_datasets
from .cxi_disk import SUFFIX, claim, free_name, new_file, publish
from .cxi_flags import AsIfClosed


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
        BadData: ``in_use`` (its writer lives), ``empty`` (no frame was flushed), ``space`` (no room for the copy),
            ``format`` (it cannot be read, or the copy cannot be written).

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
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
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
        if flushed < 1:
            raise BadData("empty", f"{path}: no frame had been flushed; it can be deleted")
        room = os.statvfs(path.parent)
        if room.f_bavail * room.f_frsize < 1.1 * path.stat().st_size:
            raise BadData("space", f"{path}: its copy needs {path.stat().st_size / 1e9:.3g} GB; free some space first")
        working = path.with_name(path.name + ".recovering")
        working.unlink(missing_ok=True)  # of a recovery that was killed: the claim is ours
        with new_file(working) as target:
            growing = growing_datasets(source)
            copy_rest(source, target, growing)
            frames = min(_copy_rows(source[name], target, flushed) for name in growing)
            if not frames:
                raise BadData("format", f"{path}: its index is damaged from the first frame on")
            for name in growing:
                target[name].resize(frames, axis=0)
            target[COUNT][()] = np.int64(frames)
            target[END_REASON][()] = b"recovered"
        return Recovered(publish(working, final if not final.exists() else free_name(final)), frames, flushed)


def _chunks_at(dataset: h5py.Dataset, start: int) -> Iterator[tuple[int, ...]]:
    """Coordinates of the chunks that begin at entry ``start``: several where a frame is a stack of chunks."""
    grid = [range(0, extent, step) for extent, step in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
    return ((start, *rest) for rest in itertools.product(*grid))


def _copy_rows(source: h5py.Dataset, target: h5py.File, frames: int) -> int:
    """Copy the chunks of the first ``frames`` entries; returns how many entries came before the first damage."""
    # Not with the source's own property list: the filter would prepend its parameters to themselves.
    filters = compression(source.id.get_create_plist().get_nfilters() > 0)
    limits = (None, *source.shape[1:])
    made = target.create_dataset(
        source.name, (frames, *source.shape[1:]), source.dtype, maxshape=limits, chunks=source.chunks, **filters
    )
    copy_attributes(source, made)
    sparse = source.name.endswith("/mask")
    for start in range(0, frames, source.chunks[0]):
        for offsets in _chunks_at(source, start):
            try:
                if sparse and source.id.get_chunk_info_by_coord(offsets).byte_offset is None:
                    continue  # a mask without a bad pixel was never written, and reads as zeros
                mask, chunk = source.id.read_direct_chunk(offsets)
            except (OSError, RuntimeError, ValueError, MemoryError):
                return start
            made.id.write_direct_chunk(offsets, chunk, mask)
    return frames
