"""Go on training a hit classifier from frames that people have marked, without forgetting what it was trained on.

A mark says whether a frame is a single hit, not how many particles there were: a true one costs -log p(single), another
-log(1 - p(single)). Every step shows as many of either, and twice as many simulated patterns of the conditions that the
bundle was trained under, with their five classes (rehearsal: A. Robins, Connection Science 7 (1995) 123). Whole runs,
or whole stretches of time, are held back: on them the best epoch is chosen, and the bundle judged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle
from .recipes import RECIPES, Options

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

LEAST, LEAST_OF_EACH = 20, 4
STRETCHES = 10
_TRIES = 300


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """Frames that were marked: ``images`` float32 (n, 128, 128) in photons, ``single`` bool (n,), ``time`` in seconds.

    ``runs``: of each, its run's name. The masked pixels of ``images`` are 0, as the network sees them.
    """

    images: Floats
    single: npt.NDArray[np.bool_]
    time: npt.NDArray[np.float64]
    runs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.single)

    def take(self, which: Indices) -> Marked:
        """Those that indices name."""
        return Marked(self.images[which], self.single[which], self.time[which], tuple(self.runs[i] for i in which))


@dataclass(frozen=True, slots=True)
class MarkedOptions:
    """How to go on: ``start`` is a bundle's name or path; ``batch`` patterns per step, a third of them marks.

    ``patterns``: simulated for rehearsal, ``calibration``: further ones for threshold and scores; ``validation``: share
    of the marks that is held back.
    """

    out: Path
    start: str
    epochs: int = 16
    steps: int = 25
    batch: int = 96
    rate: float = 5e-4
    seed: int = 1
    device: str = "auto"
    patterns: int = 3000
    calibration: int = 2400
    validation: float = 0.3
    name: str = ""
    anyway: bool = False
    workers: int | None = None
    cache: Path | None = None
    command: str = field(default="", compare=False)

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation."""
        skipped = {"out", "start", "device", "name", "anyway", "workers", "cache", "command"}
        return {k: v for k, v in asdict(self).items() if k not in skipped}


def check(marked: Marked) -> None:
    """Raises ``ValueError`` for too few marks, or too few of either kind."""
    true, false = int(marked.single.sum()), int((~marked.single).sum())
    if len(marked) < LEAST or min(true, false) < LEAST_OF_EACH:
        raise ValueError(
            f"{len(marked)} marked frames, {true} single hits and {false} not: at least {LEAST} are needed, "
            f"{LEAST_OF_EACH} of either kind; review more (of the accepted, and of the random misses)"
        )


def split_marks(marked: Marked, share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices that train, and that are held back: about ``share`` of the marks, in whole runs or stretches of time.

    Shots that follow each other resemble each other, so neighbours stay together. Of many drawings the one is taken
    whose parts are most alike in size asked for and in the share of hits. Raises ``ValueError`` where no drawing leaves
    two of either kind in both parts.
    """
    groups = _stretches(marked)
    chance = np.random.default_rng(seed)
    best: tuple[float, Indices] | None = None
    for _ in range(_TRIES):
        held: list[np.intp] = []
        for group in chance.permutation(len(groups)):
            if len(held) < share * len(marked):
                held += list(groups[group])
        merit = _unlike(marked.single, np.sort(np.array(held, np.intp)), share)
        if merit < (best[0] if best else np.inf):
            best = merit, np.sort(np.array(held, np.intp))
    if best is None:
        raise ValueError(
            "the marks cannot be divided: hits and others must both come from several runs or stretches of time, or "
            "there is nothing to judge by; review more frames, over a longer time"
        )
    return np.setdiff1d(np.arange(len(marked)), best[1]), best[1]


def _stretches(marked: Marked) -> list[Indices]:
    """Indices in groups that stay together: runs, cut into stretches of time where there are few."""
    found: list[Indices] = []
    names = np.array(marked.runs)
    for run in dict.fromkeys(marked.runs):
        index = np.flatnonzero(names == run)
        index = index[np.argsort(marked.time[index], kind="stable")]
        cuts = 1 if len(set(marked.runs)) >= STRETCHES else max(1, round(STRETCHES * len(index) / len(marked)))
        found += [part for part in np.array_split(index, cuts) if len(part)]
    return found


def _unlike(single: npt.NDArray[np.bool_], held: Indices, share: float) -> float:
    rest = np.setdiff1d(np.arange(len(single)), held)
    counts = [int(single[part].sum()) for part in (held, rest)]
    if min(counts) < 2 or min(len(part) - n for part, n in zip((held, rest), counts, strict=True)) < 2:
        return float("inf")
    return abs(len(held) / len(single) - share) + abs(counts[0] / len(held) - counts[1] / len(rest))


def rehearsal(bundle: Bundle, options: MarkedOptions) -> Options:
    """What to simulate: the conditions on the bundle's card, or those of the recipe ``robust``. New particle models."""
    told = bundle.card.training.get("options")
    mix = told.get("mix") if isinstance(told, dict) else None
    chosen = tuple((str(name), float(share)) for name, share in mix) if mix else RECIPES["robust"]["mix"]
    # The bundle's own seed would rehearse a few of its patterns, which it knows by heart.
    seed = options.seed + 1_000_003
    return Options(options.out, mix=chosen, seed=seed, workers=options.workers, cache=options.cache)
