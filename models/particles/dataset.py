"""Labelled micrographs as training takes them: at the network's pixel size, checked, split by micrograph."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from .candidates import Floats, Labelled
from .prepare import prepare, scale_factor, to_full, to_small
from .recipes import Progress

LEAST_PARTICLES = 10
LEAST_MICROGRAPHS = 2
_APART = 1e7
"""Distance between micrographs in the one tree that holds all their particles; more than any micrograph's width."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """A labelled micrograph as the network sees it.

    ``image``: float32 (ny, nx), rescaled and normalised by ``prepare``. ``particles``, ``wrong``: float64 (n, 2), x
    and y of particles and of verified false positives, in pixels of ``image``. ``factor``: pixels of the micrograph per
    pixel.
    """

    labelled: Labelled
    image: Floats
    particles: Points
    wrong: Points
    factor: float

    @property
    def name(self) -> str:
        """The micrograph's."""
        return self.labelled.name

    def to_full(self, points: Points) -> Points:
        """Points (n, 2) in pixels of the micrograph."""
        return to_full(points, self.factor)


def scaled(labelled: Labelled, pixel_a: float, diameter_a: float) -> Scaled:
    """Load, check, rescale and normalise one micrograph. Raises ``ValueError`` that names it and the remedy."""
    try:
        image = labelled.load()
        factor = scale_factor(labelled.pixel_a, pixel_a)
        _check_inside(labelled, image.shape)
        small = prepare(image, labelled.pixel_a, pixel_a, diameter_a)
    except ValueError as error:
        raise ValueError(f"{labelled.name}: {error}") from None
    particles = np.stack([to_small(labelled.x, factor), to_small(labelled.y, factor)], 1)
    wrong = np.stack([to_small(labelled.wrong_x, factor), to_small(labelled.wrong_y, factor)], 1)
    return Scaled(labelled, small, particles, wrong, factor)


def scale_all(
    micrographs: Sequence[Labelled], pixel_a: float, diameter_a: float, progress: Progress, workers: int = 2
) -> list[Scaled]:
    """``scaled`` for all, a few at a time: what is kept in memory is small, what is loaded may not be."""
    found: list[Scaled] = []
    with ThreadPoolExecutor(workers) as pool:
        for one in pool.map(lambda m: scaled(m, pixel_a, diameter_a), micrographs):
            found.append(one)
            progress("prepare micrographs", len(found), len(micrographs))
    return found


def check(micrographs: Sequence[Labelled]) -> None:
    """What can be said before anything is loaded. Raises ``ValueError`` for too little of everything."""
    if len(micrographs) < LEAST_MICROGRAPHS:
        raise ValueError(
            f"{len(micrographs)} labelled micrographs: at least {LEAST_MICROGRAPHS} are needed, because some are held "
            "back to choose the threshold; give more, or cut one into halves"
        )
    twice = {m.name for m in micrographs if sum(m.name == other.name for other in micrographs) > 1}
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))}: given more than once; give every micrograph once")
    for one in micrographs:
        if one.x.shape != one.y.shape or one.x.ndim != 1:
            raise ValueError(f"{one.name}: x and y have shapes {one.x.shape} and {one.y.shape}; both must be (n,)")


def _check_inside(one: Labelled, shape: tuple[int, ...]) -> None:
    ny, nx = shape
    x, y = np.concatenate([one.x, one.wrong_x]), np.concatenate([one.y, one.wrong_y])
    outside = ~((x >= -0.5) & (x <= nx - 0.5) & (y >= -0.5) & (y <= ny - 0.5))
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"{int(outside.sum())} of {len(x)} coordinates lie outside its {nx} × {ny} pixels, the first at "
            f"({x[first]:g}, {y[first]:g}); are they of another binning, or of another micrograph?"
        )


