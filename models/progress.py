"""Progress of long work, told as ``progress(what, done, of)``; here as plain lines."""

from __future__ import annotations

import sys
import time


class Lines:
    """Progress as lines with the time on standard error: at most one every two seconds, but always the last."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, what: str, done: int, of: int) -> None:
        """``done`` of ``of`` steps of ``what``."""
        now = time.monotonic()
        if now < self._next and done < of and not what.startswith("train"):
            return
        self._next = now + 2
        sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {what}  {done}/{of}\n")
        sys.stderr.flush()
