"""What an emulated detector did, and when its next message is due."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """Frames sent and dropped, and the true classes of those that were sent."""

    sent: int = 0
    dropped: int = 0
    messages: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def count(self, infos: Iterable[Mapping[str, Any]]) -> None:
        """One message went out, with one info per frame; ``truth`` in it is the number of particles, 4 = more."""
        self.messages += 1
        for info in infos:
            self.sent += 1
            if "truth" in info:
                self.classes[int(info["truth"])] += 1
        self.seconds = time.monotonic() - self.began

    def report(self) -> dict[str, Any]:
        """For ``--json``: ``true_hits`` counts the frames with exactly one particle, null where nobody knows."""
        return {
            "sent": self.sent,
            "dropped": self.dropped,
            "messages": self.messages,
            "true_hits": self.classes[1] if self.classes else None,
            "true_classes": {str(k): n for k, n in sorted(self.classes.items())},
            "seconds": round(self.seconds, 3),
            "rate_hz": round(self.sent / self.seconds, 3) if self.seconds > 0 else 0.0,
        }


class Pace:
    """Says when the next message is due: ``rate_hz`` times per second from the first, 0 = at once."""

    def __init__(self, rate_hz: float) -> None:
        if rate_hz < 0:
            raise ValueError(f"rate {rate_hz} Hz: use a positive number, or 0 for as fast as possible")
        self._period = 1.0 / rate_hz if rate_hz else 0.0
        self._due = 0.0

    def wait(self, stop: threading.Event) -> float:
        """Wait until the next message is due; returns when the one after it will be (monotonic seconds).

        A sender that fell behind by more than a second goes on from now instead of catching up in a burst.
        """
        now = time.monotonic()
        if not self._due or now - self._due > 1.0:
            self._due = now
        if (ahead := self._due - now) > 0:
            stop.wait(ahead)
        self._due += self._period
        return self._due
