"""Codes in groups: k-means with restarts (k-means++), and the nearest centre of new codes.

The number of clusters, 100, and k-means on the 32 values of a code are those of Zeng et al. (2018), section 3.3. Other
than there, codes are compared by their direction (Dhillon and Modha, Machine Learning 42, 2001): how long a code is
says how much a sub-volume stands out of its noise, not what it shows. On simulated validation tomograms more of the
held-out sub-volumes went to a cluster of their class that way, and scaling units by their spread changed nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from .volume import Floats

Ints: TypeAlias = npt.NDArray[np.int32]
Counts: TypeAlias = npt.NDArray[np.int64]
Progress: TypeAlias = Callable[[str, int, int], None]

K, RESTARTS = 100, 4
NONE = -1
_SAMPLE = 20_000
_AT_ONCE = 8192
_ROUNDS, _ROUND = 20, 10
_PREFERENCE = 0.99


class Centred(Protocol):
    """What codes are compared with: ``Centres``, and ``book.Clusters``."""

    @property
    def codes(self) -> Floats:
        """Centres in the space of the codes, float32 (k, d)."""


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """Centres of codes, the largest cluster first.

    ``codes`` float32 (k, d), in the space of the codes: the members' mean direction, as long as they are on average;
    ``counts`` int64 (k,), members, none of them 0; ``spread`` float32 (k,), root of the members' mean squared distance
    (see ``assign``); ``inertia``: sum of all squared distances; ``finished``: False if it was stopped early; ``note``:
    what there is to say of the number of clusters, or nothing.
    """

    codes: Floats
    counts: Counts
    spread: Floats
    inertia: float
    finished: bool = True
    note: str = ""


def quiet(what: str, done: int, of: int) -> None:
    """No progress."""


def never() -> bool:
    """The ``stop`` of one who waits."""
    return False


def cluster(
    codes: Floats,
    *,
    k: int = K,
    seed: int = 1,
    restarts: int = RESTARTS,
    first: Floats | None = None,
    stop: Callable[[], bool] = never,
    progress: Progress = quiet,
) -> Centres:
    """Put codes float32 (n, d) in ``k`` clusters by k-means, the same ones for the same ``seed``.

    The best of ``restarts`` seedings by k-means++ (Arthur and Vassilvitskii, 2007), each brought to rest by Lloyd's
    iterations, by the sum of squared distances. Of more than 20 000 codes the restarts take a sample of that many, and
    the best is brought to rest on all. ``first`` (m, d): centres of an earlier time, the largest first, which are tried
    as well and taken unless a restart is better by a hundredth, so that clusters change only where it is worth it.
    There are at most n / 2 clusters and no empty ones: ``Centres.note`` says so.
    Codes that are not finite, or 0 throughout, are left out. ``stop`` is asked every ten iterations; the result has
    ``finished`` False then. Told as ``progress("cluster", done, of)``. Raises ``ValueError`` where no code is left.
    """
    if k < 1 or restarts < 1:
        raise ValueError(f"k = {k}, restarts = {restarts}: both are numbers of at least 1")
    good, usable = _directions(codes)
    good = good[usable]
    if not len(good):
        raise ValueError(f"none of {len(codes)} codes is finite and more than zeros: there is nothing to cluster")
    number = max(1, min(k, len(good) // 2))
    old = np.zeros((0, good.shape[1]), np.float32) if first is None else _directions(first[:number])[0]
    middles, finished = _best(good, old, number, seed, restarts, stop, progress)
    length = np.sqrt(np.square(codes[usable], dtype=np.float64).sum(1))
    return _centres(good, length, _nearest(good, _directions(middles)[0])[0], k, finished)


def assign(codes: Floats, centres: Centred) -> tuple[Ints, Floats]:
    """The nearest centre of each code (n, d): its row, int32 (n,), and the distance, float32 (n,).

    The distance is that of the two directions, both as vectors of length 1: 0 for the same, √2 for codes that share no
    unit. Of centres equally near the first is taken; what comes out for a code does not depend on the codes beside it.
    A code that is not finite, or 0 throughout, has no centre: row -1, distance infinite. Raises ``ValueError`` for
    codes of another length.
    """
    if codes.ndim != 2 or codes.shape[1] != centres.codes.shape[1]:
        raise ValueError(f"codes {codes.shape}: the clusters are of codes of {centres.codes.shape[1]} values")
    row, distance = np.full(len(codes), NONE, np.int32), np.full(len(codes), np.inf, np.float32)
    directions, usable = _directions(codes)
    if len(centres.codes):
        row[usable], distance[usable] = _nearest(directions[usable], _directions(centres.codes)[0])
    return row, distance


def _directions(codes: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Codes as float32 vectors of length 1, and which of them have a direction."""
    length = np.sqrt(np.square(codes, dtype=np.float64).sum(1, keepdims=True))
    usable = np.isfinite(length) & (length > 0)
    found = np.divide(codes, length, out=np.zeros(codes.shape), where=usable).astype(np.float32)
    return found, usable[:, 0]


