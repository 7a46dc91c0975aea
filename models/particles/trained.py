"""What a training of the picker leaves behind: the bundle with its card, the scores, the pictures."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit, logit

from ..bundle import load_bundle, quiet_torchscript, save_bundle
from .dataset import describe
from .deepem import DeepEM, folded
from .evaluate import BORDER, Scores, score
from .fields import Found, find
from .matching import Curve
from .pick import Picker
from .recipes import Progress
from .report import draw_curves, draw_picks, stretched

if TYPE_CHECKING:
    from .train import Trainer

RADIUS = 0.2
"""Radius of matching, in diameters, for which the threshold is chosen."""
SAMPLES = 8
NORMALISATION = (
    "the micrograph, not the box: rescaled to pixel_a, outliers cut off, a background of two diameters taken off, "
    "robust mean 0 and standard deviation 1 (models/particles/prepare.py); particles are dark on light"
)


def finish(trainer: Trainer, progress: Progress) -> Path:
    """Export the best epoch, choose the threshold, write ``<name>.pt``, ``<name>.json``, ``scores.json`` and pictures.

    The threshold is the one of the highest F-score on the held-back micrographs, picked as the product picks (Zhu et
    al. 2017, equation 8; ``options.beta``), matched within 0.2 diameters. Returns the path of the ``.pt`` file.
    """
    o = trainer.options
    module = export(trainer)
    path = save_bundle(o.out, o.name, module, card(trainer, 0.5, {}))
    picker = Picker(load_bundle(path), device="cpu", threads=max(1, torch.get_num_threads()))
    held = [one.labelled for one in trainer.validation]
    found = find(picker.pick, held, progress, len(held))
    # Scored twice, because what is told at the threshold in force needs the threshold.
    line = score(found, o.diameter_a, threshold=0.5).curves[RADIUS]
    threshold = round(chosen_threshold(line, picker.options.floor, o.beta), 4)
    scores = score(found, o.diameter_a, threshold=threshold)
    told = summary(scores)
    (o.out / "scores.json").write_text(json.dumps({"validation": scores.to_json()}, indent=1, allow_nan=False))
    path = save_bundle(o.out, o.name, module, card(trainer, threshold, told))
    draw(trainer, scores, found, threshold)
    return path


def chosen_threshold(line: Curve, floor: float, beta: float = 2.0) -> float:
    """The threshold of the highest F-score: the middle, in log-odds, between the last score that it takes and the next.

    Any threshold in that gap picks the same. At its upper end, the particle that scored worst here would be the worst
    that is ever picked. 0.5 where there is no candidate, or no particle was found.
    """
    if not len(line.threshold) or not np.nanmax(line.f(beta)) > 0:
        return 0.5
    at = int(np.argmax(line.f(beta)))
    below = line.threshold[at + 1] if at + 1 < len(line.threshold) else floor
    ends = np.clip([line.threshold[at], below], 1e-6, 1 - 1e-6)
    return float(expit(logit(ends).mean()))


def export(trainer: Trainer) -> torch.jit.ScriptModule:
    """The network of the best epoch, without batch normalisation, scripted."""
    net = DeepEM(trainer.layout, activation="relu" if trainer.net.relu else "sigmoid", batch_norm=trainer.normalised)
    net.load_state_dict(trainer.best)
    with quiet_torchscript():
        module: torch.jit.ScriptModule = torch.jit.script(folded(net.eval()))
    return module


def summary(scores: Scores) -> dict[str, Any]:
    """What of the scores goes onto the card."""
    return {
        "micrographs": len(scores.names),
        "particles": int(sum(scores.targets)),
        "border": f"particles and picks within {BORDER:g} diameters of an edge do not count",
        **{
            f"{radius:g} D": {
                "average_precision": round(row.average_precision.value, 4),
                "precision": round(row.precision.value, 4),
                "recall": round(row.recall.value, 4),
                "f1": round(row.f1, 4),
                "f2": round(row.f2, 4),
                "error_mean_diameters": round(row.error_mean, 4),
            }
            for radius, row in scores.at.items()
        },
    }


def card(trainer: Trainer, threshold: float, told: dict[str, Any]) -> dict[str, Any]:
    """The bundle's card; see ``Card``. Numbers that are not defined are left out."""
    o, layout = trainer.options, trainer.layout
    best = min(trainer.history, key=lambda row: row["validation_loss"])
    finite = json.loads(json.dumps(told), parse_constant=lambda _: None)
    return {
        "version": "1",
        "task": "particles",
        "input": {
            "name": "micrograph",
            "shape": [1, layout.box, layout.box],
            "dtype": "float32",
            "normalisation": NORMALISATION,
            "pixel_a": trainer.pixel_a,
            "diameter_a": o.diameter_a,
        },
        "output": {"classes": ["particle"], "kind": "probabilities"},
        "threshold": threshold,
        "training": {
            "options": o.identity(),
            "layout": {"box": layout.box, "kernels": layout.kernels, "pools": layout.pools, "maps": layout.maps},
            "training": describe(trainer.training),
            "validation": describe(trainer.validation),
            "split": "by micrograph",
            "best_epoch": best["epoch"],
            "validation_loss": best["validation_loss"],
        },
        "scores": {
            "validation": finite,
            "rule": f"threshold: highest F{o.beta:g} on the validation micrographs, within {RADIUS:g} diameters",
        },
        "trained_by": o.command or f"beamsieve train particles --recipe {o.recipe} --seed {o.seed}",
        "licence": "Apache-2.0",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tolerance": {"float32": 1e-4, "bfloat16": 0.05},
    }


