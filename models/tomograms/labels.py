"""Weak labels: which voxels of a tomogram belong to a class, from the decoded volumes of sub-volumes that are marked.

Zeng et al. (2018), sections 2.4 and 3.4.2: a decoded volume at level 0.5 says which voxels of its sub-volume are of the
class of its cluster; all others are background. The paper's volumes are dark and its structure is at or below 0.5;
here density is bright, and structure is at or above it, of the decoded volume scaled from 0 (background) to 1.

Sub-volumes overlap. The volumes of all marked sub-volumes of a tomogram are therefore laid into it, each where (and,
after pose normalisation, as) it was cut out, so that a box also has the labels that its neighbours know of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .volume import Floats

Labels: TypeAlias = npt.NDArray[np.uint8]
LEVEL = 0.5
BACKGROUND = 0
IGNORED = 255
"""Label of voxels that nobody knows anything of: they do not count in training."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How decoded volumes become classes.

    ``level``: from which scaled value on a voxel is of the class. ``low``, ``high``: percentiles of a decoded volume
    that are scaled to 0 and 1. ``own``: volumes decoded from each sub-volume's own code, else from its cluster's centre.
    ``connected``: only what hangs together with the middle; ``middle``: in a ball of so many voxels radius.
    """

    level: float = LEVEL
    low: float = 50.0
    high: float = 99.5
    own: bool = True
    connected: bool = True
    middle: float = 6.0


def scaled(decoded: npt.NDArray[np.floating], options: LabelOptions) -> Floats:
    """Decoded volumes (n, e, e, e) from 0 to 1 between two percentiles of each, float32, not cut off.

    A volume without any contrast becomes 0.
    """
    flat = np.asarray(decoded, np.float32).reshape(len(decoded), -1)
    if not len(flat):
        return np.empty(decoded.shape, np.float32)
    low, high = np.percentile(flat, (options.low, options.high), axis=1)[..., None].astype(np.float32)
    spread = high - low
    found: Floats = np.where(spread > 0, (flat - low) / np.where(spread > 0, spread, 1), np.float32(0))
    return found.reshape(decoded.shape)


def connected(values: Floats, options: LabelOptions) -> Floats:
    """Scaled volumes (n, e, e, e) with 0 where what is above the level does not hang together with the middle."""
    found = values.copy()
    edge = values.shape[-1]
    ball = _ball(edge, options.middle)
    for volume in found:
        parts, _ = ndimage.label(volume >= options.level)
        wanted = np.unique(parts[ball])
        volume[(parts > 0) & ~np.isin(parts, wanted)] = 0
    return found


def class_volumes(decoded: npt.NDArray[np.floating], classes: Labels, options: LabelOptions | None = None) -> Labels:
    """Classes of voxels, uint8 (n, e, e, e), of decoded volumes, each taken alone; ``classes`` (n,), 0 for none."""
    options = options or LabelOptions()
    values = scaled(decoded, options)
    if options.connected:
        values = connected(values, options)
    found: Labels = np.where(values >= options.level, classes[:, None, None, None], np.uint8(BACKGROUND))
    return found


def _ball(edge: int, radius: float) -> npt.NDArray[np.bool_]:
    at = np.arange(edge) - edge // 2
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    inside: npt.NDArray[np.bool_] = z * z + y * y + x * x <= radius * radius
    return inside
