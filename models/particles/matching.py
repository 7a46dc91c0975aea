"""Which found positions are true ones, and what that says of a picker: curves, average precision, F-scores, errors.

How matching and ranking go together: the candidates of a micrograph, whatever their score, are matched with its
particles once and one-to-one (``match``), as Topaz does (Bepler et al. 2019, Methods, "average-precision score"); a
matched candidate is a hit for ever. Then the candidates of all micrographs are ranked by score, and every threshold
cuts that one list. No candidate is matched greedily in the order of its score. The denominator of recall is the number
of all targets, found or not, so a picker that misses half of them has at most 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Values = npt.ArrayLike
Flags = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Pairs of one found and one true position. ``found``, ``true``: intp (m,); ``distance``: float64 (m,), pixels."""

    found: Indices
    true: Indices
    distance: Doubles

    def __len__(self) -> int:
        return len(self.found)

    def take(self, which: Flags) -> Matches:
        """The pairs that a mask names."""
        return Matches(self.found[which], self.true[which], self.distance[which])


def match(found_x: Values, found_y: Values, true_x: Values, true_y: Values, radius: float) -> Matches:
    """The one-to-one matching of found (n,) with true (m,) positions, pairs at most ``radius`` apart (same unit).

    As many pairs as there can be; among those matchings, the one whose squared distances have the smallest sum
    (Hungarian assignment). Pairs are ordered by the found position's index. Positions that no chain of possible pairs
    connects do not compete, so each connected group is solved by itself. Raises ``ValueError`` for coordinates that
    are not finite or of different lengths, or a radius that is not positive.
    """
    found, true = _points(found_x, found_y, "found"), _points(true_x, true_y, "true")
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"radius: {radius} is not a positive number of pixels")
    if not len(found) or not len(true):
        return Matches(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))
    near = cKDTree(found).sparse_distance_matrix(cKDTree(true), radius, output_type="ndarray")
    i, j = near["i"], near["j"]
    chosen = _assign(i, j, near["v"] ** 2, len(found), len(true), radius**2)
    order = np.argsort(i[chosen], kind="stable")
    pairs = chosen[order]
    return Matches(i[pairs].astype(np.intp), j[pairs].astype(np.intp), near["v"][pairs].astype(np.float64))


def _points(x: Values, y: Values, what: str) -> Doubles:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"{what}: x and y have shapes {x.shape} and {y.shape}; both must be (n,)")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{what}: coordinates that are not finite")
    return np.stack([x, y], 1)


def _assign(i: Indices, j: Indices, squared: Doubles, n: int, m: int, limit: float) -> Indices:
    """Which of the possible pairs (i, j) make the best matching: indices into them."""
    graph = coo_array((np.ones(len(i)), (i, j + n)), shape=(n + m, n + m))
    group = connected_components(graph, directed=False)[1][i]
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    # Most groups are one particle and its one candidate; thousands of tiny Hungarian problems would take seconds.
    chosen = [p if len(p) < 2 else p[_hungarian(i[p], j[p], squared[p], limit)] for p in parts]
    return np.concatenate(chosen)


