"""What the network so far picks wrongly on the training micrographs: it is shown again, as background."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage

from .dataset import Ground, Points
from .deepem import DeepEM
from .dense import DenseScan

FLOOR = 0.2
"""Lowest score of a pick that is worth showing again."""
AWAY = 0.5
"""How far from every particle a pick is wrong, in diameters. Nearer ones are badly centred, and are shown as it is."""


def maxima(scores: np.ndarray[tuple[int, int], np.dtype[np.float32]], reach: float) -> Points:
    """Local maxima float64 (n, 3) of a map: column, row, value; each the highest within ``reach`` cells. Best first."""
    edge = np.arange(-math.floor(reach), math.floor(reach) + 1)
    disc = np.hypot(edge[:, None], edge) <= reach
    highest = ndimage.maximum_filter(scores, footprint=disc, mode="constant", cval=-np.inf)
    row, column = np.nonzero(scores == highest)
    found = np.stack([column, row, scores[row, column]], 1).astype(np.float64)
    return found[np.argsort(-found[:, 2], kind="stable")]


def mine(net: DeepEM, ground: Ground, diameter_px: float) -> Points:
    """False positives (n, 3): x, y in pixels of the field, and which field. At most as many as there are particles.

    Every field is scanned as in picking; of the maxima that score at least 0.2 and lie further than half a diameter
    from every particle, the best are kept. ``net``: in evaluation mode, folded.
    """
    scan = DenseScan(net, threads=torch.get_num_threads())
    found: list[Points] = []
    for number, field in enumerate(ground.fields):
        peaks = maxima(scan.scores(field.image), 0.5 * diameter_px / scan.stride)
        peaks = peaks[peaks[:, 2] >= FLOOR]
        x, y = (peaks[:, axis] * scan.stride + (scan.box - 1) / 2 for axis in (0, 1))
        wrong = ground.distance(x, y, number) > AWAY * diameter_px
        found.append(np.stack([x, y, np.full_like(x, number), peaks[:, 2]], 1)[wrong])
    everything = np.concatenate(found)
    best = np.argsort(-everything[:, 3], kind="stable")[: len(ground.points)]
    return everything[best, :3]
