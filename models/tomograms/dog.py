"""Picking without a template: maxima of a difference of Gaussians (Pei et al. 2016; Zeng et al. 2018, section 3.2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch.nn import functional

from ..particles.dense import single_thread
from .ahead import ahead
from .differences import Difference
from .told import Progress, Stop, Told
from .volume import Floats, Shape, Volume

_EVERY = 4
_NOTHING = 1e-4
"""Of the root mean square: a difference below is that of padding, and no part of the standard deviation."""


@dataclass(frozen=True, slots=True)
class DogOptions:
    """How to pick; lengths in voxels of the volume (see ``from_nm``), defaults as published but for the threshold.

    The volume is smoothed by a Gaussian of ``smooth``; a Gaussian of ``sigma`` minus one of ``ratio`` · ``sigma`` is
    applied. A maximum is a pick where it is at least ``threshold`` robust standard deviations of that difference high
    and no higher one is nearer than ``distance``. In white noise alone that is one voxel in 11 000 at 2, one in 44 000
    at 3, one in 350 000 at 4. Thin surfaces answer less than globules do: many of their maxima lie between 2 and 3,
    and 2.5 has nearly all of them within a box of a pick.
    """

    smooth: float = 2.0
    sigma: float = 5.0
    ratio: float = 1.1
    threshold: float = 2.5
    distance: float = 10.0

    def __post_init__(self) -> None:
        least = {"smooth": 0.0, "sigma": 1.0, "ratio": 1.01, "threshold": 0.0, "distance": 0.0}
        for name, low in least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise ValueError(f"{name}: {value} is not a number of at least {low:g}")

    @classmethod
    def from_nm(
        cls,
        voxel_a: float,
        *,
        smooth: float = 2.84,
        sigma: float = 7.1,
        distance: float = 14.2,
        ratio: float = 1.1,
        threshold: float = 2.5,
    ) -> DogOptions:
        """Options whose lengths are given in nm, for voxels of ``voxel_a`` Å; the defaults are the published ones."""
        scale = 10 / voxel_a
        return cls(smooth * scale, sigma * scale, ratio, threshold, distance * scale)

    @property
    def widths(self) -> tuple[float, float]:
        """Standard deviations, voxels, of the two Gaussians that the smoothing and the difference make together."""
        return math.hypot(self.smooth, self.sigma), math.hypot(self.smooth, self.ratio * self.sigma)


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """The best first. ``xyz``: float32 (n, 3), whole voxels of the volume; ``score``: float32 (n,), robust s.d.

    ``sd``: the robust standard deviation of the difference of Gaussians, in the volume's own values.
    """

    xyz: Floats
    score: Floats
    sd: float


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Maxima of a tile: places (n, 3) z, y, x, and heights; and a sample of all its values."""

    at: npt.NDArray[np.intp]
    height: Floats
    sample: Floats


def pick(
    volume: Volume,
    options: DogOptions | None = None,
    *,
    tile: int = 64,
    progress: Progress | None = None,
    stop: Stop | None = None,
    threads: int = 2,
) -> Picks:
    """The picks of ``volume``, density bright: see ``DogOptions``.

    A maximum is not lower than its 26 neighbours and higher than one; of equal ones, and of the picks too near each
    other, the higher counts, then the one that comes first in the file. The result does not depend on ``tile``, the
    edge in voxels of what is worked on at a time; memory is that of a few planes, a tile, and a 27th of the volume (of
    the default widths), for each of ``threads`` that work at once. Raises ``Stopped``, and what reading raises.
    """
    options, told = options or DogOptions(), Told(progress, stop)
    if tile < 1:
        raise ValueError(f"tile: {tile} is less than 1")
    tiles = list(_tiles(volume.shape, tile))
    found = []
    with single_thread():
        difference = Difference(volume, *options.widths, threads=threads, told=told)
        for number, one in enumerate(ahead(lambda box: _maxima(difference, *box), tiles, threads)):
            found.append(one)
            told("pick", len(tiles) + number + 1, 2 * len(tiles))
    return _chosen(found, options)


