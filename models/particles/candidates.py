"""What picking finds: candidates with their scores, in one convention of coordinates.

Coordinates are those of the micrograph as it was read: ``x`` along columns, ``y`` along rows, row 0 at y = 0, and a
whole number is the middle of a pixel. A particle's position is its centre. A box of b pixels around the centre c starts
at c - b/2 in the files of other programs (there b is even); its middle, as a score map sees it, is corner + (b - 1)/2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Local maxima of one micrograph's score map, the best first. Every array is float32 of shape (n,).

    ``x``, ``y``: centres in pixels of the micrograph as read. ``score``: mean of the four rotations, 0..1. ``sd``:
    standard deviation of the pixels in the particle's disc, in units of the micrograph's own (robust) one.
    """

    x: Floats
    y: Floats
    score: Floats
    sd: Floats

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Candidates:
        """Those that a mask or indices name, in their order."""
        return Candidates(self.x[which], self.y[which], self.score[which], self.sd[which])

    def picked(self, threshold: float, sd_range: tuple[float, float] = (0.0, np.inf)) -> npt.NDArray[np.bool_]:
        """Which of them are picks: score at least ``threshold``, standard deviation within the band."""
        low, high = sd_range
        return (self.score >= threshold) & (self.sd >= low) & (self.sd <= high)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A micrograph with the centres that somebody (or a simulator) says are there.

    ``load()`` gives the image, float32 (ny, nx), each time it is asked, so that thousands need no memory. ``name``: of
    the micrograph (splits are by it). ``pixel_a``: ångström per pixel. ``x``, ``y``: float32 (n,), see the module.
    ``wrong_x``, ``wrong_y``: centres somebody has looked at and says are no particles (verified false positives).
    """

    name: str
    load: Callable[[], Floats]
    pixel_a: float
    x: Floats
    y: Floats
    wrong_x: Floats
    wrong_y: Floats
