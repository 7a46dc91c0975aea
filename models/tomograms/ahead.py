"""Work done ahead in threads, handed out in order, never more of it than is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """``work(item)`` for every item, in their order, computed in ``threads`` threads.

    At most ``threads`` results more than were taken are in memory or in work (``Executor.map`` would start them all).
    An exception of ``work`` comes out at its item's turn, and what was not begun then is never begun.
    """
    if threads < 1:
        raise ValueError(f"threads: {threads}; at least 1 is needed")
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
