"""Rules of CXI 1.6 for files, entries and any dataset. Each yields a place and what is wrong there, or nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

import h5py
import numpy as np

from .cxi_contents import Contents, class_of, dataset_in, text_of

Told = Iterator[tuple[str, str]]
CLASSES = [
    "attenuator",
    "beam",
    "data",
    "detector",
    "entry",
    "geometry",
    "image",
    "instrument",
    "log",
    "monochromator",
    "note",
    "process",
    "result",
    "sample",
    "source",
]
IMPLICIT = frozenset({"y", "x", "coordinate", "dimension", "dot_product", "unit_cell", "nPeaks"})
_TEXTS = [
    "title",
    "program_name",
    "experiment_description",
    "name",
    "description",
    "data_space",
    "data_type",
    "program",
    "version",
    "command",
    "comments",
    "unit_cell_group",
    "calibration_method",
    "author",
    "file_name",
]
_TIMES = ("start_time", "end_time", "date", "calibration_date")
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)")
#: What a value in SI units can be: the same number in eV, mm, Å or ms lies outside.
_SENSIBLE = {
    "energy": (1e-19, 1e-12),
    "incident_energy": (1e-19, 1e-12),
    "energy_error": (0.0, 1e-12),
    "incident_wavelength": (1e-13, 1e-6),
    "pulse_energy": (0.0, 1.0),
    "pulse_width": (0.0, 1e-6),
    "distance": (0.0, 200.0),
    "x_pixel_size": (1e-8, 0.01),
    "y_pixel_size": (1e-8, 0.01),
}


def links(contents: Contents) -> Told:
    """Soft and external links resolve."""
    for path, target in contents.links.items():
        try:
            contents.file[path]
        except (KeyError, OSError, RuntimeError):
            yield path, f"leads to {target}, which is not there"
        else:
            yield path, ""


def version(contents: Contents) -> Told:
    """``cxi_version``."""
    dataset = contents.datasets.get("/cxi_version")
    if dataset is None:
        yield "/", "cxi_version is missing"
    elif dataset.dtype.kind not in "iu" or dataset.size != 1:
        yield "/cxi_version", f"is {dataset.dtype} of shape {dataset.shape}, not an integer"
    else:
        value = int(np.ravel(dataset[()])[0])
        yield "/cxi_version", "" if 100 <= value <= 160 else f"is {value}, not between 100 and 160"


def entries(contents: Contents) -> Told:
    """``entry_N`` and ``number_of_entries``."""
    there = len([name for name in contents.file if (class_of(name) or ("",))[0] == "entry"])
    if not there:
        yield "/", "there is no entry_1"
    dataset = contents.datasets.get("/number_of_entries")
    if dataset is not None:
        if dataset.dtype.kind not in "iu" or dataset.size != 1:
            yield "/number_of_entries", f"is {dataset.dtype} of shape {dataset.shape}, not an integer"
        else:
            said = int(np.ravel(dataset[()])[0])
            yield "/number_of_entries", "" if said == there else f"is {said}, but there are {there}"


def numbering(contents: Contents) -> Told:
    """``class_N`` counts 1, 2, 3."""
    for parent in ("/", *contents.groups):
        found: dict[str, list[int]] = defaultdict(list)
        for name in contents.file[parent]:
            split = class_of(name)
            if split is not None and split[0] in CLASSES:
                found[split[0]].append(split[1])
        for kind, numbers in found.items():
            right = sorted(numbers) == list(range(1, len(numbers) + 1))
            yield f"{parent.rstrip('/')}/{kind}_N", "" if right else f"numbers are {sorted(numbers)}"


def data_groups(contents: Contents) -> Told:
    """``entry_N/data_N/data``."""
    for path, entry in contents.of_class("entry"):
        names = [name for name in entry if (class_of(name) or ("",))[0] == "data"]
        if not names:
            yield path, "has no group data_1"
        for name in names:
            there = isinstance(entry.get(name), h5py.Group) and dataset_in(entry[name], "data") is not None
            yield f"{path}/{name}", "" if there else "has no dataset data"


def numeric(contents: Contents) -> Told:
    """``data`` of detectors, images and data groups."""
    for path, group in contents.of_class("detector", "data", "image"):
        dataset = dataset_in(group, "data")
        if dataset is not None:
            kind = dataset.dtype
            names = kind.names
            right = kind.kind in "iufc" if names is None else names == ("r", "i")
            yield f"{path}/data", "" if right else f"holds {kind}"


def errors(contents: Contents) -> Told:
    """``errors`` (Data), ``data_error`` (Detector, Image)."""
    for path, dataset in contents.named("errors", "data_error"):
        data = dataset_in(dataset.parent, "data")
        if data is not None:
            same = dataset.shape == data.shape
            yield path, "" if same else f"has shape {dataset.shape}, data {data.shape}"


def axes(contents: Contents) -> Told:
    """The ``axes`` attribute, which more than two dimensions of an image need."""
    for path, dataset in contents.datasets.items():
        if "axes" in dataset.attrs:
            yield path, _axes_problem(dataset)
        elif dataset.ndim > 2 and path.endswith("/data") and class_of(dataset.parent.name) is not None:
            yield path, f"has {dataset.ndim} dimensions and no attribute axes"


def _axes_problem(dataset: h5py.Dataset) -> str:
    said = dataset.attrs["axes"]
    said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    if not isinstance(said, str):
        return "axes is not a string"
    names = said.split(":")
    if len(names) != dataset.ndim:
        return f"axes {said} names {len(names)} of {dataset.ndim} dimensions"
    for name, length in zip(names, dataset.shape, strict=True):
        if name not in IMPLICIT:
            scale = dataset_in(dataset.parent, name)
            if scale is None:
                return f"axis {name} is no dataset beside it"
            if (scale.shape[0] if scale.ndim else 1) != length:
                return f"axis {name} has shape {scale.shape}, the dimension {length}"
    return ""


def identifier(contents: Contents) -> Told:
    """``experiment_identifier``."""
    for path, dataset in contents.named("experiment_identifier"):
        names = text_of(dataset)
        if names is None:
            yield path, f"holds {dataset.dtype}, not text"
        elif not all(names):
            yield path, "is empty for some image"
        else:
            double = len(names) - len(set(names))
            yield path, "" if not double else f"names {double} images twice"


def text(contents: Contents) -> Told:
    """String members, in groups of CXI's classes."""
    for path, dataset in contents.named(*_TEXTS):
        if (class_of(dataset.parent.name) or ("",))[0] in CLASSES:
            words = text_of(dataset)
            yield path, "" if words is not None and len(words) == 1 else f"is {dataset.dtype} of shape {dataset.shape}"


