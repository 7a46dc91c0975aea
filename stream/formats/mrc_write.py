"""Volumes written to MRC slab by slab: as large as the disk, with no more in memory than a slab.

MRC2014 (Cheng et al., J. Struct. Biol. 192 (2015) 146): little-endian, ``ispg`` 1 (a volume), ``mz`` = nz, axes in
order, no extended header; minimum, maximum, mean and standard deviation are of the voxels as they are stored.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from .mrc import HEADER_BYTES

Shape: TypeAlias = tuple[int, int, int]
TYPES: dict[int, np.dtype[Any]] = {
    mode: np.dtype(kind) for mode, kind in ((0, "i1"), (1, "<i2"), (2, "<f4"), (12, "<f2"))
}
LABEL = "Written by beamsieve"
_LABEL = 80
_LABELS = 10
_PART = 1 << 22


class MrcWriter:
    """Writes a volume of ``shape`` (z, y, x) to ``path``; use it in a ``with``, and give it slabs in order of z.

    ``mode``: 0 int8, 1 int16, 2 float32, 12 float16. ``voxel_a``: ångström per voxel. ``labels``: lines of text for the
    header (ASCII, 80 characters, 9 at most). ``origin_a``: of the first voxel (x, y, z), by which some programs lay
    volumes over each other. The file has its name only when all of it is on disk; after an exception,
    or where slabs are missing, nothing is left. Raises ``ValueError`` for what cannot be written so, ``OSError``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: Shape,
        mode: int,
        voxel_a: float,
        *,
        labels: Sequence[str] = (),
        origin_a: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        if mode not in TYPES:
            raise ValueError(f"mode {mode}: volumes are written in mode {', '.join(map(str, TYPES))}")
        if len(shape) != 3 or min(shape) < 1 or max(shape) >= 1 << 31:
            raise ValueError(f"{shape} is no shape (z, y, x) of a volume")
        if not (math.isfinite(voxel_a) and voxel_a > 0):
            raise ValueError(f"voxels of {voxel_a} Å")
        self.path, self.shape, self.mode, self.voxel_a = Path(path), shape, mode, voxel_a
        self.written = 0
        self._origin = origin_a
        self._labels = [LABEL, *labels][:_LABELS]
        self._type = TYPES[mode]
        self._working = _beside(self.path)
        self._stream: BinaryIO | None = None
        self._moments = _Moments()

    def __enter__(self) -> MrcWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._working.open("wb")
        self._stream.write(bytes(HEADER_BYTES))
        return self

    def write(self, slab: npt.NDArray[Any]) -> None:
        """The next planes, (dz, y, x) or one plane (y, x). Values that the mode cannot hold raise ``ValueError``."""
        if self._stream is None:
            raise ValueError(f"{self.path}: write to it in a with statement")
        planes = slab[None] if slab.ndim == 2 else slab
        z, y, x = self.shape
        if planes.ndim != 3 or planes.shape[1:] != (y, x) or self.written + len(planes) > z:
            raise ValueError(f"{self.path}: a slab {slab.shape} at plane {self.written} of a volume {self.shape}")
        step = max(1, _PART // (y * x))
        for start in range(0, len(planes), step):
            part = _stored(planes[start : start + step], self._type, self.path)
            self._moments.add(part)
            self._stream.write(part.data)
        self.written += len(planes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            with stream:
                if kind is not None:
                    return
                if self.written != self.shape[0]:
                    raise ValueError(f"{self.path}: {self.written} of {self.shape[0]} planes were written")
                stream.seek(0)
                stream.write(self._header())
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(self._working, self.path)
            _sync_folder(self.path.parent)
        finally:
            with contextlib.suppress(OSError):
                self._working.unlink()

    def _header(self) -> bytes:
        z, y, x = self.shape
        low, high, mean, sd = self._moments.told()
        cell = [n * self.voxel_a for n in (x, y, z)]
        head = struct.pack(
            "<10i6f3i3f2i", x, y, z, self.mode, 0, 0, 0, x, y, z, *cell, 90, 90, 90, 1, 2, 3, low, high, mean, 1, 0
        )
        # 8 bytes of no use, the kind of the (absent) extended header, the version of the format
        head += bytes(8) + bytes(4) + struct.pack("<i", 20141)
        head = head.ljust(196, b"\0")
        head += struct.pack("<3f", *self._origin) + b"MAP " + b"\x44\x44\0\0" + struct.pack("<f", sd)
        head += struct.pack("<i", len(self._labels))
        for label in self._labels:
            head += label.encode("ascii", "replace")[:_LABEL].ljust(_LABEL)
        return head.ljust(HEADER_BYTES, b"\0")


class _Moments:
    """Minimum, maximum, mean and standard deviation of what comes in parts (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.low, self.high, self.mean, self.squares, self.count = math.inf, -math.inf, 0.0, 0.0, 0

    def add(self, part: npt.NDArray[Any]) -> None:
        n, values = part.size, part.ravel().astype(np.float32)
        mean = float(values.mean(dtype=np.float64))
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        values -= np.float32(mean)
        with np.errstate(over="ignore"):
            squares = float(np.dot(values, values))
        if not math.isfinite(squares):  # values beyond 10^19, of which float32 has no squares
            squares = float(np.square(values, dtype=np.float64).sum())
        total, step = self.count + n, mean - self.mean
        self.squares += squares + step * step * self.count * n / total
        self.mean += step * n / total
        self.count = total

    def told(self) -> tuple[float, float, float, float]:
        return self.low, self.high, self.mean, math.sqrt(self.squares / self.count)


def _stored(part: npt.NDArray[Any], dtype: np.dtype[Any], path: Path) -> npt.NDArray[Any]:
    """In the file's type. Rounding is for the caller: a fraction given to an integer mode is a mistake."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(part, dtype)
        if not np.isfinite(stored).all():
            raise ValueError(f"{path}: values that are not finite, or too large for {dtype.name}")
        return stored
    if part.dtype.kind not in "iub":
        raise ValueError(f"{path}: {part.dtype} given for whole numbers ({dtype.name})")
    limits = np.iinfo(dtype)
    if part.size and (part.min() < limits.min or part.max() > limits.max):
        raise ValueError(f"{path}: values {part.min()} to {part.max()} do not fit {dtype.name}")
    return np.ascontiguousarray(part, dtype)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, of the kind that the sinks sweep when its writer is dead."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
    return path.with_name(f".{path.name}.{host}-{os.getpid()}.tmp")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
