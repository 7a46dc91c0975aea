"""Sequence numbers of one series: which are new, which came twice, which never came."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TypeAlias

Gap: TypeAlias = tuple[int, int, bool]
_GAPS = 256
_FAILED = 256


class Arrival(Enum):
    """What the arrival of a number means."""

    NEW = "new"
    LATE = "late"
    DUPLICATE = "duplicate"


class Sequence:
    """Follows numbers that should come as 0, 1, 2 … with some out of order.

    A number is missing once one ``window`` larger has come, or the series is over. ``missing`` counts them, and is
    never lowered: a missing number that comes after all is ``LATE``. ``first``: numbers below it were sent before we
    listened; they are not missing, and new when they come. With ``counts=False`` (the numbers are shared among several
    receivers, so gaps mean nothing) only duplicates within the window are found. A jump of more than ``max_jump`` is
    believed when the next number follows it: one corrupt number must not make all that follow look old. ``repeats``
    counts duplicates that came in a row and in order, which is how a sender looks that began again without saying so.
    Memory is bounded by ``window``, and by 256 remembered gaps and failures.
    """

    def __init__(self, first: int = 0, *, window: int = 64, counts: bool = True, max_jump: int = 1 << 20) -> None:
        self.missing = 0
        self.repeats = 0
        self._next = first
        self._ahead: set[int] = set()
        self._failed: set[int] = set()
        self._gaps: deque[Gap] = deque([(0, first, False)] if first else [], maxlen=_GAPS)
        self._window = window
        self._counts = counts
        self._max_jump = max_jump
        self._jumped = -1
        self._repeated = -1

    @property
    def seen_to(self) -> int:
        """One more than the largest number seen."""
        return max(self._ahead) + 1 if self._ahead else self._next

    @property
    def came_to(self) -> int:
        """As ``seen_to``, with those that came and could not be used."""
        return max(self.seen_to, max(self._failed, default=-1) + 1)

    def fail(self, number: int) -> None:
        """Note that ``number`` came and could not be used: it is not missing, and still new if it comes again."""
        if 0 <= number - self._next <= self._max_jump and len(self._failed) < _FAILED:
            self._failed.add(number)

    def arrive(self, number: int) -> Arrival:
        """Note the arrival of ``number`` (at least 0)."""
        if number == self._next:
            self._next += 1
            self.repeats = 0
            if self._ahead:
                self._catch_up()
            return Arrival.NEW
        arrival = self._behind(number) if number < self._next else self._before(number)
        if arrival is Arrival.DUPLICATE:
            self.repeats = self.repeats + 1 if number == self._repeated + 1 else 1
            self._repeated = number
        else:
            self.repeats = 0
        return arrival

    def finish(self) -> None:
        """The series is over: what is missing below the largest number seen stays missing."""
        self._settle(self.seen_to)

    def _before(self, number: int) -> Arrival:
        """A number larger than the next one expected."""
        if number in self._ahead:
            return Arrival.DUPLICATE
        if number - self._next > self._max_jump and not self._believe(number):
            return Arrival.NEW
        self._ahead.add(number)
        if number - self._next >= self._window:
            self._settle(number - self._window + 1)
        return Arrival.NEW

    def _behind(self, number: int) -> Arrival:
        """A number smaller than the next one expected: it fills a gap, or it has been here."""
        for index, (start, stop, counted) in enumerate(self._gaps):
            if start <= number < stop:
                del self._gaps[index]
                for part in ((start, number, counted), (number + 1, stop, counted)):
                    if part[0] < part[1] and len(self._gaps) < _GAPS:
                        self._gaps.insert(index, part)
                return Arrival.LATE if counted and self._counts else Arrival.NEW
        return Arrival.DUPLICATE

    def _catch_up(self) -> None:
        while self._next in self._ahead:
            self._ahead.remove(self._next)
            self._next += 1

    def _believe(self, number: int) -> bool:
        follows = 0 < number - self._jumped <= self._window
        self._jumped = number
        return follows

    def _settle(self, floor: int) -> None:
        """Everything below ``floor`` that has not come is missing."""
        while self._next < floor:
            stop = min(min(self._ahead, default=floor), floor)
            if stop > self._next:
                self._gaps.append((self._next, stop, True))
                failed = {number for number in self._failed if number < stop}
                self._failed -= failed
                lost = stop - self._next - sum(number >= self._next for number in failed)
                self.missing += lost if self._counts else 0
            self._next = stop
            self._catch_up()
