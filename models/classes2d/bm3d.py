"""BM3D: denoising by shrinking the spectra of stacks of similar blocks.

Dabov, Foi, Katkovnik and Egiazarian, "Image denoising by sparse 3-D transform-domain collaborative filtering", IEEE
Trans. Image Process. 16 (2007), written from the paper: blocks are grouped with those that resemble them, each group is
transformed in three dimensions, small coefficients are set to zero (first step) or weighed by a Wiener filter that is
taken from the first result (second step), and all estimates of a pixel are averaged. Both steps use the discrete cosine
transform within a block, where the paper's first takes biorthogonal splines, and Haar's along the group. Distances are
in units of the noise's variance, since particle images have no grey scale of 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Progress = Callable[[str, int, int], None]
Shrink = Callable[[Indices], tuple[Floats, Floats]]
_BLOCKS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Bm3d:
    """Parameters, with the paper's values for a standard deviation of 25 of 255 (its table I, normal profile).

    ``block``: edge in pixels; ``step``: between reference blocks; ``window``: edge of the area that is searched.
    ``most``: blocks in a group of each step, a power of two. ``near``: largest mean square distance of a block from its
    reference in each step, in noise variances. ``cut``: of the first step, coefficients below so many standard
    deviations are noise. ``cut_match``: the same before blocks are compared, for much noise (0: not). ``beta``: of the
    Kaiser window with which blocks are averaged.
    """

    block: int = 8
    step: int = 3
    window: int = 39
    most: tuple[int, int] = (16, 32)
    near: tuple[float, float] = (4.0, 0.64)
    cut: float = 2.7
    cut_match: float = 0.0
    beta: float = 2.0


def bm3d(image: Floats, sigma: float, options: Bm3d | None = None) -> Floats:
    """The picture (ny, nx) float32 without the white noise of standard deviation ``sigma`` (in its units) that it has.

    Raises ``ValueError`` for a picture smaller than a block, and ``sigma`` of 0 or less.
    """
    how = options or Bm3d()
    noisy = np.ascontiguousarray(image, np.float32)
    if noisy.ndim != 2 or min(noisy.shape) < how.block:
        raise ValueError(f"image of shape {noisy.shape}: needed is (ny, nx), {how.block} pixels or more each")
    if not sigma > 0:
        raise ValueError(f"sigma: {sigma:g} is no standard deviation of noise; give one above 0")
    spectra = _spectra(noisy, how.block)
    groups = Groups(noisy.shape, how)
    basic = _first(spectra, groups, sigma, how)
    return _second(spectra, _spectra(basic, how.block), groups, sigma, how)


def bm3d_all(images: Floats, sigma: float, options: Bm3d | None = None, progress: Progress | None = None) -> Floats:
    """``bm3d`` of each of (n, ny, nx)."""
    found = np.empty(images.shape, np.float32)
    for at, image in enumerate(images):
        found[at] = bm3d(image, sigma, options)
        if progress and (at % 20 == 19 or at == len(images) - 1):
            progress("BM3D", at + 1, len(images))
    return found


class Groups:
    """Which blocks are references, and which are like them. Blocks are numbered by their corner, row by row."""

    def __init__(self, shape: tuple[int, ...], how: Bm3d) -> None:
        self.shape = (shape[0], shape[1])
        self._rows, self._columns = (n - how.block + 1 for n in self.shape)
        self._half = how.window // 2
        # The last block of a row or column is a reference, too, so that each pixel is in one.
        self._y, self._x = (np.unique(np.append(np.arange(0, n, how.step), n - 1)) for n in (self._rows, self._columns))
        edge = np.kaiser(how.block, how.beta).astype(np.float32)
        self._window = np.outer(edge, edge).ravel()
        offsets = np.arange(how.block)
        self._within = (offsets[:, None] * shape[1] + offsets).ravel()

    def alike(self, features: Floats, most: int, near: float) -> list[Indices]:
        """Groups by size: for each power of two up to ``most`` block numbers (references, size), the nearest first.

        ``features``: (blocks, values), compared by mean square difference, which is at most ``near``.
        """
        by_size: dict[int, list[Indices]] = {}
        length = (features * features).sum(1)
        for y in self._y:
            first, far = self._distances(features, length, y)
            count = min(most, far.shape[1])
            nearest = np.argpartition(far, count - 1, axis=1)[:, :count]
            order = np.argsort(np.take_along_axis(far, nearest, 1), axis=1)
            nearest = np.take_along_axis(nearest, order, 1)
            found = (np.take_along_axis(far, nearest, 1) <= near * features.shape[1]).sum(1)
            for size, at in _by_power(found):
                by_size.setdefault(size, []).append(nearest[at, :size] + first)
        return [np.concatenate(parts) for parts in by_size.values()]

    def _distances(self, features: Floats, length: Floats, y: int) -> tuple[int, Floats]:
        """Square distances (references in row ``y``, blocks of the rows around it), and the first of those blocks."""
        low, high = max(0, y - self._half), min(self._rows, y + self._half + 1)
        band = slice(low * self._columns, high * self._columns)
        own = y * self._columns + self._x
        far: Floats = length[own, None] + length[None, band] - 2 * features[own] @ features[band].T
        x = np.arange(far.shape[1]) % self._columns
        far[np.abs(x - self._x[:, None]) > self._half] = np.inf
        # Rounding must not put another block before the reference itself.
        far[np.arange(len(own)), own - band.start] = -1
        return band.start, far

    def averaged(self, groups: list[Indices], shrink: Shrink) -> Floats:
        """The picture of what ``shrink`` makes of each group of blocks: the blocks, and a weight for each group."""
        total, weights = (np.zeros(self.shape[0] * self.shape[1]) for _ in range(2))
        for members in groups:
            for some in np.array_split(members, max(1, members.size // _BLOCKS_AT_ONCE)):
                blocks, weight = shrink(some)
                y, x = np.divmod(some, self._columns)
                pixels = ((y * self.shape[1] + x)[..., None] + self._within).ravel()
                share = np.broadcast_to(weight[:, None, None] * self._window, blocks.shape)
                total += np.bincount(pixels, (blocks * share).ravel(), len(total))
                weights += np.bincount(pixels, share.ravel(), len(weights))
        found: Floats = (total / weights).reshape(self.shape).astype(np.float32)
        return found


def _by_power(counts: Indices) -> list[tuple[int, Indices]]:
    """For each power of two that occurs as the greatest within a count: it, and where."""
    sizes = 2 ** np.floor(np.log2(np.maximum(counts, 1))).astype(int)
    return [(int(size), np.flatnonzero(sizes == size)) for size in np.unique(sizes)]


def _first(spectra: Floats, groups: Groups, sigma: float, how: Bm3d) -> Floats:
    """Hard thresholding."""
    compared = np.where(np.abs(spectra) >= how.cut_match * sigma, spectra, np.float32(0))
    basis = _basis(how.block)
    members = groups.alike(compared, how.most[0], how.near[0] * sigma * sigma)

    def shrink(some: Indices) -> tuple[Floats, Floats]:
        stack = haar(spectra[some])
        kept = np.abs(stack) >= how.cut * sigma
        weight = 1 / np.maximum(kept.sum((1, 2)), 1)
        return haar_back(np.where(kept, stack, np.float32(0))) @ basis, weight.astype(np.float32)

    return groups.averaged(members, shrink)


def _second(spectra: Floats, basic: Floats, groups: Groups, sigma: float, how: Bm3d) -> Floats:
    """Wiener's filter with the first result as what the signal is like."""
    basis = _basis(how.block)
    members = groups.alike(basic, how.most[1], how.near[1] * sigma * sigma)

    def shrink(some: Indices) -> tuple[Floats, Floats]:
        power = haar(basic[some]) ** 2
        filter_ = power / (power + np.float32(sigma * sigma))
        weight = 1 / np.maximum((filter_ * filter_).sum((1, 2)), 1e-6)
        return haar_back(filter_ * haar(spectra[some])) @ basis, weight

    return groups.averaged(members, shrink)


