"""What operators say of classes: good or bad, kept line by line, so that a kill loses none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ...models.classes2d.matching2d import Change
from ..live.class_view import MARKS
from ..live.history import Lines

log = logging.getLogger(__name__)

FILE = "class_marks.jsonl"
UNMARKED = ""
#: Two classes came at another time, also where the number is the same: times are kept to the microsecond.
_SAME_S = 1e-4


class ClassMarks:
    """Marks by class number. ``put`` is for any thread, and is on the disk when it returns.

    A class is known by its number and by when it came: where ``classes.h5`` was removed or never written, numbers begin
    anew, and a mark must not come to another class. ``version`` grows with every change.
    """

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        self.version = 0
        self._lines = Lines(directory / FILE)
        self._wall = wall
        self._lock = threading.Lock()
        self._marks: dict[int, str] = {}

    def restore(self, since: Mapping[int, float], stored: Mapping[int, str]) -> None:
        """Go on with the classes ``since`` which there are: the marks stored with them, and the lines after that.

        Raises ``OSError`` where the file is there and cannot be read.
        """
        marks = {number: mark for number, mark in stored.items() if number in since}
        strangers = set()
        for line in self._lines.read():
            number, mark, came = line.get("class"), line.get("mark"), line.get("since")
            if not isinstance(number, int) or mark not in MARKS or not isinstance(came, int | float):
                continue
            if number in since and abs(since[number] - came) < _SAME_S:
                marks[number] = str(mark)
            else:
                strangers.add((number, came))
        if strangers and not since:
            log.warning("%s: marks of %d classes that are not known any more", self._lines.path, len(strangers))
        with self._lock:
            self._marks = marks
            self.version += 1

    def of(self, number: int) -> str:
        """``good``, ``bad``, or empty."""
        return self._marks.get(number, UNMARKED)

    def all(self) -> Mapping[int, str]:
        """Marks by number. A copy."""
        with self._lock:
            return dict(self._marks)

    def put(self, number: int, mark: str, by: str, since: float) -> None:
        """From now on the class has this mark. Raises ``OSError`` where it cannot be kept; nothing has changed then."""
        line = {"time": self._wall(), "by": by, "class": number, "since": since, "mark": mark}
        with self._lock:
            self._lines.append(line)
            self._marks[number] = mark
            self.version += 1

    def follow(self, changes: Iterable[Change], since: Mapping[int, float]) -> list[str]:
        """After classes were made anew: what was split off a class has its mark, and what others were merged into keeps
        its own only if they had the same. Says in words what became of marks.
        """  # noqa: D205
        said = []
        before = self.all()
        merged: dict[int, set[str]] = {}
        for change in changes:
            if change.kind == "split" and before.get(change.others[0]):
                mark = before[change.others[0]]
                self._inherit(change.id, mark, f"class {change.others[0]}, which it was split off", since)
                said.append(f"Class {change.id} is marked {mark}, as class {change.others[0]} is.")
            elif change.kind == "merged":
                merged.setdefault(change.others[0], set()).add(before.get(change.id, UNMARKED))
        for number, marks in merged.items():
            mine = before.get(number, UNMARKED)
            if marks - {mine}:
                self._inherit(number, UNMARKED, "a merge of classes with different marks", since)
                words = sorted({mark or "not marked" for mark in marks | {mine}})
                said.append(f"Class {number} has no mark now: it holds classes that were {' and '.join(words)}.")
        return said

    def _inherit(self, number: int, mark: str, by: str, since: Mapping[int, float]) -> None:
        try:
            self.put(number, mark, by, since[number])
        except OSError as error:
            # It is in classes.h5 as soon as there is room again.
            log.warning("%s", error.strerror or error)
            with self._lock:
                self._marks[number] = mark
                self.version += 1
