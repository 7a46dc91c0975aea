"""A tomogram's own HDF5 file: where its sub-volumes are, their codes, clusters and classes, and some of their voxels.

Layout ``beamsieve tomogram 1``. ``/facts`` is JSON text with everything but arrays; what people look for is an
attribute of the root, too. ``/picks`` holds one column each: ``x``, ``y``, ``z`` (voxels of the file, the middle of
the first is 0), ``score``, ``error``, ``cluster`` (0: none), ``class`` (label value; 0: none), ``rotation`` (n, 3, 3),
``shift`` (n, 3); ``/codes`` (n, 32). ``/kept``: ``rows`` and ``boxes`` (m, e, e, e) float16, kept for training.
``/slices``: ``xy``, ``xz``, ``yz``, uint8. ``/counts`` and ``/seconds``: attributes by class, and by stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from ...flow.frame import BadData
from ..cxi import LIBVER
from ..picks.files import write_whole
from .facts import facts_of, fields_of, tell, told
from .mined import Kept, MinedTomogram, Picked, Slices

LAYOUT = "beamsieve tomogram 1"
_COLUMNS = {"score": "<f4", "error": "<f4", "cluster": "<i4", "rotation": "<f4", "shift": "<f4"}
_MISTAKES = (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError)


def now() -> str:
    """The present moment in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(found: MinedTomogram, *, stem: str, path: Path | None = None, written: str | None = None) -> bytes:
    """The file's bytes. ``stem``: what files for other programs are named after. ``written``: ISO 8601.

    ``path``: where it is to lie: label volumes are named from its folder on, so that a session can be moved; without,
    by their absolute names. Raises ``ValueError`` for label values without a name.
    """
    if len(found.picked) and int(found.picked.label.max()) > len(found.classes):
        raise ValueError(f"{found.name}: label {int(found.picked.label.max())}, and {len(found.classes)} classes")
    with h5py.File("record", "w", driver="core", backing_store=False, libver=LIBVER) as file:
        file.attrs["layout"] = LAYOUT
        tell(file, facts_of(found, stem, written or now(), path))
        picks, columns = file.create_group("picks"), found.picked
        for at, axis in enumerate("xyz"):
            picks[axis] = columns.xyz[:, at].astype("<f4")
        for name, kind in _COLUMNS.items():
            picks[name] = getattr(columns, name).astype(kind)
        picks["class"] = columns.label
        file["codes"] = columns.codes.astype("<f4")
        if found.kept is not None:
            _keep(file.create_group("kept"), found.kept)
        if found.slices is not None:
            _draw(file.create_group("slices"), found.slices)
        _attributes(file.create_group("seconds"), found.seconds)
        _attributes(file.create_group("counts"), found.counts)
        file.flush()
        return bytes(file.id.get_file_image())


def _keep(group: h5py.Group, kept: Kept) -> None:
    group["rows"] = kept.rows.astype("<i4")
    edges = kept.boxes.shape[1:]
    group.create_dataset(
        "boxes",
        data=kept.boxes.astype("<f2"),
        chunks=(1, *edges),
        maxshape=(None, *edges),
        **hdf5plugin.Bitshuffle(cname="lz4"),
    )


def _draw(group: h5py.Group, slices: Slices) -> None:
    for name in ("xy", "xz", "yz"):
        group.create_dataset(name, data=getattr(slices, name), compression="gzip", compression_opts=1)
    group.attrs["factor"] = slices.factor
    group.attrs["at_xyz"] = slices.at


