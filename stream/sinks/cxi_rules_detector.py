"""Rules of CXI 1.6 for detectors, images, results and samples."""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np

from .cxi_contents import Contents, dataset_in, text_of

Told = Iterator[tuple[str, str]]
_SPACES = frozenset({"real", "diffraction"})
_TYPES = frozenset({"intensity", "electron density", "amplitude", "unphased amplitude", "autocorrelation"})
_PEAKS = [
    "peakMaximumValue",
    "peakNPixels",
    "peakSNR",
    "peakTotalIntensity",
    "peakXPosAssembled",
    "peakYPosAssembled",
    "peakXPosRaw",
    "peakYPosRaw",
]


def mask(contents: Contents) -> Told:
    """``mask`` of detectors and images."""
    for path, group in contents.of_class("detector", "image"):
        dataset, data = dataset_in(group, "mask"), dataset_in(group, "data")
        if dataset is None:
            continue
        if dataset.dtype.kind not in "iu" or dataset.dtype.itemsize != 4:
            yield f"{path}/mask", f"holds {dataset.dtype}, not 32-bit integers"
        elif data is not None and (dataset.ndim < 2 or dataset.shape != data.shape[data.ndim - dataset.ndim :]):
            yield f"{path}/mask", f"has shape {dataset.shape}, data {data.shape}"
        else:
            yield f"{path}/mask", ""


def geometry(contents: Contents) -> Told:
    """Positions and vectors."""
    widths = {"corner_position": 3, "basis_vectors": 3, "translation": 3, "orientation": 6}
    for path, dataset in contents.named(*widths):
        width = widths[path.rsplit("/", 1)[-1]]
        right = dataset.ndim >= 1 and dataset.shape[-1] == width and dataset.dtype.kind in "iuf"
        yield path, "" if right else f"is {dataset.dtype} of shape {dataset.shape}, not {width} numbers"


def modules(contents: Contents) -> Told:
    """``module_identifier`` and what has one row for each."""
    for path, group in contents.of_class("detector"):
        names = dataset_in(group, "module_identifier")
        if names is None:
            continue
        words = [str(value) for value in np.ravel(names[()])]
        if len(set(words)) < len(words):
            yield f"{path}/module_identifier", "names a module twice"
            continue
        for name in ("corner_position", "basis_vectors"):
            dataset = dataset_in(group, name)
            if dataset is not None and dataset.shape[0] != len(words):
                yield f"{path}/{name}", f"has {dataset.shape[0]} rows for {len(words)} modules"
        yield f"{path}/module_identifier", ""


def score(contents: Contents) -> Told:
    """``score`` and ``tags`` of stacks of images."""
    for path, group in contents.of_class("detector"):
        data = dataset_in(group, "data")
        for name in ("score", "tags"):
            dataset = dataset_in(group, name)
            if dataset is None or data is None:
                continue
            if data.ndim > 2 and (dataset.ndim < 1 or dataset.shape[-1] != data.shape[0]):
                yield f"{path}/{name}", f"has shape {dataset.shape} for {data.shape[0]} images"
            elif name == "tags" and dataset.dtype.itemsize != 1:
                yield f"{path}/{name}", f"holds {dataset.dtype}, not 8-bit integers"
            else:
                yield f"{path}/{name}", ""


def image(contents: Contents) -> Told:
    """``data_space`` and ``data_type``."""
    for path, group in contents.of_class("image"):
        for name, words in (("data_space", _SPACES), ("data_type", _TYPES)):
            dataset = dataset_in(group, name)
            if dataset is not None:
                said = text_of(dataset)
                right = said is not None and len(said) == 1 and said[0] in words
                yield f"{path}/{name}", "" if right else f"is {said}, not one of {sorted(words)}"


def peaks(contents: Contents) -> Told:
    """Peak lists of results."""
    for path, group in contents.of_class("result"):
        count = dataset_in(group, "nPeaks")
        if count is None:
            continue
        if count.ndim != 1 or count.dtype.kind not in "iu":
            yield f"{path}/nPeaks", f"is {count.dtype} of shape {count.shape}, not one integer per image"
            continue
        most = int(count[()].max()) if count.shape[0] else 0
        yield f"{path}/nPeaks", ""
        for name in _PEAKS:
            dataset = dataset_in(group, name)
            if dataset is not None:
                yield f"{path}/{name}", _peak_problem(dataset, count.shape[0], most)


def _peak_problem(dataset: h5py.Dataset, images: int, most: int) -> str:
    if dataset.ndim != 2 or dataset.shape[0] != images:
        return f"has shape {dataset.shape} for {images} images"
    return "" if dataset.shape[1] >= most else f"has room for {dataset.shape[1]} peaks, and an image has {most}"


def unit_cell(contents: Contents) -> Told:
    """``unit_cell`` of samples."""
    for path, dataset in contents.named("unit_cell"):
        yield path, "" if dataset.shape == (6,) else f"has shape {dataset.shape}"
