"""Files that are whole or not there at all: written beside their place, brought to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..cxi_part import PartError

log = logging.getLogger(__name__)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: The name is to blame, not the disk: other micrographs can be written.
NAMES = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY})
FOREIGN_AGE_S = 3600.0
PATIENCE_S = 10.0
_WAIT_S = 0.01
_TEMPORARY = re.compile(r"^\.(?P<name>.+)\.(?P<host>[^.]+)-(?P<pid>\d+)\.tmp$")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to; what was written there gets the name ``path`` at the end, in place of what has it.

    After any failure there is nothing new. Folders are made. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    working = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.tmp")
    try:
        yield working
        _sync(working)
        os.replace(working, path)
    except BaseException:
        with suppress(OSError):
            working.unlink()
        raise
    _sync(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as a whole. Raises ``OSError``."""
    with whole(path) as working:
        working.write_bytes(content)


def keep_as(path: Path, earlier: Path) -> None:
    """Give the file a second name ``earlier``, if it is there and that name is free, so that it may be replaced.

    On file systems without hard links it is moved. Raises ``OSError``.
    """
    if earlier.exists() or not path.exists():
        return
    try:
        os.link(path, earlier)
    except OSError:
        os.rename(path, earlier)


def sweep(directory: Path) -> int:
    """Remove what killed writers left half written below ``directory``; returns how many files.

    Files of processes of this machine that live are left alone, those of other machines for an hour. Raises nothing.
    """
    gone = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            found = _TEMPORARY.match(name)
            if found and _is_dead(Path(folder, name), found["host"], int(found["pid"])):
                with suppress(OSError):
                    os.unlink(Path(folder, name))
                    gone += 1
    return gone


def _is_dead(path: Path, host: str, pid: int) -> bool:
    if host != _host():
        with suppress(OSError):
            return time.time() - path.stat().st_mtime > FOREIGN_AGE_S
        return False
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def part_error(error: OSError) -> PartError:
    """What ``Room`` is told of a file that could not be written."""
    where = f"{error.filename}: " if error.filename else ""
    return PartError(f"{where}cannot be written: {error.strerror or error}", error.errno in FULL)


@contextmanager
def lock(directory: Path, patience_s: float = PATIENCE_S) -> Iterator[bool]:
    """Keep other writers of this folder (a second daemon, ``beamsieve rethreshold``) out meanwhile.

    Says whether it is locked: a file system may have no locks, and a holder that hangs is not waited for longer than
    ``patience_s``; every file is whole even then. Raises ``OSError`` where the folder cannot be written.
    """
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _locked(descriptor, directory, patience_s)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, directory: Path, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                log.warning("%s: another writer has held the lock for %.0f s; going on", directory, patience_s)
                return False
            time.sleep(_WAIT_S)
        except OSError:
            return False
        else:
            return True


def _sync(path: Path) -> None:
    with contextlib.closing(_Descriptor(path)) as descriptor:
        try:
            os.fsync(descriptor.number)
        except OSError as error:
            # Some network file systems cannot sync a folder.
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise


class _Descriptor:
    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.number)