def _hungarian(i: Indices, j: Indices, squared: Doubles, limit: float) -> Indices:
    rows, row = np.unique(i, return_inverse=True)
    columns, column = np.unique(j, return_inverse=True)
    # One pair more is worth more than any distances, so the number of pairs comes first.
    bonus = limit * (min(len(rows), len(columns)) + 1)
    cost = np.zeros((len(rows), len(columns)))
    cost[row, column] = squared - bonus
    which = np.full(cost.shape, -1, np.intp)
    which[row, column] = np.arange(len(i))
    pairs: Indices = which[linear_sum_assignment(cost)]
    return pairs[pairs >= 0]


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Candidates that count, of one micrograph or of many: their ``score`` float64 (n,) and whether each is a ``hit``.

    ``targets``: all particles that were to be found. ``error``: distances of hits from their particles, in the order of
    the hits, float64 (hits,), pixels.
    """

    score: Doubles
    hit: Flags
    targets: int
    error: Doubles


def rank(
    found: tuple[Values, Values, Values],
    true: tuple[Values, Values],
    radius: float,
    *,
    shape: tuple[int, int] | None = None,
    border: float = 0.0,
    ignore: tuple[Values, Values] | None = None,
    ignore_radius: float | None = None,
) -> Ranked:
    """Match one micrograph's candidates ``found`` = (x, y, score), each (n,), with its particles ``true`` = (x, y).

    With ``shape`` (ny, nx), particles less than ``border`` pixels from an edge are neither asked for nor held against:
    they, the candidates matched with them, and unmatched candidates in the border do not count. A candidate in the
    border that is matched with a particle inside counts. ``ignore`` are positions nobody is asked about (overlapped
    particles, say): an unmatched candidate within ``ignore_radius`` (default: ``radius``) of one does not count.
    """
    x, y, score = (np.asarray(v, np.float64) for v in found)
    if score.shape != x.shape or np.isnan(score).any():
        raise ValueError(f"scores: shape {score.shape} for {x.shape} candidates, or not numbers")
    pairs = match(x, y, *true, radius)
    wanted = ~_in_border(*true, shape, border)
    counts = ~(_in_border(x, y, shape, border) | _near(x, y, ignore, ignore_radius or radius))
    # What is matched counts by where its particle lies, not by where it lies itself.
    counts[pairs.found] = wanted[pairs.true]
    hit, error = np.zeros(len(x), bool), np.zeros(len(x))
    hit[pairs.found], error[pairs.found] = wanted[pairs.true], pairs.distance
    return Ranked(score[counts], hit[counts], int(wanted.sum()), error[counts & hit])


def _in_border(x: Values, y: Values, shape: tuple[int, int] | None, border: float) -> Flags:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if shape is None or border <= 0:
        return np.zeros(len(x), bool)
    ny, nx = shape
    # A whole number is the middle of a pixel: the picture reaches from -0.5 to n - 0.5.
    return (np.minimum(x + 0.5, nx - 0.5 - x) < border) | (np.minimum(y + 0.5, ny - 0.5 - y) < border)


def _near(x: Doubles, y: Doubles, others: tuple[Values, Values] | None, radius: float) -> Flags:
    points = None if others is None else _points(*others, "ignore")
    if points is None or not len(points) or not len(x):
        return np.zeros(len(x), bool)
    return np.asarray(cKDTree(points).query(np.stack([x, y], 1))[0] <= radius)


def join(parts: Sequence[Ranked]) -> Ranked:
    """The candidates of all micrographs as one list. Raises ``ValueError`` for none."""
    if not parts:
        raise ValueError("no micrographs to score")
    return Ranked(
        np.concatenate([p.score for p in parts]),
        np.concatenate([p.hit for p in parts]),
        sum(p.targets for p in parts),
        np.concatenate([p.error for p in parts]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Precision and recall of "pick what scores at least ``threshold``", thresholds falling; each float64 (k,).

    One point per distinct score, because candidates of equal score cannot be told apart.
    """

    threshold: Doubles
    precision: Doubles
    recall: Doubles

    def f(self, beta: float) -> Doubles:
        """Fβ = (1+β²)PR / (β²P+R) at every threshold (Zhu et al. 2017); 0 where both are 0."""
        return f_score(self.precision, self.recall, beta)

    def best(self, beta: float) -> Point:
        """The point of the highest Fβ, the highest threshold of equal ones. Raises ``ValueError`` on an empty curve."""
        if not len(self.threshold):
            raise ValueError("no candidates: there is no threshold to choose")
        f = self.f(beta)
        at = int(np.argmax(f))
        return Point(float(self.threshold[at]), float(self.precision[at]), float(self.recall[at]), float(f[at]))


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve and its F-score."""

    threshold: float
    precision: float
    recall: float
    f: float


def f_score(precision: Values, recall: Values, beta: float) -> Doubles:
    """Fβ of precision and recall, element by element; 0 where both are 0."""
    p, r = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    below = beta**2 * p + r
    return np.asarray(np.where(below > 0, (1 + beta**2) * p * r / np.where(below > 0, below, 1), 0.0))


def curve(score: Values, hit: npt.ArrayLike, targets: int) -> Curve:
    """The precision-recall curve of candidates (n,) ranked by ``score``; recall is hits over ``targets``.

    With no target at all, recall is NaN.
    """
    values, hits = np.asarray(score, np.float64), np.asarray(hit, bool)
    if values.shape != hits.shape or values.ndim != 1:
        raise ValueError(f"score and hit have shapes {values.shape} and {hits.shape}; both must be (n,)")
    if hits.sum() > targets:
        raise ValueError(f"{hits.sum()} hits of {targets} targets: the matching was not one-to-one")
    order = np.argsort(-values, kind="stable")
    values, right = values[order], np.cumsum(hits[order])
    last = np.flatnonzero(np.append(np.diff(values) != 0, True)) if len(values) else np.zeros(0, np.intp)
    recall = right[last] / targets if targets else np.full(len(last), np.nan)
    return Curve(values[last], right[last] / (last + 1.0), recall)


def average_precision(score: Values, hit: npt.ArrayLike, targets: int) -> float:
    """Σ P_k (R_k − R_{k−1}) over the distinct scores, falling: the area under the steps of ``curve``, not interpolated.

    ``score``, ``hit``: (n,), of the candidates. Targets that no candidate matches count as never found. NaN with no
    targets.
    """
    if not targets:
        return float("nan")
    found = curve(score, hit, targets)
    return float(np.sum(found.precision * np.diff(found.recall, prepend=0.0)))


@dataclass(frozen=True, slots=True)
class CentreError:
    """How far hits lie from their particles, pixels: ``mean``, root mean square ``rms``, over ``pairs`` of them."""

    mean: float
    rms: float
    pairs: int


def centre_error(distance: Values) -> CentreError:
    """Of the distances (m,) of matched pairs; NaN for none."""
    d = np.asarray(distance, np.float64)
    if not len(d):
        return CentreError(float("nan"), float("nan"), 0)
    return CentreError(float(d.mean()), float(np.sqrt((d**2).mean())), len(d))
