"""Scores with intervals: of classifiers (rates, ROC), of denoisers (PSNR), of clusters (F1, Rand index, purity)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; the interval is NaN where a single micrograph, or particle, gives it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Rate:
    """A ratio of counts with its 95 % interval. ``value`` is NaN where ``of`` is 0."""

    value: float
    low: float
    high: float
    hits: int
    of: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; an undefined rate has ``None``."""
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        if self.of == 0:
            return "-"
        return f"{100 * self.value:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"


def wilson(hits: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a binomial rate; (0, 1) without trials."""
    if of == 0:
        return 0.0, 1.0
    rate, square = hits / of, z * z
    middle = (rate + square / (2 * of)) / (1 + square / of)
    half = z / (1 + square / of) * float(np.sqrt(rate * (1 - rate) / of + square / (4 * of * of)))
    return max(0.0, middle - half), min(1.0, middle + half)


def rate(hit: Flags, among: Flags, groups: Ints, resamples: int = 1000, seed: int = 0) -> Rate:
    """How often ``hit`` is true where ``among`` is, with a 95 % bootstrap interval that draws whole groups.

    Patterns of one particle model resemble each other; drawing models instead of patterns keeps the interval honest.
    Where every count is 0 or all, resampling cannot vary, and Wilson's interval over the groups seen stands instead.
    """
    _, index = np.unique(groups, return_inverse=True)
    hits = np.bincount(index, weights=(hit & among).astype(float))
    trials = np.bincount(index, weights=among.astype(float))
    k, n = int(hits.sum()), int(trials.sum())
    if n == 0:
        return Rate(float("nan"), 0.0, 1.0, 0, 0)
    if k in {0, n} or len(hits) < 2:
        return Rate(k / n, *wilson(k, n), k, n)
    draws = np.random.default_rng(seed).integers(0, len(hits), (resamples, len(hits)))
    below = trials[draws].sum(1)
    values = hits[draws].sum(1)[below > 0] / below[below > 0]
    low, high = np.quantile(values, (0.025, 0.975))
    return Rate(k / n, float(low), float(high), k, n)


def confusion(labels: Ints, predicted: Ints, classes: int) -> npt.NDArray[np.int64]:
    """Counts (classes, classes): row = truth, column = prediction."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels.astype(int), predicted.astype(int)), 1)
    return table


def auc(scores: Floats, positive: Flags) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half. NaN without both."""
    order, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    del order
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    p, n = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else float("nan")


def strictest_needed(scores: Floats, positive: Flags, limit: float, least: float = 0.5) -> float:
    """The lowest threshold, at least ``least``, at which the false-positive rate stays below ``limit``.

    The rate that must stay below is the upper end of its 90 % Wilson interval (95 % one-sided), so that a small sample
    of negatives gives a stricter threshold. A score equal to the threshold counts as positive. 1 if none suffices.
    """
    negatives = np.sort(scores[~positive].astype(float))
    for candidate in np.concatenate([[least], np.nextafter(negatives[negatives >= least], 2.0)]):
        false = len(negatives) - int(np.searchsorted(negatives, candidate, side="left"))
        if wilson(false, len(negatives), 1.644854)[1] < limit:
            return float(min(candidate, 1.0))
    return 1.0


def psnr(images: Floats, truth: Floats) -> Doubles:
    """Peak signal-to-noise ratio in dB of each image, both scaled to 0..1 by their own least and greatest value.

    ``images``, ``truth``: (n, ny, nx), any real dtype. The peak is 1, so a value is -10 log10 of the mean square
    difference; a constant image counts as 0 everywhere. 100 dB at most, which stands for the same image.
    Raises ``ValueError`` for other or unequal shapes.
    """
    shown, true = _pairs(images, truth)
    return _decibel(((_unit(shown) - _unit(true)) ** 2).mean(1))


def psnr_fit(images: Floats, truth: Floats) -> Doubles:
    """Peak signal-to-noise ratio in dB of each image after the gain (0 or more) and offset that fit the truth best.

    An image of an electron microscope has no absolute scale, so that a method must not win by a good guess of it; a
    picture whose contrast is reversed still counts as wrong. Peak: the truth's greatest less its least value.
    ``images``, ``truth``: (n, ny, nx), any real dtype. 100 dB at most. Raises ``ValueError`` for other shapes.
    """
    shown, true = _pairs(images, truth)
    shown, peak = shown - shown.mean(1, keepdims=True), np.ptp(true, axis=1)
    true = true - true.mean(1, keepdims=True)
    power = (shown * shown).sum(1)
    gain = np.maximum((shown * true).sum(1), 0) / np.where(power > 0, power, 1)
    error = ((gain[:, None] * shown - true) ** 2).mean(1)
    return _decibel(error / np.where(peak > 0, peak, 1) ** 2)


def _pairs(images: Floats, truth: Floats) -> tuple[Doubles, Doubles]:
    shown, true = np.asarray(images, np.float64), np.asarray(truth, np.float64)
    if shown.ndim != 3 or shown.shape != true.shape:
        raise ValueError(f"images of shape {shown.shape}, truth of {true.shape}: both must be the same (n, ny, nx)")
    return shown.reshape(len(shown), -1), true.reshape(len(true), -1)


def _unit(flat: Doubles) -> Doubles:
    low, span = flat.min(1, keepdims=True), np.ptp(flat, axis=1, keepdims=True)
    scaled: Doubles = (flat - low) / np.where(span > 0, span, 1)
    return scaled


def _decibel(error: Doubles) -> Doubles:
    found: Doubles = -10 * np.log10(np.maximum(error, 1e-10))
    return found


def mean_interval(values: Floats, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The mean of ``values`` (n,) with its 95 % bootstrap interval; the interval is NaN with fewer than two."""
    n = len(values)
    if n < 2:
        return Estimate(float(np.mean(values)) if n else float("nan"), float("nan"), float("nan"))
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = np.quantile(draws @ np.asarray(values, np.float64) / n, (0.025, 0.975))
    return Estimate(float(np.mean(values)), float(low), float(high))


@dataclass(frozen=True, slots=True)
class ClusterScores:
    """How well clusters agree with known classes, each with its 95 % interval over images.

    ``f1``, ``precision``, ``recall``: mean over classes, each with the one cluster that is matched to it (one-to-one,
    as many images as possible; Kuhn 1955), 0 for a class left without. ``rand``: adjusted Rand index (Hubert and Arabie
    1985), 0 for chance. ``homogeneity``: share of the classes' entropy that the clusters tell (Rosenberg and Hirschberg
    2007). ``purity``: share of images in the class that is most frequent in their cluster. The interval says how sure
    the score of this clustering is, not how much another start of the method would change it.
    """

    f1: Estimate
    precision: Estimate
    recall: Estimate
    rand: Estimate
    homogeneity: Estimate
    purity: Estimate

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def cluster_scores(labels: Ints, clusters: Ints, resamples: int = 1000, seed: int = 0) -> ClusterScores:
    """Scores of ``clusters`` (n,) against the true classes ``labels`` (n,); whole numbers, whose values do not matter.

    The interval draws images: all scores are functions of the counts (class by cluster), so that drawing tables of
    counts is the same and far cheaper. Raises ``ValueError`` for unequal or no lengths.
    """
    if labels.shape != clusters.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels {labels.shape}, clusters {clusters.shape}: both must be (n,), of one image or more")
    table = counted(labels, clusters)
    n = len(labels)
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=resamples).reshape(-1, *table.shape)
    # Matched once: the best matching of each drawn table would make chance look better than it is.
    pairs = matched(table)
    value = _of_tables(table[None], pairs)[0]
    low, high = np.quantile(_of_tables(drawn, pairs), (0.025, 0.975), axis=0) if resamples else np.full((2, 6), np.nan)
    return ClusterScores(*(Estimate(*map(float, three)) for three in zip(value, low, high, strict=True)))


