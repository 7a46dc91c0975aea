"""Stacks of frames in other people's files: HDF5, CXI, NPZ and NPY, read block by block."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import hdf5plugin  # noqa: F401 (registers the filters that detectors write with)
import numpy as np
import numpy.typing as npt

from ..errors import plain

DATASETS = (
    "/entry_1/data_1/data",
    "/entry_1/instrument_1/detector_1/data",
    "/entry/data/data",
    "/data/data",
)
ARRAYS = ("patterns", "images", "data")
COMPLETE = "/entry_1/number_of_frames"
_DEEPEST = 12
_CHUNK_CACHE = 32 << 20  # bytes; chunks of several frames are decompressed once


class StackError(Exception):
    """A file whose frames cannot be found or read. The message names the file, the dataset and the remedy."""


@dataclass(frozen=True, slots=True)
class Stack:
    """An open stack. ``dataset``: where it was found. ``shape``: (n, y, x) or (n, module, y, x).

    ``read(first, last)`` gives frames [first, last). Where ``at_random`` is False, blocks must be read once and in
    order. ``mask(first, last)`` gives CXI's pixel bits from beside the frames, for one frame or for each, or None. Both
    raise ``OSError``, ``ValueError``, ``EOFError`` or what zipfile and zlib raise for data that are damaged.
    """

    path: Path
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    at_random: bool
    read: Callable[[int, int], npt.NDArray[Any]]
    mask: Callable[[int, int], npt.NDArray[Any] | None]

    def __len__(self) -> int:
        """How many frames there are."""
        return self.shape[0]


@contextmanager
def open_stack(path: Path, dataset: str | None = None) -> Iterator[Stack]:
    """Open the stack ``dataset`` of a file, or the one that is obviously meant. Raises ``StackError``."""
    if not path.is_file():
        raise StackError(f"{path}: no such file")
    opener = {".npz": _npz, ".npy": _npy}.get(path.suffix.lower(), _hdf5)
    opened = opener(path, dataset)
    try:
        stack = next(opened)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        kind = "HDF5, CXI, NPZ or NPY" if opener is _hdf5 else path.suffix[1:].upper()
        raise StackError(f"{path}: cannot be read as {kind} ({plain(error)}); check that it is complete") from error
    try:
        yield stack
    finally:
        opened.close()


def _stack(
    path: Path,
    dataset: str,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    read: Callable[[int, int], npt.NDArray[Any]],
    mask: Callable[[int, int], npt.NDArray[Any] | None] = lambda _first, _last: None,
    at_random: bool = True,
) -> Stack:
    if dtype.kind not in "iuf":
        raise StackError(f"{path}: {dataset} holds {dtype}, not numbers; name the frames with --dataset")
    if len(shape) not in (3, 4):
        wanted = "(n, y, x) or (n, module, y, x)"
        raise StackError(f"{path}: {dataset} has shape {tuple(shape)}, not {wanted}; name the frames with --dataset")
    return Stack(path, dataset, tuple(shape), dtype, at_random, read, mask)


def _hdf5(path: Path, dataset: str | None) -> Generator[Stack]:
    with h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE) as file:
        name = dataset or _likely(path, file)
        frames = file.get(name)
        if not isinstance(frames, h5py.Dataset):
            raise StackError(f"{path}: has no dataset {name}; it has {_listed(_stacks(file))}")
        shape = frames.shape
        complete = file.get(COMPLETE)
        if name.startswith("/entry_1/") and isinstance(complete, h5py.Dataset) and complete.shape == ():
            shape = (min(int(complete[()]), shape[0]), *shape[1:])
        beside = name.rsplit("/", 1)[0] + "/mask"

        def mask(first: int, last: int) -> npt.NDArray[Any] | None:
            # Elsewhere than in CXI, nobody knows whether 1 is bad or good.
            found = file.get(beside) if beside.startswith("/entry_1/") else None
            if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iu":
                return None
            if found.shape == frames.shape[1:]:
                return np.asarray(found[...])
            return np.asarray(found[first:last]) if found.shape == frames.shape else None

        yield _stack(path, name, shape, frames.dtype, lambda first, last: np.asarray(frames[first:last]), mask)


def _likely(path: Path, file: h5py.File) -> str:
    """The first of the usual places, else the only dataset that could be a stack of frames."""
    for name in DATASETS:
        if isinstance(file.get(name), h5py.Dataset):
            return name
    found = _stacks(file)
    if len(found) == 1:
        return found[0]
    if not found:
        raise StackError(f"{path}: holds no three-dimensional dataset; name the frames with --dataset")
    raise StackError(f"{path}: which dataset holds the frames? Name one with --dataset: {_listed(found)}")


def _stacks(file: h5py.File) -> list[str]:
    """Paths of three-dimensional datasets of numbers, over links of every kind, each dataset once."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def walk(group: h5py.Group, prefix: str, depth: int) -> None:
        for name in group:
            item = group.get(name)  # None: a link to something that is not there
            if item is None:
                continue
            info = h5py.h5o.get_info(item.id)
            identity = (info.fileno, info.addr)
            if identity in seen:
                continue
            seen.add(identity)
            if isinstance(item, h5py.Group) and depth < _DEEPEST:
                walk(item, f"{prefix}/{name}", depth + 1)
            elif isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "iuf":
                found.append(f"{prefix}/{name}")

    walk(file, "", 0)
    return found


def _npy(path: Path, dataset: str | None) -> Generator[Stack]:  # noqa: ARG001 (an NPY file holds one array)
    frames = np.load(path, mmap_mode="r", allow_pickle=False)
    # A copy: the file may be cut short while it is mapped.
    yield _stack(path, "array", frames.shape, frames.dtype, lambda first, last: np.array(frames[first:last]))


def _npz(path: Path, dataset: str | None) -> Generator[Stack]:
    with zipfile.ZipFile(path) as archive:
        shapes = {}
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as stream:
                    shapes[member.removesuffix(".npy")] = _npy_header(stream)[0]
        name = _likely_array(path, dataset, shapes)
        with archive.open(f"{name}.npy") as stream:
            shape, fortran, dtype = _npy_header(stream)
            if fortran and len(shape) > 1:
                raise StackError(f"{path}: {name} is in Fortran order; save it again with numpy.ascontiguousarray")
            row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize

            def read(first: int, last: int) -> npt.NDArray[Any]:
                data = stream.read((last - first) * row)
                if len(data) < (last - first) * row:
                    raise EOFError(f"{name} ends before frame {last}")
                return np.frombuffer(data, dtype).reshape(last - first, *shape[1:])

            yield _stack(path, name, shape, dtype, read, at_random=False)


def _likely_array(path: Path, dataset: str | None, shapes: dict[str, tuple[int, ...]]) -> str:
    stacks = [name for name, shape in shapes.items() if len(shape) == 3]
    if dataset is not None:
        if dataset not in shapes:
            raise StackError(f"{path}: has no array {dataset}; it has {_listed(list(shapes))}")
        return dataset
    for name in ARRAYS:
        if name in stacks:
            return name
    if len(stacks) == 1:
        return stacks[0]
    if not stacks:
        raise StackError(f"{path}: holds no three-dimensional array; it has {_listed(list(shapes))}")
    raise StackError(f"{path}: which array holds the frames? Name one with --dataset: {_listed(stacks)}")


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _listed(names: Sequence[str]) -> str:
    return (", ".join(names[:20]) + (" …" if len(names) > 20 else "")) or "none"
