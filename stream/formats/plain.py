"""Plain tables of centres: CSV with or without a header, and ``.coords`` (x, y, z, separated by blanks)."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .centres import REASON, Coordinates, Floats, Gathering, Sorted, Tables, number, read_text
from .eman import is_wrong

NAMES = {
    "x": ("x", "xpx", "xcoordinate", "coordinatex", "rlncoordinatex", "xcoord", "xcenter", "xcentre", "centerx", "cx"),
    "y": ("y", "ypx", "ycoordinate", "coordinatey", "rlncoordinatey", "ycoord", "ycenter", "ycentre", "centery", "cy"),
    "micrograph": ("micrograph", "micrographname", "rlnmicrographname", "image", "imagename", "file", "filename"),
    "score": ("score", "confidence", "probability", "fom", "rlnautopickfigureofmerit", "autopickfigureofmerit"),
    "verdict": ("verdict", "correct", "label", "isparticle", "particle"),
}
BARE = ("x", "y", "score")


def read_csv(path: Path) -> Tables:
    """Centres by micrograph. Columns are found by their names, in any order; without a header they are x, y[, score].

    The separator is a comma, a semicolon, or a tab. ``verdict`` (also ``correct`` or ``label``) says of each whether it
    is a particle. Raises ``OSError``, and ``BadData`` naming line and column.
    """
    lines = [(at, text) for at, text in enumerate(read_text(path).splitlines(), 1) if text.strip() and text[0] != "#"]
    if not lines:
        raise BadData(REASON, f"{path}: is empty; the first line says micrograph, x, y, score")
    separator = max(",;\t", key=lines[0][1].count)
    rows = list(csv.reader([text for _, text in lines], delimiter=separator, skipinitialspace=True))
    columns = _columns(rows[0], path, lines[0][0])
    first = 0 if columns is None else 1
    columns = columns or {name: at for at, name in enumerate(BARE) if at < len(rows[0])}
    found = Sorted()
    if len(rows) == first and "micrograph" not in columns:
        found.of("")
    for (line, _), cells in zip(lines[first:], rows[first:], strict=True):
        _add(found, columns, cells, path, line)
    return found.done()


def _columns(header: list[str], path: Path, line: int) -> dict[str, int] | None:
    """Which column is which, or None for a first line of numbers."""
    if len(header) >= 2 and all(map(_is_number, header[:2])):
        return None
    plain = [re.sub(r"[^a-z]", "", cell.lower()) for cell in header]
    found = {what: plain.index(name) for what, names in NAMES.items() for name in reversed(names) if name in plain}
    for what in ("x", "y"):
        if what not in found:
            shown = ", ".join(header[:8])
            raise BadData(REASON, f"{path}:{line}: no column {what} among {shown}; name the columns x and y")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _add(found: Sorted, columns: dict[str, int], cells: list[str], path: Path, line: int) -> None:
    if len(cells) <= max(columns.values()):
        missing = next(name for name, at in columns.items() if at >= len(cells))
        raise BadData(REASON, f"{path}:{line}: {missing}: missing; the line has {len(cells)} columns")
    get: Callable[[str], str] = lambda name: cells[columns[name]].strip()  # noqa: E731
    score = get("score") if "score" in columns else ""
    verdict = get("verdict") if "verdict" in columns else ""
    found.of(get("micrograph") if "micrograph" in columns else "").add(
        number(get("x"), path, line, "x"),
        number(get("y"), path, line, "y"),
        number(score, path, line, "score") if score else None,
        is_wrong(verdict, f"{path}:{line}") if verdict else None,
    )


def read_coords(path: Path) -> Coordinates:
    """Centres of a ``.coords`` or ``.txt`` file: x, y and perhaps more per line. Raises ``OSError`` and ``BadData``."""
    rows = Gathering()
    for line, text in enumerate(read_text(path).splitlines(), 1):
        words = text.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise BadData(REASON, f"{path}:{line}: one column; write x and y, separated by a blank")
        rows.add(number(words[0], path, line, "x"), number(words[1], path, line, "y"))
    return rows.done()


def encode_csv(micrograph: str, x: Floats, y: Floats, score: Floats) -> bytes:
    """``micrograph,x,y,score``: centres in pixels, row 0 at y = 0. All of shape (n,)."""
    return ("micrograph,x,y,score\n" + csv_rows(micrograph, x, y, score)).encode()


def csv_rows(micrograph: str, x: Floats, y: Floats, score: Floats, *more: npt.NDArray[np.integer[Any]]) -> str:
    """The lines of one micrograph, without the header. ``x``, ``y``, ``score``: (n,), centres in pixels.

    ``more``: further columns of whole numbers, each (n,).
    """
    name = '"' + micrograph.replace('"', '""') + '"' if re.search(r'[",\n]', micrograph) else micrograph
    ends = ["".join(f",{value}" for value in values) for values in zip(*more, strict=True)] if more else [""] * len(x)
    rows = zip(x, y, score, ends, strict=True)
    return "".join(f"{name},{a:.2f},{b:.2f},{s:.6f}{end}\n" for a, b, s, end in rows)


def encode_coords(x: Floats, y: Floats) -> bytes:
    """``.coords``: centres (n,) in pixels as x, y and a z of 0."""
    return "".join(f"{a:.2f} {b:.2f} 0\n" for a, b in np.stack([x, y], 1)).encode()
