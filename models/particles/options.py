"""What a picker looks for in a score map."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .dense import ROTATIONS, TILE


@dataclass(frozen=True, slots=True)
class PickOptions:
    """What is looked for in a score map.

    ``threshold``: candidates with at least this score are picks; None: the card's. ``floor``: maxima below it are no
    candidates. ``sd_range``: picks have a standard deviation in their disc within it, in units of the micrograph's.
    ``min_distance``: of two candidates nearer than this, the better stays; ``border``: centres nearer to the edge are
    not candidates; both in particle diameters. (Half a diameter would lose particles that lie just inside it, and are
    found a little off; 0.6 is between crowded fields, where real neighbours are as near as 0.5, and sparse ones, where
    what is so near is wrong.) Boxes that reach over the edge see the micrograph mirrored there.
    ``rotations``: 1, 2 or 4. ``fine``: score at pool1 × pool2 pixels, not only at the total stride. ``tile_px``: edge
    of what is scanned at once, in pixels of the model. Raises ``ValueError`` for numbers that make no sense.
    """

    threshold: float | None = None
    floor: float = 0.02
    sd_range: tuple[float, float] = (0.0, math.inf)
    min_distance: float = 0.6
    border: float = 0.4
    rotations: int = 4
    fine: bool = True
    tile_px: int = TILE

    def __post_init__(self) -> None:
        low, high = self.sd_range
        rules = {
            f"threshold: {self.threshold} is not within 0 and 1": self.threshold is None or 0 <= self.threshold <= 1,
            f"floor: {self.floor} is not at least 0 and below 1": 0 <= self.floor < 1,
            f"sd_range: {low} to {high} is no range": 0 <= low < high,
            f"min_distance: {self.min_distance} is not at least 0": self.min_distance >= 0,
            f"border: {self.border} is not at least 0": self.border >= 0,
            f"rotations: {self.rotations} is not one of 1, 2, 4": self.rotations in ROTATIONS,
        }
        wrong = [text for text, right in rules.items() if not right]
        if wrong:
            raise ValueError("; ".join(wrong))
