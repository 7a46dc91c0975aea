"""Stands in for the worker that mines: made-up clusters, groups and tomograms, which tests change as they like."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from beamsieve.models.tomograms.groups import Groups
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.live.mining_view import ClusterView, Group, Mining, Network, Tomogram
from beamsieve.stream.live.page import Refused
from beamsieve.stream.sinks.tomograms.mined import LabelFiles, MinedTomogram, Picked, Slices
from beamsieve.stream.sinks.tomograms.record import encode

EDGE = 32
SINCE = 1.8e9
SHAPE = (60, 200, 220)
VOXEL_A = 7.1
NETWORK = "3fa9c1d2" * 8
Bytes = npt.NDArray[np.uint8]


def density(number: int) -> npt.NDArray[np.float64]:
    """What cluster ``number`` shows, (32, 32, 32) from 0 to 1: a slab of membrane, a globule, or a pair of them."""
    rng = np.random.default_rng(number)
    z, y, x = np.mgrid[:EDGE, :EDGE, :EDGE] - EDGE / 2
    if number % 3 == 0:
        angle = rng.uniform(0, math.pi)
        far = np.abs(x * math.cos(angle) + y * math.sin(angle) + 0.02 * y**2)
        found = np.exp(-((far - 3) ** 2) / 3) + np.exp(-((far + 3) ** 2) / 3)
    elif number % 3 == 1:
        found = 1 / (1 + np.exp(np.sqrt(x**2 + y**2 + (z / 1.2) ** 2) - rng.uniform(5, 8)))
    else:
        at = rng.uniform(-7, 7, 3)
        found = sum(np.exp(-((x - s * at[0]) ** 2 + (y - s * at[1]) ** 2 + (z - s * at[2]) ** 2) / 14) for s in (1, -1))
    found = found + rng.normal(0, 0.06, found.shape)
    scaled: npt.NDArray[np.float64] = np.clip((found - found.min()) / np.ptp(found), 0, 1)
    return scaled


def cluster(number: int, count: int, **changes: Any) -> ClusterView:
    """A cluster of ``count`` sub-volumes."""
    found = density(number)
    half = EDGE // 2
    slices = np.stack([found[half], found[:, half], found[:, :, half]])
    flat = found.sum(0)
    projection = (flat - flat.min()) / np.ptp(flat)
    whole, cut = (np.rint(255 * one).astype(np.uint8) for one in (projection, slices))
    return replace(ClusterView(number, count, 0.0, "", whole, cut, 0.4 + 0.01 * (number % 20)), **changes)


class FakeMining:
    """Implements ``MiningLevers``. ``now`` is what it shows; ``change`` gives another one."""

    def __init__(self, n: int = 24) -> None:
        views = [cluster(i + 1, round(900 * 0.93**i) + 5) for i in range(n)]
        self.groups = Groups()
        self.asked: list[tuple[Any, ...]] = []
        self.refuse = ""
        whole = sum(view.count for view in views)
        self.now = Mining(
            version=1, mode="explore", state="ready" if n else "waiting", have=whole or 412, need=2 * whole or 500,
            network=Network("tomograms-general", NETWORK, trained=False), pixel_a=14.2,
            clusters=tuple(replace(view, share=view.count / whole) for view in views),
        )  # fmt: skip

    def current(self) -> Mining:
        return self.now

    def change(self, **changes: Any) -> None:
        self.now = replace(self.now, **{"version": self.now.version + 1, **changes})

    def mark(self, ids: tuple[int, ...], group: str, by: str) -> None:
        self._do(("mark", ids, group, by), self.groups.mark(group, ids))

    def unmark(self, ids: tuple[int, ...], by: str) -> None:
        self._do(("unmark", ids, by), self.groups.unmark(ids))

    def new_group(self, name: str, kind: str, by: str) -> None:
        known: Any = kind
        self._do(("new", name, kind, by), self.groups.add(name, known))

    def _do(self, asked: tuple[Any, ...], groups: Groups) -> None:
        self.asked.append(asked)
        if self.refuse:
            raise Refused(self.refuse)
        self.groups = groups
        marks = groups.marks()
        told = tuple(Group(one.name, one.kind, one.colour, one.clusters) for one in groups.groups)
        views = tuple(replace(view, mark=marks.get(view.id, "")) for view in self.now.clusters)
        self.change(groups=told, clusters=views, mode="annotate" if marks else "explore")


def tomogram(folder: Path, number: int, n: int = 24, *, names: tuple[str, ...] = (), **changes: Any) -> Tomogram:
    """A row with its record and, where there are class ``names``, its label volume: one label for each z."""
    rng = np.random.default_rng(number)
    nz, ny, nx = SHAPE
    picks = 120 + 7 * number
    xyz = np.stack([rng.uniform(0, edge - 1, picks) for edge in (nx, ny, nz)], 1).astype(np.float32)
    clusters = np.minimum(rng.geometric(0.12, picks), max(n, 1)).astype(np.int32) * (n > 0)
    z, y, x = np.mgrid[:nz, :ny, :nx]
    ring = np.abs(np.hypot(np.hypot(x - nx / 2, y - ny / 2), 1.5 * (z - nz / 2)) - 70) < 3
    data = rng.normal(150, 25, SHAPE) - 70 * ring
    grey = np.clip(data, 0, 255).astype(np.uint8)
    middle = (nx // 2, ny // 2, nz // 2)
    xy, xz, yz = (_halved(one) for one in (grey[middle[2]], grey[:, middle[1]], grey[:, :, middle[0]]))
    name = f"grid2/Position_{number:02d}.mrc"
    labels = folder / f"{number}_labels.mrc" if names else None
    found = MinedTomogram(
        name=name, path=folder / name, shape=SHAPE, voxel_a=VOXEL_A, working_voxel_a=14.2,
        picked=Picked.of(xyz, rng.gamma(3, 1, picks).astype("f4"), np.zeros((picks, 32), "f4"), cluster=clusters),
        network="tomograms-general", network_sha256=NETWORK, threshold=2.0, classes=names,
        slices=Slices(xy, xz, yz, factor=2, at=middle),
        segmentation=None if labels is None else LabelFiles(labels, names),
    )  # fmt: skip
    record = folder / f"{number}.h5"
    record.write_bytes(encode(found, stem=f"Position_{number:02d}", path=record))
    if labels is not None:
        with MrcWriter(labels, SHAPE, 0, VOXEL_A) as writer:
            writer.write(np.where(ring, 1, 0).astype(np.int8))
    by_cluster = dict(
        zip(*(values.tolist() for values in np.unique(clusters[clusters > 0], return_counts=True)), strict=True)
    )
    row = Tomogram(
        id=f"t{number:03d}", name=name, time=SINCE + 300 * number, shape=SHAPE, voxel_a=VOXEL_A, picks=picks,
        by_class={"": picks}, by_cluster=by_cluster, error=0.5 + 0.02 * math.sin(number), seconds=41.0,
        mode="annotate" if names else "explore", record=record, labels=labels, network=NETWORK,
    )  # fmt: skip
    return replace(row, **changes)


def _halved(image: Bytes) -> Bytes:
    ny, nx = image.shape
    found: Bytes = image.reshape(ny // 2, 2, nx // 2, 2).mean((1, 3)).astype(np.uint8)
    return found
