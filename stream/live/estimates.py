"""Purity and recall from reviewed frames, with 95 % intervals: how much of what is kept is true, and what is lost.

Two strata are sampled, and what was accepted or rejected in all is known: reviewed accepted frames are a sample of all
accepted; reviewed random misses (``extra["group"] == "random_miss"``, weight 1/f) one of all rejected. What a person
went looking for (``by_hand``), and rejected frames that were shown for another reason, are samples of nothing: they do
not count here. Horvitz and Thompson, J. Am. Stat. Assoc. 47 (1952) 663, and Cochran, Sampling Techniques (1977), ch. 5.

Where only accepted frames matter, purity is a plain share, with Wilson's interval. Else the interval holds 95 % of the
posterior of the ratio: in each stratum the shares of (true, false) × (score from the threshold on, below it) have a
Dirichlet posterior with Jeffreys' prior (1/2 for each cell that can be), and the strata are joined by their known
totals. Unequal weights within a stratum count as Kish's effective number of marks (Survey Sampling, 1965, 11.7).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..flow.rates import wilson
from ..formats.marks import Mark

Floats = npt.NDArray[np.float64]

DRAWS = 500
SEED = 20_260_101
PRIOR = 0.5
BY_HAND, RANDOM_MISS = "by_hand", "random_miss"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval, and how many marks it rests on."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """``{"value", "low", "high", "n"}``."""
        return asdict(self)

    def triple(self) -> list[float]:
        """``[value, low, high]``."""
        return [self.value, self.low, self.high]


@dataclass(frozen=True, slots=True)
class Totals:
    """How many frames (or candidates) were judged of which the marks are a sample: those accepted, those rejected."""

    accepted: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Purity and recall at every threshold asked for; None where the marks do not tell."""

    thresholds: tuple[float, ...]
    purity: tuple[Estimate | None, ...]
    recall: tuple[Estimate | None, ...]


def purity(marks: Iterable[Mark], threshold: float, totals: Totals | None = None) -> Estimate | None:
    """Share of true ones among all that score at least ``threshold``.

    Above the thresholds that were in force, accepted frames alone tell. Below, rejected ones would join them: that
    needs ``totals``, and marked random misses. None where a needed stratum has no mark, or no mark scores so high.
    """
    return curve(marks, [threshold], totals).purity[0]


def recall(marks: Iterable[Mark], threshold: float, totals: Totals | None) -> Estimate | None:
    """Share of all true ones that score at least ``threshold``; None where a stratum that matters has no mark.

    A stratum matters unless ``totals`` says that it is empty. None, too, while no true one was marked at all.
    """
    return curve(marks, [threshold], totals).recall[0]


