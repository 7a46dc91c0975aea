"""2-D classes of a finished set of particles: denoised, grouped, averaged."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .averages import Averages
from .compared import compared
from .frc import LEAST_PER_HALF
from .grouping import GROUPERS, Method
from .kmeans import Ints, Progress
from .polar import ORDERS, RINGS, Floats, features
from .refine import references, refined
from .working import EDGE

Denoise = Callable[[Floats], Floats]
Kept = Callable[[int, Floats], None]

BATCH = 1024
IN_MEMORY = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """n particles in k classes, the largest being number 1.

    ``labels`` int32 (n,), 1..k, 0 for images without contrast; ``angle`` float32 (n,), degrees, and ``shift`` float32
    (n, 2), pixels, as ``averages.turned`` takes them; ``similarity`` float32 (n,), correlation of what is compared
    (``compared.compared``; without alignment the denoised image) with the centre of its class. Of the classes 1..k:
    ``counts`` int64 (k,), ``averages`` of original images float32 (k, 64, 64), ``halves`` of them float32
    (k, 2, 64, 64), ``resolution_a`` float64 (k,), NaN where there is none, ``spread`` float64 (k,). ``notes``: what the
    user should know, one sentence each.
    """

    labels: Ints
    angle: Floats
    shift: Floats
    similarity: Floats
    counts: npt.NDArray[np.int64]
    averages: Floats
    halves: Floats
    resolution_a: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    notes: tuple[str, ...]


def classify(
    images: Floats,
    denoiser: Denoise,
    *,
    number: int,
    seed: int = 0,
    progress: Progress | None = None,
    align: bool = True,
    method: Method = "kmeans",
    refine: bool = True,
    pixel_a: float = 1.0,
    keep: Kept | None = None,
) -> Classified:
    """Group working images float32 (n, 64, 64) into ``number`` classes by their looks after ``denoiser``.

    ``images`` is read in slices, so that it may be a memory map. ``align``: images may lie turned and shifted in the
    plane (``polar.features`` of ``compared.compared``); without it denoised images are compared pixel by pixel.
    ``method``: ``kmeans`` or ``ward``. For aligned images both turn them; Ward's starts from fine k-means groups
    (``ward.ward``). Otherwise both are scikit-learn's on the denoised pixels. With more than 20 000 images a sample of
    that many is grouped, 5000 for ``ward`` without ``align``; the rest go to the nearest centre. ``refine``: angle and
    shift are made finer against the averages of originals before these are made anew (only with ``align``).
    ``pixel_a``: ångström per pixel of a working image; with 1, resolutions are in such pixels. ``keep(first,
    denoised)`` gets the denoised images as they come.

    Fewer images than classes make fewer classes, and a note. Raises ``ValueError`` for other shapes, for no image with
    contrast, and ``number`` below 1.
    """
    if images.ndim != 3 or images.shape[1:] != (EDGE, EDGE):
        raise ValueError(f"images of shape {images.shape}: {EDGE} × {EDGE} pixels are needed; see working()")
    if number < 1:
        raise ValueError(f"number: {number} classes; ask for at least 1")
    told = progress or _quiet
    with _store(len(images), align) as vectors:
        usable, shift = _denoised(images, denoiser, vectors, align, told, keep)
        if not len(usable):
            raise ValueError("no image with contrast among the particles: nothing to make classes of")
        found = GROUPERS[align, method](vectors[: len(usable)], min(number, len(usable)), seed, told)
    labels = np.zeros(len(images), np.int32)
    labels[usable] = _by_size(found.label)
    angle, similarity = np.zeros(len(images), np.float32), np.zeros(len(images), np.float32)
    angle[usable], similarity[usable] = found.angle, found.similarity
    averages = _averaged(images, labels, angle, shift, similarity, told)
    if align and refine:
        angle, shift = _refined(images, labels, angle, shift, averages, told)
        averages = _averaged(images, labels, angle, shift, similarity, told)
    return _classified(labels, angle, shift, similarity, averages, pixel_a, _notes(len(images), len(usable), number))


def _quiet(_what: str, _done: int, _of: int) -> None:
    """Progress that nobody asked for."""


@contextlib.contextmanager
def _store(n: int, align: bool) -> Iterator[npt.NDArray[Any]]:
    """Room for n images' spectra or pixels: in memory, or in a temporary file if there are more than 20 000."""
    shape, dtype = ((n, RINGS, ORDERS), np.complex64) if align else ((n, EDGE * EDGE), np.float32)
    if n <= IN_MEMORY:
        yield np.empty(shape, dtype)
        return
    with tempfile.TemporaryFile() as file:
        yield np.memmap(file, dtype, "w+", shape=shape)


