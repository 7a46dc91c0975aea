"""The groups of a session's folder: read when they change, and changed by one writer at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ....models.tomograms.groups import Groups
from ....models.tomograms.groups_file import NAME, read_groups, write_groups
from ..picks.files import lock

Stamp = tuple[int, int, int] | None
#: Held by the process that makes a session's clusters.
LOCK = ".clusters.lock"


@contextmanager
def claimed(directory: Path) -> Iterator[bool]:
    """Whether this process alone makes clusters in ``directory`` meanwhile; a daemon claims it for its life.

    A file system without locks grants it to everybody. Raises ``OSError`` where the folder cannot be written.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _mine(descriptor)
    finally:
        os.close(descriptor)


def _mine(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class GroupsFile:
    """``groups.yaml`` of a folder, which a person, a daemon, the page and the command line may all change."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME
        self._stamp: Stamp | object = object()

    def changed(self) -> bool:
        """Whether the file is another than when it was last read or written here. Asks the disk once; cheap."""
        return self._now() != self._stamp

    def read(self) -> Groups:
        """The groups as they are. Raises ``GroupsError`` with every mistake, and ``OSError``."""
        # The stamp first: what is saved while it is read counts as changed.
        self._stamp = self._now()
        return read_groups(self.path)

    def change(self, how: Callable[[Groups], Groups]) -> Groups:
        """Read, change and write while no other writer does; a file that stays the same is not written.

        Raises ``GroupsError`` where the file has mistakes, which a person has to mend first, or ``how`` makes some; and
        ``OSError``.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with lock(self.path.parent):
            before = self.read()
            after = how(before)
            if after != before or not self.path.exists():
                write_groups(self.path, after)
                self._stamp = self._now()
        return after

    def _now(self) -> Stamp:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
