"""The facts of a tomogram's record: all that is known of it but arrays, as JSON text, and as attributes for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .mined import LabelFiles, MinedTomogram

#: Facts that are fields of ``MinedTomogram`` under the same name.
SAME = (
    "name",
    "revision",
    "voxel_a",
    "working_voxel_a",
    "bright",
    "flip",
    "hand",
    "mode",
    "network",
    "network_sha256",
    "clusters_version",
    "threshold",
    "edge",
    "posed",
)
LISTS = ("shape", "classes", "colours", "flags")


def facts_of(found: MinedTomogram, stem: str, written: str, path: Path | None) -> dict[str, Any]:
    """What a record says beside its arrays. ``path``: where it is to lie, None: not known."""
    return {
        **{name: _plain(getattr(found, name)) for name in SAME},
        **{name: list(getattr(found, name)) for name in LISTS},
        "path": str(found.path),
        "options": {str(name): _plain(value) for name, value in found.options.items()},
        "seconds": {str(name): _plain(float(value)) for name, value in found.seconds.items()},
        "counts": found.counts,
        "picks": len(found.picked),
        "slices": None if found.slices is None else [found.slices.factor, *found.slices.at],
        "labels": _labels(found.segmentation, path),
        "stem": stem,
        "run": found.run,
        "origin_a": list(found.origin_a),
        "written": written,
        "software": f"beamsieve {version('beamsieve')}",
    }


def _labels(files: object, path: Path | None) -> dict[str, Any] | None:
    if not isinstance(files, LabelFiles):
        return None

    def called(file: Path) -> str:
        if path is None:
            return str(file.absolute())
        return Path(os.path.relpath(file.absolute(), path.absolute().parent)).as_posix()

    return {
        "volume": called(files.labels),
        "classes": list(files.classes),
        "probabilities": {name: called(file) for name, file in files.probabilities.items()},
        "fractions": {name: float(share) for name, share in files.fractions.items()},
    }


def label_files(labels: Mapping[str, Any] | None, path: Path) -> LabelFiles | None:
    """The label volumes that the facts of the record at ``path`` name."""
    if labels is None:
        return None
    near = path.absolute().parent
    where = {str(name): Path(os.path.normpath(near / file)) for name, file in labels["probabilities"].items()}
    shares = {str(name): float(share) for name, share in labels["fractions"].items()}
    classes = tuple(str(name) for name in labels["classes"])
    return LabelFiles(Path(os.path.normpath(near / labels["volume"])), classes, where, shares)


def tell(file: h5py.File, facts: Mapping[str, Any]) -> None:
    """The facts as text, and those that people look for as attributes."""
    if "facts" in file:
        del file["facts"]
    file["facts"] = np.bytes_(json.dumps(facts, ensure_ascii=True))
    for name in (*SAME, *LISTS, "path", "picks", "stem", "written", "software"):
        value = facts[name]
        texts = isinstance(value, list) and name != "shape"
        file.attrs[name] = ", ".join(value) if texts else "" if value is None else value


def _plain(value: object) -> Any:
    """A value as JSON has it: no NaN, no infinity, nothing of numpy."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def told(file: h5py.File) -> dict[str, Any]:
    """The facts in a record. Raises ``KeyError``, ``ValueError`` and ``TypeError`` for what is none."""
    facts = json.loads(file["facts"][()])
    if not isinstance(facts, dict):
        raise TypeError(f"its facts are no mapping but {type(facts).__name__}")
    return facts


def fields_of(facts: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Fields of ``MinedTomogram`` that the facts of the record at ``path`` give; its arrays are none of them."""
    z, y, x = (int(value) for value in facts["shape"])
    origin_x, origin_y, origin_z = (float(value) for value in facts.get("origin_a", (0, 0, 0)))
    return {
        **{name: facts[name] for name in SAME if name != "threshold"},
        **{name: tuple(str(value) for value in facts[name]) for name in LISTS},
        "threshold": _number(facts["threshold"]),
        "shape": (z, y, x),
        "path": Path(facts["path"]),
        "run": str(facts.get("run", "")),
        "origin_a": (origin_x, origin_y, origin_z),
        "options": dict(facts["options"]),
        "seconds": {name: _number(value) for name, value in facts["seconds"].items()},
        "segmentation": label_files(facts["labels"], path),
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
