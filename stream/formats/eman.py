"""EMAN2's ``info/<micrograph>_info.json``: ``{"boxes": [[x, y, "tag"], …]}``, centres in pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..flow.frame import BadData
from .centres import REASON, Coordinates, Floats, Gathering, read_text

TAG = "auto_beamsieve"
SUFFIX = "_info.json"
POINT = 2
TRUE = frozenset({"1", "true", "yes", "y", "t", "good", "particle", "positive", "correct", "right", "tp", "+"})
FALSE = frozenset({"0", "false", "no", "n", "f", "bad", "wrong", "negative", "incorrect", "none", "fp", "-", "-1"})


def read(path: Path) -> Coordinates:
    """Centres of an EMAN2 info file, or of a plain list of points.

    A plain list holds ``[x, y]`` or ``[x, y, score]``, or mappings with ``x``, ``y`` and perhaps ``score`` and a
    ``verdict`` (also ``correct`` or ``label``) that says whether it is a particle. Raises ``OSError`` and ``BadData``.
    """
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise BadData(REASON, f"{path}:{line}: not JSON: {getattr(error, 'msg', 'nested too deep')}") from None
    rows = Gathering()
    if isinstance(content, Mapping) and isinstance(content.get("boxes"), list):
        for at, box in enumerate(content["boxes"]):
            x, y, *_ = _point(box, f"{path}: boxes[{at}]")
            rows.add(x, y)
    elif isinstance(content, list):
        for at, point in enumerate(content):
            _add(rows, point, f"{path}: [{at}]")
    else:
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise BadData(REASON, f'{path}: no "boxes" (EMAN2) and no list of points, but {found or "nothing"}')
    return rows.done()


def _add(rows: Gathering, point: object, where: str) -> None:
    if not isinstance(point, Mapping):
        values = _point(point, where)
        rows.add(values[0], values[1], values[2] if len(values) > POINT else None)
        return
    for name in ("x", "y"):
        if name not in point:
            raise BadData(REASON, f"{where}: no {name}; give x and y in pixels")
    verdict = next((point[name] for name in ("verdict", "correct", "label") if name in point), None)
    score = None if point.get("score") is None else _finite(point["score"], f"{where}.score")
    rows.add(
        _finite(point["x"], f"{where}.x"),
        _finite(point["y"], f"{where}.y"),
        score,
        None if verdict is None else is_wrong(verdict, where),
    )


def _point(point: object, where: str) -> list[float]:
    if not isinstance(point, Sequence) or isinstance(point, str) or len(point) < POINT:
        raise BadData(REASON, f"{where}: {point!r} is no point; write [x, y]")
    third = [value for value in point[POINT : POINT + 1] if not isinstance(value, str) and value is not None]
    return [_finite(value, where) for value in (*point[:POINT], *third)]


def _finite(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadData(REASON, f"{where}: {value!r} is not a number")
    return float(value)


def is_wrong(verdict: object, where: str) -> bool:
    """Whether a verdict says that this is no particle. Raises ``BadData`` for words that say neither."""
    word = str(verdict).strip().lower()
    if word in TRUE or word in FALSE:
        return word in FALSE
    raise BadData(REASON, f"{where}: verdict: {verdict!r} says neither; write right or wrong")


def encode(x: Floats, y: Floats, *, tag: str = TAG, before: Mapping[str, Any] | None = None) -> bytes:
    """The info file. ``x``, ``y``: centres (n,) in pixels. ``before``: what was in it (CTF, boxes of others) stays.

    Boxes of the same ``tag`` are replaced.
    """
    content = dict(before or {})
    kept = content.get("boxes")
    others = [box for box in kept if not _tagged(box, tag)] if isinstance(kept, list) else []
    mine = [[round(float(a), 2), round(float(b), 2), tag] for a, b in zip(x, y, strict=True)]
    return (json.dumps({**content, "boxes": [*others, *mine]}, indent=1) + "\n").encode()


def _tagged(box: object, tag: str) -> bool:
    return isinstance(box, list) and len(box) > POINT and box[2] == tag
