"""The records of a session on tomograms: which there are, the codes in them, and their clusters and classes anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import numpy.typing as npt

from ...models.tomograms.book import Clusters
from ...models.tomograms.follow import Bridge
from ...models.tomograms.groups import Groups
from ..flow.frame import BadData
from ..sinks.picks.rows import Stamp, record_files
from ..sinks.tomograms import record
from ..sinks.tomograms.again import relabel_and_export
from ..sinks.tomograms.mined import LabelFiles, MinedTomogram
from ..sinks.tomograms.places import RECORDS, Places
from ..sinks.tomograms.settings import TomogramFiles
from .mining_rows import Entry, errors_of, row_of

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Stop = Callable[[], bool]
#: Sub-volumes that are encoded at a time: whoever mines waits no longer than for these.
AT_ONCE = 64


class Encodes(Protocol):
    """What codes are made with; a ``codec.Codec`` is one."""

    @property
    def sha256(self) -> str:
        """Of the bundle."""

    def encode(self, boxes: Floats) -> Floats:
        """Codes (n, d) of sub-volumes (n, e, e, e)."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Codes (n, d) of one network; ``bridge``: the same sub-volumes in the clusters there are, None without any."""

    codes: Floats
    bridge: Bridge | None


class Records:
    """Records in ``session/`` of a folder. For the worker's thread; ``entries`` is replaced, never changed.

    ``settings``: of the files that are made of them.
    """

    def __init__(self, places: Places, settings: TomogramFiles) -> None:
        self._places, self._settings = places, settings
        self._folder = places.directory / RECORDS
        self._known: dict[str, tuple[Stamp, Entry]] = {}
        self._bad: dict[str, Stamp] = {}
        self._hopeless: set[tuple[Path, int]] = set()
        self.entries: tuple[Entry, ...] = ()

    def scan(self, stop: Stop = lambda: False) -> bool:
        """Look at the folder, and read what is new or has changed; whether anything was. Raises ``OSError``."""
        seen = dict(record_files(self._folder))
        gone = [file for file in self._known if file not in seen]
        for file in gone:
            del self._known[file]
        changed = bool(gone)
        for file, stamp in seen.items():
            known = self._known.get(file)
            if (known is None or known[0] != stamp) and self._bad.get(file) != stamp and not stop():
                changed |= self._read(file, stamp)
        if changed:
            self.entries = tuple(entry for _, entry in self._known.values())
        return changed

    def count(self) -> int:
        """Sub-volumes of all records."""
        return sum(entry.row.picks for entry in self.entries)

    def kept(self) -> int:
        """Sub-volumes that are kept."""
        return sum(entry.kept for entry in self.entries)

    def usable(self, network: str) -> int:
        """Sub-volumes that there are codes of this network of, or can be made from what is kept."""
        return sum(entry.row.picks if entry.network == network else entry.kept for entry in self.entries)

    def sample(self, codec: Encodes, old: Clusters | None, most: int, stop: Stop) -> Sample | None:
        """Codes of all sub-volumes by this network, at most about ``most``; None where it was stopped.

        Records of another network give those that they keep, encoded anew. Where it is the same as that of the ``old``
        clusters their codes lie in both; else the bridge is what both encoded.
        """
        share = min(1.0, most / max(1, self.usable(codec.sha256)))
        random = np.random.default_rng(len(self.entries))
        codes: list[Floats] = []
        before: list[Floats] = []
        after: list[Floats] = []
        for found in self._all(codec.sha256):
            if stop():
                return None
            own = found.picked.codes
            if found.network_sha256 == codec.sha256:
                codes.append(own[random.random(len(own)) < share] if share < 1 else own)
                if old is not None and old.network == codec.sha256:
                    before.append(codes[-1])
                    after.append(codes[-1])
                continue
            made = self.kept_codes(found, codec, stop)
            if made is None:
                continue
            codes.append(made)
            if old is not None and old.network == found.network_sha256 and found.kept is not None:
                before.append(own[found.kept.rows])
                after.append(made)
        if stop() or not codes:
            return None
        bridge = Bridge(np.concatenate(before), np.concatenate(after)) if before else None
        return Sample(np.concatenate(codes), bridge)

    def boxes(self, codec: Encodes, stop: Stop) -> Iterator[tuple[Floats, Floats]]:
        """Sub-volumes that are kept, some at a time, with their codes by this network."""
        for found in self._all():
            if found.kept is None or stop():
                continue
            if found.network_sha256 == codec.sha256:
                yield found.kept.boxes.astype(np.float32), found.picked.codes[found.kept.rows]
            elif (made := self.kept_codes(found, codec, stop)) is not None:
                yield found.kept.boxes.astype(np.float32), made

    def kept_codes(self, found: MinedTomogram, codec: Encodes, stop: Stop) -> Floats | None:
        """Codes of the sub-volumes that a record keeps; None where it keeps none, or it was stopped."""
        if found.kept is None or not len(found.kept):
            return None
        made = []
        for first in range(0, len(found.kept), AT_ONCE):
            if stop():
                return None
            made.append(codec.encode(found.kept.boxes[first : first + AT_ONCE].astype(np.float32)))
        return np.concatenate(made)

    def stale(self, clusters: Clusters | None, groups: Groups) -> list[Entry]:
        """Records whose clusters are of another version, or whose classes are others now."""
        if clusters is None:
            return []
        marks = marks_of(groups)
        return [
            entry
            for entry in self.entries
            if (entry.version != clusters.version or entry.marks != marks or _is_mislabelled(entry, groups))
            and (entry.path, entry.row.revision) not in self._hopeless
        ]

    def relabel(self, entry: Entry, clusters: Clusters, groups: Groups) -> bool:
        """Give a record these clusters and classes; whether it could be. Raises ``OSError``.

        Codes of the clusters' own network are assigned anew; others keep the number that follows their cluster, where
        that cluster is still there.
        """
        try:
            found = record.read(entry.path, slices=False)
            picked = found.picked
            if found.network_sha256 == clusters.network:
                cluster = clusters.assign(picked.codes)[0]
            else:
                cluster = np.where(np.isin(picked.cluster, clusters.ids), picked.cluster, 0)
            relabel_and_export(
                entry.path,
                cluster,
                groups.values(cluster),
                classes=groups.names,
                colours=[group.colour for group in groups.groups],
                clusters_version=clusters.version,
                settings=self._settings,
                places=self._places,
            )
        except (BadData, ValueError) as error:
            # Damaged, or replaced by the record of a newer file meanwhile, which is another entry.
            log.warning("%s", error)
            self._hopeless.add((entry.path, entry.row.revision))
            return False
        return True

    def all(self) -> Iterator[tuple[MinedTomogram, Path]]:
        """All records without arrays that are large, and where they lie; those that cannot be read are left out."""
        for entry in self.entries:
            try:
                yield record.read(entry.path, slices=False, codes=False), entry.path
            except BadData as error:
                log.warning("%s", error.detail)

    def _all(self, network: str = "") -> Iterator[MinedTomogram]:
        """All records, with codes, and what they keep: most of their bytes, so not those of ``network``."""
        for entry in self.entries:
            try:
                yield record.read(entry.path, kept=entry.network != network, slices=False)
            except BadData as error:
                log.warning("%s", error.detail)

    def _read(self, file: str, stamp: Stamp) -> bool:
        path = self._folder / file
        try:
            self._known[file] = stamp, self._entry(path, stamp)
        except BadData as error:
            log.warning("%s", error.detail)
            self._bad[file] = stamp
            return self._known.pop(file, None) is not None
        return True

    def _entry(self, path: Path, stamp: Stamp) -> Entry:
        found = record.read(path, slices=False, codes=False)
        when, kept = _about(path)
        files = found.segmentation
        labels = files.labels if isinstance(files, LabelFiles) else None
        row = row_of(found, when=when, revision=stamp[0], record=path, labels=labels)
        colours = found.colours or ("",) * len(found.classes)
        marks = tuple(zip(found.classes, colours, strict=False))
        errors = errors_of(found.picked.cluster, found.picked.error)
        return Entry(path, row, found.clusters_version, marks, errors, kept)


def _is_mislabelled(entry: Entry, groups: Groups) -> bool:
    """Whether its classes do not follow from its clusters: the names may be the same, and the marks others."""
    counts: dict[str, int] = {}
    marks = groups.marks()
    for number, n in entry.row.by_cluster.items():
        name = marks.get(number, "")
        counts[name] = counts.get(name, 0) + n
    return {name: n for name, n in entry.row.by_class.items() if n} != {name: n for name, n in counts.items() if n}


def marks_of(groups: Groups) -> tuple[tuple[str, str], ...]:
    """Names and colours of groups, in order."""
    return tuple((group.name, group.colour) for group in groups.groups)


def _about(path: Path) -> tuple[float, int]:
    """When it was mined (Unix seconds), and how many sub-volumes it keeps."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            written = datetime.strptime(str(file.attrs["written"]), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            return written.timestamp(), len(file["kept/rows"]) if "kept" in file else 0
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise BadData("record", f"{path}: is no record of a tomogram, or damaged ({error}); remove it") from None
