"""Calibration constants from HDF5 and NPZ files, checked before the first frame, all problems reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import h5py
import numpy as np
import numpy.typing as npt

from .calibration_settings import CalibrateSettings
from .jungfrau import LARGEST_ADC
from .masks import Mask, PixelMask, combine, from_flags, usable

Floats = npt.NDArray[np.float32]
SMALLEST_GAIN = 1e-12  # what is divided by less would leave float32


class ConstantsError(ValueError):
    """Constants that cannot be used. ``problems`` has one line each: setting, file, dataset, what is wrong, remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, eq=False)
class Constants:
    """What calibration needs to know of each pixel of a detector of shape (…, ss, fs).

    ``dark`` (ADU) and ``gain`` (divisor) are float32 of the detector's shape, for JUNGFRAU (3, …, ss, fs); None:
    not given. ``mask`` has CXI's bits (uint32): the mask file, the sender's mask, hot and dead pixels. Where a
    pixel is masked the constants are finite, but mean nothing.
    """

    mask: Mask
    dark: Floats | None = None
    gain: Floats | None = None


def read_dataset(reference: str, base: Path | None = None) -> npt.NDArray[Any]:
    """Read ``file.h5:/path``, ``file.npz:name`` or ``file.npy``; relative names start at ``base``.

    Raises ``ConstantsError`` with one problem: no such file, no such dataset, not an array of numbers, not such a
    file. Nothing is ever unpickled.
    """
    name, _, dataset = reference.rpartition(":") if not reference.endswith(".npy") else (reference, "", "")
    path = (base or Path()) / name
    if not name:
        raise ConstantsError([f"{reference}: no dataset named; write file.h5:/path or file.npz:name"])
    if not path.is_file():
        raise ConstantsError([f"{path}: no such file; check the name, relative names start at {path.parent}"])
    try:
        array = _read(path, dataset)
    except KeyError as error:
        raise ConstantsError([f"{path}: no dataset {dataset!r}; the file has {error.args[0]}"]) from None
    except (OSError, ValueError, EOFError, MemoryError, BadZipFile) as error:
        raise ConstantsError([f"{path}: {dataset or 'array'} cannot be read ({error}); write it again"]) from error
    if array.dtype.kind not in "biuf":
        raise ConstantsError([f"{path}: {dataset or 'array'} has dtype {array.dtype}; expected numbers"])
    return array


def _read(path: Path, dataset: str) -> npt.NDArray[Any]:
    if path.suffix in (".npy", ".npz"):
        # opened here, because numpy leaves a file it cannot make sense of open
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if dataset not in loaded:
                raise KeyError(", ".join(loaded))
            return np.asarray(loaded[dataset])
    with h5py.File(path, "r") as file:
        found = file.get(dataset)
        if not isinstance(found, h5py.Dataset):
            names: list[str] = []
            file.visititems(lambda name, item: names.append("/" + name) if isinstance(item, h5py.Dataset) else None)
            raise KeyError(", ".join(names[:20]) or "no datasets")
        return np.asarray(found[...])


def load_constants(
    settings: CalibrateSettings,
    shape: tuple[int, ...],
    base: Path | None = None,
    sender_mask: Mask | None = None,
) -> Constants:
    """Read and check the constants of a detector of ``shape`` (…, ss, fs).

    ``sender_mask`` (CXI bits) is what the sender said of its pixels. A pixel that a mask calls unusable may have
    any constants; elsewhere dark and gain must be finite and the gain above 0 (JUNGFRAU: not 0; pedestals inside
    the ADC's range), or ``bad_constants: mask`` marks such pixels dead. Raises ``ConstantsError`` with all
    problems.
    """
    problems: list[str] = []
    stages = 3 if settings.kind == "jungfrau" else 0
    flags = _load("mask", settings.mask, shape, 0, base=base, problems=problems)
    noise = _load("noise", settings.noise, shape, 0, base=base, problems=problems)
    dark = _floats(_load("dark", settings.dark, shape, stages, base=base, problems=problems))
    gain = _floats(_load("gain", settings.gain, shape, stages, base=base, problems=problems))
    if sender_mask is not None and sender_mask.shape != shape:
        problems.append(f"mask of the sender: shape {sender_mask.shape}; its frames have {shape}; check the detector")
        sender_mask = None
    mask = combine(shape, None if flags is None else from_flags(flags, settings.mask_is), sender_mask)
    for name, values, limit in (("dark", dark, settings.hot_dark_adu), ("noise", noise, settings.hot_noise_adu)):
        if values is not None and limit is not None:
            reading = values[0] if name == "dark" and stages else values
            mask[reading > limit] |= np.uint32(PixelMask.HOT)
    good = usable(mask)
    for name, values in (("dark", dark), ("gain", gain)):
        if values is not None:
            broken = _broken(name, values, stages)
            if settings.bad_constants == "refuse" and (broken & good).any():
                problems.append(_complaint(name, getattr(settings, name), broken & good))
            mask[broken] |= np.uint32(PixelMask.DEAD)
            values[..., broken] = 1
    if problems:
        raise ConstantsError(problems)
    return Constants(mask, dark, gain)


def _load(
    name: str,
    reference: str | tuple[str, ...] | None,
    shape: tuple[int, ...],
    stages: int,
    *,
    base: Path | None,
    problems: list[str],
) -> npt.NDArray[Any] | None:
    """Read one constant as (stages, *shape) or ``shape``; tell ``problems`` and answer None if it does not fit."""
    if reference is None:
        return None
    several = isinstance(reference, tuple)
    expected = (stages, *shape) if stages and not several else shape
    arrays: list[npt.NDArray[Any]] = []
    for one in (reference,) if isinstance(reference, str) else reference:
        try:
            array = read_dataset(one, base)
        except ConstantsError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
            continue
        if array.shape != expected:
            problems.append(
                f"{name}: {one}: shape {array.shape}; the detector needs {expected}; check detector, axes and binning"
            )
            continue
        arrays.append(array)
    if len(arrays) != (len(reference) if several else 1):
        return None
    return np.stack(arrays) if several else arrays[0]


def _floats(array: npt.NDArray[Any] | None) -> Floats | None:
    """A C-contiguous float32 copy, native byte order."""
    with np.errstate(over="ignore"):  # float64 that float32 cannot hold becomes inf, and is reported as such
        return None if array is None else np.array(array, np.float32, order="C")


def _broken(name: str, values: Floats, stages: int) -> npt.NDArray[np.bool_]:
    """Which pixels of a dark or gain cannot be used (in any stage)."""
    broken: npt.NDArray[np.bool_] = ~np.isfinite(values)
    if name == "gain":
        broken |= (np.abs(values) if stages else values) < SMALLEST_GAIN
    elif stages:
        broken |= (values <= 0) | (values >= LARGEST_ADC)
    return np.asarray(broken.any(axis=0)) if stages else broken


def _complaint(name: str, reference: str | tuple[str, ...], broken: npt.NDArray[np.bool_]) -> str:
    first = tuple(int(i) for i in np.argwhere(broken)[0])
    rule = "finite" if name == "dark" else "finite and above 0 (JUNGFRAU: not 0)"
    return (
        f"{name}: {reference}: {np.count_nonzero(broken)} pixels not {rule}, the first at {first}; "
        "put them into the mask, or set bad_constants: mask"
    )
