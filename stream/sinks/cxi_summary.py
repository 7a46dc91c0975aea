"""What a CXI file of ours holds, in numbers: hits, random misses, and the hit rate of the run they were taken from."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from ..flow.rates import wilson
from .cxi import COUNT, DETECTOR, END_REASON
from .cxi_contents import dataset_in, open_cxi, text_of
from .cxi_rows import HIT, RANDOM_MISS
from .cxi_rules_ours import column, is_ours

_FACTS = {
    "energy_J": "entry_1/instrument_1/source_1/energy",
    "distance_m": f"{DETECTOR}/distance",
    "x_pixel_size_m": f"{DETECTOR}/x_pixel_size",
    "y_pixel_size_m": f"{DETECTOR}/y_pixel_size",
}
_WORDS = {
    "title": "entry_1/title",
    "program": "entry_1/program_name",
    "start_time": "entry_1/start_time",
    "end_time": "entry_1/end_time",
    "end_reason": END_REASON,
    "instrument": "entry_1/instrument_1/name",
    "detector": f"{DETECTOR}/description",
    "sample": "entry_1/sample_1/name",
}


@dataclass(frozen=True, slots=True)
class HitRate:
    """The share of hits among all frames the kept ones stand for, with the 95 % interval, each 0..1."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """``frames`` complete in the file, of them ``hits`` and ``random_misses`` (None for files of other programs).

    ``hit_rate`` is None where no random miss was kept: hits alone say nothing of how many frames there were. ``labels``
    counts the model's answers among the kept frames.
    """

    path: str
    frames: int
    shape: tuple[int, ...]
    dtype: str
    hits: int | None = None
    random_misses: int | None = None
    stand_for: float | None = None
    hit_rate: HitRate | None = None
    labels: dict[int, int] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


def summarise(path: Path) -> Summary:
    """Count. Raises ``BadData`` naming the file if it cannot be opened or has no images."""
    with ExitStack() as stack:
        file, _ = open_cxi(path, stack)
        data = dataset_in(file, f"{DETECTOR}/data") or dataset_in(file, "entry_1/data_1/data")
        if data is None or data.ndim < 2:
            raise BadData("format", f"{path}: has no images in {DETECTOR}/data; name a CXI file with frames")
        shape, frames = (data.shape[1:], data.shape[0]) if data.ndim > 2 else (data.shape, 1)
        facts = {name: float(np.ravel(file[at][()])[0]) for name, at in _FACTS.items() if dataset_in(file, at)}
        words = {name: " ".join(text_of(file[at]) or []) for name, at in _WORDS.items() if dataset_in(file, at)}
        if not is_ours(file):
            return Summary(str(path), frames, tuple(shape), str(data.dtype), facts=facts, words=words)
        return Summary(
            str(path), int(file[COUNT][()]), tuple(shape), str(data.dtype), facts=facts, words=words, **_verdicts(file)
        )


def _verdicts(file: h5py.File) -> dict[str, Any]:
    reason, weight = column(file, "accepted_reason"), column(file, "sampling_weight").astype(np.float64)
    hit, miss = reason == HIT.encode(), reason == RANDOM_MISS.encode()
    labels, counts = np.unique(column(file, "label"), return_counts=True)
    thresholds = column(file, "threshold")
    return {
        "hits": int(hit.sum()),
        "random_misses": int(miss.sum()),
        "stand_for": float(weight.sum()),
        "hit_rate": hit_rate(int(hit.sum()), weight[miss]),
        "labels": {int(label): int(count) for label, count in zip(labels, counts, strict=True)},
        "models": sorted({name.decode() for name in column(file, "model_id")} - {""}),
        "thresholds": [float(value) for value in np.unique(thresholds[~np.isnan(thresholds)])],
    }


def hit_rate(hits: int, weights: npt.NDArray[np.float64]) -> HitRate | None:
    """Hit rate of a run of which all hits and a random part of the misses were kept.

    ``weights``: of the kept misses, 1/f each. With hit rate p, a kept frame is a hit with the chance
    q = p / (p + (1 - p) f). Wilson's interval of q, from the kept frames alone, becomes that of p by
    p = q f / (q f + 1 - q), which grows with q; so it holds what the sampling adds to the uncertainty. ``f`` is the
    number of kept misses over the sum of their weights. None without a kept miss.
    """
    misses = len(weights)
    if not misses:
        return None
    fraction = misses / float(weights.sum())

    def back(q: float) -> float:
        return q * fraction / (q * fraction + 1 - q)

    low, high = wilson(hits, hits + misses)
    return HitRate(back(hits / (hits + misses)), back(low), back(high))


def first_hits(path: Path, count: int) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """The first accepted frames, with a title each: identifier and score. Stacked modules lie below one another."""
    with ExitStack() as stack:
        file, _ = open_cxi(path, stack)
        data = dataset_in(file, f"{DETECTOR}/data") or dataset_in(file, "entry_1/data_1/data")
        if data is None or data.ndim < 3:
            return []
        if not is_ours(file):
            chosen, names = np.arange(min(count, data.shape[0])), []
        else:
            chosen = np.flatnonzero(column(file, "accepted_reason") == HIT.encode())[:count]
            score = column(file, "hit_score")
            identifier = text_of(file["entry_1/experiment_identifier"]) or []
            names = [f"{identifier[at]}  {score[at]:.3f}" for at in chosen]
        images = [np.asarray(data[at], np.float64).reshape(-1, data.shape[-1]) for at in chosen]
        return list(zip(names or [f"{at}" for at in chosen], images, strict=True))
