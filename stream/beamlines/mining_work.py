"""What the stage ``mine`` of ``cryoet_mining`` does with a tomogram: pick, encode, assign, and segment where it can.

All of it is done by the thread that owns the device, because each step is long and uses all of it. A tomogram is
minutes of work: one that is not begun when the daemon is stopped is given back, one that is in work is finished if
there is time, and given up at an abort. ``beamsieve mine`` does the same without a daemon around it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...models.tomograms.dog import DogOptions
from ...models.tomograms.groups import Groups
from ...models.tomograms.mine import Mined, MineOptions, Miner
from ...models.tomograms.segment import Segmenter
from ...models.tomograms.statistics import Statistics
from ...models.tomograms.told import Stopped
from ..flow.frame import BadData, Discard, Failure, Frame, Outcome, Result
from ..flow.infer import Judged
from ..flow.metrics import Metrics
from ..flow.mined import MinedTomogram as Fact
from ..sinks.picks.files import part_error
from ..sinks.tomograms.mined import UNMARKED, Kept, LabelFiles, MinedTomogram, Picked
from .mining_bench import Bench, Benches
from .mining_marks import Marks
from .mining_rows import mean_error
from .mining_settings import ClusterSettings, MinerSettings
from .mining_store import Store

log = logging.getLogger(__name__)

FOUND = "tomogram"
TELL_S = 30.0
#: Writes the label volumes of a tomogram from slabs: (what is known of it, its slabs) to its files.
Labels = Callable[[MinedTomogram, Any], LabelFiles]


@dataclass(frozen=True, slots=True, eq=False)
class Worked:
    """A tomogram that was mined, with the bench and the marks it was mined with."""

    mined: Mined
    bench: Bench
    groups: Groups
    found: MinedTomogram


class Telling:
    """How far the tomogram in work is: for the live line and the page, and in the log now and then. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now: tuple[str, int, int] | None = None
        #: Called with all of it, where somebody wants to hear it.
        self.heard: Callable[[str, int, int], None] = lambda *_: None
        self._clock, self._next = clock, 0.0

    def begin(self) -> None:
        """A tomogram is begun; a short one is over before anything is told."""
        self._next = self._clock() + TELL_S

    def end(self) -> None:
        """It is over."""
        self.now = None

    def of(self, name: str) -> Callable[[str, int, int], None]:
        """Progress of the tomogram called ``name``."""

        def told(what: str, done: int, of: int) -> None:
            self.now = f"{name}: {what}", done, of
            self.heard(*self.now)
            if self._clock() >= self._next:
                self._next = self._clock() + TELL_S
                log.info("%s: %s %d of %d", name, what, done, of)

        return told


