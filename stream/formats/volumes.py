"""A tomogram in a file, read box by box: MRC (``.mrc``, ``.rec``, ``.map``) and HDF5 (EMAN2's, or one dataset).

Axes are (z, y, x); positions (x, y, z) count voxels from the middle of the first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .mrc_store import MrcStore, gone
from .mrc_volume import read_volume_header
from .volume_hdf import SIGNATURE, HdfStore

Shape: TypeAlias = tuple[int, int, int]
Floats: TypeAlias = npt.NDArray[np.float32]
Flip: TypeAlias = Literal["none", "x", "y", "z"]
SUFFIXES = (".mrc", ".rec", ".map", ".st", ".ali", ".hdf", ".h5", ".hdf5")
#: Sides of a voxel may differ by so much and it still counts as a cube.
CUBE = 0.01
UNSET_A = 1.0
State: TypeAlias = tuple[int, int, int]
FLIPS: Mapping[str, int | None] = MappingProxyType({"none": None, "z": 0, "y": 1, "x": 2})


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """What a file says of its volume. ``kind``: mrc or hdf. ``stored``: type of its voxels. ``nbytes``: of the file.

    ``voxels_a``: ångström along x, y, z as the file says, None where it does not. ``voxel_from``: ``header`` or
    ``settings``. ``origin_a``: (x, y, z). ``flip``: the axis that is mirrored as it is read. ``axes``: the file's
    axes that are z, y, x. ``flags``: what to know of it in fixed words: ``voxel_disagrees`` (settings and header, by
    more than 1 %), ``axes_permuted``, ``thin_y`` (y is by far the thinnest: as IMOD's ``tilt`` writes it
    before ``trimvol -rx``).
    """

    kind: str
    stored: np.dtype[Any]
    nbytes: int
    voxels_a: tuple[float | None, float | None, float | None]
    voxel_from: str
    origin_a: tuple[float, float, float]
    axes: Shape
    flip: Flip
    mode: int | None = None
    labels: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def hand(self) -> str:
        """What is known of the handedness, in words."""
        odd = sorted(self.axes) == [0, 1, 2] and _is_odd(self.axes)
        mirrored = "" if self.flip == "none" else f"; mirrored along {self.flip} as it was read (decode.flip)"
        turned = "; axes put in order x, y, z as the header says" if odd else ""
        return f"not stated by the file, and not determined{turned}{mirrored}"


class Store(Protocol):
    """Where the voxels are: (sections, rows, columns) of the file."""

    def read(self, low: Shape, high: Shape) -> Floats:
        """A box of the stored axes as float32."""

    def close(self) -> None:
        """Release the file."""


@dataclass(slots=True, eq=False)
class VolumeFile:
    """A volume in a file: ``shape`` (z, y, x), ``voxel_a`` ångström per voxel, ``info``.

    It implements the models' ``Volume``, for several threads at once. Close it, or use it in a ``with``.
    """

    path: Path
    shape: Shape
    voxel_a: float
    info: VolumeInfo
    _store: Store
    _state: State

    def check_same(self) -> None:
        """Raises ``BadData`` (``changed``, ``vanished``) where the file at ``path`` is not what was opened any more."""
        try:
            state = _state(os.stat(self.path))
        except OSError as error:
            raise gone(self.path, error) from None
        if state != self._state:
            raise BadData("changed", f"{self.path}: changed while it was read; it is read again when it has settled")

    def read(self, low: Shape, high: Shape) -> Floats:
        """Voxels from ``low`` up to, not including, ``high`` (z, y, x): float32, a copy, as they are in the file.

        Raises ``ValueError`` for a box that is empty or reaches out of the volume, ``BadData`` (``truncated``,
        ``decode``, ``vanished``) for a file that was cut, damaged or lost meanwhile.
        """
        if not all(0 <= a < b <= n for a, b, n in zip(low, high, self.shape, strict=True)):
            raise ValueError(f"box {low} to {high} is empty, or reaches out of {self.path} of {self.shape} (z, y, x)")
        mirrored = FLIPS[self.info.flip]
        if mirrored is not None:
            low, high = _mirrored(low, high, self.shape, mirrored)
        axes = self.info.axes
        first, last = [0, 0, 0], [0, 0, 0]
        for at, axis in enumerate(axes):
            first[axis], last[axis] = low[at], high[at]
        box = self._store.read(_three(first), _three(last)).transpose(axes)
        if mirrored is not None:
            box = np.flip(box, mirrored)
        return np.ascontiguousarray(box)

    def close(self) -> None:
        """Close the file. May be called more than once."""
        self._store.close()

    def __enter__(self) -> VolumeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_volume(
    path: str | os.PathLike[str], *, voxel_a: float | None = None, flip: Flip = "none", stacks: bool = False
) -> VolumeFile:
    """Open a tomogram. ``voxel_a``: in place of what the file says. ``flip``: mirror this axis as it is read.

    ``stacks``: take also what its MRC header calls a stack of images, because some programs write volumes so.

    Raises ``BadData``, whose reason is one of: ``vanished``, ``empty``, ``header``, ``truncated``, ``mode``, ``dtype``,
    ``stack`` (images, not a volume), ``axes``, ``voxel`` (size of a voxel unknown, or no cube), ``hdf`` (damaged),
    ``contents`` (HDF5 without a volume, or with several), ``chunks``.
    """
    where, wishes = Path(path), _Wishes(voxel_a, flip, stacks)
    try:
        with where.open("rb", buffering=0) as stream:
            state = _state(os.fstat(stream.fileno()))
            start = stream.read(len(SIGNATURE))
            if not state[0]:
                raise BadData("empty", f"{where}: 0 bytes; it is being written, or was never finished")
            if start != SIGNATURE:
                return _open_mrc(where, stream, state, wishes)
    except OSError as error:
        raise gone(where, error) from None
    return _open_hdf(where, state, wishes)


@dataclass(frozen=True, slots=True)
class _Wishes:
    voxel_a: float | None
    flip: Flip
    stacks: bool


def _open_mrc(path: Path, stream: BinaryIO, state: State, wishes: _Wishes) -> VolumeFile:
    size = state[0]
    found = read_volume_header(stream, size, path, stacks=wishes.stacks)
    if size < found.data.expected_bytes:
        raise BadData(
            "truncated", f"{path}: {size} bytes, its header speaks of {found.data.expected_bytes}; copy it again"
        )
    shape = _three([found.stored[axis] for axis in found.axes])
    flags = _thin(shape) + ([] if found.axes == (0, 1, 2) else ["axes_permuted"])
    side, voxel_from = _side(found.voxel_a, wishes.voxel_a, str(path), flags)
    info = VolumeInfo(
        "mrc",
        found.data.dtype,
        size,
        found.voxel_a,
        voxel_from,
        found.origin_a,
        found.axes,
        wishes.flip,
        found.data.mode,
        found.labels,
        tuple(flags),
    )
    return VolumeFile(path, shape, side, info, MrcStore(os.dup(stream.fileno()), found.data, path), state)


def _open_hdf(path: Path, state: State, wishes: _Wishes) -> VolumeFile:
    store = HdfStore.of(path)
    try:
        flags = _thin(store.shape)
        side, voxel_from = _side(store.voxels_a, wishes.voxel_a, str(path), flags)
    except BadData:
        store.close()
        raise
    stored, origin, size = store.dtype, store.origin_a, state[0]
    info = VolumeInfo(
        "hdf", stored, size, store.voxels_a, voxel_from, origin, (0, 1, 2), wishes.flip, flags=tuple(flags)
    )
    return VolumeFile(path, store.shape, side, info, store, state)


def _thin(shape: Shape) -> list[str]:
    z, y, x = shape
    return ["thin_y"] if 2 * y <= min(z, x) else []


def _side(
    said: tuple[float | None, float | None, float | None], wanted: float | None, name: str, flags: list[str]
) -> tuple[float, str]:
    """Ångström per voxel, and who says so."""
    x, y, z = said
    if wanted is not None:
        if any(side is not None and abs(side - wanted) > CUBE * wanted for side in said):
            flags.append("voxel_disagrees")
        return wanted, "settings"
    if x is None or y is None or z is None:
        raise BadData("voxel", f"{name}: does not say the size of its voxels; set decode.voxel_a (ångström)")
    if max(said_of := (x, y, z)) - min(said_of) > CUBE * min(said_of):
        raise BadData(
            "voxel",
            f"{name}: voxels of {x:.4g} × {y:.4g} × {z:.4g} Å are no cubes; set decode.voxel_a where the header is "
            "wrong, else write it with the same step along all axes",
        )
    side = x if x == y == z else float(np.mean(said_of))
    if math.isclose(side, UNSET_A, rel_tol=1e-6):
        raise BadData(
            "voxel",
            f"{name}: voxels of exactly 1 Å, which programs write when nobody told them; set decode.voxel_a",
        )
    return side, "header"


def _mirrored(low: Shape, high: Shape, shape: Shape, axis: int) -> tuple[Shape, Shape]:
    first, last = list(low), list(high)
    first[axis], last[axis] = shape[axis] - high[axis], shape[axis] - low[axis]
    return _three(first), _three(last)


def _is_odd(axes: Shape) -> bool:
    """Whether putting the axes in order mirrors the volume as it was stored."""
    return (axes[0] > axes[1]) ^ (axes[0] > axes[2]) ^ (axes[1] > axes[2])


def _three(values: list[int]) -> Shape:
    a, b, c = values
    return a, b, c


def _state(stat: os.stat_result) -> State:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
