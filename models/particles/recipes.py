"""What a training of the picker is told: its options, the recipes that name sets of them, and the rule of scale."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .deepem import ACTIVATIONS, MAPS, PRESETS, SMALLEST_BOX, Layout, layout_for

Progress = Callable[[str, int, int], None]

WIDTH_PX = 32.0
"""Width of the particle in pixels of the network's input, where nothing else is stated."""
BOX_DIAMETERS = 1.4
"""Edge of the box in particle diameters: the particle and a rim of what surrounds it."""
LOSSES = ("mse", "bce")
OPTIMISERS = ("descent", "adamw")


@dataclass(frozen=True, slots=True)
class Options:
    """All settings of a training.

    What is looked for: ``diameter_a``, the particle's diameter in ångström. The network: ``preset`` (a published
    layout) or ``box`` (edge in pixels) or neither; ``pixel_a``, ångström per pixel of its input; see ``geometry`` for
    what is not stated. ``maps``: feature maps of the three convolutions. ``activation``, ``batch_norm``: see
    ``DeepEM``.

    What is learnt: ``loss`` (``mse``: 1/(2N) Σ|t - y|²; ``bce``: cross-entropy), ``sigma`` (0: targets are 1 at a
    particle's centre and 0 elsewhere; else they fall off like a Gaussian of this standard deviation, in diameters).
    What is shown: ``cells`` = 1 shows single boxes, as many background boxes per particle as ``negatives``, at least
    ``away`` diameters from every particle, each turned by 0, 90, 180 and 270°; more shows random pieces of micrographs
    that hold ``cells`` × ``cells`` boxes one stride apart, of which ``share`` lie within ``near`` diameters of a
    particle and ``hard`` at verified or mined false positives, turned and mirrored at random, their contrast changed by
    up to a factor ``1 + contrast``, with white noise of up to ``noise`` standard deviations added to half of them (so
    that averages of many frames teach what single frames look like). ``positives``: at most so many particles for
    training; 0: all.

    How: ``optimiser`` (``descent``: plain gradient descent; ``adamw``), ``rate``, ``decay``, ``cosine`` schedule or a
    constant rate, ``batch``, ``epochs`` of ``steps`` steps (0: one pass over all boxes), ``accuracy``: stop when so
    many of the training boxes are told right (0: never). ``mining``: how often, evenly spread, the training micrographs
    are picked and what is wrongly picked joins the hard ones. ``validation``: share of the micrographs that is held
    back; on them the threshold is the one of the highest F-score with this ``beta`` (2: recall counts more, as
    published; 0.5: precision does). ``start``: a bundle to go on from. ``threads``: of torch; 0: as it is set.
    ``stop_after``: epochs, for interruptions.
    """

    out: Path
    diameter_a: float
    recipe: str = "modern"
    name: str = "particles"
    preset: str | None = None
    box: int | None = None
    pixel_a: float | None = None
    maps: tuple[int, int, int] = MAPS
    activation: str = "sigmoid"
    batch_norm: bool = False
    loss: str = "mse"
    sigma: float = 0.0
    cells: int = 1
    negatives: float = 1.0
    away: float = 0.7
    share: float = 0.5
    near: float = 0.7
    hard: float = 0.2
    contrast: float = 0.0
    noise: float = 0.0
    positives: int = 0
    optimiser: str = "descent"
    rate: float = 1.0
    decay: float = 0.0
    cosine: bool = False
    batch: int = 50
    epochs: int = 100
    steps: int = 0
    accuracy: float = 0.95
    mining: int = 0
    validation: float = 0.2
    beta: float = 2.0
    seed: int = 1
    start: str | None = None
    resume: bool = False
    threads: int = 0
    stop_after: int | None = None
    command: str = field(default="", compare=False)

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation."""
        skipped = {"out", "name", "beta", "resume", "threads", "stop_after", "command"}
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in skipped}))  # type: ignore[no-any-return]


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "modern": {
        "activation": "relu",
        "batch_norm": True,
        "loss": "bce",
        "sigma": 0.1,
        "cells": 5,
        "contrast": 0.2,
        "optimiser": "adamw",
        "rate": 5e-3,
        "decay": 1e-4,
        "cosine": True,
        "batch": 48,
        "epochs": 24,
        "steps": 100,
        "accuracy": 0.0,
        "mining": 2,
    },
}
_POSITIVE = ("diameter_a", "rate", "batch", "epochs", "cells", "negatives", "beta")
_SHARES = ("share", "hard", "accuracy", "validation")


def make_options(out: Path, diameter_a: float, recipe: str = "modern", **changes: Any) -> Options:
    """The options of a recipe with changes; a change to ``None`` is none. ``ValueError`` names what cannot be."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r}: unknown; choose from {', '.join(RECIPES)}")
    options = replace(Options(out=out, diameter_a=float(diameter_a), recipe=recipe), **RECIPES[recipe])
    options = replace(options, **{k: v for k, v in changes.items() if v is not None})
    for name, choices in (("activation", ACTIVATIONS), ("loss", LOSSES), ("optimiser", OPTIMISERS)):
        if getattr(options, name) not in choices:
            raise ValueError(f"{name} {getattr(options, name)!r}: unknown; choose from {', '.join(choices)}")
    for name in _POSITIVE:
        value = getattr(options, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: {value} is not a number above 0")
    for name in _SHARES:
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"{name}: {getattr(options, name)} is not a share from 0 to below 1")
    if options.validation == 0:
        raise ValueError("validation: 0 holds no micrograph back; the threshold is chosen on some, take 0.2")
    geometry(options)
    return options


