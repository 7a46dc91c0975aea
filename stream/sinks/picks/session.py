"""``session.h5``: every micrograph's particles as one array, without copying a pixel (HDF5 virtual datasets).

``/micrographs``: a row per micrograph. ``/picks``: x, y, score, and the row of the micrograph, of all picks.
``/particles``: ``images`` (n, size, size), virtual, with x, y, score and the row of the micrograph; where particles are
classified also ``class`` (0: none) and ``rejected`` (1: of a class that was marked bad). ``/changes``: what people
changed on the daemon, a line of JSON each.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ...flow.operation import LOG_OF_CHANGES
from ..cxi import LIBVER
from .classes_file import Labels
from .rows import Row

log = logging.getLogger(__name__)

TABLE = np.dtype(
    [
        ("name", h5py.string_dtype()),
        ("path", h5py.string_dtype()),
        ("picks", "<i4"),
        ("candidates", "<i4"),
        ("threshold", "<f8"),
        ("pixel_a", "<f8"),
        ("shape", "<i4", (2,)),
        ("skipped", "u1"),
        ("revision", "<i4"),
        ("model_sha256", "S64"),
    ]
)
PICK = np.dtype([("x", "<f4"), ("y", "<f4"), ("score", "<f4"), ("micrograph", "<i4")])


def write_session(path: Path, rows: Sequence[Row], labels: Labels | None = None) -> None:
    """Write the file. Records are named relative to its folder, so that the folder can move. Raises ``OSError``.

    ``labels``: the particles' classes, where they have some.
    """
    # In memory first: HDF5 does not survive a disk that is full.
    with h5py.File(path.name, "w", driver="core", backing_store=False, libver=LIBVER) as file:
        file["micrographs"] = np.array([_line(row) for row in rows], TABLE)
        file["picks"] = _picks(rows)
        _particles(file, rows, labels)
        file["changes"] = np.array(_changes(path.with_name(LOG_OF_CHANGES)), h5py.string_dtype())
        file.flush()
        path.write_bytes(file.id.get_file_image())


def _changes(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        # A power cut may leave zeros at the end of a file, and HDF5's strings end at one.
        return [line for line in text.replace("\0", "").splitlines() if line.strip()]
    except FileNotFoundError:
        return []


def _line(row: Row) -> tuple[object, ...]:
    m = row.record.micrograph
    return (
        m.name,
        str(m.path),
        len(m.candidates),
        row.candidates,
        m.threshold,
        m.pixel_a,
        m.shape,
        bool(m.skipped),
        m.revision,
        m.model_sha256.encode(),
    )


def _picks(rows: Sequence[Row]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    found = np.zeros(sum(len(row.record.micrograph.candidates) for row in rows), PICK)
    start = 0
    for at, row in enumerate(rows):
        picks = row.record.micrograph.candidates
        part = found[start : start + len(picks)]
        part["x"], part["y"], part["score"], part["micrograph"] = picks.x, picks.y, picks.score, at
        start += len(picks)
    return found


def _particles(file: h5py.File, rows: Sequence[Row], labels: Labels | None) -> None:
    kept = [(at, row.file, row.record.images) for at, row in enumerate(rows) if row.record.images is not None]
    named = {row.file: row.labelled for row in rows}
    kinds = Counter((images.size, images.dtype) for _, _, images in kept)
    if not kinds:
        return
    (size, dtype), _ = kinds.most_common(1)[0]
    same = [(at, name, images) for at, name, images in kept if (images.size, images.dtype) == (size, dtype)]
    if len(same) < len(kept):
        log.warning("session.h5: particles of %d micrographs are of another size or type", len(kept) - len(same))
    group = file.create_group("particles")
    shapes = {"images": ((size, size), np.dtype(dtype))} | dict.fromkeys(("x", "y", "score"), ((), np.dtype("<f4")))
    count = sum(len(images) for _, _, images in same)
    for name, (shape, kind) in shapes.items():
        layout = h5py.VirtualLayout((count, *shape), kind)
        start = 0
        for _, record, images in same:
            if len(images):
                n = len(images)
                # HDF5 takes the file's name for a format, and a % in it for a number to be filled in.
                source = h5py.VirtualSource(record.replace("%", "%%"), f"particles/{name}", (n, *shape), kind)
                layout[start : start + n] = source
                start += n
        group.create_virtual_dataset(name, layout, fillvalue=np.nan)
    group["micrograph"] = np.concatenate([np.full(len(images), at, np.int32) for at, _, images in same])
    if labels is not None:
        found = [labels.of(named[record], images.x, images.y, images.score) for _, record, images in same]
        group["class"] = np.concatenate([number for number, _ in found])
        group["rejected"] = np.concatenate([rejected for _, rejected in found])
    group.attrs["left_out"] = len(kept) - len(same)
