"""Sub-volumes cut out of a tomogram, each brought to mean 0 and standard deviation 1."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .volume import Floats, Shape, Volume

Bools = npt.NDArray[np.bool_]

EDGE = 32
_LEAST = 1e-6
"""Spread, of the whole tomogram's standard deviation 1, below which there is nothing in a box but rounding."""


def boxes(volume: Volume, xyz: npt.ArrayLike, edge: int = EDGE) -> tuple[Floats, Bools]:
    """Boxes float32 (n, edge, edge, edge), mean 0 and s.d. 1 of themselves, and which of them are good, bool (n,).

    ``xyz``: centres (n, 3) in voxels of ``volume``, of which the nearest whole voxel becomes voxel [edge / 2] of the
    box. What lies outside the volume is its mirror image, as ``cut`` says. A box is not good, and is 0, where its
    centre is outside the volume or its voxels are all the same or not finite. Raises ``ValueError`` for an edge that
    is no multiple of 4.
    """
    whole = corners(xyz, edge)
    found = np.empty((len(whole), edge, edge, edge), np.float32)
    for box, (x, y, z) in zip(found, whole.tolist(), strict=True):
        box[:] = cut(volume, (z, y, x), (edge, edge, edge))
    return standardised(found, inside(volume, xyz))


def corners(xyz: npt.ArrayLike, edge: int) -> npt.NDArray[np.intp]:
    """The first voxel (x, y, z) of each box, (n, 3): halves are rounded up."""
    if edge < 4 or edge % 4:
        raise ValueError(f"edge: {edge} is no multiple of 4; use {EDGE}")
    places = np.asarray(xyz, np.float64).reshape(-1, 3)
    return np.floor(places + 0.5).astype(np.intp) - edge // 2


def inside(volume: Volume, xyz: npt.ArrayLike) -> Bools:
    """Which positions (n, 3) have their nearest voxel in the volume."""
    places = np.floor(np.asarray(xyz, np.float64).reshape(-1, 3) + 0.5)
    return np.asarray(((places >= 0) & (places < np.array(volume.shape[::-1]))).all(1), np.bool_)


def standardised(found: Floats, good: Bools) -> tuple[Floats, Bools]:
    """Boxes (n, e, e, e) less their means, over their standard deviations, in place; those not good are 0."""
    flat = found.reshape(len(found), math.prod(found.shape[1:]))
    with np.errstate(invalid="ignore", over="ignore"):
        flat -= flat.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
        spread = np.sqrt(np.einsum("ij,ij->i", flat, flat) / flat.shape[1])
    good = np.asarray(good & np.isfinite(spread) & (spread > _LEAST), np.bool_)
    flat /= np.where(good, spread, 1)[:, None]
    flat[~good] = 0
    return found, good


def cut(volume: Volume, low: Shape, size: Shape) -> Floats:
    """The box of ``size`` voxels from ``low`` (z, y, x), which may reach out of the volume, float32.

    Beyond a face the volume goes on as its mirror image, the voxel at the face first and as often as it takes.
    """
    spans = [_mirrored(a, n, whole) for a, n, whole in zip(low, size, volume.shape, strict=True)]
    first = tuple(int(span.min()) for span in spans)
    last = tuple(int(span.max()) + 1 for span in spans)
    data = volume.read((first[0], first[1], first[2]), (last[0], last[1], last[2]))
    for axis, span in enumerate(spans):
        if last[axis] - first[axis] != size[axis] or span[0] != first[axis] or span[-1] != last[axis] - 1:
            data = data.take(span - first[axis], axis)
    return data


def _mirrored(low: int, size: int, whole: int) -> npt.NDArray[np.intp]:
    """Voxels ``low`` to ``low + size`` of an axis of ``whole`` voxels, those beyond its ends mirrored into it."""
    at = np.arange(low, low + size) % (2 * whole)
    return np.where(at < whole, at, 2 * whole - 1 - at)