def _nearest(codes: Floats, middles: Floats) -> tuple[Ints, Floats]:
    """Row and distance of the nearest centre, some codes at a time."""
    row, distance = np.empty(len(codes), np.int32), np.empty(len(codes), np.float32)
    for first in range(0, len(codes), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        # Not by a matrix product: its rounding depends on how many codes there are, and so would ties.
        far = cdist(codes[some], middles)
        row[some] = far.argmin(1)
        distance[some] = far[np.arange(len(far)), row[some]]
    return row, distance


def _best(
    codes: Floats, old: Floats, k: int, seed: int, restarts: int, stop: Callable[[], bool], progress: Progress
) -> tuple[Floats, bool]:
    """Centres (k, d) of the best start, brought to rest on all codes; whether it was not stopped."""
    rng = np.random.default_rng(seed)
    some = codes if len(codes) <= _SAMPLE else codes[np.sort(rng.choice(len(codes), _SAMPLE, replace=False))]
    starts = restarts + bool(len(old))
    steps = starts + (len(some) < len(codes))
    best, least = np.zeros((0, codes.shape[1]), np.float32), np.inf
    for at in range(starts):
        is_old = at == 0 and len(old) > 0
        # k-means++ takes a code twice where there are fewer different ones than centres.
        first = np.unique(_more(some, old, k, rng) if is_old else _seeds(some, k, rng), axis=0)
        middles, inertia, finished = _lloyd(some, first, stop)
        if inertia < least or not len(best):
            best, least = middles, inertia * (_PREFERENCE if is_old else 1)
        if not finished or (at + 1 < starts and stop()):
            return best, False
        progress("cluster", at + 1, steps)
    if len(some) < len(codes):
        best, _, finished = _lloyd(codes, best, stop)
        progress("cluster", steps, steps)
        return best, finished
    return best, True


def _seeds(codes: Floats, k: int, rng: np.random.Generator) -> Floats:
    from sklearn.cluster import kmeans_plusplus

    seeds: Floats = kmeans_plusplus(codes, k, random_state=int(rng.integers(2**31)))[0]
    return seeds


def _more(codes: Floats, old: Floats, k: int, rng: np.random.Generator) -> Floats:
    """The ``old`` centres, and codes up to ``k``, drawn as k-means++ draws: by squared distance to what there is."""
    seeds = [row[None] for row in old]
    far = np.square(_nearest(codes, old)[1], dtype=np.float64)
    while len(seeds) < k and far.sum() > 0:
        seeds.append(codes[rng.choice(len(codes), p=far / far.sum())][None])
        far = np.minimum(far, cdist(codes, seeds[-1], "sqeuclidean")[:, 0])
    return np.concatenate(seeds)


def _lloyd(codes: Floats, middles: Floats, stop: Callable[[], bool]) -> tuple[Floats, float, bool]:
    """Lloyd's iterations until they settle: centres, sum of squared distances, whether it was not stopped."""
    from sklearn.cluster import KMeans

    limits = importlib.import_module("threadpoolctl").threadpool_limits

    inertia = np.inf
    for _ in range(_ROUNDS):
        # One thread: with more, sums are taken in the order threads finish, and centres differ in their last digits.
        with limits(1, user_api="openmp"):
            model = KMeans(len(middles), init=middles, n_init=1, max_iter=_ROUND, algorithm="lloyd").fit(codes)
        middles, inertia = model.cluster_centers_.astype(np.float32), float(model.inertia_)
        if model.n_iter_ < _ROUND:
            break
        if stop():
            return middles, inertia, False
    return middles, inertia, True


def _centres(directions: Floats, length: npt.NDArray[np.float64], label: Ints, wanted: int, finished: bool) -> Centres:
    """What the members say of their clusters, the largest first; those without members are dropped."""
    k = int(label.max()) + 1
    sums = np.zeros((k, directions.shape[1]))
    np.add.at(sums, label, directions)
    means = _directions(sums.astype(np.float32))[0]
    # Once more: the means are not quite what the labels were taken by.
    label, distance = _nearest(directions, means)
    members = np.bincount(label, minlength=k)
    squares = np.bincount(label, np.square(distance, dtype=np.float64), k)
    # Of clusters equally large the one whose centre is first in the order of its values: no matter of chance.
    order = np.lexsort((*means.T[::-1], -members))[: np.count_nonzero(members)]
    average = np.bincount(label, length, k) / np.maximum(members, 1)
    made, n = len(order), len(directions)
    note = "" if made == wanted else f"{n} codes make {made} clusters, not {wanted}"
    return Centres(
        (means[order] * average[order, None]).astype(np.float32),
        members[order].astype(np.int64),
        np.sqrt(squares[order] / members[order]).astype(np.float32),
        float(squares.sum()),
        finished,
        note,
    )
