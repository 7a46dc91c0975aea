"""Surfaces of a simulated tomogram: bilayers, closed and open, and the carbon film's edge.

A bilayer is given by the distance of every voxel from its middle. Its density is that of two leaflets of head groups,
Gaussians ``LEAFLETS_A`` apart, with a little less than water's between them (tails). Nothing of a lipid is modelled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .tilts import shown
from .volume import Floats, Shape

Flags = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

LEAFLETS_A = 40.0
THICKNESS_A = 56.0
"""Where a bilayer ends: its label is all within half of this of its middle."""
_HEAD_A, _HEAD, _TAIL = 8.0, 1.3, -0.2


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """Part of a bilayer: ``distance`` float32 (z, y, x), voxels from its middle, signed, of the box at ``low``.

    ``hidden``: bool, the same shape: where it faces a direction that no tilt of the series shows (``tilts.shown``).
    """

    low: Shape
    distance: Floats
    hidden: Flags

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where it lies in the scene."""
        z, y, x = (slice(a, a + n) for a, n in zip(self.low, self.distance.shape, strict=True))
        return z, y, x


def bilayer(distance: Floats, voxel_a: float) -> Floats:
    """Density, float32, of a bilayer at ``distance`` voxels from its middle; 1 is the mean density of protein."""
    # A voxel sees the mean over its width, about that of a Gaussian of 0.29 of it.
    sigma = math.hypot(_HEAD_A, 0.29 * voxel_a) / voxel_a
    peak = _HEAD * _HEAD_A / voxel_a / sigma
    half = LEAFLETS_A / 2 / voxel_a
    away = np.abs(distance)
    found = peak * np.exp(-0.5 * ((away - half) / sigma) ** 2)
    found += peak * np.exp(-0.5 * ((away + half) / sigma) ** 2)
    found += _TAIL * np.exp(-0.5 * (away / (0.7 * half)) ** 2)
    return found.astype(np.float32)


def vesicle(
    shape: Shape, centre: Doubles, radius: float, rng: np.random.Generator, tilts: Doubles, reach: float
) -> Sheet:
    """A closed bilayer about ``centre`` (x, y, z): a sphere of ``radius`` voxels, dented by up to 8 % of it.

    ``tilts``: of the series, degrees. ``reach``: voxels around it that the box holds.
    """
    span = 1.1 * radius + reach
    low = np.maximum(np.floor(centre[::-1] - span), 0).astype(int)
    high = np.minimum(np.ceil(centre[::-1] + span) + 1, shape).astype(int)
    z, y, x = _coordinates(low, high, centre)
    away = np.sqrt(z * z + y * y + x * x) + np.float32(1e-6)
    dented = np.float32(0)
    for _ in range(3):
        along = _direction(rng)
        cosine = (along[0] * x + along[1] * y + along[2] * z) / away
        dented = dented + np.float32(rng.uniform(-0.04, 0.04)) * (3 * cosine * cosine - 1)
    hidden = ~shown(x / away, z / away, tilts)
    return Sheet(_shape(low), (away - radius * (1 + dented)).astype(np.float32), hidden)


def sheet(shape: Shape, rng: np.random.Generator, voxel_a: float, tilts: Doubles) -> Sheet:
    """An open bilayer through the whole scene: plane, bent to a radius of 150 nm and more, and rippled.

    Its normal leans by up to 35° out of the plane of the specimen, as those of cells that are seen edge-on do.
    """
    middle = (np.array(shape[::-1]) - 1) * rng.uniform(0.25, 0.75, 3)
    z, y, x = _coordinates(np.zeros(3, int), np.array(shape), middle)
    lean, turn = rng.uniform(-0.6, 0.6), rng.uniform(0, 2 * math.pi)
    normal = np.array([math.cos(lean) * math.cos(turn), math.cos(lean) * math.sin(turn), math.sin(lean)])
    across = np.array([-math.sin(turn), math.cos(turn), 0.0])
    height = (normal[0] * x + normal[1] * y + normal[2] * z).astype(np.float32)
    along = (across[0] * x + across[1] * y).astype(np.float32) + np.zeros_like(z)
    bend = rng.uniform(-1, 1) * voxel_a / 1500.0 / 2
    wave, deep = rng.uniform(300, 900) / voxel_a, rng.uniform(0, 25) / voxel_a
    phase = (2 * math.pi / wave) * along + np.float32(rng.uniform(0, 2 * math.pi))
    slope = 2 * bend * along + deep * (2 * math.pi / wave) * np.cos(phase)
    steep = np.sqrt(1 + slope * slope)
    away = (height + bend * along * along + deep * np.sin(phase)) / steep
    faces = (normal[0] + slope * across[0]) / steep
    return Sheet((0, 0, 0), away.astype(np.float32), ~shown(faces, normal[2] / steep, tilts))


def carbon(shape: Shape, rng: np.random.Generator, voxel_a: float, margin: int = 0) -> Floats:
    """Distance into a carbon film, float32 (z, y, x) voxels, positive inside: a slab with an edge that is an arc.

    12 to 20 nm thick, at the top or the bottom of the specimen; the hole it surrounds is 1.2 µm wide and more. It
    covers a tenth to two fifths of the width of the field, which lies ``margin`` voxels inside the scene.
    """
    nz, ny, nx = shape
    thick = rng.uniform(120, 200) / voxel_a
    thick = min(thick, nz / 3)
    floor = nz * rng.uniform(0.08, 0.15)
    z = np.arange(nz, dtype=np.float32)
    if rng.random() < 0.5:
        z = nz - 1 - z
    slab = np.minimum(z - floor, floor + thick - z)[:, None, None]
    turn, radius = rng.uniform(0, 2 * math.pi), rng.uniform(6000, 12000) / voxel_a
    edge = (0.5 - rng.uniform(0.1, 0.4)) * (min(ny, nx) - 2 * margin)
    y, x = np.ogrid[:ny, :nx]
    hole_x = (nx - 1) / 2 - (radius - edge) * math.cos(turn)
    hole_y = (ny - 1) / 2 - (radius - edge) * math.sin(turn)
    inside = np.hypot(x - hole_x, y - hole_y).astype(np.float32) - np.float32(radius)
    found: Floats = np.minimum(slab, inside[None]).astype(np.float32)
    return found


def _coordinates(low: npt.NDArray[np.int_], high: npt.NDArray[np.int_], centre: Doubles) -> tuple[Floats, ...]:
    """z, y and x of a box's voxels from ``centre`` (x, y, z), float32, to be broadcast."""
    spread = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
    return tuple(
        (np.arange(a, b) - c).astype(np.float32).reshape(s)
        for a, b, c, s in zip(low, high, centre[::-1], spread, strict=True)
    )


def _direction(rng: np.random.Generator) -> Doubles:
    drawn = rng.standard_normal(3)
    found: Doubles = drawn / np.linalg.norm(drawn)
    return found


def _shape(of: npt.NDArray[np.int_]) -> Shape:
    z, y, x = (int(n) for n in of)
    return z, y, x
