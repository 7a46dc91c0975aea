"""Which run an image belongs to: starts, ends, restarts, and what comes late, twice or uninvited."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..flow.frame import EMPTY, Discard, Failure, Key, RunEnd, RunStart
from ..flow.ports import Facts
from .sequence import Arrival, Sequence

SeriesId: TypeAlias = tuple[int, str]
Mark: TypeAlias = RunStart | RunEnd

_STRAYS = 3
_PAST = 64
_NAMES = 10_000


@dataclass(slots=True)
class _Series:
    """One series: its run's name, what its start said, its numbers; once over, why and since when (monotonic s).

    ``started``: whether a start message came. ``told``: how many missing numbers were told of.
    """

    id: SeriesId
    run: str
    info: Mapping[str, Any]
    sequence: Sequence
    started: bool = False
    told: int = 0
    ended: str = ""
    since: float = 0.0


@dataclass(slots=True)
class Book:
    """Keeps the one open run of a stream, and remembers the last ones.

    A series is named by its number and, in stream 2, by its unique text. Its run is called ``12``; when a run of that
    number has been before, ``12.2``, ``12.3`` and so on. ``shared``: other receivers take images, starts and ends of
    the same sender, so gaps mean nothing and an unknown series is believed at once. ``window``: see ``Sequence``.
    ``stale_s``: images that come later than this after the end of their series open a run of their own instead of
    being stale, because some senders count their series from 1 again after a reboot.
    """

    facts: Facts
    shared: bool = False
    window: int = 64
    stale_s: float = 30.0
    open: _Series | None = None
    _past: OrderedDict[SeriesId, _Series] = field(default_factory=OrderedDict)
    _names: OrderedDict[int, int] = field(default_factory=OrderedDict)
    _strays: tuple[SeriesId, int] = ((-1, ""), 0)

    def start(self, series: SeriesId, info: Mapping[str, Any], now: float) -> list[Mark]:
        """A start message came."""
        if self.open is not None and self.open.id == series and series[1]:
            # The same unique text names the same series: a sender with several sockets says it on each.
            if self.open.started:
                self.facts.event("start_again")
                return []
            self.facts.event("start_late")
            sequence = self.open.sequence
            return [*self.close("superseded", now), self._begin(series, info, 0, sequence, started=True)]
        marks: list[Mark] = []
        if self.open is not None:
            again = self.open.id[0] == series[0]
            self.facts.event("restart" if again else "no_end")
            marks += self.close("aborted" if again else "superseded", now)
        return [*marks, self._begin(series, info, 0, started=True)]

    def end(self, series: SeriesId, now: float) -> list[Mark]:
        """An end message came."""
        if self.open is None or self.open.id != series:
            self.facts.event("end_again" if series in self._past else "stray_end")
            return []
        expected = self.open.info.get("images_expected")
        if isinstance(expected, int) and not self.shared:
            short = expected - self.open.sequence.came_to
            if short > 0:
                self.facts.event("short", short)
        return self.close("end", now)

    def image(self, series: SeriesId, number: int, now: float) -> tuple[list[Mark], Key | Discard | Failure]:
        """An image came: marks to send before it, and its key, or why it is not to be analysed."""
        current = self.open
        if current is None or current.id != series:
            marks, refused = self._foreign(series, number, now)
            if refused is not None:
                return marks, refused
            current = self.open
        else:
            marks = []
        assert current is not None
        key = Key(current.run, number)
        arrival = current.sequence.arrive(number)
        if arrival is Arrival.NEW:
            if current.sequence.missing != current.told:
                self._tell(current)
            return marks, key
        if arrival is Arrival.LATE:
            self.facts.event("late")
            return marks, key
        if current.sequence.repeats < self.window:
            return marks, Discard(key, "duplicate")
        self.facts.event("restart")
        marks += self.close("aborted", now)
        marks.append(self._begin(series, EMPTY, number))
        return marks, self.image(series, number, now)[1]

    def failed(self, series: int, number: int) -> str:
        """An image came and could not be used; it is not missing. Gives the name of its run."""
        if self.open is None or self.open.id[0] != series:
            return str(series)
        self.open.sequence.fail(number)
        return self.open.run

    def close(self, reason: str, now: float) -> list[Mark]:
        """End the open run, if there is one."""
        current = self.open
        if current is None:
            return []
        current.sequence.finish()
        self._tell(current)
        current.ended, current.since = reason, now
        self._past[current.id] = current
        self._past.move_to_end(current.id)
        if len(self._past) > _PAST:
            self._past.popitem(last=False)
        self.open = None
        return [RunEnd(current.run, reason)]

    def _foreign(self, series: SeriesId, number: int, now: float) -> tuple[list[Mark], Discard | Failure | None]:
        """An image of a series that is not open: stale, or the first of a series whose start we did not see."""
        past = self._past.get(series)
        if past is not None and past.ended != "idle" and now - past.since <= self.stale_s:
            return [], Discard(Key(past.run, number), "stale")
        if self.open is not None:
            self._strays = (series, self._strays[1] + 1 if self._strays[0] == series else 1)
            if self._strays[1] < _STRAYS and not self.shared:
                detail = f"image {number} of series {series[0]}, which was not started, while {self.open.id[0]} runs"
                return [], Failure(Key(str(series[0]), number), "series", detail)
            self.facts.event("no_end")
        marks = self.close("superseded", now)
        if past is not None and (series[1] or past.ended == "idle"):
            self.facts.event("resumed")
            marks.append(self._begin(series, past.info, number, past.sequence, started=past.started))
        else:
            self.facts.event("joined_late")
            marks.append(self._begin(series, EMPTY, number))
        return marks, None

    def _begin(
        self,
        series: SeriesId,
        info: Mapping[str, Any],
        first: int,
        sequence: Sequence | None = None,
        *,
        started: bool = False,
    ) -> Mark:
        count = self._names[series[0]] = self._names.pop(series[0], 0) + 1
        if len(self._names) > _NAMES:
            self._names.popitem(last=False)
        run = str(series[0]) if count == 1 else f"{series[0]}.{count}"
        numbers = sequence or Sequence(first, window=self.window, counts=not self.shared)
        self.open = _Series(series, run, info, numbers, started, told=numbers.missing)
        self._past.pop(series, None)
        self._strays = ((-1, ""), 0)
        return RunStart(run, info)

    def _tell(self, series: _Series) -> None:
        new = series.sequence.missing - series.told
        if new:
            self.facts.event("missing", new)
            series.told += new
