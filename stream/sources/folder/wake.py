"""Wake-ups: the operating system's word that something changed in a folder, so that we look sooner.

Never more than that: events get lost, and network file systems send none for what other hosts write. Looking every few
seconds is the truth, and all there is where events cannot be had.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from ...flow.ports import Facts

log = logging.getLogger(__name__)

# Reading a file raises events too ("opened", "closed without a write"): hearing those, we would wake ourselves.
_HEARD = frozenset({"created", "modified", "moved", "deleted", "closed"})


def _is_news(record: logging.LogRecord) -> bool:
    """False for the error that watchdog 7 logs when an event comes while it is being stopped, which is no error."""
    return "when the thread is inactive" not in record.getMessage()


logging.getLogger("watchdog.observers.inotify").addFilter(_is_news)


class Bell(Protocol):
    """What the source waits on between two looks; ``Wake`` is one."""

    def ring(self) -> None:
        """Something happened."""

    def wait(self, timeout: float) -> bool:
        """Wait for the bell; True where it rang."""

    def start(self, root: Path, recursive: bool, every_s: float) -> bool:
        """Listen for events; False where there are none to be had."""

    def stop(self) -> None:
        """Listen no more."""


class Wake(FileSystemEventHandler):
    """A bell that file events ring, and anybody else with ``ring``."""

    def __init__(self, facts: Facts, ours: Sequence[Path] = ()) -> None:
        self._facts = facts
        self._ours = tuple(os.path.abspath(path) for path in ours)
        self._bell = threading.Event()
        self._observer: Observer | None = None  # type: ignore[valid-type]  # chosen when it is imported

    def ring(self) -> None:
        """Something happened."""
        self._bell.set()

    def wait(self, timeout: float) -> bool:
        """Wait for the bell; True where it rang. It is silent again then."""
        rang = self._bell.wait(timeout)
        self._bell.clear()
        return rang

    def start(self, root: Path, recursive: bool, every_s: float) -> bool:
        """Listen for events below ``root``; False, said in the log and counted, where there are none to be had."""
        observer = Observer()
        try:
            observer.schedule(self, str(root), recursive=recursive)
            observer.start()
        except (OSError, RuntimeError) as error:
            self._facts.event("no_folder_events")
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            log.warning("%s: no file events (%s): looking every %g s is enough, only slower", root, why, every_s)
            return False
        self._observer = observer
        return True

    def stop(self) -> None:
        """Listen no more."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(timeout=5.0)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog, in its thread."""
        if event.event_type not in _HEARD:
            return
        paths = [os.path.abspath(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        if not all(map(self._is_ours, paths)):
            self._bell.set()

    def _is_ours(self, path: str) -> bool:
        """Whether the path is one we write ourselves, or below it; SQLite writes ``journal-wal`` beside ``journal``."""
        return any(path == ours or path.startswith((ours + os.sep, ours + "-")) for ours in self._ours)


class Heart:
    """Calls ``beat`` every ``every_s`` seconds in a thread of its own, until it is stopped.

    Not part of looking into the folder: a source that waits for room in a queue for an hour is still alive.
    """

    def __init__(self, beat: Callable[[], None], every_s: float) -> None:
        self._beat, self._every_s = beat, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; waits for a beat that has begun, unless it is the caller."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=30.0)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._beat()
