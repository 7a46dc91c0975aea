"""From a score map to candidates: local maxima, refined between grid points, thinned to a smallest distance."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from .candidates import Floats

Doubles: TypeAlias = npt.NDArray[np.float64]
_MOST_OFF = 0.75
_CHUNK = 8_000_000


def maxima(log_odds: Floats, floor: float) -> tuple[Doubles, Doubles, Floats]:
    """Local maxima of a score map: ``i``, ``j`` (float64, refined grid coordinates) and ``log_odds`` (float32), (n,).

    ``log_odds``: float32 (ny, nx). ``floor``: the least score, 0..1. A maximum is at least as high as its eight
    neighbours, and higher than one; the map's outermost ring has no neighbours and holds none. The place is refined to
    the top of the paraboloid fitted to the nine points by least squares, at most 0.75 grid points away.
    """
    least = math.log(floor / (1 - floor)) if floor > 0 else -math.inf
    if min(log_odds.shape) < 3:
        return np.empty(0), np.empty(0), np.empty(0, np.float32)
    near = ndimage.maximum_filter(log_odds, 3, mode="nearest")
    flat = ndimage.minimum_filter(log_odds, 3, mode="nearest") == near
    found = (log_odds == near) & ~flat & (log_odds >= least)
    found[[0, -1], :] = found[:, [0, -1]] = False
    i, j = np.nonzero(found)
    down, across = _tops(log_odds, i, j)
    return i + down, j + across, log_odds[i, j]


def _tops(surface: Floats, i: npt.NDArray[np.intp], j: npt.NDArray[np.intp]) -> tuple[Doubles, Doubles]:
    """Offsets (y, x) from grid points to the tops of the paraboloids through their 3 × 3 neighbourhoods."""
    steps = np.arange(-1, 2)
    f = surface[i[:, None, None] + steps[:, None], j[:, None, None] + steps].astype(np.float64)
    total, y, x = f.sum((1, 2)), f.sum(2), f.sum(1)
    by, bx = (y[:, 2] - y[:, 0]) / 6, (x[:, 2] - x[:, 0]) / 6
    cyy, cxx = (y[:, 0] + y[:, 2]) - total * 2 / 3, (x[:, 0] + x[:, 2]) - total * 2 / 3  # second derivatives
    cxy = (f[:, 0, 0] + f[:, 2, 2] - f[:, 0, 2] - f[:, 2, 0]) / 4
    det = cyy * cxx - cxy**2
    top = (cyy < 0) & (cxx < 0) & (det > 0)
    det = np.where(top, det, 1.0)
    dy, dx = -(cxx * by - cxy * bx) / det, -(cyy * bx - cxy * by) / det
    far = np.maximum(1.0, np.maximum(np.abs(dy), np.abs(dx)) / _MOST_OFF)
    return np.where(top, dy / far, 0.0), np.where(top, dx / far, 0.0)


def apart(x: npt.ArrayLike, y: npt.ArrayLike, score: npt.ArrayLike, distance: float) -> npt.NDArray[np.intp]:
    """Non-maximum suppression: indices of the points that stay, the best first.

    ``x``, ``y``, ``score``: (n,); ``distance`` in the unit of the points.

    Greedy: the best point stays, every point nearer than ``distance`` to it goes, and so on. Of equal scores the one
    that comes first in the arrays is better.
    """
    points = np.column_stack([np.asarray(x, np.float64), np.asarray(y, np.float64)])
    order = np.argsort(-np.asarray(score, np.float64), kind="stable")
    if not len(points) or distance <= 0:
        return order
    tree = cKDTree(points)
    there = np.ones(len(points), bool)
    kept = []
    reach = math.nextafter(distance, 0)  # points exactly that far apart both stay
    for at in order:
        if there[at]:
            kept.append(at)
            there[tree.query_ball_point(points[at], reach)] = False
    return np.array(kept, np.intp)


def disc_sd(image: Floats, x: npt.ArrayLike, y: npt.ArrayLike, diameter_px: float) -> Floats:
    """Standard deviation of the pixels in a disc around each point, float32 (n,).

    ``image``: float32 (ny, nx). Only pixels of the image count; a disc of none has 0.
    """
    radius = diameter_px / 2
    half = math.ceil(radius)
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    inside = dy**2 + dx**2 <= radius**2
    dy, dx = dy[inside], dx[inside]
    rows, columns = np.rint(np.asarray(y)).astype(np.intp), np.rint(np.asarray(x)).astype(np.intp)
    found = np.empty(len(rows), np.float32)
    step = max(1, _CHUNK // len(dy))
    for first in range(0, len(rows), step):
        some = slice(first, first + step)
        found[some] = _spread(image, rows[some, None] + dy, columns[some, None] + dx)
    return found


def _spread(image: Floats, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Doubles:
    ny, nx = image.shape
    there = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    values = np.where(there, image[rows.clip(0, ny - 1), columns.clip(0, nx - 1)], 0).astype(np.float64)
    count = np.maximum(there.sum(1), 1)
    mean = values.sum(1) / count
    spread: Doubles = np.sqrt(np.maximum((values**2).sum(1) / count - mean**2, 0))
    return spread
