"""Sub-volumes to train on: cut from simulated tomograms with their clean twins, or from tomograms as they are.

They are picked, cut and posed as in mining, so that a network learns on what it will be given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .boxes import boxes
from .bundles import EDGE, VOXEL_A
from .dog import DogOptions, pick
from .pose import posed_boxes, poses
from .scene import SceneOptions
from .simulator import Simulated, simulate
from .volume import ArrayVolume, Floats, Volume
from .working import Working

Progress = Callable[[str, int, int], None]
Stop = Callable[[], bool]

_NEAR = 4
"""Voxels around a pick in which its class is looked for."""
_LEAST = 0.1
"""Share of them that a class must have, else it is the background."""


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

    def save(self, path: Path) -> None:
        """Write all of it as ``.npz``, beside its name and then renamed."""
        given = {"clean": self.clean, "label": self.label}
        part = path.with_name(path.name + ".inprogress")
        with part.open("wb") as file:
            np.savez(
                file,
                boxes=self.boxes,
                group=self.group,
                source=np.array(self.source),
                **{name: array for name, array in given.items() if array is not None},
            )
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Sample:
        """What ``save`` wrote. Raises ``ValueError`` where it is none, ``OSError``."""
        try:
            with np.load(path, allow_pickle=False) as file:
                names = {name: file[name] for name in file.files}
            source = str(names.pop("source"))
            return cls(**names, source=source)
        except (KeyError, TypeError, EOFError) as error:
            raise ValueError(f"{path}: holds no sub-volumes to train on ({error}); delete it") from error

    def joined(self, other: Sample) -> Sample:
        """Both, if both know the same; tomograms of the second are numbered on."""
        first = int(self.group.max(initial=-1)) + 1
        both = {"boxes": np.concatenate([self.boxes, other.boxes])}
        for name in ("clean", "label"):
            a, b = getattr(self, name), getattr(other, name)
            both[name] = np.concatenate([a, b]) if a is not None and b is not None else None
        return Sample(**both, group=np.concatenate([self.group, other.group + first]), source=self.source)


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
    """Sub-volumes of simulated tomograms, clean twins and classes; raises ``InterruptedError`` when told to stop."""
    found: Sample | None = None
    for number in range(options.tomograms):
        if stop is not None and stop():
            raise InterruptedError("stopped while tomograms were simulated")
        if progress is not None:
            progress("simulate tomograms", number, options.tomograms)
        one = _of_simulated(options.seed + number, options)
        found = one if found is None else found.joined(one)
    if found is None or not len(found):
        raise ValueError("nothing was picked in the simulated tomograms; more or larger ones are needed")
    if progress is not None:
        progress("simulate tomograms", options.tomograms, options.tomograms)
    return found


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
        _classes(made, xyz[good]),
        f"simulated tomograms, SNR {options.snr[0]:g} to {options.snr[1]:g}",
    )


def _twins(
    noisy: Volume, pure: Volume, xyz: Floats, options: PracticeOptions
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Sub-volumes, those without noise in the same units, and which are good."""
    seen, good = boxes(noisy, xyz, options.edge)
    if options.posed:
        found = poses(seen)
        seen, good = posed_boxes(noisy, xyz, found, options.edge)
        clean, _ = posed_boxes(pure, xyz, found, options.edge)
    else:
        clean, _ = boxes(pure, xyz, options.edge)
    # Both have s.d. 1 of themselves. Noise is independent of the signal: their product's mean is the signal's share.
    share = np.maximum((seen * clean).mean((1, 2, 3), keepdims=True), 0)
    return seen, clean * share, good


def _classes(made: Simulated, xyz: Floats) -> npt.NDArray[np.uint8]:
    """The most frequent class but the background within a few voxels of each position."""
    found = np.zeros(len(xyz), np.uint8)
    for row, (x, y, z) in enumerate(np.rint(xyz).astype(int).tolist()):
        near = made.labels[tuple(slice(max(at - _NEAR, 0), at + _NEAR + 1) for at in (z, y, x))]
        counts = np.bincount(near.ravel(), minlength=len(made.classes))
        best = int(np.argmax(counts[1:])) + 1
        found[row] = best if counts[best] >= _LEAST * near.size else 0
    return found
