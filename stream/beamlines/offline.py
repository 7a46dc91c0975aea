"""The work of ``cryoem_picks`` on files named one by one: the same stages and sinks, without watching or a journal."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from ..decode.micrographs import MicrographSettings
from ..decode.quality import QualitySettings
from ..flow.frame import Failure, Result
from ..flow.ports import Listener
from ..flow.settings import Settings, Where
from ..sinks.picks.micrograph import PickedMicrograph
from ..sinks.picks.settings import PickSettings
from ..sources.files import FileList
from .cryoem_picks import FlowSettings, Picking
from .picking import PickerSettings, as_picks

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


class PickFiles(Settings):
    """Settings of picking files: those of ``cryoem_picks`` without source and service."""

    decode: MicrographSettings = Field(MicrographSettings(), description="from files to images in known pixels")
    quality: QualitySettings = Field(QualitySettings(), description="quality numbers, when to warn and when to skip")
    model: PickerSettings = Field(PickerSettings(), description="the network, and which maxima are picks")
    files: PickSettings = Field(description="where picks and particles go, and in which formats")
    flow: FlowSettings = Field(FlowSettings(), description="queues and threads")


@dataclass(slots=True)
class Done:
    """What was picked. ``table``: a mapping per micrograph, in order; where the picks are is in the files."""

    table: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


class Collect(Listener):
    """A sink that notes what each micrograph gave, and tells of progress."""

    def __init__(self, done: Done, told: Callable[[str], None]) -> None:
        self._done, self._told = done, told

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Note the numbers."""
        for result in results:
            found = as_picks(result)
            self._done.table.append(row_of(found, result.found["seconds"]))
            self._told(found.name)
        return ()


def row_of(found: PickedMicrograph, seconds: dict[str, float]) -> dict[str, Any]:
    """A micrograph in one row: what it gave, its quality, and the seconds of work."""
    return {
        "micrograph": found.name,
        "path": str(found.path),
        "picks": int(found.picked.sum()),
        "candidates": len(found.candidates),
        "threshold": found.threshold,
        "shape": list(found.shape),
        "pixel_a": found.pixel_a,
        "warnings": list(found.warnings),
        "skipped": list(found.skipped),
        **found.quality,
        "seconds": sum(seconds.values()),
        "seconds_by_stage": seconds,
    }


def pick_files(settings: PickFiles, files: Sequence[Path], where: Where, progress: Progress) -> Done:
    """Pick these files; ``progress(what, done, of)`` hears of each. Raises ``ConfigError`` before anything is read.

    A file that cannot be used is in ``failures`` with its reason, and loses nothing else.
    """
    done, picking = Done(), Picking.of(settings, where, [])
    counted = threading.Lock()
    seen = 0

    def told(name: str) -> None:
        nonlocal seen
        with counted:
            seen += 1
            progress(f"pick: {name}", seen, len(files))

    def failed(failure: Failure) -> None:
        log.error("%s: %s", failure.reason, failure.detail)
        done.failures.append({"reason": failure.reason, "detail": failure.detail})
        told(failure.reason)

    picking.metrics.on_failure = failed
    base = Path(os.path.commonpath([path.resolve().parent for path in files]))
    source = FileList([path.resolve() for path in files], base=base)
    pipeline = picking.pipeline(source, [Collect(done, told)])
    try:
        pipeline.run()
    except KeyboardInterrupt:
        pipeline.abort()
        pipeline.wait(10)
        raise
    done.summary = {
        "micrographs": done.table,
        "failures": done.failures,
        "particles": sum(row["picks"] for row in done.table),
        "model": picking.model,
        "threshold": picking.work.in_force,
        "seconds_per_micrograph": dict(picking.yields.seconds()),
        "directory": str(picking.sink.directory),
    }
    return done
