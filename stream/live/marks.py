"""What reviewers say of shown frames and picks: kept in a file, with their pixels, to estimate and to train from."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats.marks import FILE, Mark, mark_of, pixels_path
from .history import Lines

__all__ = ["Mark", "Marks"]

log = logging.getLogger(__name__)

MOST = 20_000
"""Marks that are held in memory, about a kilobyte each; of more, the oldest are left to the file alone."""
LARGEST_PIXELS = 1 << 24
DTYPES = (np.dtype(np.float32), np.dtype(np.uint16))


class Marks:
    """Marks in ``directory``: ``marks.jsonl`` (see ``Mark``), and pixels as ``marks/<id>.npy``. For any thread.

    What the file holds is read when this is made, so marks survive a restart. The last mark of an id counts. Of ids:
    they must name the same frame or pick also after a restart, or another one's mark would be replaced.

    Raises ``OSError`` where the file is there and cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lines = Lines(directory / FILE)
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, Mark] = OrderedDict()
        self._right = self._wrong = 0
        for line in self._lines.read():
            try:
                self._note(mark_of(line))
            except ValueError as error:
                log.warning("%s: mark %s: %s; left out", self._lines.path, line.get("id", "?"), error)

    @property
    def path(self) -> Path:
        """The file, for ``beamsieve train … --add``."""
        return self._lines.path

    def add(self, mark: Mark, pixels: npt.NDArray[Any] | None = None) -> None:
        """Keep a mark, and the pixels that it is of: (y, x), float32 or uint16, photons or the picked box.

        Both are on the disk when this returns. Raises ``ValueError`` for a mark or pixels that cannot be kept, and
        ``OSError`` (file, why, remedy) where the disk does not take them; then everything is as it was before.
        """
        line = mark.to_json()
        mark_of(line)
        if not math.isfinite(mark.time):
            raise ValueError(f"time: {mark.time} is not finite")
        with self._lock:
            # Pixels first: a mark without its pixels could never train, pixels without a mark do no harm.
            if pixels is not None and mark.truth is not None:
                _write(pixels_path(self.directory, mark.id), _checked(pixels))
            self._lines.append(line)
            self._note(mark)

    def latest(self) -> Mapping[str, Mark]:
        """The last mark of every id that was not withdrawn, the oldest first. A copy."""
        with self._lock:
            return dict(self._latest)

    def counts(self) -> tuple[int, int]:
        """How many verdicts are marked (right, wrong) now; see ``Mark.right``."""
        with self._lock:
            return self._right, self._wrong

    def _note(self, mark: Mark) -> None:
        self._count(self._latest.pop(mark.id, None), -1)
        if mark.truth is None:
            return
        self._latest[mark.id] = mark
        self._count(mark, 1)
        if len(self._latest) > MOST:
            self._count(self._latest.popitem(last=False)[1], -1)

    def _count(self, mark: Mark | None, by: int) -> None:
        if mark is None:
            return
        self._right += by if mark.right else 0
        self._wrong += 0 if mark.right else by


def _checked(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pixels.ndim != 2 or not 0 < pixels.size <= LARGEST_PIXELS:
        raise ValueError(f"pixels: have shape {pixels.shape}; give (y, x) of at most {LARGEST_PIXELS} pixels")
    if pixels.dtype not in DTYPES:
        raise ValueError(f"pixels: are {pixels.dtype}; give float32 or uint16")
    return pixels


def _write(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Write an array beside its name, then rename it. Raises ``OSError``, and leaves nothing behind then."""
    partial = path.with_suffix(".inprogress")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(pixels), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            log.warning("%s: left behind", partial)
        why = error.strerror or str(error)
        remedy = "free space on its disk, or make it writable, and mark again; this mark was not kept"
        raise OSError(error.errno, f"{path}: cannot be written: {why}; {remedy}") from None
