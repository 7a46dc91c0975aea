"""The work of ``beamsieve cluster tomograms``: clusters, marks, contact sheet, the records' columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...models.progress import Lines
from ...models.tomograms.book import NAME, Clusters, ClustersError, Event, read_clusters, write_clusters
from ...models.tomograms.cluster import Progress
from ...models.tomograms.follow import Bridge, Followed
from ...models.tomograms.groups import Groups
from ...models.tomograms.regroup import boxes_bridge, regroup
from ..beamlines.mining_store import SHEET, write_sheets
from ..flow.frame import BadData
from ..sinks.picks.files import sweep
from ..sinks.tomograms.again import noted_settings, relabel_and_export, write_session_tables
from ..sinks.tomograms.marks import GroupsFile, claimed
from ..sinks.tomograms.mined import MinedTomogram
from ..sinks.tomograms.places import Places
from ..sinks.tomograms.record import read
from .cluster_marks import changes
from .tomogram_records import Mined, codec_of, kept_in, of_one_network, old_codec, records_in

if TYPE_CHECKING:
    from ...models.tomograms.codec import Codec

DAEMON = "another process makes the clusters of this session"


@dataclass(frozen=True, slots=True)
class Options:
    """As the command takes them."""

    k: int
    seed: int
    restarts: int
    network: str | None
    bundle: Path | None
    device: str
    threads: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What there is now. ``tomograms``: whose records were written; ``notes``: for people to know."""

    directory: Path
    clusters: Clusters
    groups: Groups
    events: tuple[Event, ...] = ()
    notes: tuple[str, ...] = ()
    tomograms: int = 0
    sheets: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def summary(self) -> str:
        """One line of what there is."""
        c = self.clusters
        posed = ", pose-normalised" if c.posed else ""
        return f"{len(c)} clusters of {int(c.counts.sum())} sub-volumes, version {c.version}; {c.name}{posed}"


def clustered(directory: Path, options: Options, stop: Callable[[], bool], progress: Progress | None) -> Made | None:
    """Make the clusters anew and write everything; None if stopped, and nothing is written then.

    Raises ``ValueError`` for what cannot be clustered, ``BadData`` and ``OSError`` for files.
    """
    progress = progress or Lines()
    with claimed(directory) as mine:
        if not mine:
            raise ValueError(f"{directory}: {DAEMON}, a daemon perhaps: it takes marks (--mark), or stop it first")
        noted_settings(directory)  # a mistake in it is told before there is anything to write
        sweep(directory)
        old, file = _clusters(directory), GroupsFile(directory)
        records = of_one_network(records_in(directory), options.network)
        codec = codec_of(records[0], directory, options.bundle, options.device, options.threads)
        codes, groups = np.concatenate([record.codes for record in records]), file.read()
        followed = regroup(
            codes,
            codec,
            old=old,
            groups=groups,
            bridge=_bridge(old, codec, directory, records, options),
            boxes=lambda: kept_in(records),
            k=options.k,
            seed=options.seed,
            restarts=options.restarts,
            stop=stop,
            progress=progress,
        )
        return None if followed is None else _written(directory, records, followed, file, progress)


def _bridge(
    old: Clusters | None, codec: Codec, directory: Path, records: Sequence[Mined], options: Options
) -> Bridge | None:
    """Sub-volumes encoded by the network of the old clusters as well, where it is another one and still there."""
    if old is None or old.network == codec.sha256:
        return None
    before = old_codec(old, directory, options.device, options.threads)
    return None if before is None else boxes_bridge(old, codec, before, lambda: kept_in(records))


def _written(
    directory: Path, records: Sequence[Mined], followed: Followed, file: GroupsFile, progress: Progress
) -> Made:
    clusters = followed.clusters
    write_clusters(directory / NAME, clusters)
    # Not the groups as they were read: a person may have marked some meanwhile.
    groups = file.change(followed.marks)
    _label(directory, records, clusters, groups, progress)
    sheets = tuple(write_sheets(directory, clusters, groups))
    notes = [followed.note] if followed.note else []
    files = (directory / NAME, file.path, *sheets)
    notes += _unknown(file.path, clusters, groups)
    return Made(directory, clusters, groups, followed.events, tuple(notes), len(records), sheets, files)


def marked(
    directory: Path, mark: Sequence[str], unmark: Sequence[str], kind: str | None, progress: Progress | None
) -> Made:
    """Change the groups, and what follows from them. A daemon on this folder is left to do that itself.

    Raises ``ValueError`` for marks that cannot be, ``BadData`` and ``OSError`` for files.
    """
    clusters, file = _there(directory), GroupsFile(directory)
    groups = file.change(changes(mark, unmark, kind, clusters.ids.tolist()))
    notes = _unknown(file.path, clusters, groups)
    with claimed(directory) as mine:
        if not mine:
            notes.append(f"{DAEMON} and takes the marks from {file.path}; records and {SHEET} follow")
            return Made(directory, clusters, groups, (), tuple(notes), 0, (), (file.path,))
        records = records_in(directory)
        _label(directory, records, clusters, groups, progress or Lines())
        sheets = tuple(write_sheets(directory, clusters, groups))
    return Made(directory, clusters, groups, (), tuple(notes), len(records), sheets, (file.path, *sheets))


def there(directory: Path) -> Made:
    """The clusters and groups as they are. Raises ``ValueError`` where there are none."""
    clusters, file = _there(directory), GroupsFile(directory)
    groups = file.read()
    return Made(directory, clusters, groups, (), tuple(_unknown(file.path, clusters, groups)))


def _there(directory: Path) -> Clusters:
    found = _clusters(directory)
    if found is None:
        raise ValueError(f"{directory}: has no clusters yet; make them: beamsieve cluster tomograms {directory}")
    return found


def _clusters(directory: Path) -> Clusters | None:
    try:
        return read_clusters(directory / NAME)
    except ClustersError as error:
        raise BadData("clusters", str(error)) from error


def _label(directory: Path, records: Sequence[Mined], clusters: Clusters, groups: Groups, progress: Progress) -> None:
    """Clusters and classes in the records, in the files for other programs, and in the session's tables."""
    settings, places = noted_settings(directory), Places(directory)
    for at, record in enumerate(records, 1):
        # By the codes it has now: it may have been mined again since it was read.
        now = read(record.path, slices=False)
        ids = _numbers(now, clusters)
        if ids is not None:
            relabel_and_export(
                record.path,
                ids,
                groups.values(ids),
                classes=groups.names,
                colours=[group.colour for group in groups.groups],
                clusters_version=clusters.version,
                settings=settings,
                places=places,
            )
        progress("write classes", at, len(records))
    write_session_tables(settings, places)


def _numbers(found: MinedTomogram, clusters: Clusters) -> npt.NDArray[np.int32] | None:
    """Clusters of a record's sub-volumes; of a network before, the numbers that followed. None: it never had any."""
    if found.network_sha256 == clusters.network:
        return clusters.assign(found.picked.codes)[0]
    if not found.clusters_version:
        return None
    return np.where(np.isin(found.picked.cluster, clusters.ids), found.picked.cluster, np.int32(0))


def _unknown(path: Path, clusters: Clusters, groups: Groups) -> list[str]:
    missing = groups.unknown(clusters.ids.tolist())
    if not missing:
        return []
    numbers = ", ".join(map(str, missing[:10]))
    return [
        f"{path}: marks {numbers}, but there are no such clusters; take them out, or see --list for those there are"
    ]
