"""A file of JSON lines that is only ever added to: the log of changes, and the marks of reviewers."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..formats.lines import read_lines

log = logging.getLogger(__name__)


class Lines:
    """JSON objects, one per line, UTF-8. May be used from any thread, and by several processes at once.

    A line is one write at the end of the file (``O_APPEND``) under a lock on it (``flock``), followed by ``fsync``:
    what ``append`` has returned from is on the disk. A kill in the middle leaves a line cut short; it is ended before
    the next one is written, and ``read`` leaves it out. ``mended`` counts the lines that this object had to end so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mended = 0
        self._lock = threading.Lock()
        self._told: set[int] = set()

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line; the file (mode 0644) and its folder are made where they are missing.

        Raises ``ValueError`` for what JSON cannot hold (NaN, arrays), ``OSError`` (file, why, remedy) where it cannot
        be written; then the file holds nothing of it.
        """
        try:
            text = json.dumps(dict(line), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: a line that JSON cannot hold: {error}") from None
        with self._lock:
            try:
                self._write(text)
            except OSError as error:
                why = error.strerror or str(error)
                remedy = "free space on its disk, or make it writable, and try again; nothing of this line was kept"
                raise OSError(error.errno, f"{self.path}: cannot be added to: {why}; {remedy}") from None

    def _write(self, text: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            if size == 0:
                # The umask of a service may hide from others what they are to read.
                os.fchmod(handle, 0o644)
            cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            # One write also where a cut line is ended first: two would let a reader see the newline alone.
            _whole(handle, b"\n" + text if cut else text, size)
            self.mended += cut
        finally:
            os.close(handle)

    def read(self) -> list[dict[str, Any]]:
        """All lines, oldest first; empty where there is no file. Damaged lines are left out, with one warning each.

        Raises ``OSError`` for a file that is there and cannot be read.
        """
        try:
            found, damaged = read_lines(self.path)
        except FileNotFoundError:
            return []
        with self._lock:
            new = [number for number in damaged if number not in self._told]
            self._told.update(new)
        for number in new:
            log.warning("%s:%d: not a line of JSON (cut short by a kill or a full disk?); left out", self.path, number)
        return [line for _, line in found]


def _whole(handle: int, text: bytes, size: int) -> None:
    """Write all of it behind the ``size`` bytes that are there, or nothing."""
    try:
        done = os.write(handle, text)
        if done != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise
