"""From a tomogram to codes: pick, cut out, turn, encode (Zeng et al. 2018, sections 2.3, 2.5 and 3.2).

What is in memory at a time is bounded: some planes of the working volume and a batch of boxes. Every voxel is read
three times: for the statistics, for the picks, for the boxes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..particles.dense import single_thread
from ..runner import usable_cores
from .ahead import ahead
from .boxes import Bools, boxes
from .dog import DogOptions, Picks, pick
from .pose import Poses, posed_boxes, poses, reach
from .slabs import DEEP, Rows, Slabs, by_slab
from .statistics import Statistics, statistics
from .told import Progress, Stop, Told
from .volume import Floats, Volume
from .working import Working

_TOGETHER = 32
STAGES = ("statistics", "pick", "boxes", "pose", "encode", "error")


class Encoder(Protocol):
    """What a miner needs of a network: ``codec.Codec`` is one. Called by one thread at a time."""

    edge: int
    voxel_a: float
    posed: bool
    codes: int

    def encode(self, boxes: Floats, /) -> Floats:
        """Codes (n, 32) of boxes (n, e, e, e)."""

    def error(self, boxes: Floats, codes: Floats, /) -> Floats:
        """How much of each box is not reconstructed from its code, (n,): see ``codec.Codec.error``."""


@dataclass(frozen=True, slots=True)
class MineOptions:
    """How to mine.

    ``dog``: lengths in working voxels. ``edge``: of a box, in voxels; None: the network's. ``posed``: turn boxes into
    their poses; None: as the network was trained. ``batch``: boxes in memory at a time. ``most``: picks of a tomogram;
    of more, the best are kept.
    """

    dog: DogOptions = field(default_factory=DogOptions)
    edge: int | None = None
    posed: bool | None = None
    batch: int = 128
    most: int = 40_000

    def __post_init__(self) -> None:
        for name, value in (("batch", self.batch), ("most", self.most)):
            if value < 1:
                raise ValueError(f"{name}: {value} is less than 1")


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """Sub-volumes of a tomogram, the best pick first.

    ``xyz``: float32 (n, 3), voxels of the file; ``score``: (n,) of the pick, in s.d.; ``codes``: float32 (n, 32);
    ``error``: (n,) share of each box that its code does not hold; ``rotation`` (n, 3, 3) and ``shift`` (n, 3): the
    poses, or 1 and 0 (see ``pose``). ``seconds``: by stage (``STAGES``). ``picked``: picks before those without a good
    box went.
    """

    xyz: Floats
    score: Floats
    codes: Floats
    error: Floats
    rotation: Floats
    shift: Floats
    edge: int
    posed: bool
    picked: int
    seconds: Mapping[str, float]
    working: Working

    def __len__(self) -> int:
        return len(self.xyz)


class Miner:
    """Mines tomograms, one at a time, with one network. ``threads``: that pick, cut and turn; None: one per core.

    Raises ``ValueError`` for an edge that is not the network's.
    """

    def __init__(self, codec: Encoder, options: MineOptions | None = None, *, threads: int | None = None) -> None:
        self.codec, self.options, self.threads = codec, options or MineOptions(), threads or usable_cores()
        self.edge = codec.edge if self.options.edge is None else self.options.edge
        if self.edge != codec.edge:
            raise ValueError(f"edge: {self.edge}, but the network is for boxes of {codec.edge}; leave it out")
        self.posed = codec.posed if self.options.posed is None else self.options.posed

    def mine(
        self, volume: Volume, *, bright: bool = False, progress: Progress | None = None, stop: Stop | None = None
    ) -> Mined:
        """Pick, cut out, turn and encode ``volume``, a tomogram as it is in its file.

        ``bright``: density is bright in it. ``progress(what, done, of)`` is called with the names of the stages.
        Raises ``ValueError`` for a tomogram that cannot be worked on (see ``Working``), ``Stopped`` when ``stop()``
        says so, and what reading raises.
        """
        clock, told = _Clock(), Told(progress, stop)
        with clock("statistics"):
            found: Statistics = statistics(volume, threads=self.threads, progress=told)
            working = Working(volume, self.codec.voxel_a, bright=bright, statistics=found, box=self.edge)
        with clock("pick"):
            picks = pick(working, self.options.dog, progress=told, threads=self.threads)
        return self._encoded(working, picks, clock, told)

    def boxes_of(self, mined: Mined, rows: npt.ArrayLike) -> Floats:
        """The boxes (m, e, e, e) of some rows, as they were encoded."""
        some = np.asarray(rows)
        places = mined.working.to_work(mined.xyz[some])
        if mined.posed:
            return posed_boxes(mined.working, places, Poses(mined.rotation[some], mined.shift[some]), mined.edge)[0]
        return boxes(mined.working, places, mined.edge)[0]

    def _encoded(self, working: Working, picks: Picks, clock: _Clock, told: Told) -> Mined:
        xyz, score = picks.xyz[: self.options.most], picks.score[: self.options.most]
        n, around = len(xyz), reach(self.edge) if self.posed else self.edge // 2 + 1
        codes = np.zeros((n, self.codec.codes), np.float32)
        error, good = np.zeros(n, np.float32), np.zeros(n, np.bool_)
        turned = Poses(np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)), np.zeros((n, 3), np.float32))
        slabs, done = Slabs(working, DEEP + 2 * around), 0
        for here, first in by_slab(xyz, working.shape):
            with clock("boxes"):
                slabs.move(first - around, first + DEEP + around)
            for start in range(0, len(here), self.options.batch):
                rows = here[start : start + self.options.batch]
                cut, good[rows] = self._cut(slabs, xyz[rows], turned, rows, clock)
                with clock("encode"):
                    codes[rows] = self.codec.encode(cut)
                with clock("error"):
                    error[rows] = self.codec.error(cut, codes[rows])
                done += len(rows)
                told("encode", done, n)
        return Mined(
            working.to_file(xyz[good]), score[good], codes[good], error[good], turned.rotation[good],
            turned.shift[good], self.edge, self.posed, len(picks.xyz), clock.seconds, working,
        )  # fmt: skip

    def _cut(self, slabs: Slabs, xyz: Floats, turned: Poses, rows: Rows, clock: _Clock) -> tuple[Floats, Bools]:
        """The boxes of some rows, as they are encoded; their poses go into ``turned``."""
        some = [slice(first, first + _TOGETHER) for first in range(0, len(xyz), _TOGETHER)]
        with single_thread():
            with clock("boxes"):
                straight = list(ahead(lambda part: boxes(slabs, xyz[part], self.edge), some, self.threads))
            if not self.posed:
                return _joined(straight)
            with clock("pose"):
                found = list(ahead(lambda pair: poses(pair[0]), straight, self.threads))
                turned.rotation[rows] = np.concatenate([one.rotation for one in found])
                turned.shift[rows] = np.concatenate([one.shift for one in found])
                pairs = zip(some, found, strict=True)
                return _joined(
                    list(ahead(lambda pair: posed_boxes(slabs, xyz[pair[0]], pair[1], self.edge), pairs, self.threads))
                )


def _joined(parts: list[tuple[Floats, Bools]]) -> tuple[Floats, Bools]:
    return np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts])


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began
