"""A pass over all particles there are: classes made anew from a sample, then a new book written from every record.

It goes on a piece at a time, when the worker has nothing more urgent. The book in force stays in force until the new
one holds every record, those that came meanwhile as well; then it takes over at once.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

import numpy as np

from ...models.classes2d.matching2d import Change
from ...models.classes2d.online import Centres, OnlineClasses
from ...models.classes2d.polar import ORDERS, RINGS, Complexes
from ..flow.frame import BadData
from ..sinks.picks.particles import open_particles
from .class_book import AT_ONCE, Book
from .class_records import Records, same_box

log = logging.getLogger(__name__)

#: A sample has so many particles for each class there may be, and never more than this.
PER_CLASS, MOST_SAMPLED = 250, 20_000
NICE = 10
JOIN_S = 10.0


class Pass:
    """One pass. ``book``: a new one, with centres of before; ``group``: whether they are made anew.

    ``why``: one of ``flow.classed.PASSES``. ``done`` of ``of`` particles are gone over. For the worker's thread.
    """

    def __init__(
        self,
        why: str,
        book: Book,
        records: Records,
        *,
        group: bool,
        wake: Callable[[], None] = lambda: None,
        seed: int = 0,
    ) -> None:
        self.why, self.book, self.grouped = why, book, group
        self.changes: tuple[Change, ...] = ()
        self.done, self.of = 0, records.count(book.box_a)
        self.over = False
        self._records = records
        self._wake = wake
        self._random = np.random.default_rng(seed)
        self._grouping: Grouping | None = None
        self._steps = self._all()

    def step(self) -> bool:
        """Do a piece of work; False where there is nothing to do but to wait (``wake`` is called when there is)."""
        try:
            return next(self._steps)
        except StopIteration:
            self.over = True
            return True

    def close(self) -> None:
        """Give up; what was done is lost, and nothing else."""
        self._steps.close()
        if self._grouping is not None:
            self._grouping.close()

    def _all(self) -> Generator[bool]:
        if self.grouped:
            yield from self._regroup()
        yield from self._sweep()

    def _regroup(self) -> Iterator[bool]:
        """New centres for the book, from a sample of all records."""
        pieces: list[Complexes] = [np.zeros((0, RINGS, ORDERS), np.complex64)]
        for piece in self._sample():
            pieces.append(piece)
            yield True
        count = self._records.count(self.book.box_a)
        self._grouping = Grouping(self.book.classes, np.concatenate(pieces), count, self._wake)
        while not self._grouping.over:
            yield False
        centres = self._grouping.result()
        if centres is not None:
            self.changes = self.book.classes.adopt(centres)

    def _sample(self) -> Iterator[Complexes]:
        """Spectra of a random share of every record's particles."""
        most = min(MOST_SAMPLED, PER_CLASS * self.book.classes.most)
        share = min(1.0, most / max(1, self.of))
        for file in list(self._records.known):
            known = self._records.known.get(file)
            if known is None or not known.count or not same_box(known.box_a, self.book.box_a):
                continue
            try:
                with open_particles(self._records.folder / file) as found:
                    # Rounded at random, so that micrographs with few particles are not over- or underrepresented.
                    wanted = math.floor(share * len(found) + self._random.random() * (share < 1))
                    at = np.sort(self._random.permutation(len(found))[:wanted])
                    for first in range(0, len(at), min(AT_ONCE, found.at_once)):
                        yield self.book.spectra(found, at[first : first + min(AT_ONCE, found.at_once)])
            except BadData as error:
                self._records.bad(file, error.detail)

    def _sweep(self) -> Iterator[bool]:
        while files := self.book.stale(self._records.known):
            for file in files:
                known = self._records.known.get(file)
                if known is None:
                    continue
                try:
                    for labelled in self.book.update(file, known.stamp):
                        self.done += labelled
                        yield True
                except BadData as error:
                    self._records.bad(file, error.detail)
            # Of records without a new particle nothing was given above; a stop must be heard all the same.
            yield True


class Grouping:
    """Makes new centres of a sample in a thread of its own, so that particles that come meanwhile need not wait."""

    def __init__(self, classes: OnlineClasses, spectra: Complexes, count: int, wake: Callable[[], None]) -> None:
        self._classes, self._spectra, self._count, self._wake = classes, spectra, count, wake
        self._stop = threading.Event()
        self._found: Centres | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="class centres", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether ``result`` is there."""
        return not self._thread.is_alive()

    def result(self) -> Centres | None:
        """The centres; None where it was stopped, or no particle of the sample has any contrast. Raises its bug."""
        if self._error is not None:
            raise self._error
        return self._found if self._found is not None and self._found.finished else None

    def close(self) -> None:
        """Stop it."""
        self._stop.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        be_modest()
        try:
            if self._spectra.any():
                self._found = self._classes.recluster(self._spectra, count=self._count, stop=self._stop.is_set)
        except BaseException as error:
            self._error = error
        finally:
            self._wake()


def be_modest() -> None:
    """Let this thread, and those that it starts, give way to the ones that pick (Linux; elsewhere nothing changes)."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
