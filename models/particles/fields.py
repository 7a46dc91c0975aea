"""Micrographs to test a picker on, and what it found on them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from .candidates import Candidates, Floats, Labelled

if TYPE_CHECKING:
    from .simulator import Simulated

Pick: TypeAlias = Callable[[Floats, float], Candidates]
"""Gives the candidates of an image (ny, nx), in its pixels, down to a low floor; the float is Å per pixel."""
Progress: TypeAlias = Callable[[str, int, int], None]
_NONE = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A micrograph to test on: ``image`` float32 (ny, nx), Å per pixel, and the centres that are to be found.

    ``carbon``: bool (ny, nx), True on the carbon film, or None where nobody knows. ``ignore_x``, ``ignore_y``: centres
    of what is neither right nor wrong to pick.
    """

    name: str
    image: Floats
    pixel_a: float
    x: Floats
    y: Floats
    carbon: npt.NDArray[np.bool_] | None = None
    ignore_x: Floats = field(default_factory=lambda: _NONE)
    ignore_y: Floats = field(default_factory=lambda: _NONE)

    @classmethod
    def of(cls, labelled: Labelled) -> Field:
        """The field of a labelled micrograph, its image loaded."""
        return cls(labelled.name, labelled.load(), labelled.pixel_a, labelled.x, labelled.y)

    @classmethod
    def simulated(cls, made: Simulated) -> Field:
        """The field of a simulated micrograph: nobody is asked about particles in aggregates and overlapping pairs."""
        image = made.image.astype(np.float32, copy=False)
        blurred = np.array([kind in {"aggregate", "overlap"} for kind in made.other_kind], bool)
        others = made.other_x[blurred], made.other_y[blurred]
        return cls(made.name, image, made.pixel_a, made.x, made.y, made.carbon, *others)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a picker found on one field: the field without its image, and ``seconds`` it took.

    ``on_carbon``: bool (candidates,), or None. ``carbon_share``: of the field's pixels.
    """

    name: str
    shape: tuple[int, int]
    pixel_a: float
    true: tuple[Floats, Floats]
    ignore: tuple[Floats, Floats]
    candidates: Candidates
    on_carbon: npt.NDArray[np.bool_] | None
    carbon_share: float
    seconds: float

    def above(self, threshold: float) -> Found:
        """The same with the candidates that score at least ``threshold``."""
        keep = self.candidates.score >= threshold
        on = None if self.on_carbon is None else self.on_carbon[keep]
        rest = (self.name, self.shape, self.pixel_a, self.true, self.ignore)
        return Found(*rest, self.candidates.take(keep), on, self.carbon_share, self.seconds)


def find(pick: Pick, fields: Iterable[Field | Labelled], progress: Progress | None = None, of: int = 0) -> list[Found]:
    """Pick every field, one after the other, so that only one image is in memory; ``of``: how many there are."""
    found = []
    for number, given in enumerate(fields, 1):
        shown = Field.of(given) if isinstance(given, Labelled) else given
        started = time.perf_counter()
        candidates = pick(shown.image, shown.pixel_a)
        found.append(_found(shown, candidates, time.perf_counter() - started))
        if progress:
            progress("pick micrographs", number, max(of, number))
    return found


def _found(shown: Field, candidates: Candidates, seconds: float) -> Found:
    on, share = None, math.nan
    if shown.carbon is not None:
        ny, nx = shown.carbon.shape
        row = np.clip(np.rint(candidates.y).astype(np.intp), 0, ny - 1)
        on = shown.carbon[row, np.clip(np.rint(candidates.x).astype(np.intp), 0, nx - 1)]
        share = float(shown.carbon.mean())
    true, ignore = (shown.x, shown.y), (shown.ignore_x, shown.ignore_y)
    ny, nx = shown.image.shape
    return Found(shown.name, (ny, nx), shown.pixel_a, true, ignore, candidates, on, share, seconds)
