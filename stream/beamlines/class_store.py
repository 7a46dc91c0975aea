"""What is kept of the classes in the session's folder: ``classes.h5``, the picture of all averages, and exports."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...models.classes2d.averages import Averages
from ...models.classes2d.online import OnlineClasses
from ...models.classes2d.polar import ORDERS, RINGS
from ...models.classes2d.working import EDGE
from ..flow.frame import BadData
from ..live.class_view import ClassView
from ..sinks.picks.class_exports import export_classes
from ..sinks.picks.classes_file import (
    CLASS,
    MICROGRAPH,
    NAME,
    NONE,
    PARTICLE,
    ClassTables,
    Event,
    read_classes,
    write_classes,
)
from ..sinks.picks.files import write_whole
from ..sinks.picks.places import Places
from ..sinks.picks.rows import Rows
from ..sinks.picks.settings import PickSettings
from .class_book import Book, Denoises, Entry
from .class_networks import Networks

log = logging.getLogger(__name__)

MONTAGE, LOCK = "classes.png", ".classes.lock"
#: Formats of picks that there is a format of classes for.
EXPORTED = frozenset({"star", "cryosparc"})
_ONLINE, _AVERAGES = "online_", "averages_"


@dataclass(eq=False)
class Kept:
    """What a daemon knows of the classes beside the book, and what the next one goes on from.

    ``clustered_at``: particles there were when the classes were last made anew; ``groupings``: how often they were.
    """

    clustered_at: int = 0
    groupings: int = 0
    events: list[Event] = field(default_factory=list)


def tables_of(
    book: Book | None,
    kept: Kept,
    networks: Networks,
    views: Sequence[ClassView],
    marks: Mapping[int, str],
    now: float,
) -> ClassTables:
    """All of it as ``classes.h5`` has it; ``views`` of the classes of the book."""
    views = sorted(views, key=lambda view: view.id)
    facts: dict[str, Any] = {
        "configured": networks.base.denoiser.sha256,
        "clustered_at": kept.clustered_at,
        "groupings": kept.groupings,
        "box_a": 0.0 if book is None else book.box_a,
        "went": 0 if book is None else book.went,
        "model": 0 if book is None else book.model,
        "refused": {} if book is None else dict(book.refused),
        # Of classes that are empty as well: what comes next may be of theirs.
        "since": {} if book is None else {str(number): book.since.get(number, 0.0) for number in book.classes.ids},
    }
    bad = [number for number, mark in marks.items() if mark == "bad"]
    micrographs, particles = _labels({} if book is None else book.entries, bad)
    k = len(views)
    return ClassTables(
        pixel_a=0.0 if book is None else book.box_a / EDGE,
        edge=EDGE,
        micrographs=micrographs,
        particles=particles,
        models=tuple(networks.models),
        classes=np.array([_class(view) for view in views], CLASS),
        averages=np.array([v.average for v in views], np.float32).reshape(k, EDGE, EDGE),
        halves=np.array([book.averages.halves(v.id) for v in views if book], np.float32).reshape(k, 2, EDGE, EDGE),
        centres=_centres(book, views),
        events=tuple(kept.events),
        written=now,
        facts=facts,
        state={} if book is None else _state(book),
    )


def _class(view: ClassView) -> tuple[Any, ...]:
    return view.id, view.count, view.mark.encode(), view.since, view.spread, view.resolution_a


def _centres(book: Book | None, views: Sequence[ClassView]) -> Any:
    if book is None or not views:
        return np.zeros((0, RINGS, ORDERS), np.complex64)
    row = {number: at for at, number in enumerate(book.classes.ids)}
    return book.classes.centres[[row[view.id] for view in views]]


def _labels(entries: Mapping[str, Entry], bad: Sequence[int]) -> tuple[Any, Any]:
    """The tables of micrographs and particles, by name of the record."""
    named = sorted(entries.items())
    micrographs = np.zeros(len(named), MICROGRAPH)
    first = 0
    for at, (file, entry) in enumerate(named):
        micrographs[at] = (entry.name, file, first, len(entry.rows), entry.stamp, entry.size, entry.pixel_a)
        first += len(entry.rows)
    particles = np.concatenate([np.zeros(0, PARTICLE), *(entry.rows for _, entry in named)])
    particles["micrograph"] = np.repeat(np.arange(len(named), dtype=np.int32), micrographs["count"])
    particles["rejected"] = np.isin(particles["class"], bad) & (particles["class"] != NONE)
    return micrographs, particles


def _state(book: Book) -> dict[str, Any]:
    online = {f"{_ONLINE}{name}": value for name, value in book.classes.state().items()}
    return online | {f"{_AVERAGES}{name}": value for name, value in book.averages.state().items()}


def book_of(tables: ClassTables, folder: Path, denoiser: Denoises, *, most: int, per_class: int) -> Book:
    """The book that ``tables`` were made of. Raises ``ValueError`` where it is of another layout."""

    def part(prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): v for name, v in tables.state.items() if name.startswith(prefix)}

    classes = OnlineClasses.restore(part(_ONLINE), most=most)
    classes.per_class = per_class
    facts = tables.facts
    book = Book(folder, denoiser, int(facts["model"]), classes, float(facts["box_a"]), learning=True)
    book.averages = Averages.restore(part(_AVERAGES))
    book.went = int(facts["went"])
    book.refused.update({str(why): int(n) for why, n in dict(facts["refused"]).items()})
    book.since = {int(number): float(when) for number, when in dict(facts["since"]).items()}
    for m in tables.micrographs:
        rows = tables.particles[int(m["first"]) : int(m["first"]) + int(m["count"])]
        stamp = (int(m["stamp"][0]), int(m["stamp"][1]), int(m["stamp"][2]))
        entry = Entry(str(m["name"]), stamp, int(m["size"]), float(m["pixel_a"]), rows)
        book.entries[str(m["file"])] = entry
        book.counts.update(entry.numbers)
    return book


class Store:
    """Files of the classes in the session's folder. For the worker's thread. One process at a time may ``claim`` them.

    ``settings``, ``places``: of the picks, for the files of other programs.
    """

    def __init__(self, settings: PickSettings, places: Places) -> None:
        self.directory = places.directory
        self.path = self.directory / NAME
        self._settings, self._places = settings, places
        self._rows = Rows(places)
        self._lock: int | None = None

    def claim(self) -> bool:
        """Whether this process alone classifies here from now on. Raises ``OSError`` where the folder is no place."""
        if self._lock is None:
            descriptor = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:
                # A file system without locks: then nobody can tell, and one daemon is what there usually is.
                log.debug("%s: cannot be locked", self.directory)
            self._lock = descriptor
        return True

    def release(self) -> None:
        """Another process may classify here."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    @property
    def is_kept(self) -> bool:
        """Whether ``classes.h5`` is there."""
        return os.path.exists(self.path)

    def read(self) -> ClassTables | None:
        """What was kept; None where there is nothing, or nothing that can be used, which is put aside then."""
        try:
            return read_classes(self.path)
        except FileNotFoundError:
            return None
        except BadData as error:
            log.warning("%s", error.detail)
            self.put_aside()
            return None

    def put_aside(self) -> None:
        """What cannot be used is kept under another name: somebody may want to look at it."""
        with suppress(OSError):
            os.replace(self.path, self.path.with_name(f"{NAME}.unusable"))

    def write(self, tables: ClassTables) -> None:
        """Keep them. Raises ``OSError``."""
        write_classes(self.path, tables)

    def export(self, tables: ClassTables, number: int) -> None:
        """Write what other programs read; ``number``: of the grouping, from 1. Raises ``OSError``."""
        if self._settings.particles.mrcs or EXPORTED & set(self._settings.formats):
            self._rows.scan()
            export_classes(tables, self._rows.sorted(), self._settings, self._places, number)

    def picture(self, views: Sequence[ClassView], title: str) -> None:
        """Write the picture of all averages. Raises ``OSError``."""
        from ...models.classes2d.montage import montage

        if not views:
            return
        labels = [_caption(view) for view in views]
        drawn = montage(
            np.stack([v.average for v in views]),
            [v.count for v in views],
            labels,
            title=title,
            marks=[v.mark for v in views],
        )
        write_whole(self.directory / MONTAGE, drawn)


def _caption(view: ClassView) -> str:
    return f"{view.id}" if not np.isfinite(view.resolution_a) else f"{view.id} · {view.resolution_a:.0f} Å"
