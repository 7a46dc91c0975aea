"""Threads for work that blocks, kept apart so that what is slow in one lane holds up nothing in another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Busy(Exception):
    """Too much waits already, or the server is going down; ask again later."""


class Lane:
    """A few threads that do one kind of work, and at most ``room`` requests that wait for it.

    The threads are daemons: a call that never returns must not keep the process from ending, as the threads of
    ``concurrent.futures`` would, which are joined at exit. With one thread, the work is done one piece at a time, in
    order.
    """

    def __init__(self, name: str, threads: int = 1, room: int = 64) -> None:
        self._name = name
        self._threads = threads
        self._room = room
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._asked: set[asyncio.Future[Any]] = set()
        self._closed = False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"page-{name}-{number}", daemon=True).start()

    async def do(self, call: Callable[[], T]) -> T:
        """What ``call`` returns or raises, called in one of the threads. Raises ``Busy``."""
        if self._closed:
            raise Busy("the daemon is going down")
        if len(self._asked) >= self._room:
            raise Busy(f"too many requests wait already ({self._name}); ask again in a moment")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._asked.add(answer)
        self._jobs.put((loop, answer, call))
        try:
            return await answer
        finally:
            self._asked.discard(answer)

    def close(self) -> None:
        """Refuse what waits, and let the threads end when they can. Called in the event loop."""
        self._closed = True
        for answer in list(self._asked):
            _settle(answer, None, Busy("the daemon is going down"))
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, answer, call = job
            if answer.done():
                continue
            result, error = None, None
            try:
                result = call()
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop may be closed by now, and then nobody waits
                loop.call_soon_threadsafe(_settle, answer, result, error)


def _settle(answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
