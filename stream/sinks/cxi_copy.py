"""What master files and recovered files have in common: the same layout as a file that is already there."""

from __future__ import annotations

from collections.abc import Sequence

import h5py

from .cxi_contents import survey


def growing_datasets(file: h5py.File) -> list[str]:
    """Paths of the datasets with one entry per frame."""
    return [path for path, item in survey(file).datasets.items() if item.shape and item.maxshape[0] is None]


def copy_rest(source: h5py.File, target: h5py.File, growing: Sequence[str]) -> None:
    """Copy groups, links, attributes and every dataset that is not in ``growing``.

    Raises ``ValueError`` naming what cannot be opened, if the source is damaged.
    """
    contents = survey(source)
    for path, why in contents.damaged.items():
        raise ValueError(f"{path} is damaged: {why}")
    for path in contents.groups:
        target.require_group(path)
    for path, dataset in contents.datasets.items():
        if path not in growing:
            source.copy(dataset, target, path)
    for path, leads_to in contents.links.items():
        target[path] = h5py.SoftLink(leads_to)


def copy_attributes(source: h5py.Dataset, target: h5py.Dataset) -> None:
    """Copy the attributes of a dataset, types and all."""
    for name in source.attrs:
        target.attrs.create(name, source.attrs[name], dtype=source.attrs.get_id(name).dtype)
