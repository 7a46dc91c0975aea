"""cryoSPARC's ``.cs`` (a numpy structured array) and ``.csg`` (YAML that names it as a group of results).

Positions are fractions of the micrograph's edges; ``location/micrograph_shape`` is [ny, nx].
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .centres import LARGEST_BYTES, REASON, Coordinates, Floats, Tables

CSDAT = b"\x95CSDAT"
MAGIC = b"\x93NUMPY"
FRACTIONS = ("location/center_x_frac", "location/center_y_frac")
SHAPE = "location/micrograph_shape"
PATH = "location/micrograph_path"
SCORES = ("pick_stats/ncc_score", "pick_stats/power")


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """The picks of one micrograph. ``path``: as cryoSPARC shall see it. ``shape``: (ny, nx). ``diameter_a``: ångström.

    ``x``, ``y``, ``score``: float32 (n,), centres in pixels.
    """

    name: str
    path: str
    shape: tuple[int, int]
    pixel_a: float
    diameter_a: float
    x: Floats
    y: Floats
    score: Floats


def read(path: Path) -> Tables:
    """Centres by micrograph of a ``.cs`` file of particles, with the first score it has.

    Raises ``OSError``, and ``BadData`` for another kind of file: cryoSPARC's own compressed stream is one.
    """
    rows = _load(path)
    names = rows.dtype.names or ()
    for field in (*FRACTIONS, SHAPE):
        if field not in names:
            raise BadData(REASON, f"{path}: no {field}; name a file of particles that has their location")
    shape = np.asarray(rows[SHAPE], np.float64).reshape(len(rows), 2)
    fractions = np.stack([np.asarray(rows[field], np.float64) for field in FRACTIONS], 1)
    if not np.isfinite(fractions).all():
        raise BadData(
            REASON, f"{path}: {FRACTIONS[0]}: not a number in row {int(np.argmin(np.isfinite(fractions).all(1)))}"
        )
    centres = (fractions * shape[:, ::-1]).astype(np.float32)
    score = next((np.asarray(rows[field], np.float32) for field in SCORES if field in names), None)
    whose = np.asarray(rows[PATH] if PATH in names else np.full(len(rows), b""))
    found: Tables = {}
    for name in dict.fromkeys(whose.tolist()):
        mine = whose == name
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        found[text] = Coordinates(centres[mine, 0], centres[mine, 1], None if score is None else score[mine])
    return found


def _load(path: Path) -> npt.NDArray[Any]:
    if path.stat().st_size > LARGEST_BYTES:
        raise BadData(REASON, f"{path}: larger than {LARGEST_BYTES} bytes; split it")
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
    if magic == CSDAT:
        raise BadData(
            REASON,
            f"{path}: in cryoSPARC's compressed format; save it as numpy with cryosparc-tools: "
            "Dataset.load(...).save(..., format=NUMPY_FORMAT)",
        )
    if magic != MAGIC:
        raise BadData(REASON, f"{path}: does not begin as a numpy array; name a .cs file")
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise BadData(REASON, f"{path}: cannot be read: {error}; is it cut?") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.names is None:
        raise BadData(REASON, f"{path}: holds no table but an array of {rows.dtype}; name a .cs file")
    return rows


def encode(micrographs: Sequence[Located]) -> bytes:
    """The ``.cs`` file of all picks of some micrographs, one after the other."""
    return encode_rows(table(micrographs))


def table(micrographs: Sequence[Located]) -> npt.NDArray[Any]:
    """The rows. ``uid`` is made of the micrograph's name and the position: the same pick keeps it for ever."""
    room = max([len(m.path.encode()) for m in micrographs], default=1)
    rows = np.zeros(sum(len(m.x) for m in micrographs), _dtype(room))
    start = 0
    for m in micrographs:
        part = rows[start : start + len(m.x)]
        start += len(m.x)
        part["uid"] = [uid(m.name, x, y) for x, y in zip(m.x.tolist(), m.y.tolist(), strict=True)]
        part["location/micrograph_uid"] = uid(m.name)
        part[PATH] = m.path.encode()
        part[SHAPE] = m.shape
        part["location/micrograph_psize_A"] = m.pixel_a
        part["location/min_dist_A"] = m.diameter_a
        for field, centres, edge in zip(FRACTIONS, (m.x, m.y), m.shape[::-1], strict=True):
            part[field] = fraction(centres, edge)
        for field in SCORES:
            part[field] = m.score
    return rows


def fraction(centres: Floats, edge: int) -> Floats:
    """``centres`` (n,) in pixels over ``edge``, in float32, never just below the position it stands for.

    The nearest float32 of 100 / 5760 times 5760 is 99.99999: a reader that cuts the fraction off lands a pixel beside.
    """
    wanted = np.asarray(centres, np.float32)
    found = wanted / np.float32(edge)
    for _ in range(2):
        low = (found * np.float32(edge) < wanted) | (found.astype(np.float64) * edge < wanted)
        found = np.where(low, np.nextafter(found, np.float32(np.inf)), found)
    return found


def _dtype(room: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("uid", "<u8"),
            ("location/micrograph_uid", "<u8"),
            ("location/exp_group_id", "<u4"),
            (PATH, f"S{room}"),
            (SHAPE, "<u4", (2,)),
            ("location/micrograph_psize_A", "<f4"),
            *((field, "<f4") for field in FRACTIONS),
            ("location/min_dist_A", "<f4"),
            *((field, "<f4") for field in SCORES),
        ]
    )


def uid(*parts: object) -> int:
    """An identity that is the same for the same parts, for ever."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def encode_rows(rows: npt.NDArray[Any]) -> bytes:
    """A ``.cs`` file of these rows (a structured array)."""
    out = io.BytesIO()
    np.save(out, rows, allow_pickle=False)
    return out.getvalue()


def encode_group(metafile: str, count: int, *, created: str, version: str) -> bytes:
    """The ``.csg`` beside ``metafile``, for "Import Result Group". ``created``: as ``2026-01-31 12:00:00.000000``."""
    results = "".join(
        f"  {slot}:\n    metafile: '>{metafile}'\n    num_items: {count}\n    type: particle.{slot}\n"
        for slot in ("location", "pick_stats")
    )
    return (
        f"created: {created}\ngroup:\n  description: Particles picked by beamsieve\n  name: particles\n"
        f"  title: Picked particles\n  type: particle\nresults:\n{results}version: beamsieve {version}\n"
    ).encode()
