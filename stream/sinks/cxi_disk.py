"""Files on disk: names that overwrite nothing, locks, the final rename, and letting go of what cannot be written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from .cxi import LIBVER

SUFFIX = ".inprogress"
#: Files that HDF5 could not close. It would try again when they are collected, so they never are.
_unclosed: list[h5py.File] = []


def let_go(file: h5py.File, descriptor: int) -> bool:
    """Close a file whose disk is full or broken, without writing to it. Returns whether that worked; never raises.

    HDF5 insists on writing what it holds: closing fails, fails again at exit, and then crashes the interpreter. So its
    file descriptor (-1: it has none any more) is turned to anonymous memory first, which takes it all.
    """
    try:
        if descriptor >= 0:
            nowhere = os.memfd_create("abandoned")
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        file.close()
    except (OSError, RuntimeError, ValueError):
        _unclosed.append(file)
        return False
    return True


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file, written as a whole; after any failure there is none. Raises ``OSError`` or ``RuntimeError``."""
    file = h5py.File(path, "x", libver=LIBVER)
    try:
        yield file
        file.flush()
        file.close()
    except BaseException:
        let_go(file, int(file.id.get_vfd_handle()) if file else -1)
        with suppress(OSError):
            path.unlink()
        raise


def claim(path: Path, kind: int) -> int:
    """Lock a file against ``beamsieve recover`` (shared) or against its writer (exclusive), until it is closed.

    Returns a file descriptor, or -1 where the file system has no locks. Raises ``BlockingIOError`` if it is taken. A
    dead process holds no lock; HDF5's own lock is gone as soon as SWMR starts.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def free_name(path: Path) -> Path:
    """``path``, or with ``-1``, ``-2`` … before its ending, such that neither it nor its work in progress exists."""
    candidate, number = path, 0
    while candidate.exists() or candidate.with_name(candidate.name + SUFFIX).exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def publish(working: Path, path: Path) -> Path:
    """Bring a closed file to disk and give it the name ``path``, never in place of another file."""
    _sync(working)
    while True:
        try:
            os.link(working, path)
        except FileExistsError:
            path = free_name(path)
            continue
        except OSError:  # a file system without hard links
            if path.exists():
                path = free_name(path)
            os.rename(working, path)
        else:
            os.unlink(working)
        _sync(path.parent)
        return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
