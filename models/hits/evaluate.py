"""The evaluation table of a hit classifier: the paper's conditions on unseen particle models, then the harder ones.

Test patterns come from the seed stream ``test`` (see ``simulator.STREAMS``), whose random numbers no training,
validation or threshold data can share, whatever their seeds: every particle model in them is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..evaluate import Flags, Floats, Ints, Rate, auc, confusion, rate
from .conditions import preset
from .dataset import generate_all
from .shapes import TRAINING_SHAPES
from .simulator import CLASSES, Patterns, Recipe

Probabilities = Callable[[npt.NDArray[np.uint16]], npt.NDArray[np.float32]]
Progress = Callable[[str, int, int], None]

# Under each title the conditions and the shapes.
ROWS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "paper's conditions": ("paper", TRAINING_SHAPES),
    "torus": ("paper", ("torus",)),
    "ellipsoid": ("paper", ("ellipsoid",)),
    "core-shell": ("paper", ("core_shell",)),
    "rod": ("paper", ("rod",)),
    "low fluence": ("low_fluence", TRAINING_SHAPES),
    "particles apart": ("separated", TRAINING_SHAPES),
    "background": ("background", TRAINING_SHAPES),
    "gaps": ("gaps", TRAINING_SHAPES),
    "beam stop": ("beam_stop", TRAINING_SHAPES),
    "readout noise": ("noise", TRAINING_SHAPES),
    "off centre": ("off_centre", TRAINING_SHAPES),
    "whole detector": ("detector", TRAINING_SHAPES),
}


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores under one set of conditions.

    ``accuracy``: the most probable of the five classes is right. The rest is about "single hit", accepted when its
    probability reaches the threshold: ``false_positive`` is the share accepted of all that are not single.
    """

    accuracy: Rate
    precision: Rate
    recall: Rate
    false_positive: Rate
    confusion: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rates = {k: getattr(self, k).to_json() for k in ("accuracy", "precision", "recall", "false_positive")}
        return {**rates, "confusion": self.confusion.tolist()}


def score(probabilities: Floats, labels: Ints, models: Ints, threshold: float) -> Scores:
    """Scores of probabilities (n, 5) against labels (n,); intervals resample the particle models (n,)."""
    predicted = probabilities.argmax(1)
    single: Flags = labels == 1
    accepted: Flags = probabilities[:, 1] >= threshold
    everything = np.ones(len(labels), dtype=bool)
    return Scores(
        accuracy=rate(predicted == labels, everything, models),
        precision=rate(single, accepted, models),
        recall=rate(accepted, single, models),
        false_positive=rate(accepted, ~single, models),
        confusion=confusion(labels, predicted, len(CLASSES)),
    )


def runner(module: torch.nn.Module, device: torch.device, batch: int = 256) -> Probabilities:
    """A module, exported or not, as a function from photons uint16 (n, 128, 128) to probabilities float32 (n, 5)."""
    module = module.to(device).eval()

    def run(images: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
        parts = []
        with torch.inference_mode():
            for at in range(0, len(images), batch):
                x = torch.from_numpy(images[at : at + batch].astype(np.float32)).to(device)
                parts.append(module(x[:, None]).cpu().numpy())
        return np.concatenate(parts)

    return run


def evaluate(
    run: Probabilities,
    threshold: float,
    patterns: int,
    seed: int,
    progress: Progress,
    workers: int | None = None,
    cache: Path | None = None,
) -> dict[str, Scores]:
    """Scores for every row of the table, each on ``patterns`` fresh test patterns made from ``seed``."""
    recipes = [Recipe(seed, "test", preset(conditions), shapes) for conditions, shapes in ROWS.values()]
    wanted = [(patterns, recipe) for recipe in recipes]
    sets = generate_all(wanted, cache, workers, lambda done, of: progress("simulate patterns for test", done, of))
    table = {}
    for number, (title, data) in enumerate(zip(ROWS, sets, strict=True)):
        table[title] = score_patterns(run, data, threshold)
        progress(f"evaluate: {title}", number + 1, len(ROWS))
    return table


def score_patterns(run: Probabilities, data: Patterns, threshold: float) -> Scores:
    """Scores on patterns that exist already."""
    return score(run(data.images), data.labels, data.model_id, threshold)


def real_patterns(run: Probabilities, path: Path) -> dict[str, Any]:
    """How well the probability of "single" ranks labelled real patterns.

    ``path``: an ``.npz`` with ``patterns`` (n, 128, 128) in photons, ``single`` (n,), and ``mask_bad`` (128, 128) or
    (n, 128, 128), nonzero = bad.
    """
    with np.load(path, allow_pickle=False) as kept:
        patterns, single, bad = kept["patterns"], kept["single"].astype(bool), kept["mask_bad"].astype(bool)
    images = np.where(bad, 0, patterns).astype(np.uint16)
    probabilities = run(images)
    # On a scale that keeps apart what rounds to 0 or 1
    odds = np.log(probabilities[:, 1] + 1e-30) - np.log1p(-np.minimum(probabilities[:, 1], 1 - 1e-7))
    return {
        "patterns": len(images),
        "single": int(single.sum()),
        "auc": auc(odds, single),
        "predicted_classes": np.bincount(probabilities.argmax(1), minlength=5).tolist(),
        "confusion_single": confusion(single.astype(int), (probabilities.argmax(1) == 1).astype(int), 2).tolist(),
    }
