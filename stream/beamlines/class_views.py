"""What the page and the metrics see of a book of classes: frozen pictures, made anew only where something changed."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...models.classes2d.working import EDGE
from ..flow.classed import ClassCounts
from ..live.class_view import MOST_MEMBERS, Classes, ClassView, Floats
from .class_book import Book, Member

#: Growth is that of the last five minutes.
LATELY_S = 300.0
LEAST_S = 10.0


class Growth:
    """How many particles came into each class lately. For the worker's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._came: deque[tuple[float, Counter[int]]] = deque()
        self._total: Counter[int] = Counter()
        self._since = clock()

    def add(self, numbers: Counter[int]) -> None:
        """These came in now."""
        self._came.append((self._clock(), numbers))
        self._total.update(numbers)

    def begin(self) -> None:
        """Classes are others now."""
        self._came.clear()
        self._total.clear()
        self._since = self._clock()

    def per_minute(self) -> Mapping[int, float]:
        """By class."""
        now = self._clock()
        while self._came and self._came[0][0] < now - LATELY_S:
            self._total.subtract(self._came.popleft()[1])
        minutes = max(LEAST_S, min(LATELY_S, now - self._since)) / 60
        return {number: count / minutes for number, count in self._total.items() if count > 0}


@dataclass(slots=True)
class Made:
    """What a view was made of."""

    averaged: int
    newest: Member | None
    view: ClassView


class Gallery:
    """Views of the classes of a book. For the worker's thread."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._made: dict[int, Made] = {}
        self._book: Book | None = None
        self._version = 0

    def views(self, book: Book, growth: Mapping[int, float], marks: Mapping[int, str]) -> tuple[ClassView, ...]:
        """All classes that have a particle, the largest first."""
        if book is not self._book:
            self._book, self._made = book, {}
        there = [number for number in book.averages.classes() if book.counts[number] > 0]
        self._made = {number: self._one(book, number) for number in there}
        views = [
            replace(
                made.view,
                count=book.counts[number],
                growth_per_min=growth.get(number, 0.0),
                mark=marks.get(number, ""),
            )
            for number, made in self._made.items()
        ]
        return tuple(sorted(views, key=lambda view: (-view.count, view.id)))

    def _one(self, book: Book, number: int) -> Made:
        """The view with all that takes time to make; the rest is put in at every call."""
        members = book.members.get(number, ())
        newest = members[-1] if members else None
        averaged = book.averages.count(number)
        made = self._made.get(number)
        if made is not None and (made.averaged, made.newest) == (averaged, newest):
            return made
        shown = aligned(members)
        view = ClassView(
            id=number,
            count=book.counts[number],
            growth_per_min=0.0,
            spread=book.averages.spread(number),
            resolution_a=book.averages.resolution_a(number, book.box_a / EDGE),
            mark="",
            since=book.since.get(number, 0.0),
            version=self._next(),
            average=book.averages.mean(number),
            denoised_average=shown[:, 1].mean(0) if len(shown) else None,
            members=shown,
        )
        return Made(averaged, newest, view)

    def _next(self) -> int:
        """Milliseconds, so that a picture that a browser kept is never taken for one of after a restart."""
        self._version = max(self._version + 1, int(1000 * self._wall()))
        return self._version


def aligned(members: Sequence[Member] | deque[Member]) -> Floats:
    """The last members turned onto their class: float32 (m, 2, 64, 64)."""
    last = list(members)[-MOST_MEMBERS:]
    if not last:
        return np.zeros((0, 2, EDGE, EDGE), np.float32)
    return np.stack([member.aligned() for member in last]).astype(np.float32)


def marked(classes: Classes, marks: Mapping[int, str], version: int) -> Classes:
    """The same with other marks."""
    views = tuple(replace(view, mark=marks.get(view.id, "")) for view in classes.classes)
    return replace(classes, classes=views, rejected=rejected(views), version=version)


def rejected(views: Sequence[ClassView]) -> int:
    """Particles of bad classes."""
    return sum(view.count for view in views if view.mark == "bad")


def counts_of(classes: Classes, waiting: int, heard: int) -> ClassCounts:
    """For the metrics; ``waiting``, ``heard`` as there."""
    by_mark, particles = Counter[str](), Counter[str]()
    for view in classes.classes:
        by_mark[view.mark or "unmarked"] += 1
        particles[view.mark or "unmarked"] += view.count
    known = [view.resolution_a for view in classes.classes if math.isfinite(view.resolution_a)]
    best, median = (min(known), float(np.median(known))) if known else (math.nan, math.nan)
    return ClassCounts(by_mark, particles, best, median, waiting, classes.unlabelled, heard)
