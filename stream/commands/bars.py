"""Progress bars of long commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]


@contextmanager
def bars() -> Iterator[Progress | None]:
    """Progress bars on a terminal; ``None``, for plain lines, elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, of: int) -> None:
            # What stands before the colon names the work, what follows changes with each step.
            name = what.partition(":")[0]
            if name not in tasks:
                tasks[name] = shown.add_task(what, total=of)
            shown.update(tasks[name], completed=done, description=what)

        yield show
