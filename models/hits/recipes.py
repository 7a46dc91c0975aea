"""What a training of the hit classifier is told: its options, and the recipes that name sets of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .conditions import preset
from .resnet10 import INPUTS

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """All settings of a training.

    ``mix``: (conditions, share) of the patterns; ``input``: see ``resnet10.compress``; ``l2``: λ of the paper's
    equation 2; ``decay``: decoupled weight decay (AdamW) instead; ``schedule``: ``constant`` or ``cosine``; ``turns``:
    the eight symmetries of the square instead of flips; ``amp``: bfloat16 on CUDA; ``calibration``: further patterns
    that choose the threshold; ``test_patterns``: per row of the evaluation; ``stop_after``: epochs, for interruptions.
    """

    out: Path
    recipe: str = "paper"
    patterns: int = 60_000
    epochs: int = 20
    seed: int = 1
    device: str = "auto"
    resume: bool = False
    mix: tuple[tuple[str, float], ...] = (("paper", 1.0),)
    input: str = "linear"
    batch: int = 128
    rate: float = 1e-3
    l2: float = 0.01
    decay: float = 0.0
    dropout: float = 0.25
    schedule: str = "constant"
    turns: bool = False
    amp: bool = False
    calibration: int = 12_000
    test_patterns: int = 6_000
    name: str = "hits-resnet10-paper"
    workers: int | None = None
    cache: Path | None = None
    stop_after: int | None = None
    command: str = field(default="", compare=False)

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation."""
        skipped = {"out", "device", "resume", "workers", "cache", "stop_after", "command", "test_patterns", "name"}
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in skipped}))  # type: ignore[no-any-return]


_LONGER: dict[str, Any] = {
    "patterns": 300_000,
    "epochs": 30,
    "input": "sqrt",
    "batch": 512,
    "rate": 2e-3,
    "l2": 0.0,
    "decay": 0.05,
    "dropout": 0.0,
    "schedule": "cosine",
    "turns": True,
    "amp": True,
}
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "tuned": {**_LONGER, "name": "hits-resnet10-tuned"},
    "robust": {
        **_LONGER,
        "patterns": 600_000,
        "epochs": 24,
        "mix": (("paper", 0.5), ("mixed", 0.5)),
        "name": "hits-resnet10",
    },
}


def make_options(out: Path, recipe: str = "paper", **changes: Any) -> Options:
    """The options of a recipe with changes; a change to ``None`` is none. ``ValueError`` names what does not exist."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r}: unknown; choose from {', '.join(RECIPES)}")
    options = replace(Options(out=out, recipe=recipe), **RECIPES[recipe])
    options = replace(options, **{k: v for k, v in changes.items() if v is not None})
    if options.input not in INPUTS:
        raise ValueError(f"input {options.input!r}: unknown; choose from {', '.join(INPUTS)}")
    for conditions, _ in options.mix:
        preset(conditions)
    return options


def parse_mix(text: str | None) -> tuple[tuple[str, float], ...] | None:
    """``paper:0.5,mixed:0.5`` to ((paper, 0.5), (mixed, 0.5)); a name without a number has share 1.

    ``ValueError`` for a share that is no positive number, and for conditions that do not exist.
    """
    if text is None:
        return None
    mix = []
    for part in text.split(","):
        name, _, share = (word.strip() for word in part.partition(":"))
        try:
            number = float(share or 1)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise ValueError(f"--mix {text}: share {share!r} is no positive number; write it as paper:0.5,mixed:0.5")
        try:
            preset(name)
        except ValueError as error:
            raise ValueError(f"--mix {text}: {error}") from None
        mix.append((name, number))
    return tuple(mix)
