"""What is seen of a micrograph: its overview, random picks for the gallery, and what is offered for review."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ...models.particles.candidates import Candidates
from ...models.particles.extract import extract
from .common import finite
from .micrographs import Micrograph
from .overview import grey, view_of
from .sampling import Indices, offer
from .strips import Strips
from .views import Views

Image = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

KEPT = {"micrograph": 4, "particle": 60, "random_miss": 20}
PARTICLE_PX = 64
#: Particles are smoothed by so many pixels of 64: eyes find in it what noise hides at a signal of a tenth of it.
SMOOTH = 1.0
#: Black and white, in standard deviations of the background before smoothing: the same for all, so that ice shows.
GREYS_SD = (-1.8, 1.2)
MOST_OFFERED = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A micrograph to draw: its pixels (ny, nx), its candidates, and which of them are picks."""

    micrograph: Micrograph
    image: Image
    candidates: Candidates
    picked: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Offered:
    """What a picture that is offered for review stands for, and the verdict that was shown with it."""

    group: str
    weight: float
    threshold: float


class Drawing:
    """Draws micrographs into ``views`` and ``strips``, and knows what was offered for review.

    ``draw`` is for one thread, the rest for any.
    """

    def __init__(self, views: Views, strips: Strips) -> None:
        self._views, self._strips = views, strips
        self._offered: OrderedDict[str, Offered] = OrderedDict()

    def draw(self, job: Job) -> None:
        """Overview, gallery and review of one micrograph."""
        found = job.micrograph
        view = view_of(job.image)
        self._views.put(found.id, view)
        fields = {
            "id": found.id,
            "name": found.name,
            "time": found.time,
            "ny": found.shape[0],
            "nx": found.shape[1],
            "factor": view.small_factor,
            "picks": found.picks,
        }
        self._strips.add("micrograph", view.small, fields)
        offered = offer(found.id, job.picked, bool(found.skipped))
        self._particles("random_miss", job, offered.misses, offered.misses, offered.miss_weight)
        self._particles("particle", job, offered.shown, offered.picks, offered.pick_weight)

    def offered(self, pick_id: str) -> Offered | None:
        """What was offered under that id; None where nothing was."""
        return self._offered.get(pick_id)

    def waiting(self) -> list[str]:
        """Ids of the pictures that are shown and offered for review."""
        shown = (name for group in ("particle", "random_miss") for name in self._strips.ids(group))
        return [name for name in shown if name in self._offered]

    def _particles(self, group: str, job: Job, which: Indices, review: Indices, weight: float) -> None:
        found, candidates, chosen = job.micrograph, job.candidates, set(review.tolist())
        if not len(which):
            return
        pixels = particles(job.image, found, candidates.take(which))
        # The first were drawn first of all; shown last, they are the newest.
        for number, picture in reversed(list(zip(which.tolist(), pixels, strict=True))):
            pick_id = f"{found.id}/{number}"
            fields = {
                "id": pick_id,
                "row": found.id,
                "score": finite(candidates.score[number]),
                "x": finite(candidates.x[number]),
                "y": finite(candidates.y[number]),
                "time": found.time,
                "review": number in chosen,
                "weight": weight if number in chosen else None,
            }
            if number in chosen:
                self._offered[pick_id] = Offered(group, weight, found.threshold)
            self._strips.add(group, picture, fields)
        while len(self._offered) > MOST_OFFERED:
            self._offered.popitem(last=False)


def particles(image: Image, found: Micrograph, centres: Candidates) -> Bytes:
    """Pictures of particles, uint8 (n, size, size), size at most 64, as dark as they are in the micrograph."""
    diameter_px = found.diameter_a / found.pixel_a
    # A box that somebody set may be smaller than the particle.
    box = max(found.box_px, 16, 4 * math.ceil(1.5 * diameter_px / 4))
    size = min(PARTICLE_PX, box)
    ny, nx = image.shape
    x, y = np.clip(centres.x, 0, nx - 1), np.clip(centres.y, 0, ny - 1)
    boxes = extract(image, x, y, box_px=box, size=size, diameter_px=diameter_px, invert=False, ramp=True)
    smooth = ndimage.gaussian_filter(boxes, (0, SMOOTH * size / PARTICLE_PX, SMOOTH * size / PARTICLE_PX))
    return grey(smooth.reshape(-1, size), *GREYS_SD).reshape(boxes.shape)
