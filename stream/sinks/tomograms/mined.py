"""What is known of a tomogram when its sub-volumes are written: the one value that every writer here takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ...formats.volume_slices import Slices

__all__ = ["UNMARKED", "Kept", "LabelFiles", "MinedTomogram", "Picked", "Segmentation", "Slab", "Slices"]

Shape: TypeAlias = tuple[int, int, int]
Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]
UNMARKED = "unmarked"


class Slab(Protocol):
    """Planes of the file from ``z0`` on, as ``models.tomograms.segment`` gives them.

    ``labels`` u1 (dz, y, x), 0 background; ``probabilities`` f2 (1 + classes, dz, y, x), the background first.
    """

    @property
    def z0(self) -> int:
        """The first plane."""

    @property
    def labels(self) -> Bytes:
        """Label values."""

    @property
    def probabilities(self) -> npt.NDArray[np.float16]:
        """One per class and voxel."""


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """Sub-volumes, n of them, in one order. Positions count voxels of the file, the middle of the first is 0.

    ``xyz``: float32 (n, 3). ``score``: float32 (n,), of the picker, in standard deviations. ``error``: float32 (n,),
    mean squared error of the reconstruction. ``cluster``: int32 (n,), 0: none. ``label``: uint8 (n,), the label value
    of the class its cluster is marked as, 0: none. ``rotation``: float32 (n, 3, 3) and ``shift``: float32 (n, 3), in
    voxels of the network, of the pose; identity and 0 where poses are not normalised. ``codes``: float32 (n, 32).
    """

    xyz: Floats
    score: Floats
    error: Floats
    cluster: npt.NDArray[np.int32]
    label: Bytes
    codes: Floats
    rotation: Floats
    shift: Floats

    def __len__(self) -> int:
        return len(self.xyz)

    @classmethod
    def of(
        cls,
        xyz: Floats,
        score: Floats,
        codes: Floats,
        *,
        error: Floats | None = None,
        cluster: npt.NDArray[np.integer] | None = None,
        label: npt.NDArray[np.integer] | None = None,
        rotation: Floats | None = None,
        shift: Floats | None = None,
    ) -> Picked:
        """The same from what is known; the rest is NaN, 0, identity. Raises ``ValueError`` for lengths that differ."""
        n = len(xyz)
        made = cls(
            np.asarray(xyz, np.float32).reshape(n, 3),
            np.asarray(score, np.float32),
            np.full(n, np.nan, np.float32) if error is None else np.asarray(error, np.float32),
            np.zeros(n, np.int32) if cluster is None else np.asarray(cluster, np.int32),
            np.zeros(n, np.uint8) if label is None else np.asarray(label, np.uint8),
            np.asarray(codes, np.float32),
            np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)) if rotation is None else np.asarray(rotation, np.float32),
            np.zeros((n, 3), np.float32) if shift is None else np.asarray(shift, np.float32),
        )
        made.check()
        return made

    def check(self) -> None:
        """Raises ``ValueError`` where columns are not of one length, or of another shape than is said."""
        n = len(self.xyz)
        wanted = {"xyz": (n, 3), "score": (n,), "error": (n,), "cluster": (n,), "label": (n,)}
        wanted |= {"rotation": (n, 3, 3), "shift": (n, 3)}
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: shape {getattr(self, name).shape}, {shape} is expected")
        if self.codes.ndim != 2 or len(self.codes) != n:
            raise ValueError(f"codes: shape {self.codes.shape}, ({n}, numbers per code) is expected")


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Sub-volumes kept for training: ``rows`` int32 (m,) of the picks, ``boxes`` float16 (m, e, e, e) as encoded."""

    rows: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """A segmentation that is written already. ``labels``: mode 0. ``probabilities``: by class, mode 12.

    ``classes``: what its label values meant when it was written, from 1; classes of the session may have changed since.
    ``fractions``: share of the tomogram's voxels, by class.
    """

    labels: Path
    classes: tuple[str, ...]
    probabilities: Mapping[str, Path] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)


Segmentation: TypeAlias = Callable[[], Iterable[Slab]]


@dataclass(frozen=True, slots=True, eq=False)
class MinedTomogram:
    """One tomogram, mined.

    ``name``: its path below the watched folder, with forward slashes; files are named by it. ``path``: where it lies.
    ``shape``: (z, y, x) of the file; ``voxel_a`` Å per voxel, ``working_voxel_a`` of the network. ``bright``: density
    is bright in the file. ``flip``: the axis that was mirrored as it was read; ``hand``: what is known of the
    handedness, in words. ``classes``: names by label value from 1; ``colours``: theirs (``#rrggbb``).
    ``clusters_version``: of ``clusters.h5``, 0 before the first. ``threshold``: of the picker, in standard deviations;
    ``options``: its other numbers. ``edge``: of sub-volumes, in voxels of the network. ``posed``: poses were
    normalised. ``mode``: in which it was mined. ``revision``: 0, or how many times the file has changed since.
    ``segmentation``: slabs in order of z, computed as they are asked for, or files that are there; None: none.
    ``origin_a``: of the file, as its header has it (x, y, z); label volumes get the same, so that they lie over it.
    ``flags``: what was noted of the file. ``run``: what RELION and copick know it by, empty before it is written.
    """

    name: str
    path: Path
    shape: Shape
    voxel_a: float
    working_voxel_a: float
    picked: Picked
    network: str
    network_sha256: str
    threshold: float
    edge: int = 32
    posed: bool = False
    bright: bool = False
    flip: str = "none"
    hand: str = "not stated by the file, and not determined"
    mode: Literal["explore", "annotate"] = "explore"
    clusters_version: int = 0
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    kept: Kept | None = None
    slices: Slices | None = None
    segmentation: Segmentation | LabelFiles | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    flags: tuple[str, ...] = ()
    revision: int = 0
    run: str = ""
    origin_a: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def counts(self) -> dict[str, int]:
        """Sub-volumes by class, in the order of the label values; those of none, last, as ``unmarked``."""
        n = np.bincount(self.picked.label, minlength=1 + len(self.classes))
        return {**{name: int(n[at]) for at, name in enumerate(self.classes, 1)}, UNMARKED: int(n[0])}
