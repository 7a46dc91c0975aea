"""A book of classes: which particle of which record is in which class, and the averages that are made of exactly these.

There may be two at a time, the one in force and one that a pass writes anew. Both are filled by the same ``update``,
record by record, so that a record that came or changed during a pass is in the new book when it takes over: every
particle of every record is in it once.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...models.classes2d.averages import Averages, turned
from ...models.classes2d.compared import compared
from ...models.classes2d.online import OnlineClasses
from ...models.classes2d.polar import Complexes, Features, features
from ...models.classes2d.working import working
from ..live.class_view import MOST_MEMBERS
from ..sinks.picks.classes_file import NONE, PARTICLE, Table
from ..sinks.picks.particles import Particles, open_particles
from ..sinks.picks.record import Imaged
from ..sinks.picks.rows import Stamp
from .class_records import Known, same_box

log = logging.getLogger(__name__)

#: Particles that are worked on in one go: a fraction of a second, after which what is more urgent has its turn.
AT_ONCE = 256

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.intp]


class Denoises(Protocol):
    """A denoiser of working images; ``models.classes2d.denoise.Denoiser`` is one."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of its file."""

    def warm_up(self) -> str:
        """Get ready; says how it runs."""

    def __call__(self, images: Floats) -> Floats:
        """(n, 64, 64) to the same with less noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The labels of one record's particles, in its order: ``rows`` of ``PARTICLE``, never written to."""

    name: str
    stamp: Stamp
    size: int
    pixel_a: float
    rows: Table

    @property
    def numbers(self) -> Counter[int]:
        """Particles by class."""
        ids, counts = np.unique(self.rows["class"], return_counts=True)
        return Counter(dict(zip(ids.tolist(), counts.tolist(), strict=True)))


@dataclass(slots=True, eq=False)
class Member:
    """A particle that was classified: working images as recorded and denoised, and how they turn onto the class."""

    images: Floats
    angle: float
    shift: Floats
    _aligned: Floats | None = None

    def aligned(self) -> Floats:
        """Both images turned onto the class, (2, 64, 64): made when somebody looks, since few particles ever are."""
        if self._aligned is None:
            self._aligned = turned(self.images, self.angle, self.shift)
        return self._aligned


