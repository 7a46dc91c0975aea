"""Centres of particles from any file that gives them: EMAN, RELION, crYOLO, cryoSPARC, CSV, JSON, marks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from ..flow.frame import BadData
from . import box, cbox, cryosparc, eman, marks, plain, relion
from .centres import REASON, Coordinates, Tables, upside_down

__all__ = ["ENDINGS", "Coordinates", "micrographs_in", "read_coordinates", "same_micrograph"]

_FILES_KEPT = 8
_SLACK = 0.02


def read_coordinates(
    path: Path,
    *,
    micrograph: str | None = None,
    box_px: int | None = None,
    shape: tuple[int, int] | None = None,
    invert_y: bool = False,
) -> Coordinates:
    """The centres of one micrograph's particles, of the file's kind by its ending (see ``ENDINGS``).

    ``micrograph``: its name, for a file that holds several (names are compared without folder and ending); one that is
    not in the file has no particles. ``box_px``: edge of the boxes, for files of corners that state none. ``shape``:
    (ny, nx) of the micrograph; positions outside it are refused, as of another binning. ``invert_y``: the file counts
    rows from the bottom (EMAN with TIFF), which needs ``shape``.

    Raises ``OSError`` for a file that cannot be opened, ``BadData`` for one that cannot be used (file, line, field,
    remedy), and ``ValueError`` where ``invert_y`` comes without ``shape``.
    """
    if invert_y and shape is None:
        raise ValueError("invert_y: needs the shape of the micrograph")
    found = _choose(_tables(path, box_px), micrograph, path)
    y = found.y
    if invert_y and shape is not None:
        y = upside_down(y, shape[0]).astype(np.float32)
    found = Coordinates(found.x, y, found.score, found.wrong)
    if shape is not None:
        _inside(found, shape, path)
    return found


def micrographs_in(path: Path) -> tuple[str, ...]:
    """Names of the micrographs a file has particles of, as it gives them; ``("",)`` where it names none.

    Raises as ``read_coordinates`` does.
    """
    return tuple(_tables(path, None))


def same_micrograph(one: str, other: str) -> bool:
    """Whether two names mean the same micrograph: equal without folders, ending, and cryoSPARC's number in front."""
    return _stem(one) == _stem(other)


def _stem(name: str) -> str:
    last = PurePosixPath(name.replace("\\", "/")).name
    return re.sub(r"^\d{15,}_", "", re.sub(r"\.(mrcs?|tiff?|eer|png|jpe?g|dm4|hdf)$", "", last, flags=re.IGNORECASE))


def _tables(path: Path, box_px: int | None) -> Tables:
    stat = path.stat()
    return _read(path, box_px, stat.st_mtime_ns, stat.st_size)


# A STAR of a whole session is asked once per micrograph.
@lru_cache(_FILES_KEPT)
def _read(path: Path, box_px: int | None, _mtime: int, _size: int) -> Tables:
    ending = path.suffix.lower()
    if ending in _MANY:
        return _MANY[ending](path)
    if ending in _MAYBE_MARKS and marks.is_marks(path):
        return marks.read_picks(path)
    if ending not in _ONE:
        raise BadData(REASON, f"{path}: unknown ending; coordinates come as {', '.join(ENDINGS)}")
    return {"": _ONE[ending](path, box_px)}


_MANY: dict[str, Callable[[Path], Tables]] = {
    ".star": relion.read,
    ".cs": cryosparc.read,
    ".csv": plain.read_csv,
    ".tsv": plain.read_csv,
    ".jsonl": marks.read_picks,
}
_MAYBE_MARKS = (".json", ".txt")
_ONE: dict[str, Callable[[Path, int | None], Coordinates]] = {
    ".box": lambda path, box_px: box.read(path, box_px=box_px),
    ".cbox": lambda path, box_px: cbox.read(path, box_px=box_px),
    ".json": lambda path, _: eman.read(path),
    ".coords": lambda path, _: plain.read_coords(path),
    ".txt": lambda path, _: plain.read_coords(path),
}
ENDINGS = (*_MANY, *_ONE)


def _choose(tables: Tables, micrograph: str | None, path: Path) -> Coordinates:
    if set(tables) == {""}:
        return tables[""]
    if micrograph is None:
        if len(tables) > 1:
            shown = ", ".join(list(tables)[:3])
            raise BadData(REASON, f"{path}: holds {len(tables)} micrographs ({shown} …); say which one")
        return next(iter(tables.values()), Coordinates.none())
    exact = [table for name, table in tables.items() if name == micrograph]
    alike = exact or [table for name, table in tables.items() if same_micrograph(name, micrograph)]
    if len(alike) > 1:
        raise BadData(
            REASON, f"{path}: several micrographs are named {micrograph} but for their folders; name the folder"
        )
    return alike[0] if alike else Coordinates.none()


def _inside(found: Coordinates, shape: tuple[int, int], path: Path) -> None:
    for name, values, edge in (("x", found.x, shape[1]), ("y", found.y, shape[0])):
        outside = (values < -_SLACK * edge) | (values > (1 + _SLACK) * edge)
        if outside.any():
            worst = float(values[outside][0])
            raise BadData(
                REASON,
                f"{path}: {name}: {worst:g} lies outside the micrograph, which has {edge} pixels that way; "
                "are the coordinates of another binning, or x and y exchanged?",
            )
