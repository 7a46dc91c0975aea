"""What the live page knows of a session on tomograms: one frozen picture of it, and what a person may do to a cluster.

The worker that mines makes a new ``Mining`` when something changed and leaves it where ``MiningLevers.current`` finds
it; the page reads it in its own threads and never waits for the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

MOST_CLUSTERS = 400
MOST_EVENTS = 20

#: Work in the background: what (``clustering``, ``training``, ``segments``, …), done of how many, a text for a person.
Job = tuple[str, int, int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Tomogram:
    """One tomogram that was mined.

    ``id``: of this content of the file, the same after a restart; of letters, digits, ``-`` and ``_``. ``name``: below
    the watched folder; a new revision replaces the older one of its name. ``time``: when it was done, Unix seconds.
    ``shape``: voxels (z, y, x) of the file. ``voxel_a``: Å of the file. ``picks``: sub-volumes. ``by_class``: of these,
    by the name of the group their cluster is in; those of no group under ``""``. ``error``: mean squared error of the
    reconstruction of its sub-volumes, NaN where there are none. ``seconds``: of work. ``mode``: in which it was done.
    ``revision``: another one whenever its record or its labels were written again. ``record``, ``labels``: where these
    files are, None where there is none. ``warnings``: what was noted of the file, each a text for a person.
    ``by_cluster``: sub-volumes by the id of their cluster; where it is given, the page counts by class from it and from
    the groups as they are now, and ``by_class`` is not looked at: a mark then changes all rows at once.
    ``network``: the SHA-256 of what reconstructed: errors of two networks are not compared.
    """

    id: str
    name: str
    time: float
    shape: tuple[int, int, int]
    voxel_a: float
    picks: int
    by_class: Mapping[str, int]
    error: float
    seconds: float
    mode: Literal["explore", "annotate"]
    revision: int = 0
    record: Path | None = None
    labels: Path | None = None
    warnings: tuple[str, ...] = ()
    by_cluster: Mapping[int, int] = field(default_factory=dict)
    network: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ClusterView:
    """One cluster. Arrays are not written to once they are in here; density is bright in them.

    ``id``: from 1, never used twice in a session. ``count``: its sub-volumes. ``share``: of all, 0 to 1. ``mark``: the
    name of its group, empty where it is in none. ``projection``: uint8 (e, e), the decoded centre summed along z.
    ``slices``: uint8 (3, e, e), its central slices: xy, xz, yz (rows y, z, z; columns x, x, y). ``error``: mean squared
    error of the reconstruction of its members, NaN where it is not known. ``version``: another one whenever a picture
    is another.
    """

    id: int
    count: int
    share: float
    mark: str
    projection: Bytes
    slices: Bytes
    error: float
    version: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Clusters that a person says are the same. ``colour``: ``#rrggbb``, the same in pictures; ``clusters``: ids."""

    name: str
    kind: str
    colour: str
    clusters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """The autoencoder in use. ``trained``: on this session's sub-volumes, not only as it was shipped."""

    name: str
    sha256: str
    trained: bool


@dataclass(frozen=True, slots=True, eq=False)
class Mining:
    """The session, as it is at one moment.

    ``version``: another one whenever anything here is. ``mode``: ``annotate`` as soon as a cluster is in a group.
    ``state``: ``waiting`` (for the first ``need`` sub-volumes, of which ``have`` are there), ``ready`` or ``failed``.
    ``have``, ``need``: after that, sub-volumes now and at the next clustering. ``clusters``: the largest first, at most
    400. ``groups``: in the order of their label values, which begin with 1. ``job``: what is under way. ``events``:
    (Unix seconds, text), the newest last, at most 20. ``error``: why it failed, or what hinders and is tried again.
    """

    version: int
    mode: Literal["explore", "annotate"]
    state: Literal["waiting", "ready", "failed"]
    have: int
    need: int
    network: Network
    clusters: tuple[ClusterView, ...] = ()
    groups: tuple[Group, ...] = ()
    job: Job | None = None
    events: tuple[tuple[float, str], ...] = ()
    error: str = ""
    #: Å per voxel of the clusters' pictures.
    pixel_a: float = field(default=0.0)


class MiningLevers(Protocol):
    """The clusters of a running daemon. Any thread; each returns within a second.

    All that change something raise ``page.Refused``, and then nothing was changed. What was changed is on the disk, in
    ``groups.yaml``, and seen by ``current``, before they return. ``by``: who says so.
    """

    def current(self) -> Mining:
        """The newest picture; returns at once."""

    def mark(self, ids: tuple[int, ...], group: str, by: str) -> None:
        """From now on the clusters are in that group, which is there, and in no other."""

    def unmark(self, ids: tuple[int, ...], by: str) -> None:
        """From now on the clusters are in no group. A group that has none left stays."""

    def new_group(self, name: str, kind: str, by: str) -> None:
        """A group without clusters, last of all; ``kind``: surface, globule or other."""
