"""Volumes in HDF5: EMAN2's (``MDF/images/0/image``), or a file with one dataset of three axes."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import hdf5plugin  # noqa: F401 (registers the filters of bitshuffle, blosc, zstd)
import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData

Shape: TypeAlias = tuple[int, int, int]
Sides: TypeAlias = tuple[float | None, float | None, float | None]
SIGNATURE = b"\x89HDF\r\n\x1a\n"
EMAN = "MDF/images"
LARGEST_CHUNK = 1 << 28
_SMALLEST_CACHE = 1 << 24
_MOST_OBJECTS = 10_000
#: An origin beyond, or one that is no number, is nonsense.
_FARTHEST_A = 1e9
_NAMES = ("voxel_a", "voxel_size", "pixel_size", "apix", "pixelSize")
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError)


class HdfStore:
    """A dataset of three axes in an open file. HDF5 is read by one thread at a time; others wait."""

    def __init__(self, path: Path, file: h5py.File, dataset: h5py.Dataset, voxels_a: Sides, origin_a: Any) -> None:
        self._path, self._file, self._dataset = path, file, dataset
        self._lock = threading.Lock()
        self.voxels_a: Sides = voxels_a
        self.origin_a: tuple[float, float, float] = origin_a
        z, y, x = dataset.shape
        self.shape: Shape = (int(z), int(y), int(x))
        self.dtype: np.dtype[Any] = dataset.dtype

    @classmethod
    def of(cls, path: Path) -> HdfStore:
        """Open it. Raises ``BadData``: ``hdf`` (damaged), ``contents`` (not one volume), ``dtype``, ``chunks``."""
        file = _opened(path, _SMALLEST_CACHE)
        try:
            dataset = _find(file, path)
            cache = _cache(dataset, path)
            if cache > _SMALLEST_CACHE:
                name = dataset.name
                file.close()
                file = _opened(path, cache)
                dataset = file[name]
            eman = dataset.name.startswith(f"/{EMAN}/")
            attributes = dataset.parent.attrs if eman else dataset.attrs
            return cls(path, file, dataset, _sides(attributes, eman=eman), _origin(attributes, eman=eman))
        except _DAMAGE as error:
            file.close()
            raise _damaged(path, error) from None
        except BadData:
            file.close()
            raise

    def read(self, low: Shape, high: Shape) -> npt.NDArray[np.float32]:
        """A box. Raises ``BadData`` (``decode``) for chunks that cannot be read."""
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        with self._lock:
            try:
                stored = self._dataset[box]
            except _DAMAGE as error:
                raise BadData("decode", f"{self._path}: cannot be read ({error}); copy it again") from None
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(stored, np.float32)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def _opened(path: Path, cache: int) -> h5py.File:
    try:
        # Locks of HDF5 fail on network file systems that have none; what is read here has settled.
        return h5py.File(path, "r", locking=False, rdcc_nbytes=cache, rdcc_nslots=10_007)
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData("hdf", f"{path}: cannot be opened as HDF5 ({error}); is it whole? copy it again")


def _find(file: h5py.File, path: Path) -> h5py.Dataset:
    if EMAN in file:
        images = [name for name in file[EMAN] if name.isdecimal()]
        if len(images) != 1:
            raise BadData("contents", f"{path}: {EMAN} holds {len(images)} images; a tomogram is one, of three axes")
        found = [file[f"{EMAN}/{images[0]}/image"]]
    else:
        found = []
        seen = 0

        def visit(_: str, item: object) -> object:
            nonlocal seen
            seen += 1
            if isinstance(item, h5py.Dataset) and item.ndim == 3:
                found.append(item)
            return seen > _MOST_OBJECTS or None

        file.visititems(visit)
    volumes = [item for item in found if isinstance(item, h5py.Dataset) and item.ndim == 3 and min(item.shape) > 1]
    if len(volumes) != 1:
        names = ", ".join(str(item.name) for item in volumes[:5])
        raise BadData(
            "contents",
            f"{path}: {len(volumes)} datasets of three axes{': ' + names if names else ''}; a tomogram is one, or "
            f"{EMAN}/0/image as EMAN2 writes it",
        )
    return _usable(volumes[0], path)


def _usable(dataset: h5py.Dataset, path: Path) -> h5py.Dataset:
    if dataset.dtype.kind not in "iuf":
        raise BadData("dtype", f"{path}: {dataset.name} holds {dataset.dtype}; write real numbers")
    # Bytes of other files, named by this one, are not what was put into the folder.
    if dataset.external or dataset.is_virtual:
        raise BadData("contents", f"{path}: {dataset.name} is stored in other files; write it into one (h5repack)")
    return dataset


def _cache(dataset: h5py.Dataset, path: Path) -> int:
    """Bytes of chunks to keep: those that a row of boxes needs, within limits."""
    if dataset.chunks is None:
        return _SMALLEST_CACHE
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk > LARGEST_CHUNK:
        raise BadData(
            "chunks",
            f"{path}: {dataset.name}: chunks of {chunk} bytes must be unpacked for each box; write smaller ones: "
            "h5repack -l CHUNK=32x256x256",
        )
    across = math.prod(-(-n // c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
    return int(min(max(_SMALLEST_CACHE, chunk * across), LARGEST_CHUNK))


def _sides(attributes: Any, *, eman: bool) -> Sides:
    if eman:
        x, y, z = (_positive(attributes.get(f"EMAN.apix_{axis}")) for axis in "xyz")
        return x, y, z
    for name in _NAMES:
        if name in attributes:
            values = np.atleast_1d(np.asarray(attributes[name], np.float64)).ravel()
            if len(values) == 3:
                x, y, z = (_positive(value) for value in values)
                return x, y, z
            if len(values) == 1:
                side = _positive(values[0])
                return side, side, side
    return None, None, None


def _origin(attributes: Any, *, eman: bool) -> tuple[float, float, float]:
    names = [f"EMAN.origin_{axis}" for axis in "xyz"]
    if not eman or not all(name in attributes for name in names):
        return 0.0, 0.0, 0.0
    x, y, z = (float(attributes[name]) for name in names)
    return (x, y, z) if all(abs(value) < _FARTHEST_A for value in (x, y, z)) else (0.0, 0.0, 0.0)


def _positive(value: Any) -> float | None:
    if value is None:
        return None
    side = float(np.asarray(value).ravel()[0])
    return side if math.isfinite(side) and side > 0 else None
