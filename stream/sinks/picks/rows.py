"""The session at a glance: a row per micrograph, read from the records in the folder, whoever wrote them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...flow.frame import BadData
from .classes_file import NAME as CLASSES
from .places import RECORDS, Places, stem_of
from .record import Record, read

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A micrograph in the session's tables. ``record``: with its picks only. ``candidates``: how many there were.

    ``file``: the record's name below the session's folder.
    """

    record: Record
    candidates: int
    file: str

    @property
    def labelled(self) -> str:
        """The record's name in ``classes.h5``: below the folder of records."""
        return self.file.removeprefix(f"{RECORDS}/")


class Rows:
    """Rows by micrograph. ``scan`` finds what has changed in the folder; for one thread."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._rows: dict[str, tuple[Stamp, Row]] = {}
        self._bad: dict[str, Stamp] = {}
        self._stems: dict[str, str] = {}
        self._classes: Stamp | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def sorted(self) -> list[Row]:
        """All rows, by name."""
        return sorted((row for _, row in self._rows.values()), key=lambda row: row.record.micrograph.name)

    def stem(self, name: str) -> str:
        """What this micrograph's files are named after, for as long as the session lasts."""
        stem = stem_of(name, self._stems)
        self._stems[stem] = name
        return stem

    def scan(self) -> bool:
        """Look at the folder again, and read the records that are new or have changed. Says whether any had."""
        seen = dict(record_files(self._places.directory / RECORDS))
        gone = [file for file in self._rows if file not in seen]
        for file in gone:
            del self._rows[file]
        changed = bool(gone)
        for file, stamp in seen.items():
            known = self._rows.get(file)
            if (known is None or known[0] != stamp) and self._bad.get(file) != stamp:
                changed |= self._read(file, stamp)
        return changed

    def relabelled(self) -> bool:
        """Whether the particles' classes are others than when this was asked last."""
        try:
            stamp = _stamp(self._places.directory / CLASSES)
        except OSError:
            return False
        changed, self._classes = stamp != self._classes, stamp
        return changed

    def _read(self, file: str, stamp: Stamp) -> bool:
        path = self._places.directory / RECORDS / file
        try:
            record = read(path)
        except BadData as error:
            # A file that was replaced while it was read is read again at the next scan.
            if path.exists() and _stamp(path) == stamp:
                log.warning("%s", error.detail)
                self._bad[file] = stamp
            return False
        m = record.micrograph
        picks = replace(m, candidates=m.picks, picked=np.ones(int(m.picked.sum()), bool))
        self._rows[file] = (stamp, Row(replace(record, micrograph=picks), len(m.candidates), f"{RECORDS}/{file}"))
        self._stems[record.stem] = m.name
        return True


def _stamp(path: Path | os.DirEntry[str]) -> Stamp:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def record_files(folder: Path, inside: str = "") -> Iterator[tuple[str, Stamp]]:
    """Names below the folder, sorted, and stamps of all records; those of earlier revisions end otherwise."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from record_files(Path(entry.path), f"{inside}{entry.name}/")
        elif entry.name.endswith(".h5"):
            yield f"{inside}{entry.name}", _stamp(entry)


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """Micrographs, those skipped, candidates and picks of all rows."""
    return {
        "micrographs": len(rows),
        "skipped": sum(bool(row.record.micrograph.skipped) for row in rows),
        "candidates": sum(row.candidates for row in rows),
        "picks": sum(len(row.record.micrograph.candidates) for row in rows),
    }
