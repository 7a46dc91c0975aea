"""The records of a session as the classes see them: which there are, how many particles each has, and in which box."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..flow.frame import BadData
from ..sinks.picks.particles import open_particles
from ..sinks.picks.places import RECORDS
from ..sinks.picks.rows import Stamp, record_files

log = logging.getLogger(__name__)

#: Boxes that differ by less are the same box: pixel sizes are calibrated now and then.
SAME_BOX = 0.02
#: A record that could not be read is tried again after this time: a file server may have been away.
RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Known:
    """A record that can be read. ``box_a``: edge of its particles' images in ångström, 0 where it has none."""

    stamp: Stamp
    count: int
    box_a: float


def same_box(one: float, other: float) -> bool:
    """Whether images of these edges, in ångström, can be in one class."""
    return one > 0 and other > 0 and abs(one / other - 1) <= SAME_BOX


class Records:
    """Which records lie in the folder. For the worker's thread.

    ``known``: by name below ``folder``, in order of discovery. ``on_bad`` is called with every one that cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        on_bad: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = directory / RECORDS
        self.known: dict[str, Known] = {}
        self._bad: dict[str, tuple[Stamp, float]] = {}
        self._on_bad, self._clock = on_bad, clock

    def scan(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Look at the whole folder; says whether anything has changed. Raises ``OSError``."""
        seen = dict(record_files(self.folder))
        gone = [file for file in self.known if file not in seen]
        for file in gone:
            del self.known[file]
        changed = bool(gone)
        for file, stamp in seen.items():
            if stop():
                break
            changed |= self._note(file, stamp)
        return changed

    def trust(self, stored: Mapping[str, tuple[Stamp, int, float]]) -> None:
        """What an earlier daemon knew, as the fields of ``Known``: what still has that stamp need not be opened."""
        self.known.update({file: Known(*known) for file, known in stored.items()})

    def look(self, file: str) -> bool:
        """Look at one record; says whether it is new or has changed."""
        try:
            stat = (self.folder / file).stat()
        except OSError:
            return self.known.pop(file, None) is not None
        return self._note(file, (stat.st_mtime_ns, stat.st_size, stat.st_ino))

    def bad(self, file: str, detail: str) -> None:
        """It cannot be read after all."""
        known = self.known.pop(file, None)
        self._refuse(file, known.stamp if known else (0, 0, 0), detail)

    def count(self, box_a: float | None = None) -> int:
        """Particles there are; with ``box_a`` only those in such a box."""
        return sum(k.count for k in self.known.values() if box_a is None or same_box(k.box_a, box_a))

    def usual_box(self) -> float:
        """The box in ångström that most particles are in; 0 where there are none."""
        boxes: Counter[float] = Counter()
        for known in self.known.values():
            if known.count and known.box_a > 0:
                boxes[known.box_a] += known.count
        return max(boxes, key=lambda box: sum(n for b, n in boxes.items() if same_box(b, box)), default=0.0)

    def _note(self, file: str, stamp: Stamp) -> bool:
        known = self.known.get(file)
        if known is not None and known.stamp == stamp:
            return False
        bad = self._bad.get(file)
        if bad is not None and bad[0] == stamp and self._clock() < bad[1]:
            return False
        try:
            with open_particles(self.folder / file) as found:
                self.known[file] = Known(stamp, len(found), found.imaged.size * found.imaged.pixel_a)
        except BadData as error:
            self.known.pop(file, None)
            self._refuse(file, stamp, error.detail)
            return known is not None
        self._bad.pop(file, None)
        return True

    def _refuse(self, file: str, stamp: Stamp, detail: str) -> None:
        if self._bad.get(file, ((0, 0, 0), 0.0))[0] != stamp:
            log.warning("%s", detail)
            self._on_bad()
        self._bad[file] = (stamp, self._clock() + RETRY_S)