def _chosen(found: list[_Found], options: DogOptions) -> Picks:
    at, score = np.concatenate([one.at for one in found]), np.concatenate([one.height for one in found])
    sd = _robust(np.concatenate([one.sample for one in found]))
    score /= np.float32(sd or math.inf)
    high = np.flatnonzero((score >= options.threshold) & (score > 0))
    # In the order of the file, whatever the tiles were.
    high = high[np.lexsort(at[high].T[::-1])]
    kept = high[apart(at[high], score[high], options.distance)]
    return Picks(np.ascontiguousarray(at[kept][:, ::-1], np.float32), score[kept], sd)


def apart(at: npt.NDArray[np.intp], score: Floats, distance: float) -> npt.NDArray[np.intp]:
    """Which points (n, 3) stay, the best first: greedily, those nearer than ``distance`` to a better one go.

    Of equal scores the earlier in the arrays is better; points exactly ``distance`` apart both stay.
    """
    order = np.argsort(-score, kind="stable")
    if not len(at) or distance <= 0:
        return order
    tree = cKDTree(at)
    there = np.ones(len(at), bool)
    kept = []
    reach = math.nextafter(distance, 0)
    for one in order:
        if there[one]:
            kept.append(one)
            there[tree.query_ball_point(at[one], reach)] = False
    return np.array(kept, np.intp)


def _tiles(shape: Shape, edge: int) -> Iterator[tuple[Shape, Shape]]:
    for z, y, x in itertools.product(*(range(0, n, edge) for n in shape)):
        yield (z, y, x), (min(z + edge, shape[0]), min(y + edge, shape[1]), min(x + edge, shape[2]))


def _maxima(difference: Difference, low: Shape, high: Shape) -> _Found:
    """Maxima above 0 of a tile, which needs one voxel more on every side, where there is one."""
    first = (max(low[0] - 1, 0), max(low[1] - 1, 0), max(low[2] - 1, 0))
    whole = difference.shape
    last = (min(high[0] + 1, whole[0]), min(high[1] + 1, whole[1]), min(high[2] + 1, whole[2]))
    data = difference.tile(first, last)
    # One more on every side: its own neighbour mirrored at a face of the volume, which is no higher than itself.
    sides = [side for axis in (2, 1, 0) for side in (first[axis] - low[axis] + 1, high[axis] + 1 - last[axis])]
    data = functional.pad(data[None, None], sides, mode="replicate")[0, 0]
    inner = data[1:-1, 1:-1, 1:-1]
    near = data
    for axis in range(3):
        size = near.shape[axis] - 2
        near = torch.maximum(
            torch.maximum(near.narrow(axis, 0, size), near.narrow(axis, 1, size)), near.narrow(axis, 2, size)
        )
    at = torch.nonzero((inner == near) & (inner > 0)).numpy()
    values = data.numpy()
    step = np.arange(3)
    z, y, x = (at[:, axis, None, None, None] for axis in range(3))
    around = values[z + step[:, None, None], y + step[:, None], x + step]
    height = around[:, 1, 1, 1]
    peaks = around.min((1, 2, 3)) < height
    start = [-a % _EVERY for a in low]
    sample = inner[start[0] :: _EVERY, start[1] :: _EVERY, start[2] :: _EVERY].numpy().ravel().copy()
    return _Found(at[peaks] + np.array(low), height[peaks], sample)


def _robust(values: Floats) -> float:
    """Half of what lies between the 15.9th and the 84.1th percentile, of the values that are not nothing."""
    square = float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
    some = values[np.abs(values) > _NOTHING * square]
    if not len(some):
        return 0.0
    low, high = np.percentile(some, (15.865, 84.135))
    return float(high - low) / 2
