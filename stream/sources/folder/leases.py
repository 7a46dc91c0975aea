"""Leases: who works on this journal, told by heartbeats that are numbers, and who gave no sign for too long."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from .owners import Owner


class Leases:
    """Our own heartbeat, and what we saw of others'. Its methods run inside a transaction of the journal.

    An owner is dead when its process is known to be gone, or when its number did not go up for ``lease_s`` seconds on
    *our* monotonic clock since we first saw it: two hosts' clocks are never compared.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.us = Owner.ourselves()
        self._lease_s, self._clock, self._wall = lease_s, clock, wall
        self._seen: dict[str, tuple[int, float]] = {}

    def register(self, database: sqlite3.Connection) -> None:
        """Begin to work."""
        us = self.us
        database.execute(
            "INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?, 0, ?, '{}')",
            (us.owner, us.host, us.place, us.pid, us.started, self._wall()),
        )

    def beat(self, database: sqlite3.Connection) -> bool:
        """Give a sign of life; False where others took us for dead, and we begin anew."""
        query = "UPDATE owners SET beat=beat+1, beat_at=? WHERE owner=?"
        if database.execute(query, (self._wall(), self.us.owner)).rowcount:
            return True
        self.register(database)
        return False

    def leave(self, database: sqlite3.Connection, owner: str | None = None) -> None:
        """Forget an owner, us by default, and what it said of waiting files."""
        for table in ("owners", "waiting"):
            database.execute(f"DELETE FROM {table} WHERE owner=?", (owner or self.us.owner,))  # noqa: S608

    def dead(self, database: sqlite3.Connection) -> list[Owner]:
        """The others that do not live any more."""
        now, found = self._clock(), []
        rows = database.execute("SELECT owner, host, place, pid, started, beat FROM owners").fetchall()
        self._seen = {owner: seen for owner, seen in self._seen.items() if owner in {row[0] for row in rows}}
        for *values, beat in rows:
            other = Owner(*values)
            if other.owner == self.us.owner:
                continue
            last, since = self._seen.get(other.owner, (None, now))
            if last != beat:
                since = now
            self._seen[other.owner] = (beat, since)
            if now - since > self._lease_s or other.is_alive() is False:
                found.append(other)
        return found