def split(micrographs: Sequence[Labelled], share: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Training and validation micrographs: about ``share`` of them validate, at least one, drawn from the seed.

    A micrograph is in one of them only, so that no background is seen twice. Only micrographs with particles validate.
    Raises ``ValueError`` where fewer than 10 particles are left to train from, or none to validate with.
    """
    order = np.random.default_rng(seed).permutation(len(micrographs))
    count = max(1, round(share * len(micrographs)))
    held = [int(i) for i in order if len(micrographs[i].x)][:count]
    return divide(micrographs, [micrographs[i].name for i in held])


def divide(micrographs: Sequence[Labelled], names: Sequence[str]) -> tuple[list[Labelled], list[Labelled]]:
    """Training and validation micrographs, of which those ``names`` validate. Raises as ``split``."""
    rest, held = [m for m in micrographs if m.name not in names], [m for m in micrographs if m.name in names]
    particles = sum(len(m.x) for m in rest)
    if not sum(len(m.x) for m in held) or particles < LEAST_PARTICLES:
        raise ValueError(
            f"{particles} particles on {len(rest)} micrographs to train from: at least {LEAST_PARTICLES} are needed, "
            "and one more micrograph with particles to validate on; label more"
        )
    return rest, held


class Ground:
    """All particles of some micrographs in one tree, to ask how far a place is from the nearest.

    ``points``: float64 (n, 3), x, y, and which micrograph, of the particles; ``wrong``: likewise, of what is known to
    be none: verified false positives, and what ``add`` was told.
    """

    def __init__(self, fields: Sequence[Scaled]) -> None:
        self.fields = fields
        self.shapes = np.array([f.image.shape for f in fields])
        self.points = _stacked([f.particles for f in fields])
        self.wrong = _stacked([f.wrong for f in fields])
        self._tree = cKDTree(self.points * (1, 1, _APART))

    def add(self, wrong: Points) -> None:
        """Remember more places (n, 3) that are no particles."""
        self.wrong = np.concatenate([self.wrong, wrong])

    def distance(self, x: npt.ArrayLike, y: npt.ArrayLike, field: npt.ArrayLike) -> Points:
        """Pixels to the nearest particle of the same micrograph, shape as given; infinite where it has none."""
        places = np.stack(np.broadcast_arrays(x, y, np.asarray(field) * _APART), -1)
        found: Points = self._tree.query(places, distance_upper_bound=_APART / 2)[0]
        return found

    def cut(self, corners: npt.NDArray[np.intp], size: int) -> Floats:
        """Squares (n, size, size) whose first pixels are ``corners`` (n, 3): x, y, micrograph."""
        found = np.empty((len(corners), size, size), np.float32)
        for box, (x, y, field) in zip(found, corners, strict=True):
            box[...] = self.fields[field].image[y : y + size, x : x + size]
        return found

    def corners(self, places: Points, size: int, inside: bool = True) -> npt.NDArray[np.intp]:
        """First pixels (n, 3) of the squares whose middles are nearest to ``places`` (n, 3).

        With ``inside``, squares that reach over an edge are moved in; without it, they are left out.
        """
        wanted = np.rint(places[:, :2] - (size - 1) / 2).astype(np.intp)
        field = places[:, 2].astype(np.intp)
        last = self.shapes[field][:, ::-1] - size
        kept = np.clip(wanted, 0, last)
        found = np.concatenate([kept, field[:, None]], 1)
        return found if inside else found[(kept == wanted).all(1)]

    def anywhere(self, rng: np.random.Generator, count: int, size: int) -> npt.NDArray[np.intp]:
        """First pixels (count, 3) of squares drawn evenly from all the area there is."""
        room = (self.shapes - size + 1).clip(0).astype(np.float64)
        field = rng.choice(len(room), count, p=room.prod(1) / room.prod(1).sum())
        y, x = (rng.random(count) * room[field, axis] for axis in (0, 1))
        return np.stack([x.astype(np.intp), y.astype(np.intp), field.astype(np.intp)], 1)


def _stacked(points: Sequence[Points]) -> Points:
    parts = [np.concatenate([p, np.full((len(p), 1), float(i))], 1) for i, p in enumerate(points)]
    return np.concatenate(parts) if parts else np.zeros((0, 3))


def describe(fields: Sequence[Scaled]) -> dict[str, Any]:
    """Micrographs, particles and verified false positives, in numbers, and the names of up to 50 micrographs."""
    return {
        "micrographs": len(fields),
        "particles": int(sum(len(f.particles) for f in fields)),
        "verified_false_positives": int(sum(len(f.wrong) for f in fields)),
        "names": [f.name for f in fields[:50]],
    }
