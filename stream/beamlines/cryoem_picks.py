"""cryoem_picks: how many good particles does this grid yield? From a watched folder to picks, particles and trends.

    folder ─▶ decode ─▶ pick (prepare ─▶ score ─▶ decide) ─▶ picks ─▶ classes (beside it, from what was written)

``folder`` gives files that are complete, ``decode`` makes images of them (movies summed, gain applied), ``pick`` judges
the quality, scores every place of the micrograph and takes the maxima, and the picks are written in the formats of
other programs, with all candidates and the particles in HDF5. A journal remembers what is done. What was written is
sorted into 2-D classes by a thread that gives way to all this.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field

from ...models.bundle import Bundle, BundleError, bundle_at, load_bundle
from ..decode.micrographs import DecodeMicrographs, MicrographSettings
from ..decode.quality import QualitySettings
from ..errors import plain
from ..flow.channel import WhenFull
from ..flow.classed import Classed
from ..flow.frame import BadData, Failure, Result
from ..flow.infer import Infer
from ..flow.life import ServiceSettings
from ..flow.metrics import MICROGRAPH_LATENCY_S, Metrics
from ..flow.pipeline import Pipeline
from ..flow.ports import Apart, Listener, Sink, Source
from ..flow.settings import ConfigError, Settings, Where
from ..flow.stages import Each
from ..flow.yields import Yields
from ..live.changes import Changes
from ..live.control import Control
from ..sinks.hdf5_room import room_in
from ..sinks.picks.settings import PickSettings
from ..sinks.picks.sink import PickSink
from ..sources.folder.settings import FolderSettings
from ..sources.folder.source import FolderSource
from .candidates import Candidates, marks_in
from .class_keeping import Keeping
from .class_marks import ClassMarks
from .class_networks import Networks
from .class_settings import ClassSettings, Loaded, is_on, load_denoiser, ready_denoiser
from .class_store import Store
from .class_tuning import Tuning
from .class_watch import ClassWatch
from .class_work import ClassWork
from .class_worker import LiveClasses
from .control_picks import PickLevers
from .page_picks import PicksPage
from .picking import PickerSettings, PickWork, as_picks

log = logging.getLogger(__name__)

T = TypeVar("T")
JOURNAL = "journal.sqlite"
# Failures that are the disk's, not the micrograph's: it is taken again when there is room.
NO_ROOM = frozenset({"disk_full", "file"})


class FlowSettings(Settings):
    """Queues and threads."""

    queue: int = Field(
        8, ge=1, description="micrographs each queue holds; when they are full, files wait in the folder"
    )
    queue_mb: int = Field(1024, ge=1, description="no queue holds more than about this (10^6 bytes)")
    workers: int = Field(1, ge=1, le=64, description="threads that read files and sum movies")


class WatchSettings(ServiceSettings):
    """How the daemon lives and dies, and where it says how it is."""

    silent_s: float = Field(
        1800, gt=0, description="not ready when the folder gave no micrograph for this long: has the session stopped?"
    )
    failure_limit: float = Field(
        0.1, ge=0, le=1, description="not ready when more than this share of the micrographs read lately failed"
    )
    failure_window_s: float = Field(1800, gt=0, description="how far back lately goes")
    failure_least: int = Field(10, ge=1, description="fewer micrographs than this within that time say nothing")
    grace_s: float = Field(
        60, gt=0, description="time to drain after SIGTERM; at three quarters of it the rest is left for the next start"
    )


class CryoemPicks(Settings):
    """Settings of the daemon ``cryoem_picks``."""

    beamline: Literal["cryoem_picks"] = Field(description="which daemon this file is for")
    source: FolderSettings = Field(description="the folder where micrographs arrive")
    decode: MicrographSettings = Field(MicrographSettings(), description="from files to images in known pixels")
    quality: QualitySettings = Field(QualitySettings(), description="quality numbers, when to warn and when to skip")
    model: PickerSettings = Field(PickerSettings(), description="the network, and which maxima are picks")
    files: PickSettings = Field(description="where picks and particles go, and in which formats")
    classes: ClassSettings = Field(ClassSettings(), description="2-D classes of the particles, while they are picked")
    flow: FlowSettings = Field(FlowSettings(), description="queues and threads")
    service: WatchSettings = Field(WatchSettings(), description="metrics, readiness, stopping")


@dataclass(frozen=True, slots=True)
class Daemon:
    """What ``build`` made: the pipeline, and the parts a summary asks."""

    pipeline: Pipeline
    source: FolderSource
    picks: PickSink
    yields: Yields
    model: str
    work: PickWork
    journal: Path
    page: PicksPage | None
    token: Path
    levers: PickLevers
    classes: LiveClasses | None

    @property
    def threshold(self) -> float:
        """The one in force: the configured one, or what it was moved to."""
        return self.work.in_force

    def healthy(self) -> str | None:
        """Why picks cannot be kept, or the folder not be read; None if both can."""
        return self.picks.healthy() or self.source.missing()

    def close(self) -> None:
        """Give back files that were taken and not finished, and close the journal, once the pipeline is over.

        Waits for the classes, a while: what was picked is classified as far as there is time, and all of it written.
        """
        self.levers.close()
        if self.classes is not None and self.classes.close() and self.pipeline.finished.is_set():
            # The tables were written before the last particles had their class.
            self.picks.close()
        self.source.finish()


def build(settings: CryoemPicks, where: Where, config: str = "") -> Daemon:
    """Put the daemon together. Raises ``ConfigError`` for what the settings name and does not exist or fit.

    Opens no socket and writes no file. ``config`` is the text of the configuration, kept beside the picks.
    """
    base = where.base
    source_settings = settings.source.at(base)
    mistakes = [where("source", *place) + why for place, why in source_settings.mistakes()]
    if os.path.abspath(base / settings.files.directory) == os.path.abspath(source_settings.directory):
        # Stacks of particles would be taken for micrographs.
        mistakes.append(where("files", "directory") + "is the watched folder; name another, or one below it")
    if settings.source.take == "tomograms":
        mistakes.append(where("source", "take") + "tomograms are for cryoet_mining; take micrographs or movies")
    denoiser = denoiser_of(settings, where, mistakes)
    picking = Picking.of(settings, where, mistakes, config)
    picks, metrics, operation = picking.sink, picking.metrics, picking.metrics.operation
    journal = source_settings.journal or picks.directory / JOURNAL

    def may_take() -> bool:
        return not operation.is_paused and picks.may_write()

    source = FolderSource(source_settings, metrics, journal=journal, outputs=[picks.directory], may_take=may_take)
    metrics.on_failure = tell(source)
    operation.free_bytes = lambda: room_in(picks.directory)
    changes = Changes(picks.directory, operation)
    candidates = Candidates("particles", picks.directory, settings.model.bundle, picking.bundle.path)
    levers = PickLevers(picking.work, candidates, picks, lambda title, now: pipeline.new_run(title, now=now), metrics)
    control = Control(levers, metrics, changes)
    classes = None if denoiser is None else live_classes(settings, picking, denoiser)
    page = _page(settings, where, picking, source, control, levers, classes, changes)
    listeners: list[Sink] = [Remember(source)] if page is None else [Remember(source), Apart(page.watch, metrics)]
    listeners += [] if classes is None else [Apart(ClassWatch(classes), metrics)]

    def then() -> None:
        if page is not None:
            page.open()
        if classes is not None:
            classes.open()
        control.restore()

    pipeline = picking.pipeline(source, listeners, then)
    token = settings.service.token_at(base, picks.directory)
    parts = (picking.yields, picking.model, picking.work, journal, page, token, levers, classes)
    return Daemon(pipeline, source, picks, *parts)


def denoiser_of(settings: CryoemPicks, where: Where, mistakes: list[str]) -> Loaded | None:
    """What denoises particles for their classes; None where none are made, or with what is wrong in ``mistakes``."""
    try:
        if not is_on(settings.classes, settings.files.particles.keep):
            return None
    except ValueError as error:
        mistakes.append(where("classes", "on") + str(error))
        return None
    chosen = settings.classes
    return attempt(mistakes, where, "classes", lambda: load_denoiser(chosen.bundle, chosen, where.base))


def live_classes(settings: CryoemPicks, picking: Picking, denoiser: Loaded) -> LiveClasses:
    """The classes of what ``picking`` writes; nothing is touched yet."""
    chosen, files, directory = settings.classes, settings.files, picking.sink.directory
    facts = picking.metrics.classed = Classed()
    tuning = None
    if chosen.finetune:
        tuning = Tuning(directory, at=chosen.finetune_at, most=chosen.finetune_most, device=chosen.device)
    networks = Networks(denoiser, lambda path: ready_denoiser(path, chosen), facts, tuning)
    store = Store(files, picking.sink.places)
    work = ClassWork(chosen, store, networks, ClassMarks(directory), facts)
    return LiveClasses(work, Keeping(work, every_s=files.tables_every_s))


def _page(
    settings: CryoemPicks,
    where: Where,
    picking: Picking,
    source: FolderSource,
    control: Control,
    levers: PickLevers,
    classes: LiveClasses | None,
    changes: Changes,
) -> PicksPage | None:
    if not settings.service.page:
        return None
    page = PicksPage(
        metrics=picking.metrics,
        controls=control,
        marks=marks_in(picking.sink.directory, where),
        sink_directory=picking.sink.directory,
        waiting=source.waiting_files,
        classes=classes,
        changes=changes,
    )
    levers.refreshed = page.refreshed
    return page


class Blocks(Protocol):
    """The blocks of settings that picking needs, whoever reads the files."""

    @property
    def decode(self) -> MicrographSettings:
        """From files to images."""

    @property
    def quality(self) -> QualitySettings:
        """Ranges of quality numbers."""

    @property
    def model(self) -> PickerSettings:
        """The network."""

    @property
    def files(self) -> PickSettings:
        """Where picks go."""

    @property
    def flow(self) -> FlowSettings:
        """Queues and threads."""


@dataclass(frozen=True, slots=True)
class Picking:
    """All between a source of files and the picks: what ``cryoem_picks`` and ``beamsieve pick`` share."""

    decode: DecodeMicrographs
    work: PickWork
    sink: PickSink
    metrics: Metrics
    yields: Yields
    flow: FlowSettings
    bundle: Bundle

    @property
    def model(self) -> str:
        """Name of the configured model."""
        return self.bundle.card.name

    @classmethod
    def of(cls, settings: Blocks, where: Where, mistakes: list[str], config: str = "") -> Picking:
        """The parts; raises ``ConfigError`` with ``mistakes`` and all that does not exist or fit."""
        base, yields = where.base, Yields()
        metrics = Metrics("cryoem_picks", yields=yields, latency_s=MICROGRAPH_LATENCY_S)
        sink = PickSink(settings.files, metrics, config=config, base=base)

        def picker(found: Bundle) -> PickWork:
            return PickWork(settings.model, found, settings.quality, settings.files, metrics, sink.directory)

        decode = attempt(mistakes, where, "decode", lambda: DecodeMicrographs(settings.decode, base=base))
        bundle = attempt(mistakes, where, "model", lambda: load_picker(settings.model, base))
        work = None if bundle is None else attempt(mistakes, where, "model", lambda: picker(bundle))
        if mistakes or decode is None or bundle is None or work is None:
            raise ConfigError(mistakes)
        return cls(decode, work, sink, metrics, yields, settings.flow, bundle)

    def pipeline(self, source: Source, listeners: Sequence[Sink], then: Callable[[], None] = lambda: None) -> Pipeline:
        """From ``source`` to the picks, which ``listeners`` hear of after they are written. ``then``: after warm-up."""

        def warm_up() -> None:
            self.sink.open()
            self.work.warm_up()
            then()

        return Pipeline(
            source,
            [
                Each("decode", self.decode, workers=self.flow.workers, burst=1),
                Infer("pick", self.work, size=1, wait_s=0.0),
            ],
            [self.sink, *listeners],
            self.metrics,
            queue=self.flow.queue,
            queue_bytes=self.flow.queue_mb * 10**6,
            when_full=WhenFull.WAIT,
            warm_up=warm_up,
        )


class Remember(Listener):
    """A sink that tells the journal what each micrograph gave, for ``beamsieve status``."""

    def __init__(self, source: FolderSource) -> None:
        self._source = source

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Note picks, candidates and seconds."""
        for result in results:
            found = as_picks(result)
            numbers: dict[str, Any] = {"picks": int(found.picked.sum()), "candidates": len(found.candidates)}
            if found.skipped:
                numbers["skipped"] = ", ".join(found.skipped)
            self._source.record(
                result.frame.key, {**numbers, "seconds": round(sum(result.found["seconds"].values()), 2)}
            )
        return ()


