"""How often somebody may try: growing waits after wrong tokens, a steady pace for changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

KNOWN = 1024  # people and addresses remembered; the one heard of longest ago is forgotten first


class Tries:
    """After ``free`` wrong tries, each further one doubles the wait, up to ``longest_s`` seconds.

    ``now``: a monotonic clock, seconds. What is an hour old is forgotten.
    """

    def __init__(self, now: Callable[[], float], free: int = 5, longest_s: float = 60.0) -> None:
        self._now = now
        self._free = free
        self._longest_s = longest_s
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, who: str) -> float:
        """Seconds until ``who`` may try again; 0 when now."""
        failures, last = self._failed.get(who, (0, 0.0))
        if failures < self._free:
            return 0.0
        if self._now() - last > 3600:
            self.forget(who)
            return 0.0
        pause = min(2.0 ** min(failures - self._free, 16), self._longest_s)
        return max(0.0, last + pause - self._now())

    def failed(self, who: str) -> None:
        """``who`` tried, and was wrong."""
        failures, _ = self._failed.pop(who, (0, 0.0))
        self._failed[who] = (failures + 1, self._now())
        while len(self._failed) > KNOWN:
            self._failed.popitem(last=False)

    def forget(self, who: str) -> None:
        """``who`` was right."""
        self._failed.pop(who, None)


class Pace:
    """Lets each one do ``at_once`` things together and ``per_s`` a second in the long run (a token bucket)."""

    def __init__(self, now: Callable[[], float], per_s: float, at_once: int) -> None:
        self._now = now
        self._per_s = per_s
        self._at_once = at_once
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> bool:
        """Whether ``who`` may do one more thing now; it is then counted."""
        now = self._now()
        left, since = self._left.pop(who, (float(self._at_once), now))
        left = min(float(self._at_once), left + (now - since) * self._per_s)
        allowed = left >= 1
        self._left[who] = (left - 1 if allowed else left, now)
        while len(self._left) > KNOWN:
            self._left.popitem(last=False)
        return allowed
