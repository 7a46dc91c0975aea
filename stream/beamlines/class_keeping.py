"""Snapshots for the page and the metrics, and files, each at its pace, of the work on the classes."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ...models.classes2d.working import EDGE
from ..live.class_view import Classes, ClassView
from ..sinks.picks.classes_file import ClassTables
from ..sinks.picks.files import part_error
from ..sinks.picks.tables import Pace
from .class_store import tables_of
from .class_views import Gallery, counts_of, marked, rejected
from .class_work import ClassWork

log = logging.getLogger(__name__)

PUBLISH_S = 1.0
#: Without any news, how fast classes grow is told so often.
QUIET_S = 15.0


class Keeping:
    """For the worker's thread; ``current`` is for any. ``every_s``: seconds between two versions of the files."""

    def __init__(
        self,
        work: ClassWork,
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._work, self._clock, self._wall = work, clock, wall
        self._gallery = Gallery(wall)
        self._versions = itertools.count(1)
        self._paces = {name: Pace(every_s, clock) for name in ("tables", "exports", "picture")}
        self._publish_at = -math.inf
        self._seen = (-1, -1), -1
        self._kept = self._exported = (-1, -1)
        self._drawn, self._drawn_at = (-1, -1), -1
        self._errors: dict[str, str] = {}
        self._tables: ClassTables | None = None
        self._lock = threading.Lock()
        need = work.settings.first_at
        self._snapshot = (Classes(0, "waiting", 0, need, 0, 0, 0, 0.0, "", "", tuned=False), -1)
        work.on_new_book = self.new_book

    def current(self) -> Classes:
        """The newest picture of the classes, with the newest marks. Any thread."""
        with self._lock:
            classes, marks = self._snapshot
            version = self._work.marks.version
            if version != marks:
                classes = marked(classes, self._work.marks.all(), next(self._versions))
                self._snapshot = classes, version
            return classes

    def keep_up(self) -> None:
        """Publish and write what is due."""
        now = self._now()
        late = self._clock() - self._publish_at
        # What was heard of counts: where it came to nothing, as with a full disk, it waits no longer.
        if late >= 0 and ((now, self._work.heard) != self._seen or late >= QUIET_S):
            self.publish()
        if self._work.book is None:
            return
        # Not of a record that is labelled in part: a restart would find its particles gone, and go over all again.
        if self._paces["tables"].due() and not self._work.in_record and self._is_behind(now):
            self.save()
        if self._kept != self._exported and self._paces["exports"].due():
            self._export()
        every = self._work.settings.montage_every
        if self._work.book.classified // every != self._drawn_at and self._paces["picture"].due():
            self._draw()

    def last(self) -> None:
        """Publish and write everything: the daemon ends."""
        self.publish()
        if self._work.book is not None:
            if self._is_behind(self._now()):
                self.save()
            if self._kept != self._exported:
                self._export()
            if self._drawn != self._now():
                self._draw()

    def new_book(self) -> None:
        """Classes are others now: on the disk first, then before everybody's eyes."""
        self.save(self._views())
        self.publish()

    def publish(self) -> None:
        """Make a new snapshot."""
        self._seen, marks = (self._now(), self._work.heard), self._work.marks.version
        self._publish_at = self._clock() + PUBLISH_S
        found = self._classes(self._views())
        with self._lock:
            self._snapshot = found, marks
        self._work.facts.counted(counts_of(found, self._work.waiting(), self._work.heard))

    def fail(self, why: str) -> None:
        """Nothing more is classified."""
        with self._lock:
            classes, marks = self._snapshot
            self._snapshot = replace(classes, state="failed", error=why, version=next(self._versions)), marks

    def say(self, what: str, why: str) -> None:
        """What hinders ``what`` at present; empty: nothing."""
        if why != self._errors.get(what, ""):
            self._errors[what] = why
            self._work.changes += 1

    def save(self, views: tuple[ClassView, ...] | None = None) -> None:
        """Write ``classes.h5``; where that is impossible, later."""
        work, now = self._work, self._now()
        with self._paces["tables"]:
            views = self._views() if views is None else views
            tables = tables_of(work.book, work.kept, work.networks, views, work.marks.all(), self._wall())
            if self._try("tables", lambda: work.store.write(tables)):
                self._kept, self._tables = now, tables

    def _export(self) -> None:
        kept, tables = self._kept, self._tables
        if tables is None:
            return
        with self._paces["exports"]:
            if self._try("exports", lambda: self._work.store.export(tables, self._work.kept.groupings)):
                self._exported = kept

    def _is_behind(self, now: tuple[int, int]) -> bool:
        """Whether ``classes.h5`` has to be written: something is new, or somebody has removed the file."""
        return now != self._kept or not self._work.store.is_kept

    def _draw(self) -> None:
        book, now = self._work.book, self._now()
        assert book is not None
        with self._paces["picture"]:
            views = self._views()
            if self._try("picture", lambda: self._work.store.picture(views, f"{book.classified} particles")):
                self._drawn, self._drawn_at = now, book.classified // self._work.settings.montage_every

    def _try(self, what: str, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            detail = part_error(error).detail
            log.warning("2-D classes: %s; tried again", detail)
            self._work.facts.failed("file")
            self.say(what, detail)
            return False
        self.say(what, "")
        return True

    def _now(self) -> tuple[int, int]:
        return self._work.changes, self._work.marks.version

    def _views(self) -> tuple[ClassView, ...]:
        work = self._work
        if work.book is None:
            return ()
        return self._gallery.views(work.book, work.growth.per_minute(), work.marks.all())

    def _classes(self, views: tuple[ClassView, ...]) -> Classes:
        work, book, records = self._work, self._work.book, self._work.records
        there, pass_ = records.count(), work.going_over
        particles = 0 if book is None else book.classified
        denoiser = work.networks.current.denoiser
        return Classes(
            version=next(self._versions),
            state="waiting" if book is None else "ready",
            have=there,
            need=work.settings.first_at,
            particles=particles,
            unlabelled=max(0, there - particles),
            rejected=rejected(views),
            pixel_a=0.0 if book is None else book.box_a / EDGE,
            model=denoiser.name,
            model_sha256=denoiser.sha256,
            tuned=work.networks.tuned,
            pass_=None if pass_ is None else (pass_.why, min(pass_.done, pass_.of), pass_.of),
            tuning=work.networks.shown(),
            events=tuple(work.kept.events),
            classes=views,
            error="; ".join(why for why in self._errors.values() if why),
        )
