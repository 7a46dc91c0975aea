"""The emulated injector: whether its jet runs, so that hit rates can be seen to fall and to come back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

PAUSE = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")


class Jet:
    """Says whether particles cross the beam. ``toggle`` may be called from a signal handler.

    ``pauses``: (from, to) in seconds since the first shot in which nothing crosses it. ``clock``: monotonic seconds.
    """

    def __init__(self, pauses: Sequence[tuple[float, float]] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._pauses, self._clock = tuple(pauses), clock
        self._began: float | None = None
        self._off = False

    def __call__(self) -> bool:
        """Whether the jet runs now."""
        now = self._clock()
        if self._began is None:
            self._began = now
        since = now - self._began
        return not self._off and not any(start <= since < end for start, end in self._pauses)

    def toggle(self, *_: object) -> None:
        """Switch it off, or on again."""
        self._off = not self._off


def pause(text: str) -> tuple[float, float]:
    """``20:40``: from 20 s to 40 s. Raises ``ValueError``."""
    found = PAUSE.fullmatch(text)
    if found is None or float(found[1]) >= float(found[2]):
        raise ValueError(f"--jet-off {text}: give seconds as FROM:TO, for example 20:40")
    return float(found[1]), float(found[2])
