"""The journal of a watched folder: which files are taken, done, failed or set aside, shared by several daemons."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from ...flow.ports import Facts, NoFacts
from . import rows, set_aside
from .database import connect, errors, transaction
from .leases import Leases
from .policy import Policy, SetAside
from .rows import Found, Row

log = logging.getLogger(__name__)

Waiting: TypeAlias = tuple[str, str, str, float]


class Journal:
    """One daemon's view of a journal. Every method may be called from any thread; several processes share the file.

    A file is ``claimed`` by one owner, then ``done``, or ``failed`` and tried again until ``attempts`` are used up and
    it is ``set_aside`` with a JSON file that says why. ``waiting`` files were given back: by ``beamsieve retry``, or
    because their owner died. A row is a revision of a file: one that changes after it was done begins a new one.

    What the sinks say (``done``, ``failed``, ``record``) is kept until it can be written, so that a locked journal or a
    full disk does not end the daemon: it goes with the next beat or claim. The other methods raise ``JournalError``.
    """

    def __init__(
        self,
        path: Path,
        *,
        policy: Policy | None = None,
        lease_s: float = 120.0,
        facts: Facts | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.held: set[int] = set()
        self._policy = policy or Policy()
        self._facts: Facts = NoFacts() if facts is None else facts
        self._wall = wall
        self._leases = Leases(lease_s, clock, wall)
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._rows: dict[str, Row] = {}
        self._change = 0
        self._owed: list[tuple[str, int, tuple[str, ...]]] = []
        self._set_aside: list[SetAside] = []
        self._taken_up: list[str] = []

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._database is not None

    def open(self, about: Mapping[str, str] | None = None) -> bool:
        """Open or make the file and take over from the dead; True where it is new. Raises ``JournalError``.

        ``about``: what the journal is of, shown by ``beamsieve status``.
        """
        with self._lock:
            self._database = connect(self.path)
            try:
                with self._writing() as (database, _):
                    fresh = database.execute("SELECT 1 FROM about WHERE name='began'").fetchone() is None
                    said = {"began": self._wall()} if fresh else {}
                    for item in {**said, **(about or {})}.items():
                        database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", item)
                    self._leases.register(database)
                self.beat()
                self.refresh()
            except BaseException:
                self._close()
                raise
            return fresh

    def close(self) -> None:
        """Give back what is claimed and not answered for, and close. Does nothing on a closed journal."""
        with self._lock:
            if self._database is None:
                return
            try:
                with self._writing() as (database, change):
                    for row in rows.claims_of(database, self._leases.us.owner):
                        rows.answer(database, row.number, "waiting", change, self._wall())
                    self._leases.leave(database)
            except OSError as error:
                log.warning("the journal could not be told that we end: %s", error)
            self.held.clear()
            self._close()

    # --- what is known -------------------------------------------------------------------------------------------

    def refresh(self) -> Sequence[Row]:
        """Read what changed since the last call, also by other processes; returns the rows that did."""
        with self._lock, errors(self.path):
            found = []
            for row, change in list(rows.changed(self._open, self._change)):
                self._change = max(self._change, change)
                if row.name not in self._rows or self._rows[row.name].revision <= row.revision:
                    self._rows[row.name] = row
                    found.append(row)
            return found

    def get(self, name: str) -> Row | None:
        """The latest revision of a file, as of the last ``refresh``."""
        return self._rows.get(name)

    def is_due(self, row: Row) -> bool:
        """Whether a file that was given back or failed may be tried now."""
        return self._policy.is_due(row, self._wall())

    # --- taking --------------------------------------------------------------------------------------------------

    def claim(self, files: Sequence[Found]) -> list[Row]:
        """Take those that nobody has and that are not done; returns their rows, in order.

        A file whose times changed and whose content did not is only noted. Raises ``JournalError``: nothing is taken.
        """
        with self._lock:
            with self._writing() as (database, change):
                taken = [row for file in files if (row := self._claim(database, file, change))]
            self.held |= {row.number for row in taken}
            self.refresh()
            return taken

    def _claim(self, database: sqlite3.Connection, file: Found, change: int) -> Row | None:
        taken = self._policy.take(database, file, self._leases.us.owner, self._wall(), change)
        if taken is None:
            return None
        if taken.later:
            self._facts.event("changed_later")
        if taken.was_set_aside:
            self._taken_up.append(file.name)
        return taken.row

    def ignore(self, files: Sequence[Found]) -> None:
        """Note files as not to be taken unless they change."""
        with self._lock:
            with self._writing() as (database, change):
                for file in files:
                    if rows.latest(database, file.name) is None:
                        rows.insert(database, file, 0, "ignored", None, self._wall(), change)
            self.refresh()

    # --- answering -----------------------------------------------------------------------------------------------

    def done(self, numbers: Iterable[int]) -> None:
        """The work on these is done, and will never be taken again unless they change."""
        self._owe([("done", number, ()) for number in numbers])

    def failed(self, number: int, reason: str, detail: str) -> None:
        """One of ours failed: it is tried again after ``retry_s``, or set aside when its attempts are used up.

        A number that we do not hold changes nothing, so a failure may be told twice.
        """
        self._owe([("failed", number, (reason, detail))])

    def give_up(self, number: int, reason: str, detail: str) -> None:
        """Set one of ours aside without another attempt."""
        self._owe([("set_aside", number, (reason, detail))])

    def give_back(self, number: int) -> None:
        """One of ours was not worked on, through no fault of its own: it may be taken again, with no attempt more."""
        self._owe([("waiting", number, ())])

    def record(self, number: int, numbers: Mapping[str, Any]) -> None:
        """Keep result numbers (plain JSON values) with a file, for ``beamsieve status``."""
        self._owe([("record", number, (json.dumps(dict(numbers)),))])

    def _owe(self, what: Sequence[tuple[str, int, tuple[str, ...]]]) -> None:
        with self._lock:
            self._owed += what
            if self._database is None or not self._owed:
                return
            try:
                with self._writing():
                    pass
            except OSError as error:
                self._facts.event("journal_error")
                log.warning("the journal cannot be written now: %s", error)

    def _answer(self, database: sqlite3.Connection, change: int, what: str, number: int, said: tuple[str, ...]) -> None:
        if what == "record":
            database.execute("UPDATE files SET numbers=?, change=? WHERE id=?", (*said, change, number))
            return
        row, now = rows.select(database, number), self._wall()
        if row is None or row.state != "claimed" or row.owner != self._leases.us.owner:
            if number in self.held:
                self._facts.event("claim_lost")
            return
        if what in {"done", "waiting"}:
            rows.answer(database, number, what, change, now)
            return
        reason, detail = said
        aside = self._policy.fail(database, row, reason, detail, now, change, last=what == "set_aside")
        if aside is not None:
            self._set_aside.append(aside)

    # --- living and dying ----------------------------------------------------------------------------------------

    def beat(self) -> list[Row]:
        """Give a sign of life, and give back what the dead had; returns their files. Raises ``JournalError``."""
        with self._lock:
            freed: list[Row] = []
            with self._writing() as (database, change):
                if not self._leases.beat(database):
                    self._facts.event("lease_lost")
                for owner in self._leases.dead(database):
                    found = rows.claims_of(database, owner.owner)
                    level = logging.WARNING if found else logging.INFO
                    log.log(level, "process %d on %s ended with %d files in work", owner.pid, owner.host, len(found))
                    buried = [self._policy.bury(database, row, self._wall(), change) for row in found]
                    self._set_aside += filter(None, buried)
                    self._leases.leave(database, owner.owner)
                    freed += found
            return freed

    def wait(self, files: Sequence[Waiting], counts: Mapping[str, int]) -> None:
        """Say which files wait: name, reason, detail, since when (``time.time()``); and how many, by reason.

        Replaces what we said before. For ``beamsieve status``.
        """
        with self._lock, self._writing() as (database, _):
            us = self._leases.us.owner
            database.execute("DELETE FROM waiting WHERE owner=?", (us,))
            database.executemany("INSERT INTO waiting VALUES (?, ?, ?, ?, ?)", [(us, *file) for file in files])
            database.execute("UPDATE owners SET waits=? WHERE owner=?", (json.dumps(dict(counts)), us))

    # --- the file ------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._database is not None, "the journal is not open"
        return self._database

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A transaction and its number. What is owed goes first, and is owed no more once it is committed."""
        owed = len(self._owed)
        self._set_aside.clear()
        self._taken_up.clear()
        with errors(self.path), transaction(self._open):
            change = rows.next_change(self._open)
            for item in self._owed[:owed]:
                self._answer(self._open, change, *item)
            yield self._open, change
        self.held -= {number for what, number, _ in self._owed[:owed] if what != "record"}
        del self._owed[:owed]
        # Only after the commit: what was rolled back did not happen.
        for name in self._taken_up:
            set_aside.forget(self.path, name)
        for aside in self._set_aside:
            set_aside.remember(self.path, aside, self._wall())

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
