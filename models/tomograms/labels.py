"""Weak labels: which voxels of a tomogram belong to a class, from the decoded volumes of sub-volumes that are marked.

Zeng et al. (2018), sections 2.4 and 3.4.2: a decoded volume at level 0.5 says which voxels of its sub-volume are of the
class of its cluster; all others are background. The paper's volumes are dark and its structure is at or below 0.5;
here density is bright, and structure is at or above it, of the decoded volume scaled from 0 (background) to 1.

Sub-volumes overlap. The volumes of all marked sub-volumes of a tomogram are therefore laid into it, each where (and,
after pose normalisation, as) it was cut out, so that a box also has the labels that its neighbours know of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .boxes import corners
from .pose import Poses, unposed
from .volume import Floats

Labels: TypeAlias = npt.NDArray[np.uint8]
Halves: TypeAlias = npt.NDArray[np.float16]
LEVEL = 0.5
BACKGROUND = 0
IGNORED = 255
"""Label of voxels that nobody knows anything of: they do not count in training."""
_AT_ONCE = 64
_MOST_KNOWN = 4000
"""Decoded volumes in memory, 64 KiB each, beyond what the windows at hand need."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How decoded volumes become classes.

    ``smooth``: standard deviation, in voxels, of a Gaussian over a decoded volume: labels are outlines, and a network
    that reconstructs the two leaflets of a membrane leaves a gap between them. ``low``, ``high``: percentiles of what
    comes out that are scaled to 0 and 1. ``level``: from which scaled value on a voxel is of the class;
    ``surface_level``: the same for groups of the kind surface where sub-volumes are pose-normalised, because the
    outlines of membranes that all lie flat are too thick at 0.5 (chosen on simulated validation tomograms). ``own``:
    volumes decoded from each sub-volume's own code, else from its cluster's centre. ``connected``: only what hangs
    together with the middle; ``middle``: in a ball of so many voxels radius.
    """

    smooth: float = 1.0
    low: float = 50.0
    high: float = 98.0
    level: float = LEVEL
    surface_level: float = 0.65
    own: bool = True
    connected: bool = True
    middle: float = 6.0


def scaled(decoded: npt.NDArray[np.floating], options: LabelOptions) -> Floats:
    """Decoded volumes (n, e, e, e), smoothed, from 0 to 1 between two percentiles of each, float32, not cut off.

    A volume without any contrast becomes 0.
    """
    given = np.asarray(decoded, np.float32)
    if options.smooth:
        given = ndimage.gaussian_filter(given, (0, *3 * (options.smooth,)), mode="nearest")
    flat = given.reshape(len(decoded), -1)
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


class Decoder(Protocol):
    """What turns codes into volumes: a ``codec.Codec``."""

    @property
    def edge(self) -> int:
        """Voxels along the edge of a decoded volume."""

    def decode(self, codes: npt.NDArray[np.floating]) -> Floats:
        """Volumes (n, e, e, e) float32 of codes (n, 32)."""


class Painter:
    """Lays the decoded volumes of marked sub-volumes into windows of their tomogram.

    ``xyz`` (n, 3) in working voxels, ``values`` (n,) label values, ``codes`` and ``centres`` (n, d) of all sub-volumes
    of the tomogram; ``poses`` where they were pose-normalised. ``surfaces``: label values of groups that are surfaces.
    """

    def __init__(
        self,
        xyz: Floats,
        values: Labels,
        codec: Decoder,
        options: LabelOptions,
        codes: Floats,
        centres: Floats,
        poses: Poses | None,
        surfaces: tuple[int, ...] = (),
    ) -> None:
        marked = np.flatnonzero(values != BACKGROUND)
        self._corner = corners(xyz[marked], codec.edge)
        self._values = values[marked]
        self._codes = (codes if options.own else centres)[marked]
        self._poses = None if poses is None else poses[marked]
        self._codec, self._options, self._surfaces = codec, options, surfaces
        self._known: dict[int, Halves] = {}

    def labels(self, middle: npt.NDArray[np.integer], edge: int) -> Labels:
        """Labels uint8 (n, edge, edge, edge) of windows about whole voxels ``middle`` (n, 3), x, y, z.

        A voxel is of the class whose volume is the brightest there, if it reaches the level.
        """
        found = np.zeros((len(middle), edge, edge, edge), np.uint8)
        first = np.asarray(middle, np.intp) - edge // 2
        size = self._codec.edge
        near = [
            np.flatnonzero((np.abs(self._corner + size / 2 - (at + edge / 2)) < (size + edge) / 2).all(1))
            for at in first
        ]
        # From plane to plane, so that windows side by side share what was decoded.
        order = np.argsort(first[:, 2], kind="stable")
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE].tolist()
            self._decode(np.unique(np.concatenate([near[number] for number in some])))
            for number in some:
                self._paint(found[number], first[number], near[number])
        return found

    def _paint(self, labels: Labels, first: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]) -> None:
        """The volumes ``rows`` into one window whose first voxel is ``first``."""
        best = np.full(labels.shape, self._options.level, np.float16)
        for row in rows.tolist():
            self._lay(row, labels, best, self._corner[row] - first)

    def _lay(self, row: int, labels: Labels, best: Halves, offset: npt.NDArray[np.intp]) -> None:
        there, here = [], []
        for shift, size, edge in zip(offset[::-1].tolist(), self._known[row].shape, labels.shape, strict=True):
            low, high = max(shift, 0), min(shift + size, edge)
            there.append(slice(low, high))
            here.append(slice(low - shift, high - shift))
        place = (there[0], there[1], there[2])
        values = self._known[row][here[0], here[1], here[2]]
        brighter = values >= best[place]
        labels[place][brighter] = self._values[row]
        np.maximum(best[place], values, out=best[place])

    def _decode(self, rows: npt.NDArray[np.intp]) -> None:
        """Have the volumes of ``rows`` as they lie in the tomogram."""
        if len(self._known) + len(rows) > _MOST_KNOWN:
            self._known = {row: self._known[row] for row in rows.tolist() if row in self._known}
        new = np.array([row for row in rows.tolist() if row not in self._known], np.intp)
        for start in range(0, len(new), _AT_ONCE):
            some = new[start : start + _AT_ONCE]
            values = scaled(self._codec.decode(self._codes[some]), self._options)
            if self._poses is not None:
                values[np.isin(self._values[some], self._surfaces)] *= self._options.level / self._options.surface_level
            if self._options.connected:
                values = connected(values, self._options)
            if self._poses is not None:
                values = unposed(values, self._poses[some])
            self._known.update(zip(some.tolist(), values.astype(np.float16), strict=True))
