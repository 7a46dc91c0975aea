"""What a browser fetches of a tomogram: its central slices, labels in the same planes, and its sub-volumes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from ..live.common import finite
from ..live.mining_view import Tomogram
from ..live.page import JSON, Blob
from ..live.shelf import Shelf
from ..sinks.tomograms.labels import label_plane
from ..sinks.tomograms.mined import LabelFiles, MinedTomogram
from ..sinks.tomograms.record import read

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]

BLOBS = ("slice", "labels", "picks")
PLANES = ("xy", "xz", "yz")
#: Of more sub-volumes than this, those with the best score are shown.
MOST_PICKS = 20_000
#: A side of a slice has no more pixels in the browser.
LARGEST_PX = 2048
RECORD_BYTES, LABEL_BYTES = 48 << 20, 24 << 20


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """A record in memory."""

    found: MinedTomogram

    @property
    def nbytes(self) -> int:
        """Of its slices and columns."""
        picked, slices = self.found.picked, self.found.slices
        drawn = 0 if slices is None else sum(getattr(slices, plane).nbytes for plane in PLANES)
        return drawn + picked.rotation.nbytes + 48 * len(picked)


class MiningBlobs:
    """Answers by the id of a row, which ``row`` gives. For any thread; what is read from the disk takes up to a second.

    Names of requests are never opened: the row knows its files.
    """

    def __init__(self, row: Callable[[str], Tomogram | None]) -> None:
        self._row = row
        self._records: Shelf[_Record] = Shelf(RECORD_BYTES)
        self._labels: Shelf[Bytes] = Shelf(LABEL_BYTES)

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        """``slice``, ``labels`` (``axis``: xy, xz or yz): uint8; ``picks``: JSON. Lasting where ``v`` is its revision.

        None where the row or its files are not there any more, and for anything else.
        """
        row = self._row(name)
        record = None if row is None else self._record(row)
        if row is None or record is None:
            return None
        lasting = query.get("v") == str(row.revision)
        if kind == "picks":
            return _json(picks_json(record), lasting=lasting)
        plane = query.get("axis", "")
        if plane not in PLANES or record.slices is None:
            return None
        pixels: Bytes | None = getattr(record.slices, plane)
        if kind == "labels":
            pixels = self._label_plane(row, record, plane)
        if kind not in ("slice", "labels") or pixels is None:
            return None
        shown = pixels[:: _step(pixels), :: _step(pixels)]
        head = {"shape": list(shown.shape), "dtype": "u1", "axis": plane}
        return Blob(np.ascontiguousarray(shown).tobytes(), head=head, lasting=lasting)

    def _record(self, row: Tomogram) -> MinedTomogram | None:
        if row.record is None or (stamp := _stamp(row.record)) is None:
            return None
        key = f"{row.id}/{stamp}"
        kept = self._records.get(key)
        if kept is not None:
            return kept.found
        try:
            found = read(row.record, codes=False)
        except BadData as error:
            log.info("%s", error.detail)
            return None
        self._records.put(key, _Record(found))
        return found

    def _label_plane(self, row: Tomogram, record: MinedTomogram, plane: str) -> Bytes | None:
        if row.labels is None or record.slices is None or (stamp := _stamp(row.labels)) is None:
            return None
        key = f"{row.id}/{stamp}/{plane}"
        kept = self._labels.get(key)
        if kept is not None:
            return kept
        try:
            slices = record.slices
            found = label_plane(row.labels, PLANES.index(plane), slices.at, slices.factor, record.shape)
        except (BadData, ValueError) as error:
            log.info("%s: no labels are shown: %s", row.labels, error)
            return None
        self._labels.put(key, found)
        return found


def picks_json(record: MinedTomogram) -> JSON:
    """Positions in voxels of the file, clusters, the edge of a sub-volume (``box``, in such voxels), and class names.

    ``classes``: by the label value of the label volume, the first for 0: what was marked when it was made, or what a
    configured segmentation knows. ``of``: how many there are.
    """
    picked, files = record.picked, record.segmentation
    classes = files.classes if isinstance(files, LabelFiles) else record.classes
    rows = np.arange(len(picked))
    if len(picked) > MOST_PICKS:
        rows = np.sort(np.argsort(-picked.score, kind="stable")[:MOST_PICKS])
    return {
        **{name: np.round(picked.xyz[rows, at].astype(np.float64), 1).tolist() for at, name in enumerate("xyz")},
        "cluster": picked.cluster[rows].tolist(),
        "of": len(picked),
        "box": finite(record.edge * record.working_voxel_a / record.voxel_a),
        "classes": ["", *classes],
    }


def _json(said: JSON, *, lasting: bool) -> Blob:
    body = json.dumps(said, allow_nan=False, separators=(",", ":")).encode()
    return Blob(body, kind="application/json", lasting=lasting)


def _stamp(path: Path) -> str | None:
    """Another text whenever the file is another one; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"


def _step(pixels: Bytes) -> int:
    return -(-int(max(pixels.shape)) // LARGEST_PX)
