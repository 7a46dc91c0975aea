"""Pose normalisation of sub-volumes by centre of mass and principal axes (Zeng et al. 2018, section 2.5).

A pose is a rotation R (3, 3) and a shift s (3,), in x, y, z and voxels. With p the middle of a box in the tomogram and
m = edge / 2 the index of its middle voxel:

    posed box at q = tomogram at p + s + Rᵀ (q − m)          (``posed_boxes``)
    box at q       = posed box at m + R ((q − m) − s)        (``unposed``: the way back)

The rows of R are the principal axes in the tomogram, the longest first: a surface, whose shortest axis is its normal,
lies flat in the x-y planes of its posed box, in the middle one.

The published sums run over the raw values made positive. In noise these are all but equal in every direction, so the
boxes are smoothed first, the values are what stands above the box's mean, and only a soft ball around the centre of
mass counts, whose own corners would else be taken for axes.

The sign of an axis is that which makes the third moment along it positive: the heavier tail on the positive side. Of
three axes two can be chosen so, the third makes the rotation right-handed; chosen are the two of the larger third
moments, relative to the spread along the axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from .boxes import EDGE, Bools, cut, inside, standardised
from .volume import Floats, Volume

_SMOOTH = 2.0
_STEPS = 3
_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """Of n boxes: ``rotation`` float32 (n, 3, 3), rows the axes in x, y, z; ``shift`` float32 (n, 3), x, y, z, voxels."""

    rotation: Floats
    shift: Floats

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, some: slice | npt.NDArray[np.intp] | Bools) -> Poses:
        """Those of some boxes."""
        return Poses(self.rotation[some], self.shift[some])


def poses(given: Floats) -> Poses:
    """The pose of each box float32 (n, e, e, e), density bright. A box of zeros has no pose: it is left as it is."""
    n, edge = len(given), given.shape[-1]
    rotation = np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    shift = np.zeros((n, 3), np.float32)
    for first in range(0, n, _BATCH):
        some = slice(first, first + _BATCH)
        rotation[some], shift[some] = _posed(given[some], edge)
    return Poses(rotation, shift)


def reach(edge: int) -> int:
    """How many voxels from a box's middle ``posed_boxes`` may read."""
    return _half(edge) + edge // 8 + 1


def _half(edge: int) -> int:
    return math.ceil(edge / 2 * math.sqrt(3)) + 2


def posed_boxes(volume: Volume, xyz: npt.ArrayLike, found: Poses, edge: int = EDGE) -> tuple[Floats, Bools]:
    """The boxes at ``xyz`` (n, 3) in their poses, and which are good: shapes, values and edges as ``boxes.boxes``.

    Read from the volume itself by trilinear interpolation: no voxel is missing, whatever the turn.
    """
    places = np.floor(np.asarray(xyz, np.float64).reshape(-1, 3) + 0.5)
    half = _half(edge)
    turned = np.empty((len(places), edge, edge, edge), np.float32)
    for first in range(0, len(places), _BATCH):
        some = slice(first, first + _BATCH)
        middle = places[some] + np.rint(found.shift[some])
        wide = np.stack([cut(volume, tuple(int(v) - half for v in at[::-1]), (2 * half,) * 3) for at in middle])
        rest = found.shift[some] - np.rint(found.shift[some])
        turned[some] = _sampled(wide, found.rotation[some].transpose(0, 2, 1), rest + half, edge)
    return standardised(turned, inside(volume, xyz))


def unposed(given: Floats, found: Poses) -> Floats:
    """Posed boxes (n, e, e, e) turned back to how they lie in the tomogram, float32; 0 where they do not reach."""
    edge = given.shape[-1]
    back = -np.einsum("nij,nj->ni", found.rotation, found.shift)
    return _sampled(np.asarray(given, np.float32), found.rotation, back + edge // 2, edge)


def _sampled(source: Floats, matrix: Floats, origin: npt.NDArray[np.floating], edge: int) -> Floats:
    """Boxes of ``edge`` whose voxel q is ``source`` at origin + matrix (q − edge / 2), trilinear, x, y, z; else 0."""
    size = source.shape[-1]
    # torch's coordinates: −1 and 1 are the middles of the first and the last voxel.
    scale = 2.0 / (size - 1)
    middle = np.asarray(origin, np.float64) - np.einsum("nij,j->ni", matrix, np.full(3, edge // 2))
    axis = torch.arange(edge, dtype=torch.float32)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    at = torch.stack([x.ravel(), y.ravel(), z.ravel(), torch.ones(edge**3)], 1)
    theta = np.concatenate([matrix * scale, (middle * scale - 1)[:, :, None]], 2).astype(np.float32)
    grid = (at @ torch.from_numpy(theta).transpose(1, 2)).reshape(-1, edge, edge, edge, 3)
    found = functional.grid_sample(torch.from_numpy(source)[:, None], grid, align_corners=True)
    return np.asarray(found[:, 0])


def _posed(given: Floats, edge: int) -> tuple[Floats, Floats]:
    smooth = ndimage.gaussian_filter(given, (0, _SMOOTH, _SMOOTH, _SMOOTH), mode="reflect").astype(np.float64)
    value = np.maximum(smooth - smooth.mean((1, 2, 3), keepdims=True), 0).reshape(len(given), -1)
    axis = np.arange(edge) - edge // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    at = np.stack([x.ravel(), y.ravel(), z.ravel()], 1).astype(np.float64)
    centre = np.zeros((len(given), 3))
    for _ in range(_STEPS):
        window = _ball(at, centre, edge)
        mass = (value * window).sum(1, keepdims=True)
        centre = (value * window) @ at / np.where(mass > 0, mass, 1)
        centre = np.clip(centre, -edge / 8, edge / 8)
    weight = value**2 * _ball(at, centre, edge)
    rotation = np.stack([_axes(w, at - c) for w, c in zip(weight, centre, strict=True)])
    return rotation.astype(np.float32), centre.astype(np.float32)


def _ball(at: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], edge: int) -> npt.NDArray[np.float64]:
    distance = np.sqrt(((at[None] - centre[:, None]) ** 2).sum(2))
    return np.clip((edge * 0.4 - distance) / 2 + 0.5, 0, 1)


def _axes(weight: npt.NDArray[np.float64], away: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = weight.sum()
    if not total > 0:
        return np.eye(3)
    values, vectors = np.linalg.eigh((away * weight[:, None]).T @ away / total)
    axes = vectors.T[::-1]
    along = away @ axes.T
    third = (weight[:, None] * along**3).sum(0) / total / np.maximum(values[::-1], 1e-12) ** 1.5
    order = np.argsort(-np.abs(third))
    axes = axes * np.where(third < 0, -1, 1)[:, None]
    if np.linalg.det(axes) < 0:
        axes[order[2]] *= -1
    return np.asarray(axes)
