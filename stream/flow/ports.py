"""The contracts between the engine and what plugs into it: sources, sinks, and where facts are told.

These are protocols, so that a source or a sink depends on nothing but the shape of what it is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from .frame import Failure, Incoming, Key, Result, RunEnd, RunStart

log = logging.getLogger(__name__)


class Facts(Protocol):
    """Where a part of the pipeline tells what happened. The metrics turn facts into labels; nobody else does."""

    def event(self, kind: str, n: int = 1) -> None:
        """Count ``n`` of something worth knowing that is not the end of a frame.

        ``kind`` is a short fixed word: ``missing`` (a gap in the sequence numbers), ``restart``, ``joined_late``,
        ``no_end``, ``foreign`` (a message of a kind not meant for us), ``audit_full`` …
        """


class NoFacts:
    """Facts nobody listens to, for tools and tests."""

    def event(self, kind: str, n: int = 1) -> None:
        """Forget it."""


class Source(Protocol):
    """Bytes in, Raw out. The engine calls every method from one thread, the source's own.

    The engine calls ``open`` once, then ``read`` until it answers None or the daemon stops, then ``close`` once.
    """

    def open(self) -> None:
        """Connect or bind. Raises ``OSError`` with endpoint and remedy when that is impossible (exit code 1)."""

    def read(self, timeout: float) -> Sequence[Incoming] | None:
        """Wait up to ``timeout`` seconds for at least one message, then give all that has already come (bounded).

        Returns an empty list when nothing came, and None when nothing will ever come again. A message that cannot be
        used is a ``Failure``, a frame that must not be analysed (stale, duplicate) a ``Discard``: every frame that
        was read is in the answer exactly once. Never raises for what a sender sends.
        """

    def done(self, keys: Sequence[Key]) -> None:
        """Every sink has these frames. Called from the sinks' thread; a stream does nothing."""

    def close(self) -> None:
        """Release sockets and files. Called once, also after an error."""


class Sink(Protocol):
    """Where results go. The engine calls every method from one thread, the sinks' own."""

    def start(self, mark: RunStart) -> None:
        """A run begins; its results follow, and none of another run before its end."""

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Take results in order, and keep those with a weight above 0.

        Returns a ``Failure`` for each that should have been kept and could not be; ``lost`` tells of more, later.
        Never raises for a full disk or a failed file; an exception is a bug and ends the daemon with exit code 1.
        """

    def end(self, mark: RunEnd) -> None:
        """The run is over and all its results were written: close its file."""

    def flush(self) -> None:
        """Make everything written so far visible to readers. Called about every second."""

    def lost(self) -> Sequence[Failure]:
        """What ``write`` took since the last call of this and that no reader will ever find: its file failed.

        Called after each ``flush``, ``start``, ``end`` and ``close``. What was taken before it and is not in the answer
        is safe, and is counted as accepted or rejected only now.
        """

    def close(self) -> None:
        """The last call but ``lost``, also after an abort: leave only files that open."""


class Apart:
    """A sink that may fail without ending the daemon: what shows frames must never cost one.

    The first bug of ``sink`` is logged; from then on it hears nothing more. ``facts`` hear of it as ``page_bug``.
    """

    def __init__(self, sink: Sink, facts: Facts) -> None:
        self._sink: Sink | None = sink
        self._facts = facts

    def start(self, mark: RunStart) -> None:
        """See ``Sink``, as all that follows."""
        self._try(lambda sink: sink.start(mark))

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Keeps nothing, so that nothing can fail."""
        self._try(lambda sink: sink.write(results))
        return ()

    def end(self, mark: RunEnd) -> None:
        """The run is over."""
        self._try(lambda sink: sink.end(mark))

    def flush(self) -> None:
        """About every second."""
        self._try(lambda sink: sink.flush())

    def lost(self) -> Sequence[Failure]:
        """Nothing is lost."""
        return ()

    def close(self) -> None:
        """The last call."""
        self._try(lambda sink: sink.close())

    def _try(self, do: Callable[[Sink], object]) -> None:
        sink = self._sink
        if sink is None:
            return
        try:
            do(sink)
        except Exception:
            self._sink = None
            self._facts.event("page_bug")
            log.exception("a bug in what shows frames: the page stands still from here on, the analysis goes on")


class Listener:
    """A sink that hears of results and keeps nothing; what it does with them is its ``write``."""

    def start(self, mark: RunStart) -> None:
        """Nothing to begin."""

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """See ``Sink.write``."""
        raise NotImplementedError

    def end(self, mark: RunEnd) -> None:
        """Nothing to close."""

    def flush(self) -> None:
        """Nothing is held back."""

    def lost(self) -> Sequence[Failure]:
        """Nothing is lost."""
        return ()

    def close(self) -> None:
        """Nothing is open."""
