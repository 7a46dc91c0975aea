"""Mean and standard deviation of a tomogram, of what is tomogram in it: one pass, box by box.

Gold, the edges of a reconstruction, NaN and the constant value with which programs pad are no part of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .ahead import ahead
from .told import Progress, Stop, Told
from .volume import Floats, Shape, Volume

CLIP = 6.0
"""Voxels are cut off at this many standard deviations from the mean: gold, X-rays, edges."""
NEAR = 5.0
"""Voxels within this many robust standard deviations of the median make the mean and the standard deviation."""
MOST_BAD = 0.2
"""A tomogram of which more than this share is no finite number is refused."""
_PADDING = 0.005
_SPIKE = 8.0
_BINS = 16384
_PLANES, _ROWS = 24, 48
_AT_ONCE = 8_000_000


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of a tomogram's voxels, in the file's values. ``low``, ``high``: where they are cut off.

    ``padding``: the values that fill what is no tomogram, and ``padded`` the share of voxels that have one; ``bad``:
    voxels that are NaN or infinite, of ``voxels``.
    """

    mean: float
    sd: float
    low: float
    high: float
    padding: tuple[float, ...] = ()
    padded: float = 0.0
    bad: int = 0
    voxels: int = 0

    def cleaned(self, data: Floats) -> Floats:
        """``data`` less the mean, in place: cut off, and 0 where it is padding or no finite number."""
        out = [data == np.float32(value) for value in self.padding]
        if self.bad:
            out.append(~np.isfinite(data))
        np.clip(data, np.float32(self.low), np.float32(self.high), out=data)
        data -= np.float32(self.mean)
        for mask in out:
            data[mask] = 0
        return data

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person has to know of the tomogram, a line each."""
        said = []
        if self.bad:
            said.append(f"{self.bad} of {self.voxels} voxels are NaN or infinite; the mean stands for them")
        if self.padding:
            values = ", ".join(f"{value:.6g}" for value in self.padding)
            said.append(f"{100 * self.padded:.1f} % of the voxels are padding ({values}); the mean stands for them")
        return tuple(said)


def statistics(
    volume: Volume, *, threads: int = 2, progress: Progress | None = None, stop: Stop | None = None
) -> Statistics:
    """Statistics of all voxels of ``volume``, read once, some 8 million at a time in ``threads``.

    A sample of rows says what is padding and where to expect the values; the pass counts every voxel in a histogram of
    16384 bins, whose mean and standard deviation are those of the voxels near the median. Raises ``ValueError`` where
    nothing is finite, more than a fifth is not, or all voxels have one value; ``Stopped`` when told to.
    """
    told = Told(progress, stop)
    sample = _sample(volume)
    finite = sample[np.isfinite(sample)]
    if not len(finite):
        raise ValueError("volume: of a sample of its voxels not one is a finite number; write the tomogram again")
    padding = _padding(finite)
    centre, spread = _scale(finite[~np.isin(finite, padding)])
    edges = (centre - 4 * NEAR * spread, centre + 4 * NEAR * spread)
    counts, bad, padded = np.zeros(_BINS + 2, np.int64), 0, 0
    boxes = _boxes(volume.shape)
    found = ahead(lambda box: _counted(volume.read(*box), edges, padding), boxes, threads)
    for done, (some, wrong, filled) in enumerate(found):
        counts, bad, padded = counts + some, bad + wrong, padded + filled
        told("statistics", done + 1, len(boxes))
    return _result(counts, edges, padding, bad, padded)


def _result(
    counts: npt.NDArray[np.int64], edges: tuple[float, float], padding: npt.NDArray[np.float32], bad: int, padded: int
) -> Statistics:
    voxels = int(counts.sum()) + bad + padded
    if bad > MOST_BAD * voxels:
        raise ValueError(
            f"volume: {bad} of {voxels} voxels are NaN or infinite, more than {100 * MOST_BAD:.0f} %; write the "
            "tomogram again"
        )
    mean, sd = _moments(counts[1:-1], edges)
    return Statistics(
        mean, sd, mean - CLIP * sd, mean + CLIP * sd, tuple(float(v) for v in padding), padded / voxels, bad, voxels
    )


def _moments(counts: npt.NDArray[np.int64], edges: tuple[float, float]) -> tuple[float, float]:
    """Mean and s.d. of the values near the median of a histogram."""
    step = (edges[1] - edges[0]) / _BINS
    values = edges[0] + (np.arange(_BINS) + 0.5) * step
    share = np.cumsum(counts) / max(counts.sum(), 1)
    low, middle, high = (values[min(int(np.searchsorted(share, q)), _BINS - 1)] for q in (0.15865, 0.5, 0.84135))
    near = np.abs(values - middle) <= NEAR * max((high - low) / 2, step)
    mean = float(np.average(values[near], weights=counts[near]))
    return mean, float(np.sqrt(np.average((values[near] - mean) ** 2, weights=counts[near])))


def _scale(values: Floats) -> tuple[float, float]:
    """Median and a spread above 0 of a sample."""
    if len(values):
        low, middle, high = np.percentile(values.astype(np.float64), (15.865, 50, 84.135))
        spread = float(high - low) / 2 or float(values.std(dtype=np.float64))
        if spread > 1e-6 * abs(float(middle)):
            return float(middle), spread
    raise ValueError("volume: all voxels of a sample have one value; there is nothing to find in it")


def _sample(volume: Volume) -> Floats:
    """Rows spread evenly over the volume, its first and last among them, float32 (n,)."""
    z, y, x = volume.shape
    planes = np.unique(np.linspace(0, z - 1, _PLANES).astype(int)).tolist()
    across = np.unique(np.linspace(0, y - 1, _ROWS).astype(int)).tolist()
    return np.concatenate([volume.read((k, j, 0), (k + 1, j + 1, x)).ravel() for k in planes for j in across])


def _padding(sample: Floats) -> npt.NDArray[np.float32]:
    """Values that too many voxels have: far more than have the values beside them, as those of whole numbers have."""
    values, counts = np.unique(sample, return_counts=True)
    often = np.flatnonzero(counts > _PADDING * len(sample))
    found = []
    for at in often.tolist():
        beside = np.concatenate([counts[max(at - 4, 0) : at], counts[at + 1 : at + 5]])
        if len(beside) and counts[at] > _SPIKE * beside.max():
            found.append(values[at])
    return np.array(found, np.float32)


def _boxes(shape: Shape) -> list[tuple[Shape, Shape]]:
    """The volume in slabs, of parts of planes where a plane is large."""
    z, y, x = shape
    rows = max(1, min(y, _AT_ONCE // x))
    deep = max(1, _AT_ONCE // (rows * x))
    return [((k, j, 0), (min(k + deep, z), min(j + rows, y), x)) for k in range(0, z, deep) for j in range(0, y, rows)]


def _counted(
    data: Floats, edges: tuple[float, float], padding: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], int, int]:
    """Voxels per bin, the first and last bin for what lies outside ``edges``; voxels not finite; voxels of padding."""
    values = data.ravel()
    finite = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(finite))
    if bad:
        values = values[finite]
    whole = values.size
    for value in padding:
        values = values[values != value]
    step = (edges[1] - edges[0]) / _BINS
    at = (values - np.float32(edges[0])) / np.float32(step) + 1
    np.clip(at, 0, _BINS + 1, out=at)
    return np.bincount(at.astype(np.int32), minlength=_BINS + 2), bad, whole - values.size