def _denoised(
    images: Floats, denoiser: Denoise, vectors: npt.NDArray[Any], align: bool, told: Progress, keep: Kept | None
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Fills ``vectors`` from the front with what has contrast; which images those are, and all shifts (n, 2)."""
    usable: list[npt.NDArray[np.intp]] = [np.zeros(0, np.intp)]
    shift, filled = np.zeros((len(images), 2), np.float32), 0
    for first in range(0, len(images), BATCH):
        some = np.asarray(images[first : first + BATCH], np.float32)
        denoised = denoiser(some)
        if keep is not None:
            keep(first, denoised)
        if align:
            found = features(compared(some, denoised))
            made, shift[first : first + BATCH] = found.spectra, found.shift
        else:
            made = (denoised - denoised.mean((1, 2), keepdims=True)).reshape(len(some), -1)
        good = np.flatnonzero((np.ptp(some, axis=(1, 2)) > 0) & made.reshape(len(some), -1).any(1))
        vectors[filled : filled + len(good)] = made[good]
        filled += len(good)
        usable.append(first + good)
        told("denoise", min(first + BATCH, len(images)), len(images))
    return np.concatenate(usable), shift


def _by_size(label: Ints) -> Ints:
    """Groups numbered from 1, the largest first; empty ones have no number."""
    counts = np.bincount(label)
    order = np.argsort(-counts, kind="stable")
    numbers = np.empty(len(counts), np.int32)
    numbers[order] = np.arange(1, len(counts) + 1)
    return numbers[label]


def _averaged(
    images: Floats, labels: Ints, angle: Floats, shift: Floats, similarity: Floats, told: Progress
) -> Averages:
    averages = Averages()
    for first in range(0, len(images), BATCH):
        some = slice(first, first + BATCH)
        averages.add(labels[some], np.asarray(images[some]), angle[some], shift[some], similarity[some])
        told("average", min(first + BATCH, len(images)), len(images))
    return averages


def _refined(
    images: Floats, labels: Ints, angle: Floats, shift: Floats, averages: Averages, told: Progress
) -> tuple[Floats, Floats]:
    """Each image aligned to the average of its own half set, if its class is large enough to have a resolution."""
    angle, shift, done = angle.copy(), shift.copy(), 0
    for number in averages.classes():
        members = np.flatnonzero(labels == number)
        if averages.count(number) >= 2 * LEAST_PER_HALF:
            for half, reference in enumerate(references(averages.halves(number))):
                # Averages puts the members of a class into the half sets by turns, beginning with the first.
                for first in range(half, len(members), 2 * BATCH):
                    mine = members[first : first + 2 * BATCH : 2]
                    angle[mine], shift[mine] = refined(np.asarray(images[mine]), reference, angle[mine], shift[mine])
        done += len(members)
        told("align", done, len(images))
    return angle, shift


def _notes(n: int, usable: int, number: int) -> tuple[str, ...]:
    notes = []
    if usable < n:
        notes.append(f"{n - usable} of {n} images have no contrast; they are in no class (0).")
    if number > usable:
        notes.append(f"{usable} images make at most {usable} classes, not {number}.")
    return tuple(notes)


def _classified(
    labels: Ints,
    angle: Floats,
    shift: Floats,
    similarity: Floats,
    averages: Averages,
    pixel_a: float,
    notes: tuple[str, ...],
) -> Classified:
    ids = averages.classes()
    return Classified(
        labels,
        angle,
        shift,
        similarity,
        np.array([averages.count(i) for i in ids], np.int64),
        np.stack([averages.mean(i) for i in ids]),
        np.stack([averages.halves(i) for i in ids]),
        np.array([averages.resolution_a(i, pixel_a) for i in ids]),
        np.array([averages.spread(i) for i in ids]),
        notes,
    )
