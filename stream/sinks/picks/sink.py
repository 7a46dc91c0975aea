"""The sink for picks: a record per micrograph in HDF5, files for other programs, pictures, and the session's tables."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...flow.frame import Failure, Frame, Result, RunEnd, RunStart
from ...flow.ports import Facts, NoFacts
from ..hdf5_room import GIGA, Room, free_bytes
from . import picture
from .exports import export
from .files import NAMES, lock, part_error, sweep, write_whole
from .images import carried, images_of, stored
from .micrograph import PickedMicrograph
from .places import Places
from .record import Change, Images, Record, encode, now
from .revisions import supersede
from .rows import Rows, totals
from .settings import SETTINGS, PickSettings
from .tables import Pace, write_large, write_small
from .threshold import Followed, picked_again

__all__ = ["PickSettings", "PickSink"]

log = logging.getLogger(__name__)

CONFIG = "config.yaml"


class PickSink:
    """Keeps every micrograph that ``found["micrograph"]`` of a result describes. Implements ``Sink``; for one thread.

    When ``write`` returns, a micrograph's files are on disk under their final names, each as a whole, the record last:
    a repeat after a kill writes them again and doubles nothing. The tables follow within seconds, and hold whatever
    records lie in the folder, also those of another daemon.
    """

    def __init__(
        self,
        settings: PickSettings,
        facts: Facts | None = None,
        *,
        config: str = "",
        base: Path = Path(),
        free: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Touch nothing yet. ``config``: text kept beside the picks. ``base``: where relative folders are."""
        self.settings = settings
        self.directory = base / settings.directory
        self.files: list[Path] = []
        self._config = config
        self.places = Places(self.directory, None if settings.project is None else base / settings.project)
        self._facts: Facts = facts or NoFacts()
        self._room = Room(self.directory, settings.min_free_gb * GIGA, self._facts, free, clock)
        self._rows = Rows(self.places)
        self._followed = Followed(self.directory)
        self._small = Pace(settings.tables_every_s, clock)
        self._large = Pace(settings.tables_every_s, clock)
        self._stale = {"small": False, "large": False}

    def open(self) -> None:
        """Make the folder, remove what a killed daemon left half written, and read the records that are there.

        For the service, before it runs. Raises ``OSError`` naming the folder and the remedy if it cannot be written.
        """
        _make(self.directory)
        gone = sweep(self.directory)
        if gone:
            log.warning("%s: removed %d files that a killed writer left half written", self.directory, gone)
        self._scan()
        if len(self._rows):
            counts = totals(self._rows.sorted())
            log.info("%s: %d micrographs with %d picks", self.directory, counts["micrographs"], counts["picks"])
        try:
            self._note_settings()
        except OSError as error:
            log.warning("%s: settings are not noted: %s", self.directory, error)

    # Sink

    def start(self, mark: RunStart) -> None:
        """A session has no beginning in its files."""

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Keep them, in order."""
        failures = []
        for result in results:
            found = result.found.get("micrograph")
            if isinstance(found, PickedMicrograph) and result.weight > 0.0:
                failure = self._try(result, found)
                failures += [] if failure is None else [failure]
        return failures

    def end(self, mark: RunEnd) -> None:
        """Bring the tables up to date."""
        log.debug("%s: %s", mark.run, mark.reason)
        self._tables(force=True)

    def flush(self) -> None:
        """Bring the tables up to date where they are due, and look at the free space."""
        if not self._room.is_short():
            self._tables(force=False)

    def lost(self) -> Sequence[Failure]:
        """Nothing: what ``write`` took is on disk."""
        return ()

    def close(self) -> None:
        """Bring the tables up to date."""
        self._tables(force=True)

    # What the service asks

    def may_write(self) -> bool:
        """Whether a micrograph may be tried now: there is room, and the last failure is a while ago. For any thread."""
        return self._room.may_open()

    def healthy(self) -> str | None:
        """Why picks are not kept at present; None if they are."""
        return self._room.why_not()

    # One micrograph

    def _try(self, result: Result, found: PickedMicrograph) -> Failure | None:
        key = result.frame.key
        if not self._room.may_open():
            return self._room.refuse(key)
        try:
            with lock(self.directory):
                self._keep(result.frame, found, result.found.get("seconds", {}))
        except OSError as error:
            detail = part_error(error)
            if error.errno in NAMES:
                return Failure(key, "write", f"{detail.detail}; give the micrograph a plain, shorter name")
            self._room.failed(detail)
            return self._room.refuse(key)
        self._room.opened()
        self._room.flushed()
        self._stale = dict.fromkeys(self._stale, True)
        return None

    def _keep(self, frame: Frame, found: PickedMicrograph, seconds: Mapping[str, float]) -> None:
        record = Record(
            replace(found, particles=None),
            self._rows.stem(found.name),
            found.threshold if found.configured is None else found.configured,
            (Change(now(), found.threshold, found.sd_range, int(found.picked.sum())),),
            seconds=seconds,
        )
        images = images_of(found, inverted=self.settings.particles.invert)
        record, images = self._moved(record, images, frame)
        if images is not None:
            images = stored(images, self.settings.particles.dtype)
        if supersede(self.places, found) is not None:
            self._facts.event("superseded")
        export(record, images, self.settings, self.places)
        if self.settings.pictures and frame.data.ndim == 2 and frame.data.size:
            drawn = picture.encode(picture.draw(frame.data, record.micrograph))
            write_whole(self.places.of("picture", record.stem), drawn)
        write_whole(self.places.record(found.name), encode(record, images, now()))

    def _moved(self, record: Record, images: Images | None, frame: Frame) -> tuple[Record, Images | None]:
        """The same at the threshold that ``beamsieve rethreshold`` has set, if it has."""
        moved = self._followed.of(record.micrograph)
        m = record.micrograph
        if moved is None or (moved.threshold, moved.sd_range or m.sd_range) == (m.threshold, m.sd_range):
            return record, images
        found = picked_again(m, moved.threshold, moved.sd_range or m.sd_range)
        change = Change(now(), found.threshold, found.sd_range, int(found.picked.sum()))
        record = replace(record, micrograph=found, changes=(*record.changes, change))
        return record, None if images is None else carried(images, found, frame.data)

    # Tables

    def _tables(self, *, force: bool) -> None:
        for name, pace, write in (("small", self._small, write_small), ("large", self._large, write_large)):
            if force or pace.due():
                with pace:
                    self._table(name, write)

    def _table(self, name: str, write: Callable[..., list[Path]]) -> None:
        self._scan()
        if not self._stale[name] or not len(self._rows):
            return
        try:
            with lock(self.directory):
                written = write(self._rows.sorted(), self.settings, self.places)
        except OSError as error:
            log.warning("%s; the tables are behind", part_error(error).detail)
            return
        self._stale[name] = False
        self.files += [path for path in written if path not in self.files]

    def _scan(self) -> None:
        with suppress(OSError):
            if self._rows.scan():
                self._stale = dict.fromkeys(self._stale, True)
            self._stale["large"] |= self._rows.relabelled()

    def _note_settings(self) -> None:
        """For ``beamsieve rethreshold``, and for people who ask later how this was done."""
        noted = self.settings.model_dump(mode="json")
        noted["directory"] = str(self.directory.absolute())
        if self.places.project is not None:
            noted["project"] = str(self.places.project.absolute())
        write_whole(self.directory / SETTINGS, self.settings.model_validate(noted).model_dump_json(indent=1).encode())
        path = self.directory / CONFIG
        if not self._config or (path.exists() and path.read_text(encoding="utf-8", errors="replace") == self._config):
            return
        if path.exists():
            earlier = (path.with_name(f"{path.name}.r{n}") for n in range(1 << 20))
            os.rename(path, next(name for name in earlier if not name.exists()))
        write_whole(path, self._config.encode())


def _make(directory: Path) -> None:
    remedy = "set directory to a folder you may write to"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{directory}: cannot be made ({error.strerror}); {remedy}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory}: may not be written; {remedy}")
