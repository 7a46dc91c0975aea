"""Why files wait, told: to the metrics in every look, to the log now and then, to the journal where it changed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from ...flow.ports import Facts
from .journal import Journal
from .watchlist import Waits

log = logging.getLogger(__name__)

_SAY_S = 60.0
_NOTE_S = 5.0
_NOTED = 1000


@runtime_checkable
class WaitingFacts(Protocol):
    """Facts that also want to hear of files that wait; ``Metrics`` does."""

    def waiting(self, reasons: Mapping[str, int], oldest_s: float) -> None:
        """So many files wait, by reason, the oldest for so many seconds."""


class Telling:
    """Says which files wait. ``patience_s``: files that wait no longer than this are nothing to be logged."""

    def __init__(self, facts: Facts, journal: Journal, patience_s: float, wall: Callable[[], float]) -> None:
        self._facts, self._journal, self._patience_s, self._wall = facts, journal, patience_s, wall
        self._noted: list[tuple[str, str]] = []
        self._said_at = self._noted_at = float("-inf")

    def tell(self, waits: Sequence[Waits], now: float) -> None:
        """These wait, the longest first, at ``now`` (monotonic seconds). Raises ``JournalError``."""
        reasons = Counter(file.reason for file in waits)
        if isinstance(self._facts, WaitingFacts):
            self._facts.waiting(reasons, waits[0].since_s if waits else 0.0)
        if waits and waits[0].since_s > self._patience_s and now - self._said_at >= _SAY_S:
            self._said_at = now
            self._say(waits, reasons)
        # The journal has the longest waiting ones by name, and the number of all.
        listed = [(file.name, file.reason) for file in waits[:_NOTED]]
        if listed != self._noted and now - self._noted_at >= _NOTE_S:
            self._noted, self._noted_at = listed, now
            wall = self._wall()
            self._journal.wait(
                [(file.name, file.reason, file.detail, wall - file.since_s) for file in waits[:_NOTED]], reasons
            )

    def _say(self, waits: Sequence[Waits], reasons: Counter[str]) -> None:
        why = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        first = waits[0]
        log.info("%d files wait: %s; %s for %.0f s: %s", len(waits), why, first.name, first.since_s, first.detail)
