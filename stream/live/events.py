"""The stream of events: one question a second to the page, and the same bytes for every browser that watches."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .lanes import Busy, Lane
from .limits import Limits
from .page import Page, Picture

log = logging.getLogger(__name__)

QUIET_S = 15.0  # a comment is sent after this much silence, or proxies close the connection
FRESH_S = 3.0  # a state of this age is shown to a new browser at once
TROUBLE_S = 60.0
MESSAGES = 100
NO_TROUBLE = b'{"problems":[]}'


class Full(Exception):
    """As many browsers watch as may."""


class Troubles:
    """What went wrong in the page's own code: logged once per message, shown for a minute or until it works again."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._shown: dict[str, tuple[str, float]] = {}

    def add(self, what: str, error: Exception) -> str:
        """``what`` failed; returns what people are told. The message of the error stays in the log."""
        message = f"{what}: {type(error).__name__}: {error}"
        if message not in self._logged and len(self._logged) < MESSAGES:
            self._logged.add(message)
            log.error("live page: %s", message[:1000], exc_info=error)
        text = f"{what} failed ({type(error).__name__}); the daemon's log says more"
        self._shown[what] = (text, time.monotonic() + TROUBLE_S)
        return text

    def over(self, what: str) -> None:
        """``what`` works."""
        self._shown.pop(what, None)

    def texts(self) -> list[str]:
        """What to show now."""
        now = time.monotonic()
        return [text for text, until in list(self._shown.values()) if now < until]


@dataclass(slots=True, eq=False)
class Watcher:
    """How far one browser has come: the number of its last state, what troubles it knows of, its last picture.

    ``may``: whether it may go on watching; asked before every event.
    """

    state: int
    picture: int
    may: Callable[[], bool]
    trouble: bytes = NO_TROUBLE


@dataclass(frozen=True, slots=True)
class Look:
    """What the page answered: the state as an event, and the pictures it keeps, by rising number."""

    state: bytes
    numbers: Sequence[int]
    pictures: Sequence[bytes]


class Hub:
    """Asks the page while somebody watches, and gives each browser what it has not had.

    A browser is given one event at a time, when the one before has gone out: one that is slow always gets the newest
    state and the pictures that are still kept, and nothing is queued for it. All methods belong to the event loop.
    """

    def __init__(self, page: Page, lane: Lane, limits: Limits, troubles: Troubles, counts: Counter[str]) -> None:
        self._page = page
        self._lane = lane
        self._limits = limits
        self._troubles = troubles
        self._counts = counts
        self._mark = secrets.token_hex(4)  # a picture's number means nothing to the daemon's next life
        self._watchers: set[Watcher] = set()
        self._someone = asyncio.Event()
        self._news = asyncio.Event()
        self._look = Look(b"", (), ())
        self._framed: dict[int, bytes] = {}
        self._trouble = NO_TROUBLE
        self._number = 0
        self.looked = -math.inf  # monotonic seconds of the last question
        self._ended = False

    def __len__(self) -> int:
        return len(self._watchers)

    async def run(self) -> None:
        """Ask once a second, while there is somebody, until cancelled."""
        while True:
            await self._someone.wait()
            await self._ask()
            await asyncio.sleep(max(0.0, self.looked + self._limits.tick_s - time.monotonic()))

    def end(self) -> None:
        """Let every browser go."""
        self._ended = True
        self._tell()

    def join(self, last: str, may: Callable[[], bool]) -> Watcher:
        """A browser comes; ``last``: the id of the last picture it had. Raises ``Full``. Belongs with ``leave``."""
        if len(self._watchers) >= self._limits.browsers:
            self._counts["browsers_refused"] += 1
            raise Full(f"{self._limits.browsers} browsers watch already; close one of them")
        fresh = time.monotonic() - self.looked < FRESH_S
        watcher = Watcher(self._number - fresh, self._after(last), may)
        self._watchers.add(watcher)
        self._someone.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """A browser goes; nothing is kept for nobody."""
        self._watchers.discard(watcher)
        if not self._watchers:
            self._someone.clear()
            self._look, self._framed = Look(b"", (), ()), {}

    async def events(self, watcher: Watcher) -> AsyncIterator[bytes]:
        """What one browser is sent, until the server ends."""
        yield b"retry: 2000\n\n"
        while not self._ended and watcher.may():
            news = self._news
            event = self._next(watcher)
            if event is None:
                try:
                    await asyncio.wait_for(news.wait(), QUIET_S)
                    continue
                except TimeoutError:
                    event = b":\n\n"
            yield event
            # Or all that is kept would be written before anybody hears that the browser has gone, a warning for each.
            await asyncio.sleep(0)

    def _next(self, watcher: Watcher) -> bytes | None:
        if watcher.trouble != self._trouble:
            watcher.trouble = self._trouble
            return framed("trouble", self._trouble)
        if watcher.state < self._number and self._look.state:
            watcher.state = self._number
            return self._look.state
        numbers = self._look.numbers
        at = bisect_right(numbers, watcher.picture)
        if at == len(numbers):
            return None
        if watcher.picture:
            self._counts["pictures_missed"] += max(0, numbers[at] - watcher.picture - 1)
        watcher.picture = numbers[at]
        return self._look.pictures[at]

    async def _ask(self) -> None:
        self.looked = time.monotonic()
        try:
            look = await self._lane.do(self._blocking)
        except Busy:
            return
        if not self._watchers:
            self._framed = {}
            return
        self._number += 1
        self._trouble = encode({"problems": self._troubles.texts()})
        # Said again every second where there is no state: a page that hears nothing takes the connection for dead.
        self._look = look if look.state else replace(look, state=framed("trouble", self._trouble))
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _blocking(self) -> Look:
        state, pictures = b"", []
        try:
            state = framed("snapshot", encode(self._page.snapshot()))
            self._troubles.over("snapshot")
        except Exception as error:
            self._troubles.add("snapshot", error)
        try:
            pictures = self._frame(self._page.pictures(0))
            self._troubles.over("pictures")
        except Exception as error:
            self._troubles.add("pictures", error)
        return Look(state, [number for number, _ in pictures], [event for _, event in pictures])

    def _frame(self, pictures: Sequence[Picture]) -> list[tuple[int, bytes]]:
        had = self._framed
        found = {
            one.seq: had.get(one.seq) or framed("picture", one.encoded, f"{self._mark}-{one.seq}") for one in pictures
        }
        self._framed = found
        return sorted(found.items())

    def _after(self, last: str) -> int:
        mark, _, number = last.partition("-")
        if mark != self._mark or not number.isascii() or not number.isdigit():
            return 0
        return int(number[:18])


def framed(event: str, data: bytes, number: str = "") -> bytes:
    """One server-sent event; line ends within ``data`` (JSON, where they mean nothing) are left out."""
    head = f"event: {event}\n" + (f"id: {number}\n" if number else "")
    return b"%sdata: %s\n\n" % (head.encode("ascii"), b"".join(data.splitlines()))


def encode(value: Any) -> bytes:
    """JSON in ASCII; numpy's numbers and arrays become plain ones, what is not finite becomes null."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":")).encode("ascii")
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).encode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
