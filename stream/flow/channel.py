"""A bounded queue between two threads, which says what it does when it is full and counts what it drops."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class WhenFull(StrEnum):
    """What a full channel does with the next item."""

    WAIT = "wait"
    DROP_OLDEST = "drop_oldest"


class Closed(Exception):
    """Raised by ``get`` when the channel is closed and empty: nothing will ever come again."""


def _one(_: object) -> int:
    return 1


class Channel(Generic[T]):
    """A bounded queue whose capacity is counted in shots, because one item may be a train of hundreds.

    ``weigh`` gives an item's shots; an item that weighs 0 is a mark (start or end of a run): it takes one place while
    it waits and is never dropped. An item heavier than the whole channel is let in when the channel is empty.
    ``on_drop`` hears every item that is dropped, in the thread that caused it.

    ``measure`` gives an item's bytes: a channel of large shots then holds fewer, at most about ``most_bytes``, as the
    first shot of each ``put`` says.

    Items go in and come out in bursts, since one hand-over costs more than the item itself at 100 000 items a second.
    """

    def __init__(
        self,
        name: str,
        size: int,
        when_full: WhenFull = WhenFull.WAIT,
        *,
        weigh: Callable[[T], int] = _one,
        on_drop: Callable[[Sequence[T]], None] | None = None,
        measure: Callable[[T], int] | None = None,
        most_bytes: int = 1 << 29,
    ) -> None:
        if size < 1:
            raise ValueError(f"channel {name}: size is {size}; give at least 1")
        self.name = name
        self.size = size
        self.when_full = when_full
        self._weigh = weigh
        self._on_drop = on_drop
        self._measure = measure
        self._most_bytes = most_bytes
        self._room = size
        self._items: deque[T] = deque()
        self._load = 0
        self._closed = False
        self._aborted = False
        self._woken = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)

    @property
    def depth(self) -> int:
        """Shots (and marks) waiting now."""
        return self._load

    @property
    def aborted(self) -> bool:
        """Everything is dropped from now on."""
        return self._aborted

    def put(self, items: Sequence[T]) -> float:
        """Put all items in, in order; returns the seconds it was blocked. What does not fit waits or drops the oldest.

        After ``abort`` the items are dropped at once. Putting into a closed channel is a bug: ``RuntimeError``.
        """
        dropped: list[T] = []
        blocked = 0.0
        with self._filled:
            if self._closed and not self._aborted:
                raise RuntimeError(f"channel {self.name}: put after close")
            costs = [self._weigh(item) or 1 for item in items]
            self._make_room(items)
            if self._load + sum(costs) <= self._room and not self._aborted:
                self._items.extend(items)
                self._load += sum(costs)
                items = ()
            for item, cost in zip(items, costs, strict=False):
                while self._load and self._load + cost > self._room and not self._aborted:
                    if self.when_full is WhenFull.DROP_OLDEST and self._drop_oldest(dropped):
                        continue
                    self._filled.notify_all()
                    since = time.monotonic()
                    self._emptied.wait()
                    blocked += time.monotonic() - since
                if self._aborted:
                    dropped.append(item)
                    continue
                self._items.append(item)
                self._load += cost
            self._filled.notify_all()
        if dropped and self._on_drop:
            self._on_drop(dropped)
        return blocked

    def get(self, limit: int, timeout: float | None = None) -> list[T]:
        """Take items of up to ``limit`` shots, at least one item, waiting up to ``timeout`` seconds for the first.

        Empty when none came in time, or on ``wake``.
        Raises ``Closed`` when the channel is closed and empty.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._filled:
            while not self._items:
                if self._closed:
                    raise Closed(self.name)
                if self._woken:
                    self._woken = False
                    return []
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return []
                self._filled.wait(left)
            taken = self._taken(limit)
            self._woken = False
            self._emptied.notify_all()
        return taken

    def _make_room(self, items: Sequence[T]) -> None:
        """Set the capacity in shots to what the first shot's size allows."""
        if self._measure is not None and items and (shots := self._weigh(items[0])):
            bytes_per_shot = max(1, self._measure(items[0]) // shots)
            self._room = max(1, min(self.size, self._most_bytes // bytes_per_shot))

    def _taken(self, limit: int) -> list[T]:
        if self._load <= limit:
            taken = list(self._items)
            self._items.clear()
            self._load = 0
            return taken
        taken = [self._items.popleft()]
        load = self._weigh(taken[0]) or 1
        while self._items and load + (cost := self._weigh(self._items[0]) or 1) <= limit:
            taken.append(self._items.popleft())
            load += cost
        self._load -= load
        return taken

    def wake(self) -> None:
        """Make the ``get`` that waits for the first item, or the next one that would, return empty at once."""
        with self._filled:
            self._woken = True
            self._filled.notify_all()

    def close(self) -> None:
        """Nothing more will be put; what is inside can still be taken."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()

    def abort(self) -> None:
        """Drop what is inside and everything still to come, and wake whoever waits."""
        with self._filled:
            left = list(self._items)
            self._items.clear()
            self._load = 0
            self._closed = self._aborted = True
            self._filled.notify_all()
            self._emptied.notify_all()
        if left and self._on_drop:
            self._on_drop(left)

    def _drop_oldest(self, dropped: list[T]) -> bool:
        for at, item in enumerate(self._items):
            cost = self._weigh(item)
            if cost:
                del self._items[at]
                self._load -= cost
                dropped.append(item)
                return True
        return False
