"""Simulated micrographs to train on: several conditions, signal-to-noise ratios and maps in equal shares."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from .candidates import Floats, Labelled
from .maps import Volume
from .recipes import Progress
from .simulator import Simulated, named, simulate


@dataclass(frozen=True, slots=True)
class Practice:
    """``count`` simulated micrographs of the series ``seed``.

    ``conditions``: names of conditions; ``snrs``: signal-to-noise ratios; ``volumes``: maps. Their combinations are
    shuffled and taken one after the other. With several maps, every particle is made as wide in pixels as the first
    map's particle is under the conditions as they stand, and the pixel size that a micrograph states is the one it
    would have if its particle had the first map's diameter: so a picker learns particles of one width, whatever they
    are. ``binned``: the same fields with so many times coarser pixels and, as binning gives, its square times the
    signal-to-noise ratio; where the network's pixels are coarser still, the quicker way to the same.
    """

    conditions: tuple[str, ...]
    snrs: tuple[float, ...]
    volumes: tuple[Volume, ...]
    count: int
    seed: int
    binned: int = 1

    @property
    def diameter_a(self) -> float:
        """The first map's particle's, in ångström."""
        return self.volumes[0].diameter_a

    def plan(self) -> list[tuple[str, float, Volume]]:
        """What each micrograph is drawn from."""
        every = list(product(self.conditions, self.snrs, self.volumes))
        chance = np.random.default_rng([self.seed, 7])
        order = [int(i) for _ in range(-(-self.count // len(every))) for i in chance.permutation(len(every))]
        return [every[i] for i in order[: self.count]]

    def one(self, number: int) -> Labelled:
        """Micrograph ``number``. Its image is kept in half precision: noise is far coarser than that."""
        name, snr, volume = self.plan()[number]
        c, by = named(name), self.binned
        shape = (c.shape[0] // by, c.shape[1] // by)
        conditions = replace(c, snr=snr * by**2, shape=shape, pixel_a=c.pixel_a * by)
        wider = volume.diameter_a / self.diameter_a
        made = simulate(self.seed, number, replace(conditions, pixel_a=conditions.pixel_a * wider), volume)
        return _kept(made, f"{made.name}-{name}-{volume.name}-snr{snr:g}", conditions.pixel_a)

    def identity(self) -> dict[str, Any]:
        """What a card says of it."""
        return {
            "conditions": list(self.conditions),
            "snr": list(self.snrs),
            "maps": [{"name": v.name, "diameter_a": round(v.diameter_a, 1)} for v in self.volumes],
            "micrographs": self.count,
            "seed": self.seed,
            "binned": self.binned,
        }


def _kept(made: Simulated, name: str, pixel_a: float) -> Labelled:
    low = float(np.median(made.image))
    small = (made.image.astype(np.float32) - low).astype(np.float16)
    none = made.x[:0]

    def load() -> Floats:
        image: Floats = small.astype(np.float32)
        return image

    return Labelled(name, load, pixel_a, made.x, made.y, none, none)


def micrographs(practice: Practice, progress: Progress, workers: int = 2) -> list[Labelled]:
    """All of them, ``workers`` at a time. Raises ``ValueError`` for unknown conditions and impossible ratios."""
    found: list[Labelled] = []
    with ThreadPoolExecutor(workers) as pool:
        for one in pool.map(practice.one, range(practice.count)):
            found.append(one)
            progress("simulate micrographs", len(found), practice.count)
    return found


def check(conditions: Sequence[str], snrs: Sequence[float]) -> None:
    """Raises ``ValueError`` for conditions that do not exist and ratios that cannot be, before anything is done."""
    for name, snr in product(conditions, snrs):
        named(name, snr=snr)
