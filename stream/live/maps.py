"""Where on the grid a micrograph was taken: grid square, foil hole, and the stage's position, where known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """``square`` and ``hole``: the names that the microscope's program gave them. ``stage``: (x, y) in micrometres."""

    square: str | None = None
    hole: str | None = None
    stage: tuple[float, float] | None = None


def place_of(*said: Mapping[str, Any]) -> Place:
    """The place, from what several sources say under ``grid_square``, ``foil_hole``, ``stage_x_um``, ``stage_y_um``.

    The first that knows a name counts. A stage position needs both coordinates of one source.
    """
    return Place(_text(said, "grid_square"), _text(said, "foil_hole"), next(filter(None, map(_stage, said)), None))


def _text(said: tuple[Mapping[str, Any], ...], name: str) -> str | None:
    found = next((part[name] for part in said if part.get(name) not in (None, "")), None)
    return None if found is None else str(found)


def _stage(part: Mapping[str, Any]) -> tuple[float, float] | None:
    x, y = (part.get(name) for name in ("stage_x_um", "stage_y_um"))
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        return None
    return (float(x), float(y)) if math.isfinite(x) and math.isfinite(y) else None
