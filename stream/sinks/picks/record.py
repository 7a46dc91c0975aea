"""A micrograph's own HDF5 file: all candidates, which of them are picks, all that is known of it, and its particles.

``/facts`` is JSON text with everything but arrays; what people look for is an attribute of the root, too.
``/candidates`` is a table (x, y, score, sd, picked), the best first. ``/particles`` holds ``images`` (n, size, size), a
chunk each, with ``x``, ``y`` and ``score``. Coordinates are those of ``models.particles.candidates``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from ....models.particles.candidates import Candidates, Floats
from ...flow.frame import BadData
from ..cxi import LIBVER
from .micrograph import PickedMicrograph

LAYOUT = "beamsieve picks 1"
ROW = np.dtype([("x", "<f4"), ("y", "<f4"), ("score", "<f4"), ("sd", "<f4"), ("picked", "u1")])
#: Facts that are fields of ``PickedMicrograph`` under the same name.
_SAME = ("name", "revision", "pixel_a", "threshold", "model", "model_sha256", "diameter_a", "box_px", "floor")
_SHOWN = (*_SAME, "path", "shape", "configured_threshold", "warnings", "skipped", "written", "software")


@dataclass(frozen=True, slots=True)
class Change:
    """A threshold that came into force, and how many picks it gave. ``when``: ISO 8601, UTC."""

    when: str
    threshold: float
    sd_range: tuple[float, float]
    picks: int


@dataclass(frozen=True, slots=True, eq=False)
class Imaged:
    """Which particles have an image: centres and scores, float32 (n,); the images' edge, pixel size and type."""

    x: Floats
    y: Floats
    score: Floats
    size: int
    pixel_a: float
    dtype: str

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Particles that were cut out: pixels (n, size, size) float32 or float16, and where from; float32 (n,)."""

    pixels: npt.NDArray[Any]
    x: Floats
    y: Floats
    score: Floats
    pixel_a: float
    inverted: bool = True

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def imaged(self) -> Imaged:
        """The same without pixels."""
        return Imaged(self.x, self.y, self.score, int(self.pixels.shape[1]), self.pixel_a, str(self.pixels.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What one file says, without the pixels. ``micrograph.particles`` is None.

    ``stem``: what the files for other programs are named after. ``configured``: the threshold that the daemon was set
    to. ``changes``: thresholds in force, in order of time. ``seconds``: what the micrograph cost, by stage. ``images``:
    which particles have an image; None where they are not kept, or when it is not read from a file.
    """

    micrograph: PickedMicrograph
    stem: str
    configured: float
    changes: tuple[Change, ...] = ()
    images: Imaged | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def now() -> str:
    """The present moment in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(record: Record, images: Images | None, written: str) -> bytes:
    """The file's bytes. ``written``: ISO 8601."""
    facts = _facts(record, images, written)
    with h5py.File("record", "w", driver="core", backing_store=False, libver=LIBVER) as file:
        file.attrs["layout"] = LAYOUT
        for name in _SHOWN:
            value = facts[name]
            file.attrs[name] = ", ".join(value) if name in {"warnings", "skipped"} else value
        file["facts"] = np.bytes_(json.dumps(facts, ensure_ascii=True))
        quality = file.create_group("quality")
        for name, value in record.micrograph.quality.items():
            quality.attrs[name] = float(value)
        file["candidates"] = _table(record.micrograph)
        if images is not None:
            _particles(file.create_group("particles"), images)
        file.flush()
        return bytes(file.id.get_file_image())


def _facts(record: Record, images: Images | None, written: str) -> dict[str, Any]:
    m = record.micrograph
    return {
        **{name: getattr(m, name) for name in _SAME},
        "path": str(m.path),
        "particle_pixel_a": m.particle_pixel_a if images is None else images.pixel_a,
        "shape": list(m.shape),
        "sd_range": [_plain(value) for value in m.sd_range],
        "warnings": list(m.warnings),
        "skipped": list(m.skipped),
        "quality": {name: _plain(float(value)) for name, value in m.quality.items()},
        "info": {str(name): _plain(value) for name, value in m.info.items()},
        "seconds": {name: float(value) for name, value in record.seconds.items()},
        "stem": record.stem,
        "configured_threshold": record.configured,
        "thresholds": [[c.when, c.threshold, [_plain(v) for v in c.sd_range], c.picks] for c in record.changes],
        "images": None if images is None else [len(images), images.imaged.size, str(images.pixels.dtype)],
        "written": written,
        "software": f"beamsieve {version('beamsieve')}",
    }


