"""What commands that send or record have in common: stop on a signal, show one line of progress, explain errors."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console
from rich.status import Status

from ..errors import plain
from ..flow.frame import BadData

_EVERY_S = 0.2
_PATIENCE_S = 2.0


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that Ctrl-C ends a command cleanly; a second Ctrl-C ends it at once."""
    stop = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = [(number, signal.signal(number, handle)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stop
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class ProgressLine:
    """One line on the terminal, at most five times a second; silent where standard error is no terminal, or quiet."""

    def __init__(self, quiet: bool) -> None:
        console = Console(stderr=True)
        self._quiet = quiet
        self._status: Status | None = console.status("") if console.is_terminal and not quiet else None
        self._shown = 0.0

    def __enter__(self) -> ProgressLine:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """Print a line of its own, also where standard error is no terminal; nothing when quiet."""
        if self._status is not None:
            self._status.console.print(text, highlight=False, markup=False)
        elif not self._quiet:
            typer.echo(text, err=True)

    def show(self, text: Callable[[], str]) -> None:
        """Show ``text()``, unless something was shown just now."""
        now = time.monotonic()
        if self._status is not None and now - self._shown >= _EVERY_S:
            self._shown = now
            self._status.update(text())


def patience(line: ProgressLine, endpoint: Callable[[], str], taken: Callable[[], bool]) -> threading.Timer:
    """A timer that, once started, says where a sender waits if by then nobody has taken anything."""

    def look() -> None:
        if not taken():
            line.say(f"waiting for a receiver at {endpoint()} (Ctrl-C ends it)")

    timer = threading.Timer(_PATIENCE_S, look)
    timer.daemon = True
    return timer


@contextmanager
def explained() -> Iterator[None]:
    """Errors as one line: 2 for an option or file that cannot be used, 1 for what the machine would not do."""
    try:
        yield
    except (BadData, ValueError, FileNotFoundError, FileExistsError, IsADirectoryError) as error:
        typer.echo(f"error: {plain(error)}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: {plain(error)}", err=True)
        raise typer.Exit(1) from None
    finally:
        sys.stdout.flush()
