"""EMAN2's ``info/<tomogram>_info.json`` of a tomogram: ``boxes_3d`` and ``class_list``.

A box is ``[x, y, z, method, score, class]``. With ``apix_unbin`` in the file, positions count pixels of that size from
the centre of the tomogram, voxel n // 2 (as ``e2spt_boxer`` reads them), so that they hold whatever its binning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .centres import REASON, read_text

Shape: TypeAlias = tuple[int, int, int]
METHOD = "beamsieve"
UNMARKED = "unmarked"
_FIELDS = 6


def encode(
    xyz: npt.NDArray[np.floating],
    score: npt.NDArray[np.floating],
    label: npt.NDArray[np.integer],
    *,
    shape: Shape,
    voxel_a: float,
    classes: Sequence[str],
    box_a: float,
    about: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
) -> bytes:
    """The info file. ``xyz`` (n, 3) in voxels of the tomogram, ``label`` (n,) from 1 by ``classes``, 0: in none.

    ``box_a``: edge of a box in ångström. ``about``: kept in the file under ``beamsieve``. ``before``: what was in it
    stays, with the size of its pixels, but the boxes of this program and their classes, which are replaced.
    """
    content = dict(before or {})
    unbinned = _positive(content.get("apix_unbin")) or voxel_a
    others, listed, base = _others(content)
    middle = np.array(shape[::-1]) // 2
    where = (np.asarray(xyz, np.float64) - middle) * (voxel_a / unbinned)
    size = max(2, 2 * round(box_a / unbinned / 2))
    mine = [
        [round(float(x), 3), round(float(y), 3), round(float(z), 3), METHOD, round(float(s), 4), base + int(at)]
        for (x, y, z), s, at in zip(where, score, label, strict=True)
    ]
    names = [UNMARKED, *classes] if np.any(np.asarray(label) == 0) else ["", *classes]
    new = {str(base + at): {"name": name, "boxsize": size, "by": METHOD} for at, name in enumerate(names) if name}
    content |= {"apix_unbin": unbinned, "boxes_3d": [*others, *mine], "class_list": {**listed, **new}}
    # Without line breaks: with them it takes ten times as long.
    return (json.dumps({**content, METHOD: dict(about or {})}) + "\n").encode()


def _others(content: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], int]:
    """Boxes and classes that are not ours, and the number that is our class 0."""
    boxes, listed = content.get("boxes_3d"), content.get("class_list")
    kept = [box for box in boxes if not _ours(box)] if isinstance(boxes, list) else []
    classes = listed if isinstance(listed, Mapping) else {}
    theirs = {str(k): v for k, v in classes.items() if not (isinstance(v, Mapping) and v.get("by") == METHOD)}
    used = [int(key) for key in theirs if key.isdecimal()]
    used += [int(box[5]) for box in kept if isinstance(box, list) and len(box) >= _FIELDS and isinstance(box[5], int)]
    return kept, theirs, max(used, default=-1) + 1


def _ours(box: object) -> bool:
    return isinstance(box, list) and len(box) > 3 and box[3] == METHOD


def _positive(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if good else None  # type: ignore[arg-type]


def read(path: Path, shape: Shape, voxel_a: float) -> dict[str, npt.NDArray[np.float64]]:
    """Positions (n, 3) in voxels of the tomogram, by the name of their class. Raises ``OSError`` and ``BadData``.

    Without ``apix_unbin`` positions are taken as voxels from the first, as EMAN2 did before 2018.
    """
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadData(REASON, f"{path}:{getattr(error, 'lineno', 1)}: not JSON; name an info file of EMAN2") from None
    boxes = content.get("boxes_3d") if isinstance(content, Mapping) else None
    if not isinstance(boxes, list):
        raise BadData(REASON, f"{path}: no boxes_3d; name the info file of a tomogram")
    names = content.get("class_list", {})
    unbinned = _positive(content.get("apix_unbin"))
    found: dict[str, list[Any]] = {}
    for at, box in enumerate(boxes):
        if not isinstance(box, list) or len(box) < 3 or not all(isinstance(v, int | float) for v in box[:3]):
            raise BadData(REASON, f"{path}: boxes_3d[{at}]: {box!r} is no [x, y, z, …]")
        number = str(box[5]) if len(box) >= _FIELDS else "0"
        name = names.get(number, {}).get("name", number) if isinstance(names, Mapping) else number
        found.setdefault(str(name), []).append(box[:3])
    middle, scale = (np.array(shape[::-1]) // 2, unbinned / voxel_a) if unbinned else (np.zeros(3), 1.0)
    return {name: np.array(points, np.float64) * scale + middle for name, points in found.items()}
