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

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from .banded import along, matrix_of
from .boxes import EDGE, Bools, cut, inside, standardised
from .volume import Floats, Volume

_SMOOTH = 2.0
_STEPS = 3
_BATCH = 32
_NOTHING = 1e-6
_PRODUCTS = [of for order in range(4) for of in itertools.combinations_with_replacement(range(3), order)]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """Of n boxes: ``rotation`` float32 (n, 3, 3), rows the axes; ``shift`` float32 (n, 3), voxels; all in x, y, z."""

    rotation: Floats
    shift: Floats

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, some: slice | npt.NDArray[np.intp] | Bools) -> Poses:
        """Those of some boxes."""
        return Poses(self.rotation[some], self.shift[some])


def poses(given: Floats) -> Poses:
    """The pose of each box float32 (n, e, e, e), density bright. A box of zeros has no pose: it is left as it is."""
    n = len(given)
    rotation = np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    shift = np.zeros((n, 3), np.float32)
    for first in range(0, n, _BATCH):
        some = slice(first, first + _BATCH)
        rotation[some], shift[some] = _posed(given[some])
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
        corner = (middle - half).astype(np.intp).tolist()
        wide = np.stack([cut(volume, (z, y, x), (2 * half, 2 * half, 2 * half)) for x, y, z in corner])
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


def _posed(given: Floats) -> tuple[Floats, Floats]:
    """Rotations (n, 3, 3) and shifts (n, 3) of some boxes."""
    n, edge = len(given), given.shape[-1]
    value = _above(torch.from_numpy(np.ascontiguousarray(given, np.float32))).reshape(n, -1)
    at, powers = _places(edge)
    centre = torch.zeros(n, 3)
    for _ in range(_STEPS):
        weight = value * _ball(at, centre, edge)
        mass = weight.sum(1, keepdim=True)
        centre = (weight @ at / torch.where(mass > 0, mass, 1)).clamp(-edge / 8, edge / 8)
    moments = (value.square() * _ball(at, centre, edge)) @ powers
    return _axes(*_central(moments.numpy(), centre.numpy())), centre.numpy()


def _above(given: torch.Tensor) -> torch.Tensor:
    """Boxes (n, e, e, e) smoothed, and what of them is above their mean."""
    n, edge = len(given), given.shape[-1]
    smooth = _smoothing(edge)
    data = along(2, smooth, given.reshape(n * edge, edge, edge))
    data = along(1, smooth, data).reshape(n, edge, edge * edge)
    data = along(1, smooth, data)
    return (data - data.mean((1, 2), keepdim=True)).clamp_min_(0)


@lru_cache(maxsize=4)
def _smoothing(edge: int) -> torch.Tensor:
    reach = math.ceil(4 * _SMOOTH)
    away = np.arange(-reach, reach + 1)
    at = (np.arange(edge)[:, None] + away) % (2 * edge)
    column = np.where(at < edge, at, 2 * edge - 1 - at).ravel()
    weight = np.tile(np.exp(-0.5 * (away / _SMOOTH) ** 2), edge)
    matrix = matrix_of(np.repeat(np.arange(edge), len(away)), column, weight, (edge, edge))
    return torch.from_numpy(matrix.toarray().astype(np.float32))


@lru_cache(maxsize=4)
def _places(edge: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every voxel x, y, z from the middle one (edge³, 3), and their products of the orders 0 to 3 (edge³, 20)."""
    axis = torch.arange(edge, dtype=torch.float32) - edge // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    at = torch.stack([x.ravel(), y.ravel(), z.ravel()], 1)
    powers = [torch.prod(at[:, list(of)], 1) for of in _PRODUCTS]
    return at, torch.stack(powers, 1)


def _ball(at: torch.Tensor, centre: torch.Tensor, edge: int) -> torch.Tensor:
    """1 inside a ball of 0.4 edges around each centre (n, 3), 0 outside, over two voxels; (n, edge³)."""
    square = (at.square().sum(1) - 2 * centre @ at.T).add_(centre.square().sum(1, keepdim=True))
    return square.clamp_min_(0).sqrt_().mul_(-0.5).add_(0.2 * edge + 0.5).clamp_(0, 1)


def _central(moments: Floats, centre: Floats) -> tuple[Doubles, Doubles]:
    """Second (n, 3, 3) and third (n, 3, 3, 3) moments about the centres, per mass, from those about the middle."""
    raw = moments.astype(np.float64)
    mass = raw[:, 0]
    raw = raw / np.where(mass > 0, mass, 1)[:, None]
    of = {product: raw[:, number] for number, product in enumerate(_PRODUCTS)}
    n, c = len(raw), centre.astype(np.float64)
    first = np.stack([of[0,], of[1,], of[2,]], 1)
    second, third = np.empty((n, 3, 3)), np.empty((n, 3, 3, 3))
    for i, j in itertools.product(range(3), repeat=2):
        second[:, i, j] = of[min(i, j), max(i, j)]
    for i, j, k in itertools.product(range(3), repeat=3):
        a, b, d = sorted((i, j, k))
        third[:, i, j, k] = of[a, b, d]
    outer = np.einsum("ni,nj->nij", c, c)
    mixed = np.einsum("nij,nk->nijk", second, c)
    thrice = mixed + mixed.transpose(0, 1, 3, 2) + mixed.transpose(0, 3, 1, 2)
    single = np.einsum("ni,njk->nijk", first, outer)
    single = single + single.transpose(0, 2, 1, 3) + single.transpose(0, 3, 2, 1)
    cross = np.einsum("ni,nj->nij", first, c)
    third = third - thrice + single - np.einsum("nij,nk->nijk", outer, c)
    return second - cross - cross.transpose(0, 2, 1) + outer, third


def _axes(second: Doubles, third: Doubles) -> Floats:
    """Rotations (n, 3, 3) of moments: rows by descending spread, their signs by the rule above."""
    spread, vectors = np.linalg.eigh(second)
    spread, axes = spread[:, ::-1], vectors.transpose(0, 2, 1)[:, ::-1].copy()
    tail = np.einsum("nijk,nai,naj,nak->na", third, axes, axes, axes, optimize=True)
    axes[tail < 0] *= -1
    least = np.argmin(np.abs(tail) / np.maximum(spread, 1e-9) ** 1.5, axis=1)
    left = np.linalg.det(axes) < 0
    axes[left, least[left]] *= -1
    axes[spread[:, 0] <= _NOTHING] = np.eye(3)
    return axes.astype(np.float32)
