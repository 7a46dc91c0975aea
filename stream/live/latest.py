"""Work that may be left out: a thread that does the newest of what it is given, and never holds up who gives it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Latest(Generic[T]):
    """Calls ``do`` with what is put, in a thread of its own; at most ``depth`` wait, and the oldest of them is dropped.

    ``pause_s``: at least so long passes from the start of one to the start of the next, and at least twice what the
    last one took, so that it has no more than a third of a core. What ``do`` raises is logged, and ends nothing.
    """

    def __init__(self, name: str, do: Callable[[T], None], *, depth: int = 2, pause_s: float = 0.0) -> None:
        self.dropped = 0
        self.done = 0
        self._do, self._depth, self._pause_s = do, depth, pause_s
        self._waiting: deque[T] = deque()
        self._busy = self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._over

    def start(self) -> None:
        """Begin; more than once does no harm."""
        with self._changed:
            if self._thread.ident is None and not self._over:
                self._thread.start()

    def put(self, job: T) -> None:
        """Give it work; returns at once."""
        with self._changed:
            if self._over:
                return
            while len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(job)
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait until nothing is left to do; False where that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Do nothing more, and wait for what is being done."""
        with self._changed:
            self._over = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = time.monotonic()
            try:
                self._do(job)
            except Exception:
                log.exception("%s: a bug; this one is left out", self._thread.name)
            # Not held while it waits for the next: a job may be an image of a hundred megabytes.
            del job
            self._rest(began)

    def _next(self) -> T | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            if self._over:
                return None
            self._busy = True
            return self._waiting.popleft()

    def _rest(self, began: float) -> None:
        now = time.monotonic()
        until = began + max(self._pause_s, 3 * (now - began)) if self._pause_s else now
        with self._changed:
            self._busy = False
            self.done += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over, max(0.0, until - now))
