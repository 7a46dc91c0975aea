"""copick's picks: a JSON file per run and object, ``ExperimentRuns/<run>/Picks/<user>_<session>_<object>.json``.

Positions are in ångström, voxel times size of a voxel, from the middle of the first voxel. Sources: copick's data
models (``CopickPicksFile``, ``CopickPoint``) and its file system layout, as its repository shows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .centres import REASON, read_text

USER = "beamsieve"
#: Session "0" says that a tool made them.
SESSION = "0"
Shape: TypeAlias = tuple[int, int, int]
_IDENTITY = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
_BAD = re.compile(r"[<>:\"/\\|?*\x00-\x1f\x7f\s_]+")


def clean(name: str) -> str:
    """A name as copick takes it: what separates names (``_``), blanks, and what files may not have become ``-``."""
    return _BAD.sub("-", name).strip("-.") or "object"


def place(run: str, name: str) -> str:
    """Where the picks of an object lie, below the root; ``run`` and ``name`` are cleaned here."""
    return f"ExperimentRuns/{clean(run)}/Picks/{USER}_{SESSION}_{clean(name)}.json"


def encode(
    xyz: npt.NDArray[np.floating],
    score: npt.NDArray[np.floating],
    *,
    run: str,
    name: str,
    voxel_a: float,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """The picks of one object in one run. ``xyz`` (n, 3) in voxels; no orientation is known."""
    points = [
        {
            "location": {axis: round(float(value), 3) for axis, value in zip("xyz", point, strict=True)},
            "transformation_": _IDENTITY,
            "instance_id": 0,
            "score": round(float(s), 5),
        }
        for point, s in zip(np.asarray(xyz, np.float64) * voxel_a, score, strict=True)
    ]
    content = {
        "pickable_object_name": clean(name),
        "user_id": USER,
        "session_id": SESSION,
        "run_name": clean(run),
        "voxel_spacing": round(float(voxel_a), 3),
        "unit": "angstrom",
        "points": points,
        "trust_orientation": False,
        "beamsieve": dict(about or {}),
    }
    return (json.dumps(content) + "\n").encode()


def encode_config(root: Path, names: Sequence[str], colours: Sequence[str], title: str) -> bytes:
    """A configuration that shows the picks below ``root``. ``colours``: ``#rrggbb`` by name; the label is the place."""
    objects = [
        {"name": clean(name), "is_particle": True, "label": at, "color": [*_rgb(colour), 255]}
        for at, (name, colour) in enumerate(zip(names, colours, strict=True), 1)
    ]
    content = {
        "config_type": "filesystem",
        "name": title,
        "description": "Picks of beamsieve; tomograms are not here.",
        "version": "1.0.0",
        "pickable_objects": objects,
        "overlay_root": f"local://{root}",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _rgb(colour: str) -> list[int]:
    digits = colour.removeprefix("#")
    return [int(digits[at : at + 2], 16) for at in (0, 2, 4)] if re.fullmatch(r"[0-9a-fA-F]{6}", digits) else [128] * 3


def read(path: Path) -> tuple[str, npt.NDArray[np.float64]]:
    """The object's name, and positions (n, 3) in ångström. Raises ``OSError`` and ``BadData``."""
    try:
        content = json.loads(read_text(path))
        points = [[float(point["location"][axis]) for axis in "xyz"] for point in content["points"] or ()]
        return str(content["pickable_object_name"]), np.array(points, np.float64).reshape(-1, 3)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadData(REASON, f"{path}: no picks of copick ({error}); name a file below ExperimentRuns") from None
