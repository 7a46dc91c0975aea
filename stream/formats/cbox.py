"""crYOLO's CBOX (1.8 and later): STAR text with corners of boxes, their score, and all candidates, picked or not.

Layout as ``box_manager/io/cbox.py`` of napari-boxmanager 0.4 and crYOLO 1.8 write it; what a column does not know is
``<NA>``. Before 1.8 a CBOX was tab-separated text, which ``box.read`` reads.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..flow.frame import BadData
from . import box
from .centres import REASON, Coordinates, Floats, Gathering, number, read_text
from .star import Block, loop, pairs, parse

UNKNOWN = "<NA>"
COLUMNS = (
    "CoordinateX",
    "CoordinateY",
    "CoordinateZ",
    "Width",
    "Height",
    "Depth",
    "EstWidth",
    "EstHeight",
    "Confidence",
    "NumBoxes",
    "Angle",
)


def read(path: Path, *, box_px: int | None = None) -> Coordinates:
    """Centres of all candidates with their confidence, of any version. ``box_px``: where a box states no width.

    A file of a tomogram (boxes in more than one slice) is refused. Raises ``OSError`` and ``BadData``.
    """
    text = read_text(path)
    if "data_cryolo" not in text:
        return box.read(path, box_px=box_px)
    block = parse(text.splitlines(), path).get("cryolo")
    if block is None:
        raise BadData(REASON, f"{path}: no block data_cryolo; it is cut short, or no CBOX file")
    at = {name: _column(block, name, path) for name in ("CoordinateX", "CoordinateY", "Width", "Height")}
    depth, score = block.index("CoordinateZ"), block.index("Confidence")
    rows, slices = Gathering(), set()
    for line, row in zip(block.lines, block.rows, strict=True):
        if depth is not None:
            slices.add(row[depth])
        width, height = (_size(row[at[name]], box_px, path, line, name) for name in ("Width", "Height"))
        rows.add(
            number(row[at["CoordinateX"]], path, line, "CoordinateX") + width / 2,
            number(row[at["CoordinateY"]], path, line, "CoordinateY") + height / 2,
            None if score is None or _unknown(row[score]) else number(row[score], path, line, "Confidence"),
        )
    if len(slices) > 1:
        raise BadData(
            REASON, f"{path}: CoordinateZ: boxes in {len(slices)} slices of a tomogram; name one micrograph's"
        )
    return rows.done()


def _column(block: Block, name: str, path: Path) -> int:
    at = block.index(name)
    if at is None:
        raise BadData(REASON, f"{path}: data_cryolo has no column _{name}; write it with crYOLO 1.8 or later")
    return at


def _unknown(text: str) -> bool:
    return text in {UNKNOWN, "NA", "None"} or text.lower() == "nan"


def _size(text: str, box_px: int | None, path: Path, line: int, name: str) -> float:
    size = float(box_px or math.nan) if _unknown(text) else number(text, path, line, name)
    if not size > 0:
        raise BadData(REASON, f"{path}:{line}: {name}: unknown; say the edge of the boxes (box_px)")
    return size


def encode(x: Floats, y: Floats, score: Floats, box_px: int) -> bytes:
    """The file. ``x``, ``y``: centres (n,) in pixels; ``score``: 0..1; ``box_px``: edge in pixels."""
    corners = np.stack([x, y], 1).astype(np.float64) - box_px / 2
    size = str(box_px)
    rows = (
        (f"{left:.2f}", f"{low:.2f}", UNKNOWN, size, size, UNKNOWN, size, size, f"{value:.6f}", "1", UNKNOWN)
        for (left, low), value in zip(corners, score, strict=True)
    )
    return (
        pairs("global", [("cbox_format_version", "1.0")])
        + loop("cryolo", COLUMNS, rows, version=False)
        + loop("cryolo_include", ("slice_index",), (), version=False)
    ).encode()