def tell(source: FolderSource) -> Callable[[Failure], None]:
    """What tells the log and the journal of a failure, wherever in the pipeline it happened."""

    def failed(failure: Failure) -> None:
        log.warning("%s: %s", failure.reason, failure.detail)
        if failure.reason in NO_ROOM:
            source.give_back(failure.key)
        else:
            source.failed(failure.key, failure.reason, failure.detail)

    return failed


def attempt(mistakes: list[str], where: Where, block: str, make: Callable[[], T]) -> T | None:
    """Call ``make``; what the settings are to blame for goes into ``mistakes`` with its place in the file."""
    try:
        return make()
    except BundleError as error:
        field = "device" if error.reason == "device" else "bundle"
        mistakes.append(where(block, field) + error.detail.removeprefix(f"{field}: "))
    except BadData as error:
        # Of what the settings name, only a gain reference is data.
        mistakes.append(where(block, "gain") + error.detail)
    except ValueError as error:
        mistakes.append(where(block) + str(error))
    except OSError as error:
        mistakes.append(where(block) + plain(error))
    return None


def load_picker(settings: PickerSettings, base: Path) -> Bundle:
    """The bundle that the settings name. Raises ``BundleError``."""
    bundle = load_bundle(bundle_at(settings.bundle, base))
    bundle.expect(task="particles", classes=1)
    return bundle
