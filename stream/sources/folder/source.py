"""A watched folder as a source: each file that is complete comes out once, as a ``Raw`` that names it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...flow.frame import STILL_A_FILE, Failure, Incoming, Key, Raw, RunStart
from ...flow.ports import Facts
from .complete import Completeness, HeaderOf, Watched, paths_of
from .database import JournalError
from .journal import Journal
from .layouts import chooser, parse_name
from .policy import Policy
from .rows import Row
from .scan import Scanner
from .settings import FolderSettings
from .telling import Telling
from .wake import Bell, Heart, Wake
from .watchlist import Waits, Watchlist

log = logging.getLogger(__name__)

# However many events come, the folder is not looked into more often.
_LEAST_S = 0.5


class FolderSource:
    """A folder that is watched; see ``Source`` in ports.py for who calls what. Delivery is at least once.

    What is claimed is answered for with ``done`` or ``failed``; the journal remembers, also for other daemons on the
    same folder. ``outputs``: folders below the watched one that we write to and never read. ``may_take``: asked before
    files are taken; while it says no (a full disk), they wait.

    ``Key``: the session's name, and the number of the journal's row (one per revision of a file). ``Raw.info``:
    ``path``, ``name`` (below the folder, forward slashes), ``bytes``, ``revision`` (0: never done before), ``attempt``
    (from 1), ``companions`` (kind: path), ``flags`` (what was accepted in doubt), ``frames``, and what ``parse_name``
    reads in the name. Events told: ``folder_gone``, ``folder_back``, ``unreadable_folder``, ``no_folder_events``,
    ``bad_name``, ``changed_later``, ``journal_error``, ``lease_lost``, ``claim_lost``, ``taken_over``.

    ``Failure`` reasons for files that never became complete: ``empty``, ``truncated``, ``frames``, ``companion``,
    ``unreadable``, ``gone``, and others of ``image_header`` (of tomograms, ``volume_header``).
    """

    def __init__(
        self,
        settings: FolderSettings,
        facts: Facts,
        *,
        journal: Path | None = None,
        outputs: Sequence[Path] = (),
        may_take: Callable[[], bool] = lambda: True,
        bell: Bell | None = None,
        header: HeaderOf | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        where = settings.journal or journal
        if where is None:
            raise ValueError("a watched folder needs a journal: name a file")
        self.settings, self.run = settings, settings.run
        self._facts, self._clock, self._wall, self._may_take = facts, clock, wall, may_take
        self.journal = Journal(
            where,
            policy=Policy(settings.attempts, settings.retry_s, settings.deaths),
            lease_s=settings.lease_s,
            facts=facts,
            clock=clock,
            wall=wall,
        )
        ours = _below([where.parent, *outputs], settings.directory)
        scanner = _scanner(settings, facts, ours, clock)
        self._scanner = scanner
        self._list = Watchlist(settings, scanner, self.journal, Completeness(settings, header), clock)
        self._bell: Bell = bell or Wake(facts, [*ours, where])
        self._heart = Heart(self._beat, settings.lease_s / 4)
        self._telling = Telling(facts, self.journal, settings.settle_s, wall)
        self._waits: Sequence[Waits] = ()
        self._began = self._listens = self._closing = False
        self.present = True
        self._next = self._looked = float("-inf")
        self._active = 0.0

    def missing(self) -> str | None:
        """What is wrong with the watched folder at present; None where it is there. For any thread."""
        return None if self.present else f"{self.settings.directory} is not there, or cannot be read"

    @property
    def endpoint(self) -> str:
        """What is read from, in words."""
        return self.settings.listens

    def open(self) -> None:
        """Open the journal and begin to watch; raises ``OSError`` where the journal cannot be used."""
        directory = self.settings.directory
        fresh = self.journal.open({"directory": os.path.abspath(directory), "session": self.run})
        if fresh and self.settings.existing == "ignore":
            self._list.ignore_existing()
        if not directory.is_dir():
            log.warning("%s is not there yet; waiting for it", directory)
        self._heart.start()
        self._active = self._clock()

    def read(self, timeout: float) -> Sequence[Incoming] | None:
        """Files that are complete and nobody else has, within ``claims``; None after ``end_idle_s`` of nothing."""
        if not self._began:
            self._began = True
            about = {"folder": str(self.settings.directory), "layout": self.settings.layout}
            return [RunStart(self.run, {**about, "journal": str(self.journal.path)})]
        now = self._clock()
        if now < self._next:
            if self._bell.wait(min(timeout, self._next - now)):
                # A bell that rings all the time must not turn waiting into looking all the time.
                self._next = min(self._next, self._looked + _LEAST_S)
            now = self._clock()
            if now < self._next:
                return []
        found = self._look(now)
        return None if not found and self._is_over(now) else found

    def done(self, keys: Sequence[Key]) -> None:
        """Every sink has these files: they are never taken again unless they change."""
        self.journal.done([key.number for key in keys])
        self._answered()

    def failed(self, key: Key, reason: str, detail: str) -> None:
        """A file failed, wherever in the pipeline: it is tried again, or set aside. May be told twice."""
        self.journal.failed(key.number, reason, detail)
        self._answered()

    def give_back(self, key: Key) -> None:
        """A file was not worked on, through no fault of its own: it is taken again when ``may_take`` says so."""
        self.journal.give_back(key.number)
        self._answered()

    def record(self, key: Key, numbers: Mapping[str, Any]) -> None:
        """Keep result numbers with a file, for ``beamsieve status``."""
        self.journal.record(key.number, numbers)

    def waiting(self) -> Sequence[Waits]:
        """Which files wait as of the last look, and why; the longest first. Called from any thread."""
        return self._waits

    def waiting_files(self, most: int = 50) -> list[tuple[str, str, float]]:
        """(name, reason, seconds since first seen) of the first ``most`` of ``waiting``. Called from any thread."""
        return [(file.name, file.reason, file.since_s) for file in self._waits[:most]]

    def close(self) -> None:
        """Look no more. The journal stays open until all that was taken is answered for, or ``finish`` is called."""
        self._bell.stop()
        self._closing = True
        self._answered()

    def finish(self) -> None:
        """Give back what was taken and never answered for, and close the journal. May be called more than once."""
        self._bell.stop()
        self._heart.stop()
        self.journal.close()

    def _answered(self) -> None:
        self._active = self._clock()
        if self._closing and not self.journal.held:
            self.finish()
        else:
            self._bell.ring()

    def _beat(self) -> None:
        try:
            freed = self.journal.beat()
        except JournalError as error:
            self._trouble(error)
            return
        if freed:
            self._facts.event("taken_over", len(freed))
            self._bell.ring()
        if self._closing and not self.journal.held:
            self.finish()

    def _trouble(self, error: JournalError) -> None:
        self._facts.event("journal_error")
        log.warning("%s", error)

    def _is_over(self, now: float) -> bool:
        idle = self.settings.end_idle_s
        nothing = self._list.is_empty and not self.journal.held
        self._active = self._active if nothing else now
        return idle is not None and nothing and now - self._active >= idle

    # --- one look ------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> list[Incoming]:
        self._looked, self._next = now, now + self.settings.poll_s
        try:
            seen = self._list.look(now)
            self._listen(seen.present)
            room = self.settings.claims - len(self.journal.held) if self._may_take() else 0
            complete, hopeless = self._list.ready(now, room)
            out = [*self._take(complete, now), *self._give_up(hopeless, now)]
            self._next = now if self._scanner.behind or self._list.more else self._list.next_due(now)
            self._waits = self._list.waits(now)
            self._telling.tell(self._waits, now)
        except JournalError as error:
            self._trouble(error)
            return []
        return out

    def _listen(self, present: bool) -> None:
        """Hear events of the folder once it is there; anew when it comes back, for then it is another one."""
        if present and not self._listens:
            self._bell.stop()
            self._bell.start(self.settings.directory, self.settings.recursive, self.settings.poll_s)
        self._listens = self.present = present

    def _take(self, complete: Sequence[Watched], now: float) -> list[Incoming]:
        if not complete:
            return []
        rows = {row.name: row for row in self.journal.claim([file.found() for file in complete])}
        out: list[Incoming] = []
        for file in complete:
            if file.name in rows:
                self._list.taken(file)
                out.append(self._raw(file, rows[file.name], now))
            else:
                self._list.in_work(file, now)
        return out

    def _raw(self, file: Watched, row: Row, now: float) -> Raw:
        info = {
            **parse_name(self.settings.layout, file.name, self.settings.take),
            "path": file.path,
            "name": file.name,
            "bytes": file.stat.size,
            "revision": row.revision,
            "attempt": row.attempts + 1,
            "companions": dict(paths_of(file)),
            "flags": tuple(file.flags),
        }
        if file.header is not None:
            info["frames"] = file.header.frames
        return Raw(Key(self.run, row.number), STILL_A_FILE, now, self._wall(), info=info)

    def _give_up(self, hopeless: Sequence[Watched], now: float) -> list[Incoming]:
        """Files that stayed incomplete are failures, and set aside at once: they have waited long enough to be sure."""
        if not hopeless:
            return []
        rows = {row.name: row for row in self.journal.claim([file.found() for file in hopeless])}
        out: list[Incoming] = []
        for file in hopeless:
            self._list.in_work(file, now)
            if (row := rows.get(file.name)) is not None:
                detail = f"{file.name}: {file.detail} (the same for {now - file.since:.0f} s)"
                self.journal.give_up(row.number, file.reason, detail)
                out.append(Failure(Key(self.run, row.number), file.reason, detail))
        return out


def _below(folders: Sequence[Path], root: Path) -> list[Path]:
    """Those of the folders that lie below ``root`` and are not it."""
    top = os.path.abspath(root)
    return [path for path in folders if os.path.abspath(path).startswith(os.path.join(top, ""))]


def _scanner(settings: FolderSettings, facts: Facts, skip: Sequence[Path], clock: Callable[[], float]) -> Scanner:
    wanted, excluded = chooser(settings.layout, settings.take, settings.patterns, settings.exclude)
    return Scanner(
        settings.directory,
        wanted,
        excluded,
        facts,
        recursive=settings.recursive,
        follow=settings.follow_symlinks,
        skip=skip,
        recheck_s=settings.recheck_s,
        clock=clock,
    )
