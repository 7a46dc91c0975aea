"""Whether there is room to write: free space, and pauses after files that failed."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..flow.frame import Failure, Key
from ..flow.ports import Facts
from .cxi_part import PartError

log = logging.getLogger(__name__)

GIGA = 1e9
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
RESUME_AT = 1.1
CHECK_S = 1.0


def free_bytes(directory: Path) -> int:
    """Bytes that we may still write below ``directory``. Raises ``OSError``."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def room_in(directory: Path) -> float | None:
    """Likewise; None where it cannot be told, as before the folder is made."""
    try:
        return float(free_bytes(directory))
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why nothing is kept, and until when (monotonic seconds) nothing is tried."""

    reason: str
    detail: str
    until: float


class Room:
    """Says whether a file may be begun, and why not.

    Below ``least`` free bytes nothing is, until a tenth more is free: the next file would fill that up again. After a
    file failed nothing is for a second, after the next two seconds, four … a minute.
    """

    def __init__(
        self, directory: Path, least: float, facts: Facts, free: Callable[[Path], int], clock: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._least = least
        self._facts = facts
        self._free = free
        self._clock = clock
        self._short: _Refusal | None = None
        self._failed: _Refusal | None = None
        self._pause = FIRST_PAUSE_S
        self._checked = -math.inf

    def why_not(self) -> str | None:
        """What is wrong at present, for any thread; None if nothing is."""
        refusal = self._short or self._failed
        return None if refusal is None else refusal.detail

    def refuse(self, key: Key) -> Failure:
        """The failure of a frame that cannot be kept now."""
        refusal = self._short or self._failed
        if refusal is None:
            return Failure(key, "file", f"{self._directory}: cannot be written")
        return Failure(key, refusal.reason, refusal.detail)

    def may_open(self) -> bool:
        """Whether to try a new file now."""
        now = self._clock()
        if now - self._checked >= CHECK_S:
            with suppress(OSError):
                self._directory.mkdir(parents=True, exist_ok=True)
            self.is_short()
        return self._short is None and (self._failed is None or now >= self._failed.until)

    def is_short(self) -> bool:
        """Look at the free space; whether it is too little."""
        self._checked = self._clock()
        try:
            free = self._free(self._directory)
        except OSError as error:
            log.warning("%s: cannot tell its free space: %s", self._directory, error)
            return False
        if free >= self._least * (1.0 if self._short is None else RESUME_AT):
            if self._short is not None:
                log.warning("%s: %.3g GB free; frames are kept again", self._directory, free / GIGA)
            self._short = None
            return False
        if self._short is None:
            self._facts.event("disk_full")
            log.error("%s: %.3g GB free; no frame is kept from here on", self._directory, free / GIGA)
        detail = (
            f"{self._directory}: {free / GIGA:.3g} GB free, less than min_free_gb {self._least / GIGA:g}; "
            "free some space or set another directory"
        )
        self._short = _Refusal("disk_full", detail, math.inf)
        return True

    def failed(self, error: PartError) -> None:
        """A file could not be made or written."""
        remedy = "free some space" if error.full else "look at the disk and the permissions"
        detail = f"{error.detail}; {remedy}; nothing is tried for {self._pause:.0f} s"
        self._failed = _Refusal("disk_full" if error.full else "file", detail, self._clock() + self._pause)
        self._pause = min(LONGEST_PAUSE_S, 2 * self._pause)
        self._facts.event("file_failed")

    def opened(self) -> None:
        """A file could be made."""
        self._failed = None

    def flushed(self) -> None:
        """Frames are on disk: the next failure is a first one again."""
        self._pause = FIRST_PAUSE_S
