"""The scores of a picker, as values, as plain data for JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..evaluate import Estimate
from .matching import Curve, Point


@dataclass(frozen=True, slots=True)
class AtRadius:
    """Scores at one radius. ``best_f1``, ``best_f2``: the points of the curve with the highest F1 and F2.

    ``precision``, ``recall``, ``f1``, ``f2``: of the picks at the threshold in force, matched by themselves.
    ``error_mean``, ``error_rms``: of matched candidates from their particles, in diameters, ``error_rms_px`` in pixels.
    """

    radius: float
    average_precision: Estimate
    best_f1: Point | None
    best_f2: Point | None
    precision: Estimate
    recall: Estimate
    f1: float
    f2: float
    error_mean: float
    error_rms: float
    error_rms_px: float


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of one picker on one set of micrographs, at the threshold in force ``threshold``.

    ``at``: by radius in diameters; ``curves``: the precision-recall curves behind them. ``picks``, ``targets``: per
    micrograph, in the order of ``names``. ``on_carbon``: share of all picks that lie on carbon, ``carbon_share``: share
    of all pixels that do; NaN where nobody knows. ``seconds``: per micrograph.
    """

    names: tuple[str, ...]
    threshold: float
    diameter_a: float
    border: float
    at: dict[float, AtRadius]
    curves: dict[float, Curve]
    picks: tuple[int, ...]
    targets: tuple[int, ...]
    on_carbon: float
    carbon_share: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is not defined; of the curves at most 200 points each."""
        plain = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in {"at", "curves"}}
        plain["at"] = {f"{radius:g}": asdict(row) for radius, row in self.at.items()}
        plain["curves"] = {f"{radius:g}": _thinned(line) for radius, line in self.curves.items()}
        cleaned: dict[str, Any] = _plain(plain)
        return cleaned


def scores_of(plain: Mapping[str, Any]) -> Scores:
    """``Scores`` from what ``to_json`` gave, for pictures and tables; the curves stay thinned."""

    def number(value: Any) -> float:
        return math.nan if value is None else float(value)

    def row(of: Mapping[str, Any]) -> AtRadius:
        estimates = {k: Estimate(*map(number, of[k].values())) for k in ("average_precision", "precision", "recall")}
        points = {k: None if of[k] is None else Point(**of[k]) for k in ("best_f1", "best_f2")}
        rest = {k: number(v) for k, v in of.items() if k not in {*estimates, *points}}
        return AtRadius(**{**rest, **points, **estimates})  # type: ignore[arg-type]

    lines = {float(r): Curve(**{k: np.array(v) for k, v in line.items()}) for r, line in plain["curves"].items()}
    rest = {k: number(plain[k]) for k in ("threshold", "diameter_a", "border", "on_carbon", "carbon_share", "seconds")}
    counts = {k: tuple(plain[k]) for k in ("names", "picks", "targets")}
    at = {float(r): row(of) for r, of in plain["at"].items()}
    return Scores(**rest, **counts, at=at, curves=lines)  # type: ignore[arg-type]


def _thinned(line: Curve, points: int = 200) -> dict[str, list[float]]:
    which = np.unique(np.linspace(0, max(len(line.threshold) - 1, 0), points).round().astype(int))[
        : len(line.threshold)
    ]
    return {name: getattr(line, name)[which].round(5).tolist() for name in ("threshold", "precision", "recall")}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
