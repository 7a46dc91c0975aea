"""The loss ledger: read = accepted + rejected + failed + dropped + in flight, at every moment."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from .frame import Outcome


@dataclass(frozen=True, slots=True)
class Tally:
    """The ledger at one moment, in shots. ``failed`` and ``dropped`` are split by reason in the two mappings."""

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    dropped: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Shots that were read and have not ended yet."""
        return self.read - self.accepted - self.rejected - self.failed - self.dropped

    @property
    def balanced(self) -> bool:
        """Every shot that was read has ended."""
        return self.in_flight == 0


class Ledger:
    """Counts every shot once in and once out. Any thread may tell it; the columns are changed under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read = 0
        self._ended: Counter[Outcome] = Counter()
        self._failures: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._settled = False

    def read(self, n: int) -> None:
        """``n`` shots came in."""
        with self._lock:
            self._read += n

    def ended(self, accepted: int, rejected: int) -> None:
        """These shots were judged, and every sink has what it keeps of them."""
        with self._lock:
            if not self._settled:
                self._ended[Outcome.ACCEPTED] += accepted
                self._ended[Outcome.REJECTED] += rejected

    def failed(self, reason: str, n: int = 1) -> None:
        """These shots could not be used."""
        with self._lock:
            if not self._settled:
                self._ended[Outcome.FAILED] += n
                self._failures[reason] += n

    def dropped(self, reason: str, n: int = 1) -> None:
        """These shots were left out on purpose: a full queue, an abort, a stale or doubled frame."""
        with self._lock:
            if not self._settled:
                self._ended[Outcome.DROPPED] += n
                self._drops[reason] += n

    def settle(self, reason: str) -> int:
        """Count what is still in flight as dropped and take nothing more; returns how many shots that were."""
        with self._lock:
            left = self._read - self._ended.total()
            if left and not self._settled:
                self._ended[Outcome.DROPPED] += left
                self._drops[reason] += left
            self._settled = True
            return left

    def tally(self) -> Tally:
        """All columns at one moment."""
        with self._lock:
            ended = self._ended
            return Tally(
                self._read,
                ended[Outcome.ACCEPTED],
                ended[Outcome.REJECTED],
                ended[Outcome.FAILED],
                ended[Outcome.DROPPED],
                dict(self._failures),
                dict(self._drops),
            )
