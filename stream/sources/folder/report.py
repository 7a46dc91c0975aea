"""What a journal says, for people: read beside a running daemon, without a lock. And putting files back to be tried."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import set_aside
from .database import STATES, JournalError, check, connect, errors, recognise, transaction
from .owners import Owner
from .patterns import Test
from .rows import next_change


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that works on the journal. ``alive`` is None for another host; ``beat_s`` by that host's clock."""

    host: str
    pid: int
    alive: bool | None
    beat_s: float
    in_work: int


@dataclass(frozen=True, slots=True)
class File:
    """A file in the journal. ``for_s``: how long it has been so; ``numbers``: what was found in it."""

    name: str
    revision: int
    reason: str
    detail: str
    for_s: float
    attempts: int
    deaths: int
    who: str
    flags: tuple[str, ...]
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """A journal at one moment. ``counts``: files by state; ``waits``: files that are not complete, by reason."""

    path: str
    about: Mapping[str, Any]
    counts: Mapping[str, int]
    waits: Mapping[str, int]
    daemons: Sequence[Daemon]
    waiting: Sequence[File]
    in_work: Sequence[File]
    to_retry: Sequence[File]
    set_aside: Sequence[File]
    done: Sequence[File]


def report(path: Path, limit: int = 20, wall: Callable[[], float] = time.time) -> Report:
    """Read a journal; at most ``limit`` files of each kind. Raises ``JournalError`` where it cannot be read."""
    recognise(path)
    now = wall()
    with errors(path):
        database = _connect_to_read(path)
        try:
            database.execute("BEGIN")  # all that follows is one moment
            if not check(database, path):
                raise JournalError(f"{path}: an empty database, and no journal of beamsieve; name another file")
            return _read(database, path, limit, now)
        finally:
            database.close()


def _connect_to_read(path: Path) -> sqlite3.Connection:
    # In a folder that may not be written, SQLite cannot make the index that WAL needs even for reading.
    problem: sqlite3.OperationalError | None = None
    for options in ("mode=ro", "mode=ro&immutable=1"):
        database: sqlite3.Connection | None = None
        try:
            database = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{options}", uri=True, timeout=5.0)
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return database
        except sqlite3.OperationalError as error:
            problem = error
            if database is not None:
                database.close()
            if "unable to open" not in str(error) and "readonly" not in str(error):
                break
    assert problem is not None
    raise problem


def _read(database: sqlite3.Connection, path: Path, limit: int, now: float) -> Report:
    owners = {
        values[0]: (Owner(*values[:5]), *values[5:])
        for values in database.execute("SELECT owner, host, place, pid, started, beat_at, waits FROM owners")
    }
    dead = {name for name, (owner, *_) in owners.items() if owner.is_alive() is False}
    counts: dict[str, int] = dict.fromkeys(STATES, 0)
    counts |= dict(database.execute("SELECT state, count(*) FROM files GROUP BY state"))
    held = dict(database.execute("SELECT owner, count(*) FROM files WHERE state='claimed' GROUP BY owner"))
    waits: dict[str, int] = {}
    for name, (_, _, said) in owners.items():
        for reason, n in json.loads(said).items() if name not in dead else ():
            waits[reason] = max(n, waits.get(reason, 0))  # two daemons on one folder see the same files
    who = {name: f"process {owner.pid} on {owner.host}" for name, (owner, *_) in owners.items()}

    def files(state: str, newest: bool = False) -> list[File]:
        return [_file(values, now, who) for values in database.execute(_FILES[newest], (state, limit))]

    return Report(
        str(path),
        dict(database.execute("SELECT name, value FROM about WHERE name <> 'change'")),
        counts,
        waits,
        [
            Daemon(owner.host, owner.pid, owner.is_alive(), now - beat_at, held.get(name, 0))
            for name, (owner, beat_at, _) in owners.items()
        ],
        _waiting(database, dead, limit, now),
        files("claimed"),
        files("failed"),
        files("set_aside", newest=True),
        files("done", newest=True),
    )


_COLUMNS = "name, revision, reason, detail, changed_at, attempts, deaths, owner, flags, numbers"
_FILES = {
    False: f"SELECT {_COLUMNS} FROM files WHERE state=? ORDER BY changed_at, id LIMIT ?",  # noqa: S608
    True: f"SELECT {_COLUMNS} FROM files WHERE state=? ORDER BY changed_at DESC, id DESC LIMIT ?",  # noqa: S608
}


def _file(values: Sequence[Any], now: float, who: Mapping[str, str]) -> File:
    name, revision, reason, detail, at, attempts, deaths, owner, flags, numbers = values
    by = who.get(owner, "")
    return File(
        name, revision, reason, detail, now - at, attempts, deaths, by, tuple(flags.split()), json.loads(numbers)
    )


def _waiting(database: sqlite3.Connection, dead: set[str], limit: int, now: float) -> list[File]:
    found: dict[str, File] = {}
    for owner, name, reason, detail, since in database.execute("SELECT * FROM waiting ORDER BY since_at"):
        if owner not in dead and name not in found and len(found) < limit:
            found[name] = File(name, 0, reason, detail, now - since, 0, 0, "", (), {})
    return list(found.values())


def put_back(path: Path, wanted: Test | None, reason: str | None, wall: Callable[[], float] = time.time) -> list[str]:
    """Let files be tried again as if they had never failed; returns their names. A daemon notices in its next look.

    Those that are set aside or failed, all of them or with this ``reason`` only; ``wanted`` (a test of the name) also
    finds files that were ignored because they were there before the daemon. Raises ``JournalError``.
    """
    recognise(path)
    states = ("set_aside", "failed", "ignored") if wanted else ("set_aside", "failed")
    database = connect(path)
    try:
        with errors(path), transaction(database):
            change, back = next_change(database), []
            marks = ",".join("?" * len(states))
            for number, name, why in database.execute(
                f"SELECT id, name, reason FROM files WHERE state IN ({marks}) ORDER BY id",  # noqa: S608 - only marks
                states,
            ).fetchall():
                if (wanted is None or wanted(name)) and reason in {None, why}:
                    database.execute(
                        "UPDATE files SET state='waiting', attempts=0, deaths=0, retry_at=0, changed_at=?, change=? "
                        "WHERE id=?",
                        (wall(), change, number),
                    )
                    back.append(name)
    finally:
        database.close()
    for name in back:
        set_aside.forget(path, name)
    return back