def geometry(options: Options, coarsest_a: float = 0.0) -> tuple[Layout, float]:
    """The network's layout and ångström per pixel of its input, for micrographs of up to ``coarsest_a`` Å per pixel.

    With a ``preset`` or a ``box``, the pixel size is such that the box is 1.4 diameters, as wide as the published boxes
    are at least. With neither, the particle becomes 32 pixels wide (fewer where the micrographs are coarser, which are
    not blown up), and the box is the smallest even number of at least 1.4 diameters that a layout fits. A ``pixel_a``
    that is stated overrides. Raises ``ValueError`` where no network fits.
    """
    o = options
    if o.preset is not None and o.preset not in PRESETS:
        raise ValueError(f"preset {o.preset!r}: unknown; choose from {', '.join(PRESETS)}")
    if o.preset is not None and o.box not in (None, PRESETS[o.preset].box):
        raise ValueError(f"box: the preset {o.preset} has {PRESETS[o.preset].box} pixels; give one of the two")
    if o.pixel_a is not None and not (math.isfinite(o.pixel_a) and o.pixel_a > 0):
        raise ValueError(f"pixel_a: {o.pixel_a} Å is not above 0")
    if o.preset is not None:
        layout = replace(PRESETS[o.preset], maps=o.maps)
        return layout, o.pixel_a or BOX_DIAMETERS * o.diameter_a / layout.box
    if o.box is not None:
        return layout_for(o.box, o.maps), o.pixel_a or BOX_DIAMETERS * o.diameter_a / o.box
    pixel_a = o.pixel_a or max(o.diameter_a / WIDTH_PX, coarsest_a)
    return _fitting(BOX_DIAMETERS * o.diameter_a / pixel_a, o.maps), pixel_a


def _fitting(least: float, maps: tuple[int, int, int]) -> Layout:
    """The layout of the smallest even box of at least ``least`` pixels that has one."""
    box = 2 * math.ceil(least / 2 - 1e-6)
    if box < SMALLEST_BOX:
        raise ValueError(
            f"the box would be {box} pixels, DeepEM needs {SMALLEST_BOX}: the pixels are too coarse for this diameter"
        )
    for wider in range(box, box + 17, 2):
        try:
            return layout_for(wider, maps)
        except ValueError:
            continue
    raise ValueError(f"no layout fits boxes of {box} to {box + 16} pixels; state --box or --pixel-a")
