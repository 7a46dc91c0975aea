"""The files that are not taken yet: seen, compared with the journal, and asked in turn whether they are complete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from .complete import Completeness, Watched
from .journal import Journal
from .rows import Found, Stat
from .scan import Scanner, Seen
from .settings import FolderSettings

_JUDGE_S = 1.0
# With more files than this, each is asked only when it may have settled, not in every look.
_MANY = 2000


class Waits(NamedTuple):
    """A file that waits: ``reason`` is a short fixed word, ``since_s`` the seconds since it was first seen."""

    name: str
    reason: str
    since_s: float
    detail: str = ""


class Watchlist:
    """What ``scanner`` finds and ``journal`` does not know as done. Not for several threads; times are monotonic."""

    def __init__(
        self,
        settings: FolderSettings,
        scanner: Scanner,
        journal: Journal,
        completeness: Completeness,
        clock: Callable[[], float],
    ) -> None:
        self.files: dict[str, Watched] = {}
        self.more = False
        self._settings, self._scanner, self._journal = settings, scanner, journal
        self._completeness, self._clock = completeness, clock
        self._later: set[str] = set()
        self._ignore = False

    def ignore_existing(self) -> None:
        """What the first look finds was there before us, and is not to be taken."""
        self._ignore = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for anything."""
        return not self.files and not self._later and not self._scanner.behind

    def look(self, now: float) -> Seen:
        """Look into the folder and at the journal, and note what they say of each file. Raises ``JournalError``."""
        for row in self._journal.refresh():
            if (stat := self._scanner.files.get(row.name)) is not None:
                self._consider(row.name, stat, now)
        seen = self._scanner.look()
        if self._ignore and seen.present:
            self._journal.ignore([Found(name, stat, "") for name, stat in seen.changed.items()])
            self._ignore = self._scanner.behind
        for name in seen.gone:
            self.files.pop(name, None)
            self._later.discard(name)
        for name, stat in seen.changed.items():
            self._consider(name, stat, now)
        for name in sorted(self._later):
            if (stat := self._scanner.files.get(name)) is not None:
                self._consider(name, stat, now)
        return seen

    def _consider(self, name: str, stat: Stat, now: float) -> None:
        """Watch a file that the journal does not have as it is, or that it has as one to be tried again."""
        self._later.discard(name)
        row = self._journal.get(name)
        same = row is not None and (row.stat == stat or (not row.hash and row.stat.size == stat.size))
        if row is not None and same and not self._journal.is_due(row):
            self.files.pop(name, None)
            if row.state == "failed":
                self._later.add(name)
            return
        known = self.files.get(name)
        if known is None:
            self.files[name] = Watched(name, self._scanner.path(name), stat, now, now, now, settled=same)
        elif not known.update(stat, now):
            known.due = now

    def ready(self, now: float, room: int) -> tuple[list[Watched], list[Watched]]:
        """At most ``room`` files that are complete, and those that stayed incomplete for too long.

        The oldest by the server's own times first; those in work while a daemon was killed last: one may be the cause.
        """
        complete: list[Watched] = []
        hopeless: list[Watched] = []
        until = self._clock() + _JUDGE_S
        self.more = False
        due = [file for file in self.files.values() if file.due <= now]
        for file in sorted(due, key=self._order):
            if len(complete) + len(hopeless) >= room or self._clock() >= until:
                self.more = len(complete) + len(hopeless) < room
                break
            if not self._is_here(file, now):
                continue
            if self._completeness.judge(file, now):
                complete.append(file)
            elif self._completeness.is_hopeless(file, now):
                hopeless.append(file)
            else:
                file.due = self._when(file, now)
        self._queue(due, {file.name for file in (*complete, *hopeless)}, now)
        return complete, hopeless

    def _order(self, file: Watched) -> tuple[int, int, str]:
        row = self._journal.get(file.name)
        return (row.deaths if row else 0, file.stat.mtime_ns, file.name)

    def _is_here(self, file: Watched, now: float) -> bool:
        try:
            stat = self._scanner.ask(file.name)
        except OSError as error:
            file.reason, file.detail, file.due = "unreadable", str(error.strerror), now + self._settings.poll_s
            return False
        if stat is None:
            # The scanner hears of it in its turn; what comes back is new.
            file.reason, file.detail, file.due = "gone", "it is not there any more", now + self._settings.poll_s
            return False
        file.update(stat, now)
        return True

    def _when(self, file: Watched, now: float) -> float:
        settles = file.since + self._settings.settle_s
        if settles <= now:
            return now + self._settings.poll_s
        return settles if len(self.files) > _MANY else min(settles, now + self._settings.poll_s)

    def _queue(self, due: Sequence[Watched], asked: Collection[str], now: float) -> None:
        """Files that may be complete and were not asked, because enough are in work."""
        for file in due:
            if file.due <= now and file.name not in asked and now - file.since >= self._settings.settle_s:
                file.reason, file.detail = "queued", "it waits for its turn"

    def in_work(self, file: Watched, now: float) -> None:
        """Somebody has the file's older content in work, or the file is done: wait for that, or forget the file."""
        row = self._journal.get(file.name)
        if row is not None and not file.found().is_content_of(row):
            file.reason, file.detail, file.due = "in_work", "its older content is in work", now + self._settings.poll_s
        else:
            self.files.pop(file.name, None)

    def taken(self, file: Watched) -> None:
        """The file was claimed."""
        self.files.pop(file.name, None)
        if file.header is not None:
            self._completeness.learn(file.header.frames)

    def next_due(self, now: float) -> float:
        """When a file may have become complete, at the latest ``poll_s`` from ``now``."""
        later = [file.due for file in self.files.values() if file.due > now]
        return min([now + self._settings.poll_s, *later])

    def waits(self, now: float) -> list[Waits]:
        """Which files wait and why; the longest first."""
        found = [Waits(file.name, file.reason, now - file.seen, file.detail) for file in self.files.values()]
        found += [Waits(name, "retry", 0.0, "it failed, and is tried again") for name in self._later]
        found += [Waits(name, "unusable", 0.0, why) for name, why in self._scanner.unusable.items()]
        return sorted(found, key=lambda file: (-file.since_s, file.name))
