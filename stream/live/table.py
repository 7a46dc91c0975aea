"""The session's micrographs together: rows, trend, scores of all candidates, what a threshold gives."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .micrographs import Counts, Micrograph, above
from .page import JSON

BINS = 200
STEPS = 100
LAST = 10
HOUR_S = 3600.0
MOST_ROWS = 5000
EDGES = np.linspace(0.0, 1.0, BINS + 1)
_EDGES = EDGES.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A micrograph with its counts: at its threshold, by bin of score, and at each threshold of the grid."""

    micrograph: Micrograph
    picks: int
    bins: npt.NDArray[np.int32]
    at_least: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """Sums over the micrographs that are no longer in the table."""

    micrographs: int
    particles: int
    bins: Counts
    at_least: Counts


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """What all rows together give; ``median`` and ``picks`` for each threshold of the grid."""

    grid: tuple[float, ...]
    picks: Counts
    median: npt.NDArray[np.float64]
    bins: Counts


class Table:
    """Micrographs by name, at most ``most``; the oldest leave, and stay in the totals. For any thread.

    Scores and thresholds are those of ``model``, the one that picked the newest micrograph. Rows of other models keep
    their picks whatever the threshold: scores of two models are on different scales.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._lock = threading.RLock()
        self._rows: dict[str, _Kept] = {}
        self._names: dict[str, str] = {}
        self._order: list[_Kept] | None = None
        self.model = ""
        self._floor = 0.0
        self._grid = grid_from(0.0)
        self._newest = -math.inf
        self._sums: _Sums | None = None
        self._left = _Left(0, 0, np.zeros(BINS, np.int64), np.zeros(STEPS + 1, np.int64))
        self._in_run: tuple[float, Counts] | None = None
        self.version = 0

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, found: Micrograph) -> None:
        """Take in a micrograph that was picked just now, in place of an older one of its name."""
        with self._lock:
            replaced = self._put(found)
            self.version += replaced
            while len(self._rows) > self._most:
                self._leave(self._sorted()[0])

    def restore(self, found: Micrograph) -> None:
        """Take in one that was stored: an earlier one, or one whose threshold has been moved. ``tell`` of it then.

        Where there is a later row of that name, or no room, nothing happens.
        """
        with self._lock:
            known = self.named(found.name)
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

    def _put(self, found: Micrograph) -> bool:
        before = self._rows.pop(self._names.get(found.name, ""), None)
        if found.model != self.model and found.time >= self._newest:
            self._newest, self.model = found.time, found.model
            mine = [kept.micrograph.floor for kept in self._rows.values() if kept.micrograph.model == found.model]
            self._grid_for(max([found.floor, *mine]))
        elif found.model == self.model:
            self._newest = max(self._newest, found.time)
            if found.floor > self._floor:
                self._grid_for(found.floor)
        self._rows[found.id] = self._kept(found)
        self._names[found.name] = found.id
        self._changed()
        return before is not None

    def get(self, row_id: str) -> Micrograph | None:
        """The row of that id."""
        kept = self._rows.get(row_id)
        return None if kept is None else kept.micrograph

    def named(self, name: str) -> Micrograph | None:
        """The row of the micrograph of that name."""
        return self.get(self._names.get(name, ""))

    def all(self) -> list[Micrograph]:
        """All rows, newest last."""
        with self._lock:
            return [kept.micrograph for kept in self._sorted()]

    def last(self, n: int) -> list[Micrograph]:
        """The newest rows, newest last."""
        with self._lock:
            return [kept.micrograph for kept in self._sorted()[-n:]]

    def moved(self, threshold: float, when: float) -> None:
        """Give every row of ``model`` this threshold; the bands stay. ``when``: Unix seconds."""
        with self._lock:
            for row_id, kept in self._rows.items():
                if kept.micrograph.model == self.model:
                    self._rows[row_id] = self._kept(replace(kept.micrograph, threshold=threshold, changed=when))
            particles = int(np.interp(threshold, self._grid, self._left.at_least).round())
            self._left = replace(self._left, particles=particles)
            self._changed()
            self.version += 1

    # What they give together

    def trend(self, now: float) -> JSON:
        """The field ``yield`` of the snapshot. Micrographs that were skipped count with 0 picks, as in the metrics.

        ``per_hour``: micrographs, over the last hour or the part of it that the session lasts.
        """
        with self._lock:
            rows, left = self._sorted(), self._left
        picks = np.array([kept.picks for kept in rows], np.int64)
        times = [kept.micrograph.time for kept in rows if now - HOUR_S <= kept.micrograph.time <= now]
        hours = (now - times[0]) / HOUR_S if len(times) > 1 else 0.0
        recent = float(np.median(picks[-LAST:])) if len(picks) else None
        median = float(np.median(picks)) if len(picks) else None
        return {
            "micrographs": left.micrographs + len(rows),
            "particles": left.particles + int(picks.sum()),
            "last": int(picks[-1]) if len(picks) else None,
            "recent": recent,
            "median": median,
            "ratio": recent / median if recent is not None and median else None,
            "per_hour": (len(times) - 1) / hours if hours > 0 else None,
        }

    def scores(self, run_since: float | None) -> JSON:
        """The field ``scores``: candidates in the band by score, of the session and since the run began.

        ``run_since``: Unix seconds; None: the run is the session.
        """
        with self._lock:
            session = self._summed().bins
            run = session if run_since is None else self._run(run_since)
            first = self._sorted()[0].micrograph.time if self._rows else None
            last = self._sorted()[-1].micrograph.time if self._rows else None
        seconds = 0.0 if first is None or last is None else last - first
        return {"edges": EDGES.tolist(), "counts": session.tolist(), "run": run.tolist(), "seconds": seconds}

    def what_if(self) -> tuple[tuple[float, ...], list[int], list[float]]:
        """Thresholds from the floor up to 1, and for each: picks in total, and the median per micrograph."""
        with self._lock:
            sums = self._summed()
        return sums.grid, sums.picks.tolist(), sums.median.tolist()

    def totals(self) -> tuple[int, int]:
        """(picks, candidates that are none) of ``model`` in the table, without micrographs that were skipped."""
        with self._lock:
            rows = [k for k in self._sorted() if k.micrograph.model == self.model and not k.micrograph.skipped]
        picks = sum(kept.picks for kept in rows)
        return picks, sum(kept.micrograph.candidates for kept in rows) - picks

    @property
    def floor(self) -> float:
        """The lowest threshold that all rows of ``model`` have the candidates for."""
        return self._floor

    # Inside, under the lock

    def _kept(self, found: Micrograph) -> _Kept:
        if len(found.scores) > 1 and not (np.diff(found.scores) >= 0).all():
            raise ValueError(f"{found.name}: its scores are not ascending")
        picks = found.picks
        if found.model != self.model:
            return _Kept(found, picks, np.zeros(BINS, np.int32), np.full(STEPS + 1, picks, np.int32))
        upto = np.searchsorted(found.scores, _EDGES, side="left")
        # The last bin has its upper edge, too.
        upto[-1] = len(found.scores)
        bins = np.diff(upto).astype(np.int32)
        at_least = above(found.scores, self._grid).astype(np.int32)
        return _Kept(found, picks, bins, at_least)

    def _grid_for(self, floor: float) -> None:
        before, self._floor, self._grid = self._grid, floor, grid_from(floor)
        self._rows = {row_id: self._kept(kept.micrograph) for row_id, kept in self._rows.items()}
        # Scores of those that left are gone: their counts are read off the old curve.
        at_least = np.interp(self._grid, before, self._left.at_least).round().astype(np.int64)
        self._left = replace(self._left, at_least=at_least)

    def _leave(self, kept: _Kept) -> None:
        found, left = kept.micrograph, self._left
        self._left = _Left(
            left.micrographs + 1,
            left.particles + kept.picks,
            left.bins + kept.bins,
            left.at_least + kept.at_least,
        )
        del self._rows[found.id]
        del self._names[found.name]
        self._changed()

    def _changed(self) -> None:
        self._order = self._sums = self._in_run = None

    def _sorted(self) -> list[_Kept]:
        if self._order is None:
            self._order = sorted(self._rows.values(), key=lambda kept: (kept.micrograph.time, kept.micrograph.name))
        return self._order

    def _summed(self) -> _Sums:
        if self._sums is None:
            rows = self._sorted()
            at_least = np.array([kept.at_least for kept in rows], np.int32).reshape(-1, STEPS + 1)
            median = np.median(at_least, axis=0) if rows else np.zeros(STEPS + 1)
            bins = _total(kept.bins for kept in rows) + self._left.bins
            self._sums = _Sums(self._grid, at_least.sum(axis=0, dtype=np.int64) + self._left.at_least, median, bins)
        return self._sums

    def _run(self, since: float) -> Counts:
        if self._in_run is None or self._in_run[0] != since:
            bins = _total(kept.bins for kept in self._sorted() if kept.micrograph.time >= since)
            self._in_run = (since, bins)
        return self._in_run[1]


def grid_from(floor: float) -> tuple[float, ...]:
    """Thresholds from the floor up to 1, evenly spaced."""
    return tuple(round(floor + (1.0 - floor) * step / STEPS, 6) for step in range(STEPS + 1))


def _total(parts: Iterable[npt.NDArray[np.int32]]) -> Counts:
    stacked = np.array(list(parts), np.int32).reshape(-1, BINS)
    return np.asarray(stacked.sum(axis=0, dtype=np.int64))