@lru_cache(maxsize=4)
def _basis(block: int) -> Floats:
    """Orthonormal cosines, (block², block²): coefficients @ basis is a block."""
    one = dct(np.eye(block), axis=0, norm="ortho")
    found: Floats = np.kron(one, one).astype(np.float32)
    return found


def _spectra(image: Floats, block: int) -> Floats:
    """Cosine transforms of all blocks, (blocks, block²), row by row of their corners."""
    blocks = np.lib.stride_tricks.sliding_window_view(image, (block, block))
    found: Floats = blocks.reshape(-1, block * block) @ _basis(block).T
    return found


def haar(stack: Floats) -> Floats:
    """Haar's orthonormal transform along axis 1 of (groups, 2^m, values)."""
    parts, low = [], stack
    while low.shape[1] > 1:
        even, odd = low[:, ::2], low[:, 1::2]
        parts.append((even - odd) * np.float32(np.sqrt(0.5)))
        low = (even + odd) * np.float32(np.sqrt(0.5))
    return np.concatenate([low, *parts[::-1]], axis=1)


def haar_back(spectrum: Floats) -> Floats:
    """What ``haar`` was given."""
    low = spectrum[:, :1]
    while low.shape[1] < spectrum.shape[1]:
        n = low.shape[1]
        high = spectrum[:, n : 2 * n]
        pair = np.stack([low + high, low - high], axis=2) * np.float32(np.sqrt(0.5))
        low = pair.reshape(len(low), 2 * n, -1)
    return low
