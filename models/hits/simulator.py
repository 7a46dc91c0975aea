"""Simulated diffraction patterns of 0, 1, 2, 3 and more particles in the beam.

The simulator of Han & Li, section 3: a random particle model for every 100 patterns, random orientation, geometry and
fluence for every pattern, the Ewald slice of its Fourier transform, Poisson counts. Block ``i`` of 100 patterns draws
from ``numpy.random.default_rng([seed, i, stream])`` only, so blocks can be made in any order and a longer data set
begins with the shorter one. Every random decision is numpy's and the same on every device; expected intensities are
float32 and differ between devices in the last digits, which moves a count by one in about one pixel per million.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .aggregates import random_cluster
from .conditions import PAPER, Conditions, for_block, log_uniform
from .detector import count, extra, mask
from .fourier import Geometry, ewald, scatter, transform
from .shapes import TRAINING_SHAPES, Particle, random_particle

VERSION = 1
SIZE = 128
PER_MODEL = 100
CLASSES = ("0", "1", "2", "3", "4+")
# Of 60 000: 5 000 bad, 30 000 single, 10 000 double, 10 000 triple, 5 000 of four and more.
PAPER_FRACTIONS = (5 / 60, 30 / 60, 10 / 60, 10 / 60, 5 / 60)
# Fixed third words of the seed: no seed of one purpose can give the random numbers of another.
STREAMS = {"train": 0, "test": 1, "threshold": 2, "pool": 3}
_PIXELS_AT_ONCE = 1 << 19


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines a data set except its length. ``stream``: one of ``STREAMS``."""

    seed: int = 0
    stream: str = "train"
    conditions: Conditions = PAPER
    shapes: tuple[str, ...] = TRAINING_SHAPES
    fractions: tuple[float, ...] = PAPER_FRACTIONS
    size: int = SIZE
    per_model: int = PER_MODEL

    def options(self) -> dict[str, Any]:
        """The recipe as plain values, for cards and caches, with the simulator's version."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns and what is true of them.

    ``images`` uint16 (n, size, size) photons; ``labels`` int8 (n,) 0…4; ``model_id`` int32 (n,): which particle model,
    and which row of ``masks`` bool (models, size, size), True = no data; ``shape_id`` int8 (n,) into ``shapes``;
    ``photons`` float32 (n,): what one particle alone would scatter onto the detector, 0 for a miss.
    """

    images: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.int8]
    model_id: npt.NDArray[np.int32]
    shape_id: npt.NDArray[np.int8]
    photons: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]
    shapes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, chosen: slice) -> Patterns:
        """A run of consecutive patterns; ``masks`` stays whole, so ``model_id`` keeps its meaning."""
        return Patterns(
            self.images[chosen],
            self.labels[chosen],
            self.model_id[chosen],
            self.shape_id[chosen],
            self.photons[chosen],
            self.masks,
            self.shapes,
        )


@dataclass(frozen=True, slots=True)
class _Shot:
    rotations: npt.NDArray[np.float64]
    positions: npt.NDArray[np.float64]
    geometry: Geometry
    photons: float


def _shot(
    rng: np.random.Generator, c: Conditions, particle: Particle, label: int, centre: tuple[float, float], energy: float
) -> _Shot:
    number = label if label < 4 else 4 + int(rng.integers(0, 5) * rng.integers(0, 2))
    common = {"own": False, "common": True}.get(c.orientation, bool(rng.random() < 0.5))
    edge = log_uniform(rng, c.speckles) / (2 * particle.diameter)
    geometry = Geometry(edge, log_uniform(rng, c.edge_angle_rad), centre)
    photons = log_uniform(rng, c.photons) * energy
    if number == 0:
        return _Shot(np.zeros((0, 3, 3)), np.zeros((0, 3)), geometry, 0.0)
    rotations, positions = random_cluster(rng, number, particle.hull, common, c.spacing)
    return _Shot(rotations, positions, geometry, photons)


