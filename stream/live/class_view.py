"""What the live page knows of the 2-D classes: one frozen picture of them, and what a person may do to a class.

The worker that classifies makes a new ``Classes`` when something changed and leaves it where ``ClassLevers.current``
finds it; the page reads it in its own threads and never waits for the worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: What a person may say of a class; empty: nothing.
MARKS = ("good", "bad", "")
MOST_MEMBERS = 16
MOST_EVENTS = 20
MOST_CLASSES = 200
#: A pass over all particles: why (one of ``flow.classed.PASSES``), and how many of how many are done.
Pass = tuple[str, int, int]
#: Training on the session's own particles: ``training`` or ``done``, done of how many steps, and a text for a person.
Tuning = tuple[str, int, int, str]


@dataclass(frozen=True, slots=True, eq=False)
class ClassView:
    """One class. Arrays are not written to once they are in here.

    ``id``: from 1, never used twice in a session. ``count``: its particles. ``growth_per_min``: particles per minute of
    late. ``spread``: 0 (all alike) to 1. ``resolution_a``: Å, of the Fourier ring correlation of half sets; NaN where
    it is not known. ``since``: when the class came, Unix seconds. ``version``: another one whenever ``average``,
    ``denoised_average`` or ``members`` are others. ``average``: float32 (64, 64), of the particles as they were
    recorded, particles white. ``denoised_average``: the same of the denoised, None where there is none. ``members``:
    float32 (m, 2, 64, 64), the last m ≤ 16, newest last: as recorded, and denoised.
    """

    id: int
    count: int
    growth_per_min: float
    spread: float
    resolution_a: float
    mark: str
    since: float
    version: int
    average: Floats
    denoised_average: Floats | None
    members: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """All classes, as they are at one moment.

    ``version``: another one whenever anything here is. ``state``: ``waiting`` (for the first ``need`` particles, of
    which ``have`` are there), ``ready`` or ``failed``. ``error``: why it failed, or what hinders and is tried again.
    ``particles``: classified so far. ``unlabelled``: picked and not classified yet. ``rejected``: of bad classes.
    ``pixel_a``: Å per pixel of averages. ``model``, ``model_sha256``: what denoises; ``tuned``: on this session's
    particles. ``pass_``: a pass under way. ``events``: (Unix seconds, text), the newest last, at most 20. ``classes``:
    the largest first, at most 200.
    """

    version: int
    state: Literal["waiting", "ready", "failed"]
    have: int
    need: int
    particles: int
    unlabelled: int
    rejected: int
    pixel_a: float
    model: str
    model_sha256: str
    tuned: bool
    pass_: Pass | None = None
    tuning: Tuning | None = None
    events: tuple[tuple[float, str], ...] = ()
    classes: tuple[ClassView, ...] = ()
    error: str = ""


class ClassLevers(Protocol):
    """The classes of a running daemon. Any thread."""

    def current(self) -> Classes:
        """The newest picture of them; returns at once."""

    def mark(self, id: int, mark: str, by: str) -> None:
        """From now on the class is ``good``, ``bad`` or, empty, unmarked; ``current`` shows it. ``by``: who says so.

        The page has checked ``mark`` and has written it into the log of changes; where this raises ``page.Refused``
        (there is no such class any more, it cannot be kept), nothing was changed, and the page takes it back there.
        """
