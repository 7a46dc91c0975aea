"""Sub-volumes to train on: cut from simulated tomograms with their clean twins, or from tomograms as they are.

They are picked, cut and posed as in mining, so that a network learns on what it will be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .boxes import Bools, boxes
from .bundles import EDGE, VOXEL_A
from .dog import DogOptions, pick
from .pose import Poses, posed_boxes, poses
from .scene import SceneOptions
from .simulator import simulate
from .statistics import statistics
from .told import Progress, Stop, Told
from .truth import groups_near
from .volume import ArrayVolume, Floats, Volume
from .working import Working

Rows = npt.NDArray[np.intp]

LEAST = 16
_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Sub-volumes: ``boxes`` (n, e, e, e) float16 or float32, each of mean 0 and s.d. 1 (bright), maybe memory-mapped.

    ``clean``: the same without noise, in the same units, where it is known. ``group``: int (n,), the number of the
    tomogram; ``label``: uint8 (n,), the class at the middle, where it is known. ``source``: words for the card.
    """

    boxes: npt.NDArray[np.floating]
    group: npt.NDArray[np.int64]
    clean: npt.NDArray[np.floating] | None = None
    label: npt.NDArray[np.uint8] | None = None
    source: str = "sub-volumes"

    def __post_init__(self) -> None:
        if self.boxes.ndim != 4 or len(set(self.boxes.shape[1:])) != 1:
            raise ValueError(f"sub-volumes: {self.boxes.shape} is not (n, edge, edge, edge)")
        for name, other in (("group", self.group), ("label", self.label), ("clean", self.clean)):
            if other is not None and len(other) != len(self.boxes):
                raise ValueError(f"{name}: {len(other)} for {len(self.boxes)} sub-volumes")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def edge(self) -> int:
        """Voxels along a side."""
        return int(self.boxes.shape[-1])


@dataclass(frozen=True, slots=True)
class PracticeOptions:
    """What is simulated to train on: see ``SceneOptions``.

    ``tomograms``: how many; their seeds count on from ``seed``. ``snr``: least and most, drawn evenly on a logarithmic
    scale. ``posed``: turn sub-volumes into their poses. ``most``: of one tomogram, the best picks. ``shape``: voxels.
    """

    tomograms: int = 8
    seed: int = 1000
    snr: tuple[float, float] = (0.05, 0.3)
    posed: bool = False
    most: int = 600
    shape: tuple[int, int, int] = (64, 192, 192)
    edge: int = EDGE
    voxel_a: float = VOXEL_A
    dog: DogOptions = field(default_factory=DogOptions)


def simulated_sample(options: PracticeOptions, progress: Progress | None = None, stop: Stop | None = None) -> Sample:
    """Sub-volumes of simulated tomograms, with clean twins and classes. Raises ``told.Stopped`` when told to stop."""
    told, made = Told(progress, stop), []
    for number in range(options.tomograms):
        told("simulate tomograms", number, options.tomograms)
        made.append(_of_simulated(options.seed + number, options))
    told("simulate tomograms", options.tomograms, options.tomograms)
    return together(made)


def tomogram_sample(
    volume: Volume,
    options: PracticeOptions,
    *,
    bright: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
    threads: int = 2,
) -> Sample:
    """Sub-volumes of a tomogram as it is: the best picks, a batch at a time; ``bright``: density is bright in it.

    Raises ``told.Stopped``, and what ``Working`` and reading raise.
    """
    known = statistics(volume, threads=threads, progress=progress, stop=stop)
    working = Working(volume, options.voxel_a, bright=bright, statistics=known, box=options.edge)
    xyz = pick(working, options.dog, progress=progress, stop=stop, threads=threads).xyz[: options.most]
    told, parts = Told(progress, stop), [np.zeros((0, *(options.edge,) * 3), np.float16)]
    for first in range(0, len(xyz), _AT_ONCE):
        told("cut", first, len(xyz))
        seen, good, _ = _seen(working, xyz[first : first + _AT_ONCE], options)
        parts.append(seen[good].astype(np.float16))
    found = np.concatenate(parts)
    return Sample(found, np.zeros(len(found), np.int64), source="tomograms as they are")