def _plain(value: object) -> object:
    """A value as JSON has it: no NaN, no infinity, nothing of numpy."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _table(m: PickedMicrograph) -> npt.NDArray[Any]:
    rows = np.zeros(len(m.candidates), ROW)
    for name in ("x", "y", "score", "sd"):
        rows[name] = getattr(m.candidates, name)
    rows["picked"] = m.picked
    return rows


def _particles(group: h5py.Group, images: Images) -> None:
    n, height, width = images.pixels.shape
    group.create_dataset(
        "images",
        data=images.pixels,
        chunks=(1, height, width),
        maxshape=(None, height, width),
        **hdf5plugin.Bitshuffle(cname="lz4"),
    )
    for name in ("x", "y", "score"):
        group[name] = getattr(images, name).astype("<f4")
    group.attrs["pixel_a"] = images.pixel_a
    group.attrs["inverted"] = images.inverted
    group.attrs["count"] = n


def read(path: Path) -> Record:
    """What a micrograph's file says, without the pixels. Raises ``BadData`` for a file that is none or is damaged."""
    try:
        with h5py.File(path, "r") as file:
            facts = json.loads(file["facts"][()])
            return _record(facts, file["candidates"][()], file)
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData("record", f"{path}: is no record of a micrograph, or damaged ({error}); remove it, or restore it")


def _record(facts: Mapping[str, Any], rows: npt.NDArray[Any], file: h5py.File) -> Record:
    candidates = Candidates(*(np.ascontiguousarray(rows[name]) for name in ("x", "y", "score", "sd")))
    micrograph = PickedMicrograph(
        **{name: facts[name] for name in _SAME},
        path=Path(facts["path"]),
        shape=(int(facts["shape"][0]), int(facts["shape"][1])),
        candidates=candidates,
        picked=rows["picked"].astype(bool),
        quality={name: math.nan if value is None else float(value) for name, value in facts["quality"].items()},
        warnings=tuple(facts["warnings"]),
        skipped=tuple(facts["skipped"]),
        particle_pixel_a=float(facts["particle_pixel_a"]),
        info=facts["info"],
        sd_range=_band(facts["sd_range"]),
    )
    return Record(
        micrograph,
        stem=facts["stem"],
        configured=float(facts["configured_threshold"]),
        changes=tuple(Change(when, t, _band(band), picks) for when, t, band, picks in facts["thresholds"]),
        images=_imaged(facts, micrograph, file),
        seconds=facts["seconds"],
    )


def _imaged(facts: Mapping[str, Any], m: PickedMicrograph, file: h5py.File) -> Imaged | None:
    if facts["images"] is None:
        return None
    count, size, dtype = facts["images"]
    picks = m.picks
    columns = (picks.x, picks.y, picks.score)
    if count != len(picks):
        # Only after a threshold was moved: reading them for every micrograph of a session would take as long again.
        columns = tuple(file["particles"][name][()] for name in ("x", "y", "score"))
    return Imaged(*columns, int(size), m.particle_pixel_a, str(dtype))


def _band(values: Any) -> tuple[float, float]:
    low, high = values
    return 0.0 if low is None else float(low), math.inf if high is None else float(high)


def read_images(path: Path) -> Images | None:
    """The particles of a micrograph's file; None where they are not kept. Raises ``BadData``."""
    try:
        with h5py.File(path, "r") as file:
            if "particles" not in file:
                return None
            group = file["particles"]
            pixels, x, y, score = (group[name][()] for name in ("images", "x", "y", "score"))
            return Images(pixels, x, y, score, float(group.attrs["pixel_a"]), bool(group.attrs["inverted"]))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(path, error) from error
