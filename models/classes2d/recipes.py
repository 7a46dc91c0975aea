"""What the pre-training of a denoiser is told: its options, and the recipes that name sets of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .cdae import BLOCKS, DECODER, DROPOUT, ENCODER, KERNEL

Progress = Callable[[str, int, int], None]

STEPS = (4.0, 6.0)
"""SNR after block 1 and block 2, over that of the start: 0.1, 0.4, 0.6, clean (Lei and Yang 2021, section 4.1)."""


@dataclass(frozen=True, slots=True)
class Options:
    """All settings of a pre-training.

    What is simulated: ``maps``, names for the card; of each, ``images`` clean images. ``orientations``: so many views
    that they share, or 0: a random view each. ``snr``: lowest and highest at the start, drawn evenly on a logarithmic
    scale; after blocks 1 and 2 it is 4 and 6 times as high, after the last there is no noise. ``ctf``: the share of the
    images that have a transfer function, whose defocus lies between ``defocus`` (micrometres). ``box``: edge of the
    box in particle diameters, lowest and highest. ``shift``: largest, in pixels, in x and in y. ``colour``: largest
    extra power of the noise at low frequencies. ``fresh``: new noise, and turns by quarters and mirrors, in every
    epoch; else each image is simulated once per SNR.

    How it is learnt: ``together``: each block on simulated pairs, apart from the others, as published; else one by one,
    each on what the blocks before it make of the images. ``targets``: ``noisy``: images simulated at the higher SNR, as
    published; ``clean``: images without noise, for all blocks. ``carry``: a block starts from the weights of the one
    before, not from nothing. ``weight``: errors count relative to the clean image's variance to this power: 0, as
    published, lets high SNRs weigh most, 1 would let low ones. ``rate`` of RMSprop, constant or with ``cosine``
    falling to zero. ``dropout``: share, in the first ``dropped`` of a block's epochs; the others teach it the
    brightness that it has without, which is another one behind rectified units. ``epochs``: of each block; after them,
    ``joint`` of all blocks at once. ``reduced``: bfloat16 where torch allows it.

    ``held``: validation images of each map and condition. ``threads``: of torch; 0: as it is set. ``stop_after``:
    epochs of all blocks together, for interruptions.
    """

    out: Path
    recipe: str = "general"
    name: str = "classes2d-general"
    maps: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    images: int = 1500
    orientations: int = 0
    snr: tuple[float, float] = (0.1, 0.1)
    ctf: float = 0.0
    defocus: tuple[float, float] = (0.8, 3.0)
    box: tuple[float, float] = (1.5, 1.5)
    shift: float = 0.0
    colour: float = 0.0
    fresh: bool = False
    together: bool = True
    targets: str = "noisy"
    carry: bool = False
    weight: float = 0.0
    joint: int = 0
    encoder: tuple[int, int, int] = ENCODER
    decoder: tuple[int, int, int] = DECODER
    kernel: int = KERNEL
    dropout: float = DROPOUT
    dropped: float = 0.75
    rate: float = 1e-3
    cosine: bool = False
    batch: int = 32
    epochs: int = 20
    reduced: bool = True
    held: int = 64
    seed: int = 1
    resume: bool = False
    threads: int = 0
    device: str = "auto"
    stop_after: int | None = None
    command: str = field(default="", compare=False)

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation."""
        skipped = {"out", "name", "held", "resume", "threads", "device", "stop_after", "command", "validation"}
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in skipped}))  # type: ignore[no-any-return]

    @property
    def total_epochs(self) -> int:
        """Epochs of all blocks, and those of all at once."""
        return BLOCKS * self.epochs + self.joint


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "name": "classes2d-paper",
        "maps": ("proteasome",),
        "images": 4000,
        "orientations": 4,
        "together": False,
    },
    "general": {
        "name": "classes2d-general",
        "maps": ("ribosome", "proteasome", "hemocyanin", "apoferritin"),
        "snr": (0.02, 0.5),
        "ctf": 0.7,
        "box": (1.2, 1.8),
        "shift": 3.0,
        "colour": 1.0,
        "fresh": True,
        "together": False,
        "targets": "clean",
        "carry": True,
        "weight": 0.5,
        "joint": 8,
        "dropout": 0.0,
        "cosine": True,
    },
}
_POSITIVE = ("images", "rate", "batch", "epochs")
_RANGES = {"snr": (1e-4, 1e3), "defocus": (0.0, 20.0), "box": (1.0, 8.0)}
_SHARES = {"ctf": 1.0, "dropout": 0.95, "shift": 16.0, "colour": 100.0, "weight": 1.0, "dropped": 1.0}


def make_options(out: Path, recipe: str = "general", **changes: Any) -> Options:
    """The options of a recipe with changes; a change to ``None`` is none. ``ValueError`` names what cannot be."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r}: unknown; choose from {', '.join(RECIPES)}")
    options = replace(Options(out=out, recipe=recipe), **RECIPES[recipe])
    options = replace(options, **{k: v for k, v in changes.items() if v is not None})
    for name in _POSITIVE:
        if not (math.isfinite(getattr(options, name)) and getattr(options, name) > 0):
            raise ValueError(f"{name}: {getattr(options, name)} is not a number above 0")
    for name, (least, most) in _RANGES.items():
        low, high = getattr(options, name)
        if not least <= low <= high <= most:
            raise ValueError(f"{name}: {low:g} to {high:g} is no range within {least:g} to {most:g}")
    for name, most in _SHARES.items():
        if not 0 <= getattr(options, name) <= most:
            raise ValueError(f"{name}: {getattr(options, name)} is not from 0 to {most:g}")
    for name in ("orientations", "held", "joint"):
        if getattr(options, name) < 0:
            raise ValueError(f"{name}: {getattr(options, name)} is below 0")
    if options.targets not in {"noisy", "clean"}:
        raise ValueError(f"targets: {options.targets!r} is not noisy or clean")
    return options