def times(contents: Contents) -> Told:
    """Dates."""
    for path, dataset in contents.named(*_TIMES):
        words = text_of(dataset)
        if words is None:
            yield path, f"is {dataset.dtype}, not text"
        else:
            wrong = [word for word in words if _time(word) is None]
            yield path, "" if not wrong else f"{wrong[0]!r} is no ISO 8601 date with T and time zone"


def _time(word: str) -> datetime | None:
    if not _ISO.fullmatch(word):
        return None
    try:
        return datetime.fromisoformat(word)
    except ValueError:
        return None


def time_order(contents: Contents) -> Told:
    """``start_time`` and ``end_time`` of entries."""
    for path, entry in contents.of_class("entry"):
        ends = []
        for name in ("start_time", "end_time"):
            dataset = dataset_in(entry, name)
            words = None if dataset is None else text_of(dataset)
            ends.append(_time(words[0]) if words and len(words) == 1 else None)
        if ends[0] is not None and ends[1] is not None:
            yield path, "" if ends[0] <= ends[1] else f"ends {ends[1]}, before its start {ends[0]}"


def units(contents: Contents) -> Told:
    """Numbers that can only be right in SI units."""
    for path, dataset in contents.named(*_SENSIBLE):
        least, most = _SENSIBLE[path.rsplit("/", 1)[-1]]
        if dataset.dtype.kind not in "iuf":
            yield path, f"holds {dataset.dtype}, not numbers"
        elif "units" not in dataset.attrs:
            values = np.abs(np.ravel(dataset[()]))
            wrong = values[~((values >= least) & (values <= most))]
            yield (
                path,
                "" if not wrong.size else f"{wrong[0]:g} is not in {least:g}..{most:g}; use joule, metre, second",
            )
