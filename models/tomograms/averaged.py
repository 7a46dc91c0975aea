"""The average of a group's original sub-volumes, and how wide what stands in its middle is.

Sub-volumes lie as they were picked (or in their pose), and are not aligned further: an average shows size and shape of
a globule, not its structure. With a missing wedge it is longer along z.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .book import Clusters
from .volume import Floats

_THICK = 2
_RIM = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class GroupAverage:
    """``data`` float32 (e, e, e), density bright, of ``count`` sub-volumes. ``voxel_a``: ångström per voxel."""

    data: Floats
    count: int
    voxel_a: float

    def width_nm(self) -> float:
        """Diameter in nm at half height in the xy plane, see ``half_width``; NaN where nothing stands in the middle."""
        return 0.2 * self.voxel_a * half_width(self.data)

    def height_nm(self) -> float:
        """Length in nm at half height along z, through the middle; NaN as above."""
        middle = self.data.shape[0] // 2
        thick = slice(middle - _THICK, middle + _THICK + 1)
        along = self.data[:, thick, thick].mean((1, 2))
        away = np.abs(np.arange(len(along)) - middle).astype(np.float64)
        return 0.2 * self.voxel_a * _half(along, away, middle)


def group_average(clusters: Clusters, numbers: Collection[int]) -> GroupAverage:
    """The average over clusters, each by the sub-volumes in its own. Raises ``ValueError`` where there are none."""
    rows = [row for row in range(len(clusters)) if int(clusters.ids[row]) in numbers]
    weights = clusters.averaged[rows].astype(np.float64)
    if not weights.sum():
        raise ValueError("no sub-volumes of these clusters are kept, so there is no average; mine more tomograms")
    data = np.tensordot(weights / weights.sum(), clusters.average[rows].astype(np.float64), 1)
    return GroupAverage(data.astype(np.float32), int(weights.sum()), clusters.voxel_a)


def half_width(data: Floats) -> float:
    """Radius in voxels, in the middle sections, at which density has fallen halfway from its highest to the rim's.

    Of means over rings, going outwards from the ring of highest density: far from focus a globule may look hollow. The
    rim: beyond 0.8 half edges. NaN where nothing is above the rim. Such a picture is narrower than the thing: a
    simulated 70S ribosome of 25.7 nm, 6 µm under focus, measures 16 nm.
    """
    middle = data.shape[0] // 2
    plane = data[middle - _THICK : middle + _THICK + 1].mean(0)
    y, x = np.indices(plane.shape) - middle
    return _half(plane.ravel(), np.hypot(y, x).ravel(), middle)


def _half(values: Floats, radius: npt.NDArray[np.float64], most: int) -> float:
    """Where the mean over rings of a voxel's width crosses half height, by linear interpolation."""
    rings = np.array([values[(radius >= r - 0.5) & (radius < r + 0.5)].mean() for r in range(most)], np.float64)
    level = 0.5 * (rings.max() + rings[int(_RIM * most) :].mean())
    for r in range(int(rings.argmax()) + 1, most):
        if rings[r] <= level < rings[r - 1]:
            return r - 1 + float((rings[r - 1] - level) / (rings[r - 1] - rings[r]))
    return math.nan
