"""What a training leaves behind: the bundle with its card, and the pictures."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle import quiet_torchscript, save_bundle
from ..evaluate import Rate, rate, strictest_needed
from .conditions import preset
from .evaluate import Probabilities, Scores, evaluate, runner, score_patterns
from .resnet10 import ResNet10, export
from .simulator import CLASSES, STREAMS, VERSION, Patterns, join

if TYPE_CHECKING:
    from .train import Options, Progress, Split, Trainer

FALSE_POSITIVE_LIMIT = 0.005
EVALUATION_SEED = 1
COMPRESSION = {"linear": "photons", "sqrt": "the square root of photons", "log": "log(1 + photons)"}


def finish(trainer: Trainer, split: Split, progress: Progress) -> Path:
    """Export the best epoch, choose the threshold, evaluate, write ``<name>.pt``, ``<name>.json`` and the pictures."""
    from .train import simulate_for

    o = trainer.options
    net = ResNet10(o.dropout)
    net.load_state_dict(trainer.best)
    with quiet_torchscript():
        module = export(net, trainer.mean, trainer.std, o.input)
        run = runner(export(net, trainer.mean, trainer.std, o.input), trainer.device)
    held = join(simulate_for(o, "threshold", o.calibration, progress)) if o.calibration else split.validation
    probabilities = run(held.images)
    threshold = strictest_needed(probabilities[:, 1], held.labels == 1, FALSE_POSITIVE_LIMIT)
    point = _operating_point(probabilities, held, threshold)
    own = score_patterns(run, split.test, threshold)
    table: dict[str, Scores] = {}
    if o.test_patterns:
        table = evaluate(run, threshold, o.test_patterns, EVALUATION_SEED, progress, o.workers, o.cache)
    card = _card(trainer, split, threshold, point, own, table)
    path = save_bundle(o.out, o.name, module, card)
    (o.out / "scores.json").write_text(json.dumps(card["scores"], indent=1))
    _pictures(o.out, trainer, own, split.test, run)
    return path


def _operating_point(probabilities: Any, held: Patterns, threshold: float) -> dict[str, Any]:
    single, accepted = held.labels == 1, probabilities[:, 1] >= threshold
    found: dict[str, Rate] = {
        "recall": rate(accepted, single, held.model_id),
        "false_positive": rate(accepted, ~single, held.model_id),
    }
    return {"threshold": threshold, "patterns": len(held), **{k: v.to_json() for k, v in found.items()}}


def _training(trainer: Trainer, split: Split) -> dict[str, Any]:
    o: Options = trainer.options
    best = max(trainer.history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    return {
        "options": o.identity(),
        "simulator": {
            "version": VERSION,
            "conditions": {name: {"share": share, **asdict(preset(name))} for name, share in o.mix},
            "streams": STREAMS,
            "shapes": list(split.train.shapes),
        },
        "patterns": {part: len(getattr(split, part)) for part in ("train", "validation", "test")},
        "split": "by particle model: no model of one part is in another",
        "threshold_data": "further particle models, seed stream 'threshold'",
        "evaluation_data": f"further particle models, seed stream 'test', seed {EVALUATION_SEED}",
        "best_epoch": best["epoch"],
        "validation_accuracy": best["validation_accuracy"],
        "device": str(trainer.device),
    }


def _card(
    trainer: Trainer, split: Split, threshold: float, point: dict[str, Any], own: Scores, table: dict[str, Scores]
) -> dict[str, Any]:
    o = trainer.options
    return {
        "version": "1",
        "task": "hits",
        "input": {
            "name": "photons",
            "shape": [1, 128, 128],
            "dtype": "uint16",
            "normalisation": f"{COMPRESSION[o.input]}, minus the mean training image, over its standard deviation, "
            "per pixel; done inside the module; masked pixels are 0",
        },
        "output": {"classes": list(CLASSES), "kind": "probabilities"},
        "threshold": threshold,
        "training": _training(trainer, split),
        "scores": {
            "operating_point": {
                "rule": "lowest threshold >= 0.5 whose false-positive rate for single hits is below 0.5 % at the upper "
                "end of its interval, on data of the training conditions",
                **point,
            },
            "test_split": own.to_json(),
            "conditions": {title: scores.to_json() for title, scores in table.items()},
            "intervals": "95 %, bootstrap over particle models; Wilson where no error was seen",
        },
        "trained_by": o.command or f"beamsieve train hits --recipe {o.recipe} --seed {o.seed}",
        "licence": "Apache-2.0",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tolerance": {"float32": 1e-4, "bfloat16": 2e-2},
    }


def _pictures(out: Path, trainer: Trainer, own: Scores, test: Patterns, run: Probabilities) -> None:
    """curves.png, confusion.png, samples.png; without matplotlib a note says so."""
    try:
        plt = importlib.import_module("matplotlib.figure")
    except ImportError:
        (out / "no-pictures.txt").write_text("matplotlib is not installed here; log.json and scores.json hold it all\n")
        return
    _curves(plt, out / "curves.png", trainer.history)
    _confusion(plt, out / "confusion.png", own)
    _samples(plt, out / "samples.png", test, run)


def _curves(plt: Any, path: Path, history: list[dict[str, float]]) -> None:
    figure = plt.Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, names, label in (
        (left, ("loss", "validation_loss"), "loss"),
        (right, ("accuracy", "validation_accuracy"), "accuracy"),
    ):
        for name in names:
            axes.plot(epochs, [row[name] for row in history], label=name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    figure.savefig(path, dpi=110)


def _confusion(plt: Any, path: Path, own: Scores) -> None:
    figure = plt.Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    share = own.confusion / np.maximum(own.confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for (row, column), number in np.ndenumerate(own.confusion):
        axes.text(column, row, number, ha="center", va="center", color="white" if share[row, column] > 0.6 else "black")
    axes.set_xticks(range(5), CLASSES)
    axes.set_yticks(range(5), CLASSES)
    axes.set_xlabel("particles found")
    axes.set_ylabel("particles in the beam")
    axes.set_title(f"test split, accuracy {own.accuracy} %", fontsize=9)
    figure.savefig(path, dpi=110)


def _samples(plt: Any, path: Path, test: Patterns, run: Probabilities) -> None:
    """Five test patterns of each class, on a logarithmic scale, with what the network says."""
    figure = plt.Figure(figsize=(9, 9.6), layout="constrained")
    axes = figure.subplots(5, 5)
    for row in range(5):
        chosen = np.flatnonzero(test.labels == row)[:: max(1, int((test.labels == row).sum()) // 5)][:5]
        for cell in axes[row]:
            cell.axis("off")
        if len(chosen) == 0:
            continue
        images = test.images[chosen]
        for cell, image, p in zip(axes[row], images, run(images), strict=False):
            cell.imshow(np.log1p(image), cmap="viridis")
            cell.set_title(f"{CLASSES[row]}: found {CLASSES[int(p.argmax())]} ({p.max():.2f})", fontsize=8)
    figure.savefig(path, dpi=110)
