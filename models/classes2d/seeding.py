"""Seeds of k-means: images drawn far apart."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .polar import Complexes, compare


def seeds(spectra: Complexes, k: int, rng: np.random.Generator, first: Complexes | None = None) -> Complexes:
    """Choose k of the images (n, R, M), drawn far apart; centres in ``first`` are taken as chosen already.

    Greedy k-means++ (Arthur and Vassilvitskii, SODA 2007): each is the best of 2 + ln k drawn with odds that grow with
    the squared distance to the nearest chosen one, which is 2 - 2 × correlation after the best turn.
    """
    chosen = spectra[rng.integers(len(spectra), size=1)] if first is None or not len(first) else first
    distance = _distance(spectra, chosen).min(1)
    for _ in range(len(chosen), k):
        total = float(distance.sum())
        odds = distance / total if total > 0 else None
        trials = rng.choice(len(spectra), 2 + int(math.log(k)), p=odds)
        nearer = np.minimum(distance[:, None], _distance(spectra, spectra[trials]))
        best = int(nearer.sum(0).argmin())
        chosen = np.concatenate([chosen, spectra[trials[best]][None]])
        distance = nearer[:, best]
    return chosen.copy()


def _distance(spectra: Complexes, centres: Complexes) -> npt.NDArray[np.float64]:
    similarity, _ = compare(spectra, centres)
    return np.maximum(2.0 - 2.0 * similarity.astype(np.float64), 0)
