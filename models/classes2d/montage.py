"""All class averages on one picture: small, quick to read, the same for a report, a terminal and a person at night."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

FEW = 24
_ONE_ROW = 6
_EDGE_PX = (144, 96)  # of a tile on the picture: with up to FEW classes, and with more
_GAP_PX, _MARGIN_PX, _LINE_PX, _TITLE_PX = 10, 14, 17, 34
_DPI = 100
_GREYS = (0.5, 99.5)
_STEP = 4  # PNG packs the noise of averages better in steps of grey that nobody sees
_INK, _FAINT, _PAPER, _NOTHING = "#f2f2f2", "#9aa0a6", (24, 26, 29), (48, 50, 54)
FRAMES = {"good": (52, 168, 83), "bad": (217, 68, 55)}


def montage(
    averages: npt.ArrayLike,
    counts: Sequence[int] | npt.NDArray[np.integer[Any]],
    labels: Sequence[str],
    *,
    columns: int | None = None,
    title: str = "",
    marks: Sequence[str] = (),
) -> bytes:
    """A PNG of class averages as they are given, each with its label and its number of particles below.

    ``averages``: (k, e, e), any real dtype, k from 1; each is stretched by itself between its 0.5 and 99.5
    percentiles, white stays white. One that is constant or not finite is shown as an empty tile. ``counts``,
    ``labels``: one of each per average. ``columns``: tiles in a row, without it about as many as make the picture
    half as wide again as high. ``marks``: none, or one of ``good``, ``bad`` and "" per average; a marked tile has a
    green or a red frame. Raises ``ValueError`` for other shapes and lengths.
    """
    images = np.asarray(averages, np.float32)
    if images.ndim != 3 or not len(images) or images.shape[1] != images.shape[2] or images.shape[1] < 2:
        raise ValueError(f"averages: {images.shape} is not (k, edge, edge) of at least one class")
    for name, given in (("counts", counts), ("labels", labels), ("marks", marks or labels)):
        if len(given) != len(images):
            raise ValueError(f"{name}: {len(given)} for {len(images)} class averages")
    if columns is not None and columns < 1:
        raise ValueError(f"columns: {columns} is not a number of tiles in a row")
    edge = _EDGE_PX[len(images) > FEW]
    across = min(len(images), columns or _columns(len(images), edge))
    places = _places(len(images), edge, across, _TITLE_PX if title else 0)
    canvas = np.full((*_size(len(images), edge, across, bool(title)), 3), _PAPER, np.uint8)
    for at, (image, (y, x)) in enumerate(zip(images, places, strict=True)):
        frame = FRAMES.get(marks[at]) if marks else None
        if frame is not None:
            canvas[y - 3 : y + edge + 3, x - 3 : x + edge + 3] = frame
        canvas[y : y + edge, x : x + edge] = _tile(image, edge)
    return _written(canvas, places, edge, counts, labels, title)


def _columns(k: int, edge: int) -> int:
    """Few in one row; more in rows of about the same length."""
    if k <= _ONE_ROW:
        return k
    tall = (edge + _GAP_PX + 2 * _LINE_PX) / (edge + _GAP_PX)
    rows = math.ceil(k / math.ceil(math.sqrt(1.5 * k * tall)))
    return math.ceil(k / rows)


def _size(k: int, edge: int, across: int, titled: bool) -> tuple[int, int]:
    """Rows and columns of the picture in pixels."""
    rows = math.ceil(k / across)
    height = 2 * _MARGIN_PX - _GAP_PX + rows * (edge + 2 * _LINE_PX + _GAP_PX) + (_TITLE_PX if titled else 0)
    # A title needs room even over a single class.
    return height, max(2 * _MARGIN_PX - _GAP_PX + across * (edge + _GAP_PX), 420 if titled else 0)


def _places(k: int, edge: int, across: int, top: int) -> list[tuple[int, int]]:
    """Row and column of each tile's upper left pixel."""
    down, right = edge + 2 * _LINE_PX + _GAP_PX, edge + _GAP_PX
    return [(_MARGIN_PX + top + at // across * down, _MARGIN_PX + at % across * right) for at in range(k)]


def _tile(image: Floats, edge: int) -> Picture:
    """One average, (edge, edge, 3), in grey."""
    tile = np.full((edge, edge, 3), _NOTHING, np.uint8)
    if not np.isfinite(image).all() or not np.ptp(image) > 0:
        return tile
    # Spline values overshoot at the rim; what is stretched is what was measured.
    low, high = np.percentile(image, _GREYS)
    low, high = (low, high) if high > low else (float(image.min()), float(image.max()))
    larger = ndimage.zoom(image, edge / len(image), order=3, mode="nearest", grid_mode=True)
    grey = np.clip((larger[:edge, :edge] - low) / (high - low), 0, 1) * 255
    tile[: len(grey), : grey.shape[1]] = (grey.astype(np.uint8) // _STEP * _STEP)[..., None]
    return tile


def _written(
    canvas: Picture,
    places: Sequence[tuple[int, int]],
    edge: int,
    counts: Sequence[int] | npt.NDArray[np.integer[Any]],
    labels: Sequence[str],
    title: str,
) -> bytes:
    """The tiles with their texts, as PNG."""
    height, width = canvas.shape[:2]
    # Figure, not pyplot: no window, no global list of figures, and the Agg canvas wherever this runs.
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.patch.set_facecolor([level / 255 for level in _PAPER])
    figure.figimage(canvas, 0, 0)
    size = 9 if edge == _EDGE_PX[0] else 7

    def write(x: float, y: float, text: str, colour: str, points: float, where: str) -> None:
        # What a class is called is not mathematics, whatever signs are in it.
        figure.text(
            x / width, 1 - y / height, text, color=colour, fontsize=points, ha=where, va="center", parse_math=False
        )

    if title:
        write(_MARGIN_PX, _MARGIN_PX + _TITLE_PX / 2 - 6, title, _INK, 11, "left")
    for (y, x), label, count in zip(places, labels, counts, strict=True):
        write(x + edge / 2, y + edge + 0.75 * _LINE_PX, label, _INK, size, "center")
        write(x + edge / 2, y + edge + 1.55 * _LINE_PX, f"{int(count):,}".replace(",", " "), _FAINT, size, "center")
    found = io.BytesIO()
    figure.savefig(found, format="png", dpi=_DPI)
    return found.getvalue()
