"""The sink for tomograms: a record each in HDF5, label volumes, files for other programs, pictures, and the tables."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...flow.frame import BadData, Failure, Result, RunEnd, RunStart
from ...flow.ports import Facts, NoFacts
from ..hdf5_room import GIGA, Room, free_bytes
from ..picks.files import NAMES, keep_as, lock, part_error, sweep, write_whole
from ..picks.tables import Pace
from .again import export_again, is_behind, note_config, note_settings
from .exports import export, run_name
from .labels import remove_labels, write_labels
from .mined import LabelFiles, MinedTomogram
from .places import Places
from .record import encode, read
from .rows import Row, Rows
from .settings import TomogramFiles
from .tables import write_tables

__all__ = ["TomogramFiles", "TomogramSink"]

log = logging.getLogger(__name__)

#: Seconds of each flush, and of the end, for files that are behind their records.
FOLLOW_S, FINISH_S = 1.0, 5.0


class TomogramSink:
    """Keeps every tomogram that ``found["tomogram"]`` of a result describes. Implements ``Sink``; for one thread.

    When ``write`` returns, a tomogram's files are on disk under their final names, each as a whole: a repeat after a
    kill writes them again and doubles nothing. The tables follow within seconds, and hold whatever records lie in the
    folder. Records that others change (``record.relabel``, when clusters are marked) get their exports made anew in
    ``flush``, a few at a time.
    """

    def __init__(
        self,
        settings: TomogramFiles,
        facts: Facts | None = None,
        *,
        config: str = "",
        base: Path = Path(),
        free: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Touch nothing yet. ``config``: text kept beside the files. ``base``: where a relative directory is."""
        self.settings = settings
        self.directory = base / settings.directory
        self.places = Places(self.directory)
        self.files: list[Path] = []
        self._config = config
        self._facts: Facts = facts or NoFacts()
        self._room = Room(self.directory, settings.min_free_gb * GIGA, self._facts, free, clock)
        self._rows = Rows(self.places)
        self._clock = clock
        self._pace = Pace(settings.tables_every_s, clock)
        self._stale = False
        self._behind: dict[Path, Row] = {}

    def open(self) -> None:
        """Make the folder, remove what a killed daemon left half written, and read the records that are there.

        For the service, before it runs. Raises ``OSError`` naming the folder and the remedy if it cannot be written.
        """
        _make(self.directory)
        if gone := sweep(self.directory):
            log.warning("%s: removed %d files that a killed writer left half written", self.directory, gone)
        self._scan()
        if len(self._rows):
            found = [len(row.found.picked) for row in self._rows.sorted()]
            log.info("%s: %d tomograms with %d sub-volumes", self.directory, len(found), sum(found))
        try:
            note_settings(self.settings, self.places)
            note_config(self.directory, self._config)
        except OSError as error:
            log.warning("%s: settings are not noted: %s", self.directory, error)

    # Sink

    def start(self, mark: RunStart) -> None:
        """A session has no beginning in its files."""

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Keep them, in order; label volumes are computed meanwhile, where they are still to be."""
        failures = []
        for result in results:
            found = result.found.get("tomogram")
            if isinstance(found, MinedTomogram) and result.weight > 0.0:
                failure = self._try(result, found)
                failures += [] if failure is None else [failure]
        return failures

    def end(self, mark: RunEnd) -> None:
        """Bring the tables up to date."""
        log.debug("%s: %s", mark.run, mark.reason)
        self._finish()

    def flush(self) -> None:
        """Bring the tables up to date where they are due, and look at the free space."""
        if not self._room.is_short():
            self._tables(force=False)
            self._follow(FOLLOW_S)

    def lost(self) -> Sequence[Failure]:
        """Nothing: what ``write`` took is on disk."""
        return ()

    def close(self) -> None:
        """Bring the tables up to date, and what else is behind, as far as a few seconds allow."""
        self._finish()

    # What the service asks

    def may_write(self) -> bool:
        """Whether a tomogram may be tried now: there is room, and the last failure is a while ago. For any thread."""
        return self._room.may_open()

    def stem(self, name: str) -> str:
        """What the files of the tomogram called ``name`` are named after. For any thread."""
        return self.places.stem(name)

    def healthy(self) -> str | None:
        """Why nothing is kept at present; None if it is."""
        return self._room.why_not()

    # One tomogram

    def _try(self, result: Result, found: MinedTomogram) -> Failure | None:
        key = result.frame.key
        if not self._room.may_open():
            return self._room.refuse(key)
        try:
            self._keep(found)
        except BadData as bad:  # the tomogram was cut or lost while its labels were computed
            return Failure(key, bad.reason, bad.detail)
        except OSError as error:
            detail = part_error(error)
            if error.errno in NAMES:
                return Failure(key, "write", f"{detail.detail}; give the tomogram a plain, shorter name")
            self._room.failed(detail)
            return self._room.refuse(key)
        self._room.opened()
        self._room.flushed()
        self._stale = True
        return None

    def _keep(self, found: MinedTomogram) -> None:
        path, stem = self.places.record(found.name), self.places.stem(found.name)
        # Minutes of work, and nobody else writes these files: the lock is for what others write, too.
        labelled = self._labelled(found, stem)
        with lock(self.directory):
            old = self._superseded(path, found)
            before = old.segmentation if old is not None and isinstance(old.segmentation, LabelFiles) else None
            if labelled is None and old is not None and before is not None and _still_good(before, old, found):
                labelled = before
            run = self.places.run(found.name, stem, run_name(found, stem, self.settings))
            found = replace(found, segmentation=labelled, run=run)
            # What is made of a record is not older than it: that tells whether it is behind.
            write_whole(path, encode(found, stem=stem, path=path))
            export(found, stem, self.settings, self.places)
            remove_labels(before, labelled)

    def _labelled(self, found: MinedTomogram, stem: str) -> LabelFiles | None:
        made = found.segmentation
        if made is None or isinstance(made, LabelFiles):
            return made
        if not self.settings.labels:
            return None
        return write_labels(found, made(), self.places, stem, probabilities=self.settings.probabilities)

    def _superseded(self, path: Path, found: MinedTomogram) -> MinedTomogram | None:
        """What was written of the tomogram before; its record is kept as ``….r<n>`` where the file was another."""
        if not path.exists():
            return None
        try:
            old = read(path, slices=False, codes=False)
        except BadData:
            keep_as(path, path.with_name(f"{path.name}.damaged"))
            return None
        if old.revision != found.revision:
            keep_as(path, path.with_name(f"{path.name}.r{old.revision}"))
            self._facts.event("superseded")
        return old

    # Tables

    def _tables(self, *, force: bool) -> None:
        if not (force or self._pace.due()):
            return
        with self._pace:
            self._scan()
            if not self._stale or not len(self._rows):
                return
            try:
                with lock(self.directory):
                    written = write_tables(self._rows.sorted(), self.settings, self.places)
            except OSError as error:
                log.warning("%s; the tables are behind", part_error(error).detail)
                return
            self._stale = False
            self.files += [path for path in written if path not in self.files]

    def _scan(self) -> None:
        with suppress(OSError):
            new, changed = self._rows.scan()
            self._stale |= changed
            self._behind |= {row.path: row for row in new if is_behind(row, self.settings, self.places)}

    def _follow(self, patience_s: float) -> None:
        """Make anew what is behind its record, until time is up: the thread is wanted for other tomograms."""
        until = self._clock() + patience_s
        while self._behind and self._clock() < until:
            path = next(iter(self._behind))
            row = self._behind.pop(path)
            try:
                export_again(row, self.settings, self.places)
            except OSError as error:
                log.warning("%s; files for other programs are behind", part_error(error).detail)
                self._behind[path] = row
                return

    def _finish(self) -> None:
        self._tables(force=True)
        self._follow(FINISH_S)
        if self._behind:
            log.warning(
                "%s: files of %d tomograms are behind their records until the next start",
                self.directory,
                len(self._behind),
            )


def _still_good(files: LabelFiles, old: MinedTomogram, found: MinedTomogram) -> bool:
    """Whether labels of an earlier look at the tomogram are of the same file and the same classes."""
    same = (old.revision, old.shape) == (found.revision, found.shape) and files.classes == found.classes
    return same and files.labels.exists()


def _make(directory: Path) -> None:
    remedy = "set files.directory to a folder you may write to"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{directory}: cannot be made ({error.strerror}); {remedy}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory}: may not be written; {remedy}")
