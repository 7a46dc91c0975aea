"""Reviews of picks: what a person said becomes marks, and marks become purity and recall."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...models.particles.candidates import Candidates
from ..flow.metrics import Metrics
from .drawing import Drawing
from .estimates import BY_HAND, RANDOM_MISS, Curve, Totals, curve
from .marks import Mark, Marks
from .micrographs import Micrograph
from .page import JSON, Refused
from .table import Table

MOST_AT_ONCE = 500
VERDICTS: Mapping[str, bool | None] = {"right": True, "wrong": False, "none": None}
ANEW_S = 5.0
HASH = 12
_GROUPS = {"particle": "accepted", "random_miss": RANDOM_MISS}

CandidatesOf = Callable[[Micrograph], Candidates | None]


class PickReview:
    """Marks of picks in ``table``. ``candidates`` gives those of a micrograph, or None. For any thread."""

    def __init__(
        self,
        marks: Marks,
        table: Table,
        drawing: Drawing,
        candidates: CandidatesOf,
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._marks, self._table, self._drawing, self._metrics = marks, table, drawing, metrics
        self._candidates, self._wall, self._clock = candidates, wall, clock
        self._lock = threading.Lock()
        self._known: dict[int, tuple[tuple[object, ...], float, Curve]] = {}
        self._version = 0

    def mark(self, body: Mapping[str, Any], by: str) -> None:
        """Keep the verdicts of ``body["marks"]``: ``id`` and ``verdict``, and ``x``, ``y`` where no pick is named.

        ``id`` is that of a pick, ``row/number``, or of a micrograph with ``x`` and ``y`` in its pixels. That names the
        nearest candidate within the particle's radius, or else a place of its own: a particle that was missed (right),
        or one that is none (wrong). Raises ``Refused``; then none of them is kept, but for a disk that fills.
        """
        said = body.get("marks")
        if not isinstance(said, Sequence) or isinstance(said, str) or not 0 < len(said) <= MOST_AT_ONCE:
            raise Refused(f"marks: give a list of 1 to {MOST_AT_ONCE}")
        marks = [mark for one in said if (mark := self._mark(one, by)) is not None]
        try:
            for mark in marks:
                self._marks.add(mark)
                if mark.truth is not None:
                    self._metrics.operation.marked(mark.truth)
        except (OSError, ValueError) as error:
            raise Refused(str(error)) from None
        finally:
            with self._lock:
                self._version += 1

    def of(self, found: Micrograph) -> tuple[dict[int, bool], list[JSON]]:
        """What is marked on a micrograph: candidates by number, and places that were marked by hand."""
        numbers: dict[int, bool] = {}
        places: list[JSON] = []
        for mark in self._marks.latest().values():
            row, _, pick = mark.id.partition("/")
            if row != found.id or mark.truth is None:
                continue
            if pick.isdecimal():
                numbers[int(pick)] = mark.truth
            else:
                places.append({"id": mark.id, "x": mark.extra["x"], "y": mark.extra["y"], "truth": mark.truth})
        return numbers, places

    def state(self, threshold: float | None) -> JSON:
        """The field ``review`` of the snapshot. ``threshold``: in force; None: there is none yet."""
        marks = self._marks.latest()
        right, wrong = self._marks.counts()
        found: JSON = {"right": right, "wrong": wrong, "purity": None, "recall": None}
        found["waiting"] = sum(name not in marks for name in self._drawing.waiting())
        if threshold is not None and marks:
            told = self._curve([threshold], threshold)
            for name, estimate in (("purity", told.purity[0]), ("recall", told.recall[0])):
                found[name] = None if estimate is None else estimate.to_json()
        return found

    def what_if(self, thresholds: Sequence[float], in_force: float | None) -> JSON:
        """``purity`` and ``recall`` at each of the thresholds: [value, low, high], or None."""
        told = self._curve(thresholds, in_force)
        named = (("purity", told.purity), ("recall", told.recall))
        return {name: [None if e is None else e.triple() for e in estimates] for name, estimates in named}

    def _curve(self, thresholds: Sequence[float], in_force: float | None) -> Curve:
        """Anew for each mark, and else every few seconds, although each micrograph changes the totals a little."""
        with self._lock:
            key = (self._version, in_force, tuple(thresholds))
            known = self._known.get(len(thresholds))
            if known is None or known[0] != key or self._clock() - known[1] > ANEW_S:
                known = (key, self._clock(), self._estimated(thresholds, in_force))
                self._known[len(thresholds)] = known
            return known[2]

    def _estimated(self, thresholds: Sequence[float], in_force: float | None) -> Curve:
        picks, others = self._table.totals()
        model = self._table.model[:HASH]
        marks = [mark for mark in self._marks.latest().values() if mark.kind == "pick" and mark.model == model]
        return curve([_judged_again(mark, in_force) for mark in marks], thresholds, Totals(picks, others))

    # One mark

    def _mark(self, said: Any, by: str) -> Mark | None:
        if not isinstance(said, Mapping) or not isinstance(said.get("id"), str):
            raise Refused("marks: each needs id and verdict")
        name, verdict = said["id"], said.get("verdict")
        if not isinstance(verdict, str) or verdict not in VERDICTS:
            raise Refused(f"verdict: is not one of {', '.join(VERDICTS)}")
        row, _, pick = name.partition("/")
        found = self._table.get(row)
        if found is None:
            raise Refused(f"{name[:40]}: is not, or no longer, in the table of micrographs")
        candidates = self._candidates(found)
        if candidates is None:
            raise Refused(f"{found.name}: its picks are not stored; they cannot be marked")
        truth = VERDICTS[verdict]
        if pick.isdecimal() and len(pick) < 10 and int(pick) < len(candidates):
            return self._of_candidate(found, candidates, int(pick), truth, by)
        x, y = (_coordinate(said, axis, edge) for axis, edge in (("x", found.shape[1]), ("y", found.shape[0])))
        near = _nearest(candidates, x, y, found.diameter_a / found.pixel_a / 2)
        if near is not None:
            return self._of_candidate(found, candidates, near, truth, by)
        return self._of_place(found, x, y, truth, by)

    def _of_candidate(
        self, found: Micrograph, candidates: Candidates, number: int, truth: bool | None, by: str
    ) -> Mark:
        score, sd = float(candidates.score[number]), float(candidates.sd[number])
        within = found.sd_range[0] <= sd <= found.sd_range[1] and not found.skipped
        accepted = within and bool(candidates.score[number] >= np.float32(found.threshold))
        offered = self._drawing.offered(f"{found.id}/{number}")
        extra = self._where(found, float(candidates.x[number]), float(candidates.y[number]))
        extra |= {"group": BY_HAND if offered is None else _GROUPS[offered.group], "sd": sd, "candidate_score": score}
        return self._said(
            f"{found.id}/{number}",
            found,
            truth,
            by,
            # Outside the band no threshold makes a pick of it, so that none may seem to have lost it.
            score=score if within else 0.0,
            accepted=accepted if offered is None else offered.group == "particle",
            weight=1.0 if offered is None else offered.weight,
            threshold=found.threshold if offered is None else offered.threshold,
            extra=extra,
        )

    def _of_place(self, found: Micrograph, x: float, y: float, truth: bool | None, by: str) -> Mark | None:
        radius = found.diameter_a / found.pixel_a / 2
        _, places = self.of(found)
        near = [place for place in places if math.hypot(place["x"] - x, place["y"] - y) <= radius]
        if near:
            nearest = min(near, key=lambda place: math.hypot(place["x"] - x, place["y"] - y))
            name, x, y = nearest["id"], nearest["x"], nearest["y"]
        elif truth is None:
            return None
        else:
            name = f"{found.id}/{x:.0f},{y:.0f}"
        extra = {**self._where(found, x, y), "group": BY_HAND}
        return self._said(name, found, truth, by, extra=extra)

    def _where(self, found: Micrograph, x: float, y: float) -> dict[str, Any]:
        return {"micrograph": str(found.path), "name": found.name, "x": x, "y": y, "pixel_a": found.pixel_a}

    def _said(
        self,
        name: str,
        found: Micrograph,
        truth: bool | None,
        by: str,
        *,
        extra: Mapping[str, Any],
        score: float = math.nan,
        accepted: bool = False,
        weight: float = 1.0,
        threshold: float = math.nan,
    ) -> Mark:
        return Mark(
            name,
            "pick",
            truth,
            by=by,
            time=self._wall(),
            score=score,
            accepted=accepted,
            weight=weight,
            threshold=threshold,
            model=found.model[:HASH],
            run=self._metrics.operation.current_run[0],
            extra=extra,
        )


def _judged_again(mark: Mark, threshold: float | None) -> Mark:
    """The mark with the verdict of the threshold in force, which all that is stored was picked with anew."""
    if threshold is None or mark.extra.get("group") == BY_HAND:
        return mark
    accepted = mark.score >= threshold
    group = "accepted" if accepted else RANDOM_MISS
    return replace(mark, accepted=accepted, threshold=threshold, extra={**mark.extra, "group": group})


def _coordinate(said: Mapping[str, Any], axis: str, edge: int) -> float:
    value = said.get(axis)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < edge:
        raise Refused(f"{axis}: give a place on the micrograph, 0 to {edge - 1}, or the number of a pick in id")
    return float(value)


def _nearest(candidates: Candidates, x: float, y: float, radius: float) -> int | None:
    if not len(candidates):
        return None
    away = np.hypot(candidates.x - np.float32(x), candidates.y - np.float32(y))
    number = int(away.argmin())
    return number if away[number] <= radius else None
