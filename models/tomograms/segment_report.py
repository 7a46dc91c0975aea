"""What a training of segments leaves behind: the bundle with its card, the scores, the pictures."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from .bundles import save_segmenter
from .labels import BACKGROUND, IGNORED, Labels

if TYPE_CHECKING:
    from .segment_train import Trainer

_SHOWN = 4


def overlap(found: Labels, truth: Labels, classes: int) -> npt.NDArray[np.int64]:
    """For each class the voxels that both, the first, and the second say are of it; int64 (classes, 3).

    Where ``truth`` is 255, nothing is counted.
    """
    known = truth != IGNORED
    table = np.bincount(truth[known].astype(np.intp) * classes + found[known], minlength=classes**2)
    table = table[: classes**2].reshape(classes, classes)
    return np.stack([np.diag(table), table.sum(0), table.sum(1)], 1).astype(np.int64)


def dice(counts: npt.NDArray[np.int64]) -> list[float | None]:
    """Dice of each class, 2·both / (first + second), from ``overlap``; None where nobody says it is anywhere."""
    both, first, second = counts.T.tolist()
    return [2 * b / (f + s) if f + s else None for b, f, s in zip(both, first, second, strict=True)]


def finish(trainer: Trainer, classes: Sequence[str]) -> Path:
    """Write the bundle, ``scores.json`` and the pictures; the path of the ``.pt`` file."""
    o = trainer.options
    best = trainer.history[trainer.best_epoch - 1]
    scores = {
        "validation loss": round(best["validation"], 5),
        "dice against weak labels": {
            name: round(best[f"dice {value}"], 4) for value, name in enumerate(classes) if value != BACKGROUND
        },
        "windows": int(trainer.held.sum()),
    }
    training = {
        **o.training,
        "windows": len(trainer.rows),
        "tomograms": len(np.unique(trainer.data.tomogram)),
        "window": trainer.data.windows.shape[-1],
        "epochs": len(trainer.history),
        "best epoch": trainer.best_epoch,
        "batch": trainer.batch,
        "rate": o.rate,
        "tuned": "head" if trainer.head else "all",
        "balance": trainer.balance,
        "weights": [round(float(w), 4) for w in trainer.weights.cpu()],
        "seed": o.seed,
    }
    made = save_segmenter(
        o.out,
        o.name,
        trainer.net.cpu(),
        classes,
        edge=o.edge,
        voxel_a=o.voxel_a,
        training=training,
        scores=scores,
    )
    text = json.dumps({"scores": scores, "training": training, "history": trainer.history}, indent=1)
    (o.out / "scores.json").write_text(text)
    pictures(trainer, classes)
    return made


def pictures(trainer: Trainer, classes: Sequence[str]) -> None:
    """``loss.png``: losses and Dice by epoch. ``example.png``: validation windows, their labels, what is predicted."""
    # Not pyplot: it would choose a window system, and keep figures of a daemon's thread alive.
    figure_of = importlib.import_module("matplotlib.figure").Figure
    out, history = trainer.options.out, trainer.history
    figure = figure_of(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(history) + 1)
    for name in ("loss", "validation"):
        left.plot(epochs, [row[name] for row in history], label=name)
    left.axvline(trainer.best_epoch, color="0.7", lw=1)
    left.set(xlabel="epoch", ylabel="cross-entropy")
    left.legend()
    for value, name in enumerate(classes):
        if value != BACKGROUND:
            right.plot(epochs, [row[f"dice {value}"] for row in history], label=name)
    right.set(xlabel="epoch", ylabel="Dice against weak labels", ylim=(0, 1))
    right.legend()
    figure.savefig(out / "loss.png", dpi=100)
    _examples(trainer, figure_of).savefig(out / "example.png", dpi=100)


def _examples(trainer: Trainer, figure_of: Any) -> Any:
    data = trainer.data
    rows = np.flatnonzero(trainer.held)
    marked = [row for row in rows.tolist() if ((data.labels[row] != BACKGROUND) & (data.labels[row] != IGNORED)).any()]
    some = (marked or rows.tolist())[:_SHOWN]
    figure = figure_of(figsize=(8, 2.6 * len(some)), layout="constrained")
    shown = figure.subplots(len(some), 3, squeeze=False)
    for line, row in zip(shown, some, strict=True):
        window, labels = data.windows[row], data.labels[row]
        with torch.inference_mode():
            found = trainer.net.eval()(torch.from_numpy(np.ascontiguousarray(window))[None, None]).argmax(1)[0].numpy()
        middle = window.shape[0] // 2
        most = trainer.classes - 1
        for axes, title in zip(line, ("window, middle ± 1", "weak labels", "network"), strict=True):
            axes.set(xticks=[], yticks=[], title=title)
        line[0].imshow(window[middle - 1 : middle + 2].mean(0), cmap="gray")
        line[1].imshow(np.where(labels[middle] == IGNORED, 0, labels[middle]), vmin=0, vmax=most, interpolation="none")
        line[2].imshow(found[middle], vmin=0, vmax=most, interpolation="none")
    return figure
