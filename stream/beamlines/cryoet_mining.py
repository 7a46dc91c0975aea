"""cryoet_mining: what is in these tomograms? From a watched folder to sub-volumes, clusters, classes and labels.

    folder ─▶ decode ─▶ mine (pick ─▶ encode ─▶ assign ─▶ segment) ─▶ files ─▶ clusters, networks (beside it)

``folder`` gives tomograms that are complete, ``decode`` opens and judges them, ``mine`` picks sub-volumes without a
template, encodes them and says which cluster each is of; once clusters are marked it also says the class of each voxel.
A journal remembers what is done. From what was written, a thread that gives way to all this makes the clusters, follows
the marks, and has networks trained on the session's own sub-volumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from ...models.bundle import bundle_at
from ...models.tomograms.mine import MineOptions, Miner
from ..decode.tomograms import DecodeTomograms, TomogramSettings
from ..flow.channel import WhenFull
from ..flow.frame import Failure, Result
from ..flow.infer import Infer
from ..flow.life import ServiceSettings
from ..flow.metrics import TOMOGRAM_LATENCY_S, Metrics
from ..flow.mined import Mined
from ..flow.pipeline import Pipeline
from ..flow.ports import Apart, Listener, Sink, Source
from ..flow.settings import ConfigError, Settings, Where
from ..flow.stages import Each
from ..live.changes import Changes
from ..live.control import Control
from ..live.mining_view import Tomogram
from ..sinks.hdf5_room import room_in
from ..sinks.tomograms.labels import write_labels
from ..sinks.tomograms.mined import LabelFiles, MinedTomogram
from ..sinks.tomograms.settings import TomogramFiles
from ..sinks.tomograms.sink import TomogramSink
from ..sources.folder.settings import FolderSettings
from ..sources.folder.source import FolderSource
from .cryoem_picks import attempt, tell
from .mining_bench import Bench, Benches, configured_segmenter, load_codec
from .mining_control import MineLevers
from .mining_keeper import Keeper
from .mining_marks import Marks
from .mining_networks import Networks
from .mining_records import Records
from .mining_rows import row_of
from .mining_settings import ClusterSettings, MinerSettings, SegmentSettings
from .mining_store import Store
from .mining_work import MineWork, as_tomogram, dog_options
from .mining_worker import LiveMining, MiningWake
from .page_mining import MiningPage

JOURNAL = "journal.sqlite"
#: Tomograms taken from the folder and not finished: one in work, one that waits for it, one at the door.
CLAIMS = 3


class FlowSettings(Settings):
    """Queues. Tomograms are read where they are worked on: a queue holds open files, not voxels."""

    queue: int = Field(1, ge=1, le=16, description="tomograms each queue holds; others wait in the folder")


class WatchSettings(ServiceSettings):
    """How the daemon lives and dies, and where it says how it is."""

    silent_s: float = Field(
        14_400, gt=0, description="not ready when the folder gave no tomogram for this long: has the session stopped?"
    )
    failure_limit: float = Field(
        0.2, ge=0, le=1, description="not ready when more than this share of the tomograms read lately failed"
    )
    failure_window_s: float = Field(14_400, gt=0, description="how far back lately goes")
    failure_least: int = Field(5, ge=1, description="fewer tomograms than this within that time say nothing")
    grace_s: float = Field(
        60,
        gt=0,
        description="time to stop after SIGTERM; a tomogram that is not finished at three quarters of it is given back "
        "and mined at the next start",
    )


class CryoetMining(Settings):
    """Settings of the daemon ``cryoet_mining``."""

    beamline: Literal["cryoet_mining"] = Field(description="which daemon this file is for")
    source: FolderSettings = Field(description="the folder where tomograms arrive (take: tomograms)")
    decode: TomogramSettings = Field(TomogramSettings(), description="the size of voxels, which way density goes")
    model: MinerSettings = Field(MinerSettings(), description="the network, and where sub-volumes are taken")
    clusters: ClusterSettings = Field(ClusterSettings(), description="sub-volumes that look alike, in the background")
    segment: SegmentSettings = Field(SegmentSettings(), description="a class for every voxel, once clusters are marked")
    files: TomogramFiles = Field(description="where sub-volumes, labels and coordinates go, and in which formats")
    flow: FlowSettings = Field(FlowSettings(), description="queues")
    service: WatchSettings = Field(WatchSettings(), description="metrics, readiness, stopping")


@dataclass(frozen=True, slots=True)
class Daemon:
    """What ``build`` made: the pipeline, and the parts a summary asks."""

    pipeline: Pipeline
    source: FolderSource
    files: TomogramSink
    model: str
    work: MineWork
    live: LiveMining
    journal: Path
    page: MiningPage | None
    token: Path

    @property
    def directory(self) -> Path:
        """Where its files go."""
        return self.files.directory

    def healthy(self) -> str | None:
        """Why results cannot be kept, or the folder not be read; None if both can."""
        return self.files.healthy() or self.source.missing()

    def close(self) -> None:
        """Give back tomograms that were taken and not finished, and close the journal, once the pipeline is over."""
        self.live.close()
        if self.pipeline.finished.is_set():
            # Records may have other classes since the tables were written.
            self.files.close()
        self.source.finish()


def build(settings: CryoetMining, where: Where, config: str = "") -> Daemon:
    """Put the daemon together. Raises ``ConfigError`` for what the settings name and does not exist or fit.

    Opens no socket and writes no file. ``config`` is the text of the configuration, kept beside the results.
    """
    base = where.base
    source_settings = settings.source.at(base)
    source_settings = source_settings.model_copy(update={"claims": min(source_settings.claims, CLAIMS)})
    mistakes = [where("source", *place) + why for place, why in source_settings.mistakes()]
    if settings.source.take != "tomograms":
        mistakes.append(where("source", "take") + "this daemon takes tomograms; write take: tomograms")
    if os.path.abspath(base / settings.files.directory) == os.path.abspath(source_settings.directory):
        # Label volumes would be taken for tomograms.
        mistakes.append(where("files", "directory") + "is the watched folder; name another, or one below it")
    mining = Mining.of(settings, where, mistakes, config)
    files, metrics, operation = mining.sink, mining.metrics, mining.metrics.operation
    journal = source_settings.journal or files.directory / JOURNAL

    def may_take() -> bool:
        return not operation.is_paused and files.may_write()

    source = FolderSource(source_settings, metrics, journal=journal, outputs=[files.directory], may_take=may_take)
    metrics.on_failure = tell(source)
    operation.free_bytes = lambda: room_in(files.directory)
    changes = Changes(files.directory, operation)

    def new_run(title: str, now: bool) -> None:
        pipeline.new_run(title, now=now)

    control = Control(MineLevers(mining.work, new_run, str(files.directory)), metrics, changes)
    page = None
    if settings.service.page:
        page = mining.page(control, changes, source)
    listeners: list[Sink] = [Remember(source)] if page is None else [Remember(source), Apart(page.watch, metrics)]

    def then() -> None:
        mining.live.open()
        control.restore()

    pipeline = mining.pipeline(source, [*listeners, Apart(MiningWake(mining.live), metrics)], then)
    token = settings.service.token_at(base, files.directory)
    return Daemon(pipeline, source, files, mining.model, mining.work, mining.live, journal, page, token)


class Blocks(Protocol):
    """The blocks of settings that mining needs, whoever reads the files."""

    @property
    def decode(self) -> TomogramSettings:
        """From files to tomograms."""

    @property
    def model(self) -> MinerSettings:
        """The network."""

    @property
    def clusters(self) -> ClusterSettings:
        """Clusters."""

    @property
    def segment(self) -> SegmentSettings:
        """Segmentation."""

    @property
    def files(self) -> TomogramFiles:
        """Where results go."""

    @property
    def flow(self) -> FlowSettings:
        """Queues."""


@dataclass(frozen=True, slots=True)
class Mining:
    """All between a source of files and the results: what ``cryoet_mining`` and ``beamsieve mine`` share."""

    decode: DecodeTomograms
    work: MineWork
    sink: TomogramSink
    live: LiveMining
    store: Store
    metrics: Metrics
    flow: FlowSettings
    model: str

    @classmethod
    def of(cls, settings: Blocks, where: Where, mistakes: list[str], config: str = "") -> Mining:
        """The parts; raises ``ConfigError`` with ``mistakes`` and all that does not exist or fit."""
        base, facts = where.base, Mined()
        metrics = Metrics("cryoet_mining", latency_s=TOMOGRAM_LATENCY_S)
        metrics.mined = facts
        sink = TomogramSink(settings.files, metrics, config=config, base=base)
        bench = attempt(mistakes, where, "model", lambda: _bench(settings, base))
        if bench is not None and (settings.segment.bundle or settings.segment.starts_from):
            path = settings.segment
            a = bench.codec.voxel_a
            found = attempt(mistakes, where, "segment", lambda: configured_segmenter(path, settings.model, a, base))
            bench = Bench(bench.codec, segmenter=found)
        if mistakes or bench is None:
            raise ConfigError(mistakes)
        benches = Benches(bench, metrics)
        directory = sink.directory
        marks = Marks(directory, lambda: _known(benches))
        store = Store(directory, settings.model, bench)
        labels = _labels(settings.files, sink) if settings.files.labels else None
        work = MineWork(settings.model, settings.clusters, benches, marks, metrics, labels)
        segment = settings.segment
        if segment.starts_from:
            segment = segment.model_copy(update={"start": str(bundle_at(segment.start, base))})
        networks = Networks(store, settings.model, settings.clusters, segment, facts)
        records = Records(sink.places, settings.files)
        keeper = Keeper(settings.clusters, store, benches, marks, networks, records, facts)
        name = bench.codec.name
        decode = DecodeTomograms(settings.decode)
        return cls(decode, work, sink, LiveMining(keeper), store, metrics, settings.flow, name)

    def page(self, control: Control, changes: Changes, source: FolderSource) -> MiningPage:
        """The live page."""
        records = self.live.keeper.records

        def rows() -> Iterable[Tomogram]:
            return [entry.row for entry in records.entries]

        page = MiningPage(
            metrics=self.metrics,
            controls=control,
            levers=self.live,
            changes=changes,
            describe=self.row,
            waiting=source.waiting_files,
        )

        def changed() -> None:
            for row in rows():
                page.add(row)

        self.live.changed = changed
        return page

    def row(self, result: Result) -> Tomogram | None:
        """The page's row of a result."""
        found = as_tomogram(result)
        if found is None:
            return None
        path = self.sink.places.record(found.name)
        try:
            revision = path.stat().st_mtime_ns
        except OSError:
            revision = 0
        files = found.segmentation
        labels = files.labels if isinstance(files, LabelFiles) else None
        return row_of(found, when=result.frame.wall, revision=revision, record=path, labels=labels)

    def pipeline(self, source: Source, listeners: Sequence[Sink], then: Callable[[], None] = lambda: None) -> Pipeline:
        """From ``source`` to the files, which ``listeners`` hear of after they are written. ``then``: after warm-up."""

        def warm_up() -> None:
            self.sink.open()
            self.work.restored(self.store)
            self.work.warm_up()
            then()

        pipeline = Pipeline(
            source,
            [Each("decode", self.decode, burst=1), Infer("mine", self.work, size=1, wait_s=0.0)],
            [self.sink, *listeners],
            self.metrics,
            queue=self.flow.queue,
            when_full=WhenFull.WAIT,
            warm_up=warm_up,
        )
        self.work.stopping, self.work.over = lambda: pipeline.stopping, pipeline.aborted
        return pipeline


