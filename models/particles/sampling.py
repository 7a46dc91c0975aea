"""What a training step is shown: single boxes in all their turns, as published, or pieces of micrographs with many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .candidates import Floats
from .dataset import Ground, Points
from .deepem import Layout
from .recipes import Options

Corners = npt.NDArray[np.intp]
_TRIES = 200


class Sampler(Protocol):
    """Gives the batches of an epoch: images float32 (n, 1, y, x) and targets float32 (n, 1, cells, cells)."""

    ground: Ground

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches of epoch ``number``; they depend on the seed and the number only."""
        ...


def sampler(ground: Ground, options: Options, layout: Layout, diameter_px: float) -> Sampler:
    """``Boxes`` where the options show single boxes, else ``Pieces``. Raises ``ValueError`` where no box fits."""
    least = int(ground.shapes.min())
    if least < layout.box:
        raise ValueError(
            f"a micrograph is {least} pixels high or wide at the network's pixel size, less than the box of "
            f"{layout.box}; leave it out, or use a smaller box"
        )
    return (Boxes if options.cells == 1 else Pieces)(ground, options, layout, diameter_px)


class Boxes:
    """Particles and background as boxes, each shown at 0, 90, 180 and 270° in every epoch (Zhu et al. 2017, Methods).

    Positives: all particles whose box lies inside. Negatives: ``negatives`` times as many boxes from anywhere that is
    at least ``away`` diameters from every particle; and all verified or mined false positives.
    """

    def __init__(self, ground: Ground, options: Options, layout: Layout, diameter_px: float) -> None:
        self.ground, self.options, self.box = ground, options, layout.box
        self._away = options.away * diameter_px
        self.positives = ground.corners(ground.points, self.box, inside=False)
        if not len(self.positives):
            raise ValueError(f"no particle is far enough from the edges for a box of {self.box} pixels; label others")
        wanted = max(1, round(options.negatives * len(self.positives)))
        self.background = self._background(np.random.default_rng([options.seed, 0]), wanted)

    def _background(self, rng: np.random.Generator, wanted: int) -> Corners:
        found: list[Corners] = []
        for _ in range(_TRIES):
            corners = self.ground.anywhere(rng, wanted, self.box)
            middle = corners + (self.box - 1) / 2
            found.append(corners[self.ground.distance(middle[:, 0], middle[:, 1], corners[:, 2]) >= self._away])
            if sum(map(len, found)) >= wanted:
                break
        background = np.concatenate(found)[:wanted]
        if not len(background):
            raise ValueError(
                f"the micrographs are so crowded that no place is {self.options.away:g} diameters from every particle; "
                "state a smaller distance (--away)"
            )
        return background

    def _items(self) -> tuple[Corners, Floats, npt.NDArray[np.intp]]:
        """First pixel, target and quarter turns of everything that an epoch shows."""
        wrong = self.ground.corners(self.ground.wrong, self.box)
        corners = np.concatenate([self.positives, self.background, wrong])
        target = np.zeros(len(corners), np.float32)
        target[: len(self.positives)] = 1
        return np.repeat(corners, 4, 0), np.repeat(target, 4), np.tile(np.arange(4), len(corners))

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All boxes in all turns, in a new order. See ``Sampler``."""
        corners, target, turns = self._items()
        order = np.random.default_rng([self.options.seed, number]).permutation(len(corners))
        for first in range(0, len(order), self.options.batch):
            at = order[first : first + self.options.batch]
            images = self.ground.cut(corners[at], self.box)
            for image, quarter in zip(images, turns[at], strict=True):
                image[...] = np.rot90(image, quarter)
            yield torch.from_numpy(images)[:, None], torch.from_numpy(target[at])[:, None, None, None]


class Pieces:
    """Random pieces of micrographs that hold ``cells`` × ``cells`` boxes one stride apart, all scored in one pass.

    One piece costs as much as a few boxes, and shows a network near misses and empty ground beside the particle. See
    ``Options`` for ``share``, ``near``, ``hard``, ``sigma`` and ``contrast``. Pieces that would reach over an edge are
    moved in; their targets are those of the places where they then lie.
    """

    def __init__(self, ground: Ground, options: Options, layout: Layout, diameter_px: float) -> None:
        self.ground, self.options, self.diameter_px = ground, options, diameter_px
        self.box, self.stride = layout.box, layout.stride
        room = (int(ground.shapes.min()) - self.box) // self.stride + 1
        self.cells = min(options.cells, room)
        self.size = self.box + self.stride * (self.cells - 1)
        if not len(ground.points):
            raise ValueError("no particles to train from")

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """``steps`` batches. See ``Sampler``."""
        rng = np.random.default_rng([self.options.seed, number])
        for _ in range(self.options.steps):
            corners = self._draw(rng)
            yield self._augmented(rng, self.ground.cut(corners, self.size), self._targets(corners))

    def _draw(self, rng: np.random.Generator) -> Corners:
        """First pixels of a batch's pieces."""
        o, wrong = self.options, self.ground.wrong
        hard = round(o.hard * o.batch) if len(wrong) else 0
        near = round(o.share * o.batch)
        parts = [
            self._around(rng, self.ground.points, near, o.near),
            self._around(rng, wrong, hard, o.near / 2) if hard else np.zeros((0, 3), np.intp),
        ]
        parts.append(self.ground.anywhere(rng, max(0, o.batch - near - hard), self.size))
        return np.concatenate(parts)

    def _around(self, rng: np.random.Generator, points: Points, count: int, reach: float) -> Corners:
        """Pieces of which one cell lies up to ``reach`` diameters from one of ``points``, as often near as far."""
        place = points[rng.integers(0, len(points), count)].copy()
        angle, away = rng.uniform(0, 2 * np.pi, count), rng.uniform(0, reach * self.diameter_px, count)
        cell = rng.integers(0, self.cells, (count, 2)) - (self.cells - 1) / 2
        place[:, 0] += away * np.cos(angle) - self.stride * cell[:, 0]
        place[:, 1] += away * np.sin(angle) - self.stride * cell[:, 1]
        return self.ground.corners(place, self.size)

    def _targets(self, corners: Corners) -> Floats:
        """What each cell should score, float32 (n, cells, cells)."""
        middle = self.stride * np.arange(self.cells) + (self.box - 1) / 2
        x, y = corners[:, 0, None, None] + middle, corners[:, 1, None, None] + middle[:, None]
        away = self.ground.distance(x, y, corners[:, 2, None, None]) / self.diameter_px
        if not self.options.sigma:
            return (away < 0.5 * self.stride / self.diameter_px).astype(np.float32)
        return np.exp(-0.5 * (away / self.options.sigma) ** 2).astype(np.float32)

    def _augmented(self, rng: np.random.Generator, images: Floats, targets: Floats) -> tuple[Tensor, Tensor]:
        """One of the eight symmetries of the square for the batch; another contrast, and noise, for each piece."""
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        factor = np.exp(rng.uniform(-1, 1, (len(images), 1, 1)) * np.log1p(self.options.contrast))
        images *= factor.astype(np.float32)
        if self.options.noise:
            added = self.options.noise * rng.random((len(images), 1, 1), dtype=np.float32)
            added[rng.random(len(images)) < 0.5] = 0
            images += added * rng.standard_normal(images.shape, dtype=np.float32)
            images /= np.sqrt(1 + added**2)
        both: list[Any] = [np.rot90(array, turns, (1, 2)) for array in (images, targets)]
        if mirrored:
            both = [array[:, :, ::-1] for array in both]
        found = [torch.from_numpy(np.ascontiguousarray(array))[:, None] for array in both]
        return found[0], found[1]