def curve(marks: Iterable[Mark], thresholds: Sequence[float], totals: Totals | None = None) -> Curve:
    """``purity`` and ``recall`` at thresholds in rising order. The random numbers of the intervals are always the same.

    Raises ``ValueError`` for thresholds that fall.
    """
    at = np.asarray(thresholds, np.float64)
    if (np.diff(at) < 0).any():
        raise ValueError("thresholds: must rise")
    sample = _Sample.of(marks)
    strata = [_Stratum(sample, True, at), _Stratum(sample, False, at)]
    nothing: tuple[Estimate | None, ...] = (None,) * len(at)
    joined = _joined(strata, totals, at) if totals is not None and _told(strata, totals) else None
    plain = ~strata[1].above | bool(totals and not totals.rejected)
    above = (sample.score[:, None] >= at).sum(0)
    both = joined.share(0, 2, above) if joined and not plain.all() else nothing
    purity = tuple(_plain(strata[0], t) if alone else one for t, alone, one in zip(at, plain, both, strict=True))
    everything = np.full(len(at), sum(s.n for s in strata))
    return Curve(tuple(at.tolist()), purity, joined.share(0, 1, everything) if joined else nothing)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Marks that are a sample, as arrays (n,)."""

    score: Floats
    true: npt.NDArray[np.bool_]
    accepted: npt.NDArray[np.bool_]
    weight: Floats
    threshold: Floats

    @classmethod
    def of(cls, marks: Iterable[Mark]) -> _Sample:
        kept = [m for m in marks if m.truth is not None and math.isfinite(m.score) and _sampled(m)]
        score = np.array([_score(m) for m in kept], np.float64)
        true, accepted = (np.array([getattr(m, n) for m in kept], bool) for n in ("truth", "accepted"))
        # Without a threshold, what is known of the one in force is that every accepted frame reached it.
        in_force = np.array([m.threshold if math.isfinite(m.threshold) else m.score for m in kept], np.float64)
        return cls(score, true, accepted, np.array([m.weight for m in kept], np.float64), in_force)


def _sampled(mark: Mark) -> bool:
    group = mark.extra.get("group")
    return group != BY_HAND if mark.accepted else group == RANDOM_MISS


def _score(mark: Mark) -> float:
    if mark.accepted:
        return mark.score
    if mark.extra.get("by") == "prescreen":
        # The prescreen's score counts lit pixels: the frame got no probability, and no threshold would keep it.
        return -math.inf
    limit = mark.threshold if math.isfinite(mark.threshold) else math.inf
    return min(mark.score, math.nextafter(limit, -math.inf))


class _Stratum:
    """The marks of accepted or of rejected frames: their shares at every threshold, and draws of these shares.

    ``shares``: float (4, t): true from the threshold on, true below, false from it on, false below. ``draws``: the
    same of the posterior, (4, t, DRAWS). ``above``: bool (t,): frames of this stratum can score so high.
    """

    def __init__(self, sample: _Sample, accepted: bool, at: Floats) -> None:
        chosen = sample.accepted == accepted
        self.score, self.true = sample.score[chosen], sample.true[chosen]
        weight = sample.weight[chosen]
        self.n = len(weight)
        lowest, highest = (sample.threshold.min(), sample.threshold.max()) if len(sample.threshold) else (0.0, 1.0)
        # An accepted frame does not score below, a rejected one not above what was in force: no prior for such cells.
        self.above = np.ones(len(at), bool) if accepted else at < highest
        self.below = at > lowest if accepted else np.ones(len(at), bool)
        # Kish: unequal weights are worth (Σw)²/Σw² marks of equal ones.
        scale = weight.sum() / np.square(weight).sum() if self.n else 1.0
        self._counts = self._binned(weight * scale, at)
        self._at = at

    def _binned(self, weight: Floats, at: Floats) -> Floats:
        """Effective marks (2, t + 1): true and false, by how many thresholds they reach."""
        reached = np.searchsorted(at, self.score, side="right")
        return np.stack(
            [np.bincount(reached[k], weight[k], len(at) + 1).astype(np.float64) for k in (self.true, ~self.true)]
        )

    def shares(self) -> Floats:
        """As the marks have them; zero without marks."""
        return _normalised(_cells(self._counts[..., None]))[..., 0]

    def draws(self, rng: np.random.Generator) -> Floats:
        """Of the posterior."""
        gamma = np.zeros((*self._counts.shape, DRAWS), np.float32)
        some = self._counts > 0
        shape = self._counts[some].astype(np.float32)
        gamma[some] = rng.standard_gamma(shape[:, None], (len(shape), DRAWS), dtype=np.float32)
        cells = _cells(gamma)
        prior = rng.standard_gamma(PRIOR, (4, 1, DRAWS), dtype=np.float32)
        can = np.stack([self.above, self.below, self.above, self.below])
        return _normalised(cells + prior * can[..., None])


def _cells(binned: npt.NDArray[np.floating[Any]]) -> Floats:
    """(2, t + 1, d) to (4, t, d): true above, true below, false above, false below each threshold."""
    below = np.cumsum(binned, 1)[:, :-1]
    above = np.cumsum(binned[:, ::-1], 1)[:, -2::-1]
    return np.stack([above[0], below[0], above[1], below[1]])


def _normalised(cells: Floats) -> Floats:
    whole = cells.sum(0)
    found: Floats = np.divide(cells, whole, out=np.zeros_like(cells), where=whole > 0)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """Frames of all strata by cell: as the marks have them, float (4, t), and drawn, (4, t, DRAWS)."""

    numbers: Floats
    drawn: npt.NDArray[np.float32]

    def share(self, hits: int, rest: int, n: npt.NDArray[np.int_]) -> tuple[Estimate | None, ...]:
        """Frames of cell ``hits`` among those of it and ``rest``; None where there are none. ``n``: marks (t,)."""
        whole = self.numbers[hits] + self.numbers[rest]
        value = np.divide(self.numbers[hits], whole, out=np.zeros_like(whole), where=whole > 0)
        drawn = self.drawn[hits] + self.drawn[rest]
        np.divide(self.drawn[hits], drawn, out=drawn, where=drawn > 0)
        ends = [round(q * (DRAWS - 1)) for q in (0.025, 0.975)]
        drawn.partition(ends, axis=1)
        # The prior draws the posterior away from 0 and 1; what the marks say is never outside.
        low, high = np.minimum(drawn[:, ends[0]], value), np.maximum(drawn[:, ends[1]], value)
        return tuple(
            Estimate(float(v), float(a), float(b), int(k)) if w > 0 else None
            for v, a, b, k, w in zip(value, low, high, n, whole, strict=True)
        )


def _joined(strata: Sequence[_Stratum], totals: Totals, at: Floats) -> _Joined:
    rng = np.random.default_rng(SEED)
    numbers, drawn = np.zeros((4, len(at))), np.zeros((4, len(at), DRAWS), np.float32)
    for stratum, total in zip(strata, (totals.accepted, totals.rejected), strict=True):
        if total:
            numbers += total * stratum.shares()
            drawn += np.float32(total) * stratum.draws(rng)
    return _Joined(numbers, drawn)


def _told(strata: Sequence[_Stratum], totals: Totals) -> bool:
    """Whether every stratum that holds frames has marks."""
    return all(s.n or not total for s, total in zip(strata, (totals.accepted, totals.rejected), strict=True))


def _plain(accepted: _Stratum, threshold: float) -> Estimate | None:
    """Purity where accepted frames alone can score so high: a share of marks that all count alike."""
    above = accepted.score >= threshold
    k, n = int((above & accepted.true).sum()), int(above.sum())
    return Estimate(k / n, *wilson(k, n), n) if n else None
