"""What people say of shown frames: turned into marks, and into purity and recall of the model in force."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from .estimates import BY_HAND, Curve, Totals, curve
from .marks import Mark, Marks
from .page import JSON, Refused
from .shots import ACCEPTED, REJECTED, Shot

RIGHT, WRONG, NONE = "right", "wrong", "none"
MOST = 500
ANEW_S = 15.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One person's word on one frame: ``right`` or ``wrong`` of the verdict shown, or ``none`` to withdraw it."""

    id: str
    word: str


def verdicts_in(body: Mapping[str, Any]) -> list[Verdict]:
    """The marks of a request, checked. Raises ``Refused`` naming the field."""
    marks = body.get("marks")
    if not isinstance(marks, list) or not 0 < len(marks) <= MOST:
        raise Refused(f"marks: give a list of 1 to {MOST} of them")
    found = []
    for number, one in enumerate(marks):
        name, word = (one.get("id"), one.get("verdict")) if isinstance(one, Mapping) else (None, None)
        if not isinstance(name, str) or word not in (RIGHT, WRONG, NONE):
            raise Refused(f'marks[{number}]: give {{"id": text, "verdict": "right", "wrong" or "none"}}')
        found.append(Verdict(name, word))
    return found


def mark_of_shot(shot: Shot, word: str, by: str, at: float, model: str) -> Mark:
    """The mark for a verdict on a shown frame.

    ``model`` is the one in force, for frames that it was not asked about. A rejected frame that was not shown as one of
    the random misses was picked by hand: it trains, but it is a sample of nothing.
    """
    result, found = shot.result, shot.result.found
    accepted = shot.group == ACCEPTED
    threshold = found.get("threshold")
    return Mark(
        shot.id,
        "frame",
        None if word == NONE else (word == RIGHT) == accepted,
        by=by,
        time=at,
        score=result.score,
        accepted=accepted,
        weight=result.weight if result.weight > 0 and not accepted else 1.0,
        threshold=math.nan if threshold is None else float(threshold),
        model=str(found.get("model") or model),
        run=result.frame.key.run,
        extra={
            "group": BY_HAND if shot.group == REJECTED else shot.group,
            "key": str(result.frame.key),
            "by": result.by,
        },
    )


class Review:
    """Marks of frames, and what they tell. Any thread. ``find`` gives a shown frame by its id."""

    def __init__(
        self,
        marks: Marks,
        find: Callable[[str], Shot | None],
        to_pixels: Callable[[Shot], npt.NDArray[Any] | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._marks, self._find, self._to_pixels = marks, find, to_pixels
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._changes = 0
        self._known: dict[tuple[float, ...], tuple[tuple[int, str, bool], float, Curve]] = {}

    def mark(self, verdicts: Sequence[Verdict], by: str, model: str) -> list[bool]:
        """Write marks down, all or, where one names a frame that is not known, none; gives who was right.

        A frame whose pixels are gone is marked without them. Raises ``Refused`` for an unknown frame, and where the
        disk does not take a mark: those before it are kept.
        """
        now = self._wall()
        latest = self._marks.latest()
        made = [self._made(verdict, by, now, model, latest) for verdict in verdicts]
        try:
            for mark, pixels in made:
                self._marks.add(mark, pixels)
        except (OSError, ValueError) as error:
            raise Refused(str(error)) from None
        finally:
            with self._lock:
                self._changes += 1
        return [mark.right for mark, _ in made if mark.right is not None]

    def curve(self, thresholds: Sequence[float], totals: Totals, model: str) -> Curve:
        """Purity and recall at each threshold, of the marks of this model; worked out anew every 15 s at most.

        And at once after a mark, or when the first frames were judged.
        """
        now, name = self._clock(), tuple(thresholds)
        with self._lock:
            state = (self._changes, model, totals.accepted + totals.rejected > 0)
            known = self._known.get(name)
        if known is not None and known[0] == state and now - known[1] < ANEW_S:
            return known[2]
        marks = [mark for mark in self._marks.latest().values() if mark.kind == "frame" and _same(mark.model, model)]
        made = curve(marks, thresholds, totals if state[2] else None)
        with self._lock:
            # One curve and one threshold in force: what was asked for besides is old.
            self._known = dict(list(self._known.items())[-3:]) | {name: (state, now, made)}
        return made

    def state(self, waiting: int, threshold: float | None, totals: Totals, model: str) -> JSON:
        """``right``, ``wrong``, ``waiting``, and ``purity`` and ``recall`` at the threshold in force."""
        right, wrong = self._marks.counts()
        made = None if threshold is None else self.curve([threshold], totals, model)
        purity, recall = (made.purity[0], made.recall[0]) if made else (None, None)
        return {
            "right": right,
            "wrong": wrong,
            "waiting": waiting,
            "purity": purity and purity.to_json(),
            "recall": recall and recall.to_json(),
        }

    def marked(self) -> Mapping[str, Mark]:
        """The marks that stand, by the id of their frame."""
        return self._marks.latest()

    def _made(
        self, verdict: Verdict, by: str, now: float, model: str, latest: Mapping[str, Mark]
    ) -> tuple[Mark, npt.NDArray[Any] | None]:
        shot = self._find(verdict.id)
        if shot is not None:
            return mark_of_shot(shot, verdict.word, by, now, model), self._to_pixels(shot)
        old = latest.get(verdict.id)
        if old is None:
            raise Refused(f"marks: frame {verdict.id:.60} is not remembered any more; mark one that is shown now")
        # Its pixels were kept with the first mark.
        truth = None if verdict.word == NONE else (verdict.word == RIGHT) == old.accepted
        return replace(old, truth=truth, by=by, time=now), None


def _same(one: str, other: str) -> bool:
    """Whether two hashes, of which one may be cut short, are of the same model; none is only the same as none."""
    short = min(len(one), len(other))
    return one[:short] == other[:short] if short else one == other
