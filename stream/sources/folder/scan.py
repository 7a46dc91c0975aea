"""What is in a folder, asked again and again: ``os.scandir`` as the truth, with work that is bounded per look.

A directory is listed again only when its own modification time or inode changed, and once a minute all the same, for
file systems that do not keep directory times. A listing names files and their inodes; only new names, and those whose
inode changed, are asked for more. Files that are known are asked again in turn, for a bounded time per look.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...flow.ports import Facts
from .patterns import Test
from .rows import Stat

log = logging.getLogger(__name__)

# The coarsest clock of a file system (FAT): what changes within it after a listing may leave the time as it was.
_TICK_S = 2.0
_RELIST_S = 60.0
_ASK_S = 1.0


@dataclass(slots=True)
class Seen:
    """What one look found: files that are new or differ, files that are gone, and whether the folder is there."""

    changed: dict[str, Stat] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    present: bool = True


@dataclass(slots=True)
class _Directory:
    mark: tuple[int, int] = (-1, -1)
    first: float = 0.0
    listed: float = float("-inf")
    files: dict[str, int] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    troubled: bool = False


class Scanner:
    """Looks into ``root``. Not for several threads. Names are paths below it with forward slashes.

    ``wanted``: whether a name is a file to take; ``excluded``: whether one part of a path is left out. ``skip``:
    folders below it that are never entered, such as the one we write to. ``files`` has what is there as of the last
    look, ``unusable`` the reason of each name that cannot be used.
    """

    def __init__(
        self,
        root: Path,
        wanted: Test,
        excluded: Test,
        facts: Facts,
        *,
        recursive: bool = True,
        follow: bool = False,
        skip: Sequence[Path] = (),
        recheck_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.files: dict[str, Stat] = {}
        self.unusable: dict[str, str] = {}
        self._root, self._wanted, self._excluded, self._facts = root, wanted, excluded, facts
        self._recursive, self._follow, self._recheck_s, self._clock = recursive, follow, recheck_s, clock
        self._skip = {os.path.abspath(path) for path in skip}
        self._directories: dict[str, _Directory] = {}
        self._places: dict[tuple[int, int], str] = {}
        self._fresh: deque[str] = deque()
        self._ring: deque[str] = deque()
        self._denied: list[str] = []
        self._present = True

    @property
    def behind(self) -> bool:
        """Whether names were found that there was no time yet to ask for."""
        return bool(self._fresh)

    def look(self) -> Seen:
        """List what changed and ask for new files, then for some of the known ones. Never raises for the folder."""
        seen = Seen()
        try:
            os.stat(self._root)
            with os.scandir(self._root):
                pass
        except OSError as error:
            seen.present = False
            if self._present:
                self._facts.event("folder_gone")
                log.warning("%s: %s; waiting until it is there", self._root, error.strerror)
            self._present = False
            return seen
        if not self._present:
            self._facts.event("folder_back")
            log.warning("%s is there again", self._root)
            self._present = True
        self._walk(seen)
        self._ask_fresh(seen)
        self._recheck(seen)
        return seen

    def path(self, name: str) -> str:
        """Where a file lies."""
        return os.path.join(self._root, name)

    def ask(self, name: str) -> Stat | None:
        """What the file is recognised by now; None where it is gone. Raises ``OSError`` where it may not be asked."""
        try:
            return Stat.of(os.stat(self.path(name), follow_symlinks=self._follow))
        except (FileNotFoundError, NotADirectoryError):
            return None

    # --- directories -----------------------------------------------------------------------------------------------

    def _walk(self, seen: Seen) -> None:
        todo, known = [""], set()
        while todo:
            below = todo.pop()
            known.add(below)
            directory = self._visit(below, seen)
            if directory is not None and self._recursive:
                todo += [f"{below}{name}/" for name in sorted(directory.folders, reverse=True)]
        for below in [below for below in self._directories if below not in known]:
            self._forget(below, seen)

    def _visit(self, below: str, seen: Seen) -> _Directory | None:
        """The directory as it is now, listed where that is due; None where it is not to be entered."""
        path = os.path.join(self._root, below)
        known = self._directories.get(below)
        try:
            found = os.stat(path)
            place = (found.st_dev, found.st_ino)
            # A link may lead back to a folder above: each folder is entered once, by the first name that led to it.
            if self._follow and self._places.setdefault(place, below) != below:
                return None
            directory = known or self._directories.setdefault(below, _Directory())
            now, mark = self._clock(), (found.st_mtime_ns, found.st_ino)
            if mark != directory.mark:
                directory.mark, directory.first = mark, now
            quiet = directory.listed > directory.first + _TICK_S
            if not quiet or now - directory.listed > _RELIST_S:
                self._list(below, path, directory, seen)
                directory.listed = now
            directory.troubled = False
        except FileNotFoundError:
            return None
        except OSError as error:
            if known is None or not known.troubled:
                self._facts.event("unreadable_folder")
                log.warning("%s: %s; its files wait", path, error.strerror)
            directory = known or self._directories.setdefault(below, _Directory())
            directory.troubled = True
        return directory

    def _list(self, below: str, path: str, directory: _Directory, seen: Seen) -> None:
        here: dict[str, int] = {}
        folders: set[str] = set()
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name in directory.others:
                    continue
                known = directory.files.get(name)
                if known is None and not self._is_new(below, entry, directory, folders):
                    continue
                inode = here[name] = entry.inode()
                if known != inode:
                    self._fresh.append(below + name)
        for name in directory.files.keys() - here.keys():
            self._drop(below + name, seen)
        directory.files, directory.folders = here, folders

    def _is_new(self, below: str, entry: os.DirEntry[str], directory: _Directory, folders: set[str]) -> bool:
        """Whether an entry that is not known is a file to take; notes folders, and what is of no interest."""
        name = entry.name
        if self._excluded(name):
            directory.others.add(name)
        elif self._is(entry.is_dir):
            if os.path.abspath(entry.path) not in self._skip:
                folders.add(name)
        elif not self._wanted(below + name):
            directory.others.add(name)
        elif not _is_text(name):
            self._facts.event("bad_name")
            log.warning("%r: its name is not UTF-8 text and cannot be noted; rename it", entry.path)
            self.unusable[ascii(below + name)] = "its name is not UTF-8 text: rename it"
            directory.others.add(name)
        else:
            return self._is(entry.is_file)
        return False

    def _is(self, test: Callable[..., bool]) -> bool:
        try:
            return test(follow_symlinks=self._follow)
        except OSError:
            return False  # a link that leads to itself must not hide the files beside it

    def _forget(self, below: str, seen: Seen) -> None:
        for name in self._directories.pop(below).files:
            self._drop(below + name, seen)
        self._places = {place: name for place, name in self._places.items() if name != below}

    def _drop(self, name: str, seen: Seen) -> None:
        if self.files.pop(name, None) is not None:
            seen.gone.append(name)

    # --- files -----------------------------------------------------------------------------------------------------

    def _ask_fresh(self, seen: Seen) -> None:
        until = self._clock() + _ASK_S
        self._fresh.extend(self._denied)
        self._denied.clear()
        while self._fresh and self._clock() < until:
            self._compare(self._fresh.popleft(), seen)

    def _recheck(self, seen: Seen) -> None:
        until = self._clock() + self._recheck_s
        if not self._ring:
            self._ring.extend(self.files)
        for _ in range(len(self._ring)):
            if self._clock() >= until:
                break
            name = self._ring.popleft()
            if name in self.files:
                self._compare(name, seen)

    def _compare(self, name: str, seen: Seen) -> None:
        try:
            stat = self.ask(name)
        except OSError as error:
            self._denied.append(name)
            self.unusable[name] = str(error.strerror)
            return
        self.unusable.pop(name, None)
        if stat is None:
            # Forgotten here too, or it would not count as new when it comes back with the inode it had.
            below, slash, last = name.rpartition("/")
            if directory := self._directories.get(below + slash):
                directory.files.pop(last, None)
            self._drop(name, seen)
        elif self.files.get(name) != stat:
            self.files[name] = stat
            seen.changed[name] = stat


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
