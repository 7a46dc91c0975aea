"""Arrays that are kept while they fit: those that were asked for last stay."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What says how many bytes it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""


T = TypeVar("T", bound=Sized)


class Shelf(Generic[T]):
    """Values by name, together at most ``budget`` bytes; the one that was not asked for the longest goes first.

    One that is larger than the budget is not kept at all. Any thread may call any method.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        return self._nbytes

    def put(self, name: str, value: T) -> None:
        """Keep the value, in place of one of that name."""
        with self._lock:
            self._drop(name)
            if value.nbytes > self.budget:
                return
            self._kept[name] = value
            self._nbytes += value.nbytes
            while self._nbytes > self.budget:
                self._drop(next(iter(self._kept)))

    def get(self, name: str) -> T | None:
        """The value, which is young again; None where it is not kept (any more)."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def _drop(self, name: str) -> None:
        gone = self._kept.pop(name, None)
        self._nbytes -= 0 if gone is None else gone.nbytes
