"""Builds the scene of a simulated tomogram: bilayers, macromolecules, a carbon film, gold.

Densities are those above ice, 1 the mean of protein. Nothing overlaps; what leaves the field is cut by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..particles.maps import load_map
from . import surfaces
from .scene import CLASSES, Doubles, Kind, Particles, Scene, SceneOptions
from .tilts import angles
from .volume import Floats, Shape

GOLD, CARBON, GOLD_RADIUS_A = 8.0, 1.3, 50.0
_GAP_A, _TRIES = 20.0, 60
_OUTLINE_A, _LEVEL = 25.0, 0.25


def checked(options: SceneOptions) -> SceneOptions:
    """The options as they are, their maps read. Raises what ``load_map`` does for one that cannot be."""
    for kind in options.kinds:
        _body(kind.map)
    return options


def build(rng: np.random.Generator, options: SceneOptions) -> Scene:
    """A scene with its margin. Raises what ``load_map`` does for a map that cannot be read."""
    nz, ny, nx = options.shape
    shape = (nz, ny + 2 * options.margin, nx + 2 * options.margin)
    scene = Scene(
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.uint8),
        np.zeros(shape, bool),
        np.full(shape, 1e3, np.float32),
    )
    if rng.random() < options.carbon:
        _carbon(scene, rng, options)
    for sheet in _sheets(scene, rng, options):
        _membrane(scene, sheet, options.voxel_a)
    _gold(scene, rng, options)
    volume = math.prod(shape) * options.voxel_a**3 / 1e9
    counts = [rng.uniform(*kind.number) * volume for kind in options.kinds]
    for kind, count in sorted(zip(options.kinds, counts, strict=True), key=lambda pair: -_body(pair[0].map)[2]):
        for _ in range(int(count + rng.random())):
            _particle(scene, rng, kind, options.voxel_a)
    return scene


def _sheets(scene: Scene, rng: np.random.Generator, options: SceneOptions) -> Iterator[surfaces.Sheet]:
    shape, tilts = scene.labels.shape, angles(*options.tilts)
    reach = surfaces.THICKNESS_A / options.voxel_a
    for _ in range(rng.integers(options.sheets[0], options.sheets[1], endpoint=True)):
        yield surfaces.sheet(shape, rng, options.voxel_a, tilts)
    for _ in range(rng.integers(options.vesicles[0], options.vesicles[1], endpoint=True)):
        radius = rng.uniform(*options.vesicle_nm) * 10 / options.voxel_a
        centre = _free(scene, rng, 1.1 * radius + reach, cut=True)
        if centre is not None:
            yield surfaces.vesicle(shape, centre, radius, rng, tilts, reach + 30)


def _free(scene: Scene, rng: np.random.Generator, radius: float, *, cut: bool = False) -> Doubles | None:
    """A place (x, y, z) for a ball of ``radius`` voxels, None where none was found; ``cut``: it may leave the ice."""
    nz, ny, nx = scene.labels.shape
    low = 0.0 if cut else min(radius, (nz - 1) / 2)
    places = np.array([place for place, *_ in scene.placed]).reshape(-1, 3)
    sizes = np.array([size for _, size, *_ in scene.placed])
    for _ in range(_TRIES):
        at = np.array([rng.uniform(0, nx - 1), rng.uniform(0, ny - 1), rng.uniform(low, nz - 1 - low)])
        if cut:
            at[2] = (nz - 1) * rng.uniform(0.35, 0.65)
        x, y, z = np.rint(at).astype(int)
        if scene.clear[z, y, x] < radius:
            continue
        if (np.linalg.norm(places - at, axis=1) > radius + sizes).all():
            return at
    return None


def _membrane(scene: Scene, sheet: surfaces.Sheet, voxel_a: float) -> None:
    box = sheet.box
    free = (scene.clear[box] > 0) & (scene.labels[box] == 0)
    scene.matter[box] += np.where(free, surfaces.bilayer(sheet.distance, voxel_a), 0)
    half = surfaces.THICKNESS_A / 2 / voxel_a
    inside = free & (np.abs(sheet.distance) <= half)
    scene.labels[box][inside] = CLASSES.index("membrane")
    scene.hidden[box] |= inside & sheet.hidden
    np.minimum(scene.clear[box], np.abs(sheet.distance) - half, out=scene.clear[box])


def _carbon(scene: Scene, rng: np.random.Generator, options: SceneOptions) -> None:
    depth = surfaces.carbon(scene.labels.shape, rng, options.voxel_a, options.margin)
    film = np.clip(depth + 0.5, 0, 1)
    # Amorphous: its density varies from voxel to voxel.
    grain = ndimage.gaussian_filter(rng.standard_normal(film.shape, dtype=np.float32), 0.7)
    scene.other += CARBON * film * (1 + 0.5 * grain / grain.std())
    scene.labels[film > 0.5] = CLASSES.index("carbon")
    np.minimum(scene.clear, -depth, out=scene.clear)


def _gold(scene: Scene, rng: np.random.Generator, options: SceneOptions) -> None:
    radius = GOLD_RADIUS_A / options.voxel_a
    for _ in range(rng.integers(options.gold[0], options.gold[1], endpoint=True)):
        at = _free(scene, rng, radius + 1)
        if at is None:
            continue
        box, away = _around(scene.labels.shape, at, radius + 2)
        ball = np.clip(radius + 0.5 - away, 0, 1)
        scene.other[box] += GOLD * ball
        scene.labels[box][ball > 0.5] = CLASSES.index("gold")
        scene.placed.append((at, radius, CLASSES.index("gold"), "gold", np.eye(3)))


def _particle(scene: Scene, rng: np.random.Generator, kind: Kind, voxel_a: float) -> None:
    _, map_voxel_a, diameter_a = _body(kind.map)
    radius = diameter_a / 2 / voxel_a
    at = _free(scene, rng, radius + _GAP_A / voxel_a)
    if at is None:
        return
    turn = np.asarray(Rotation.random(random_state=rng).as_matrix(), np.float64)
    box, _ = _around(scene.labels.shape, at, radius + 2)
    found = turned(_blurred(kind.map, round(voxel_a, 3)), map_voxel_a, turn, at, box, voxel_a)
    scene.matter[box] += kind.density * found
    # As coarse as what is asked for: the outline of a particle, not the channels in it.
    outline = ndimage.gaussian_filter(found, _OUTLINE_A / voxel_a) > _LEVEL
    scene.labels[box][outline & (scene.labels[box] == 0)] = CLASSES.index(kind.label)
    scene.placed.append((at, radius, CLASSES.index(kind.label), kind.map, turn))


def _around(shape: Shape, at: Doubles, reach: float) -> tuple[tuple[slice, slice, slice], Floats]:
    """The box around ``at`` (x, y, z), cut by the volume, and each voxel's distance from it."""
    low = [max(math.floor(c - reach), 0) for c in at[::-1]]
    high = [min(math.ceil(c + reach) + 1, n) for c, n in zip(at[::-1], shape, strict=True)]
    z, y, x = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    away = np.sqrt((z - at[2]) ** 2 + (y - at[1]) ** 2 + (x - at[0]) ** 2).astype(np.float32)
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), away


