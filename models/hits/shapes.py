"""Particles as 128³ arrays: four polyhedra for training, four harder bodies that training never sees.

The four polyhedra, the twist, the affine map and the blurred edge are those of Han & Li, "Data Classification with
Residual Network for Single Particle Imaging Experiments", section 3. All lengths are voxels of the 128³ box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Field = npt.NDArray[np.float32]

BOX = 128
RADIUS = 36.0
LIMIT = 58.0
GOLDEN = (1 + 5**0.5) / 2
TRAINING_SHAPES = ("octahedron", "dodecahedron", "icosahedron", "truncated_icosahedron")
HARDER_SHAPES = ("torus", "ellipsoid", "core_shell", "rod")


@dataclass(frozen=True, slots=True)
class Particle:
    """One random particle: its electron density and what the simulator needs to know of its size.

    ``density``: float32 (a, b, c), the part of the 128³ box that is not empty; ``corner``: coordinates of its first
    voxel relative to the centre of the box; ``blur``: standard deviation of the Gaussian that softens the edges, in
    voxels (applied in Fourier space); ``diameter``: of the sphere of equal volume; ``hull``: (m, 3) outermost voxels.
    """

    shape: str
    density: Field
    corner: tuple[float, float, float]
    blur: float
    diameter: float
    hull: Array


def _cyclic(triples: list[tuple[float, float, float]]) -> Array:
    """The triples and their cyclic permutations, each once."""
    rows = {t[k:] + t[:k] for t in triples for k in range(3)}
    return np.array(sorted(rows), dtype=np.float64)


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def icosahedron_vertices() -> Array:
    """(12, 3) unit vectors: corners of the icosahedron, face normals of the dodecahedron."""
    rows = _cyclic([(0.0, a, b * GOLDEN) for a, b in product((-1.0, 1.0), repeat=2)])
    return _unit(rows)


def dodecahedron_vertices() -> Array:
    """(20, 3) unit vectors: corners of the dodecahedron, face normals of the icosahedron."""
    cube = np.array(list(product((-1.0, 1.0), repeat=3)))
    rest = _cyclic([(0.0, a * GOLDEN, b / GOLDEN) for a, b in product((-1.0, 1.0), repeat=2)])
    rows = np.vstack([cube, rest])
    return _unit(rows)


def faces(shape: str) -> tuple[Array, Array]:
    """Face normals (n, 3) and distances (n,) of a polyhedron whose circumscribed sphere has radius 1."""
    if shape == "octahedron":
        normals = np.array(list(product((-1.0, 1.0), repeat=3))) / 3**0.5
        return normals, np.full(8, 3**-0.5)
    face = ((5 + 2 * 5**0.5) / 15) ** 0.5
    if shape == "dodecahedron":
        return icosahedron_vertices(), np.full(12, face)
    if shape == "icosahedron":
        return dodecahedron_vertices(), np.full(20, face)
    # Cutting every edge of the icosahedron at its thirds: distances of both kinds of face in units of the new edge.
    edge = 4 / (58 + 18 * 5**0.5) ** 0.5
    hexagon = (3**0.5) * (3 + 5**0.5) / 4 * edge
    pentagon = 0.5 * ((125 + 41 * 5**0.5) / 10) ** 0.5 * edge
    normals = np.vstack([dodecahedron_vertices(), icosahedron_vertices()])
    return normals, np.concatenate([np.full(20, hexagon), np.full(12, pentagon)])


def _density(inside: npt.NDArray[np.bool_]) -> Field:
    return inside.astype(np.float32)


def _polyhedron(shape: str, points: Field) -> Field:
    normals, distances = faces(shape)
    outside = np.full(points.shape[1:], -np.inf, dtype=np.float32)
    for normal, distance in zip(normals.astype(np.float32), distances, strict=True):
        np.maximum(outside, np.tensordot(normal, points, axes=1) - np.float32(distance), out=outside)
    return _density(outside <= 0)


def _torus(rng: np.random.Generator, points: Field) -> Field:
    tube = rng.uniform(0.25, 0.42)
    ring = np.hypot(points[0], points[1]) - (1.2 - tube)
    return _density(ring**2 + points[2] ** 2 <= tube**2)


def _ellipsoid(rng: np.random.Generator, points: Field) -> Field:
    axes = np.array([1.25, rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.9)], dtype=np.float32)
    return _density(np.square(points / axes[:, None, None, None]).sum(0) <= 1)


def _core_shell(rng: np.random.Generator, points: Field) -> Field:
    """A body whose core is lighter or denser than its shell, as an empty or a filled capsid."""
    outer = _polyhedron(TRAINING_SHAPES[int(rng.integers(4))], points)
    core = np.square(points).sum(0) <= rng.uniform(0.4, 0.65) ** 2
    density = rng.choice([rng.uniform(0.0, 0.5), rng.uniform(1.7, 3.0)])
    return np.where(core, outer * np.float32(density), outer)


def _rod(rng: np.random.Generator, points: Field) -> Field:
    half, radius = 1.35, rng.uniform(0.35, 0.6)
    beyond = np.maximum(np.abs(points[2]) - (half - radius), 0)
    return _density(points[0] ** 2 + points[1] ** 2 + beyond**2 <= radius**2)


_HARDER: dict[str, Callable[[np.random.Generator, Field], Field]] = {
    "torus": _torus,
    "ellipsoid": _ellipsoid,
    "core_shell": _core_shell,
    "rod": _rod,
}


def body(shape: str, points: Field, rng: np.random.Generator) -> Field:
    """Density of ``shape`` at ``points`` (3, …), whose unit is the body's circumscribed radius.

    Raises ``ValueError`` for a shape that is none of ``TRAINING_SHAPES`` and ``HARDER_SHAPES``.
    """
    if shape in TRAINING_SHAPES:
        return _polyhedron(shape, points)
    if shape not in _HARDER:
        raise ValueError(f"shape {shape!r}: unknown; choose from {', '.join(TRAINING_SHAPES + HARDER_SHAPES)}")
    return _HARDER[shape](rng, points)


def grid(half: int) -> Field:
    """Coordinates (3, 2·half, 2·half, 2·half) of the voxels nearest the centre of the box."""
    axis = (np.arange(2 * half) - half + 0.5).astype(np.float32)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))


def random_rotation(rng: np.random.Generator) -> Array:
    """A rotation matrix (3, 3), uniform over SO(3): a normalised Gaussian quaternion."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _pull_back(points: Field, affine: Array, twist: float) -> Field:
    """Where each voxel comes from: the affine map undone, then the twist about the third axis (radians per radius)."""
    inverse = np.linalg.inv(affine).astype(np.float32)
    x, y, z = np.tensordot(inverse, points, axes=1)
    cos, sin = np.cos(twist * z), np.sin(twist * z)
    return np.stack([cos * x + sin * y, cos * y - sin * x, z])


