"""Few viewing directions in place of any: what a particle that lies on its flat sides shows, and what a test wants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .projector import random_rotations

Rotations = npt.NDArray[np.float64]

_TRIED = 2000


def orientations(
    rng: np.random.Generator, few: np.random.Generator, views: int, n: int
) -> tuple[Rotations, npt.NDArray[np.int32]]:
    """N orientations (n, 3, 3), and which of the ``views`` each is, int32 (n,), from 1; all 0 where ``views`` is 0.

    ``few`` says which views there are, and is used for nothing else, ``rng`` draws from them.
    """
    if not views:
        return random_rotations(rng, n), np.zeros(n, np.int32)
    which = rng.integers(0, views, n)
    return in_plane(rng, well_apart(few, views)[which]), (which + 1).astype(np.int32)


def well_apart(rng: np.random.Generator, n: int) -> Rotations:
    """N orientations, float64 (n, 3, 3), whose viewing directions lie far from each other.

    Of random ones, each after the first is the one farthest from those chosen (Gonzalez, Theor. Comput. Sci. 38, 1985).
    Opposite directions count as one: they show the same picture in a mirror, which few particles tell apart.
    """
    tried = random_rotations(rng, _TRIED)
    # The beam is the microscope's z; the matrix's last row is where it lies in the map.
    along = tried[:, 2]
    chosen = [0]
    nearest = np.abs(along @ along[0])
    while len(chosen) < n:
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, np.abs(along @ along[chosen[-1]]))
    return tried[chosen]


def in_plane(rng: np.random.Generator, orientations: Rotations) -> Rotations:
    """Orientations (n, 3, 3), each turned by a random angle around the beam."""
    angle = rng.uniform(0, 2 * np.pi, len(orientations))
    turn = np.zeros((len(orientations), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 1, 0], turn[:, 2, 2] = np.sin(angle), 1
    turn[:, 0, 1] = -turn[:, 1, 0]
    found: Rotations = turn @ orientations
    return found
