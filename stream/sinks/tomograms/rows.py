"""The session at a glance: a row per tomogram, read from the records in the folder, whoever wrote them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...flow.frame import BadData
from ..picks.rows import Stamp, record_files
from .mined import MinedTomogram
from .places import RECORDS, Places
from .record import read, stem_in

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A tomogram in the session's tables, without codes, poses, slices and kept sub-volumes. ``path``: of its record.

    ``stamp``: time (ns), size and inode of the record that was read. ``drawn``: it holds slices.
    """

    found: MinedTomogram
    stem: str
    path: Path
    stamp: Stamp
    drawn: bool


class Rows:
    """Rows by tomogram. ``scan`` finds what has changed in the folder; for one thread."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._folder = places.directory / RECORDS
        self._rows: dict[str, Row] = {}
        self._bad: dict[str, Stamp] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def sorted(self) -> list[Row]:
        """All rows, by name."""
        return sorted(self._rows.values(), key=lambda row: row.found.name)

    def scan(self) -> tuple[list[Row], bool]:
        """Look at the folder again. Gives the records that are new or have changed, and whether anything has."""
        seen = dict(record_files(self._folder))
        gone = [file for file in self._rows if file not in seen]
        for file in gone:
            del self._rows[file]
        new = []
        for file, stamp in seen.items():
            known = self._rows.get(file)
            if (known is None or known.stamp != stamp) and self._bad.get(file) != stamp:
                row = self._read(file, stamp)
                new += [] if row is None else [row]
        return new, bool(new or gone)

    def _read(self, file: str, stamp: Stamp) -> Row | None:
        path = self._folder / file
        try:
            found = read(path, codes=False)
            drawn = found.slices is not None
            row = Row(_light(found), stem_in(path), path, stamp, drawn)
        except BadData as error:
            # A file that was replaced while it was read is read again at the next scan.
            if dict(record_files(self._folder)).get(file) == stamp:
                log.warning("%s", error.detail)
                self._bad[file] = stamp
            return None
        self._rows[file] = row
        self._places.taken(row.stem, row.found.name, row.found.run)
        return row


def _light(found: MinedTomogram) -> MinedTomogram:
    """Without what no table tells: poses are most of a sub-volume's bytes, and a session has millions."""
    n = len(found.picked)
    rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (n, 3, 3))
    shift = np.broadcast_to(np.zeros(3, np.float32), (n, 3))
    return replace(found, slices=None, picked=replace(found.picked, rotation=rotation, shift=shift))
