"""Files of a micrograph that was picked before: kept under ``….r<n>`` when a later revision takes their names."""

from __future__ import annotations

from pathlib import Path

from ...flow.frame import BadData
from .files import keep_as
from .micrograph import PickedMicrograph
from .places import Places
from .record import Record, read

SHORT_HASH = 8


def supersede(places: Places, found: PickedMicrograph) -> Path | None:
    """Keep the files of an earlier revision, or of another model, under another name; returns the record's, or None.

    A repeat of the same revision keeps nothing: its files are written again. The record is kept last, and a second
    call after a kill does what the first did not: nothing new is written before everything old is kept. Raises
    ``OSError``.
    """
    path = places.record(found.name)
    if not path.exists():
        return None
    suffix, stem = _suffix(path, found)
    if not suffix:
        return None
    kept = path.with_name(path.name + suffix)
    if kept.exists():
        return kept
    for file in () if stem is None else places.all_of(stem):
        keep_as(file, file.with_name(file.name + suffix))
    keep_as(path, kept)
    return kept


def _suffix(path: Path, found: PickedMicrograph) -> tuple[str, str | None]:
    """What is put behind the names of the old files, and their stem; nothing where they are of this revision."""
    try:
        record: Record = read(path)
    except BadData:
        return ".damaged", None
    old = record.micrograph
    if old.model_sha256 != found.model_sha256:
        return f".r{old.revision}-{old.model_sha256[:SHORT_HASH]}", record.stem
    return (f".r{old.revision}" if old.revision != found.revision else ""), record.stem
