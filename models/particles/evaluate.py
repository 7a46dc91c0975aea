"""Scores of a picker on micrographs whose particles are known: see ``matching`` for how picks are matched and ranked.

Intervals are 95 %, by bootstrap over micrographs: picks of one micrograph resemble each other, micrographs do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..evaluate import Estimate
from .candidates import Labelled
from .fields import Field, Found, Pick, Progress, find
from .matching import Curve, Ranked, average_precision, centre_error, curve, f_score, join, rank
from .scores import AtRadius, Scores, scores_of

__all__ = ["BORDER", "RADII", "AtRadius", "Estimate", "Scores", "evaluate", "score", "scores_of"]

RADII = (0.2, 0.5)
"""Radii of matching, in particle diameters."""
BORDER = 0.5
"""Particles nearer to an edge than this, in diameters, are not asked for, where a bundle says nothing else."""
RESAMPLES = 1000


def evaluate(
    pick: Pick,
    fields: Sequence[Field | Labelled],
    diameter_a: float,
    *,
    threshold: float,
    radii: Sequence[float] = RADII,
    border: float = BORDER,
    progress: Progress | None = None,
) -> Scores:
    """Pick ``fields`` and score what was found: ``find``, then ``score``, which see."""
    found = find(pick, fields, progress, len(fields))
    return score(found, diameter_a, threshold=threshold, radii=radii, border=border)


def score(
    found: Sequence[Found],
    diameter_a: float,
    *,
    threshold: float,
    radii: Sequence[float] = RADII,
    border: float = BORDER,
) -> Scores:
    """Scores of what was ``found`` on some micrographs.

    ``diameter_a``: the particle's, Å. ``threshold``: from which score on a candidate is a pick. ``radii``, ``border``:
    in diameters; particles and picks nearer than ``border`` to an edge do not count. Raises ``ValueError`` for no
    micrographs, or coordinates or scores that are no numbers.
    """
    if not found:
        raise ValueError("no micrographs to score")
    picked = [one.above(threshold) for one in found]
    lines, rows = {}, {}
    for radius in radii:
        everything = [_rank(one, radius, border, diameter_a) for one in found]
        chosen = [_rank(one, radius, border, diameter_a) for one in picked]
        whole = join(everything)
        lines[radius] = curve(whole.score, whole.hit, whole.targets)
        rows[radius] = _at_radius(radius, everything, chosen, lines[radius], diameter_a, [f.pixel_a for f in found])
    known = [one for one in picked if one.on_carbon is not None]
    on = [int(one.on_carbon.sum()) for one in known if one.on_carbon is not None]
    return Scores(
        names=tuple(one.name for one in found),
        threshold=threshold,
        diameter_a=diameter_a,
        border=border,
        at=rows,
        curves=lines,
        picks=tuple(len(one.score) for one in chosen),
        targets=tuple(one.targets for one in chosen),
        on_carbon=_ratio(sum(on), sum(len(one.candidates) for one in known)) if known else math.nan,
        carbon_share=float(np.mean([one.carbon_share for one in known])) if known else math.nan,
        seconds=float(np.mean([one.seconds for one in found])),
    )


def _rank(one: Found, radius: float, border: float, diameter_a: float) -> Ranked:
    diameter, c = diameter_a / one.pixel_a, one.candidates
    return rank(
        (c.x, c.y, c.score),
        one.true,
        radius * diameter,
        shape=one.shape,
        border=border * diameter,
        ignore=one.ignore,
        ignore_radius=0.5 * diameter,
    )


def _at_radius(
    radius: float,
    everything: list[Ranked],
    chosen: list[Ranked],
    line: Curve,
    diameter_a: float,
    pixels: list[float],
) -> AtRadius:
    precision, recall = _rates(chosen)
    p, r = np.nan_to_num(precision.value), recall.value
    errors = centre_error(
        np.concatenate([one.error * a / diameter_a for one, a in zip(everything, pixels, strict=True)])
    )
    some = len(line.threshold) > 0 and sum(one.targets for one in everything) > 0
    return AtRadius(
        radius=radius,
        average_precision=bootstrap(everything),
        best_f1=line.best(1) if some else None,
        best_f2=line.best(2) if some else None,
        precision=precision,
        recall=recall,
        f1=float(f_score(p, r, 1)),
        f2=float(f_score(p, r, 2)),
        error_mean=errors.mean,
        error_rms=errors.rms,
        error_rms_px=centre_error(np.concatenate([one.error for one in everything])).rms,
    )


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan


def _draws(micrographs: int, seed: int) -> npt.NDArray[np.intp]:
    """How often each micrograph is drawn in each resample, (RESAMPLES, micrographs)."""
    chance = np.random.default_rng(seed)
    return chance.multinomial(micrographs, np.full(micrographs, 1 / micrographs), RESAMPLES).astype(np.intp)


def _interval(values: npt.NDArray[np.float64], micrographs: int) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if micrographs < 2 or not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def bootstrap(parts: Sequence[Ranked], seed: int = 0) -> Estimate:
    """Average precision over all micrographs, with the interval that drawing micrographs with replacement gives."""
    whole = join(parts)
    value = average_precision(whole.score, whole.hit, whole.targets)
    order = np.argsort(-whole.score, kind="stable")
    micrograph = np.repeat(np.arange(len(parts)), [len(p.score) for p in parts])[order]
    hit, values = whole.hit[order], whole.score[order]
    last = np.append(np.diff(values) != 0, True) if len(values) else np.zeros(0, bool)
    targets = np.array([p.targets for p in parts])
    found = np.full(RESAMPLES, math.nan)
    for number, drawn in enumerate(_draws(len(parts), seed)):
        weight, wanted = drawn[micrograph], int(drawn @ targets)
        picks, hits = np.cumsum(weight)[last], np.cumsum(weight * hit)[last]
        if wanted:
            found[number] = (hits / np.maximum(picks, 1)) @ np.diff(hits, prepend=0) / wanted
    return Estimate(value, *_interval(found, len(parts)))


def _rates(parts: Sequence[Ranked], seed: int = 0) -> tuple[Estimate, Estimate]:
    """Precision and recall of all that was picked."""
    counts = np.array([(p.hit.sum(), len(p.score), p.targets) for p in parts], np.float64)
    hits, picks, targets = counts.sum(0)
    drawn = _draws(len(parts), seed) @ counts
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = drawn[:, 0] / drawn[:, 1], drawn[:, 0] / drawn[:, 2]
    return (
        Estimate(_ratio(hits, picks), *_interval(precision, len(parts))),
        Estimate(_ratio(hits, targets), *_interval(recall, len(parts))),
    )
