"""Which picks, and which candidates that are none, are offered for review: random ones, so that marks are a sample.

A pick is offered with probability 1/20, a candidate that is none with 1/50, whatever its score and the micrograph's
yield; only where more than 12 or 4 of one micrograph would be, the probability is 12/N or 4/N. A mark's weight is one
over that probability. Who marks what was not offered went looking for it: that is ``by_hand``, a sample of nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARE_PICKS, MOST_PICKS = 1 / 20, 12
SHARE_MISSES, MOST_MISSES = 1 / 50, 4
SHOWN = 12

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """Of one micrograph: indices of candidates. ``picks`` and ``misses`` are offered, each of them for ``weight``.

    ``shown``: random picks for the gallery, those that are offered first.
    """

    picks: Indices
    misses: Indices
    shown: Indices
    pick_weight: float
    miss_weight: float


def offer(row_id: str, picked: npt.NDArray[np.bool_], skipped: bool = False) -> Offer:
    """What is offered of a micrograph's candidates, bool (n,): always the same for the same id and the same picks.

    Nothing of one that was ``skipped`` for its quality: nobody asked where its particles are.
    """
    if skipped:
        picked = np.zeros(0, bool)
    rng = np.random.default_rng(list(row_id.encode()))
    order, lots = rng.permutation(len(picked)), rng.random(2)
    picks, misses = order[picked[order]], order[~picked[order]]
    n, pick_weight = _number(len(picks), SHARE_PICKS, MOST_PICKS, float(lots[0]))
    m, miss_weight = _number(len(misses), SHARE_MISSES, MOST_MISSES, float(lots[1]))
    return Offer(picks[:n], misses[:m], picks[: max(n, SHOWN)], pick_weight, miss_weight)


def _number(of: int, share: float, most: int, lot: float) -> tuple[int, float]:
    """How many of so many, and one over the probability of each."""
    if of * share >= most:
        return most, of / most
    # Up or down at random, so that each has exactly the same chance whatever their number is.
    return math.floor(of * share + lot), 1 / share
