"""Clusters: identical particles that touch, or fly apart, in random arrangement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .shapes import random_rotation

Array = npt.NDArray[np.float64]


def reach(hull: Array, rotation: Array, direction: Array) -> float:
    """How far a rotated particle extends along a unit vector: its support function, from its outermost voxels."""
    return float(np.max(hull @ (rotation.T @ direction)))


def random_direction(rng: np.random.Generator) -> Array:
    """A unit vector (3,), uniform over the sphere."""
    vector: Array = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _free(hull: Array, rotations: Array, positions: list[Array], place: Array) -> bool:
    """Whether the next particle at ``place`` can be parted by a plane from each that is there."""
    new = rotations[len(positions)]
    for rotation, position in zip(rotations[: len(positions)], positions, strict=True):
        apart = place - position
        distance = float(np.linalg.norm(apart))
        if distance == 0:
            return False
        direction = apart / distance
        if distance < (reach(hull, rotation, direction) + reach(hull, new, -direction)) * (1 - 1e-9):
            return False
    return True


def random_cluster(
    rng: np.random.Generator, count: int, hull: Array, common: bool, spacing: tuple[float, float]
) -> tuple[Array, Array]:
    """Rotations (count, 3, 3) and positions (count, 3) in voxels of a random aggregate, centred.

    Each new particle touches a random one of those that are there, in a random direction, and overlaps none: along
    the line of centres the two bodies' support functions add up to the distance of contact. ``spacing`` multiplies
    that distance, (1, 1) being contact. ``common`` gives all of them one orientation.
    """
    first = random_rotation(rng)
    rotations = np.stack([first] + [first if common else random_rotation(rng) for _ in range(count - 1)])
    positions: list[Array] = [np.zeros(3)]
    while len(positions) < count:
        # Ends, because the outermost particle always leaves half of all directions free.
        anchor = int(rng.integers(len(positions)))
        direction = random_direction(rng)
        contact = reach(hull, rotations[anchor], direction) + reach(hull, rotations[len(positions)], -direction)
        place = positions[anchor] + direction * contact * rng.uniform(*spacing)
        if _free(hull, rotations, positions, place):
            positions.append(place)
    placed = np.stack(positions)
    return rotations, placed - placed.mean(axis=0)
