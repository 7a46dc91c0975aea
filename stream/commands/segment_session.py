"""What the marks of a session say of its tomograms: for the training of a segmentation, and for its use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.tomograms.book import NAME, Clusters, ClustersError, read_clusters
from ...models.tomograms.groups import Groups
from ...models.tomograms.volume import Floats, Volume
from ..errors import plain
from ..flow.frame import BadData
from ..formats.volumes import VolumeFile, open_volume
from ..sinks.tomograms.marks import GroupsFile
from ..sinks.tomograms.mined import MinedTomogram
from ..sinks.tomograms.places import RECORDS
from ..sinks.tomograms.record import read
from .tomogram_records import Mined, codec_of

if TYPE_CHECKING:
    from ...models.tomograms.codec import Codec
    from ...models.tomograms.pose import Poses
    from ...models.tomograms.segment_set import Marked

MOST_TOMOGRAMS = 24
"""Tomograms that a training reads; of more, those with the most marked sub-volumes."""
AT_ONCE = 256
"""Sub-volumes of a tomogram in memory, where they are encoded anew."""


@dataclass(frozen=True, slots=True, eq=False)
class MarkedSession:
    """A session with marks: ``codec`` is the network of its clusters. ``notes``: for people to know, added to."""

    directory: Path
    clusters: Clusters
    groups: Groups
    codec: Codec
    notes: list[str] = field(default_factory=list)


def marked_session(directory: Path, *, device: str, threads: int | None) -> MarkedSession:
    """The session in ``directory``.

    Raises ``ValueError`` where there are no clusters or marks, or their network is not found; ``BadData`` for damaged
    files, ``OSError``.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such folder; name the folder that tomograms were mined to")
    try:
        clusters = read_clusters(directory / NAME)
    except ClustersError as error:
        raise BadData("clusters", str(error)) from error
    if clusters is None:
        raise ValueError(f"{directory}: has no clusters yet; make them: beamsieve cluster tomograms {directory}")
    file = GroupsFile(directory)
    groups = file.read()
    if not groups:
        remedy = f'beamsieve cluster tomograms {directory} --mark "membrane=3,7"'
        raise ValueError(f"{file.path}: no cluster is marked; mark some: {remedy}")
    stub = Mined(directory / NAME, "the clusters", np.zeros((0, 0), np.float32), clusters.name, clusters.network)
    return MarkedSession(directory, clusters, groups, codec_of(stub, directory, None, device, threads))


def records_to_use(session: MarkedSession) -> list[Path]:
    """Records that have marked sub-volumes, those with the most first, at most 24.

    Those of a network that was in force before are among them, where it took the same sub-volumes. Raises
    ``ValueError`` where there are none, ``BadData`` for a damaged one.
    """
    found = []
    for path in sorted((session.directory / RECORDS).rglob("*.h5")):
        one = read(path, slices=False)
        if (one.edge, one.working_voxel_a) == (session.codec.edge, session.codec.voxel_a):
            found.append((int(np.count_nonzero(_values(session, one))), path))
    used = [path for count, path in sorted(found, key=lambda pair: -pair[0]) if count]
    if not used:
        raise ValueError(
            f"{session.directory}: none of {len(found)} mined tomograms has a sub-volume of a marked cluster; "
            "mine more of them, or mark larger clusters"
        )
    return used[:MOST_TOMOGRAMS]


def marked_in(session: MarkedSession, paths: Sequence[Path]) -> Iterator[Marked]:
    """What ``segment_set.examples`` takes, record after record; a tomogram is open while the next is not asked for.

    A tomogram that is gone, has changed, or cannot be read is replaced by the sub-volumes its record keeps.
    """
    for path in paths:
        one = read(path, kept=True, slices=False)
        volume = _opened(session, one)
        try:
            marked = _marked(session, one, volume)
            if marked is not None:
                yield marked
        finally:
            if volume is not None:
                volume.close()


def _values(session: MarkedSession, one: MinedTomogram) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """By the codes, not by what the record says: marks and clusters may be newer.

    Codes of another network say nothing; there the numbers that followed their clusters do.
    """
    if one.network_sha256 == session.clusters.network:
        return session.groups.values(session.clusters.assign(one.picked.codes)[0])
    return session.groups.values(np.where(np.isin(one.picked.cluster, session.clusters.ids), one.picked.cluster, 0))


def _opened(session: MarkedSession, one: MinedTomogram) -> VolumeFile | None:
    """The tomogram, if it is what was mined; None, and a note, where it is not."""
    flip: Any = one.flip
    try:
        volume = open_volume(one.path, voxel_a=one.voxel_a, flip=flip, stacks=True)
    except (BadData, OSError) as error:
        session.notes.append(f"{plain(error)}: sub-volumes that its record keeps are used instead")
        return None
    if volume.shape == one.shape:
        return volume
    volume.close()
    session.notes.append(f"{one.path}: is another tomogram now; sub-volumes that its record keeps are used instead")
    return None


def _marked(session: MarkedSession, one: MinedTomogram, volume: VolumeFile | None) -> Marked | None:
    from ...models.tomograms.pose import Poses
    from ...models.tomograms.segment_set import Marked
    from ...models.tomograms.working import Working, scale_factor

    clusters, picked, edge = session.clusters, one.picked, session.codec.edge
    working = None
    if volume is not None:
        try:
            working = Working(volume, one.working_voxel_a, bright=one.bright, box=edge)
        except (ValueError, BadData, OSError) as error:
            session.notes.append(f"{one.path}: {error}; sub-volumes that its record keeps are used instead")
    if working is None and one.kept is None:
        session.notes.append(f"{one.name}: is left out: it cannot be read, and its record keeps no sub-volumes")
        return None
    factor = scale_factor(one.voxel_a, one.working_voxel_a)
    poses = Poses(picked.rotation, picked.shift) if one.posed else None
    xyz = ((picked.xyz + 0.5) / factor - 0.5).astype(np.float32)
    kept = None if one.kept is None else one.kept.rows.astype(np.intp)
    codes = picked.codes
    if one.network_sha256 != clusters.network:
        if working is None and one.kept is not None and kept is not None:
            codes = session.codec.encode(one.kept.boxes.astype(np.float32))
            xyz, poses = xyz[kept], None if poses is None else poses[kept]
            kept = np.arange(len(one.kept))
        elif working is not None:
            codes = _encoded(session.codec, working, xyz, poses)
    number = clusters.assign(codes)[0]
    row = np.searchsorted(clusters.ids, number, sorter=np.argsort(clusters.ids))
    centres = clusters.codes[np.argsort(clusters.ids)[np.minimum(row, len(clusters) - 1)]]
    return Marked(
        one.name,
        xyz,
        codes,
        centres,
        session.groups.values(number),
        poses=poses,
        working=working,
        rows=kept,
        boxes=None if one.kept is None else one.kept.boxes,
        surfaces=tuple(value for value, g in enumerate(session.groups.groups, 1) if g.kind == "surface"),
    )


def _encoded(codec: Codec, working: Volume, xyz: Floats, poses: Poses | None) -> Floats:
    """Codes of sub-volumes that another network encoded before, some cut out at a time."""
    from ...models.tomograms.boxes import boxes
    from ...models.tomograms.pose import posed_boxes

    found = []
    for first in range(0, max(len(xyz), 1), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        if poses is None:
            found.append(codec.encode(boxes(working, xyz[some], codec.edge)[0]))
        else:
            found.append(codec.encode(posed_boxes(working, xyz[some], poses[some], codec.edge)[0]))
    return np.concatenate(found)
