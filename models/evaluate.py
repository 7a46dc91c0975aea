"""Scores of classifiers, with intervals: confusion, rates, precision and recall, area under the ROC curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]


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
