"""The journal's file: an SQLite database that several processes write, opened and checked.

On a disk of this machine it is in WAL mode: readers (``beamsieve status``) and the writer do not wait for each other.
WAL keeps an index in memory that hosts cannot share, so on a network file system the journal has a rollback log
instead (SQLite, "Write-Ahead Logging", section 1). That needs working POSIX locks; where locks fail, a journal on a
local disk is the remedy, and then only daemons of one host can share it. Every change is synced before it counts
(``synchronous=FULL``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

APPLICATION = 0x62734A4C  # "bsJL"
VERSION = 1
BUSY_S = 20.0
STATES = ("waiting", "claimed", "done", "failed", "set_aside", "ignored")
_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "glusterfs", "fuse.", "ncp", "panfs")
_HEADER = b"SQLite format 3\x00"

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO about VALUES ('change', 0);
CREATE TABLE files (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  revision INTEGER NOT NULL,
  size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, hash TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed', 'done', 'failed', 'set_aside', 'ignored')),
  attempts INTEGER NOT NULL DEFAULT 0,
  deaths INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', flags TEXT NOT NULL DEFAULT '',
  owner TEXT,
  seen_at REAL NOT NULL, changed_at REAL NOT NULL, retry_at REAL NOT NULL DEFAULT 0,
  numbers TEXT NOT NULL DEFAULT '{}',
  change INTEGER NOT NULL,
  UNIQUE (name, revision));
CREATE INDEX files_change ON files (change);
CREATE INDEX files_state ON files (state);
CREATE TABLE owners (
  owner TEXT PRIMARY KEY,
  host TEXT NOT NULL, place TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL,
  beat INTEGER NOT NULL, beat_at REAL NOT NULL, waits TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
CREATE TABLE waiting (
  owner TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, since_at REAL NOT NULL,
  PRIMARY KEY (owner, name)) WITHOUT ROWID;
"""


class JournalError(OSError):
    """The journal cannot be used: no journal, of a newer version, locked, or on a full disk; says the remedy."""


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """What SQLite has to say, as a ``JournalError`` that names the file and a remedy."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}; {_remedy(error)}") from error


def _remedy(error: sqlite3.Error) -> str:
    text = str(error)
    if isinstance(error, sqlite3.DatabaseError) and ("not a database" in text or "malformed" in text):
        return "the journal is damaged or no journal: name another file (journal), or move this one away"
    if "locked" in text or "busy" in text or "locking" in text:
        return "another process holds it, or its file system has no locks: put the journal on a local disk"
    if "full" in text:
        return "make room on its disk"
    return "can it be written, and does its file system have locks? A journal on a local disk has"


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal, made where it is missing; transactions are the caller's. Raises ``JournalError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists() or path.stat().st_size == 0
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}; name a journal that can be written") from None
    if not fresh:
        recognise(path)
    with errors(path):
        database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA synchronous=FULL")
            _set_up(database, path)
        except BaseException:
            database.close()
            raise
    return database


def recognise(path: Path) -> None:
    """Raise ``JournalError`` for a file that is no SQLite database at all, before SQLite would touch it."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}; name a journal that can be read") from None
    if start != _HEADER:
        raise JournalError(f"{path}: is not a journal of beamsieve; name another file, or move this one away")


def check(database: sqlite3.Connection, path: Path) -> bool:
    """Whether the schema is there; raises ``JournalError`` for another program's database or a newer version."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not application and not tables:
        return False
    if application != APPLICATION:
        raise JournalError(f"{path}: a database, but not a journal of beamsieve; name another file")
    if version > VERSION:
        raise JournalError(
            f"{path}: written by a newer beamsieve (journal version {version}, this one knows {VERSION}); "
            "update beamsieve or name another journal"
        )
    return True


def _set_up(database: sqlite3.Connection, path: Path) -> None:
    made = False
    with transaction(database):
        if not check(database, path):
            for statement in _SCHEMA.strip().removesuffix(";").split(";\n"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id={APPLICATION}")
            database.execute(f"PRAGMA user_version={VERSION}")
            made = True
    # The mode is the file's, not the connection's: an existing journal keeps what its maker chose, except that WAL
    # cannot be shared over a network.
    mode = database.execute("PRAGMA journal_mode").fetchone()[0]
    far = is_network(path)
    if made and not far:
        _switch(database, "WAL")
    elif far and mode == "wal" and _switch(database, "DELETE") != "delete":
        raise JournalError(
            f"{path}: is in use on the host of its disk in a mode that cannot be shared over a network; "
            "stop the daemon there, or name a journal of our own"
        )


def _switch(database: sqlite3.Connection, mode: str) -> str:
    try:
        return str(database.execute(f"PRAGMA journal_mode={mode}").fetchone()[0])
    except sqlite3.OperationalError:
        return ""  # somebody else has it open: it works in either mode


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and nobody else writes between; raises ``sqlite3.OperationalError`` without the lock."""
    # IMMEDIATE: a transaction that reads first and writes later would be refused when another wrote between.
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def is_network(path: Path) -> bool:
    """Whether the file lies on a network file system, as far as Linux says; False where it says nothing."""
    real = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                _, where, found, *_ = line.split(" ")
                point = where.replace("\\040", " ").rstrip("/") + "/"
                if real.startswith(point) and len(point) >= len(best):
                    best, kind = point, found
    except (OSError, ValueError):
        return False
    return kind.startswith(_NETWORK)