class MineWork:
    """The miner behind the engine's seam. ``labels``: what writes label volumes, None where none are wanted.

    ``stopping``: whether nothing more is to be begun; ``over``: set when what is in work is given up.
    """

    def __init__(
        self,
        settings: MinerSettings,
        clusters: ClusterSettings,
        benches: Benches,
        marks: Marks,
        metrics: Metrics,
        labels: Labels | None = None,
    ) -> None:
        self.settings, self.benches, self.marks = settings, benches, marks
        self.stopping: Callable[[], bool] = lambda: False
        self.over = threading.Event()
        self.telling = Telling()
        self._clusters, self._metrics, self._labels = clusters, metrics, labels
        self._miner: Miner | None = None

    @property
    def working(self) -> Callable[[], tuple[str, int, int] | None]:
        """Asks for (what, done, of) of the tomogram in work."""
        return lambda: self.telling.now

    def restored(self, store: Store) -> None:
        """Take up the marks, the clusters and the networks that are in the folder. Raises ``OSError``."""
        self.marks.look()
        found = store.bench(self.marks.groups)
        self.benches.put(**{name: getattr(found, name) for name in Bench.__slots__})

    def warm_up(self) -> None:
        """Run the networks once, and say which they are."""
        bench = self.benches.now
        log.info("%s", bench.codec.warm_up())
        if bench.segmenter is not None:
            log.info("%s", bench.segmenter.warm_up())
        self.benches.tell()

    # Infer's seam

    def prepare(self, frames: Sequence[Frame]) -> list[Frame]:
        """Nothing: a tomogram is read where it is worked on."""
        return list(frames)

    def run(self, batch: list[Frame]) -> list[Worked | Failure | Discard]:
        """Mine and segment."""
        return [self._run(frame) for frame in batch]

    def decide(self, frames: Sequence[Frame], scores: list[Worked | Failure | Discard]) -> Sequence[Judged]:
        """Results, and what became of tomograms that have none."""
        return [self._decide(frame, found) for frame, found in zip(frames, scores, strict=True)]

    # Inside

    def _run(self, frame: Frame) -> Worked | Failure | Discard:
        volume, name = frame.info["volume"], str(frame.info["name"])
        if self.stopping():
            volume.close()
            return Discard(frame.key, "stopped")
        self.telling.begin()
        try:
            return self._mine(frame, self.telling.of(name))
        except Stopped:
            log.warning("%s: given back in the middle of the work: the daemon ends", name)
            return Discard(frame.key, "stopped")
        except BadData as bad:
            return Failure(frame.key, bad.reason, bad.detail, raw=frame)
        finally:
            self.telling.end()
            volume.close()

    def _mine(self, frame: Frame, progress: Callable[[str, int, int], None]) -> Worked:
        bench, groups = self.benches.now, self.marks.groups
        volume, bright = frame.info["volume"], bool(frame.info.get("bright", False))
        miner = self._miner_of(bench)
        try:
            mined = miner.mine(volume, bright=bright, progress=progress, stop=self.over.is_set)
        except ValueError as error:
            raise BadData("volume", f"{frame.info['path']}: {error}") from error
        found = self._found(frame, miner, mined, bench, groups)
        segmenter = bench.segments(groups)
        if segmenter is not None and self._labels is not None:
            found = self._segmented(found, mined, segmenter, progress)
        # What was mined must be what lies there: it would never be looked at again.
        volume.check_same()
        for note in mined.working.statistics.notes:
            log.warning("%s: %s", frame.info["path"], note)
        return Worked(mined, bench, groups, found)

    def _found(self, frame: Frame, miner: Miner, mined: Mined, bench: Bench, groups: Groups) -> MinedTomogram:
        info, clusters = frame.info, bench.assigns
        began = time.perf_counter()
        cluster = np.zeros(len(mined), np.int32) if clusters is None else clusters.assign(mined.codes)[0]
        label = groups.values(cluster)
        assigned = time.perf_counter()
        rows = self._rows_kept(label, str(info["name"]))
        kept = Kept(rows, miner.boxes_of(mined, rows).astype(np.float16)) if len(rows) else None
        picked = Picked.of(
            mined.xyz,
            mined.score,
            mined.codes,
            error=mined.error,
            cluster=cluster,
            label=label,
            rotation=mined.rotation,
            shift=mined.shift,
        )
        seconds = {
            "read": float(info.get("read_s", 0.0)),
            **mined.seconds,
            "assign": assigned - began,
            "keep": time.perf_counter() - assigned,
        }
        dog = miner.options.dog
        return MinedTomogram(
            name=str(info["name"]),
            path=Path(str(info["path"])),
            shape=info["volume"].shape,
            voxel_a=float(info["volume"].voxel_a),
            working_voxel_a=mined.working.voxel_a,
            picked=picked,
            network=bench.codec.name,
            network_sha256=bench.codec.sha256,
            threshold=dog.threshold,
            edge=mined.edge,
            posed=mined.posed,
            bright=bool(info.get("bright", False)),
            flip=str(info.get("flip", "none")),
            hand=str(info.get("hand", "not stated by the file, and not determined")),
            mode="annotate" if groups else "explore",
            clusters_version=0 if clusters is None else clusters.version,
            classes=groups.names,
            colours=tuple(group.colour for group in groups.groups),
            kept=kept,
            slices=info.get("slices"),
            options={"smooth": dog.smooth, "sigma": dog.sigma, "ratio": dog.ratio, "distance": dog.distance},
            seconds=seconds,
            flags=(*info.get("flags", ()), *_noted(mined.working.statistics)),
            revision=int(info.get("revision", 0)),
            origin_a=info["volume"].info.origin_a,
        )

    def _segmented(
        self, found: MinedTomogram, mined: Mined, segmenter: Segmenter, progress: Callable[[str, int, int], None]
    ) -> MinedTomogram:
        assert self._labels is not None
        began = time.perf_counter()
        slabs = segmenter.segment(mined.working, progress=progress, stop=self.over.is_set)
        # A configured segmentation has classes of its own, whatever is marked.
        said = replace(found, classes=tuple(segmenter.classes[1:]))
        try:
            files = self._labels(said, slabs)
        except OSError as error:
            detail = part_error(error)
            raise BadData("disk_full" if detail.full else "file", detail.detail) from error
        except ValueError as error:
            raise BadData("segment", f"{found.path}: {error}") from error
        seconds = {**found.seconds, "segment": time.perf_counter() - began}
        return replace(found, segmentation=files, seconds=seconds)

    def _rows_kept(self, label: Any, name: str) -> Any:
        """Which sub-volumes are kept: at random, those of a class before the others."""
        seed = np.frombuffer(name.encode()[-32:].ljust(4, b"."), np.uint8)
        order = np.random.default_rng(seed).permutation(len(label))
        first = order[np.argsort(label[order] == 0, kind="stable")]
        return np.sort(first[: self._clusters.keep_per_tomogram]).astype(np.int32)

    def _miner_of(self, bench: Bench) -> Miner:
        if self._miner is None or self._miner.codec is not bench.codec:
            s = self.settings
            options = MineOptions(dog=dog_options(s, bench.codec.voxel_a), posed=s.posed)
            self._miner = Miner(bench.codec, options, threads=bench.codec.threads)
        return self._miner

    def _decide(self, frame: Frame, worked: Worked | Failure | Discard) -> Judged:
        if not isinstance(worked, Worked):
            return worked
        found = worked.found
        classes = {"" if name == UNMARKED else name: n for name, n in found.counts.items()}
        voxels = found.segmentation.fractions if isinstance(found.segmentation, LabelFiles) else {}
        error = mean_error(found.picked.error)
        if self._metrics.mined is not None:
            self._metrics.mined.add(Fact(classes, error, found.seconds, found.network_sha256, voxels))
        seconds = dict(found.seconds)
        return Result(
            frame, Outcome.ACCEPTED, float(len(found.picked)), "miner", 1.0, {FOUND: found, "seconds": seconds}
        )


def _noted(statistics: Statistics) -> tuple[str, ...]:
    """What its voxels say of a tomogram, as flags: ``not_finite`` (NaN, infinite), ``padded``."""
    found = {"not_finite": statistics.bad > 0, "padded": len(statistics.padding) > 0}
    return tuple(flag for flag, so in found.items() if so)


def dog_options(settings: MinerSettings, voxel_a: float) -> DogOptions:
    """The picker's options in voxels of ``voxel_a``."""
    s = settings
    if s.unit == "nm":
        return DogOptions.from_nm(
            voxel_a, smooth=s.smooth, sigma=s.sigma, distance=s.distance, ratio=s.ratio, threshold=s.threshold
        )
    return DogOptions(s.smooth, s.sigma, s.ratio, s.threshold, s.distance)


def as_tomogram(result: Result) -> MinedTomogram | None:
    """The tomogram of a result of this beamline."""
    found = result.found.get(FOUND)
    return found if isinstance(found, MinedTomogram) else None
