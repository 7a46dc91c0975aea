"""Turns: threads whose work is many small calls take turns at the interpreter, a burst each.

Python runs one thread at a time, but every call into numpy, zmq or a decoder lets go of the interpreter for some
microseconds. A thread that waits for it is woken each time, on another core, mostly in vain. With frames of 128 × 128
pixels that happens several times per frame, and cost half of the daemon's time. Threads that wait for their turn wait
for the whole burst instead, and nobody is woken in vain.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType

SMALL_S = 100e-6


class Turns:
    """A lock that is handed on in the order of asking, so that no stage starves. Hold it for a burst, never waiting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    @property
    def taken(self) -> bool:
        """Somebody has the turn now."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many threads wait for it."""
        return len(self._waiting)

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


TURNS = Turns()
"""The one of this process, because it has one interpreter."""


class Turn:
    """One stage's part in the turns: it takes them while a shot costs it little, and works beside the others otherwise.

    What takes longer than ``SMALL_S`` per shot is spent in compiled code, which can use another core meanwhile.
    """

    def __init__(self, turns: Turns = TURNS) -> None:
        self._turns = turns
        self._small = True
        self._shots = 0
        self._since = 0.0
        self._held = False

    def take(self, shots: int) -> Turn:
        """For a burst of so many shots; use it with ``with``."""
        self._shots = shots
        return self

    def __enter__(self) -> None:
        self._held = self._small
        if self._held:
            self._turns.__enter__()
        self._since = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._small = time.monotonic() - self._since < SMALL_S * self._shots
        if self._held:
            self._turns.__exit__(kind, error, trace)
