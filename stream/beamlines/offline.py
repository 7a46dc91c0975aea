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

from ..decode.micrographs import DecodeMicrographs, MicrographSettings
from ..decode.quality import QualitySettings
from ..flow.channel import WhenFull
from ..flow.frame import Failure, Result, RunEnd, RunStart
from ..flow.infer import Infer
from ..flow.metrics import MICROGRAPH_LATENCY_S, Metrics
from ..flow.pipeline import Pipeline
from ..flow.settings import ConfigError, Settings, Where
from ..flow.stages import Each
from ..flow.yields import Yields
from ..sinks.picks.micrograph import PickedMicrograph
from ..sinks.picks.settings import PickSettings
from ..sinks.picks.sink import PickSink
from ..sources.files import FileList
from .cryoem_picks import FlowSettings, attempt, load_picker
from .picking import PickerSettings, PickWork, as_picks

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


class Collect:
    """A sink that notes what each micrograph gave, and tells of progress."""

    def __init__(self, done: Done, told: Callable[[str], None]) -> None:
        self._done, self._told = done, told

    def start(self, mark: RunStart) -> None:
        """Nothing to begin."""

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Note the numbers."""
        for result in results:
            found = as_picks(result)
            self._done.table.append(row_of(found, result.found["seconds"]))
            self._told(found.name)
        return ()

    def end(self, mark: RunEnd) -> None:
        """Nothing to close."""

    def flush(self) -> None:
        """Nothing is held back."""

    def lost(self) -> Sequence[Failure]:
        """Nothing is lost."""
        return ()

    def close(self) -> None:
        """Nothing to close."""


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
    done, yields = Done(), Yields()
    metrics = Metrics("cryoem_picks", yields=yields, latency_s=MICROGRAPH_LATENCY_S)
    decode, work, model = parts(settings, where, metrics)
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

    def warm_up() -> None:
        sink.open()
        work.warm_up()

    metrics.on_failure = failed
    sink = PickSink(settings.files, metrics, base=where.base)
    base = Path(os.path.commonpath([path.resolve().parent for path in files]))
    pipeline = Pipeline(
        FileList([path.resolve() for path in files], base=base),
        [
            Each("decode", decode, workers=settings.flow.workers, burst=1),
            Infer("pick", work, size=1, wait_s=0.0),
        ],
        [sink, Collect(done, told)],
        metrics,
        queue=settings.flow.queue,
        queue_bytes=settings.flow.queue_mb * 10**6,
        when_full=WhenFull.WAIT,
        warm_up=warm_up,
    )
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
        "model": model,
        "threshold": work.in_force,
        "seconds_per_micrograph": dict(yields.seconds()),
        "directory": str(sink.directory),
    }
    return done


def parts(settings: PickFiles, where: Where, metrics: Metrics) -> tuple[DecodeMicrographs, PickWork, str]:
    """Decoder, picker and the model's name. Raises ``ConfigError`` with all that does not exist or fit."""
    mistakes: list[str] = []
    decode = attempt(mistakes, where, "decode", lambda: DecodeMicrographs(settings.decode, base=where.base))
    bundle = attempt(mistakes, where, "model", lambda: load_picker(settings.model, where.base))
    work = None
    if bundle is not None:
        found = bundle
        work = attempt(
            mistakes,
            where,
            "model",
            lambda: PickWork(
                settings.model, found, settings.quality, settings.files, metrics, where.base / settings.files.directory
            ),
        )
    if mistakes or decode is None or bundle is None or work is None:
        raise ConfigError(mistakes)
    return decode, work, bundle.card.name
