"""A master file: the parts of one run as a whole, without copying a frame (HDF5 virtual datasets)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from .cxi import CHANGES, COUNT, END_REASON, END_TIME, put_change
from .cxi_copy import copy_attributes, copy_rest, growing_datasets
from .cxi_disk import SUFFIX, new_file, publish


def write_master(path: Path, parts: Sequence[Path]) -> Path:
    """Write a CXI file that shows ``parts`` one after the other; returns the name it got.

    Parts are named relative to the master, so that the folder can move. Raises ``ValueError`` if the parts differ in
    frame shape, type, classes, or in having one mask or one per frame; ``OSError`` or ``RuntimeError`` if HDF5 fails.
    """
    working = path.with_name(path.name + SUFFIX)
    with new_file(working) as master, h5py.File(parts[0]) as first:
        growing = growing_datasets(first)
        counts = [_count(part, first, growing) for part in parts]
        copy_rest(first, master, growing)
        for name in growing:
            _stack(master, first[name], [os.path.relpath(part, path.parent) for part in parts], counts)
        master[COUNT][()] = np.int64(sum(counts))
        for at, line in enumerate(_changes(parts)):
            put_change(master[CHANGES], at, line)
        with h5py.File(parts[-1]) as last:
            for name in (END_TIME, END_REASON):
                master[name][()] = last[name][()]
    return publish(working, path)


def _changes(parts: Sequence[Path]) -> list[str]:
    """What people changed in any of the parts, each change once: a part begins with what the last one ended with."""
    found: dict[str, None] = {}
    for part in parts:
        with h5py.File(part) as file:
            found |= dict.fromkeys(line for line in file[CHANGES].asstr()[()] if line)
    return list(found)


def _count(part: Path, first: h5py.File, growing: Sequence[str]) -> int:
    """Frames in a part, after a look at whether it is laid out like the first."""
    with h5py.File(part) as file:
        if growing_datasets(file) != list(growing):
            raise ValueError(f"{part.name} has other datasets per frame than {Path(first.filename).name}")
        for name in growing:
            if file[name].shape[1:] != first[name].shape[1:] or file[name].dtype != first[name].dtype:
                raise ValueError(f"{part.name}: {name} differs in shape or type from {Path(first.filename).name}")
        return int(file[COUNT][()])


def _stack(master: h5py.File, like: h5py.Dataset, parts: Sequence[str], counts: Sequence[int]) -> None:
    shape = like.shape[1:]
    layout = h5py.VirtualLayout((sum(counts), *shape), like.dtype)
    start = 0
    for part, count in zip(parts, counts, strict=True):
        layout[start : start + count] = h5py.VirtualSource(part, like.name, (count, *shape), like.dtype)
        start += count
    copy_attributes(like, master.create_virtual_dataset(like.name, layout))
