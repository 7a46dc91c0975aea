"""What lies on a grid beside particles: the carbon film's edge, ice crystals, gold; and where particles find room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

HOLE_RADIUS_A = 6000.0  # a foil with holes of 1.2 µm
_COARSE = 8


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], period_px: float) -> Floats:
    """Smooth noise of mean 0 and s.d. about 1 that changes over ``period_px`` pixels: cubic between random nodes."""
    nodes = [max(2, int(np.ceil(side / period_px)) + 1) + 2 for side in shape]
    coarse = ndimage.spline_filter(rng.standard_normal(nodes), order=3, mode="mirror").astype(np.float32)
    # A spline is linear in its nodes, so two products of matrices are all the work that a large picture takes.
    down, across = (_spline_weights(side, n) for side, n in zip(shape, nodes, strict=True))
    found: Floats = down @ coarse @ across.T
    return found


def _spline_weights(side: int, nodes: int) -> Floats:
    """Weights (side, nodes) of the nodes of a cubic B-spline at pixels that span all but the outermost two nodes."""
    away = np.abs(np.linspace(1, nodes - 2, side)[:, None] - np.arange(nodes))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.maximum(2 - away, 0) ** 3 / 6
    return np.where(away < 1, near, far).astype(np.float32)


def carbon_film(rng: np.random.Generator, shape: tuple[int, int], pixel_a: float, fraction: float) -> Floats:
    """Thickness 0..1 of a carbon film that covers ``fraction`` of the picture, ending at the edge of a round hole."""
    angle = rng.uniform(0, 2 * np.pi)
    ny, nx = shape
    radius = HOLE_RADIUS_A / pixel_a
    x0 = nx / 2 - radius * np.cos(angle)
    y0 = ny / 2 - radius * np.sin(angle)
    away = np.hypot(np.arange(nx, dtype=np.float32) - x0, (np.arange(ny, dtype=np.float32) - y0)[:, None])
    away = away.astype(np.float32) + np.float32(40 / pixel_a) * smooth_noise(rng, shape, 500 / pixel_a)
    edge = np.quantile(away[::_COARSE, ::_COARSE], 1 - fraction)
    film: Floats = np.clip(0.5 + (away - np.float32(edge)) * np.float32(pixel_a / 20), 0, 1)
    return film


@dataclass(frozen=True, slots=True)
class Blob:
    """A dark body: centre and outer radius in pixels, and its thickness map (n, n) with the centre in the middle."""

    x: float
    y: float
    radius: float
    thickness: Floats


def ice_crystal(rng: np.random.Generator, shape: tuple[int, int], pixel_a: float, diameter_a: float) -> Blob:
    """Two to five angular bodies on each other, together 0.6 to 3 particle diameters wide, with sharp edges."""
    reach = diameter_a / pixel_a * float(np.exp(rng.uniform(np.log(0.3), np.log(1.5))))
    half = int(np.ceil(reach)) + 3
    at = np.arange(-half, half + 1, dtype=np.float32)
    total = np.zeros((2 * half + 1,) * 2, np.float32)
    for _ in range(int(rng.integers(2, 6))):
        size = reach * rng.uniform(0.3, 0.65)
        away, towards = rng.uniform(0, reach - size), rng.uniform(0, 2 * np.pi)
        dx, dy = at[None, :] - away * np.cos(towards), at[:, None] - away * np.sin(towards)
        sides = int(rng.integers(6, 12))
        angles = (np.arange(sides) + rng.uniform(0, 0.8, sides)) * 2 * np.pi / sides
        planes = [size * rng.uniform(0.75, 1.0) - dx * np.cos(a) - dy * np.sin(a) for a in angles]
        depth = np.maximum(np.min(planes, axis=0), 0) / size
        # A wall at the edge, then rising to the middle as a lump of ice does.
        total += (np.clip(depth * size * pixel_a / 15, 0, 1) * (0.25 + 0.75 * np.sqrt(depth))).astype(np.float32)
    total *= np.clip(1 + 0.25 * smooth_noise(rng, total.shape, 60 / pixel_a), 0, None)
    y, x = (rng.uniform(0, side) for side in shape)
    return Blob(float(x), float(y), float(half), total)


def bead(rng: np.random.Generator, shape: tuple[int, int], pixel_a: float) -> Blob:
    """A gold bead: a sphere 50 to 120 Å wide."""
    radius = rng.uniform(25, 60) / pixel_a
    half = int(np.ceil(radius)) + 1
    at = np.arange(-half, half + 1, dtype=np.float32)
    chord = np.sqrt(np.maximum(radius**2 - at[None, :] ** 2 - at[:, None] ** 2, 0)) / radius
    y, x = (rng.uniform(0, side) for side in shape)
    return Blob(float(x), float(y), float(half), chord.astype(np.float32))


def stamp(canvas: Floats, patch: Floats, x: float, y: float) -> None:
    """Add a patch to the canvas with its middle pixel on the pixel nearest to (x, y); what sticks out is cut off.

    ``canvas`` (ny, nx) is changed; ``patch`` (m, n); ``x``, ``y`` in the canvas's pixels.
    """
    top, left = (round(c) - s // 2 for c, s in zip((y, x), patch.shape, strict=True))
    rows = slice(max(top, 0), max(0, min(top + patch.shape[0], canvas.shape[0])))
    columns = slice(max(left, 0), max(0, min(left + patch.shape[1], canvas.shape[1])))
    if rows.start < rows.stop and columns.start < columns.stop:
        part = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        canvas[rows, columns] += part


class Room:
    """Where centres may still be put: away from the picture's edge, from a mask, and from the centres before."""

    def __init__(self, shape: tuple[int, int], border_px: float, blocked: Mask | None, margin_px: float) -> None:
        self._shape, self._border = shape, border_px
        self._free: Floats | None = None
        self._margin = margin_px
        if blocked is not None and blocked.any():
            coarse = blocked[::_COARSE, ::_COARSE]
            self._free = (ndimage.distance_transform_edt(~coarse) * _COARSE).astype(np.float32)
        self.taken: list[tuple[float, float, float]] = []

    def find(self, rng: np.random.Generator, keep_off_px: float, tries: int = 200) -> tuple[float, float] | None:
        """A centre at least ``keep_off_px`` from all others (more where another asks so), or None after ``tries``."""
        ny, nx = self._shape
        if 2 * self._border >= min(nx, ny) - 1:
            return None
        taken = np.array(self.taken, dtype=np.float64).reshape(-1, 3)
        for x, y in (
            rng.uniform(0, 1, (tries, 2)) * (nx - 1 - 2 * self._border, ny - 1 - 2 * self._border) + self._border
        ):
            if self._free is not None and self._free[int(y) // _COARSE, int(x) // _COARSE] < self._margin:
                continue
            if (np.hypot(taken[:, 0] - x, taken[:, 1] - y) >= np.maximum(taken[:, 2], keep_off_px)).all():
                return float(x), float(y)
        return None

    def take(self, x: float, y: float, keep_off_px: float) -> None:
        """Say that a centre is taken; others keep at least ``keep_off_px`` away from it."""
        self.taken.append((x, y, keep_off_px))
