"""A threshold that was moved while a session runs: ``threshold.json`` in its folder, written by ``rethreshold``.

It holds for micrographs that the same model picks at the threshold the daemon was configured with. A daemon that is
started with another one goes by its configuration again.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_whole
from .micrograph import PickedMicrograph

log = logging.getLogger(__name__)

NAME = "threshold.json"
Band = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Moved:
    """From ``configured`` to ``threshold``, for one model. ``sd_range``: None leaves the band as it is."""

    model_sha256: str
    configured: float
    threshold: float
    sd_range: Band | None
    when: str


def picked_again(found: PickedMicrograph, threshold: float, sd_range: Band) -> PickedMicrograph:
    """The micrograph with the picks of another threshold. One that was skipped has none. Particles are left out."""
    picked = found.candidates.picked(threshold, sd_range)
    if found.skipped:
        picked = np.zeros_like(picked)
    return replace(found, threshold=threshold, sd_range=sd_range, picked=picked, particles=None)


def move_of(moved: Sequence[Moved], model_sha256: str, configured: float) -> Moved | None:
    """The move that holds for what this model picks at this configured threshold, or None."""
    mine = (m for m in moved if m.model_sha256 == model_sha256 and math.isclose(m.configured, configured))
    return next(mine, None)


def write_moved(directory: Path, moved: Sequence[Moved]) -> None:
    """Say it to the daemons that write into ``directory``. Raises ``OSError``."""
    entries = [
        {
            "model_sha256": m.model_sha256,
            "configured": m.configured,
            "threshold": m.threshold,
            "sd_range": None if m.sd_range is None else [v if math.isfinite(v) else None for v in m.sd_range],
            "when": m.when,
        }
        for m in moved
    ]
    write_whole(directory / NAME, (json.dumps(entries, indent=1) + "\n").encode())


def read_moved(directory: Path) -> list[Moved]:
    """What was moved; nothing where no such file is. Raises ``OSError``, and ``ValueError`` for a damaged file."""
    path = directory / NAME
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [_moved(entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and move the threshold again") from None


def _moved(entry: dict[str, Any]) -> Moved:
    band = entry["sd_range"]
    low, high = (None, None) if band is None else band
    return Moved(
        str(entry["model_sha256"]),
        float(entry["configured"]),
        float(entry["threshold"]),
        None if band is None else (0.0 if low is None else float(low), math.inf if high is None else float(high)),
        str(entry["when"]),
    )


class Followed:
    """What the folder's ``threshold.json`` says, read again when it changes. For one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamp: tuple[int, int] | None = None
        self._moved: list[Moved] = []

    def of(self, found: PickedMicrograph) -> Moved | None:
        """The move that holds for this micrograph, or None."""
        self._look()
        configured = found.threshold if found.configured is None else found.configured
        return move_of(self._moved, found.model_sha256, configured)

    def _look(self) -> None:
        try:
            stat = (self._directory / NAME).stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
        except OSError:
            self._stamp, self._moved = None, []
            return
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._moved = read_moved(self._directory)
            except (OSError, ValueError) as error:
                log.warning("%s; the configured threshold holds", error)
                self._moved = []
            for m in self._moved:
                log.info("threshold %g, moved from %g at %s", m.threshold, m.configured, m.when)