def draw(trainer: Trainer, scores: Scores, found: list[Found], threshold: float) -> bool:
    """Draw training.png, precision-recall.png, boxes.png, picks.png; without matplotlib a note says so, and False."""
    out, o = trainer.options.out, trainer.options
    note = out / "no-pictures.txt"
    try:
        plt = importlib.import_module("matplotlib.figure")
    except ImportError:
        note.write_text("matplotlib is not installed here: pip install matplotlib, and train again with --resume\n")
        return False
    note.unlink(missing_ok=True)
    _draw_history(plt, out / "training.png", trainer.history)
    _draw_boxes(plt, out / "boxes.png", trainer)
    draw_curves(out / "precision-recall.png", {o.name: scores}, f"{o.name}: {len(found)} validation micrographs")
    draw_picks(out / "picks.png", trainer.validation[0].labelled.load(), found[0], threshold, o.diameter_a)
    return True


def _draw_history(plt: Any, path: Path, history: list[dict[str, float]]) -> None:
    figure = plt.Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, names, label in (
        (left, ("loss", "validation_loss"), "loss"),
        (right, ("accuracy", "validation_accuracy"), "boxes told right at 0.5"),
    ):
        for name in names:
            axes.plot(epochs, [row[name] for row in history], label=name.replace("_", " "))
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    figure.savefig(path, dpi=110)


def _draw_boxes(plt: Any, path: Path, trainer: Trainer) -> None:
    """Boxes as the network sees them: particles above, background and (where there are) false positives below."""
    ground, box = trainer.sampler.ground, trainer.layout.box
    rng = np.random.default_rng(trainer.options.seed)
    particles = ground.corners(ground.points, box, inside=False)
    background = ground.anywhere(rng, 64 * SAMPLES, box)
    middle = background + (box - 1) / 2
    background = background[ground.distance(middle[:, 0], middle[:, 1], background[:, 2]) > 0.7 * trainer.diameter_px]
    rows = {"particles": particles, "background": background, "false positives": ground.corners(ground.wrong, box)}
    rows = {name: corners for name, corners in rows.items() if len(corners)}
    figure = plt.Figure(figsize=(1.3 * SAMPLES, 1.55 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), SAMPLES, squeeze=False)
    for cells, (name, corners) in zip(grid, rows.items(), strict=True):
        chosen = corners[rng.permutation(len(corners))[:SAMPLES]]
        for cell in cells:
            cell.axis("off")
        for cell, image in zip(cells, ground.cut(chosen, box), strict=False):
            cell.imshow(stretched(image), cmap="gray", vmin=0, vmax=1)
        cells[0].set_title(f"{name} ({len(corners)})", fontsize=9, loc="left")
    figure.savefig(path, dpi=110)
