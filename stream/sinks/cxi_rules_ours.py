"""What holds in the files this program writes, beyond CXI: lengths, weights, reasons, scores, and frames that open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from .cxi import COUNT, DETECTOR, RESULT
from .cxi_contents import Contents, text_of
from .cxi_rows import HIT, IDENTIFIER, RANDOM_MISS, row_dtype

Told = Iterator[tuple[str, str]]
_SHA256 = re.compile(r"[0-9a-f]{64}|")


def is_ours(file: h5py.File) -> bool:
    """Whether this program wrote the file: it says how many frames are complete, and why each was kept."""
    return COUNT in file and f"{RESULT}/accepted_reason" in file


def column(file: h5py.File, name: str) -> npt.NDArray[Any]:
    """The complete entries of a column of ``result_1``."""
    values: npt.NDArray[Any] = file[f"{RESULT}/{name}"][: int(file[COUNT][()])]
    return values


def lengths(contents: Contents) -> Told:
    """Everything per frame."""
    if not is_ours(contents.file):
        return
    count = int(contents.file[COUNT][()])
    names = [f"entry_1/{IDENTIFIER}", f"{DETECTOR}/data"]
    names += [f"{RESULT}/{name}" for name in row_dtype(1, 1).names or () if name != IDENTIFIER]
    for name in names:
        if name not in contents.file:
            yield f"/{name}", "is missing"
        else:
            length = contents.file[name].shape[0]
            yield f"/{name}", "" if length == count else f"has {length} entries for {count} frames"


def weights(contents: Contents) -> Told:
    """``sampling_weight``."""
    if is_ours(contents.file):
        weight, reason = column(contents.file, "sampling_weight"), column(contents.file, "accepted_reason")
        wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 1)) | ((reason == HIT.encode()) & (weight != 1)))
        yield f"/{RESULT}/sampling_weight", "" if not wrong.size else f"is {weight[wrong[0]]} for frame {wrong[0]}"


def reasons(contents: Contents) -> Told:
    """``accepted_reason`` and ``outcome``."""
    if is_ours(contents.file):
        reason, outcome = column(contents.file, "accepted_reason"), column(contents.file, "outcome")
        hit = (reason == HIT.encode()) & (outcome == b"accepted")
        miss = (reason == RANDOM_MISS.encode()) & (outcome == b"rejected")
        wrong = np.flatnonzero(~(hit | miss))
        problem = f"frame {wrong[0]}: {reason[wrong[0]]!r}, {outcome[wrong[0]]!r}" if wrong.size else ""
        yield f"/{RESULT}/accepted_reason", problem


def scores(contents: Contents) -> Told:
    """``class_probabilities``."""
    if is_ours(contents.file):
        values = column(contents.file, "class_probabilities").astype(np.float64)
        known = ~np.isnan(values).all(axis=1)
        inside = ((values >= 0) & (values <= 1)).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 0.01)
        wrong = np.flatnonzero(known & ~inside)
        yield f"/{RESULT}/class_probabilities", "" if not wrong.size else f"{values[wrong[0]]} for frame {wrong[0]}"


def model(contents: Contents) -> Told:
    """``model_id``."""
    if is_ours(contents.file):
        dataset = contents.file[f"{RESULT}/model_id"]
        wrong = [name for name in set(text_of(dataset) or ["?"] * dataset.shape[0]) if not _SHA256.fullmatch(name)]
        yield f"/{RESULT}/model_id", "" if not wrong else f"{wrong[0]!r} is no SHA-256"


def frames(contents: Contents) -> Told:
    """Decompress the ends of ``data``: a chunk that no program can read is found here, not by the user."""
    if is_ours(contents.file):
        data, count = contents.file[f"{DETECTOR}/data"], int(contents.file[COUNT][()])
        for at in sorted({0, count - 1} & set(range(count))):
            try:
                data[at]
            except (OSError, RuntimeError) as error:
                yield f"/{DETECTOR}/data", f"frame {at} cannot be read: {error}"
                return
        yield f"/{DETECTOR}/data", ""
