"""``clusters.h5``: the clusters of a session, with numbers that stay, what their centres look like, and their history.

Each cluster has its centre's code, the decoded centre (what the network makes of the code) and the average of original
sub-volumes, which shows whether the network tells the truth of them.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .cluster import NONE, Counts, Ints, assign
from .volume import Floats
from .whole import write_whole

LAYOUT = "beamsieve clusters 1"
NAME = "clusters.h5"
MOST_EVENTS = 500

Halves: TypeAlias = npt.NDArray[np.float16]
_ARRAYS = {"ids": "<i4", "codes": "<f4", "counts": "<i8", "spread": "<f4", "decoded": "<f4"}
_ARRAYS |= {"average": "<f2", "averaged": "<i8"}


class ClustersError(ValueError):
    """A file that holds no clusters, or damaged ones. The message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to the cluster ``id``: one line of history, said in ``text``.

    ``kind``: ``split``, ``merged``, ``new``, ``gone`` as in ``classes2d.matching2d.Change``, or ``mark`` where a group
    gained or lost a cluster, or should be looked at. ``others``: clusters it came from or went to. ``version``: of the
    clustering; ``when``: Unix seconds.
    """

    kind: str
    id: int
    others: tuple[int, ...]
    text: str
    version: int = 0
    when: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The clusters of a session. Arrays are not written to once they are in here.

    ``ids`` int32 (k,), from 1, in the order of the rows of all that follows; ``codes`` float32 (k, d), centres;
    ``counts`` int64 (k,), members when they were made; ``spread`` float32 (k,), root mean squared distance of members;
    ``decoded`` float32 (k, e, e, e); ``average`` float16 (k, e, e, e) of ``averaged`` int64 (k,) member sub-volumes as
    they were encoded, 0 where there is none; ``network``, ``name``:
    SHA-256 and name of the bundle that encoded; ``posed``: of pose-normalised sub-volumes; ``voxel_a``: ångström per
    voxel of them; ``version``: counts clusterings, from 1; ``next_id``: the first number never used; ``seed``;
    ``events``: the newest last; ``written``: Unix seconds.
    """

    ids: Ints
    codes: Floats
    counts: Counts
    spread: Floats
    decoded: Floats
    average: Halves
    averaged: Counts
    network: str
    name: str = ""
    posed: bool = False
    voxel_a: float = 0.0
    version: int = 1
    next_id: int = 1
    seed: int = 1
    inertia: float = 0.0
    events: tuple[Event, ...] = field(default=())
    written: float = 0.0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def edge(self) -> int:
        """Voxels along the edge of a sub-volume."""
        return int(self.decoded.shape[1])

    def assign(self, codes: Floats) -> tuple[Ints, Floats]:
        """Number of the nearest cluster for each code (n, d), int32 (n,), 0 for codes without a direction; distance.

        Distances as in ``cluster.assign``.
        """
        row, distance = assign(codes, self)
        known = np.concatenate([self.ids, np.zeros(1, np.int32)])
        # Row -1 is the last: no cluster.
        assert NONE == -1
        return known[row].astype(np.int32), distance

    def row(self, number: int) -> int:
        """The row of a cluster. Raises ``KeyError``."""
        found = np.flatnonzero(self.ids == number)
        if not len(found):
            raise KeyError(f"there is no cluster {number}")
        return int(found[0])


class Averages:
    """Running averages of the sub-volumes of ``k`` clusters, in memory that does not grow with their number."""

    def __init__(self, k: int, edge: int) -> None:
        self._sums = np.zeros((k, edge, edge, edge), np.float64)
        self._counts = np.zeros(k, np.int64)

    def add(self, boxes: npt.NDArray[np.floating[Any]], rows: Ints) -> None:
        """Take in boxes (n, e, e, e) whose clusters are ``rows`` (n,), -1 for none. Boxes not finite are left out."""
        for box, row in zip(boxes, rows.tolist(), strict=True):
            if row >= 0 and np.isfinite(box).all():
                self._sums[row] += box
                self._counts[row] += 1

    @property
    def counts(self) -> Counts:
        """Sub-volumes in each average, int64 (k,)."""
        return self._counts.copy()

    def averages(self) -> Halves:
        """The averages, float16 (k, e, e, e); 0 for a cluster without sub-volumes."""
        return (self._sums / np.maximum(self._counts, 1)[:, None, None, None]).astype(np.float16)


def write_clusters(path: Path, clusters: Clusters) -> None:
    """Write the file as a whole. Raises ``OSError``."""
    write_whole(path, encode_clusters(clusters))


def encode_clusters(clusters: Clusters) -> bytes:
    """The file's bytes, made in memory: HDF5 does not survive a disk that is full."""
    import h5py

    with h5py.File("clusters", "w", driver="core", backing_store=False, libver=("earliest", "v110")) as file:
        file.attrs["layout"] = LAYOUT
        for name in ("network", "name", "posed", "voxel_a", "version", "next_id", "seed", "inertia", "written"):
            file.attrs[name] = getattr(clusters, name)
        for name, dtype in _ARRAYS.items():
            file[name] = getattr(clusters, name).astype(dtype, copy=False)
        lines = [_line(event) for event in clusters.events[-MOST_EVENTS:]]
        file["events"] = np.array(lines, h5py.string_dtype())
        file.flush()
        return bytes(file.id.get_file_image())


def _line(event: Event) -> str:
    names = ("kind", "id", "others", "text", "version", "when")
    return json.dumps({name: getattr(event, name) for name in names}, ensure_ascii=True)


def read_clusters(path: Path) -> Clusters | None:
    """What the file holds; None where there is none. Raises ``ClustersError`` where it is damaged, ``OSError``."""
    import h5py

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return _clusters(file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise ClustersError(
            f"{path}: is no file of clusters, or damaged ({error}); move it away, and marks of its clusters are lost"
        ) from error


def _clusters(file: Any) -> Clusters:
    attrs = file.attrs
    if attrs.get("layout") != LAYOUT:
        raise ValueError(f"layout {attrs.get('layout')!r}, known is {LAYOUT!r}")
    events = [json.loads(line) for line in file["events"].asstr()[()]]
    clusters = Clusters(
        **{name: file[name][()].astype(dtype, copy=False) for name, dtype in _ARRAYS.items()},
        network=str(attrs["network"]),
        name=str(attrs["name"]),
        posed=bool(attrs["posed"]),
        voxel_a=float(attrs["voxel_a"]),
        version=int(attrs["version"]),
        next_id=int(attrs["next_id"]),
        seed=int(attrs["seed"]),
        inertia=float(attrs["inertia"]),
        events=tuple(Event(**{**event, "others": tuple(event["others"])}) for event in events),
        written=float(attrs["written"]),
    )
    _check(clusters)
    return clusters


def _check(c: Clusters) -> None:
    """Arrays that do not fit each other would give sub-volumes the numbers of other clusters."""
    k, e = len(c.ids), c.decoded.shape[-1]
    fit = c.codes.ndim == 2 and len(c.codes) == k and c.decoded.shape == c.average.shape == (k, e, e, e)
    if not fit or any(array.shape != (k,) for array in (c.ids, c.counts, c.spread, c.averaged)):
        raise ValueError(f"{k} numbers, centres {c.codes.shape}, decoded {c.decoded.shape}: they do not fit")
    if len(np.unique(c.ids)) != k or (k and (c.ids.min() < 1 or c.ids.max() >= c.next_id)):
        raise ValueError("numbers of clusters that are used twice, or not below the next one")
    if not np.isfinite(c.codes).all():
        raise ValueError("centres that are not finite")