def outermost(inside: npt.NDArray[np.bool_], points: Field, directions: int = 200) -> Array:
    """The voxels (m, 3) that reach farthest in evenly spread directions: enough of a convex hull for contacts."""
    index = np.arange(directions) + 0.5
    height, turn = 1 - 2 * index / directions, index * np.pi * (1 + 5**0.5)
    ring = np.sqrt(1 - height**2)
    rays = np.stack([ring * np.cos(turn), ring * np.sin(turn), height]).astype(np.float32)
    shell = inside.copy()
    shell[1:-1, 1:-1, 1:-1] &= ~(
        inside[2:, 1:-1, 1:-1]
        & inside[:-2, 1:-1, 1:-1]
        & inside[1:-1, 2:, 1:-1]
        & inside[1:-1, :-2, 1:-1]
        & inside[1:-1, 1:-1, 2:]
        & inside[1:-1, 1:-1, :-2]
    )
    surface = points[:, shell].T
    far: Array = surface[np.unique(np.argmax(surface @ rays, axis=0))].astype(np.float64)
    return far


def random_particle(rng: np.random.Generator, shape: str, strength: float = 1.0) -> Particle:
    """A new particle model: the body under a random rotation, affine map, twist and blur.

    ``strength`` scales the deformation: 1 stretches and shears each axis by up to 15 % and twists by up to 0.4 rad
    per radius; 0 leaves the regular body. The blur is 0.5–2 voxels, 0.8–3 % of the diameter.
    """
    turn = random_rotation(rng)
    affine = turn @ (np.eye(3) + strength * rng.uniform(-0.15, 0.15, (3, 3)))
    twist = strength * rng.uniform(-0.4, 0.4)
    blur = float(rng.uniform(0.5, 2.0))
    points = grid(int(LIMIT))
    scaled = points / np.float32(RADIUS)
    density = body(shape, _pull_back(scaled, affine, twist), rng)
    return from_density(shape, density, points, blur)


def from_density(shape: str, density: Field, points: Field, blur: float) -> Particle:
    """Cut away the empty rim of ``density`` (a, b, c) at coordinates ``points`` (3, a, b, c), and measure it."""
    inside = density > 0
    cut = []
    for axis in range(3):
        filled = np.flatnonzero(inside.any(axis=tuple(k for k in range(3) if k != axis)))
        cut.append(slice(int(filled[0]), int(filled[-1]) + 1))
    a, b, c = (float(points[k][cut[0].start, cut[1].start, cut[2].start]) for k in range(3))
    diameter = 2 * (3 * float(inside.sum()) / (4 * np.pi)) ** (1 / 3)
    kept = np.ascontiguousarray(density[cut[0], cut[1], cut[2]], dtype=np.float32)
    return Particle(shape, kept, (a, b, c), blur, diameter, outermost(inside, points))
