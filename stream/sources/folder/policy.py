"""Who may be claimed, and what becomes of a claim: tried again, set aside, or given back because its owner died."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from . import rows
from .rows import Found, Row

KILLED = "killed"


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file that was set aside: its row, why, and after how many attempts."""

    row: Row
    reason: str
    detail: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A claim: its row, whether the file is one that changed after it was done, and whether it was set aside."""

    row: Row
    later: bool = False
    was_set_aside: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a file is tried, the time between, and how often a daemon may be killed while it is in work."""

    attempts: int = 3
    retry_s: float = 60.0
    deaths: int = 5

    def is_due(self, row: Row, wall: float) -> bool:
        """Whether a file that was given back or failed may be tried at ``wall`` (``time.time()``)."""
        if row.state != "failed":
            return row.state == "waiting"
        # A wait longer than we would ever set means that the clock was put back.
        return not 0 < row.retry_at - wall <= self.retry_s

    def take(self, database: sqlite3.Connection, file: Found, owner: str, wall: float, change: int) -> Taken | None:
        """Claim a file that is new, changed, given back or to be tried again; None where it is not to be taken."""
        row = rows.latest(database, file.name)
        if row is None:
            return Taken(rows.insert(database, file, 0, "claimed", owner, wall, change))
        if file.is_content_of(row):
            if row.stat != file.stat:
                rows.sign(database, row.number, file, change)
            if not self.is_due(row, wall):
                return None
        elif row.state in {"done", "ignored"}:
            return Taken(rows.insert(database, file, row.revision + 1, "claimed", owner, wall, change), later=True)
        elif row.state == "claimed":
            return None  # the older content is in work: the new one's turn comes when that is answered for
        else:
            # This revision was never done, and the content that failed is gone: the new one starts afresh.
            rows.sign(database, row.number, file, change, afresh=True)
            row = replace(row, attempts=0, deaths=0)
        rows.take(database, row.number, file, owner, wall, change)
        taken = replace(row, stat=file.stat, hash=file.hash, state="claimed", owner=owner)
        return Taken(taken, was_set_aside=row.state == "set_aside")

    def fail(
        self, database: sqlite3.Connection, row: Row, reason: str, detail: str, wall: float, change: int, last: bool
    ) -> SetAside | None:
        """A claim ended in failure; ``last``: another attempt is of no use. Gives what was set aside, if it was."""
        tried = row.attempts + 1
        last = last or tried >= self.attempts
        rows.answer(
            database,
            row.number,
            "set_aside" if last else "failed",
            change,
            wall,
            reason=reason,
            detail=detail,
            attempts=1,
            retry_at=wall + self.retry_s,
        )
        return SetAside(row, reason, detail, tried) if last else None

    def bury(self, database: sqlite3.Connection, row: Row, wall: float, change: int) -> SetAside | None:
        """A claim's owner died: the file is given back, or set aside where it may be what kills."""
        deaths = row.deaths + 1
        if deaths < self.deaths:
            rows.answer(database, row.number, "waiting", change, wall, deaths=1)
            return None
        detail = f"{row.name}: the daemon was killed {deaths} times while it worked on this file: it may be the cause"
        rows.answer(database, row.number, "set_aside", change, wall, reason=KILLED, detail=detail, deaths=1)
        return SetAside(row, KILLED, detail, row.attempts)
