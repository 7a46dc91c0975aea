"""The most similar images of each image, and their mean: the target of fine-tuning (Lei and Yang 2021, section 3.3).

The paper takes as an image's target "the mean image averaged over its neighborhood", of the *outputs* of the block that
is tuned (x' of equation 6), with the k = 30 nearest (section 4.1), and leaves the similarity open. Here it is the
correlation coefficient of two images over all their pixels; all pairs are compared, in blocks, so that memory stays
bounded. An image is not its own neighbour unless asked for: its own noise, in input and target, would be learnt.

Particles of a micrograph are turned in the plane by any angle and lie off the middle by a pixel or two, which the
paper's simulated images are not. ``aligned`` compares them at the best angle (``polar.compare``), and turns and shifts
each neighbour onto the image before the mean is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from .working import scaled

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Each = Callable[[int, int], None]

_QUERIES = 256
_TURNED_QUERIES = 64
_PIXELS_AT_ONCE = 1 << 19


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
    unit: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)
    return unit


def lowpassed(images: npt.ArrayLike, edge: int = 24) -> Floats:
    """Noisy images (n, s, s), Fourier-cropped to (n, edge, edge), float32: what is compared where nothing denoises.

    The correlation of two cropped images is that of the two images low-passed to ``edge`` / s of their resolution.
    """
    return scaled(np.asarray(images, np.float64), edge).astype(np.float32)


def find(
    denoised: npt.ArrayLike,
    k: int = 30,
    *,
    among: npt.ArrayLike | None = None,
    aligned: bool = False,
    itself: bool = False,
    each: Each | None = None,
) -> Neighbours:
    """The ``k`` images of ``among`` (m, s, s) most similar to each of ``denoised`` (n, s, s); exact.

    Without ``among`` they are sought in ``denoised``, and an image counts as its own neighbour only with ``itself``.
    ``aligned``: at the best in-plane angle, recentred by centres of mass, with how to turn and shift each neighbour.
    Fewer than ``k`` images give fewer neighbours. ``each(done, of)`` is called after each block of images; what it
    raises stops the search. Raises ``ValueError`` where there is none to choose.
    """
    images = np.asarray(denoised, np.float32)
    others = images if among is None else np.asarray(among, np.float32)
    skip = among is None and not itself
    k = min(k, len(others) - skip)
    if k < 1:
        raise ValueError(f"neighbours: {len(others)} images leave none to choose; give more images")
    search = _turned if aligned else _as_they_lie
    return search(images, others, k, skip, each or _unwatched)


def nearest(images: npt.ArrayLike, k: int = 30, *, itself: bool = False) -> Ints:
    """Indices int32 (n, k) of the ``k`` images most similar to each of ``images`` (n, …), compared as they lie."""
    return find(images, k, itself=itself).index


def means(images: npt.ArrayLike, neighbours: Neighbours | npt.ArrayLike, each: Each | None = None) -> Floats:
    """The mean of each image's neighbours among ``images`` (m, s, s): float32 (n, s, s).

    ``neighbours``: as ``find`` gives them, turned and shifted where they are aligned; or indices (n, k). ``each``: as
    there.
    """
    pixels = np.asarray(images, np.float32)
    found = neighbours if isinstance(neighbours, Neighbours) else _plain(np.asarray(neighbours, np.int32))
    out = np.empty((len(found), *pixels.shape[1:]), np.float32)
    step = max(1, _PIXELS_AT_ONCE // (found.index.shape[1] * int(np.prod(pixels.shape[1:]))))
    for first in range(0, len(found), step):
        rows = slice(first, first + step)
        out[rows] = _laid(pixels, found, rows).mean(1)
        if each:
            each(min(len(found), first + step), len(found))
    return out


def _unwatched(done: int, of: int) -> None:
    """Nobody looks on."""


def _plain(index: Ints) -> Neighbours:
    return Neighbours(index, np.ones(index.shape, np.float32))


def _laid(pixels: Floats, found: Neighbours, rows: slice) -> Floats:
    """The neighbours of some images, (n, k, s, s), laid onto them."""
    picked = pixels[found.index[rows]]
    if found.angle is None or found.shift is None:
        return picked
    flat = picked.reshape(-1, *pixels.shape[1:])
    laid = _turned_fast(flat, found.angle[rows].reshape(-1), found.shift[rows].reshape(-1, 2))
    return laid.reshape(picked.shape)


def _turned_fast(images: Floats, angle: Floats, shift: Floats) -> Floats:
    """What ``averages.turned`` does, bilinearly: a fifth of its time, and a mean over k hides what that blurs.

    Of an image's outside nothing is known; there it is 0, the mean of a working image.
    """
    edge = images.shape[-1]
    at = torch.arange(edge, dtype=torch.float32) - edge // 2
    radians, moved = torch.from_numpy(np.deg2rad(angle)), torch.from_numpy(shift)[:, :, None, None] + edge // 2
    cos, sin = radians.cos()[:, None, None], radians.sin()[:, None, None]
    # Where each pixel comes from: turned back, then moved by the shift. grid_sample counts from -1 to 1.
    x, y = cos * at + sin * at[:, None] + moved[:, 0], cos * at[:, None] - sin * at + moved[:, 1]
    places = torch.stack([x, y], -1) * (2 / (edge - 1)) - 1
    found: Floats = functional.grid_sample(torch.from_numpy(images)[:, None], places, align_corners=True)[:, 0].numpy()
    return found


def _as_they_lie(images: Floats, others: Floats, k: int, skip: bool, each: Each) -> Neighbours:
    searched = standardised(others)
    rows = searched if images is others else standardised(images)
    index = np.empty((len(rows), k), np.int32)
    similarity = np.empty((len(rows), k), np.float32)
    for first in range(0, len(rows), _QUERIES):
        found = rows[first : first + _QUERIES] @ searched.T
        some = slice(first, first + len(found))
        index[some], similarity[some] = _best(found, k, first if skip else None)
        each(first + len(found), len(rows))
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


def _turned(images: Floats, others: Floats, k: int, skip: bool, each: Each) -> Neighbours:
    from .polar import compare, features

    searched = features(others)
    own = searched if images is others else features(images)
    index = np.empty((len(images), k), np.int32)
    similarity, angle = (np.empty((len(images), k), np.float32) for _ in range(2))
    for first in range(0, len(images), _TURNED_QUERIES):
        centres = own.spectra[first : first + _TURNED_QUERIES]
        likeness, turn = compare(searched.spectra, centres)
        some = slice(first, first + len(centres))
        index[some], similarity[some] = _best(np.ascontiguousarray(likeness.T), k, first if skip else None)
        angle[some] = np.take_along_axis(turn.T, index[some].astype(np.intp), 1)
        each(first + len(centres), len(images))
    shift = _onto(angle, searched.shift[index], own.shift[:, None])
    return Neighbours(index, similarity, angle, shift)


def _onto(angle: Floats, theirs: Floats, own: Floats) -> Floats:
    """The shift that, with ``angle``, lays a particle with its centre at ``theirs`` onto one with its at ``own``.

    ``turned`` moves by −shift, then rotates; R(x − theirs) + own = R(x − (theirs − R⁻¹ own)), so that one interpolation
    does for both.
    """
    radians = np.deg2rad(angle)
    cos, sin = np.cos(radians), np.sin(radians)
    back = np.stack([cos * own[..., 0] + sin * own[..., 1], cos * own[..., 1] - sin * own[..., 0]], -1)
    found: Floats = (theirs - back).astype(np.float32)
    return found
