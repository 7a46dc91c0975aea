"""EMAN's ``.box`` files: a line per particle, ``x y width height``, tab separated, x and y the corner next to (0, 0).

EMAN2 writes ``int(centre - size // 2)`` (``e2boxer.py``), RELION reads whole numbers and takes ``corner + size / 2`` as
the centre (``preprocessing.cpp``): only whole corners of even boxes mean the same pixel to all. crYOLO before 1.8 wrote
its CBOX files in the same way, followed by a score and two estimated sizes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..flow.frame import BadData
from .centres import REASON, Coordinates, Floats, Gathering, number, read_text

FIELDS = ("x", "y", "width", "height")
HELIX = (-1.0, -2.0)
OLD_CBOX_COLUMNS = 7


def read(path: Path, *, box_px: int | None = None) -> Coordinates:
    """Centres of a ``.box`` file, or of an old CBOX. ``box_px``: edge of the boxes where a line has only x and y.

    Raises ``OSError``, and ``BadData`` for lines that are no boxes and for boxes along filaments.
    """
    rows = Gathering()
    for line, text in enumerate(read_text(path).splitlines(), 1):
        words = text.replace(",", " ").split()
        if words and not words[0].startswith("#"):
            _add(rows, words, path, line, box_px)
    return rows.done()


def _add(rows: Gathering, words: list[str], path: Path, line: int, box_px: int | None) -> None:
    if len(words) == 2 and box_px is not None:
        words = [*words, str(box_px), str(box_px)]
    if len(words) < len(FIELDS):
        raise BadData(REASON, f"{path}:{line}: {len(words)} columns; a box has x, y, width and height of a corner")
    x, y, width, height = (number(word, path, line, name) for word, name in zip(words, FIELDS, strict=False))
    if width <= 0 or height <= 0:
        raise BadData(REASON, f"{path}:{line}: width, height: a box of {width:g} x {height:g} pixels; correct the line")
    more = [number(word, path, line, f"column {at}") for at, word in enumerate(words[4:], 5)]
    if len(more) == 1 and more[0] in HELIX:
        raise BadData(REASON, f"{path}:{line}: boxes along a filament (column 5 is {more[0]:g}); write single boxes")
    score = more[0] if len(words) == OLD_CBOX_COLUMNS else None
    rows.add(x + _half(x, width), y + _half(y, height), score)


def _half(corner: float, size: float) -> float:
    # Programs that write whole numbers also divide them as whole numbers; the others write fractions.
    return size // 2 if corner.is_integer() and size.is_integer() else size / 2


def encode(x: Floats, y: Floats, box_px: int) -> bytes:
    """The file. ``x``, ``y``: centres (n,), rounded to whole pixels, halves up. ``box_px``: edge in pixels, even."""
    if box_px < 2 or box_px % 2:
        raise ValueError(f"box_px {box_px}: EMAN and RELION agree on the centre of even boxes only; use {box_px + 1}")
    corners = np.floor(np.stack([x, y], 1).astype(np.float64) + 0.5).astype(np.int64) - box_px // 2
    return "".join(f"{left}\t{low}\t{box_px}\t{box_px}\n" for left, low in corners).encode()
