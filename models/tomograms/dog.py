"""Picking without a template: maxima of a difference of Gaussians (Pei et al. 2016; Zeng et al. 2018, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from .told import Progress, Stop, Told
from .volume import Floats, Volume


@dataclass(frozen=True, slots=True)
class DogOptions:
    """``smooth``, ``sigma``, ``distance``: working voxels. ``threshold``: robust s.d. of the difference of Gaussians."""

    smooth: float = 2.0
    sigma: float = 5.0
    ratio: float = 1.1
    threshold: float = 3.0
    distance: float = 10.0

    @classmethod
    def from_nm(
        cls, voxel_a: float, *, smooth: float, sigma: float, distance: float, ratio: float = 1.1, threshold: float = 3.0
    ) -> DogOptions:
        """Options whose lengths are in nm, for voxels of ``voxel_a`` Å."""
        voxels = (10 * length / voxel_a for length in (smooth, sigma))
        one, two = voxels
        return cls(one, two, ratio, threshold, 10 * distance / voxel_a)


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """``xyz`` float32 (n, 3) in voxels of the volume, ``score`` float32 (n,) in s.d.; the best first."""

    xyz: Floats
    score: Floats


def pick(
    volume: Volume,
    options: DogOptions | None = None,
    *,
    tile: int = 96,
    progress: Progress | None = None,
    stop: Stop | None = None,
    threads: int = 2,
) -> Picks:
    """The maxima of ``volume`` (density bright)."""
    options = options or DogOptions()
    Told(progress, stop)("pick", 0, 1)
    data = volume.read((0, 0, 0), volume.shape)
    variance = options.smooth**2 + options.sigma**2
    wider = options.smooth**2 + (options.ratio * options.sigma) ** 2
    dog = ndimage.gaussian_filter(data, math.sqrt(variance)) - ndimage.gaussian_filter(data, math.sqrt(wider))
    low, middle, high = np.percentile(dog[::4, ::4, ::4], (15.865, 50, 84.135))
    score = (dog - middle) / ((high - low) / 2)
    found = (score == ndimage.maximum_filter(score, 3)) & (score >= options.threshold)
    at = np.argwhere(found)
    heights = score[found]
    kept = apart(at, heights, options.distance)
    return Picks(at[kept][:, ::-1].astype(np.float32), heights[kept])


def apart(at: npt.NDArray[np.intp], score: Floats, distance: float) -> npt.NDArray[np.intp]:
    """Which of the points stay, the best first: greedily, those nearer than ``distance`` to a better one go."""
    order = np.argsort(-score, kind="stable")
    if not len(at):
        return order
    tree = cKDTree(at)
    there = np.ones(len(at), bool)
    kept = []
    for one in order:
        if there[one]:
            kept.append(one)
            there[tree.query_ball_point(at[one], math.nextafter(distance, 0))] = False
    return np.array(kept, np.intp)
