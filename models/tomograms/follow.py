"""Labels follow the centre, not the run: clusters made anew have the numbers and marks of those they continue."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..classes2d.matching2d import matched
from .book import MOST_EVENTS, Clusters, Event, Halves
from .cluster import Centres, Counts, Ints, assign
from .follow_marks import follow_marks
from .follow_words import told
from .groups import Groups
from .volume import Floats


class Network(Protocol):
    """What encoded; a ``codec.Codec`` is one."""

    @property
    def sha256(self) -> str:
        """Of the bundle."""

    @property
    def name(self) -> str:
        """Of the bundle."""

    @property
    def posed(self) -> bool:
        """Whether of pose-normalised sub-volumes."""

    @property
    def voxel_a(self) -> float:
        """Ångström per voxel of sub-volumes."""


@dataclass(frozen=True, slots=True, eq=False)
class Bridge:
    """Sub-volumes that lie between the old clusters and the new: their codes in both spaces.

    ``before``, ``after`` float32 (m, d): one array where the network is the same. ``weight`` int (m,): how many
    sub-volumes each stands for.
    """

    before: Floats
    after: Floats
    weight: Counts | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """``clusters`` with their numbers; ``groups`` with the marks that follow; ``events`` of this clustering alone.

    ``before``: numbers of the clusters there were; ``shared`` int64 (len(before), k), see ``shared_members``; ``note``:
    what there is to say of the number of clusters, or nothing.
    """

    clusters: Clusters
    groups: Groups
    events: tuple[Event, ...]
    before: tuple[int, ...]
    shared: Counts
    note: str = ""

    def marks(self, groups: Groups) -> Groups:
        """The marks that follow from ``groups``, which a person may have changed since the clusters were made."""
        return follow_marks(groups, self.shared, self.before, self.clusters.ids.tolist()).groups


def follow(
    old: Clusters | None,
    new: Centres,
    decoded: Floats,
    network: Network,
    *,
    bridge: Bridge | None = None,
    groups: Groups | None = None,
    average: tuple[Halves, Counts] | None = None,
    seed: int = 1,
    now: float | None = None,
) -> Followed:
    """Give ``new`` centres, decoded to float32 (k, e, e, e), the numbers of the ``old`` clusters they continue.

    A new cluster continues the old one with which it shares most sub-volumes of the ``bridge`` (Hungarian method, see
    ``matching2d.matched``); clusters without sub-volumes there are paired by their decoded centres, from a correlation
    of 0.9 on. Others get numbers never used before. Marks go with the numbers, and a cluster with a new number that
    has most of its sub-volumes from marked clusters of one group is marked as they were. ``average``: of the member
    sub-volumes, and how many. ``now``: Unix seconds.
    """
    groups, now = groups or Groups(), time.time() if now is None else now
    k = len(new.codes)
    first = old.next_id if old is not None else 1 + max(groups.marks(), default=0)
    before = old.ids if old is not None else np.zeros(0, np.int32)
    shared = shared_members(old, new, bridge)
    continues = matched(shared, _alike(old, decoded, shared)) if len(before) else np.full(k, -1)
    ids = _numbers(before, continues, first)
    marks = follow_marks(groups, shared, before.tolist(), ids.tolist())
    version = 1 if old is None else old.version + 1
    events = told(shared, before.tolist(), ids.tolist(), groups.marks()) if old is not None else ()
    events = tuple(replace(event, version=version, when=now) for event in (*events, *marks.events))
    halves, averaged = average or (np.zeros(decoded.shape, np.float16), np.zeros(k, np.int64))
    clusters = Clusters(
        ids=ids,
        codes=new.codes,
        counts=new.counts,
        spread=new.spread,
        decoded=decoded.astype(np.float32, copy=False),
        average=halves,
        averaged=averaged,
        network=network.sha256,
        name=network.name,
        posed=network.posed,
        voxel_a=network.voxel_a,
        version=version,
        next_id=max(first, int(ids.max(initial=0)) + 1),
        seed=seed,
        inertia=new.inertia,
        events=((() if old is None else old.events) + events)[-MOST_EVENTS:],
        written=now,
    )
    return Followed(clusters, marks.groups, events, tuple(before.tolist()), shared, new.note)


def shared_members(old: Clusters | None, new: Centres, bridge: Bridge | None) -> Counts:
    """How many sub-volumes of the bridge are of each old cluster and of each new one: int64 (k_old, k_new)."""
    shared = np.zeros((0 if old is None else len(old), len(new.codes)), np.int64)
    if old is None or bridge is None:
        return shared
    if len(bridge.before) != len(bridge.after):
        raise ValueError(f"a bridge has both codes of each sub-volume: {len(bridge.before)} and {len(bridge.after)}")
    one, other = assign(bridge.before, old)[0], assign(bridge.after, new)[0]
    good = (one >= 0) & (other >= 0)
    weight = np.ones(len(one), np.int64) if bridge.weight is None else bridge.weight
    np.add.at(shared, (one[good], other[good]), weight[good])
    return shared


def _numbers(before: Ints, continues: npt.NDArray[np.intp], first: int) -> Ints:
    """Number of each new cluster: the one it continues, or the next that was never used."""
    fresh = continues < 0
    ids = np.zeros(len(continues), np.int32)
    ids[~fresh] = before[continues[~fresh]]
    ids[fresh] = first + np.arange(np.count_nonzero(fresh))
    return ids


def _alike(old: Clusters | None, decoded: Floats, shared: Counts) -> Floats:
    """Correlation of decoded centres (k_old, k_new), where nothing is known of members; elsewhere 0."""
    if old is None or old.decoded.shape[1:] != decoded.shape[1:]:
        return np.zeros(shared.shape, np.float32)
    alike: Floats = _level(old.decoded) @ _level(decoded).T
    # Two centres of noise look alike: where members say something, looks say nothing.
    alike[np.ix_(shared.any(axis=1), shared.any(axis=0))] = 0
    return alike


def _level(volumes: Floats) -> Floats:
    """Volumes as rows of mean 0 and length 1; rows of zeros for those without contrast."""
    rows: Floats = volumes.reshape(len(volumes), -1)
    rows = rows - rows.mean(1, keepdims=True)
    length: Floats = np.sqrt(np.square(rows).sum(1, keepdims=True))
    length[length == 0] = 1
    return rows / length
