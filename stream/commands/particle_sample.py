"""A uniform sample of the particles in some stacks: drawn in one pass, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .particle_stacks import Stacks

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Working images, float32 (n, 64, 64). ``seen``: particles there were; ``bad``: constant, or with NaN."""

    images: Floats
    seen: int
    bad: int


def draw(stacks: Stacks, most: int, seed: int, each: Callable[[int, int], None]) -> Sample:
    """At most ``most`` good particles, each as likely as any other (reservoir sampling; Vitter 1985, algorithm R).

    Constant images and those with NaN are left out and counted. ``each(done, of)`` is called after every block, and may
    raise to stop. Raises ``StackError`` for a file that cannot be read.
    """
    from ...models.classes2d.working import EDGE, working

    rng = np.random.default_rng([seed, 79])
    kept = np.empty((min(most, stacks.count), EDGE, EDGE), np.float32)
    seen = good = 0
    for names, images in stacks.chunks():
        ready, usable = working(images)
        for image in ready[usable]:
            place = good if good < most else int(rng.integers(0, good + 1))
            if place < most:
                kept[place] = image
            good += 1
        seen += len(names)
        each(seen, stacks.count)
    return Sample(kept[: min(good, most)], seen, seen - good)
