"""What an emulated detector sees: frames of a file, or simulated shots. The same seed gives the same frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import hdf5plugin  # noqa: F401  registers the filters that detector files are compressed with
import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData

Shot: TypeAlias = tuple[npt.NDArray[Any], Mapping[str, Any]]

_USUAL = ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data", "entry/data/data", "data/data", "patterns")
_CHUNK = 16
_DRAWS = 1024
_OF_MULTIPLES = (0.4, 0.4, 0.2)


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """Where frames come from: ``file`` (HDF5, CXI, NPZ, NPY; ``dataset`` in it, else the obvious one) or the simulator.

    Files are played again and again unless ``once``. Of simulated shots a fraction ``hits`` shows one particle and
    ``multiples`` two or more (2, 3 and 4+ as 2 : 2 : 1), the rest none; they are drawn from a pool of ``pool`` patterns
    per class, ``size`` × ``size`` pixels. While ``jet`` says no, none shows a particle.
    """

    file: Path | None = None
    dataset: str | None = None
    once: bool = False
    hits: float = 0.05
    multiples: float = 0.02
    size: int = 128
    pool: int = 20
    seed: int = 0
    jet: Callable[[], bool] = lambda: True

    def __post_init__(self) -> None:
        if min(self.hits, self.multiples) < 0 or self.hits + self.multiples > 1:
            raise ValueError(f"hits {self.hits} and multiples {self.multiples} are fractions: together at most 1")


def frames_from(spec: FrameSpec) -> Iterator[Shot]:
    """Frames (y, x) or (module, y, x), each with ``{"truth": particles}`` (4 = more) where that is known.

    A file without a set of integer ``labels`` beside its frames knows no truth. Raises ``OSError`` for a file that
    cannot be read and ``BadData("frames")`` for one without frames, both before the first frame.
    """
    return simulated(spec) if spec.file is None else _repeated(spec.file, spec.dataset, spec.once)


def simulated(spec: FrameSpec) -> Iterator[Shot]:
    """Endless shots uint16 (size, size): classes drawn with the given fractions, patterns from a simulated pool."""
    from ...models.hits.simulator import pool  # torch loads for a second, which files need not wait for

    patterns = pool(spec.pool, spec.seed, spec.size)
    members = [np.flatnonzero(patterns.labels == label) for label in range(5)]
    # The largest number is how a detector says that it has no pixel there.
    return _drawn(spec, np.minimum(patterns.images, np.iinfo(np.uint16).max - 1), members)


def _drawn(spec: FrameSpec, images: npt.NDArray[Any], members: list[npt.NDArray[np.intp]]) -> Iterator[Shot]:
    rng = np.random.default_rng([spec.seed, 0x5B])
    chances = [1 - spec.hits - spec.multiples, spec.hits, *(spec.multiples * p for p in _OF_MULTIPLES)]
    chances[0] = max(chances[0], 0.0)
    truths = [{"truth": label} for label in range(5)]
    while True:
        labels = rng.choice(5, size=_DRAWS, p=chances)
        picks = rng.random(_DRAWS)
        for label, pick in zip(labels.tolist(), picks.tolist(), strict=True):
            seen = label if spec.jet() else 0
            of_class = members[seen]
            yield images[of_class[int(pick * len(of_class))]], truths[seen]


def _repeated(path: Path, dataset: str | None, once: bool) -> Iterator[Shot]:
    first = _opened(path, dataset)
    yield from first
    while not once:
        yield from _opened(path, dataset)


def _opened(path: Path, dataset: str | None) -> Iterator[Shot]:
    """A pass over the file; it is opened and checked at once, and read as the frames are asked for."""
    if path.suffix in (".npy", ".npz"):
        frames, labels = _numpy(path, dataset)
        return _array_shots(frames, labels)
    file = _hdf5(path)
    try:
        name = dataset or _find(file, path)
        if not isinstance(file.get(name), h5py.Dataset):
            raise BadData("frames", f"{path}: no dataset {name!r}: name one with --dataset")
        _check(path, name, file[name].shape, file[name].dtype)
        return _hdf5_shots(file, name)
    except BaseException:
        file.close()
        raise


def _hdf5(path: Path) -> h5py.File:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise BadData("frames", f"{path}: cannot be read as HDF5 ({error}); .npy and .npz are read too") from error


def _hdf5_shots(file: h5py.File, name: str) -> Iterator[Shot]:
    with file:
        data = file[name]
        shape = data.shape if data.ndim > 2 else (1, *data.shape)
        sibling = file.get(f"{name.rpartition('/')[0]}/labels")
        known = isinstance(sibling, h5py.Dataset) and sibling.shape == shape[:1] and sibling.dtype.kind in "iu"
        labels = sibling[()] if known else None
        for at in range(0, shape[0], _CHUNK):
            chunk = data[at : at + _CHUNK] if data.ndim > 2 else data[()][np.newaxis]
            yield from _array_shots(chunk, None if labels is None else labels[at : at + _CHUNK])


def _array_shots(frames: npt.NDArray[Any], labels: npt.NDArray[Any] | None) -> Iterator[Shot]:
    if labels is None:
        yield from ((frame, {}) for frame in frames)
    else:
        yield from ((frame, {"truth": int(label)}) for frame, label in zip(frames, labels, strict=True))


def _numpy(path: Path, dataset: str | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
    except ValueError as error:
        raise BadData("frames", f"{path}: not a plain numpy file ({error})") from error
    if path.suffix == ".npy":
        _check(path, "the array", loaded.shape, loaded.dtype)
        return (loaded if loaded.ndim > 2 else loaded[np.newaxis]), None
    with loaded:
        name = dataset or next((n for n in (*_USUAL, *loaded.files) if n in loaded.files and loaded[n].ndim > 2), "")
        if name not in loaded.files:
            raise BadData("frames", f"{path}: no array {name!r}; there are {', '.join(loaded.files)}: use --dataset")
        frames = loaded[name]
        labels = loaded["labels"] if "labels" in loaded.files else None
    _check(path, name, frames.shape, frames.dtype)
    frames = frames if frames.ndim > 2 else frames[np.newaxis]
    usable = labels is not None and labels.shape == frames.shape[:1] and labels.dtype.kind in "iu"
    return frames, labels if usable else None


def _find(file: h5py.File, path: Path) -> str:
    for name in _USUAL:
        if isinstance(file.get(name), h5py.Dataset):
            return name
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if _is_stack(item) else None)
    if not found:
        raise BadData("frames", f"{path}: no dataset of images in it: name one with --dataset")
    return max(found, key=lambda name: int(file[name].size))


def _is_stack(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim >= 3 and item.dtype.kind in "iuf"


def _check(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not 2 <= len(shape) <= 4 or 0 in shape or dtype.kind not in "iuf":
        raise BadData(
            "frames", f"{path}: {name} is {dtype} {shape}: expected numbers (frame, y, x) or (frame, module, y, x)"
        )
