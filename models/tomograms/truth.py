"""What is true of sub-volumes and voxels of a simulated tomogram, and how many of its things were found.

Classes of the simulation are joined into groups, as a person marks them: surfaces, large globules, carbon, gold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from .labels import IGNORED
from .segment_report import overlap as confusion
from .simulator import Simulated
from .volume import Floats

Labels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"membrane": ("membrane",), "globule": ("ribosome", "globule"), "carbon": ("carbon",), "gold": ("gold",)}
)
"""What a person would call the classes; a group's label value is its place, from 1, and 0 is the background."""
KINDS: Mapping[str, str] = MappingProxyType(
    {"membrane": "surface", "carbon": "surface", "globule": "globule", "gold": "other"}
)
SURFACES = tuple(value for value, name in enumerate(GROUPS, 1) if KINDS[name] == "surface")
"""Label values of the groups that are surfaces."""
NEAR = 4
"""Voxels around a position in which its class is looked for."""
LEAST = 0.1
"""Share of them that a group must have, else it is the background."""


def grouped(labels: Labels, classes: Sequence[str]) -> Labels:
    """Label values of ``GROUPS`` for label values of ``classes``; any shape."""
    table = np.zeros(256, np.uint8)
    for value, members in enumerate(GROUPS.values(), 1):
        for name in members:
            table[classes.index(name)] = value
    found: Labels = table[labels]
    return found


def truth_of(made: Simulated, *, hidden: bool = True) -> Labels:
    """Groups of all voxels; with ``hidden`` False, membranes that no tilt shows count as background."""
    labels = made.labels if hidden else np.where(made.hidden, np.uint8(0), made.labels)
    return grouped(labels, made.classes)


def groups_at(made: Simulated, xyz: npt.ArrayLike) -> Labels:
    """The group of each position (n, 3), x, y, z in voxels: see ``groups_near``.

    Membranes that no tilt shows count as background: nobody could have marked them.
    """
    return groups_near(truth_of(made, hidden=False), xyz)


def groups_near(truth: Labels, xyz: npt.ArrayLike) -> Labels:
    """The group of each position (n, 3), x, y, z in voxels: that of most voxels near it, the background left out.

    Of label values of classes, ``truth`` (z, y, x) gives classes.
    """
    places = np.rint(np.asarray(xyz)).astype(int).reshape(-1, 3)
    found = np.zeros(len(places), np.uint8)
    for row, (x, y, z) in enumerate(places.tolist()):
        near = truth[tuple(slice(max(at - NEAR, 0), at + NEAR + 1) for at in (z, y, x))]
        counts = np.bincount(near.ravel(), minlength=2)
        best = 1 + int(np.argmax(counts[1:]))
        found[row] = best if counts[best] >= LEAST * near.size else 0
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Positions matched one-to-one with true ones: ``found`` bool (n,), ``true`` bool (m,)."""

    found: Flags
    true: Flags


def match(xyz: Floats, true: Floats, radius: npt.ArrayLike) -> Hits:
    """Match positions (n, 3) with true ones (m, 3) at most ``radius`` ((m,) or one number) away, as many as there can.

    Of those matchings the one with the least sum of squared distances (Hungarian assignment).
    """
    found, there = np.zeros(len(xyz), np.bool_), np.zeros(len(true), np.bool_)
    if not len(xyz) or not len(true):
        return Hits(found, there)
    reach = np.broadcast_to(np.asarray(radius, np.float64), (len(true),))
    far = cdist(xyz, true)
    near = far <= reach
    # One pair more is worth more than any distances.
    bonus = float(reach.max()) ** 2 * (min(far.shape) + 1)
    rows, columns = linear_sum_assignment(np.where(near, far**2 - bonus, 0.0))
    right = near[rows, columns]
    found[rows[right]], there[columns[right]] = True, True
    return Hits(found, there)


def on_ribosomes(made: Simulated, xyz: npt.ArrayLike) -> Flags:
    """Which positions (n, 3), x, y, z in voxels, are within half a radius of a ribosome's centre."""
    of = made.particles
    own = of.take(of.label == made.classes.index("ribosome"))
    places = np.asarray(xyz, np.float64).reshape(-1, 3)
    if not len(own):
        return np.zeros(len(places), np.bool_)
    near = cdist(places, own.xyz) <= own.diameter_a / 4 / made.voxel_a
    return np.asarray(near.any(1), np.bool_)


def boxed(shape: tuple[int, int, int], xyz: npt.ArrayLike, edge: int) -> Flags:
    """Which voxels lie in the boxes of ``edge`` voxels about positions (n, 3), x, y, z."""
    inside = np.zeros(shape, np.bool_)
    for x, y, z in np.rint(np.asarray(xyz)).astype(int).reshape(-1, 3).tolist():
        inside[tuple(slice(max(at - edge // 2, 0), max(at - edge // 2 + edge, 0)) for at in (z, y, x))] = True
    return inside


def overlap(found: Labels, truth: Labels, counted: Flags | None = None) -> npt.NDArray[np.int64]:
    """By group, int64 (groups, 3): voxels that both say are of it, that the first, and that the second does.

    ``counted``: which voxels count, all of them without it.
    """
    known = truth if counted is None else np.where(counted, truth, np.uint8(IGNORED))
    return confusion(found, known, len(GROUPS) + 1)[1:]
