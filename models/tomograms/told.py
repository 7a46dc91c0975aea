"""How long work on a tomogram tells where it is, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as ``progress(what, done, of)``."""
Stop: TypeAlias = Callable[[], bool]
"""Asked often; once it says True, the work ends with ``Stopped``."""


class Stopped(Exception):
    """Told to stop; nothing of the unfinished work is kept."""


class Told:
    """``progress`` and ``stop`` of one piece of work, either of which may be None; a ``Progress`` itself."""

    def __init__(self, progress: Progress | None = None, stop: Stop | None = None) -> None:
        self._progress, self._stop = progress, stop

    def __call__(self, what: str, done: int, of: int) -> None:
        """Tell that ``done`` of ``of`` steps of ``what`` are done. Raises ``Stopped`` when told to stop."""
        if self._stop is not None and self._stop():
            raise Stopped(what)
        if self._progress is not None:
            self._progress(what, done, of)
