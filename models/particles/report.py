"""Pictures of an evaluation: precision-recall curves, picks on the micrograph, scores against a condition."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .candidates import Floats
from .evaluate import Scores
from .fields import Found
from .matching import match
from .prepare import rescale, to_small

WIDEST = 1000
"""Pixels of a drawn micrograph's longer edge; larger ones are binned."""
_LOOK = {"right": ("o", "#00c853"), "wrong": ("s", "#ff1744"), "missed": ("D", "#ffd600")}
_DASHES = ("-", "--", ":", "-.")


def _figure(width: float, height: float) -> Any:
    # Figure, not pyplot: no window, no global list of figures, and the Agg canvas wherever this runs.
    return importlib.import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def draw_curves(path: Path, scores: Mapping[str, Scores], title: str, radius: float | None = None) -> None:
    """Precision against recall, one line per name (and per radius, or only the one given), F2's best point as a star.

    Raises ``OSError`` where ``path`` cannot be written.
    """
    figure = _figure(6.5, 5)
    axes = figure.subplots()
    number = 0
    for name, one in scores.items():
        for at, line in one.curves.items():
            if radius not in {None, at}:
                continue
            row, colour = one.at[at], f"C{number % 10}"
            label = f"{name}, {at:g} D: average precision {row.average_precision}"
            axes.plot(line.recall, line.precision, _DASHES[number % 4], color=colour, label=label)
            if row.best_f2:
                p = row.best_f2
                axes.plot(p.recall, p.precision, "*", ms=13, color=colour, mec="black")
                axes.annotate(
                    f"F2 {p.f:.3f} from {p.threshold:.3f} on",
                    (p.recall, p.precision),
                    xytext=(-6, -16 - 13 * (number % 4)),
                    textcoords="offset points",
                    ha="right",
                    fontsize=8,
                    color=colour,
                )
            number += 1
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.03))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)


def draw_picks(
    path: Path, image: Floats, found: Found, threshold: float, diameter_a: float, radius: float = 0.5, title: str = ""
) -> dict[str, int]:
    """The micrograph (ny, nx), binned and stretched, with its picks from ``threshold`` on; gives how many of each kind.

    Right picks (a particle within ``radius`` diameters, one-to-one) are green circles, wrong ones red squares, missed
    particles yellow diamonds. Where nobody has labelled the micrograph, all picks are green circles.
    Raises ``OSError`` where ``path`` cannot be written.
    """
    factor = max(1.0, max(image.shape) / WIDEST)
    small = rescale(image, 1.0, factor)
    c = found.above(threshold).candidates
    pairs = match(c.x, c.y, *found.true, radius * diameter_a / found.pixel_a)
    right, seen = np.zeros(len(c), bool), np.zeros(len(found.true[0]), bool)
    right[pairs.found], seen[pairs.true] = True, True
    kinds = {
        "right": (c.x[right], c.y[right]),
        "wrong": (c.x[~right], c.y[~right]),
        "missed": (found.true[0][~seen], found.true[1][~seen]),
    }
    if not len(seen):
        kinds = {"picked": (c.x, c.y)}
    diameter = diameter_a / found.pixel_a / factor
    # Noise between pixels hides what a person would compare the picks with.
    small = ndimage.gaussian_filter(small, diameter / 16)
    _draw_picks(path, small, kinds, diameter, factor, title or found.name)
    return {kind: len(x) for kind, (x, _) in kinds.items()}


def _draw_picks(
    path: Path, small: Floats, kinds: Mapping[str, tuple[Floats, Floats]], diameter: float, factor: float, title: str
) -> None:
    ny, nx = small.shape
    width = 8.0
    figure = _figure(width, width * ny / nx + 0.6)
    axes = figure.subplots()
    axes.imshow(stretched(small), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    # The marker's size is in points: half the particle's width, so that neighbours stay apart.
    points = max(4.0, 0.75 * diameter * width * 72 / nx)
    for kind, (x, y) in kinds.items():
        marker, colour = _LOOK.get(kind, _LOOK["right"])
        axes.plot(
            to_small(x, factor),
            to_small(y, factor),
            marker,
            ms=points,
            mfc="none",
            mec=colour,
            mew=1.3,
            ls="none",
            label=f"{kind}: {len(x)}",
        )
    axes.set(xlim=(-0.5, nx - 0.5), ylim=(ny - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    legend = axes.legend(fontsize=9, loc="upper right", framealpha=0.9, markerscale=min(1.0, 9 / points))
    legend.set_zorder(5)
    figure.savefig(path, dpi=110)


def stretched(image: Floats) -> npt.NDArray[np.float32]:
    """``image`` (ny, nx) as grey values 0..1 between its 1st and 99th percentile, float32; a constant one is 0."""
    low, high = np.percentile(image, (1, 99))
    return np.asarray(np.clip((image - low) / (high - low if high > low else 1.0), 0, 1), np.float32)


def draw_series(
    path: Path, lines: Mapping[str, Sequence[tuple[float, float, float, float]]], xlabel: str, title: str
) -> None:
    """Average precision against something on a logarithmic axis: by name, points of (x, value, low, high).

    Raises ``OSError`` where ``path`` cannot be written.
    """
    figure = _figure(6.5, 4.5)
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        x, value, low, high = (np.array(v, float) for v in zip(*sorted(points), strict=True))
        spread = np.nan_to_num(np.stack([value - low, high - value])).clip(min=0)
        axes.errorbar(
            x, value, spread, fmt="os^Dv*"[number % 6] + _DASHES[number % 4], color=f"C{number}", label=name, capsize=3
        )
    axes.set(xscale="log", xlabel=xlabel, ylabel="average precision, all targets counted", ylim=(0, 1.03))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