def together(samples: Sequence[Sample]) -> Sample:
    """One sample of several, whose tomograms are numbered on; what not all know is left out.

    Raises ``ValueError`` where there is none, or their edges differ.
    """
    if not samples or len({one.edge for one in samples}) != 1:
        raise ValueError("no sub-volumes to train on" if not samples else "sub-volumes of several edges")
    firsts = np.cumsum([0, *(int(one.group.max(initial=-1)) + 1 for one in samples)])
    clean = [one.clean for one in samples if one.clean is not None]
    label = [one.label for one in samples if one.label is not None]
    return Sample(
        np.concatenate([one.boxes for one in samples]),
        np.concatenate([one.group + first for one, first in zip(samples, firsts, strict=False)]),
        np.concatenate(clean) if len(clean) == len(samples) else None,
        np.concatenate(label) if len(label) == len(samples) else None,
        samples[0].source,
    )


def split(sample: Sample, share: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on, and rows held back, about a ``share`` of all: whole tomograms where there are three or more.

    Of one or two, sub-volumes are drawn, as published. Raises ``ValueError`` for fewer than 16 sub-volumes.
    """
    n = len(sample)
    if n < LEAST:
        raise ValueError(f"{n} sub-volumes are too few to train on; at least {LEAST} are needed")
    rng = np.random.default_rng([seed, 9])
    numbers = rng.permutation(np.unique(sample.group))
    wanted = max(1, round(share * n))
    if len(numbers) < 3:
        order = rng.permutation(n)
        return np.sort(order[wanted:]), np.sort(order[:wanted])
    chosen: list[int] = []
    for number in numbers[:-1].tolist():
        if np.isin(sample.group, chosen).sum() >= wanted:
            break
        chosen.append(number)
    held = np.isin(sample.group, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _of_simulated(seed: int, options: PracticeOptions) -> Sample:
    low, high = np.log(options.snr)
    snr = float(np.exp(np.random.default_rng([seed, 3]).uniform(low, high)))
    made = simulate(seed, SceneOptions(shape=options.shape, voxel_a=options.voxel_a, snr=snr))
    working = Working(ArrayVolume(made.data, made.voxel_a), options.voxel_a, box=options.edge)
    xyz = pick(working, options.dog).xyz[: options.most]
    pure = Working(
        ArrayVolume(made.clean, made.voxel_a), options.voxel_a, statistics=working.statistics, box=options.edge
    )
    seen, clean, good = _twins(working, pure, xyz, options)
    return Sample(
        seen[good].astype(np.float16),
        np.zeros(int(good.sum()), np.int64),
        clean[good].astype(np.float16),
        groups_near(made.labels, xyz[good]),
        f"simulated tomograms, SNR {options.snr[0]:g} to {options.snr[1]:g}",
    )


def _twins(noisy: Volume, pure: Volume, xyz: Floats, options: PracticeOptions) -> tuple[Floats, Floats, Bools]:
    """Sub-volumes, those without noise in the same units, and which are good."""
    seen, good, turned = _seen(noisy, xyz, options)
    if turned is not None:
        clean, _ = posed_boxes(pure, xyz, turned, options.edge)
    else:
        clean, _ = boxes(pure, xyz, options.edge)
    # Both have s.d. 1 of themselves. Noise is independent of the signal: their product's mean is the signal's share.
    share = np.maximum((seen * clean).mean((1, 2, 3), keepdims=True), 0)
    return seen, clean * share, good


def _seen(volume: Volume, xyz: Floats, options: PracticeOptions) -> tuple[Floats, Bools, Poses | None]:
    """Sub-volumes as mining cuts them, which are good, and their poses."""
    seen, good = boxes(volume, xyz, options.edge)
    if not options.posed:
        return seen, good, None
    turned = poses(seen)
    seen, good = posed_boxes(volume, xyz, turned, options.edge)
    return seen, good, turned
