"""Centres of particles as files give them, in the package's one convention, and what all readers of them share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData

Floats: TypeAlias = npt.NDArray[np.float32]
Flags: TypeAlias = npt.NDArray[np.bool_]
LARGEST_BYTES = 1 << 30
REASON = "coordinates"


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Centres of particles in one micrograph, in the order of the file.

    ``x``, ``y``: float32 (n,), pixels of the micrograph; x along columns, y along rows, row 0 at y = 0, a whole number
    is the middle of a pixel. ``score``: float32 (n,), or None where the file has none. ``wrong``: bool (n,), those that
    somebody has looked at and says are no particles; None where the file gives no verdicts.
    """

    x: Floats
    y: Floats
    score: Floats | None = None
    wrong: Flags | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: Flags | npt.NDArray[np.intp]) -> Coordinates:
        """Those that a mask or indices name."""
        score = None if self.score is None else self.score[which]
        wrong = None if self.wrong is None else self.wrong[which]
        return Coordinates(self.x[which], self.y[which], score, wrong)

    @classmethod
    def none(cls) -> Coordinates:
        """No centre at all."""
        return cls(np.zeros(0, np.float32), np.zeros(0, np.float32))


Tables: TypeAlias = dict[str, Coordinates]
"""Centres by the name of the micrograph as the file gives it; ``""`` where the file names none."""


@dataclass(slots=True)
class Gathering:
    """Collects rows as they are read. A column that only some rows have is None for all."""

    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)

    def add(self, x: float, y: float, score: float | None = None, wrong: bool | None = None) -> None:
        """One centre."""
        self.x.append(x)
        self.y.append(y)
        if score is not None:
            self.score.append(score)
        if wrong is not None:
            self.wrong.append(wrong)

    def done(self) -> Coordinates:
        """All of them."""
        n = len(self.x)
        return Coordinates(
            np.array(self.x, np.float32),
            np.array(self.y, np.float32),
            np.array(self.score, np.float32) if self.score and len(self.score) == n else None,
            np.array(self.wrong, bool) if self.wrong and len(self.wrong) == n else None,
        )


class Sorted:
    """Collects rows by micrograph."""

    def __init__(self) -> None:
        self._by_name: dict[str, Gathering] = {}

    def of(self, micrograph: str) -> Gathering:
        """Where rows of this micrograph go."""
        return self._by_name.setdefault(micrograph, Gathering())

    def done(self) -> Tables:
        """All tables, in the order in which their micrographs first came."""
        return {name: rows.done() for name, rows in self._by_name.items()}


def read_text(path: Path) -> str:
    """The text of a file of coordinates (UTF-8). Raises ``OSError``, and ``BadData`` for what is no text."""
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise BadData(REASON, f"{path}: {size} bytes; a file of coordinates has less than {LARGEST_BYTES}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(REASON, f"{path}: byte {error.start} is no UTF-8 text; name a file of coordinates") from None
    if "\0" in text:
        raise BadData(REASON, f"{path}: holds zero bytes; it is cut short, or no file of coordinates")
    return text


def number(text: str, path: Path, line: int, name: str) -> float:
    """A finite number. Raises ``BadData`` naming file, line and field."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadData(REASON, f"{path}:{line}: {name}: {text!r} is not a number; correct or remove the line")
    return value


def upside_down(y: npt.NDArray[np.floating], ny: int) -> npt.NDArray[np.float64]:
    """``y`` counted from the other edge: row 0 becomes row ny - 1. It is its own inverse."""
    return ny - 1 - np.asarray(y, np.float64)