@dataclass(eq=False)
class Book:
    """Labels, averages and centres that belong together. For the worker's thread.

    ``folder``: of the records. ``model``: the denoiser's number in ``classes.h5``. ``box_a``: edge of the particles'
    boxes in ångström; particles in another get no class. ``learning``: whether centres follow new particles.
    ``went``: particles that the averages still hold and no record does any more. ``refused``: particles without a
    class, by why, since the book was begun. ``since``: when classes came, Unix seconds.
    """

    folder: Path
    denoiser: Denoises
    model: int
    classes: OnlineClasses
    box_a: float
    learning: bool = False
    averages: Averages = field(default_factory=Averages)
    entries: dict[str, Entry] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    members: dict[int, deque[Member]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    since: dict[int, float] = field(default_factory=dict)
    went: int = 0

    @property
    def classified(self) -> int:
        """Particles with a class."""
        return self.counts.total() - self.counts[NONE]

    def stale(self, known: Mapping[str, Known]) -> list[str]:
        """Records whose labels are missing or of an earlier content; forgets those that are gone."""
        for file in [file for file in self.entries if file not in known]:
            self.drop(file)
        return [file for file, k in known.items() if file not in self.entries or self.entries[file].stamp != k.stamp]

    def drop(self, file: str) -> None:
        """The record is gone."""
        self._replace(file, None, 0)

    def update(self, file: str, stamp: Stamp) -> Generator[int]:
        """Label what is new in a record; gives, after every piece of work, how many particles that was.

        Particles that were labelled before (the same x, y and score in the same box) keep their class. To give up in
        the middle is safe, and so is to keep the book: what the averages got so far counts as gone from the record
        until all of it is labelled. Raises ``BadData``.
        """
        added = 0
        with open_particles(self.folder / file) as found:
            rows, new = self._begun(file, found.imaged)
            carried = int(np.count_nonzero(rows["class"]))
            step = min(AT_ONCE, found.at_once)
            for first in range(0, len(new), step):
                some = new[first : first + step]
                came = self._label(rows, some, found)
                added += came
                self.went += came
                yield len(some)
            entry = Entry(found.name, stamp, found.imaged.size, found.imaged.pixel_a, rows)
        self._replace(file, entry, carried)
        self.went -= added

    def spectra(self, found: Particles, at: Numbers) -> Complexes:
        """The spectra of some particles of an open record, those that are no images left out. Raises ``BadData``."""
        _, seen, _ = self._see(found, at)
        return seen.spectra

    # Inside

    def _begun(self, file: str, imaged: Imaged) -> tuple[Table, Numbers]:
        """The rows of a record's particles with the labels that are known, and the numbers of those without."""
        rows = np.zeros(len(imaged), PARTICLE)
        for name in ("x", "y", "score"):
            rows[name] = getattr(imaged, name)
        old = self.entries.get(file)
        if old is None or (old.size, old.pixel_a) != (imaged.size, imaged.pixel_a):
            return rows, np.arange(len(rows))
        at = places(old.rows, rows)
        kept = at >= 0
        rows[kept] = old.rows[at[kept]]
        return rows, np.flatnonzero(~kept)

    def _label(self, rows: Table, at: Numbers, found: Particles) -> int:
        """Classify some of an open record's particles; gives how many came into the averages."""
        if not same_box(found.imaged.size * found.imaged.pixel_a, self.box_a):
            self._refuse("box", len(at), found)
            rows["model"][at] = self.model
            return 0
        good, seen, (recorded, denoised) = self._see(found, at)
        assigned = self.classes.assign(seen.spectra)
        if self.learning:
            self.classes.learn(seen.spectra, assigned)
        self.averages.add(assigned.id, recorded, assigned.angle, seen.shift, assigned.similarity)
        mine = at[good]
        rows["class"][mine], rows["angle"][mine] = assigned.id, assigned.angle
        rows["shift"][mine], rows["similarity"][mine] = seen.shift, assigned.similarity
        rows["model"][at] = self.model
        inside = np.flatnonzero(assigned.id > NONE)
        for i in inside:
            member = Member(np.stack([recorded[i], denoised[i]]), float(assigned.angle[i]), seen.shift[i].copy())
            self.members.setdefault(int(assigned.id[i]), deque(maxlen=MOST_MEMBERS)).append(member)
        self._refuse("image", len(at) - len(inside), found)
        return len(inside)

    def _see(self, found: Particles, at: Numbers) -> tuple[npt.NDArray[np.bool_], Features, tuple[Floats, Floats]]:
        """Which of the particles are images (n,), and of these the features, and the images recorded and denoised."""
        images, good = working(found.read(at))
        recorded = images[good]
        denoised = self.denoiser(recorded) if len(recorded) else recorded
        # A network may answer no number to what it has never seen; in an average it would be all that is left.
        finite = np.isfinite(denoised).all((1, 2))
        good[np.flatnonzero(good)[~finite]] = False
        recorded, denoised = recorded[finite], denoised[finite]
        return good, features(compared(recorded, denoised)), (recorded, denoised)

    def _refuse(self, why: str, count: int, found: Particles) -> None:
        if not count:
            return
        if not self.refused[why]:
            box = found.imaged.size * found.imaged.pixel_a
            log.warning(
                "%s: %d particles get no class: %s; the same of further ones is only counted",
                found.name,
                count,
                "their image is constant, or holds no numbers"
                if why == "image"
                else f"they are in a box of {box:.0f} Å, the classes' is {self.box_a:.0f} Å; "
                "write another box to another folder (files.directory)",
            )
        self.refused[why] += count

    def _replace(self, file: str, entry: Entry | None, carried: int) -> None:
        """Put the entry in the place of the record's old one, ``carried`` of whose classified particles it has."""
        old = self.entries.pop(file, None)
        if old is not None:
            self.counts.subtract(old.numbers)
            self.went += int(np.count_nonzero(old.rows["class"])) - carried
        if entry is not None:
            self.entries[file] = entry
            self.counts.update(entry.numbers)


def places(old: Table, new: Table) -> Numbers:
    """For each of the rows ``new`` the number of the same particle (x, y, score) among ``old``, or -1."""
    if len(old) == len(new) and all(np.array_equal(old[name], new[name]) for name in ("x", "y", "score")):
        return np.arange(len(new))
    known = {key: at for at, key in enumerate(_keys(old))}
    return np.array([known.get(key, -1) for key in _keys(new)], np.intp)


def _keys(rows: Table) -> list[tuple[Any, ...]]:
    return list(zip(rows["x"].tolist(), rows["y"].tolist(), rows["score"].tolist(), strict=True))
