"""What a training leaves behind: the bundle with its card, and the pictures."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..bundle import load_bundle, quiet_torchscript, save_bundle
from ..evaluate import Rate, rate, strictest_needed
from .conditions import preset
from .evaluate import Scores, evaluate, runner, score_patterns
from .recipes import Options, Progress
from .resnet10 import ResNet10, classifier, export
from .simulator import CLASSES, STREAMS, VERSION, Patterns, join, pool
from .training_data import Split, simulate_for

if TYPE_CHECKING:
    from .train import Trainer

FALSE_POSITIVE_LIMIT = 0.005
EVALUATION_SEED = 1
COMPRESSION = {"linear": "photons", "sqrt": "the square root of photons", "log": "log(1 + photons)"}


def finish(trainer: Trainer, split: Split, progress: Progress) -> Path:
    """Export the best epoch, choose the threshold, evaluate, write ``<name>.pt``, ``<name>.json`` and the pictures."""
    o = trainer.options
    net = ResNet10(o.dropout)
    net.load_state_dict(trainer.best)
    run = runner(classifier(net, trainer.mean, trainer.std, o.input), trainer.device)
    held = join(simulate_for(o, "threshold", o.calibration, progress)) if o.calibration else split.validation
    probabilities = run(held.images)
    threshold = strictest_needed(probabilities[:, 1], held.labels == 1, FALSE_POSITIVE_LIMIT)
    point = _operating_point(probabilities, held, threshold)
    own = score_patterns(run, split.test, threshold)
    table: dict[str, Scores] = {}
    if o.test_patterns:
        table = evaluate(run, threshold, o.test_patterns, EVALUATION_SEED, progress, o.workers, o.cache)
    card = _card(trainer, split, threshold, point, own, table)
    with quiet_torchscript():
        module = export(net, trainer.mean, trainer.std, o.input)
    path = save_bundle(o.out, o.name, module, card)
    (o.out / "scores.json").write_text(json.dumps(card["scores"], indent=1))
    draw(path)
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
            "dtype": "float32",
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
        # ``beamsieve models verify`` shows by how much: up to 0.034 for the network that ships.
        "tolerance": {"float32": 1e-4, "bfloat16": 6e-2},
    }


def draw(bundle: Path) -> bool:
    """Draw curves.png, confusion.png and samples.png beside a bundle, from the log and the scores that lie there.

    Without matplotlib nothing is drawn and a note says how to do it later; returns whether pictures were drawn.
    """
    folder = bundle.parent
    note = folder / "no-pictures.txt"
    try:
        plt = importlib.import_module("matplotlib.figure")
    except ImportError:
        note.write_text(f"matplotlib is not installed here; draw with: python -m {__spec__.name} {bundle.name}\n")
        return False
    note.unlink(missing_ok=True)
    _curves(plt, folder / "curves.png", json.loads((folder / "log.json").read_text()))
    _confusion(plt, folder / "confusion.png", json.loads((folder / "scores.json").read_text())["test_split"])
    _samples(plt, folder / "samples.png", bundle)
    return True


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


def _confusion(plt: Any, path: Path, scores: dict[str, Any]) -> None:
    figure = plt.Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    counts, accuracy = np.array(scores["confusion"]), scores["accuracy"]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for (row, column), number in np.ndenumerate(counts):
        axes.text(column, row, number, ha="center", va="center", color="white" if share[row, column] > 0.6 else "black")
    axes.set_xticks(range(5), CLASSES)
    axes.set_yticks(range(5), CLASSES)
    axes.set_xlabel("particles found")
    axes.set_ylabel("particles in the beam")
    interval = f"[{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
    axes.set_title(f"test split: {100 * accuracy['value']:.2f} % {interval} right", fontsize=9)
    figure.savefig(path, dpi=110)


def _samples(plt: Any, path: Path, bundle: Path) -> None:
    """Five fresh patterns of each class, on a logarithmic scale, with what the network says."""
    made = pool(5, seed=0)
    found = runner(load_bundle(bundle).module, torch.device("cpu"))(made.images)
    figure = plt.Figure(figsize=(9, 9.6), layout="constrained")
    for cell, index in zip(figure.subplots(5, 5).flat, np.argsort(made.labels, kind="stable"), strict=True):
        p, label = found[index], CLASSES[made.labels[index]]
        cell.imshow(np.log1p(made.images[index]), cmap="viridis")
        cell.set_title(f"{label}: found {CLASSES[int(p.argmax())]} ({p.max():.2f})", fontsize=8)
        cell.axis("off")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(0 if draw(Path(sys.argv[1]).absolute()) else 1)