def _bench(settings: Blocks, base: Path) -> Bench:
    """The configured network. Raises ``BundleError``, ``ValueError`` for options that cannot be."""
    codec = load_codec(settings.model, settings.model.bundle, base)
    Miner(codec, MineOptions(dog=dog_options(settings.model, codec.voxel_a)))
    return Bench(codec)


def _known(benches: Benches) -> set[int]:
    clusters = benches.now.clusters
    return set() if clusters is None else set(clusters.ids.tolist())


def _labels(settings: TomogramFiles, sink: TomogramSink) -> Callable[[MinedTomogram, Any], LabelFiles]:
    def write(found: MinedTomogram, slabs: Any) -> LabelFiles:
        stem = sink.stem(found.name)
        return write_labels(found, slabs, sink.places, stem, probabilities=settings.probabilities)

    return write


class Remember(Listener):
    """A sink that tells the journal what each tomogram gave, for ``beamsieve status``."""

    def __init__(self, source: FolderSource) -> None:
        self._source = source

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Note sub-volumes, classes and seconds."""
        for result in results:
            found = as_tomogram(result)
            if found is not None:
                numbers: dict[str, Any] = {"subvolumes": len(found.picked), **found.counts}
                self._source.record(
                    result.frame.key, {**numbers, "seconds": round(sum(result.found["seconds"].values()), 1)}
                )
        return ()
