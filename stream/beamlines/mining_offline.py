"""The work of ``cryoet_mining`` on files named one by one: the same stages and files, without watching or a journal."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from ..decode.tomograms import TomogramSettings
from ..flow.frame import Failure, Result
from ..flow.ports import Listener
from ..flow.settings import ConfigError, Settings, Where
from ..formats.tomogram_names import unique_name
from ..sinks.tomograms.marks import claimed
from ..sinks.tomograms.mined import LabelFiles, MinedTomogram
from ..sinks.tomograms.settings import TomogramFiles
from ..sources.files import FileList
from .cryoet_mining import FlowSettings, Mining
from .mining_rows import mean_error
from .mining_settings import ClusterSettings, MinerSettings, SegmentSettings
from .mining_store import SHEET
from .mining_views import members
from .mining_work import as_tomogram, dog_options

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
POLL_S = 0.2


class MineFiles(Settings):
    """Settings of mining files: those of ``cryoet_mining`` without source and service."""

    decode: TomogramSettings = Field(TomogramSettings(), description="the size of voxels, which way density goes")
    model: MinerSettings = Field(MinerSettings(), description="the network, and where sub-volumes are taken")
    clusters: ClusterSettings = Field(ClusterSettings(), description="sub-volumes that look alike")
    segment: SegmentSettings = Field(SegmentSettings(), description="a class for every voxel, once clusters are marked")
    files: TomogramFiles = Field(description="where sub-volumes, labels and coordinates go, and in which formats")
    flow: FlowSettings = Field(FlowSettings(), description="queues")


@dataclass(slots=True)
class Done:
    """What was mined. ``table``: a mapping per tomogram; ``there``: those that had been mined before."""

    table: list[dict[str, Any]] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False


class Collect(Listener):
    """A sink that notes what each tomogram gave."""

    def __init__(self, done: Done, told: Callable[[str], None]) -> None:
        self._done, self._told = done, told

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """Note the numbers."""
        for result in results:
            found = as_tomogram(result)
            if found is not None:
                self._done.table.append(table_row(found))
                self._told(found.name)
        return ()


def table_row(found: MinedTomogram) -> dict[str, Any]:
    """A tomogram in one row."""
    error = mean_error(found.picked.error)
    labels = found.segmentation
    return {
        "tomogram": found.name,
        "path": str(found.path),
        "shape": list(found.shape),
        "voxel_a": found.voxel_a,
        "subvolumes": len(found.picked),
        "classes": found.counts,
        "error": error if math.isfinite(error) else None,
        "seconds": sum(found.seconds.values()),
        "seconds_by_stage": dict(found.seconds),
        "flags": list(found.flags),
        "labels": str(labels.labels) if isinstance(labels, LabelFiles) else None,
        "fractions": dict(labels.fractions) if isinstance(labels, LabelFiles) else {},
    }


def mine_files(
    settings: MineFiles,
    files: Sequence[Path],
    where: Where,
    progress: Progress,
    *,
    stop: threading.Event,
    cluster: bool = True,
) -> Done:
    """Mine these files, then make clusters and the contact sheet; ``progress(what, done, of)`` hears of each.

    What was mined before with the same settings is left as it is. When ``stop`` is set, the tomogram in work is given
    up. Raises ``ConfigError`` before anything is read, ``OSError`` where the folder cannot be written. A file that
    cannot be used is in ``failures`` with its reason, and loses nothing else.
    """
    mining = Mining.of(settings, where, [])
    mining.work.restored(mining.store)
    if mining.work.marks.error:
        raise ConfigError([mining.work.marks.error])
    done = Done()
    todo, names = _todo(mining, settings, [path.resolve() for path in files], done)
    _run(mining, todo, names, done, progress, stop)
    if cluster and not done.stopped:
        _cluster(mining, progress, stop, done)
    done.summary = _summary(mining, done)
    return done


def _todo(mining: Mining, settings: MineFiles, files: Sequence[Path], done: Done) -> tuple[list[Path], dict[Path, str]]:
    """Files that are to be mined, and what they are called: as before, or as nothing else in the folder is."""
    records = mining.live.keeper.records
    records.scan()
    taken: dict[str, Path] = {}
    before: dict[Path, str] = {}
    good: set[Path] = set()
    for found, path in records.all():
        taken[found.name] = found.path
        before[found.path] = found.name
        if _is_same(mining, settings, found) and _is_newer(path, found.path):
            good.add(found.path)
    names: dict[Path, str] = {}
    for path in files:
        names[path] = before.get(path) or unique_name(path, taken)
        taken[names[path]] = path
    todo = [path for path in dict.fromkeys(files) if path not in good]
    done.there = [names[path] for path in dict.fromkeys(files) if path in good]
    return todo, names


def _is_same(mining: Mining, settings: MineFiles, found: MinedTomogram) -> bool:
    """Whether it was mined as it would be mined now."""
    codec, model, decode = mining.work.benches.now.codec, settings.model, settings.decode
    dog = dog_options(model, codec.voxel_a)
    options = {"smooth": dog.smooth, "sigma": dog.sigma, "ratio": dog.ratio, "distance": dog.distance}
    posed = codec.posed if model.posed is None else model.posed
    now = (codec.sha256, posed, dog.threshold, options, decode.bright, decode.flip)
    then = (found.network_sha256, found.posed, found.threshold, dict(found.options), found.bright, found.flip)
    return now == then and decode.voxel_a in (None, found.voxel_a)


def _is_newer(record: Path, tomogram: Path) -> bool:
    try:
        return record.stat().st_mtime_ns >= tomogram.stat().st_mtime_ns
    except OSError:
        return False


def _run(
    mining: Mining,
    files: Sequence[Path],
    names: dict[Path, str],
    done: Done,
    progress: Progress,
    stop: threading.Event,
) -> None:
    seen = 0
    counted = threading.Lock()

    def told(name: str) -> None:
        nonlocal seen
        with counted:
            seen += 1
            progress(f"mine: {name}", seen, len(files))

    def failed(failure: Failure) -> None:
        log.error("%s: %s", failure.reason, failure.detail)
        done.failures.append({"reason": failure.reason, "detail": failure.detail})
        told(failure.reason)

    if not files:
        return
    mining.metrics.on_failure = failed
    mining.work.telling.heard = lambda what, at, of: progress(f"in work: {what}", at, of)
    base = Path(os.path.commonpath([path.parent for path in files]))
    pipeline = mining.pipeline(FileList(files, "mine", base, names), [Collect(done, told)])
    pipeline.start()
    while not pipeline.wait(POLL_S):
        if stop.is_set() and not done.stopped:
            done.stopped = True
            pipeline.abort()
    pipeline.settle()
    if pipeline.error:
        raise pipeline.error


def _cluster(mining: Mining, progress: Progress, stop: threading.Event, done: Done) -> None:
    """Clusters, where they are due, the columns of all records, the contact sheet, the tables."""
    keeper = mining.live.keeper
    told = None

    def breathe() -> None:
        nonlocal told
        keeper.ending = keeper.ending or stop.is_set()
        if keeper.job is not None and keeper.job != told:
            told = what, at, of, text = keeper.job
            progress(f"{what}: {text}", at, of)

    keeper.breathe = breathe
    with claimed(mining.store.directory) as mine:
        if not mine:
            log.warning("another process makes the clusters of this folder; they are left to it")
            keeper.look()
            return
        keeper.trains = False
        keeper.begin()
        if done.table and keeper.benches.now.clusters is not None and keeper.why() is None:
            keeper.make_clusters("growth")
        while not stop.is_set() and keeper.step():
            pass
    done.stopped = stop.is_set()
    mining.sink.close()


def _summary(mining: Mining, done: Done) -> dict[str, Any]:
    keeper, bench = mining.live.keeper, mining.work.benches.now
    counts, _ = members(keeper.records.entries)
    marks = keeper.marks.groups.marks()
    numbers = [] if bench.clusters is None else bench.clusters.ids.tolist()
    clusters = [
        {"id": n, "count": counts[n], "group": marks.get(n, "")} for n in sorted(numbers, key=lambda n: -counts[n])
    ]
    sheet = mining.store.directory / SHEET
    return {
        "tomograms": done.table,
        "there": done.there,
        "failures": done.failures,
        "subvolumes": counts.total(),
        "clusters": clusters,
        "mode": "annotate" if keeper.marks.groups else "explore",
        "model": bench.codec.name,
        "sha256": bench.codec.sha256,
        "sheet": str(sheet) if sheet.exists() else None,
        "directory": str(mining.sink.directory),
        "hindered": sorted(keeper.errors.values()),
    }