def counted(labels: Ints, clusters: Ints) -> npt.NDArray[np.int64]:
    """Counts (classes, clusters) of the values that occur, in rising order."""
    _, row = np.unique(labels, return_inverse=True)
    _, column = np.unique(clusters, return_inverse=True)
    table = np.zeros((int(row.max()) + 1, int(column.max()) + 1), np.int64)
    np.add.at(table, (row, column), 1)
    return table


def matched(table: npt.NDArray[np.int64]) -> Pairs:
    """Rows and columns of counts (classes, clusters) that belong together: one-to-one, as many counted as possible."""
    rows, columns = linear_sum_assignment(table, maximize=True)
    return rows, columns


def _of_tables(tables: npt.NDArray[np.int64], match: Pairs) -> Doubles:
    """The six scores, float64 (tables, 6), of counts (tables, classes, clusters), of which these belong together."""
    by_class, by_cluster = tables.sum(2), tables.sum(1)
    matches = _of_match(tables, by_class, by_cluster, match)
    n = by_class.sum(1)
    pairs = _pairs_in(tables).sum(1)
    chance = _pairs_in(by_class) * _pairs_in(by_cluster) / np.maximum(n * (n - 1) / 2, 1)
    most = (_pairs_in(by_class) + _pairs_in(by_cluster)) / 2
    rand = np.divide(pairs - chance, most - chance, out=np.ones_like(most), where=most != chance)
    entropy = _entropy(by_class)
    told = entropy + _entropy(by_cluster) - _entropy(tables.reshape(len(tables), -1))
    homogeneity = np.divide(told, entropy, out=np.ones_like(told), where=entropy > 0)
    return np.column_stack([matches, rand, homogeneity, tables.max(1).sum(1) / n])


def _pairs_in(counts: npt.NDArray[np.int64]) -> Doubles:
    found: Doubles = (counts * (counts - 1) / 2).sum(-1)
    return found


def _entropy(counts: npt.NDArray[np.int64]) -> Doubles:
    share = counts / counts.sum(1, keepdims=True)
    return -np.asarray((share * np.log(np.where(share > 0, share, 1))).sum(1), np.float64)


def _of_match(tables: npt.NDArray[np.int64], by_class: Ints, by_cluster: Ints, match: Pairs) -> Doubles:
    """F1, precision and recall, float64 (tables, 3)."""
    rows, columns = match
    right, true, found = tables[:, rows, columns], by_class[:, rows], by_cluster[:, columns]
    # A class that no image was drawn of has no scores, and is left out of the mean.
    classes = np.maximum((by_class > 0).sum(1), 1)
    parts = (2 * right / np.maximum(found + true, 1), right / np.maximum(found, 1), right / np.maximum(true, 1))
    return np.column_stack([part.sum(1) / classes for part in parts])
