"""What a CXI file says of each frame: one row of scalars per frame, kept column by column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..flow.frame import Key, Outcome, Result

IDENTIFIER = "experiment_identifier"
HIT, RANDOM_MISS = "hit", "random_miss"
CLASSES = 5
_HIT, _MISS = HIT.encode(), RANDOM_MISS.encode()
_NAN = math.nan
_INT8, _INT32, _INT64 = 2**7 - 1, 2**31 - 1, 2**63 - 1


def row_dtype(classes: int, identifier_bytes: int) -> np.dtype[Any]:
    """One row, in the order in which ``to_row`` fills it.

    ``experiment_identifier``: ``series:number`` or ``train:pulse``. ``hit_score``: compared with ``threshold``.
    ``class_probabilities``, ``threshold``, ``photons``: NaN where unknown; ``label``, ``lit_pixels``, ``train``,
    ``pulse``: -1. ``model_id``: SHA-256 of the model. ``decided_by``: ``model`` or ``prescreen``. ``accepted_reason``:
    ``hit`` or ``random_miss``. ``sampling_weight``: how many frames this one stands for. ``timestamp``: seconds since
    1970 at arrival. ``source_time``: seconds since 1970 by the sender's clock; ``exposure_time``: seconds; NaN where it
    does not say. ``number``: image number, or train id.
    """
    fields: list[tuple[Any, ...]] = [
        (IDENTIFIER, h5py.string_dtype("utf-8", identifier_bytes)),
        ("hit_score", "<f4"),
        ("class_probabilities", "<f4", (classes,)),
        ("label", "i1"),
        ("lit_pixels", "<i4"),
        ("photons", "<f4"),
        ("threshold", "<f4"),
        ("model_id", "S64"),
        ("decided_by", "S16"),
        ("outcome", "S8"),
        ("accepted_reason", "S16"),
        ("sampling_weight", "<f4"),
        ("timestamp", "<f8"),
        ("source_time", "<f8"),
        ("exposure_time", "<f8"),
        ("number", "<i8"),
        ("train", "<i8"),
        ("pulse", "<i4"),
    ]
    return np.dtype(fields)


def identifier_room(key: Key) -> int:
    """Bytes for every identifier of the key's run: the run's name or a train, a colon, and a 64-bit number."""
    return max(len(key.run.encode()), 20) + 21


def class_count(result: Result, otherwise: int) -> int:
    """How many classes the model told apart; ``otherwise`` where no model was asked."""
    probabilities = result.found.get("probabilities")
    return otherwise if probabilities is None else len(probabilities)


def to_row(result: Result, classes: int) -> tuple[Any, ...]:
    """The row of one result. ``classes`` is the file's; probabilities of another length are a bug of the caller."""
    key, found = result.frame.key, result.found
    probabilities = found.get("probabilities")
    accepted = result.outcome is Outcome.ACCEPTED
    photons, threshold = found.get("photons"), found.get("threshold")
    number = max(-_INT64, min(key.number, _INT64))
    return (
        str(key).encode(),
        result.score,
        (_NAN,) * classes if probabilities is None else tuple(probabilities),
        max(-1, min(int(found.get("label", -1)), _INT8)),
        max(-1, min(int(found.get("lit", -1)), _INT32)),
        _NAN if photons is None else photons,
        _NAN if threshold is None else threshold,
        str(found.get("model", "")).encode(),
        result.by.encode(),
        result.outcome.value.encode(),
        _HIT if accepted else _MISS,
        result.weight,
        result.frame.wall,
        *source_times(result.frame.info),
        number,
        number if key.pulse >= 0 else -1,
        max(-1, min(key.pulse, _INT32)),
    )


def source_times(info: Mapping[str, Any]) -> tuple[float, float]:
    """When the sender took the image (s since 1970) and for how long (s), of ``Raw.info``; NaN where it does not say.

    DECTRIS gives times since the date of the series, karabo-bridge the train's own time.
    """
    exposure, train, start, date = (info.get(name) for name in ("real_s", "timestamp", "start_s", "series_date"))
    taken = _NAN
    if isinstance(train, float):
        taken = train
    elif isinstance(start, int | float) and isinstance(date, str):
        taken = _seconds(date) + start
    return taken, float(exposure) if isinstance(exposure, int | float) else _NAN


@lru_cache(maxsize=16)
def _seconds(date: str) -> float:
    """Seconds since 1970 of an ISO 8601 date, UTC where it names no zone; NaN for anything else."""
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return _NAN
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def to_rows(results: Sequence[Result], classes: int, identifier_bytes: int) -> npt.NDArray[Any]:
    """The rows of many results: structured array (len(results),)."""
    return np.array([to_row(result, classes) for result in results], row_dtype(classes, identifier_bytes))
