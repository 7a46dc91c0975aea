"""The work of ``beamsieve segment``: what the daemon does with a tomogram once clusters are marked."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..decode.tomograms import DecodeTomograms, TomogramSettings
from ..flow.frame import STILL_A_FILE, BadData, Failure, Frame, Key, Raw
from ..formats.tomogram_names import unique_name
from ..sinks.picks.files import write_whole
from ..sinks.tomograms.labels import planes, write_labels
from ..sinks.tomograms.mined import MinedTomogram, Picked
from ..sinks.tomograms.pictures import draw
from ..sinks.tomograms.places import Places, records_below

if TYPE_CHECKING:
    from ...models.tomograms.mine import Miner
    from ...models.tomograms.segment import Segmenter
    from ...models.tomograms.segment_counts import Count
    from ...models.tomograms.working import Working
    from ..formats.volumes import VolumeFile
    from .segment_session import MarkedSession

Progress = Callable[[str, int, int], None]
TABLE = "counts.csv"
COLUMNS = ("tomogram", "class", "sub-volumes", "pieces", "voxels", "fraction", "volume_nm3")


@dataclass(frozen=True, slots=True)
class Options:
    """As the command takes them. ``near``: only around sub-volumes of marked clusters."""

    out: Path
    decode: TomogramSettings
    near: bool
    probabilities: bool
    pictures: bool
    threads: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """A tomogram and what was written of it; ``counts`` by class name."""

    found: MinedTomogram
    counts: dict[str, Count]
    seconds: dict[str, float]
    picture: Path | None


class Work:
    """Segments tomograms, one after the other. ``session``: whose clusters say what sub-volumes are, None for none."""

    def __init__(self, segmenter: Segmenter, session: MarkedSession | None, options: Options) -> None:
        self.segmenter, self.session, self.options = segmenter, session, options
        self._places = Places(options.out)
        self._names: dict[str, Path] = {}
        self._miner = None if session is None else session_miner(session, options.threads)

    def segment(self, path: Path, progress: Progress, stop: Callable[[], bool]) -> Segmented:
        """Mine, segment and write one tomogram.

        Raises ``BadData`` for one that cannot be used, ``Stopped``, ``OSError`` where nothing can be written.
        """
        name = unique_name(path.resolve(), self._names)
        self._names[name] = path.resolve()
        with _opened(path, name, self.options.decode) as frame:
            volume = frame.info["volume"]
            try:
                found, working, seconds = self._mined(frame, volume, progress, stop)
            except ValueError as error:
                raise BadData("volume", f"{path}: {error}") from error
            began = time.perf_counter()
            segmented, counts = self._written(found, working, progress, stop)
            volume.check_same()
        seconds = {**seconds, "segment": time.perf_counter() - began}
        return Segmented(segmented, counts, seconds, self._picture(segmented))

    def _mined(
        self, frame: Frame, volume: VolumeFile, progress: Progress, stop: Callable[[], bool]
    ) -> tuple[MinedTomogram, Working, dict[str, float]]:
        from ...models.tomograms.working import Working

        bright = self.options.decode.bright
        if self._miner is None or self.session is None:
            began = time.perf_counter()
            working = Working(volume, self.segmenter.voxel_a, bright=bright, box=self.segmenter.edge)
            nothing = Picked.of(np.zeros((0, 3), np.float32), np.zeros(0, np.float32), np.zeros((0, 32), np.float32))
            seconds = {"statistics": time.perf_counter() - began}
            return self._known(frame, volume, working, nothing), working, seconds
        mined = self._miner.mine(volume, bright=bright, progress=progress, stop=stop)
        cluster = self.session.clusters.assign(mined.codes)[0]
        picked = Picked.of(
            mined.xyz,
            mined.score,
            mined.codes,
            error=mined.error,
            cluster=cluster,
            label=self.session.groups.values(cluster),
            rotation=mined.rotation,
            shift=mined.shift,
        )
        return self._known(frame, volume, mined.working, picked), mined.working, dict(mined.seconds)

    def _known(self, frame: Frame, volume: VolumeFile, working: Working, picked: Picked) -> MinedTomogram:
        session, info = self.session, frame.info
        colours = () if session is None else tuple(group.colour for group in session.groups.groups)
        network = self.segmenter if session is None else session.codec
        return MinedTomogram(
            name=str(info["name"]),
            path=Path(str(info["path"])),
            shape=volume.shape,
            voxel_a=volume.voxel_a,
            working_voxel_a=working.voxel_a,
            picked=picked,
            network=network.name,
            network_sha256=network.sha256,
            threshold=float("nan") if self._miner is None else self._miner.options.dog.threshold,
            edge=self.segmenter.edge,
            posed=self._miner is not None and self._miner.posed,
            bright=self.options.decode.bright,
            flip=volume.info.flip,
            hand=volume.info.hand,
            mode="annotate",
            classes=tuple(self.segmenter.classes[1:]),
            colours=colours,
            slices=info["slices"],
            flags=tuple(info["flags"]),
            origin_a=volume.info.origin_a,
        )

    def _written(
        self, found: MinedTomogram, working: Working, progress: Progress, stop: Callable[[], bool]
    ) -> tuple[MinedTomogram, dict[str, Count]]:
        from ...models.tomograms.segment_counts import Counter

        near = found.picked.xyz[found.picked.label > 0] if self.options.near else None
        counter = Counter(1 + len(found.classes), found.voxel_a)
        slabs = counter.passing(self.segmenter.segment(working, near=near, progress=progress, stop=stop))
        stem = self._places.stem(found.name)
        files = write_labels(found, slabs, self._places, stem, probabilities=self.options.probabilities)
        counts = dict(zip(found.classes, counter.counts()[1:], strict=True))
        return replace(found, segmentation=files), counts

    def _picture(self, found: MinedTomogram) -> Path | None:
        files, slices = found.segmentation, found.slices
        if not self.options.pictures or slices is None:
            return None
        from ..sinks.tomograms.mined import LabelFiles

        assert isinstance(files, LabelFiles)
        path = self._places.of("picture", self._places.stem(found.name))
        write_whole(path, draw(found, planes(files, slices.at, slices.factor), dict(files.fractions)))
        return path


@contextmanager
def _opened(path: Path, name: str, settings: TomogramSettings) -> Iterator[Frame]:
    """The tomogram as the daemon opens one; raises ``BadData`` where that fails."""
    info = {"path": str(path), "name": name}
    raw = Raw(Key("segment", 0), STILL_A_FILE, time.monotonic(), time.time(), info=info)
    (frame,) = DecodeTomograms(settings)([raw])
    if isinstance(frame, Failure):
        raise BadData(frame.reason, frame.detail)
    try:
        yield frame
    finally:
        frame.info["volume"].close()


def session_miner(session: MarkedSession, threads: int | None) -> Miner:
    """A miner that picks, and turns sub-volumes or not, as the session does: as its newest record says."""
    from ...models.tomograms.dog import DogOptions
    from ...models.tomograms.mine import MineOptions, Miner
    from ..sinks.tomograms.record import read

    paths = records_below(session.directory)
    dog, posed = DogOptions(), None
    if paths:
        last = read(max(paths, key=lambda path: path.stat().st_mtime), slices=False, codes=False)
        known = {name: float(value) for name, value in last.options.items() if name in DogOptions.__slots__}
        dog = DogOptions(**known, **({} if np.isnan(last.threshold) else {"threshold": last.threshold}))
        posed = last.posed
    return Miner(session.codec, MineOptions(dog=dog, posed=posed), threads=threads)


def table(done: Sequence[Segmented]) -> bytes:
    """``counts.csv``: a row per tomogram and class."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in done:
        picks = one.found.counts if len(one.found.picked) else {}
        for name, count in one.counts.items():
            volume = count.voxels * one.found.voxel_a**3 / 1e3
            rows.writerow(
                [one.found.name, name, picks.get(name, ""), count.pieces, count.voxels, count.fraction, f"{volume:.1f}"]
            )
    return text.getvalue().encode()


def told(one: Segmented) -> dict[str, Any]:
    """Plain values of a tomogram."""
    from ..sinks.tomograms.mined import LabelFiles

    files = one.found.segmentation
    assert isinstance(files, LabelFiles)
    mined = len(one.found.picked) > 0
    return {
        "name": one.found.name,
        "shape": list(one.found.shape),
        "voxel_a": one.found.voxel_a,
        "labels": str(files.labels),
        "probabilities": {name: str(path) for name, path in files.probabilities.items()},
        "picture": None if one.picture is None else str(one.picture),
        "sub-volumes": len(one.found.picked) if mined else None,
        "classes": {
            name: {
                "sub-volumes": one.found.counts[name] if mined else None,
                "pieces": count.pieces,
                "voxels": count.voxels,
                "fraction": count.fraction,
            }
            for name, count in one.counts.items()
        },
        "seconds": {name: round(value, 3) for name, value in one.seconds.items()},
    }
