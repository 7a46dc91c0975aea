"""All codes of a session in clusters anew: grouped, decoded, averaged, and given the numbers and marks of the old."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from .book import Averages, Clusters
from .cluster import RESTARTS, Centres, K, Progress, assign, cluster, never, quiet
from .follow import Bridge, Followed, Network, follow
from .groups import Groups
from .volume import Floats

#: Sub-volumes that say which cluster of one network is which of another: 20 for each of 100 clusters.
BRIDGED = 2000
BoxesOfCodes = Callable[[], Iterable[tuple[Floats, Floats]]]


class Coder(Network, Protocol):
    """A network that encodes and decodes; a ``codec.Codec`` is one."""

    @property
    def edge(self) -> int:
        """Voxels along the edge of a sub-volume."""

    def encode(self, boxes: Floats) -> Floats:
        """Codes (n, d) of sub-volumes (n, e, e, e), each of mean 0 and s.d. 1."""

    def decode(self, codes: Floats) -> Floats:
        """Sub-volumes (n, e, e, e) of codes (n, d)."""


def regroup(
    codes: Floats,
    codec: Coder,
    *,
    old: Clusters | None = None,
    groups: Groups | None = None,
    bridge: Bridge | None = None,
    boxes: BoxesOfCodes = tuple,
    k: int = K,
    seed: int = 1,
    restarts: int = RESTARTS,
    stop: Callable[[], bool] = never,
    progress: Progress = quiet,
) -> Followed | None:
    """Cluster ``codes`` float32 (n, d), all by the network ``codec``, and follow the ``old`` clusters; None if stopped.

    ``bridge``: only where the old clusters are of another network, see ``boxes_bridge``; without it their decoded
    centres are encoded anew. ``boxes()`` gives sub-volumes that were kept, some at a time, (m, e, e, e) with their
    codes (m, d) by this network: the average of each cluster is of them. Raises ``ValueError`` as ``cluster``.
    """
    if bridge is None and old is not None:
        bridge = Bridge(codes, codes) if old.network == codec.sha256 else centres_bridge(old, codec)
    first = None if old is None or bridge is None else _moved(old, bridge)
    new = cluster(codes, k=k, seed=seed, restarts=restarts, first=first, stop=stop, progress=progress)
    if not new.finished:
        return None
    decoded = codec.decode(new.codes)
    averages = averages_of(new, codec.edge, boxes, stop)
    if averages is None:
        return None
    average = (averages.averages(), averages.counts)
    return follow(old, new, decoded, codec, bridge=bridge, groups=groups, average=average, seed=seed)


def _moved(old: Clusters, bridge: Bridge) -> Floats:
    """Where the old clusters' sub-volumes are in the new space: means (m, d), the largest cluster first."""
    row = assign(bridge.before, old)[0]
    good = np.flatnonzero((row >= 0) & np.isfinite(bridge.after).all(axis=1))
    weight = np.ones(len(good)) if bridge.weight is None else bridge.weight[good]
    sums, total = np.zeros((len(old), bridge.after.shape[1])), np.zeros(len(old))
    np.add.at(sums, row[good], bridge.after[good] * weight[:, None])
    np.add.at(total, row[good], weight)
    order = np.argsort(-total, kind="stable")[: np.count_nonzero(total)]
    return (sums[order] / total[order, None]).astype(np.float32)


def averages_of(
    centres: Centres | Clusters, edge: int, boxes: BoxesOfCodes, stop: Callable[[], bool] = never
) -> Averages | None:
    """Averages of the sub-volumes of each cluster, in the order of its rows; None if stopped."""
    found = Averages(len(centres.codes), edge)
    for some, codes in boxes():
        if stop():
            return None
        found.add(some, assign(codes, centres)[0])
    return found


def boxes_bridge(old: Clusters, codec: Coder, before: Coder, boxes: BoxesOfCodes, most: int = BRIDGED) -> Bridge | None:
    """At most ``most`` of the sub-volumes that were kept, encoded by the old network as well.

    ``before``: the network of the ``old`` clusters; ``boxes`` as in ``regroup``. None where nothing is the same in both
    (see ``centres_bridge``), or nothing was kept. Raises ``ValueError`` where ``before`` is another network.
    """
    if before.sha256 != old.network:
        raise ValueError(f"the old clusters are of the network {old.network[:12]}, not of {before.sha256[:12]}")
    if not _comparable(old, codec):
        return None
    pairs: list[tuple[Floats, Floats]] = []
    for some, codes in boxes():
        room = most - sum(len(after) for _, after in pairs)
        if room <= 0:
            break
        if len(some):
            pairs.append((before.encode(some[:room]), codes[:room]))
    if not pairs:
        return None
    return Bridge(np.concatenate([one for one, _ in pairs]), np.concatenate([other for _, other in pairs]))


def centres_bridge(old: Clusters, codec: Coder) -> Bridge | None:
    """The old decoded centres, encoded by another network, each for all its members.

    None where that network takes sub-volumes of another size, voxel or pose: then nothing is the same in both.
    """
    if not _comparable(old, codec) or not len(old):
        return None
    rows = old.decoded.reshape(len(old), -1)
    deviation = rows.std(1, keepdims=True)
    level = (rows - rows.mean(1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    after = codec.encode(level.reshape(old.decoded.shape).astype(np.float32))
    return Bridge(old.codes, after, old.counts)


def _comparable(old: Clusters, codec: Coder) -> bool:
    """Whether a sub-volume is the same thing to both networks."""
    same_voxel = abs(old.voxel_a - codec.voxel_a) <= 0.01 * max(old.voxel_a, codec.voxel_a)
    return same_voxel and (old.edge, old.posed) == (codec.edge, codec.posed)