def turned(
    body: Floats,
    body_voxel_a: float,
    rotation: Doubles,
    at: Doubles,
    box: tuple[slice, slice, slice],
    voxel_a: float,
) -> Floats:
    """A map's density, float32, at the voxels of ``box``: turned by ``rotation`` (x, y, z), its centre ``at``."""
    shape = tuple(axis.stop - axis.start for axis in box)
    # In the order z, y, x, and from the tomogram back to the map.
    back = np.linalg.inv(rotation)[::-1, ::-1] * (voxel_a / body_voxel_a)
    start = np.array([axis.start for axis in box]) - at[::-1]
    offset = back @ start + len(body) // 2
    found: Floats = ndimage.affine_transform(body, back, offset, shape, order=1, output=np.float32)
    return found


@lru_cache(maxsize=32)
def _body(name: str) -> tuple[Floats, float, float]:
    volume = load_map(name)
    return volume.data, volume.voxel_a, volume.diameter_a


@lru_cache(maxsize=32)
def _blurred(name: str, voxel_a: float) -> Floats:
    """A map as coarse as the voxels it is sampled with."""
    data, own, _ = _body(name)
    found: Floats = ndimage.gaussian_filter(data, 0.4 * voxel_a / own)
    return found


def particles(scene: Scene, options: SceneOptions) -> Particles:
    """The particles whose centre is in the field, in its voxels."""
    rows = scene.placed
    xyz = np.array([at for at, *_ in rows], np.float32).reshape(-1, 3)
    xyz -= np.array([options.margin, options.margin, 0], np.float32)
    nz, ny, nx = options.shape
    whole = Particles(
        xyz,
        np.array([label for _, _, label, _, _ in rows], np.uint8),
        tuple(Path(name).name.split(".")[0] for *_, name, _ in rows),
        np.array([turn for *_, turn in rows], np.float32).reshape(-1, 3, 3),
        np.array([2 * radius * options.voxel_a for _, radius, *_ in rows], np.float32),
    )
    inside = (xyz >= 0) & (xyz <= np.array([nx, ny, nz]) - 1)
    return whole.take(np.asarray(inside.all(1), np.bool_))
