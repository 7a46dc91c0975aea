"""Label volumes and probabilities of a tomogram, written plane by plane as they are computed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...formats.mrc_write import MrcWriter
from ...formats.volumes import Shape, VolumeFile, open_volume
from .mined import Bytes, LabelFiles, MinedTomogram, Slab
from .places import Places

#: IMOD takes bytes of mode 0 as signed or unsigned, whichever way it was set up: below 128 both are the same.
MOST_CLASSES = 127


def write_labels(
    found: MinedTomogram, slabs: Iterable[Slab], places: Places, stem: str, *, probabilities: bool = True
) -> LabelFiles:
    """Write ``labels/<stem>_labels.mrc`` (mode 0) and ``labels/<stem>_<class>.mrc`` (mode 12) of a tomogram.

    ``slabs``: in order of z, and all of them; classes are those of ``found``. The label volume gets its name last:
    where it is, all are. What an exception interrupts leaves nothing. Raises ``OSError``, ``ValueError`` for slabs that
    do not fit the tomogram, and what ``slabs`` raises.
    """
    if len(found.classes) > MOST_CLASSES:
        raise ValueError(f"{len(found.classes)} classes; a label volume of bytes has {MOST_CLASSES} at most")
    where = {name: places.probability(stem, name) for name in (found.classes if probabilities else ())}
    counts = np.zeros(256, np.int64)
    with ExitStack() as stack:
        labels = stack.enter_context(_writer(found, places.labels(stem), 0, _legend(found)))
        others = [
            stack.enter_context(_writer(found, path, 12, [f"probability of {name}", _hand(found)]))
            for name, path in where.items()
        ]
        for slab in slabs:
            _check(slab, labels, len(found.classes), with_probabilities=bool(others))
            labels.write(slab.labels)
            for at, writer in enumerate(others, 1):
                writer.write(slab.probabilities[at])
            counts += np.bincount(slab.labels.ravel(), minlength=256)
    share = counts / max(1, counts.sum())
    return LabelFiles(
        places.labels(stem), found.classes, where, {name: float(share[at]) for at, name in enumerate(found.classes, 1)}
    )


def remove_labels(old: LabelFiles | None, new: LabelFiles | None) -> None:
    """Remove volumes of classes that are no more. Raises nothing."""
    if old is None:
        return
    kept = set() if new is None else {new.labels, *new.probabilities.values()}
    for path in {old.labels, *old.probabilities.values()} - kept:
        with suppress(OSError):
            path.unlink()


def _writer(found: MinedTomogram, path: Path, mode: int, labels: list[str]) -> MrcWriter:
    return MrcWriter(path, found.shape, mode, found.voxel_a, labels=labels, origin_a=found.origin_a)


def _legend(found: MinedTomogram) -> list[str]:
    """Lines of the header: what the values mean, as far as there is room."""
    names = ", ".join(f"{at} {name}" for at, name in enumerate(("background", *found.classes)))
    lines = [names[at : at + 80] for at in range(0, min(len(names), 6 * 80), 80)]
    return [f"labels of {found.name}"[:80], *lines, _hand(found)]


def _hand(found: MinedTomogram) -> str:
    return "axes as in the tomogram's file" if found.flip == "none" else f"mirrored along {found.flip} (decode.flip)"


def _check(slab: Slab, labels: MrcWriter, classes: int, *, with_probabilities: bool) -> None:
    if slab.z0 != labels.written:
        raise ValueError(f"{labels.path}: a slab from plane {slab.z0}, the next one is {labels.written}")
    if slab.labels.size and int(slab.labels.max()) > classes:
        raise ValueError(f"{labels.path}: label {int(slab.labels.max())}, and there are {classes} classes")
    if with_probabilities and len(slab.probabilities) != classes + 1:
        raise ValueError(f"{labels.path}: {len(slab.probabilities)} probabilities for background and {classes} classes")


def planes(files: LabelFiles, at: tuple[int, int, int], factor: int) -> tuple[Bytes, Bytes, Bytes]:
    """Labels in the planes through ``at`` (x, y, z), every ``factor``-th voxel: (y, x), (z, x), (z, y).

    Raises ``BadData`` where the label volume cannot be read.
    """
    with _opened(files.labels) as volume:
        xy, xz, yz = (_plane(volume, axis, at, factor) for axis in range(3))
    return xy, xz, yz


def label_plane(path: Path, axis: int, at: tuple[int, int, int], factor: int, shape: Shape) -> Bytes:
    """One of these ``planes``: across ``axis`` z 0, y 1 or x 2. ``shape``: of the tomogram (z, y, x).

    Raises ``BadData``, and ``ValueError`` where the label volume is of another shape.
    """
    with _opened(path) as volume:
        if volume.shape != shape:
            raise ValueError(f"it has {volume.shape} voxels (z, y, x), the tomogram {shape}")
        return _plane(volume, axis, at, factor)


def _opened(path: Path) -> VolumeFile:
    # Any size will do: where the tomogram's is exactly 1 Å, the header's would be refused.
    return open_volume(path, voxel_a=10.0)


def _plane(volume: VolumeFile, axis: int, at: tuple[int, int, int], factor: int) -> Bytes:
    z, y, x = volume.shape
    low, high = [0, 0, 0], [z, y, x]
    low[axis] = min(at[2 - axis], volume.shape[axis] - 1)
    high[axis] = low[axis] + 1
    return _thinned(volume.read((low[0], low[1], low[2]), (high[0], high[1], high[2])), axis, factor)


def _thinned(plane: npt.NDArray[np.float32], axis: int, factor: int) -> Bytes:
    """The middle of each block of ``factor`` by ``factor``; a block that is cut off at the end is left out."""
    flat = plane.squeeze(axis)
    rows, columns = (max(1, n // factor) for n in flat.shape)
    start = factor // 2 if min(flat.shape) > factor // 2 else 0
    return flat[start::factor, start::factor][:rows, :columns].astype(np.uint8)
