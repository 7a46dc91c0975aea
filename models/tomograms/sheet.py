"""The contact sheet: what each cluster's centre looks like, on one picture that a person marks groups from."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .book import Clusters
from .groups import Groups
from .volume import Floats

Picture = npt.NDArray[np.uint8]

PER_PAGE = 100
_TILE_PX, _FRAME_PX, _GAP_PX, _MARGIN_PX = 68, 3, 14, 18
_LINE_PX, _HEAD_PX, _LEAST_WIDTH_PX = 16, 54, 860
_LETTER_PX = 7.6  # of the line of groups: wide enough for any of them
_DPI = 100
_GREYS = (0.5, 99.5)
_LEAST_RANGE = 0.25  # of the slices' greys, for the mean
_PAPER, _NOTHING, _UNMARKED = (24, 26, 29), (48, 50, 54), (70, 74, 80)
_INK, _FAINT = "#f2f2f2", "#9aa0a6"


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cluster's place on a page, the upper left pixel of its frame."""

    row: int
    y: int
    x: int


def order(clusters: Clusters, groups: Groups) -> list[int]:
    """Rows of the clusters as they are shown: group by group, then the unmarked, each the largest first."""
    value = groups.values(clusters.ids)
    last = np.where(value == 0, len(groups.groups) + 1, value.astype(int))
    return [int(row) for row in np.lexsort((clusters.ids, -clusters.counts, last))]


def views(volume: Floats) -> Floats:
    """Three slices through the middle and the mean along z, float32 (4, e, e): across z, across y, across x, all of z.

    In each, x is to the right and y is down; in the slices across y and x, z is down.
    """
    middle = len(volume) // 2
    return np.stack([volume[middle], volume[:, middle], volume[:, :, middle], volume.mean(0)]).astype(np.float32)


def sheet(
    clusters: Clusters, groups: Groups | None = None, *, title: str = "", averages: bool = False
) -> tuple[bytes, ...]:
    """PNG pages of up to 100 clusters: three slices and the projection of each decoded centre, number, count, share.

    A frame has the colour of the cluster's group, whose name stands below. The four pictures of a cluster are in grey,
    the slices on one scale. ``averages``: of member sub-volumes instead of decoded centres. Raises ``ValueError``
    without clusters.
    """
    if not len(clusters):
        raise ValueError("no clusters to show")
    groups = groups or Groups()
    rows = order(clusters, groups)
    pages = [rows[at : at + PER_PAGE] for at in range(0, len(rows), PER_PAGE)]
    volumes: Floats = clusters.average if averages else clusters.decoded  # type: ignore[assignment]
    heads = [f"{title}   page {n} of {len(pages)}" if len(pages) > 1 else title for n in range(1, len(pages) + 1)]
    return tuple(_page(clusters, volumes, groups, page, head) for page, head in zip(pages, heads, strict=True))


