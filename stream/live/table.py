"""The session's micrographs together: rows, trend, scores of all candidates, what a threshold gives."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .counted import EDGES, Counted, Grid, Left, Sums, grid_from, summed, trend
from .micrographs import Micrograph
from .page import JSON

MOST_ROWS = 5000


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """What the table holds at one moment, newest row last; ``grid``: thresholds that its rows are counted at."""

    rows: Sequence[Counted]
    left: Left
    grid: Grid
    model: str


class Table:
    """Micrographs by name, at most ``most``; the oldest leave, and stay in the totals. For any thread.

    Scores and thresholds are those of ``model``, the one that picked the newest micrograph. Rows of other models keep
    their picks whatever the threshold: scores of two models are on different scales. ``version`` counts up when rows
    that browsers have may have changed.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._rows: dict[str, Counted] = {}
        self._names: dict[str, str] = {}
        self._left = Left()
        self._floor = 0.0
        self._grid = grid_from(0.0)
        self._newest = -math.inf
        self._moment: _Moment | None = None
        self._sums: tuple[_Moment, float | None, Sums] | None = None
        self.model = ""
        self.version = 0

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, found: Micrograph) -> None:
        """Take in a micrograph that was picked just now, in place of an older one of its name."""
        with self._lock:
            self.version += self._put(found)
            while len(self._rows) > self._most:
                oldest = min(self._rows.values(), key=_age)
                self._left = self._left.plus(oldest)
                del self._rows[oldest.micrograph.id]
                del self._names[oldest.micrograph.name]

    def restore(self, found: Micrograph) -> None:
        """Take in one that was stored: an earlier one, or one whose threshold has been moved. ``tell`` of it then.

        Where there is a later row of that name, or no room, nothing happens.
        """
        with self._lock:
            known = self.get(self._names.get(found.name, ""))
            if known is None:
                if len(self._rows) < self._most:
                    self._put(found)
            elif known.id == found.id:
                same = (known.threshold, known.sd_range) == (found.threshold, found.sd_range)
                # A record that is still to be picked again must not undo it. It knows times to the second only.
                if not same and found.changed + 1.0 > known.changed:
                    self._put(replace(found, time=known.time))
            elif known.time < found.time:
                self._put(found)

    def tell(self) -> None:
        """Older rows have changed: browsers shall fetch them anew."""
        with self._lock:
            self.version += 1

    def moved(self, threshold: float, when: float) -> None:
        """Give every row of ``model`` this threshold; the bands stay. ``when``: Unix seconds."""
        before = self._now()
        mine = [
            one for one in before.rows if one.micrograph.model == before.model and one.micrograph.threshold != threshold
        ]
        if not mine:
            return
        # Thousands of rows take a while, and the sinks' thread must not wait so long for the lock.
        moved = {one.micrograph.id: (one, one.moved(threshold, when)) for one in mine}
        with self._lock:
            for row_id, one in self._rows.items():
                was, becomes = moved.get(row_id, (None, one))
                if was is one:
                    self._rows[row_id] = becomes
                elif one.micrograph.model == self.model and one.micrograph.threshold != threshold:
                    self._rows[row_id] = one.moved(threshold, when)
            self._left = self._left.at(threshold, self._grid)
            self._moment = None
            self.version += 1

    def get(self, row_id: str) -> Micrograph | None:
        """The row of that id."""
        one = self._rows.get(row_id)
        return None if one is None else one.micrograph

    def all(self) -> list[Micrograph]:
        """All rows, newest last."""
        return [one.micrograph for one in self._now().rows]

    def last(self, n: int) -> list[Micrograph]:
        """The newest rows, newest last."""
        return [one.micrograph for one in self._now().rows[-n:]]

    # What they give together

    def trend(self, now: float) -> JSON:
        """See ``counted.trend``; ``now``: Unix seconds."""
        moment = self._now()
        return trend(moment.rows, moment.left, now)

    def scores(self, run_since: float | None) -> JSON:
        """The field ``scores``: candidates in the band by score, of the session and since the run began.

        ``run_since``: Unix seconds; None: the run is the session.
        """
        moment, sums = self._summed(run_since)
        seconds = moment.rows[-1].micrograph.time - moment.rows[0].micrograph.time if moment.rows else 0.0
        counts = {"counts": sums.bins.tolist(), "run": sums.run_bins.tolist()}
        return {"edges": list(EDGES), **counts, "seconds": seconds}

    def what_if(self, run_since: float | None = None) -> tuple[Grid, list[int], list[float]]:
        """Thresholds from the floor up to 1, and for each: picks in total, and the median per micrograph.

        ``run_since``: as given to ``scores``, so that the sums are made once for both.
        """
        moment, sums = self._summed(run_since)
        return moment.grid, sums.picks.tolist(), sums.median.tolist()

    def totals(self) -> tuple[int, int]:
        """(picks, candidates that are none) of ``model`` in the table, without micrographs that were skipped."""
        moment = self._now()
        mine = [one for one in moment.rows if one.micrograph.model == moment.model and not one.micrograph.skipped]
        picks = sum(one.picks for one in mine)
        return picks, sum(one.micrograph.candidates for one in mine) - picks

    # Inside

    def _now(self) -> _Moment:
        with self._lock:
            if self._moment is None:
                rows = sorted(self._rows.values(), key=_age)
                self._moment = _Moment(rows, self._left, self._grid, self.model)
            return self._moment

    def _summed(self, run_since: float | None) -> tuple[_Moment, Sums]:
        """Not under the lock: with thousands of rows it takes longer than the sinks' thread should wait."""
        moment, known = self._now(), self._sums
        if known is not None and known[0] is moment and known[1] == run_since:
            return moment, known[2]
        sums = summed(moment.rows, moment.left, run_since)
        self._sums = (moment, run_since, sums)
        return moment, sums

    def _put(self, found: Micrograph) -> bool:
        """Put it in; says whether it replaced one. Under the lock."""
        before = self._rows.pop(self._names.get(found.name, ""), None)
        if found.model != self.model and found.time >= self._newest:
            self.model, self._left = found.model, self._left.of_another_model()
            mine = [one.micrograph.floor for one in self._rows.values() if one.micrograph.model == found.model]
            self._grid_for(max([found.floor, *mine]))
        elif found.model == self.model and found.floor > self._floor:
            self._grid_for(found.floor)
        self._newest = max(self._newest, found.time)
        self._rows[found.id] = Counted.of(found, self._grid, self.model)
        self._names[found.name] = found.id
        self._moment = None
        return before is not None

    def _grid_for(self, floor: float) -> None:
        before, self._floor, self._grid = self._grid, floor, grid_from(floor)
        self._left = self._left.on(self._grid, before)
        for row_id, one in self._rows.items():
            self._rows[row_id] = Counted.of(one.micrograph, self._grid, self.model)


def _age(one: Counted) -> tuple[float, str]:
    return one.micrograph.time, one.micrograph.name
