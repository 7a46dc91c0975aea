"""A tilt series and its weighted back-projection, so that a simulated tomogram has a real one's missing wedge.

A tilt is a turn about y. A voxel at (x, z) from the middle of the volume is seen at u = x cos t + z sin t; it gives
what it holds to the two pixels beside u, in the shares of linear interpolation, and back-projection reads those two
pixels with the same shares. Both are one sparse matrix, the same for every row y. Weighting is by the frequency along u
(Radermacher, "Weighted back-projection methods", in: Electron Tomography, Frank ed., 2006, section 3), no window.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft, sparse

from .volume import Floats, Shape

Doubles = npt.NDArray[np.float64]


def angles(low: float, high: float, step: float) -> Doubles:
    """Tilts in degrees from ``low`` to ``high``, every ``step``. Raises ``ValueError`` for what no stage does."""
    if not (-80 <= low < high <= 80 and 0 < step <= high - low):
        raise ValueError(f"tilts: from {low:g} to {high:g} every {step:g} degrees is no series; write -60, 50, 4, say")
    found: Doubles = low + step * np.arange(math.floor((high - low) / step + 1e-6) + 1, dtype=np.float64)
    return found


def shown(x: npt.NDArray[np.floating], z: npt.NDArray[np.floating], tilts: Doubles) -> npt.NDArray[np.bool_]:
    """Whether the series shows a surface whose unit normal has these parts along x and z: arrays that broadcast.

    A surface's Fourier transform lies along its normal, and tilt t gives the plane of y and (cos t, sin t) in x and z.
    What is at right angles to the beam within 14° is shown whatever its turn: a bent surface spreads so far.
    """
    turn = np.degrees(np.arctan2(z, x))
    turn = (turn + 90) % 180 - 90
    found: npt.NDArray[np.bool_] = ((turn >= tilts.min()) & (turn <= tilts.max())) | (np.abs(z) < 0.25)
    return found


def project(volume: Floats, tilts: Doubles) -> Floats:
    """Projections (tilts, y, x), float32, of ``volume`` (z, y, x); what lies outside of the volume is empty."""
    nz, ny, nx = volume.shape
    flat = np.ascontiguousarray(volume.transpose(0, 2, 1)).reshape(nz * nx, ny)
    seen = _matrix((nz, ny, nx), tuple(tilts)).T @ flat
    found: Floats = np.ascontiguousarray(seen.reshape(len(tilts), nx, ny).transpose(0, 2, 1))
    return found


def back_project(images: Floats, tilts: Doubles, thickness: int) -> Floats:
    """A volume (z, y, x), float32, ``thickness`` voxels along z, of projections (tilts, y, x) that are weighted."""
    count, ny, nx = images.shape
    flat = np.ascontiguousarray(images.transpose(0, 2, 1)).reshape(count * nx, ny)
    spread = _matrix((thickness, ny, nx), tuple(tilts)) @ flat
    found: Floats = np.ascontiguousarray(spread.reshape(thickness, nx, ny).transpose(0, 2, 1))
    return found


def weighted(images: Floats, transfer: Floats | None = None) -> Floats:
    """Projections (tilts, y, x) weighted by their frequency along x, and by ``transfer`` (y, x // 2 + 1) of rfft2."""
    nx = images.shape[-1]
    ramp = np.fft.rfftfreq(nx).astype(np.float32)
    # The mean of |k| over the frequencies that the first sample stands for; with 0 the specimen's mean would be lost.
    ramp[0] = 0.25 / nx
    return filtered(images, ramp if transfer is None else ramp * transfer)


def filtered(images: Floats, transfer: Floats) -> Floats:
    """Images (n, y, x) times ``transfer`` (y, x // 2 + 1) in Fourier space."""
    shape = images.shape[-2:]
    found: Floats = fft.irfft2(fft.rfft2(images) * transfer, shape).astype(np.float32, copy=False)
    return found


@lru_cache(maxsize=2)
def _matrix(shape: Shape, tilts: tuple[float, ...]) -> sparse.csr_array:
    """Shares, float32 (z * x, tilts * x): a voxel's row names the pixels it is seen at, for all tilts."""
    nz, _, nx = shape
    z, x = np.mgrid[:nz, :nx].astype(np.float64)
    z, x = z.ravel() - (nz - 1) / 2, x.ravel() - (nx - 1) / 2
    rows, columns, shares = [], [], []
    for number, tilt in enumerate(np.radians(tilts)):
        u = x * math.cos(tilt) + z * math.sin(tilt) + (nx - 1) / 2
        first = np.floor(u).astype(np.int64)
        for pixel, share in ((first, first + 1 - u), (first + 1, u - first)):
            seen = np.flatnonzero((pixel >= 0) & (pixel < nx) & (share > 0))
            rows.append(seen)
            columns.append(pixel[seen] + number * nx)
            shares.append(share[seen].astype(np.float32))
    entries = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(entries, shape=(nz * nx, len(tilts) * nx))