def _intensities(particle: Particle, shots: Sequence[_Shot], size: int, device: torch.device) -> torch.Tensor:
    """Expected photons float32 (n, size, size) of the particles alone."""
    highest = max((s.geometry.highest(size) for s in shots), default=0.0)
    model = transform(particle, highest, device)
    rows = max(1, _PIXELS_AT_ONCE // size**2)
    parts = []
    for at in range(0, len(shots), rows):
        some = shots[at : at + rows]
        q, solid = ewald([s.geometry for s in some], size, device)
        photons = torch.tensor([s.photons for s in some], dtype=torch.float32, device=device)[:, None, None]
        parts.append(scatter(model, q, [(s.rotations, s.positions) for s in some]) * solid * photons)
    return torch.cat(parts)


def simulate_block(
    recipe: Recipe, block: int, device: torch.device | str = "cpu", labels: npt.NDArray[np.int8] | None = None
) -> Patterns:
    """One block: one particle model, ``recipe.per_model`` patterns. Depends on the recipe and the block's number only.

    ``labels`` int8 (per_model,) asks for these classes instead of drawing them from the recipe's fractions.
    """
    device = torch.device(device)
    rng = np.random.default_rng([recipe.seed, block, STREAMS[recipe.stream]])
    c = for_block(rng, recipe.conditions)
    shape_id = int(rng.integers(len(recipe.shapes)))
    particle = random_particle(rng, recipe.shapes[shape_id])
    if labels is None:
        labels = rng.choice(5, size=recipe.per_model, p=recipe.fractions).astype(np.int8)
    n, size = len(labels), recipe.size
    shift = c.off_centre_px * size / 128
    centre = (float(rng.uniform(-shift, shift)), float(rng.uniform(-shift, shift)))
    dead = mask(rng, c, size, centre)
    spread = c.fluence_spread
    energy = rng.gamma(spread**-2, spread**2, n) if spread else np.ones(n)
    shots = [_shot(rng, c, particle, int(k), centre, float(e)) for k, e in zip(labels, energy, strict=True)]
    added = extra(rng, c, labels, size, centre)
    mean = _intensities(particle, shots, size, device) + torch.from_numpy(added).to(device)
    return Patterns(
        images=count(rng, c, mean, dead),
        labels=labels,
        model_id=np.full(n, block, dtype=np.int32),
        shape_id=np.full(n, shape_id, dtype=np.int8),
        photons=np.array([s.photons for s in shots], dtype=np.float32),
        masks=dead[None],
        shapes=recipe.shapes,
    )


def join(parts: Sequence[Patterns]) -> Patterns:
    """Blocks or data sets in the order given; ``model_id`` counts on from one to the next, only models in use stay."""
    ids, masks, offset = [], [], 0
    for p in parts:
        used, index = np.unique(p.model_id, return_inverse=True)
        # A single block is numbered by its place in the data set, but brings one mask.
        masks.append(p.masks[used] if len(p.masks) > 1 else np.repeat(p.masks, len(used), axis=0))
        ids.append((index + offset).astype(np.int32))
        offset += len(used)
    return Patterns(
        images=np.concatenate([p.images for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        model_id=np.concatenate(ids),
        shape_id=np.concatenate([p.shape_id for p in parts]),
        photons=np.concatenate([p.photons for p in parts]),
        masks=np.concatenate(masks),
        shapes=parts[0].shapes,
    )


Progress = Callable[[int, int], None]


def simulate(
    n: int,
    recipe: Recipe | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Patterns:
    """The first n patterns of a recipe's data set, in this process. ``progress(done, of)`` is called after each block.

    ``dataset.generate`` does the same on many cores and with a cache on disk.
    """
    recipe = recipe or Recipe()
    blocks = -(-n // recipe.per_model)
    parts = []
    for block in range(blocks):
        parts.append(simulate_block(recipe, block, device))
        if progress is not None:
            progress(min(n, (block + 1) * recipe.per_model), n)
    return join(parts).part(slice(0, n))


def pool(n_per_class: int, seed: int, size: int = SIZE, conditions: Conditions = PAPER) -> Patterns:
    """A small mixed pool for emulators: ``n_per_class`` patterns of each of the five classes, in random order.

    20 patterns per particle model. At 128² a few hundred patterns take a few seconds on two cores; ``size`` renders
    the same q-range on a detector of other size (the number of photons stays, so each pixel gets fewer).
    """
    recipe = Recipe(seed=seed, stream="pool", size=size, per_model=20, conditions=conditions)
    rng = np.random.default_rng([seed, STREAMS["pool"]])
    labels = rng.permutation(np.repeat(np.arange(5, dtype=np.int8), n_per_class))
    cuts = range(0, len(labels), recipe.per_model)
    return join([simulate_block(recipe, i, "cpu", labels[at : at + recipe.per_model]) for i, at in enumerate(cuts)])


def render(
    labels: Sequence[int],
    seed: int,
    shape: tuple[int, int] = (1024, 1024),
    modules: tuple[int, int] | None = None,
    gap_px: int = 8,
    conditions: Conditions = PAPER,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Patterns of the given classes on a detector of any size: photons uint16 (n, *shape) and its mask (True: no data).

    The q-range of the paper's conditions spans the longer side. ``modules`` (rows, columns) cuts the detector into
    that many modules with gaps of ``gap_px`` between them; gaps hold 0 and are masked.
    """
    size = max(shape)
    recipe = Recipe(seed=seed, stream="pool", size=size, per_model=len(labels), conditions=replace(conditions))
    made = simulate_block(recipe, 0, "cpu", np.asarray(labels, dtype=np.int8))
    top, left = (size - shape[0]) // 2, (size - shape[1]) // 2
    window = np.s_[..., top : top + shape[0], left : left + shape[1]]
    images, dead = made.images[window].copy(), made.masks[0][window].copy()
    for axis, number in enumerate(modules or (1, 1)):
        for edge in np.linspace(0, shape[axis], number + 1)[1:-1].astype(int):
            gap = slice(max(0, edge - gap_px // 2), edge - gap_px // 2 + gap_px)
            dead[(gap, slice(None)) if axis == 0 else (slice(None), gap)] = True
    images[:, dead] = 0
    return images, dead
