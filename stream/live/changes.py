"""The log of what people changed on a running daemon: kept as lines of JSON, and what a restart goes by."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..flow.operation import LOG_OF_CHANGES, Operation
from .history import Lines
from .page import JSON, Refused

log = logging.getLogger(__name__)

SHOWN = 20


class Changes:
    """Every change with time (Unix seconds), name, old and new value. Every method may be called from any thread.

    ``configured``, kept with a change, is what the configuration said then of the same thing: the change stands after a
    restart as long as the configuration still says so. Who edits the configuration means what they write.
    """

    def __init__(self, directory: Path, operation: Operation, wall: Callable[[], float] = time.time) -> None:
        self._lines = Lines(directory / LOG_OF_CHANGES)
        self._operation = operation
        self._wall = wall
        self._lock = threading.Lock()
        self._known: list[JSON] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._lines.path

    def note(self, what: str, by: str, old: Any, new: Any, configured: Any = None) -> None:
        """Write a change down. Raises ``Refused`` where it cannot be: then it must not be made either."""
        change = {"time": self._wall(), "by": by, "what": what, "old": old, "new": new, "configured": configured}
        with self._lock:
            try:
                known = self._read()
                self._lines.append(change)
            except OSError as error:
                raise Refused(f"nothing was changed: {error.strerror or error}") from None
            known.append(change)
        self._operation.changed(what)
        log.warning("%s changed by %s: from %s to %s", what, by, json.dumps(old), json.dumps(new))

    def standing(self, what: str, configured: Any = None, *, ended_by: str = "") -> JSON | None:
        """The last change of ``what``, if the configuration still says ``configured`` of it; None otherwise.

        None as well where ``ended_by`` was changed later.
        """
        with self._lock:
            last = next((change for change in reversed(self._read()) if change.get("what") in (what, ended_by)), None)
        if last is None or last.get("what") != what:
            return None
        return last if last.get("configured") == configured else None

    def recent(self) -> list[JSON]:
        """The last few, the newest last, without what only a restart asks for."""
        with self._lock:
            return [_short(change) for change in self._read()[-SHOWN:]]

    def texts(self, after: int = 0) -> list[str]:
        """All changes but the first ``after``, each as one line of JSON, for the files that they concern."""
        with self._lock:
            return [json.dumps(_short(change), ensure_ascii=False) for change in self._read()[after:]]

    def standing_texts(self) -> list[str]:
        """The last change of each thing, the oldest first, likewise: what holds when a file is begun."""
        last: dict[str, JSON] = {}
        with self._lock:
            for change in self._read():
                last.pop(str(change.get("what")), None)
                last[str(change.get("what"))] = change
        return [json.dumps(_short(change), ensure_ascii=False) for change in last.values()]

    def _read(self) -> list[JSON]:
        # Not before somebody asks: a daemon that is only built writes and reads nothing.
        if self._known is None:
            self._known = self._lines.read()
        return self._known


def _short(change: JSON) -> JSON:
    return {name: change.get(name) for name in ("time", "by", "what", "old", "new")}
