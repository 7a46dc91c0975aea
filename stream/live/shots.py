"""Frames put aside for the page: the last accepted, the last rejected, and the random misses; copied, few, bounded."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import Frame, Outcome, Result
from .page import Picture

log = logging.getLogger(__name__)

ACCEPTED, REJECTED, RANDOM_MISS = "accepted", "rejected", "random_miss"
SHOWN = {ACCEPTED: 24, REJECTED: 24, RANDOM_MISS: 64}
REVIEWED = (ACCEPTED, RANDOM_MISS)
PER_S = 4.0
AT_ONCE = 4.0
FRAME_BYTES = 4 << 20
BUDGET = 256 << 20
REMEMBERED = 2000
SHOT_BYTES = 4096
RENDER_S = 0.05
LONGEST = 32
NO_PIXELS = np.zeros((0, 0))


@dataclass(slots=True, eq=False)
class Shot:
    """A frame that was put aside, with its verdict. ``frame``: a copy, or None once its room was needed.

    ``view``: what the model saw of it, (size, size), made with its picture. ``result`` has a frame without pixels.
    """

    id: str
    seq: int
    group: str
    result: Result
    frame: Frame | None
    view: npt.NDArray[Any] | None = None
    picture: Picture | None = None


Render: TypeAlias = Callable[[Shot, Frame], tuple[npt.NDArray[Any] | None, Picture]]


@dataclass(slots=True)
class Allowance:
    """How many frames may be copied: ``PER_S`` a second, four at once, and fewer when they are larger than 4 MiB."""

    left: float = AT_ONCE
    at: float | None = None

    def refill(self, now: float) -> None:
        """Time went by (monotonic seconds)."""
        if self.at is not None:
            self.left = min(AT_ONCE, self.left + (now - self.at) * PER_S)
        self.at = now


class Room:
    """Arrays of shots within ``budget`` bytes; ``add`` tells whose must go: the oldest of the group that takes most."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: dict[str, deque[tuple[Shot, int]]] = {group: deque() for group in SHOWN}
        self._bytes = dict.fromkeys(SHOWN, 0)

    @property
    def nbytes(self) -> int:
        """Bytes held now, with what a shot itself takes."""
        return sum(self._bytes.values())

    def add(self, shot: Shot, nbytes: int) -> list[Shot]:
        """Hold the shot's array of so many bytes; gives the shots whose arrays are to be let go."""
        nbytes += SHOT_BYTES
        self._held[shot.group].append((shot, nbytes))
        self._bytes[shot.group] += nbytes
        gone = []
        while self.nbytes > self._budget:
            group = max(self._bytes, key=lambda name: self._bytes[name])
            oldest, size = self._held[group].popleft()
            self._bytes[group] -= size
            gone.append(oldest)
        return gone


