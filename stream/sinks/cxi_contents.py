"""What is in an HDF5 file, for reading CXI files that are finished, being written, or left behind."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters
import numpy as np

from ..flow.frame import BadData
from .cxi_disk import claim
from .cxi_flags import AsIfClosed

_NUMBERED = re.compile(r"([a-z]+)_([0-9]+)")


@dataclass(slots=True)
class Contents:
    """What a file has, by path: ``groups`` and ``datasets`` (hard links), and the targets of the other ``links``.

    ``damaged``: what could not be opened, and why.
    """

    file: h5py.File
    groups: dict[str, h5py.Group] = field(default_factory=dict)
    datasets: dict[str, h5py.Dataset] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def of_class(self, *names: str) -> Iterator[tuple[str, h5py.Group]]:
        """Groups of these CXI classes: ``("detector",)`` gives every ``…/detector_N``."""
        for path, group in self.groups.items():
            split = class_of(path)
            if split is not None and split[0] in names:
                yield path, group

    def named(self, *names: str) -> Iterator[tuple[str, h5py.Dataset]]:
        """Datasets of these names, wherever they are."""
        for path, dataset in self.datasets.items():
            if path.rsplit("/", 1)[-1] in names:
                yield path, dataset


def class_of(path: str) -> tuple[str, int] | None:
    """Class and number of a group's name: ``/entry_1/data_2`` is ``("data", 2)``."""
    match = _NUMBERED.fullmatch(path.rsplit("/", 1)[-1])
    return (match[1], int(match[2])) if match else None


def survey(file: h5py.File) -> Contents:
    """Walk through a file once; what cannot be opened goes into ``damaged``."""
    contents = Contents(file)
    seen: set[int] = set()
    todo = ["/"]
    while todo:
        parent = todo.pop()
        try:
            names = list(file[parent])
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            contents.damaged[parent] = str(error)
            continue
        for name in names:
            path = f"{parent.rstrip('/')}/{name}"
            try:
                if _note(contents, file, path, seen):
                    todo.append(path)
            except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
                contents.damaged[path] = str(error)
    return contents


def _note(contents: Contents, file: h5py.File, path: str, seen: set[int]) -> bool:
    """Enter what stands at ``path``; whether it is a group to walk through, for the first time."""
    link = file.get(path, getlink=True)
    if isinstance(link, h5py.SoftLink):
        contents.links[path] = link.path
    elif isinstance(link, h5py.ExternalLink):
        contents.links[path] = f"{link.filename}:{link.path}"
    else:
        item = file[path]
        address = h5py.h5o.get_info(item.id).addr
        if isinstance(item, h5py.Dataset):
            contents.datasets[path] = item
        elif isinstance(item, h5py.Group) and address not in seen:
            seen.add(address)
            contents.groups[path] = item
            return True
    return False


def dataset_in(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """A dataset, also behind a link; None if there is none."""
    with suppress(KeyError, OSError, RuntimeError):
        item = group[name]
        return item if isinstance(item, h5py.Dataset) else None
    return None


def text_of(dataset: h5py.Dataset) -> list[str] | None:
    """The strings of a dataset of any shape; None if it does not hold strings."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        return None
    values: Any = np.atleast_1d(dataset[()]).ravel()
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


def open_cxi(path: Path, stack: ExitStack) -> tuple[h5py.File, str]:
    """Open a file for reading, and say in a sentence if it is not finished (else an empty one).

    A file that a daemon writes is followed as it was at its last flush. Raises ``BadData("format")`` naming the file
    and the remedy if it cannot be opened.
    """
    try:
        return stack.enter_context(h5py.File(path, "r")), ""
    except (OSError, RuntimeError) as error:
        first = error
    with suppress(OSError, RuntimeError, BadData):
        # Only beside a live writer: HDF5 waits longer and longer, without end, for a damaged block to become whole.
        if _is_written(path):
            return stack.enter_context(h5py.File(path, "r", swmr=True)), "is being written"
        stream = stack.enter_context(AsIfClosed(path))
        return stack.enter_context(h5py.File(stream, "r")), f"not finished; finish it: beamsieve recover {path}"
    raise BadData("format", f"{path}: cannot be opened as HDF5 ({first}); name a CXI file") from first


def _is_written(path: Path) -> bool:
    try:
        descriptor = claim(path, fcntl.LOCK_EX)
    except BlockingIOError:
        return True
    if descriptor >= 0:
        os.close(descriptor)
    return False
