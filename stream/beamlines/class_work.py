"""The work of the classes, a piece at a time: what is labelled next, when classes are made anew, what is kept.

All of it is for one thread, ``LiveClasses``'s; ``snapshot`` alone is read by others, and is only ever replaced.

    waiting ──(``first_at`` particles)──▶ pass "first" ──▶ ready ◀──┐
                                                             └─▶ pass "growth", "model", "changed", "box"

What is labelled is decided by the records in the folder alone, by name and stamp: a record that came while the thread
was busy, or while no daemon ran, or that was picked again, is found by comparing.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator

from ...models.classes2d.online import OnlineClasses
from ..flow.classed import Classed
from ..flow.frame import BadData
from ..live.class_view import MOST_EVENTS
from ..sinks.picks.classes_file import NONE
from ..sinks.picks.places import safe
from .class_book import Book
from .class_marks import ClassMarks
from .class_networks import Networks
from .class_passes import Pass
from .class_records import Records, same_box
from .class_restart import Restart, restart
from .class_settings import ClassSettings
from .class_store import Kept, Store
from .class_views import Growth

log = logging.getLogger(__name__)

LOOK_S = 5.0
#: What is gone from records stays in the averages until nothing has changed for this long.
SETTLED_S = 10.0
#: Averages are made anew for it so seldom that this takes at most a tenth of the time.
REST = 10.0
#: Of so many pieces of work one belongs to a pass, however many particles come in.
SHARE = 4


class ClassWork:
    """See above. ``clock``: monotonic, ``wall``: Unix seconds."""

    def __init__(
        self,
        settings: ClassSettings,
        store: Store,
        networks: Networks,
        marks: ClassMarks,
        facts: Classed,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.store, self.networks, self.marks, self.facts = settings, store, networks, marks, facts
        self.book: Book | None = None
        self.going_over: Pass | None = None
        self.kept = Kept()
        self.growth = Growth(clock)
        self.records = Records(store.directory, lambda: facts.failed("record"), clock)
        #: Called when there is a new book, before anybody sees it.
        self.on_new_book: Callable[[], None] = lambda: None
        #: Called in another thread when ``step`` has something to do again.
        self.wake: Callable[[], None] = lambda: None
        #: Particles that it was told of.
        self.heard = 0
        #: Grows with whatever there is to see.
        self.changes = 0
        self.ending = False
        self._clock, self._wall = clock, wall
        self._turns = itertools.count(1)
        self._todo: deque[str] = deque()
        self._heard: dict[str, float] = {}
        self._update: tuple[str, Generator[int]] | None = None
        self._began = self._rested = 0.0
        self._mixed = self._restarted = False
        self._hopeless = 0
        self._look_at = self._changed = -math.inf
        self._told: Counter[str] = Counter()

    # Beginning

    def begin(self) -> None:
        """Go on with what the last daemon kept. Raises ``OSError``."""
        tables = self.store.read()
        if tables is not None:
            self._go_on(restart(tables, self.networks, self.settings, self.records.folder, self._wall()))
        self.networks.tell()
        stored = {} if tables is None else {int(c["id"]): c["mark"].decode() for c in tables.classes}
        self.marks.restore({} if self.book is None else self.book.since, stored)
        self.look()

    def _go_on(self, found: Restart) -> None:
        self.book, self.kept, self._mixed, self._restarted = found.book, found.kept, found.mixed, found.anew
        if found.anew:
            self.store.put_aside()
        if found.book is not None:
            self._told.update(found.book.refused)
            entries = found.book.entries.items()
            self.records.trust({file: (e.stamp, len(e.rows), e.size * e.pixel_a) for file, e in entries})

    # A piece of work

    def hear(self, name: str, count: int, when: float) -> None:
        """The record of this micrograph, with ``count`` particles, was written at this time of the clock."""
        self.heard += count
        file = f"{safe(name)}.h5"
        if self.records.look(file):
            self._note_change()
            # The newest first: of a backlog, an operator waits for what comes now.
            self._todo.appendleft(file)
        if self._is_stale(file):
            self._heard[file] = when

    def step(self) -> bool:
        """Do what is most urgent, a fraction of a second of it; False where there is nothing to do.

        Raises ``BundleError`` where the denoiser does not hold what its card says.
        """
        if self._clock() >= self._look_at:
            self.look()
        # Seconds, which a session without particles need not spend.
        if self.book is not None or 4 * self.records.count() >= self.settings.first_at:
            self.networks.warm_up()
        self._tune()
        if self.going_over is None:
            self._begin_pass()
        if self.going_over is not None and (next(self._turns) % SHARE == 0 or not self._has_todo()) and self._go_over():
            return True
        return self._label()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do now."""
        return self.going_over is None and self._update is None and not self._has_todo() and self._why() is None

    @property
    def in_record(self) -> bool:
        """Whether a record is labelled in part."""
        return self._update is not None

    def hurry(self) -> None:
        """The daemon is stopped: nothing more is begun that takes long; the next start does it."""
        self.ending = True
        if self.going_over is not None and self.going_over.why not in {"first", "restart"}:
            self.going_over.close()
            self.going_over = None

    def end(self) -> None:
        """Close what is open."""
        if self._update is not None:
            self._update[1].close()
        if self.going_over is not None:
            self.going_over.close()
        self.networks.close()
        self.store.release()

    # Records

    def look(self) -> None:
        """Look at all records now."""
        began = self._clock()
        try:
            if self.records.scan():
                self._note_change()
                self._refill()
        except OSError as error:
            log.warning("%s: cannot be read: %s", self.records.folder, error.strerror or error)
        # A large folder on a slow file server is looked at less often.
        self._look_at = self._clock() + LOOK_S + 20 * (self._clock() - began)

    def _note_change(self) -> None:
        self._changed = self._clock()
        self.changes += 1

    def _refill(self) -> None:
        self._todo = deque() if self.book is None else deque(self.book.stale(self.records.known))

    def _has_todo(self) -> bool:
        return self.book is not None and (self._update is not None or bool(self._todo))

    def waiting(self) -> int:
        """Particles that are not looked at yet."""
        return sum(known.count for file, known in self.records.known.items() if self._is_stale(file))

    def _is_stale(self, file: str) -> bool:
        known, entry = self.records.known.get(file), None if self.book is None else self.book.entries.get(file)
        return known is not None and (entry is None or entry.stamp != known.stamp)

    # Labels

    def _label(self) -> bool:
        """A piece of the next record whose labels are missing."""
        if self.book is None:
            return False
        if self._update is None and not self._open_next(self.book):
            return False
        assert self._update is not None
        file, steps = self._update
        before = self.book.entries.get(file)
        try:
            next(steps)
        except StopIteration:
            self._update = None
            self._labelled(self.book, file, Counter() if before is None else before.numbers)
        except BadData as error:
            self._update = None
            self.records.bad(file, error.detail)
            self._note_change()
        return True

    def _open_next(self, book: Book) -> bool:
        while self._todo:
            file = self._todo.popleft()
            if self._is_stale(file):
                self._update = file, book.update(file, self.records.known[file].stamp)
                return True
        return False

    def _labelled(self, book: Book, file: str, before: Counter[int]) -> None:
        self._tell_refused(book)
        now = book.entries[file].numbers
        now.subtract(before)
        came = +now
        came.pop(NONE, None)
        self.growth.add(came)
        heard = self._heard.pop(file, None)
        if heard is not None and came:
            self.facts.classified([self._clock() - heard] * came.total())
        self.changes += 1

    # Passes

    def _why(self) -> str | None:
        """Why all particles have to be gone over, if they have to."""
        book, usual = self.book, self.records.usual_box()
        there = self.records.count(usual) if usual else 0
        if book is None:
            enough = there >= max(self.settings.first_at, self._hopeless)
            return ("restart" if self._restarted else "first") if enough else None
        if self.ending:
            return None
        if self.networks.wanted is not None or self._mixed:
            return "model"
        if not same_box(usual, book.box_a) and there >= max(self.settings.first_at, 2 * self.records.count(book.box_a)):
            return "box"
        if book.classified >= self.settings.growth * max(self.kept.clustered_at, self.settings.first_at / 2):
            return "growth"
        quiet = self._clock() >= max(self._changed + SETTLED_S, self._rested)
        return "changed" if book.went and quiet and not self._has_todo() else None

    def _begin_pass(self) -> None:
        why = self._why()
        if why is None:
            return
        old, settings = self.book, self.settings
        loaded = self.networks.wanted or self.networks.current
        if old is None:
            classes = OnlineClasses(settings.number, per_class=settings.per_class)
        else:
            classes = OnlineClasses.restore(old.classes.state(), most=settings.number)
            classes.per_class = settings.per_class
        box_a = self.records.usual_box() if old is None or why == "box" else old.box_a
        book = Book(self.records.folder, loaded.denoiser, self.networks.number_of(loaded), classes, box_a)
        book.since = {} if old is None else dict(old.since)
        group = why != "changed"
        self.going_over = Pass(why, book, self.records, group=group, wake=self.wake, seed=self.kept.groupings)
        self._began = self._clock()
        self.changes += 1
        log.info("2-D classes: a pass over %d particles begins (%s)", self.going_over.of, why)

    def _go_over(self) -> bool:
        assert self.going_over is not None
        worked = self.going_over.step()
        self._tell_refused(self.going_over.book)
        if self.going_over.over:
            done, self.going_over = self.going_over, None
            self._take_over(done)
        return worked

    def _take_over(self, done: Pass) -> None:
        """The new book is in force from here on."""
        book, now = done.book, self._wall()
        self._rested = self._clock() + REST * (self._clock() - self._began)
        if not book.classes.ids:
            self._hopeless = 2 * self.records.count()
            log.warning("2-D classes: none of %d particles has any contrast; waiting for more", self.records.count())
            return
        if self._update is not None:
            self._update[1].close()
            self._update = None
        self.networks.adopt(book.denoiser)
        self._mixed = self._restarted = False
        book.since = {number: book.since.get(number, now) for number in book.classes.ids}
        book.learning = True
        first, self.book = self.book is None, book
        if done.grouped:
            self.kept.clustered_at, self.kept.groupings = book.classified, self.kept.groupings + 1
        self.growth.begin()
        self.facts.passed(done.why)
        self._tell(done)
        if first:
            # These waited for others, not for this.
            self._heard.clear()
        for file in [file for file in self._heard if file in book.entries]:
            self._labelled(book, file, Counter())
        self._refill()
        # Before anybody sees the new numbers: a mark that is put on one must mean the same after a kill.
        self.on_new_book()

    def _tell_refused(self, book: Book) -> None:
        """Of what got no class, count each particle once, however often it is gone over."""
        for why, count in book.refused.items():
            if count > self._told[why]:
                self.facts.failed(why, count - self._told[why])
                self._told[why] = count

    def _tell(self, done: Pass) -> None:
        book = done.book
        text = f"{book.classified} particles in {len(book.classes.ids)} classes ({done.why})."
        log.info("2-D classes: %s", text)
        if done.why != "changed":
            self.event(text)
        for change in done.changes:
            self.event(change.text)
        for text in self.marks.follow(done.changes, book.since):
            self.event(text)

    def _tune(self) -> None:
        book = self.book
        may_start = book is not None and self.going_over is None and not self.ending
        for text in self.networks.tune(book.classified if book is not None and may_start else 0):
            self.event(text)

    def event(self, text: str) -> None:
        """Something that an operator may want to know."""
        self.kept.events = [*self.kept.events, (self._wall(), text)][-MOST_EVENTS:]
        self.changes += 1
