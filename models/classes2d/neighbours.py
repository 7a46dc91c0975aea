"""The most similar images of each image, and their mean: the target of fine-tuning (Lei and Yang 2021, section 3.3).

The paper takes as an image's target "the mean image averaged over its neighborhood", of the *outputs* of the block that
is tuned (x' of equation 6), with the k = 30 nearest (section 4.1), and leaves the similarity open. Here it is the
correlation coefficient of two images over all their pixels; all pairs are compared, in blocks, so that memory stays
bounded. An image is not its own neighbour unless asked for: its noise would be in input and target, and would be learnt.

Particles of a micrograph are turned in the plane by any angle and lie off the middle by a pixel or two, which the
paper's simulated images are not. ``aligned`` compares them at the best angle (``polar.compare``), and turns and shifts
each neighbour onto the image before the mean is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_QUERIES = 256
_TURNED_QUERIES = 64
_TURNED_AMONG = 1024
_PIXELS_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """For each of n images its k neighbours, the most similar first.

    ``index`` int32 (n, k): rows of the images that were searched. ``similarity`` float32 (n, k): correlation. ``angle``
    float32 (n, k) in degrees and ``shift`` float32 (n, k, 2) in pixels (x, y): what ``averages.turned`` needs to lay a
    neighbour onto the image; None where images are compared as they lie.
    """

    index: Ints
    similarity: Floats
    angle: Floats | None = None
    shift: Floats | None = None

    def __len__(self) -> int:
        return len(self.index)


def standardised(images: npt.ArrayLike) -> Floats:
    """Images (n, …) as rows, float32 (n, d), of mean 0 and length 1, whose products are correlations; constant: 0."""
    rows = np.asarray(images, np.float32)
    rows = rows.reshape(len(rows), -1)
    rows = rows - rows.mean(1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)


def lowpassed(images: npt.ArrayLike, edge: int = 24) -> Floats:
    """Noisy images (n, s, s), Fourier-cropped to (n, edge, edge), float32: what is compared where nothing denoises.

    The correlation of two cropped images is that of the two images low-passed to ``edge`` / s of their resolution.
    """
    waves = np.fft.rfft2(np.asarray(images, np.float32))
    half = edge // 2
    kept = np.concatenate([waves[:, :half, : half + 1], waves[:, -half:, : half + 1]], axis=1)
    kept[:, half], kept[:, :, half] = 0, 0
    small: Floats = np.fft.irfft2(kept, s=(edge, edge)).astype(np.float32)
    return small


def find(
    denoised: npt.ArrayLike,
    k: int = 30,
    *,
    among: npt.ArrayLike | None = None,
    aligned: bool = False,
    itself: bool = False,
) -> Neighbours:
    """The ``k`` images of ``among`` (m, s, s) most similar to each of ``denoised`` (n, s, s); exact.

    Without ``among`` they are sought in ``denoised``, and an image counts as its own neighbour only with ``itself``.
    ``aligned``: at the best in-plane angle, recentred by centres of mass, with how to turn and shift each neighbour.
    Fewer than ``k`` images give fewer neighbours. Raises ``ValueError`` where there is none to choose.
    """
    images = np.asarray(denoised, np.float32)
    others = images if among is None else np.asarray(among, np.float32)
    skip = among is None and not itself
    k = min(k, len(others) - skip)
    if k < 1:
        raise ValueError(f"neighbours: {len(others)} images leave none to choose; give more images")
    return _turned(images, others, k, skip) if aligned else _as_they_lie(images, others, k, skip)


def nearest(images: npt.ArrayLike, k: int = 30, *, itself: bool = False) -> Ints:
    """Indices int32 (n, k) of the ``k`` images most similar to each of ``images`` (n, …), compared as they lie."""
    return find(images, k, itself=itself).index


def means(images: npt.ArrayLike, neighbours: Neighbours | npt.ArrayLike) -> Floats:
    """The mean of each image's neighbours among ``images`` (m, s, s): float32 (n, s, s).

    ``neighbours``: as ``find`` gives them, turned and shifted where they are aligned; or indices (n, k).
    """
    pixels = np.asarray(images, np.float32)
    found = neighbours if isinstance(neighbours, Neighbours) else _plain(np.asarray(neighbours, np.int32))
    out = np.empty((len(found), *pixels.shape[1:]), np.float32)
    step = max(1, _PIXELS_AT_ONCE // (found.index.shape[1] * int(np.prod(pixels.shape[1:]))))
    for first in range(0, len(found), step):
        rows = slice(first, first + step)
        out[rows] = _laid(pixels, found, rows).mean(1)
    return out


def _plain(index: Ints) -> Neighbours:
    return Neighbours(index, np.ones(index.shape, np.float32))


def _laid(pixels: Floats, found: Neighbours, rows: slice) -> Floats:
    """The neighbours of some images, (n, k, s, s), laid onto them."""
    picked = pixels[found.index[rows]]
    if found.angle is None or found.shift is None:
        return picked
    from .averages import turned

    n, k = picked.shape[:2]
    flat = picked.reshape(n * k, *pixels.shape[1:])
    laid: Floats = turned(flat, found.angle[rows].reshape(-1), found.shift[rows].reshape(-1, 2))
    return laid.reshape(picked.shape)


def _as_they_lie(images: Floats, others: Floats, k: int, skip: bool) -> Neighbours:
    searched = standardised(others)
    rows = searched if images is others else standardised(images)
    index = np.empty((len(rows), k), np.int32)
    similarity = np.empty((len(rows), k), np.float32)
    for first in range(0, len(rows), _QUERIES):
        found = rows[first : first + _QUERIES] @ searched.T
        some = slice(first, first + len(found))
        index[some], similarity[some] = _best(found, k, first if skip else None)
    return Neighbours(index, similarity)


def _best(similarity: Floats, k: int, first: int | None) -> tuple[Ints, Floats]:
    """Columns and values of the ``k`` largest of each row, largest first; row i is column ``first`` + i, if given."""
    rows = np.arange(len(similarity))
    if first is not None:
        similarity[rows, first + rows] = -np.inf
    top = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(similarity, top, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(top, order, 1).astype(np.int32), np.take_along_axis(values, order, 1)


def _turned(images: Floats, others: Floats, k: int, skip: bool) -> Neighbours:
    from .polar import compare, features

    searched = features(others)
    own = searched if images is others else features(images)
    index = np.empty((len(images), k), np.int32)
    similarity, angle = (np.empty((len(images), k), np.float32) for _ in range(2))
    for first in range(0, len(images), _TURNED_QUERIES):
        centres = own.spectra[first : first + _TURNED_QUERIES]
        pieces = [
            compare(searched.spectra[at : at + _TURNED_AMONG], centres) for at in range(0, len(others), _TURNED_AMONG)
        ]
        likeness, turn = (np.concatenate(part).T for part in zip(*pieces, strict=True))
        some = slice(first, first + len(centres))
        index[some], similarity[some] = _best(np.ascontiguousarray(likeness), k, first if skip else None)
        angle[some] = np.take_along_axis(turn, index[some].astype(np.intp), 1)
    shift = _onto(angle, searched.shift[index], own.shift[:, None])
    return Neighbours(index, similarity, angle, shift)


def _onto(angle: Floats, theirs: Floats, own: Floats) -> Floats:
    """The shift that, with ``angle``, lays a particle whose centre is at ``theirs`` onto one whose centre is at ``own``.

    ``turned`` moves by −shift, then rotates; R(x − theirs) + own = R(x − (theirs − R⁻¹ own)), so that one interpolation
    does for both.
    """
    radians = np.deg2rad(angle)
    cos, sin = np.cos(radians), np.sin(radians)
    back = np.stack([cos * own[..., 0] + sin * own[..., 1], cos * own[..., 1] - sin * own[..., 0]], -1)
    found: Floats = (theirs - back).astype(np.float32)
    return found
