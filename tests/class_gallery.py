"""Stands in for the worker that classifies: simulated classes with averages, which tests change as they like."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.projector import Projector, random_rotations
from beamsieve.stream.live.class_view import Classes, ClassView
from beamsieve.stream.live.page import Refused

EDGE, SNR = 64, 0.1
SINCE = 1.8e9
Floats = npt.NDArray[np.float32]


@lru_cache(maxsize=4)
def projections(n: int, name: str = "ribosome") -> Floats:
    """Projections of a built-in map, float32 (n, 64, 64), each of mean 0 and standard deviation 1."""
    volume = load_map(name)
    found = Projector(volume).project(
        random_rotations(np.random.default_rng(1), n), EDGE, 1.6 * volume.diameter_a / EDGE
    )
    return np.asarray((found - found.mean((1, 2), keepdims=True)) / found.std((1, 2), keepdims=True), np.float32)


def class_view(number: int, count: int, clean: Floats, **changes: Any) -> ClassView:
    """A class of ``count`` particles of one view: the average as noisy as so many leave it, the last of its members."""
    rng = np.random.default_rng(number)
    noise = 1 / math.sqrt(SNR)
    raw = clean + rng.normal(0, noise, (min(16, count), EDGE, EDGE))
    denoised = clean + rng.normal(0, 0.15, raw.shape)
    average = clean + rng.normal(0, noise / math.sqrt(count), clean.shape)
    resolution = 6.0 + 120.0 / math.sqrt(count) if count >= 20 else math.nan
    plain = ClassView(
        number, count, 0.02 * count, 0.1 + 0.02 * (number % 10), resolution, "", SINCE, 1, average.astype(np.float32),
        clean, np.stack([raw, denoised], 1).astype(np.float32),
    )  # fmt: skip
    return replace(plain, **changes)


class FakeClasses:
    """Implements ``ClassLevers``. ``now`` is what it shows; ``change`` and ``change_class`` give another one."""

    def __init__(self, n: int = 12, name: str = "ribosome") -> None:
        counts = [round(1500 * 0.8**i) + 7 for i in range(n)]
        views = [class_view(i + 1, counts[i], clean) for i, clean in enumerate(projections(n, name))]
        self.asked: list[tuple[int, str, str]] = []
        self.refuse = ""
        self.now = Classes(
            version=1, state="ready", have=200, need=200, particles=sum(counts), unlabelled=12, rejected=0, pixel_a=4.2,
            model="classes2d-general", model_sha256="3fa9c1d2" * 8, tuned=False, classes=tuple(views),
        )  # fmt: skip

    def current(self) -> Classes:
        return self.now

    def change(self, **changes: Any) -> None:
        self.now = replace(self.now, **{"version": self.now.version + 1, **changes})

    def change_class(self, number: int, **changes: Any) -> None:
        """Change one class; they are sorted by size anew."""
        views = [replace(view, **changes) if view.id == number else view for view in self.now.classes]
        rejected = sum(view.count for view in views if view.mark == "bad")
        self.change(classes=tuple(sorted(views, key=lambda view: (-view.count, view.id))), rejected=rejected)

    def mark(self, id: int, mark: str, by: str) -> None:
        self.asked.append((id, mark, by))
        if self.refuse:
            raise Refused(self.refuse)
        self.change_class(id, mark=mark)
