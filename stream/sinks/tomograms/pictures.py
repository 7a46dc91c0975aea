"""A picture of a mined tomogram: its central slices with labels and sub-volumes in the colours of their classes.

The slice across z is at the upper left, below it the one across y (z down), to its right the one across x (z to the
right), with the same scale, so that rows and columns meet. Rings are sub-volumes whose middle lies near the slice.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .mined import UNMARKED, Bytes, MinedTomogram, Slices

Planes = tuple[Bytes, Bytes, Bytes]
_DPI = 100
_LEAST_PX, _GAP_PX, _MARGIN_PX, _HEAD_PX, _LINE_PX = 720, 6, 14, 46, 20
_SHARE = 0.45
_RING = 0.25  # radius of a ring, in edges of a sub-volume
_PAPER, _INK, _FAINT, _NONE = (24, 26, 29), "#f2f2f2", "#9aa0a6", "#cfd8dc"
#: Where a class has no colour of its own.
_COLOURS = ("#e6c229", "#e5484d", "#3ba7e0", "#4cc38a", "#d667c9", "#f2913d", "#8ab4f8", "#b8d936")


def draw(found: MinedTomogram, labels: Planes | None = None, fractions: dict[str, float] | None = None) -> bytes:
    """The picture as PNG. ``labels``: label values in the same planes, as ``labels.planes`` gives them.

    ``fractions``: share of the voxels by class, told in the legend. Raises ``ValueError`` without slices.
    """
    if found.slices is None:
        raise ValueError(f"{found.name}: no slices to draw")
    slices, colours = found.slices, _colours(found)
    zoom = max(1, _LEAST_PX // max(1, slices.xy.shape[1] + len(slices.yz)))
    ny, nx, nz = (n * zoom for n in (*slices.xy.shape, len(slices.xz)))
    lines = _legend(found, fractions or {})
    width = max(nx + _GAP_PX + nz, _LEAST_PX) + 2 * _MARGIN_PX
    top = _HEAD_PX
    height = top + ny + _GAP_PX + nz + _LINE_PX * (2 + len(lines)) + _MARGIN_PX
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.patch.set_facecolor([value / 255 for value in _PAPER])
    for picture, at, what in zip(_painted(slices, labels, colours), _places(nx, ny, nz, top), (2, 1, 0), strict=True):
        axes = figure.add_axes(_box(at, (width, height)))
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.autoscale(enable=False)
        _rings(axes, found, slices, what, colours)
    _words(figure, found, lines, colours, (width, height), top + ny + _GAP_PX + nz)
    _bar(figure, found.voxel_a * slices.factor / zoom, (width, height), (_MARGIN_PX + 10, top + ny - 12), nx)
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor=figure.get_facecolor())
    return out.getvalue()


def _places(nx: int, ny: int, nz: int, top: int) -> tuple[tuple[int, int, int, int], ...]:
    """Left, top, width, height in pixels of the slices across z, y and x."""
    below, right = top + ny + _GAP_PX, _MARGIN_PX + nx + _GAP_PX
    return (_MARGIN_PX, top, nx, ny), (_MARGIN_PX, below, nx, nz), (right, top, nz, ny)


def _box(at: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, wide, tall = at
    return left / size[0], 1 - (top + tall) / size[1], wide / size[0], tall / size[1]


def _colours(found: MinedTomogram) -> list[str]:
    """By label value, unmarked first."""
    own = [*found.colours, *("" for _ in found.classes)]
    return [_NONE, *(own[at] or _COLOURS[at % len(_COLOURS)] for at in range(len(found.classes)))]


def _painted(slices: Slices, labels: Planes | None, colours: Sequence[str]) -> list[npt.NDArray[np.uint8]]:
    """The slices in colour, (rows, columns, 3); that across x turned, so that y is down in it, too."""
    table = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in colours], np.float32)
    out = []
    for at, plane in enumerate((slices.xy, slices.xz, slices.yz)):
        grey = np.repeat(plane[..., None].astype(np.float32), 3, axis=2)
        if labels is not None and labels[at].shape == plane.shape:
            marked = (labels[at] > 0) & (labels[at] < len(table))
            grey[marked] = (1 - _SHARE) * grey[marked] + _SHARE * table[labels[at][marked]]
        picture = grey.astype(np.uint8)
        out.append(picture.transpose(1, 0, 2) if at == 2 else picture)
    return out


def _rings(axes: Any, found: MinedTomogram, slices: Slices, across: int, colours: Sequence[str]) -> None:
    """Rings of the sub-volumes near the slice across axis x 0, y 1 or z 2; a faint one for those of no class."""
    collections = importlib.import_module("matplotlib.collections")
    scale = found.working_voxel_a / found.voxel_a
    radius = _RING * found.edge * scale
    xyz, label = found.picked.xyz, found.picked.label
    near = np.abs(xyz[:, across] - slices.at[across]) <= radius
    columns, rows = {2: (0, 1), 1: (0, 2), 0: (2, 1)}[across]
    # The middle of a binned pixel is the middle of its block.
    middles = (xyz[:, (columns, rows)] + 0.5) / slices.factor - 0.5
    for value in range(len(colours)):
        chosen = middles[near & (label == value)]
        size = np.full(len(chosen), 2 * radius / slices.factor)
        axes.add_collection(
            collections.EllipseCollection(
                size,
                size,
                np.zeros(len(chosen)),
                units="xy",
                offsets=chosen,
                transOffset=axes.transData,
                facecolors="none",
                edgecolors=colours[value],
                linewidths=1.3 if value else 0.6,
                alpha=1.0 if value else 0.6,
            ),
            autolim=False,
        )


def _legend(found: MinedTomogram, fractions: dict[str, float]) -> list[tuple[int, str]]:
    """Label value and text of each line."""
    counts = found.counts
    lines = []
    for at, name in enumerate(found.classes, 1):
        share = f", {100 * fractions[name]:.2g} % of the voxels" if name in fractions else ""
        lines.append((at, f"{name}: {_many(counts[name])}{share}"))
    return [*lines, (0, f"{UNMARKED}: {_many(counts[UNMARKED])}")]


def _many(count: int) -> str:
    return f"{count} sub-volume{'' if count == 1 else 's'}"


def _words(
    figure: Any,
    found: MinedTomogram,
    lines: Sequence[tuple[int, str]],
    colours: Sequence[str],
    size: tuple[int, int],
    below: int,
) -> None:
    def text(x: int, y: int, words: str, colour: str, points: float) -> None:
        figure.text(x / size[0], 1 - y / size[1], words, color=colour, fontsize=points, va="center", parse_math=False)

    z, y, x = found.shape
    extent = " × ".join(f"{n * found.voxel_a / 10:.0f}" for n in (x, y, z))
    flip = "" if found.flip == "none" else f", mirrored along {found.flip}"
    text(_MARGIN_PX, 14, _short(found.name, size[0] // 9), _INK, 10)
    text(_MARGIN_PX, 32, f"{x} × {y} × {z} voxels of {found.voxel_a:.4g} Å ({extent} nm){flip}", _FAINT, 8)
    for at, (value, words) in enumerate(lines):
        middle = below + _LINE_PX * (at + 1)
        text(_MARGIN_PX, middle, "\N{BLACK SQUARE}" if value else "\N{WHITE CIRCLE}", colours[value], 11)
        text(_MARGIN_PX + 20, middle, words, _INK, 9)
    note = f"rings: sub-volumes within {_RING * found.edge * found.working_voxel_a / 10:.0f} nm of the slice"
    text(_MARGIN_PX, below + _LINE_PX * (len(lines) + 1), note, _FAINT, 8)


def _short(text: str, letters: int) -> str:
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return shown if len(shown) <= letters else "…" + shown[1 - letters :]


def _bar(figure: Any, pixel_a: float, size: tuple[int, int], at: tuple[int, int], width: int) -> None:
    """A bar of about a fifth of the slice's width, a round number of nanometres long, on a dark ground."""
    patches = importlib.import_module("matplotlib.patches")
    wanted = max(width * pixel_a / 10 / 5, 1e-3)
    step = 10.0 ** math.floor(math.log10(wanted))
    nanometres = max(n for n in (1, 2, 5) if n * step <= wanted) * step
    long = nanometres * 10 / pixel_a
    words = f"{nanometres:g} nm"
    x, y = at
    ground = (max(long, 7 * len(words)) + 12, 30)
    for left, top, (wide, tall), colour, alpha in (
        (x - 6, y - 22, ground, "black", 0.6),
        (x, y, (long, 4), "white", 1.0),
    ):
        where = (left / size[0], 1 - (top + tall) / size[1])
        figure.add_artist(
            patches.Rectangle(
                where, wide / size[0], tall / size[1], color=colour, alpha=alpha, lw=0, transform=figure.transFigure
            )
        )
    figure.text(x / size[0], 1 - (y - 10) / size[1], words, color="white", fontsize=8, va="center")
