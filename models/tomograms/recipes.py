"""What the training of an autoencoder is told: its options, and the recipes that name sets of them."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

TARGETS = ("input", "clean")


@dataclass(frozen=True, slots=True)
class Options:
    """All settings of a training.

    ``posed``: the sub-volumes are in their poses; ``voxel_a``: Å per voxel of them. ``target``: what is to be
    reconstructed: ``input``, as published, or ``clean``, the sub-volume without noise where that is known (simulated).
    ``smooth``: standard deviation, in voxels, of a Gaussian that input and target are smoothed by; 0: none, as
    published. ``normalise``: the code is batch-normalised before its ReLU while training, and the norm then folded into
    the dense layer, whose numbers otherwise die out; ``dense_rate``: share of the rate for that layer. ``weight``:
    errors count relative to the target's variance to this power; 0: as published. ``mirror``: sub-volumes are mirrored
    at random, as the missing wedge allows (along y; along x and z together); never posed ones. ``sparsity``: λ of the
    penalty λ Σ |code| per sub-volume, beside its mean squared error; the published one is not told. ``rate``: of Adam,
    with ``betas``; ``falling``: to a twentieth over ``epochs``, half a cosine. ``batch``: sub-volumes per step.
    ``epochs``: at most; ``patience``: epochs without a better validation before it ends. ``held``: share of the
    sub-volumes to validate on, in whole tomograms where there are several. ``start``: the bundle to go on from.
    ``stop_after``: epochs, for interruptions.
    """

    out: Path
    name: str = "tomograms-general"
    recipe: str = "general"
    posed: bool = False
    voxel_a: float = 14.2
    target: str = "clean"
    smooth: float = 1.0
    normalise: bool = True
    dense_rate: float = 0.1
    weight: float = 0.5
    mirror: bool = True
    sparsity: float = 1e-5
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    falling: bool = True
    batch: int = 8
    epochs: int = 30
    patience: int = 20
    held: float = 0.1
    channels: int = 32
    codes: int = 32
    seed: int = 1
    device: str = "auto"
    threads: int | None = None
    start: str = ""
    stop_after: int | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target: {self.target!r} is not one of {', '.join(TARGETS)}")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name}: {value:g} is not between {low:g} and {high:g}")

    def identity(self) -> dict[str, Any]:
        """What makes two trainings the same: everything but where it runs and how long."""
        left_out = {"out", "name", "device", "threads", "stop_after", "command"}
        return {key: value for key, value in asdict(self).items() if key not in left_out}


_BOUNDS = (
    ("voxel_a", 0.01, 1e6),
    ("smooth", 0, 8),
    ("dense_rate", 1e-4, 10),
    ("weight", 0, 1),
    ("sparsity", 0, 1),
    ("rate", 1e-8, 1),
    ("batch", 1, 1024),
    ("epochs", 1, 100_000),
    ("patience", 1, 100_000),
    ("held", 0.01, 0.5),
    ("channels", 1, 1024),
    ("codes", 1, 1024),
)

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "target": "input",
        "smooth": 0.0,
        "normalise": False,
        "dense_rate": 1.0,
        "weight": 0.0,
        "mirror": False,
        "falling": False,
        "epochs": 1000,
        "patience": 20,
    },
    "general": {},
}
"""``paper``: as published. ``general``: errors against the clean sub-volume, mirrored ones too, a falling rate."""


FURTHER = 0.3
"""Of the rate, where a training goes on from a bundle."""


def make_options(out: Path, recipe: str = "general", **given: Any) -> Options:
    """The options of a recipe, with what is ``given`` and not None. Raises ``ValueError`` for what cannot be."""
    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; choose from {', '.join(RECIPES)}"
        raise ValueError(f"--recipe {recipe}: unknown{hint}")
    changed = {key: value for key, value in given.items() if value is not None}
    made = replace(Options(out, recipe=recipe), **RECIPES[recipe])
    if changed.get("start"):
        # A code in use needs no norm, which would change it, and small steps keep what was learnt.
        made = replace(made, normalise=False, rate=made.rate * FURTHER)
    posed = changed.get("posed", made.posed)
    name = f"tomograms-{'posed' if posed else 'general'}" if recipe == "general" else f"tomograms-{recipe}"
    if posed:
        # A mirrored sub-volume would have been turned another way: its poses follow the signs of its third moments.
        made = replace(made, mirror=False)
    return replace(made, **{"name": name, **changed})
