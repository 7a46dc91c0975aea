"""The first few messages that could not be used, kept with their reasons, to be looked at and replayed."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from ..flow.frame import Failure, Raw
from ..recording import Part, Writer

log = logging.getLogger(__name__)

WARNINGS = 3


class FailureLog:
    """Writes at most ``limit`` failures and ``max_mb`` · 10⁶ bytes to ``directory``, in any thread.

    ``failed-<time>.jsonl`` has a line per failure: key, reason, detail. ``failed-<time>.bsrec`` has the messages, for
    ``beamsieve replay`` or ``source.kind: replay``. Both begin with the first failure; without one there is no file. A
    disk that is full costs the log, not the daemon. The first ``WARNINGS`` of each reason are warned of.
    """

    def __init__(self, directory: Path, limit: int, max_mb: int = 200) -> None:
        self.paths: list[Path] = []
        self._directory = directory
        self._left = limit
        self._bytes_left = max_mb * 10**6
        self._writer: Writer | None = None
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()

    def __call__(self, failure: Failure) -> None:
        """Note one failure."""
        with self._lock:
            self._warn(failure)
            if self._left <= 0:
                return
            self._left -= 1
            try:
                self._note(failure)
            except OSError as error:
                log.warning("failures are not kept any more: %s: %s", self._directory, error.strerror)
                self._left = 0

    def close(self) -> None:
        """Close the recording."""
        with self._lock:
            self._left = 0
            if self._writer is not None:
                self._writer.close()

    def _warn(self, failure: Failure) -> None:
        seen = self._seen[failure.reason] = self._seen[failure.reason] + 1
        if seen <= WARNINGS:
            more = "; further ones are only counted" if seen == WARNINGS else ""
            log.warning("%s: %s%s", failure.reason, failure.detail, more)

    def _note(self, failure: Failure) -> None:
        if not self.paths:
            self._directory.mkdir(parents=True, exist_ok=True)
            stem = f"failed-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
            self.paths = [self._directory / f"{stem}.jsonl"]
        line = {"key": str(failure.key), "shots": failure.count, "reason": failure.reason, "detail": failure.detail}
        parts = message_of(failure)
        size = sum(memoryview(part).nbytes for part in parts)
        if parts and size <= self._bytes_left:
            if self._writer is None:
                path = self.paths[0].with_suffix(".bsrec")
                self._writer = Writer(path, {"what": "messages that could not be used"})
                self.paths.append(path)
            self._bytes_left -= size
            self._writer.write(parts, time.monotonic_ns(), time.time_ns())
            self._writer.flush()
            line["record"] = self._writer.messages - 1
        with self.paths[0].open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def message_of(failure: Failure) -> tuple[Part, ...]:
    """The message that failed, as it came, or nothing where it is not known."""
    raw = failure.raw.message if isinstance(failure.raw, Raw) else failure.raw
    return raw if isinstance(raw, tuple) else ()
