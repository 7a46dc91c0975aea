"""Particles cut out of a micrograph: boxes, Fourier-cropped, normalised as RELION normalises them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

from .candidates import Floats

_CHUNK = 64
_LEAST_BACKGROUND = 0.02


def corners(x: npt.ArrayLike, y: npt.ArrayLike, box_px: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First column and row of the boxes around centres: the nearest pixel (halves go up) minus ``box_px`` / 2.

    So the pixel nearest to the centre is pixel ``box_px`` / 2 of its box, as RELION has it, and the centre of rotation
    of programs that work with Fourier transforms.
    """
    half = box_px // 2
    column, row = (np.floor(np.asarray(c, np.float64) + 0.5).astype(np.intp) - half for c in (x, y))
    return column, row


def inside(shape: tuple[int, int], x: npt.ArrayLike, y: npt.ArrayLike, box_px: int) -> npt.NDArray[np.bool_]:
    """Which boxes lie wholly inside a micrograph of ``shape`` (ny, nx)."""
    column, row = corners(x, y, box_px)
    ny, nx = shape
    return (column >= 0) & (row >= 0) & (column + box_px <= nx) & (row + box_px <= ny)


def extract(
    image: npt.NDArray[np.generic],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    box_px: int,
    size: int,
    diameter_px: float,
    invert: bool,
    ramp: bool = False,
    edges: str = "fill",
) -> Floats:
    """Cut out, shrink and normalise particles: float32 (n, ``size``, ``size``), in the order of the centres.

    ``image``: (ny, nx), any real dtype. ``x``, ``y``: centres in its pixels, rounded as ``corners`` does (the fraction
    is lost, as in RELION; write it beside the particle where it matters). ``box_px``: edge of what is cut out,
    ``size``: of what is left of it after cropping its Fourier transform; both even, and the pixel size grows by their
    ratio. What of a box lies outside the micrograph, and pixels that are not finite, become the mean of its others;
    with ``edges`` ``drop`` a box that reaches outside is left out (``inside`` says which). ``ramp``: first take away
    the plane that fits the background best. Then mean 0 and s.d. 1 outside a circle of ``diameter_px`` (pixels of
    ``image``) around pixel size / 2; a background without any variance is left with 0. ``invert``: change the sign, for
    micrographs in which particles are dark: RELION wants them white.

    Raises ``ValueError`` for odd or impossible sizes, and centres outside the micrograph.
    """
    _check(image, box_px, size, edges)
    column, row = corners(x, y, box_px)
    ny, nx = image.shape
    half = box_px // 2
    beyond = (column < -half) | (row < -half) | (column + half >= nx) | (row + half >= ny)
    if beyond.any():
        at = int(np.flatnonzero(beyond)[0])
        place = f"({np.asarray(x)[at]:.1f}, {np.asarray(y)[at]:.1f})"
        raise ValueError(f"centre {at} at {place} lies outside the micrograph of {ny} × {nx} pixels")
    if edges == "drop":
        whole = inside((ny, nx), x, y, box_px)
        column, row = column[whole], row[whole]
    background = _outside(size, diameter_px * size / box_px)
    particles = np.empty((len(column), size, size), np.float32)
    for first in range(0, len(column), _CHUNK):
        some = slice(first, first + _CHUNK)
        boxes = _cut(image, column[some], row[some], box_px)
        particles[some] = _normalised(_cropped(boxes, size), background, ramp)
    return np.negative(particles, out=particles) if invert else particles


def _check(image: npt.NDArray[np.generic], box_px: int, size: int, edges: str) -> None:
    if image.ndim != 2:
        raise ValueError(f"image: its shape {image.shape} is not (ny, nx)")
    if box_px < 2 or box_px % 2 or size < 2 or size % 2:
        raise ValueError(f"box of {box_px} to {size} pixels: both must be even")
    if size > box_px:
        raise ValueError(f"box of {box_px} to {size} pixels: a particle is not enlarged; give a larger box")
    if edges not in ("fill", "drop"):
        raise ValueError(f"edges: {edges!r} is not fill or drop")


def _cut(
    image: npt.NDArray[np.generic], column: npt.NDArray[np.intp], row: npt.NDArray[np.intp], box_px: int
) -> Floats:
    """Boxes (n, box, box), filled with their own mean where there is nothing."""
    ny, nx = image.shape
    boxes = np.full((len(column), box_px, box_px), np.nan, np.float32)
    for box, x0, y0 in zip(boxes, column.tolist(), row.tolist(), strict=True):
        y1, x1 = min(y0 + box_px, ny), min(x0 + box_px, nx)
        box[max(-y0, 0) : y1 - y0, max(-x0, 0) : x1 - x0] = image[max(y0, 0) : y1, max(x0, 0) : x1]
    missing = ~np.isfinite(boxes)
    for at in np.flatnonzero(missing.any((1, 2))):
        there = boxes[at][~missing[at]]
        boxes[at][missing[at]] = there.mean(dtype=np.float64) if len(there) else 0.0
    return boxes


def _cropped(boxes: Floats, size: int) -> Floats:
    """Fourier-crop (n, box, box) to (n, size, size); pixel box / 2 goes to pixel size / 2, and means stay."""
    box = boxes.shape[-1]
    if size == box:
        return boxes
    half = size // 2
    seen = fft.rfft2(boxes)
    kept = np.concatenate([seen[:, :half, : half + 1], seen[:, box - half :, : half + 1]], axis=1)
    # Frequencies of exactly half the new rate stand for two: without them the result is real and symmetric.
    kept[:, half, :] = 0
    kept[:, :, half] = 0
    small: Floats = fft.irfft2(kept, s=(size, size)) * np.float32((size / box) ** 2)
    return small


def _outside(size: int, diameter: float) -> npt.NDArray[np.bool_]:
    """Pixels outside a circle around pixel size / 2."""
    away = np.arange(size) - size // 2
    background = away[:, None] ** 2 + away**2 > (diameter / 2) ** 2
    if background.mean() < _LEAST_BACKGROUND:
        raise ValueError(f"the particle of {diameter:.0f} pixels fills its box of {size}; give a larger box")
    found: npt.NDArray[np.bool_] = background
    return found


def _normalised(boxes: Floats, background: npt.NDArray[np.bool_], ramp: bool) -> Floats:
    rounding = 3e-7 * np.abs(boxes[:, background]).max(1, initial=0)  # what is no variance, but arithmetic
    if ramp:
        boxes = boxes - _planes(boxes, background)
    around = boxes[:, background].astype(np.float64)
    spread = around.std(1)
    scale = np.where(spread > rounding, spread, 1.0)
    found: Floats = ((boxes - around.mean(1)[:, None, None]) / scale[:, None, None]).astype(np.float32)
    return found


def _planes(boxes: Floats, background: npt.NDArray[np.bool_]) -> Floats:
    """The planes that fit the background of each box best, (n, size, size)."""
    size = boxes.shape[-1]
    y, x = np.nonzero(background)
    basis = np.stack([np.ones(len(x)), y - size / 2, x - size / 2])
    # Normal equations: three unknowns around the middle are well conditioned, and an SVD would cost more than the rest.
    level, down, across = np.linalg.solve(basis @ basis.T, basis @ boxes[:, background].T.astype(np.float64))
    away = np.arange(size) - size / 2
    planes = level[:, None, None] + down[:, None, None] * away[:, None] + across[:, None, None] * away
    found: Floats = planes.astype(np.float32)
    return found
