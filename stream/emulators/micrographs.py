"""A microscope's computer that is not there: it drops micrographs into a folder, as slowly and untidily as a real one.

Files grow in pieces. Some are allocated in full and then filled, one stays cut for ever, one is overwritten by another
exposure later, some are renamed when they are done, and what describes them may come late. The truth is written down.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from .dropped import MANNERS, Dropped
from .micrograph_files import Exposure, Layout, companion_of, name_of

SIMULATED = ("empty", "carbon")
_PIECES = 8
_SHARE = 0.5
_CUT = 0.6


class Camera(Protocol):
    """Where exposures come from. Called from one thread of its own, ahead of need."""

    def __call__(self, number: int, manner: str) -> Exposure:
        """Exposure ``number`` (from 1, each with its own content); ``manner``: one of ``MANNERS`` or ``plain``."""


class Clock:
    """Time that passes by itself; tests have another."""

    def now(self) -> float:
        """Seconds, monotonic."""
        return time.monotonic()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait so long, or until ``stop`` is set."""
        stop.wait(seconds)

    def wall(self) -> datetime:
        """The time of day, as the microscope writes it into names."""
        return datetime.now().astimezone()


@dataclass(frozen=True, slots=True)
class Session:
    """How micrographs come: ``count`` (0: until stopped), ``every_s`` from one's first byte to the next one's.

    ``hostile``: manners, each of one micrograph, the second, the fourth and so on in the order given. ``change_s``:
    after how long the ``changed`` one is overwritten; ``late_s``: how long after its image a ``late`` companion comes.
    """

    out: Path
    layout: Layout = "flat"
    count: int = 10
    every_s: float = 2.0
    hostile: tuple[str, ...] = ()
    change_s: float = 6.0
    late_s: float = 2.0
    truth: Path | None = None

    def __post_init__(self) -> None:
        unknown = [manner for manner in self.hostile if manner not in MANNERS]
        if unknown:
            raise ValueError(f"hostile: {', '.join(unknown)} unknown; known are {', '.join(MANNERS)}")
        if 0 < self.count <= len(self.hostile):
            raise ValueError(
                f"count {self.count}: {len(self.hostile)} hostile ones need {len(self.hostile) + 1} or more"
            )
        if "late" in self.hostile and self.layout == "flat":
            raise ValueError("hostile: late needs a layout with companions, epu or serialem")

    def manners(self) -> Iterator[str]:
        """The manner of each micrograph in turn."""
        step = 2 if self.count == 0 or self.count > 2 * len(self.hostile) else 1
        places = {1 + step * i: manner for i, manner in enumerate(self.hostile)}
        numbers = range(self.count) if self.count else itertools.count()
        return (places.get(number, "plain") for number in numbers)


class MicrographWriter:
    """Writes a session. ``run`` returns when all is written, or after the file in work once ``stop`` is set."""

    def __init__(
        self, session: Session, camera: Camera, *, clock: Clock | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        self.dropped = Dropped()
        self._session, self._camera = session, camera
        self._clock = clock or Clock()
        self._tell = tell or (lambda _: None)
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, stop: threading.Event) -> Dropped:
        """Write until done or stopped. Raises ``OSError`` where the folder cannot be written."""
        self._session.out.mkdir(parents=True, exist_ok=True)
        self.dropped.write_truth(self._session.truth)
        due = self._clock.now()
        with ThreadPoolExecutor(1, thread_name_prefix="camera") as pool:
            for number, manner, exposure in self._exposures(pool):
                self._pass(due - self._clock.now(), stop)
                if stop.is_set():
                    exposure.cancel()
                    break
                # A camera that is too slow does not catch up in a burst.
                due = max(due, self._clock.now()) + self._session.every_s
                self._drop(number, manner, exposure.result(), pool, stop)
            while self._later and not stop.is_set():
                self._pass(self._later[0][0] - self._clock.now(), stop)
        return self.dropped

    def _exposures(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, str, Future[Exposure]]]:
        """Each exposure while the next one is already in the making."""
        ahead: tuple[int, str, Future[Exposure]] | None = None
        for number, manner in enumerate(self._session.manners(), 1):
            coming = (number, manner, pool.submit(self._camera, number, manner))
            if ahead is not None:
                yield ahead
            ahead = coming
        if ahead is not None:
            yield ahead

    def _drop(
        self, number: int, manner: str, exposure: Exposure, pool: ThreadPoolExecutor, stop: threading.Event
    ) -> None:
        when = self._clock.wall()
        name = name_of(self._session.layout, number, when, exposure.suffix)
        path = self._session.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if manner != "truncated":
            self._true(name, exposure)
        pieces = _pieces(exposure.data if manner != "truncated" else exposure.data[: int(_CUT * len(exposure.data))])
        beside = path.with_name(path.name + ".tmp") if manner == "renamed" else path
        with beside.open("wb") as stream:
            if manner == "preallocated":
                os.truncate(stream.fileno(), len(exposure.data))
            self._fill(stream, pieces, stop)
        if beside != path:
            beside.replace(path)
        self.dropped.written.append(name)
        if manner in MANNERS:
            # What is to be changed counts as changed when it is.
            self.dropped.by_manner[manner] += [name] if manner != "changed" else []
        self._tell(f"{name}: {len(exposure.data) / 1e6:.1f} MB{'' if manner == 'plain' else ', ' + MANNERS[manner]}")
        self._describe(name, number, when, exposure, self._session.late_s if manner == "late" else 0.0)
        if manner == "changed":
            # A number that no micrograph of the session has.
            another = pool.submit(self._camera, number + 1_000_000, "plain")
            self._after(self._session.change_s, lambda: self._change(path, name, another.result(), stop))

    def _describe(self, name: str, number: int, when: datetime, exposure: Exposure, delay_s: float) -> None:
        beside, text = companion_of(self._session.layout, name, number, when, exposure.optics)
        if beside:
            self._after(delay_s, lambda: _write_whole(self._session.out / beside, text))

    def _change(self, path: Path, name: str, exposure: Exposure, stop: threading.Event) -> None:
        self._true(name, exposure)
        with path.open("wb") as stream:
            self._fill(stream, _pieces(exposure.data), stop)
        self.dropped.by_manner["changed"].append(name)
        self._tell(f"{name}: overwritten")

    def _fill(self, stream: Any, pieces: Sequence[bytes], stop: threading.Event) -> None:
        """Write piece by piece, over half of the time until the next micrograph; at once when stopped."""
        for piece in pieces:
            stream.write(piece)
            stream.flush()
            if self._session.every_s and not stop.is_set():
                self._clock.wait(_SHARE * self._session.every_s / _PIECES, stop)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        if seconds <= 0:
            action()
        else:
            heapq.heappush(self._later, (self._clock.now() + seconds, next(self._order), action))

    def _pass(self, seconds: float, stop: threading.Event) -> None:
        """Let so much time pass, and do what falls due in it."""
        until = self._clock.now() + seconds
        while not stop.is_set():
            now = self._clock.now()
            if self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
                continue
            if now >= until:
                return
            ahead = self._later[0][0] - now if self._later else until - now
            self._clock.wait(min(until - now, ahead), stop)

    def _true(self, name: str, exposure: Exposure) -> None:
        self.dropped.truth[name] = exposure.centres
        self.dropped.write_truth(self._session.truth)


def _pieces(data: bytes) -> list[bytes]:
    size = max(1, -(-len(data) // _PIECES))
    return [data[at : at + size] for at in range(0, len(data), size)]


def _write_whole(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
