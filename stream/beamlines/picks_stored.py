"""Micrographs as the live page knows them, from the pipeline and from the records of a session's folder."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...models.particles.candidates import Candidates
from ..flow.frame import BadData
from ..live.maps import place_of
from ..live.micrographs import Micrograph
from ..live.shelf import Shelf
from ..live.table import MOST_ROWS, Table
from ..sinks.picks.micrograph import PickedMicrograph
from ..sinks.picks.places import RECORDS, Places
from ..sinks.picks.record import read
from ..sinks.picks.rows import Stamp, record_files
from ..sinks.picks.threshold import NAME
from ..sources.folder.layouts import parse_name

log = logging.getLogger(__name__)

CANDIDATES_BYTES = 32 << 20
LOOK_S = 5.0
#: Browsers fetch all rows when older ones have changed.
TELL_S = 3.0
#: Between two records the reader waits as long as reading one took: the other half of the time is the analysis'.
REST = 1.0
LAYOUTS = ("epu", "leginon")


def row_id(found: PickedMicrograph) -> str:
    """Names these candidates of this content of the file, now and after a restart: 16 hexadecimal digits."""
    text = f"{found.name}\0{found.revision}\0{found.model_sha256}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def micrograph_of(found: PickedMicrograph, when: float, seconds: float | None) -> Micrograph:
    """As the page's table has it. ``when``: Unix seconds; ``seconds``: of work."""
    low, high = found.sd_range
    candidates = found.candidates
    usable = (candidates.sd >= low) & (candidates.sd <= high) & (not found.skipped)
    said = (found.info, *(parse_name(layout, found.name) for layout in LAYOUTS))
    return Micrograph(
        id=row_id(found),
        name=found.name,
        path=found.path,
        time=when,
        shape=found.shape,
        pixel_a=found.pixel_a,
        diameter_a=found.diameter_a,
        box_px=found.box_px,
        threshold=found.threshold,
        sd_range=found.sd_range,
        floor=found.floor,
        scores=np.sort(candidates.score[usable]),
        candidates=len(candidates),
        model=found.model_sha256,
        seconds=seconds,
        quality=dict(found.quality),
        warnings=found.warnings,
        skipped=found.skipped,
        place=place_of(*said),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Candidates in memory."""

    candidates: Candidates

    @property
    def nbytes(self) -> int:
        """Of their four columns."""
        return 16 * len(self.candidates)


class Stored:
    """Reads the session's records into ``table`` in a thread of its own; finds candidates, in memory or on the disk.

    At most ``most`` records are read, those written last. The folder is looked at again when somebody ``ask``s, and
    when its threshold was moved, also by ``beamsieve rethreshold`` beside a running daemon. ``on_loaded`` is called in
    the thread when all was read once, and ``loaded`` set before.
    """

    def __init__(self, directory: Path, table: Table, most: int = MOST_ROWS) -> None:
        self._places = Places(directory)
        self._table, self._most = table, most
        self._seen: dict[str, Stamp] = {}
        self._candidates: Shelf[Kept] = Shelf(CANDIDATES_BYTES)
        self._asked = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live records", daemon=True)
        self.on_loaded: Callable[[], None] = lambda: None
        self.loaded = threading.Event()

    def start(self) -> None:
        """Begin to read; more than once does no harm."""
        if self._thread.ident is None:
            self._thread.start()

    def ask(self) -> None:
        """Read again what has changed in the folder. Returns at once."""
        self._asked.set()

    def close(self) -> None:
        """Read no more."""
        self._over.set()
        self._asked.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def keep(self, row: str, candidates: Candidates) -> None:
        """Keep candidates at hand for a while."""
        self._candidates.put(row, Kept(candidates))

    def candidates(self, found: Micrograph) -> Candidates | None:
        """All candidates of a micrograph, the best first; None where they are not stored (any more)."""
        kept = self._candidates.get(found.id)
        if kept is not None:
            return kept.candidates
        try:
            stored = read(self._places.record(found.name)).micrograph
        except BadData as error:
            log.info("%s", error.detail)
            return None
        if row_id(stored) != found.id:
            return None
        self.keep(found.id, stored.candidates)
        return stored.candidates

    def scan(self) -> int:
        """Read the records that are new or have changed; gives how many. For one thread."""
        folder = self._places.directory / RECORDS
        files = sorted(record_files(folder), key=lambda file: file[1], reverse=True)[: self._most]
        changed = [(file, stamp) for file, stamp in files if self._seen.get(file) != stamp]
        told = time.perf_counter()
        for file, stamp in changed:
            if self._over.is_set():
                break
            began = time.perf_counter()
            self._take(folder / file)
            self._seen[file] = stamp
            self._over.wait(REST * min(1.0, time.perf_counter() - began))
            if began - told > TELL_S:
                self._table.tell()
                told = began
        if changed:
            self._table.tell()
        return len(changed)

    def _take(self, path: Path) -> None:
        try:
            record = read(path)
        except BadData as error:
            # The sink's own reader warns of it.
            log.info("%s", error.detail)
            return
        seconds = sum(record.seconds.values()) if record.seconds else None
        times = [_time(change.when) for change in record.changes] or [0.0]
        found = micrograph_of(record.micrograph, times[0], seconds)
        self._table.restore(replace(found, changed=times[-1]))

    def _run(self) -> None:
        stamp = self._stamp()
        changing = True
        while not self._over.is_set():
            try:
                now = self._stamp()
                if changing or self._asked.is_set() or now != stamp:
                    self._asked.clear()
                    # Until nothing changes: whoever moves a threshold says so first, and rewrites the records then.
                    changing = self.scan() > 0 or now != stamp
                    stamp = now
            except OSError as error:
                log.warning("%s: records cannot be read: %s", self._places.directory, error)
            if not self.loaded.is_set():
                self.loaded.set()
                self.on_loaded()
            self._asked.wait(LOOK_S)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            stat = (self._places.directory / NAME).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino


def _time(text: str) -> float:
    """Unix seconds; 0 where that is no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def picked_now(found: Micrograph, candidates: Candidates) -> npt.NDArray[np.bool_]:
    """Which candidates are picks at the row's threshold; none of a micrograph that was skipped."""
    picked = candidates.picked(found.threshold, found.sd_range)
    return np.zeros_like(picked) if found.skipped else picked