def _attributes(group: h5py.Group, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        group.attrs[name] = value


def read(path: Path, *, kept: bool = False, slices: bool = True, codes: bool = True) -> MinedTomogram:
    """What a tomogram's file says. ``kept``, ``slices``, ``codes``: also these arrays; without, codes are (n, 0).

    ``segmentation`` names the label volumes that were written, None where none were.

    Raises ``BadData`` (``record``) for a file that is none, is of another layout, or is damaged.
    """
    try:
        with _opened(path) as file:
            return MinedTomogram(
                **fields_of(told(file), path),
                picked=_picked(file, codes=codes),
                kept=_kept(file) if kept else None,
                slices=_slices(file) if slices else None,
            )
    except _MISTAKES as error:
        raise _damaged(path, error) from None


def read_kept(path: Path) -> Kept | None:
    """The sub-volumes that a tomogram's file keeps; None where it keeps none. Raises ``BadData``."""
    try:
        with _opened(path) as file:
            return _kept(file)
    except _MISTAKES as error:
        raise _damaged(path, error) from None


def stem_in(path: Path) -> str:
    """What the tomogram's other files are named after. Raises ``BadData``."""
    try:
        with _opened(path) as file:
            return str(told(file)["stem"])
    except _MISTAKES as error:
        raise _damaged(path, error) from None


def relabel(
    path: Path,
    cluster: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    *,
    classes: Sequence[str],
    colours: Sequence[str] = (),
    clusters_version: int,
) -> None:
    """Other clusters and classes for the same sub-volumes: the file is replaced as a whole, or not at all.

    ``cluster``, ``label``: (n,), as in ``Picked``. ``classes``: names by label value from 1. Raises ``BadData`` for a
    file that cannot be used, ``ValueError`` for columns of another length or labels without a name, ``OSError``.
    """
    values = np.asarray(label, np.uint8)
    if values.size and int(values.max()) > len(classes):
        raise ValueError(f"{path}: label {int(values.max())}, and {len(classes)} classes")
    write_whole(path, _relabelled(path, np.asarray(cluster, "<i4"), values, classes, colours, clusters_version))


def _relabelled(
    path: Path,
    cluster: npt.NDArray[np.int32],
    label: npt.NDArray[np.uint8],
    classes: Sequence[str],
    colours: Sequence[str],
    clusters_version: int,
) -> bytes:
    try:
        # In memory: what is on the disk stays whole whatever happens here.
        with h5py.File(path, "r+", driver="core", backing_store=False) as file:
            _check_layout(file)
            n = len(file["picks/x"])
            if cluster.shape != (n,) or label.shape != (n,):
                raise _Length(f"{path}: {cluster.shape} clusters and {label.shape} classes for {n} sub-volumes")
            file["picks/cluster"][...] = cluster
            file["picks/class"][...] = label
            facts = told(file)
            facts |= {"classes": list(classes), "colours": list(colours), "clusters_version": int(clusters_version)}
            counts = np.bincount(label, minlength=1 + len(classes))
            facts["counts"] = {name: int(counts[at]) for at, name in enumerate(classes, 1)} | {
                "unmarked": int(counts[0])
            }
            del file["counts"]
            _attributes(file.create_group("counts"), facts["counts"])
            tell(file, facts)
            file.flush()
            return bytes(file.id.get_file_image())
    except _Length:
        raise
    except _MISTAKES as error:
        raise _damaged(path, error) from None


class _Length(ValueError):
    """Columns that are not of this record."""


def _opened(path: Path) -> h5py.File:
    file = h5py.File(path, "r", locking=False)
    try:
        _check_layout(file)
    except BaseException:
        file.close()
        raise
    return file


def _check_layout(file: h5py.File) -> None:
    if (layout := file.attrs["layout"]) != LAYOUT:
        raise ValueError(f"its layout is {layout!r}, known is {LAYOUT!r}")


def _picked(file: h5py.File, *, codes: bool) -> Picked:
    group = file["picks"]
    n = len(group["x"])
    picked = Picked(
        np.stack([group[axis][()] for axis in "xyz"], 1).astype(np.float32),
        label=group["class"][()].astype(np.uint8),
        codes=file["codes"][()] if codes else np.zeros((n, 0), np.float32),
        **{name: group[name][()].astype(np.dtype(kind).newbyteorder("=")) for name, kind in _COLUMNS.items()},
    )
    picked.check()
    return picked


def _kept(file: h5py.File) -> Kept | None:
    if "kept" not in file:
        return None
    rows, boxes = file["kept/rows"][()], file["kept/boxes"][()]
    if (
        boxes.ndim != 4
        or len(boxes) != len(rows)
        or (len(rows) and not 0 <= rows.min() <= rows.max() < len(file["codes"]))
    ):
        raise ValueError(f"{len(rows)} rows and boxes {boxes.shape} that do not belong together")
    return Kept(rows.astype(np.int32), boxes)


def _slices(file: h5py.File) -> Slices | None:
    if "slices" not in file:
        return None
    group = file["slices"]
    x, y, z = (int(value) for value in group.attrs["at_xyz"])
    xy, xz, yz = (group[name][()] for name in ("xy", "xz", "yz"))
    return Slices(xy, xz, yz, factor=int(group.attrs["factor"]), at=(x, y, z))


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData("record", f"{path}: is no record of a tomogram, or damaged ({error}); remove it, or restore it")