def _page(clusters: Clusters, volumes: Floats, groups: Groups, rows: Sequence[int], title: str) -> bytes:
    block = 2 * _TILE_PX + 2 * _FRAME_PX + 2
    down, right = block + 2 * _LINE_PX + _GAP_PX, block + _GAP_PX
    across = _columns(len(rows), down / right)
    width = max(2 * _MARGIN_PX - _GAP_PX + across * right, _LEAST_WIDTH_PX)
    legend = _Legend(clusters, groups, width)
    top = _MARGIN_PX + _HEAD_PX + legend.lines * _LINE_PX
    height = top + math.ceil(len(rows) / across) * down - _GAP_PX + _MARGIN_PX
    canvas = np.full((height, width, 3), _PAPER, np.uint8)
    cells = [_Cell(row, top + at // across * down, _MARGIN_PX + at % across * right) for at, row in enumerate(rows)]
    for cell in cells:
        group = groups.of(int(clusters.ids[cell.row]))
        canvas[cell.y : cell.y + block, cell.x : cell.x + block] = _rgb(group.colour) if group else _UNMARKED
        inside = slice(cell.y + _FRAME_PX, cell.y + block - _FRAME_PX)
        canvas[inside, cell.x + _FRAME_PX : cell.x + block - _FRAME_PX] = _block(np.asarray(volumes[cell.row]))
    return _written(canvas, clusters, groups, cells, block, title, legend)


def _columns(k: int, tall: float) -> int:
    """Cells in a row, so that the page is about as wide as high, and the last row is not nearly empty."""
    rows = max(1, round(math.sqrt(k / tall)))
    return math.ceil(k / rows)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def _block(volume: Floats) -> Picture:
    """The four views as two by two tiles, (2 × tile + 2) pixels wide."""
    size = 2 * _TILE_PX + 2
    block = np.full((size, size, 3), _PAPER, np.uint8)
    shown = views(volume.astype(np.float32))
    if not np.isfinite(shown).all() or not np.ptp(shown[:3]) > 0:
        block[:] = _NOTHING
        return block
    slices, mean = np.percentile(shown[:3], _GREYS), np.percentile(shown[3], _GREYS)
    # A mean that hardly varies would be stretched until its noise looks like something.
    short = max(0.0, _LEAST_RANGE * np.ptp(slices) - np.ptp(mean)) / 2
    limits = [slices] * 3 + [(mean[0] - short, mean[1] + short)]
    for at, (view, (low, high)) in enumerate(zip(shown, limits, strict=True)):
        y, x = (at // 2 * (_TILE_PX + 2), at % 2 * (_TILE_PX + 2))
        block[y : y + _TILE_PX, x : x + _TILE_PX] = _grey(view, float(low), float(high))[..., None]
    return block


def _grey(view: Floats, low: float, high: float) -> Picture:
    larger = ndimage.zoom(view, _TILE_PX / len(view), order=1, mode="nearest", grid_mode=True)
    stretched = np.clip((larger - low) / (high - low if high > low else 1), 0, 1) * 255
    grey: Picture = stretched.astype(np.uint8)
    return grey


class _Legend:
    """A word for each group, and for the rest, in lines that fit the page."""

    def __init__(self, clusters: Clusters, groups: Groups, width: int) -> None:
        self.words: list[tuple[float, int, str, str]] = []
        x, line = 0.0, 0
        for text, colour in _shares(clusters, groups):
            long = _LETTER_PX * (len(text) + 3)
            if x and x + long > width - 2 * _MARGIN_PX:
                x, line = 0.0, line + 1
            self.words.append((_MARGIN_PX + x, line, f"■ {text}", colour))
            x += long
        self.lines = line + 1


def _shares(clusters: Clusters, groups: Groups) -> Iterator[tuple[str, str]]:
    """What each group has, and the rest; each with its colour."""
    value, total = groups.values(clusters.ids), max(1, int(clusters.counts.sum()))
    named = [(at, group.name, group.colour) for at, group in enumerate(groups.groups, 1)]
    for at, name, colour in (*named, (0, "not marked", _FAINT)):
        mine = value == at
        yield f"{name}: {np.count_nonzero(mine)} ({_percent(int(clusters.counts[mine].sum()) / total)})", colour


def _written(
    canvas: Picture,
    clusters: Clusters,
    groups: Groups,
    cells: Sequence[_Cell],
    block: int,
    title: str,
    legend: _Legend,
) -> bytes:
    """The page with its texts, as PNG."""
    height, width = canvas.shape[:2]
    # Figure, not pyplot: no window, no global list of figures, and the Agg canvas wherever this runs.
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.figimage(canvas, 0, 0)

    def write(x: float, y: float, text: str, colour: str, points: float, where: str = "left") -> None:
        # What a group is called is not mathematics, whatever signs are in it.
        place = {"ha": where, "va": "center", "parse_math": False, "color": colour, "fontsize": points}
        figure.text(x / width, 1 - y / height, text, **place)

    write(_MARGIN_PX, _MARGIN_PX + 4, title or f"{len(clusters)} clusters", _INK, 12)
    write(_MARGIN_PX, _MARGIN_PX + 24, _EACH, _FAINT, 8)
    for x, line, text, colour in legend.words:
        write(x, _MARGIN_PX + 44 + line * _LINE_PX, text, colour, 9)
    total = max(1, int(clusters.counts.sum()))
    for cell in cells:
        number, count = int(clusters.ids[cell.row]), int(clusters.counts[cell.row])
        group = groups.of(number)
        top = cell.y + block + 0.6 * _LINE_PX
        write(cell.x, top, str(number), group.colour if group else _INK, 10)
        write(cell.x + block, top, f"{_spaced(count)}   {_percent(count / total)}", _INK, 8, "right")
        if group:
            write(cell.x, top + _LINE_PX, group.name[:22], group.colour, 8)
    found = io.BytesIO()
    figure.savefig(found, format="png", dpi=_DPI)
    return found.getvalue()


_EACH = "each: middle slice across z | across y  /  across x | mean along z.  Below: number, sub-volumes, share of all"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _spaced(count: int) -> str:
    return f"{count:,}".replace(",", " ")
