"""The journal's rows: one per revision of a file, and the statements that change them inside a transaction.

Each change gets the number of its transaction (``change``), so that every process can ask for what is new to it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_COLUMNS = "id, name, revision, size, mtime_ns, inode, hash, state, attempts, deaths, retry_at, owner"
_63_BITS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Stat:
    """What a file is recognised by without reading it: size in bytes, modification time in ns, inode."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stat:
        """From ``os.stat``. Some file systems use all 64 bits of an inode, and SQLite's integers are signed."""
        return cls(found.st_size, max(-_63_BITS, min(found.st_mtime_ns, _63_BITS)), found.st_ino & _63_BITS)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be taken: its name below the folder, what it is recognised by, its content hash, its flags."""

    name: str
    stat: Stat
    hash: str
    flags: tuple[str, ...] = ()

    def is_content_of(self, row: Row) -> bool:
        """Whether the row stands for the same content, whatever its times and its inode."""
        return (self.stat.size, self.hash) == (row.stat.size, row.hash)


@dataclass(frozen=True, slots=True)
class Row:
    """One revision of a file. ``retry_at``: not before this ``time.time()``; ``owner``: who claimed it."""

    number: int
    name: str
    revision: int
    stat: Stat
    hash: str
    state: str
    attempts: int = 0
    deaths: int = 0
    retry_at: float = 0.0
    owner: str | None = None


def next_change(database: sqlite3.Connection) -> int:
    """The number of this transaction."""
    database.execute("UPDATE about SET value = value + 1 WHERE name='change'")
    return int(database.execute("SELECT value FROM about WHERE name='change'").fetchone()[0])


def changed(database: sqlite3.Connection, since: int) -> Iterator[tuple[Row, int]]:
    """Rows that changed after the transaction ``since``, in order, each with the number of its last change."""
    for *values, change in database.execute(
        f"SELECT {_COLUMNS}, change FROM files WHERE change > ? ORDER BY change, revision",  # noqa: S608
        (since,),
    ):
        yield _row(values), change


def latest(database: sqlite3.Connection, name: str) -> Row | None:
    """The latest revision of a file."""
    values = database.execute(
        f"SELECT {_COLUMNS} FROM files WHERE name=? ORDER BY revision DESC LIMIT 1",  # noqa: S608
        (name,),
    ).fetchone()
    return None if values is None else _row(values)


def select(database: sqlite3.Connection, number: int) -> Row | None:
    """The row of that number."""
    values = database.execute(f"SELECT {_COLUMNS} FROM files WHERE id=?", (number,)).fetchone()  # noqa: S608
    return None if values is None else _row(values)


def insert(
    database: sqlite3.Connection, file: Found, revision: int, state: str, owner: str | None, now: float, change: int
) -> Row:
    """A new revision of a file."""
    stat = file.stat
    values = (file.name, revision, stat.size, stat.mtime_ns, stat.inode, file.hash, state, " ".join(file.flags))
    number = database.execute(
        "INSERT INTO files (name, revision, size, mtime_ns, inode, hash, state, flags, owner, seen_at, changed_at, "
        "change) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, owner, now, now, change),
    ).lastrowid
    assert number is not None
    return Row(number, file.name, revision, stat, file.hash, state, owner=owner)


def sign(database: sqlite3.Connection, number: int, file: Found, change: int, afresh: bool = False) -> None:
    """Note what the file is recognised by now; ``afresh``: what failed before does not count any more."""
    stat, keep = file.stat, not afresh
    database.execute(
        "UPDATE files SET size=?, mtime_ns=?, inode=?, hash=?, attempts=attempts*?, deaths=deaths*?, change=? "
        "WHERE id=?",
        (stat.size, stat.mtime_ns, stat.inode, file.hash, keep, keep, change, number),
    )


def take(database: sqlite3.Connection, number: int, file: Found, owner: str, now: float, change: int) -> None:
    """Claim a row that nobody has."""
    database.execute(
        "UPDATE files SET state='claimed', owner=?, reason='', detail='', flags=?, changed_at=?, change=? WHERE id=?",
        (owner, " ".join(file.flags), now, change, number),
    )


def answer(
    database: sqlite3.Connection,
    number: int,
    state: str,
    change: int,
    now: float,
    *,
    reason: str = "",
    detail: str = "",
    attempts: int = 0,
    deaths: int = 0,
    retry_at: float = 0.0,
) -> None:
    """End a claim: the row has this state and reason, and one or no attempt or death more."""
    database.execute(
        "UPDATE files SET state=?, owner=NULL, reason=?, detail=?, attempts=attempts+?, deaths=deaths+?, retry_at=?, "
        "changed_at=?, change=? WHERE id=?",
        (state, reason, detail, attempts, deaths, retry_at, now, change, number),
    )


def claims_of(database: sqlite3.Connection, owner: str) -> list[Row]:
    """What an owner has claimed."""
    found = database.execute(f"SELECT {_COLUMNS} FROM files WHERE owner=? AND state='claimed'", (owner,))  # noqa: S608
    return [_row(values) for values in found.fetchall()]


def _row(values: Any) -> Row:
    number, name, revision, size, mtime_ns, inode, digest, *rest = values
    return Row(number, name, revision, Stat(size, mtime_ns, inode), digest, *rest)
