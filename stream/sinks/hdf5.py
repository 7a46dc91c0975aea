"""The sink that keeps frames: CXI files, rolled over by frames, bytes and runs, that survive a kill and a full disk."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..flow.frame import EMPTY, Failure, Result, RunEnd, RunStart
from ..flow.ports import Facts, NoFacts
from .cxi import About, Layout
from .cxi_disk import SUFFIX, free_name
from .cxi_master import write_master
from .cxi_part import Part, PartError
from .cxi_recover import leftovers
from .cxi_rows import CLASSES, class_count, identifier_room
from .hdf5_room import GIGA, Room, free_bytes
from .hdf5_settings import Hdf5Settings, safe_name

__all__ = ["Hdf5Settings", "Hdf5Sink", "free_bytes", "safe_name"]

log = logging.getLogger(__name__)

BLOCK_ROWS = 4096


class ChangeLog(Protocol):
    """What people changed on the daemon, as lines of JSON, the oldest first."""

    def texts(self, after: int = 0) -> Sequence[str]:
        """All but the first ``after``."""

    def standing_texts(self) -> Sequence[str]:
        """The last change of each thing."""


@dataclass(slots=True)
class _Run:
    name: str
    info: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    mask: npt.NDArray[np.uint32] | None = None
    parts: int = 0
    classes: int = CLASSES


class Hdf5Sink:
    """Keeps every result with a weight above 0. Implements ``Sink``; only one thread may use it.

    A file that fails is given up with what was flushed in it; ``write`` returns a ``Failure`` for each frame it could
    not keep (``disk_full`` or ``file``), and ``lost`` those that were taken since the last flush of that file.
    """

    def __init__(
        self,
        settings: Hdf5Settings,
        facts: Facts | None = None,
        *,
        config: str = "",
        base: Path = Path(),
        changes: ChangeLog | None = None,
        free: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Touch nothing yet. ``config``: text kept in every file. ``base``: where a relative directory is.

        ``changes``: what people change while it runs, kept in every file.
        """
        self.settings = settings
        self.files: list[Path] = []
        self._config = config
        self._directory = base / settings.directory
        self._facts: Facts = facts or NoFacts()
        self._room = Room(self._directory, settings.min_free_gb * GIGA, self._facts, free, clock)
        self._run: _Run | None = None
        self._part: Part | None = None
        self._closed_parts: list[Path] = []
        self._lost: list[Failure] = []
        self._changes = changes
        self._noted = 0

    def open(self) -> None:
        """Make the directory, and say in the log which files of a killed daemon lie in it.

        For the service, before it runs. Raises ``OSError`` naming the directory and the remedy if nothing can be
        written there.
        """
        _make(self._directory)
        for path in leftovers(self._directory):
            log.warning("%s: its writer was killed; finish it with: beamsieve recover %s", path, path)

    # Sink

    def start(self, mark: RunStart) -> None:
        """Close what is open; the file of the new run is made with its first frame worth keeping."""
        self._finish("superseded")
        self._run = _Run(mark.run, mark.info, _static_mask(mark))

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Keep those worth it, in order."""
        kept = [result for result in results if result.weight > 0.0]
        failures: list[Failure] = []
        at = 0
        while at < len(kept):
            part = self._part_for(kept[at])
            if part is None:
                failures.append(self._room.refuse(kept[at].frame.key))
                at += 1
                continue
            end = self._reach(part, kept, at)
            failures += self._append(part, kept[at:end])
            at = end
        return failures

    def end(self, mark: RunEnd) -> None:
        """Close the run's file, and write its master file if it has several."""
        if self._run is not None and self._run.name == mark.run:
            self._finish(mark.reason)

    def flush(self) -> None:
        """Show readers what was written, and look at the free space."""
        self._note_changes()
        self._flush_part()
        if self._room.is_short():
            self._close_part("disk_full")

    def close(self) -> None:
        """Close the file that is open."""
        self._finish("stopped")

    def lost(self) -> Sequence[Failure]:
        """Frames that ``write`` took and that will be in no file after all: their file failed before a flush."""
        lost, self._lost = self._lost, []
        return lost

    # What the service asks

    def healthy(self) -> str | None:
        """Why frames worth keeping are not kept at present; None if they are."""
        return self._room.why_not()

    @property
    def writing(self) -> Path | None:
        """The file being written, or None."""
        return None if self._part is None else self._part.path.with_name(self._part.path.name + SUFFIX)

    # Which file

    def _part_for(self, result: Result) -> Part | None:
        run = result.frame.key.run
        if self._run is None or self._run.name != run:
            self._finish("superseded")
            self._run = _Run(run)
        if self._part is not None:
            if self._fits(self._part.layout, result):
                return self._part
            self._close_part("rolled")
        return self._open(self._run, result)

    def _reach(self, part: Part, kept: Sequence[Result], at: int) -> int:
        """The end of the stretch of ``kept`` from ``at`` on that goes into this file."""
        run = self._run
        left = (self.settings.max_gb * GIGA - part.size) // max(1, kept[at].frame.data.nbytes)
        last = min(len(kept), at + self.settings.max_frames - part.count, at + max(1, int(left)))
        end = at + 1
        while end < last and run is not None and kept[end].frame.key.run == run.name:
            if not self._fits(part.layout, kept[end]):
                break
            end += 1
        return end

    def _fits(self, layout: Layout, result: Result) -> bool:
        data = result.frame.data
        same = data.shape == layout.shape and data.dtype == layout.dtype
        return same and class_count(result, layout.classes) == layout.classes

    def _open(self, run: _Run, result: Result) -> Part | None:
        if not self._room.may_open():
            return None
        layout, about = self._layout(run, result), self._about(run, result)
        try:
            path = self._path(run.parts + 1, run.name)
            self._part = Part(path, layout, about, swmr=self.settings.swmr)
        except PartError as error:
            self._room.failed(error)
            return None
        run.parts += 1
        self._room.opened()
        return self._part

    def _layout(self, run: _Run, result: Result) -> Layout:
        frame = result.frame
        run.classes = class_count(result, run.classes)
        return Layout(
            shape=frame.data.shape,
            dtype=frame.data.dtype,
            classes=run.classes,
            mask_per_frame=self.settings.masks == "per_frame",
            whole=frame.chunk is not None and frame.chunk.shape == frame.data.shape,
            identifier_bytes=identifier_room(frame.key),
            compressed=self.settings.compression == "bslz4",
        )

    def _about(self, run: _Run, result: Result) -> About:
        self._note_changes()
        shape = result.frame.data.shape
        if run.mask is not None and run.mask.shape != shape:
            log.warning("run %s: its mask is %s, its frames are %s; left out", run.name, run.mask.shape, shape)
            run.mask = None
        mask = result.frame.mask if run.mask is None and self.settings.masks == "static" else run.mask
        return About(
            run=run.name,
            started=result.frame.wall,
            info=run.info,
            mask=mask,
            instrument=self.settings.instrument,
            sample=self.settings.sample,
            configuration=self._config,
            changes=() if self._changes is None else self._changes.standing_texts(),
        )

    def _path(self, part: int, run: str) -> Path:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            return free_name(self._directory / self.settings.name.format(run=safe_name(run), part=part))
        except OSError as error:
            raise PartError(f"{self._directory}: cannot be made: {error.strerror}", full=False) from error

    # Writing and closing

    def _append(self, part: Part, results: Sequence[Result]) -> list[Failure]:
        try:
            part.append(results)
        except PartError as error:
            self._give_up(error)
            return [self._room.refuse(result.frame.key) for result in results]
        if part.count >= self.settings.max_frames or part.size >= self.settings.max_gb * GIGA:
            self._close_part("rolled")
        elif len(part.unflushed) >= BLOCK_ROWS:
            self._flush_part()
        return []

    def _flush_part(self) -> None:
        if self._part is not None:
            try:
                self._part.flush()
            except PartError as error:
                self._give_up(error)
            else:
                self._room.flushed()

    def _note_changes(self) -> None:
        new = [] if self._changes is None else self._changes.texts(self._noted)
        self._noted += len(new)
        if self._part is not None and new:
            try:
                self._part.note(new)
            except PartError as error:
                self._give_up(error)

    def _close_part(self, reason: str) -> None:
        self._note_changes()
        part = self._part
        if part is None:
            return
        try:
            path = part.close(reason, part.path)
        except PartError as error:
            self._give_up(error)
            return
        self._part = None
        self.files.append(path)
        self._closed_parts.append(path)
        self._facts.event("file_closed")

    def _finish(self, reason: str) -> None:
        """The run is over, for us."""
        self._close_part(reason)
        parts, self._closed_parts = self._closed_parts, []
        if len(parts) > 1 and self.settings.master and self._run is not None:
            path = free_name(self._directory / f"{safe_name(self._run.name)}_master.cxi")
            try:
                self.files.append(write_master(path, parts))
            except (OSError, RuntimeError, ValueError) as error:
                log.warning("%s: no master file: %s", path, error)
        self._run = None

    # When it cannot be done

    def _give_up(self, error: PartError) -> None:
        part, self._part = self._part, None
        if part is not None:
            self._lost += [Failure(key, "lost", f"{error.detail}; it was not flushed yet") for key in part.unflushed]
            log.error("%s; given up, %d frames since its last flush are lost", error.detail, len(part.unflushed))
            part.abandon()
        self._room.failed(error)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        writable = os.access(directory, os.W_OK | os.X_OK)
    except OSError as error:
        raise OSError(
            f"{directory}: cannot be made ({error.strerror}); set directory to a folder you may write to"
        ) from None
    if not writable:
        raise PermissionError(f"{directory}: may not be written; set directory to a folder you may write to")


def _static_mask(mark: RunStart) -> npt.NDArray[np.uint32] | None:
    """The mask of a whole run, if its source knew one: uint32 with CXI's bits, the shape of a frame."""
    mask = mark.info.get("mask")
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint32:
        log.warning("run %s: its mask is not an array of uint32 with CXI's bits; left out", mark.run)
        return None
    return mask
