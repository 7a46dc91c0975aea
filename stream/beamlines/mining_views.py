"""What the page sees of clusters and groups: frozen pictures of them, made once for each clustering."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...models.tomograms.book import Clusters
from ...models.tomograms.groups import Groups
from ...models.tomograms.sheet import views
from ..live.mining_view import MOST_CLUSTERS, Bytes, ClusterView, Group, Mining
from .mining_rows import Entry

Floats = npt.NDArray[np.float32]
_GREYS = (0.5, 99.5)


class Pictures:
    """Slices and projections of the clusters' decoded centres. For one thread."""

    def __init__(self) -> None:
        self._of: Clusters | None = None
        self._made: dict[int, tuple[Bytes, Bytes]] = {}

    def of(self, clusters: Clusters) -> Mapping[int, tuple[Bytes, Bytes]]:
        """(projection (e, e), slices (3, e, e)) by the number of the cluster."""
        if clusters is not self._of:
            drawn = map(_drawn, clusters.decoded)
            self._made = dict(zip(clusters.ids.tolist(), drawn, strict=True))
            self._of = clusters
        return self._made


def _drawn(volume: Floats) -> tuple[Bytes, Bytes]:
    seen = views(volume)
    return grey(seen[3]), grey(seen[:3])


def grey(values: Floats) -> Bytes:
    """All of it on one scale of greys, uint8."""
    low, high = np.percentile(values, _GREYS)
    found: Bytes = (np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).round().astype(np.uint8)
    found.flags.writeable = False
    return found


def cluster_views(
    clusters: Clusters | None, groups: Groups, entries: Iterable[Entry], pictures: Pictures
) -> tuple[ClusterView, ...]:
    """The clusters with their members of now, the largest first."""
    if clusters is None:
        return ()
    counts, errors = members(entries)
    total, marks, drawn = max(1, counts.total()), groups.marks(), pictures.of(clusters)
    found = [
        ClusterView(
            id=number,
            count=counts[number],
            share=counts[number] / total,
            mark=marks.get(number, ""),
            projection=drawn[number][0],
            slices=drawn[number][1],
            error=errors.get(number, 0.0) / counts[number] if counts[number] else math.nan,
            version=clusters.version,
        )
        for number in clusters.ids.tolist()
    ]
    return tuple(sorted(found, key=lambda view: (-view.count, view.id)))[:MOST_CLUSTERS]


def members(entries: Iterable[Entry]) -> tuple[Counter[int], dict[int, float]]:
    """Sub-volumes by cluster, those of none (0) as well; and the sums of their errors of reconstruction."""
    counts: Counter[int] = Counter()
    errors: dict[int, float] = {}
    for entry in entries:
        counts.update(entry.row.by_cluster)
        for number, error in entry.errors.items():
            errors[number] = errors.get(number, 0.0) + error
    return counts, errors


def group_views(groups: Groups) -> tuple[Group, ...]:
    """The groups as the page has them."""
    return tuple(Group(group.name, group.kind, group.colour, group.clusters) for group in groups.groups)


def regrouped(mining: Mining, groups: Groups, version: int) -> Mining:
    """The same with groups that were changed since."""
    marks = groups.marks()
    clusters = tuple(replace(view, mark=marks.get(view.id, "")) for view in mining.clusters)
    found = replace(mining, version=version, clusters=clusters, groups=group_views(groups))
    return replace(found, mode="annotate" if groups else "explore")
