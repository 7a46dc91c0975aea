"""What a fine-tuning leaves to look at: particles before and after, loss curves, and its result as JSON."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .neighbours import Floats, lowpassed
from .tuner import Tuner

PICTURED = 12
_PERCENT = (0.5, 99.5)


def write_report(out: Path, tuner: Tuner, result: Mapping[str, Any], to: Path) -> None:
    """Write ``tuned.png`` and ``losses.png`` into ``out`` and ``result`` as JSON to ``to``, which comes last.

    Raises ``OSError`` where they cannot be written.
    """
    draw_particles(out / "tuned.png", tuner, result)
    draw_losses(out / "losses.png", result["history"])
    partial = to.with_name(to.name + ".inprogress")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(to)


def _figure(width: float, height: float) -> Any:
    # Figure, not pyplot: no window, no global list of figures, and the Agg canvas wherever this runs.
    return importlib.import_module("matplotlib.figure").Figure(figsize=(width, height))


def draw_particles(path: Path, tuner: Tuner, result: Mapping[str, Any]) -> None:
    """Twelve held-out particles: as they came, low-passed, what they are scored with, denoised before and after."""
    count = len(tuner.parts.held)
    some = np.unique(np.linspace(0, count - 1, min(PICTURED, count)).astype(int))
    raw = tuner.images[tuner.parts.held[some]]
    rows = {
        "noisy": raw,
        "noisy, low-passed": lowpassed(raw),
        "mean of neighbours": tuner.wanted[some],
        "before": tuner.start[some],
        "after": tuner.denoised()[some],
    }
    figure = _figure(1.0 * len(some) + 1.4, 1.06 * len(rows) + 0.4)
    for axes, (name, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        axes.imshow(_strip(images), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=1.4 / (len(some) + 1.4), right=0.995, bottom=0.01, top=0.93, hspace=0.04)
    figure.suptitle(
        f"{result['base']}: share of differences explained {result['before']:.3f}, now {_said(result['after'])} "
        f"(± {_said(result['error'])}) on {count} held-out particles",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)


def _said(value: float | None) -> str:
    return "no number" if value is None else f"{value:.3f}"


def _strip(images: Floats) -> Floats:
    """Images (n, s, s) side by side, each between its own darkest and brightest pixels, a white line between them."""
    parts = []
    for image in np.nan_to_num(images):
        low, high = np.percentile(image, _PERCENT)
        grey = np.clip((image - low) / (high - low if high > low else 1.0), 0, 1)
        parts.append(np.pad(grey, ((0, 0), (0, 1)), constant_values=1.0))
    strip: Floats = np.concatenate(parts, axis=1)[:, :-1]
    return strip


def draw_losses(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Mean square error against the neighbours' mean by epoch, a panel per block, for trained and held-out images."""
    blocks = sorted({int(row["block"]) for row in history})
    figure = _figure(3.2 * len(blocks), 2.8)
    for axes, block in zip(figure.subplots(1, len(blocks), squeeze=False)[0], blocks, strict=True):
        rows = [row for row in history if row["block"] == block]
        for name, label, style in (("loss", "trained on", "o-"), ("validation_loss", "held out", "s--")):
            known = [row for row in rows if row[name] is not None]
            axes.plot([row["epoch"] for row in known], [row[name] for row in known], style, ms=3, label=label)
        axes.set(xlabel="epoch", title=f"block {block}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("mean square error")
    figure.subplots_adjust(left=0.1, right=0.99, bottom=0.18, top=0.88, wspace=0.4)
    figure.savefig(path, dpi=110)
