"""What a session on tomograms keeps of its clusters and networks: read at a start, written whole when it changes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...models.bundle import BundleError
from ...models.tomograms.book import NAME, Clusters, ClustersError, read_clusters, write_clusters
from ...models.tomograms.groups import Groups
from ...models.tomograms.segment import Segmenter
from ...models.tomograms.sheet import sheet
from ..sinks.picks.files import write_whole
from .mining_bench import Bench, load_codec, load_segmenter
from .mining_marks import key_of
from .mining_settings import MinerSettings
from .mining_trainings import FOLDER, Training

log = logging.getLogger(__name__)

SHEET, NETWORK = "clusters.png", "network.json"
CODES, SEGMENTS = "codes", "segments"


class Store:
    """Files of the clusters in ``directory``. ``base``: the bench of the configuration alone."""

    def __init__(self, directory: Path, settings: MinerSettings, base: Bench) -> None:
        self.directory, self.base = directory, base
        self.path = directory / NAME
        self._settings = settings
        self._stamp: tuple[int, int, int] | None = None

    # Beginning

    def bench(self, groups: Groups) -> Bench:
        """The one that the last daemon had, as far as the configuration is the same. Raises ``OSError``."""
        clusters = self.clusters()
        bench = Bench(self.base.codec, segmenter=self.base.segmenter, clusters=clusters)
        if clusters is not None and clusters.network != self.base.codec.sha256:
            bench = self._trained(bench, clusters)
        if bench.segmenter is None:
            bench = self._segmenter(bench, groups)
        return bench

    def clusters(self) -> Clusters | None:
        """The clusters that are kept; None where there are none, or none that can be used, which are put aside."""
        self._stamp = self._now()
        try:
            return read_clusters(self.path)
        except ClustersError as error:
            log.warning("%s; it is put aside", error)
            with suppress(OSError):
                os.replace(self.path, self.path.with_name(f"{NAME}.unusable"))
            return None

    def changed(self) -> bool:
        """Whether somebody else wrote the clusters since they were read or written here."""
        return self._now() != self._stamp

    # Keeping

    def write(self, clusters: Clusters, path: Path | None) -> None:
        """Keep the clusters; ``path``: the network they are of, where it was trained here. Raises ``OSError``.

        Clusters name their network: from the moment their file is there, that one is in force.
        """
        if path is not None:
            told = {"configured": self.base.codec.sha256, "sha256": clusters.network}
            told["path"] = os.path.relpath(path, self.directory)
            write_whole(self.directory / FOLDER / NETWORK, json.dumps(told).encode())
        write_clusters(self.path, clusters)
        self._stamp = self._now()

    def draw(self, clusters: Clusters, groups: Groups) -> None:
        """Write the contact sheet. Raises ``OSError``."""
        write_sheets(self.directory, clusters, groups)

    # Inside

    def _trained(self, bench: Bench, clusters: Clusters) -> Bench:
        """With the network that was trained in this session, unless the configuration names another since."""
        try:
            told = json.loads((self.directory / FOLDER / NETWORK).read_text(encoding="utf-8"))
            path = self.directory / str(told["path"])
            mine = (told["configured"], told["sha256"]) == (self.base.codec.sha256, clusters.network)
        except (OSError, ValueError, KeyError, TypeError):
            mine = False
        if mine:
            try:
                codec = load_codec(self._settings, str(path))
            except BundleError as error:
                log.warning("%s; the configured network goes on, and clusters are made anew", error.detail)
                return bench
            if codec.sha256 == clusters.network:
                return Bench(codec, True, clusters, bench.segmenter, bench.marks)
        log.warning("%s: is of another network than %s; clusters are made anew", self.path, self.base.codec.name)
        return bench

    def _segmenter(self, bench: Bench, groups: Groups) -> Bench:
        """With the last segmentation whose classes are those of the groups."""
        wanted = key_of(groups, bench.codec.sha256)
        fitting: list[tuple[bool, str, Path]] = []
        for about, ended in Training(self.directory, SEGMENTS).last():
            if ended.path is not None and about.get("classes") == list(groups.classes):
                key = str(about.get("marks", ""))
                fitting.append((key == wanted, key, ended.path))
        for _, key, path in sorted(fitting, key=lambda one: not one[0]):
            found = self.segmenter(path, bench.codec.voxel_a)
            if found is not None:
                return Bench(bench.codec, bench.trained, bench.clusters, found, key or "unknown")
        return bench

    def segmenter(self, path: Path, voxel_a: float) -> Segmenter | None:
        """A segmentation that was trained here; None, and a word in the log, where it cannot be used."""
        try:
            return load_segmenter(self._settings, str(path), voxel_a)
        except BundleError as error:
            log.warning("%s", error.detail)
            return None

    def _now(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def write_sheets(directory: Path, clusters: Clusters, groups: Groups) -> Sequence[Path]:
    """Write ``clusters.png``, with further pages ``clusters-2.png`` …; old further pages go. Raises ``OSError``."""
    if not len(clusters):
        return ()
    title = f"{len(clusters)} clusters of {int(clusters.counts.sum())} sub-volumes, version {clusters.version}"
    pages = sheet(clusters, groups, title=f"{title}; network {clusters.name}")
    paths = [directory / SHEET, *(directory / f"clusters-{n}.png" for n in range(2, len(pages) + 1))]
    for path, page in zip(paths, pages, strict=True):
        write_whole(path, page)
    for path in directory.glob("clusters-*.png"):
        if path not in paths and path.stem.removeprefix("clusters-").isdecimal():
            path.unlink(missing_ok=True)
    return paths
