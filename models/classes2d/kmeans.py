"""k-means of images that may be turned in the plane: seeding, Lloyd's iterations, restarts.

Spectra of length 1 are grouped by their correlation after the best turn; a centre is the mean of its members, each
turned onto it, made to length 1. Seeds are drawn as in k-means++ (Arthur and Vassilvitskii, SODA 2007) with several
trials each, where the squared distance of two images is 2 - 2 × correlation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .polar import Complexes, Floats, compare, normalised, turned_spectra

Ints = npt.NDArray[np.int32]
Progress = Callable[[str, int, int], None]

RESTARTS = 4
ITERATIONS = 30
_SEEDED_FROM = 2000
_ITERATIONS_OF_A_TRY = 8
_SETTLED = 0.001
_AT_ONCE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """n images in k groups: ``centres`` complex64 (k, R, M) of length 1, ``label`` int32 (n,) from 0, ``angle`` float32
    (n,) degrees by which each image turns onto its centre, ``similarity`` float32 (n,), ``finished`` whether it
    was not stopped before its end.
    """  # noqa: D205

    centres: Complexes
    label: Ints
    angle: Floats
    similarity: Floats
    finished: bool


def never() -> bool:
    """The ``stop`` of one who waits."""
    return False


def kmeans(
    spectra: Complexes,
    k: int,
    *,
    seed: int = 0,
    restarts: int = RESTARTS,
    iterations: int = ITERATIONS,
    stop: Callable[[], bool] = never,
    progress: Progress | None = None,
) -> Grouping:
    """Group spectra (n, R, M) around k centres, the same for the same ``seed``.

    ``restarts`` seedings are tried for a few iterations on at most 2000 of the images; the one of highest mean
    similarity goes on with all, until less than one image in a thousand changes its group, or for ``iterations``. An
    empty group is seeded anew with the image that fits its own centre least. ``stop`` is asked every few thousand
    images; once it says true the best so far is returned. Raises ``ValueError`` unless 1 <= k <= n.
    """
    n = len(spectra)
    if not 1 <= k <= n:
        raise ValueError(f"k: {k} groups of {n} images; ask for 1 to {n}")
    rng = np.random.default_rng(seed)
    some = spectra if n <= _SEEDED_FROM else spectra[np.sort(rng.choice(n, max(_SEEDED_FROM, k), replace=False))]
    steps = restarts + iterations
    best, height = some[:k].copy(), -math.inf
    for trial in range(restarts):
        found = lloyd(some, seeds(some, k, rng), _ITERATIONS_OF_A_TRY, stop=stop)
        if (mean := float(found.similarity.mean())) > height:
            best, height = found.centres, mean
        if stop():
            break
        if progress is not None:
            progress("seeds", trial + 1, steps)

    def told(done: int) -> None:
        if progress is not None:
            progress("iterations", restarts + done, steps)

    return lloyd(spectra, best, iterations, stop=stop, told=told)


def seeds(spectra: Complexes, k: int, rng: np.random.Generator) -> Complexes:
    """K of the images (n, R, M), drawn far apart: greedy k-means++ with 2 + ln k trials for each."""
    chosen = [int(rng.integers(len(spectra)))]
    distance = _distance(spectra, spectra[chosen])[:, 0]
    for _ in range(1, k):
        total = float(distance.sum())
        odds = distance / total if total > 0 else None
        trials = rng.choice(len(spectra), 2 + int(math.log(k)), p=odds)
        nearer = np.minimum(distance[:, None], _distance(spectra, spectra[trials]))
        best = int(nearer.sum(0).argmin())
        chosen.append(int(trials[best]))
        distance = nearer[:, best]
    return spectra[chosen].copy()


def _distance(spectra: Complexes, centres: Complexes) -> npt.NDArray[np.float64]:
    similarity, _ = compare(spectra, centres)
    return np.maximum(2.0 - 2.0 * similarity.astype(np.float64), 0)


def lloyd(
    spectra: Complexes,
    centres: Complexes,
    iterations: int,
    *,
    stop: Callable[[], bool] = never,
    told: Callable[[int], None] | None = None,
) -> Grouping:
    """Lloyd's iterations from given centres (k, R, M); see ``kmeans``."""
    centres = centres.copy()
    label, angle, similarity, finished = nearest(spectra, centres, stop)
    for done in range(iterations):
        if not finished:
            break
        sums, counts = turned_sums(spectra, label, angle, len(centres))
        centres = np.where(counts[:, None, None] > 0, normalised(sums), centres)
        _seed_empty(centres, counts, spectra, similarity)
        before = label
        label, angle, similarity, finished = nearest(spectra, centres, stop)
        if told is not None:
            told(done + 1)
        if counts.all() and np.count_nonzero(label != before) <= _SETTLED * len(label):
            break
    return Grouping(centres, label, angle, similarity, finished)


def _seed_empty(centres: Complexes, counts: npt.NDArray[np.int64], spectra: Complexes, similarity: Floats) -> None:
    """Put the images that fit worst in the place of centres that lost all their members."""
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        centres[empty] = spectra[np.argsort(similarity, kind="stable")[: len(empty)]]


def nearest(
    spectra: Complexes, centres: Complexes, stop: Callable[[], bool] = never
) -> tuple[Ints, Floats, Floats, bool]:
    """Which centre each image is most like: label int32, angle, similarity, and whether all were looked at."""
    n = len(spectra)
    label, angle, similarity = np.zeros(n, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32)
    for first in range(0, n, _AT_ONCE):
        if stop():
            return label, angle, similarity, False
        some = slice(first, first + _AT_ONCE)
        height, turn = compare(spectra[some], centres)
        best = height.argmax(1)
        label[some] = best
        similarity[some], angle[some] = (np.take_along_axis(a, best[:, None], 1)[:, 0] for a in (height, turn))
    return label, angle, similarity, True


def turned_sums(
    spectra: Complexes, label: npt.NDArray[Any], angle: Floats, k: int
) -> tuple[Complexes, npt.NDArray[np.int64]]:
    """Sums of the images of each of k groups, each image turned by its angle: (k, R, M); and their numbers (k,)."""
    sums = np.zeros((k, *spectra.shape[1:]), np.complex64)
    for first in range(0, len(spectra), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        turned = turned_spectra(spectra[some], angle[some])
        member = (label[some] == np.arange(k)[:, None]).astype(np.complex64)
        sums += (member @ turned.reshape(len(turned), -1)).reshape(sums.shape)
    return sums, np.bincount(label, minlength=k)[:k]
