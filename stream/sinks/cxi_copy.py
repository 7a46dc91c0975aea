"""What master files and recovered files have in common: the same layout as a file that is already there."""

from __future__ import annotations

from collections.abc import Sequence

import h5py


def growing_datasets(file: h5py.File) -> list[str]:
    """Names of the datasets with one entry per frame."""
    names: list[str] = []

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and item.maxshape[0] is None:
            names.append(name)

    file.visititems(visit)
    return names


def copy_rest(source: h5py.File, target: h5py.File, growing: Sequence[str]) -> None:
    """Copy groups, links, attributes and every dataset that is not in ``growing``."""

    def visit(name: str, link: h5py.HardLink | h5py.SoftLink) -> None:
        if isinstance(link, h5py.SoftLink):
            target[name] = h5py.SoftLink(link.path)
        elif name not in growing:
            item = source[name]
            if isinstance(item, h5py.Group):
                target.require_group(name)
            else:
                source.copy(item, target, name)

    source.visititems_links(visit)


def copy_attributes(source: h5py.Dataset, target: h5py.Dataset) -> None:
    """Copy the attributes of a dataset, types and all."""
    for name in source.attrs:
        target.attrs.create(name, source.attrs[name], dtype=source.attrs.get_id(name).dtype)