class Shots:
    """Takes a few frames out of each burst. ``offer`` is called by the sinks' thread, all else by any.

    Of each group at most four frames a second are copied, chosen by the clock and so at random as far as they differ:
    the newest of a burst first. Of these, the last 24 (accepted, rejected) or 64 (random misses) are shown to a browser
    that comes; up to 2000 of each are remembered for what people say of them, with their pixels within ``budget`` bytes
    of all together, and what the model saw of those that were shown within a quarter of it.
    """

    def __init__(self, prefix: str, budget: int = BUDGET) -> None:
        """``prefix``: what ids begin with; another one at every start of the daemon, because marks go by ids."""
        self._prefix = prefix
        self._lock = threading.Lock()
        self._rendering = threading.Lock()
        self._seq = 0
        self._frames, self._views = Room(budget), Room(budget // 4)
        self._allowances = {group: Allowance() for group in SHOWN}
        self._shown: dict[str, deque[Shot]] = {group: deque(maxlen=most) for group, most in SHOWN.items()}
        self._known: dict[str, OrderedDict[str, Shot]] = {group: OrderedDict() for group in SHOWN}

    @property
    def nbytes(self) -> int:
        """Bytes of frames and views kept now, with what the shots themselves take."""
        with self._lock:
            return self._frames.nbytes + self._views.nbytes

    def offer(self, now: float, results: Sequence[Result]) -> int:
        """Put some of a burst aside; returns how many were copied. ``now``: monotonic seconds."""
        rejected, accepted = Outcome.REJECTED, Outcome.ACCEPTED
        newest = results[::-1]
        return (
            self._take(RANDOM_MISS, now, (r for r in newest if r.weight and r.outcome is rejected))
            + self._take(ACCEPTED, now, (r for r in newest if r.outcome is accepted))
            + self._take(REJECTED, now, (r for r in newest if not r.weight and r.outcome is rejected))
        )

    def get(self, name: str) -> Shot | None:
        """The shot of that id, None where it is not remembered (any more)."""
        with self._lock:
            return next((known[name] for known in self._known.values() if name in known), None)

    def waiting(self, marked: Container[str]) -> int:
        """How many of the frames that are shown for review nobody has marked yet."""
        with self._lock:
            return sum(shot.id not in marked for group in REVIEWED for shot in self._shown[group])

    def pictures(self, after: int, render: Render, clock: Callable[[], float] = time.monotonic) -> list[Picture]:
        """Pictures of the shots shown with ``seq > after``, oldest first; made once, by ``render``.

        Stops after about 50 ms of rendering; the next call goes on there. A shot for which ``render`` raises is shown
        no more, and the log says why.
        """
        with self._lock:
            shots = sorted((s for shown in self._shown.values() for s in shown if s.seq > after), key=_seq)
        found: list[Picture] = []
        with self._rendering:
            until = clock() + RENDER_S
            for shot in shots:
                frame = shot.frame
                if shot.picture is None and frame is not None:
                    if clock() > until:
                        break
                    self._render(shot, frame, render)
                if (picture := shot.picture) is not None:
                    found.append(picture)
        return found

    def _render(self, shot: Shot, frame: Frame, render: Render) -> None:
        try:
            self._keep(shot, *render(shot, frame))
        except Exception:
            # Tried again every second, one frame that cannot be drawn would keep all later ones from the browsers.
            log.exception("frame %s cannot be shown: a bug", frame.key)
            with self._lock:
                # It may have made room for a newer one meanwhile.
                if shot in self._shown[shot.group]:
                    self._shown[shot.group].remove(shot)

    def _keep(self, shot: Shot, view: npt.NDArray[Any] | None, picture: Picture) -> None:
        with self._lock:
            shot.picture = picture if shot in self._shown[shot.group] else None
            if view is not None:
                shot.view = view
                for gone in self._views.add(shot, view.nbytes):
                    gone.view = None

    def _take(self, group: str, now: float, results: Iterator[Result]) -> int:
        allowance = self._allowances[group]
        allowance.refill(now)
        taken = 0
        while allowance.left >= 1 and (result := next(results, None)) is not None:
            frame = copied(result.frame)
            allowance.left -= max(1.0, _nbytes(frame) / FRAME_BYTES)
            self._put(group, replace(result, frame=_without_pixels(frame), found=plain(result.found)), frame)
            taken += 1
        return taken

    def _put(self, group: str, result: Result, frame: Frame) -> None:
        with self._lock:
            self._seq += 1
            shot = Shot(f"{self._prefix}-{self._seq}", self._seq, group, result, frame)
            shown = self._shown[group]
            if len(shown) == shown.maxlen:
                shown[0].picture = None  # no browser is sent it any more, and thousands of them would take 12 kB each
            shown.append(shot)
            known = self._known[group]
            known[shot.id] = shot
            if len(known) > REMEMBERED:
                known.popitem(last=False)
            for gone in self._frames.add(shot, _nbytes(frame)):
                gone.frame = None


def copied(frame: Frame) -> Frame:
    """The frame with arrays of its own: what it came with is a part of its burst's array, and would keep all of it."""
    mask = None if frame.mask is None else frame.mask.copy()
    return replace(frame, data=frame.data.copy(), mask=mask, chunk=None, info=plain(frame.info))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and texts of a mapping; short arrays as lists of numbers, whatever is large left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray | np.generic):
            if value.size <= LONGEST:
                found[name] = value.tolist()
        elif isinstance(value, str | int | float):
            found[name] = value
    return found


def _without_pixels(frame: Frame) -> Frame:
    return replace(frame, data=NO_PIXELS, mask=None)


def _nbytes(frame: Frame) -> int:
    return int(frame.data.nbytes + (0 if frame.mask is None else frame.mask.nbytes))


def _seq(shot: Shot) -> int:
    return shot.seq
