"""When a run begins and ends on a stream that never says so: from train ids, run numbers and silence."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass

_REMEMBERED = 64
_LATE_STEPS = 10
_NAMES = 10_000
_MOST_MISSING = 1_000_000  # a day of trains; beyond it the sender counts from elsewhere


@dataclass(frozen=True, slots=True)
class Seen:
    """What a train's number means. ``ended`` is the reason the open run is over, or None; ``opened``: a new one begins.

    ``missing`` counts the numbers skipped before this one. A ``duplicate`` must not be analysed again; a ``late`` train
    is one of those counted missing before.
    """

    ended: str | None = None
    opened: bool = False
    duplicate: bool = False
    late: bool = False
    missing: int = 0


class RunClock:
    """Follows the train ids of one stream. Not for several threads.

    A run begins with the first train. It is over when nothing came for ``idle_s`` seconds, when the sender's run number
    changes, or when the ids jump or go back: a restarted sender, or a file that is played again. A train a few steps
    behind that was never seen is late, not a restart. ``run`` names the open run, "" where none is.
    """

    def __init__(self, step: int = 1, idle_s: float = 30.0) -> None:
        self.run = ""
        self._step, self._idle_s = step, idle_s
        self._last = -1
        self._number: int | None = None
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)
        self._heard = 0.0
        self._names: OrderedDict[str, int] = OrderedDict()

    def silent(self, now: float) -> str:
        """Close the run and return its name if nothing came for too long at ``now`` (monotonic seconds), else ""."""
        if not self.run or now - self._heard < self._idle_s:
            return ""
        return self.finish()

    def finish(self) -> str:
        """Close the open run and return its name, "" where none is open."""
        run, self.run = self.run, ""
        return run

    def see(self, train_id: int, now: float, wall: float, number: int | None = None) -> Seen:
        """Take note of a train that arrived at ``now`` (monotonic) and ``wall`` (seconds since 1970)."""
        self._heard = now
        if number is not None and number != self._number:
            ended = "superseded" if self.run else None
            self._number = number
            return self._open(train_id, wall, ended)
        if not self.run:
            return self._open(train_id, wall, None)
        ahead = train_id - self._last
        if 0 < ahead <= _MOST_MISSING * self._step:
            self._recent.append(train_id)
            self._last = train_id
            return Seen(missing=max(ahead // self._step - 1, 0))
        if ahead == 0:
            return Seen(duplicate=True)
        if -_LATE_STEPS * self._step <= ahead < 0 and train_id not in self._recent:
            self._recent.append(train_id)
            return Seen(late=True)
        return self._open(train_id, wall, "aborted")

    def _open(self, train_id: int, wall: float, ended: str | None) -> Seen:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        name = f"r{self._number:04d}" if self._number is not None else f"{stamp}-t{train_id}"
        self._names[name] = repeats = self._names.get(name, 0) + 1
        if len(self._names) > _NAMES:
            self._names.popitem(last=False)
        self.run = name if repeats == 1 else f"{name}-{repeats}"
        self._recent.clear()
        self._recent.append(train_id)
        self._last = train_id
        return Seen(ended=ended, opened=True)
