"""``classes.h5``: the 2-D classes of a session, which particle is in which, and what a restart goes on from.

``/particles`` is a table with a row per particle that has an image, micrograph by micrograph (``/micrographs`` says
from which row on, and how many); its order within a micrograph is that of the record. ``/classes`` has a row per
class, with ``/averages`` (of the particles as recorded, aligned), ``/halves`` (averages of the half sets), and
``/centres`` (spectra, real and imaginary part last). ``/models``: which network denoised; a particle's ``model`` is the
row. ``/events``: a line of JSON each. ``/state``: sums and counters that averages and centres are made of.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ...flow.frame import BadData
from ..cxi import LIBVER
from .files import write_whole

log = logging.getLogger(__name__)

LAYOUT = "beamsieve classes 1"
NAME = "classes.h5"
#: Not classified.
NONE = 0

MICROGRAPH = np.dtype(
    [
        ("name", h5py.string_dtype()),
        ("file", h5py.string_dtype()),
        ("first", "<i8"),
        ("count", "<i4"),
        ("stamp", "<i8", (3,)),
        ("size", "<i4"),
        ("pixel_a", "<f8"),
    ]
)
PARTICLE = np.dtype(
    [
        ("micrograph", "<i4"),
        ("x", "<f4"),
        ("y", "<f4"),
        ("score", "<f4"),
        ("class", "<i4"),
        ("angle", "<f4"),
        ("shift", "<f4", (2,)),
        ("similarity", "<f4"),
        ("model", "<u2"),
        ("rejected", "u1"),
    ]
)
CLASS = np.dtype(
    [
        ("id", "<i4"),
        ("count", "<i4"),
        ("mark", "S8"),
        ("since", "<f8"),
        ("spread", "<f4"),
        ("resolution_a", "<f4"),
    ]
)
MODEL = np.dtype([("name", h5py.string_dtype()), ("sha256", "S64"), ("when", "<f8"), ("path", h5py.string_dtype())])

Table = npt.NDArray[np.void]
Floats = npt.NDArray[np.float32]
Event = tuple[float, str]


@dataclass(frozen=True, slots=True)
class DenoisedBy:
    """A network that denoised. ``when``: Unix seconds, of its first label. ``path``: its bundle, where it is known."""

    name: str
    sha256: str
    when: float
    path: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ClassTables:
    """What ``classes.h5`` holds. Arrays are not written to once they are in here.

    ``pixel_a``: Å per pixel of averages; 0 before there are any particles. ``edge``: of averages, pixels.
    ``micrographs``, ``particles``, ``classes``: tables of ``MICROGRAPH``, ``PARTICLE``, ``CLASS``, the particles of a
    micrograph one after another. ``averages`` float32 (k, edge, edge), ``halves`` (k, 2, edge, edge), ``centres``
    complex64 (k, R, M), in the order of ``classes``. ``events``: (Unix seconds, text), the newest last. ``facts`` and
    ``state``: plain values and arrays that a restart needs, by name.
    """

    pixel_a: float
    edge: int
    micrographs: Table
    particles: Table
    models: tuple[DenoisedBy, ...]
    classes: Table
    averages: Floats
    halves: Floats
    centres: npt.NDArray[np.complex64]
    events: tuple[Event, ...] = ()
    written: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    state: Mapping[str, npt.NDArray[Any]] = field(default_factory=lambda: MappingProxyType({}))


def write_classes(path: Path, tables: ClassTables) -> None:
    """Write the file as a whole. Raises ``OSError``."""
    write_whole(path, encode(tables))


def encode(tables: ClassTables) -> bytes:
    """The file's bytes, made in memory: HDF5 does not survive a disk that is full."""
    with h5py.File("classes", "w", driver="core", backing_store=False, libver=LIBVER) as file:
        file.attrs["layout"] = LAYOUT
        file.attrs["pixel_a"] = tables.pixel_a
        file.attrs["edge"] = tables.edge
        file.attrs["written"] = tables.written
        file.attrs["software"] = f"beamsieve {version('beamsieve')}"
        file.attrs["facts"] = json.dumps(dict(tables.facts))
        for name in ("micrographs", "particles", "classes"):
            file[name] = getattr(tables, name)
        for name in ("averages", "halves"):
            file[name] = getattr(tables, name).astype("<f4", copy=False)
        file["centres"] = _pairs(tables.centres)
        rows = [(m.name, m.sha256.encode(), m.when, m.path) for m in tables.models]
        file["models"] = np.array(rows, MODEL)
        lines = [json.dumps({"time": when, "text": text}, ensure_ascii=True) for when, text in tables.events]
        file["events"] = np.array(lines, h5py.string_dtype())
        state = file.create_group("state")
        for name, value in tables.state.items():
            state[name] = value
        file.flush()
        return bytes(file.id.get_file_image())


def read_classes(path: Path) -> ClassTables:
    """What the file holds. Raises ``FileNotFoundError`` where there is none, ``BadData`` where it is damaged."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no particles were classified here")
    try:
        with h5py.File(path, "r") as file:
            return _tables(file)
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> BadData:
    return BadData("classes", f"{path}: is no file of 2-D classes, or damaged ({why}); remove it to classify anew")


def _tables(file: h5py.File) -> ClassTables:
    if file.attrs.get("layout") != LAYOUT:
        raise ValueError(f"layout {file.attrs.get('layout')!r}, known is {LAYOUT!r}")
    rows, models = file["particles"][()], file["models"][()]
    micrographs = _texts(file["micrographs"][()], MICROGRAPH)
    events = [json.loads(line) for line in file["events"].asstr()[()]]
    tables = ClassTables(
        pixel_a=float(file.attrs["pixel_a"]),
        edge=int(file.attrs["edge"]),
        micrographs=micrographs,
        particles=rows.astype(PARTICLE, copy=False),
        models=tuple(
            DenoisedBy(m["name"].decode(), m["sha256"].decode(), float(m["when"]), m["path"].decode()) for m in models
        ),
        classes=file["classes"][()].astype(CLASS, copy=False),
        averages=file["averages"][()],
        halves=file["halves"][()],
        centres=_complex(file["centres"][()]),
        events=tuple((float(event["time"]), str(event["text"])) for event in events),
        written=float(file.attrs["written"]),
        facts=json.loads(file.attrs["facts"]),
        state={name: value[()] for name, value in file["state"].items()},
    )
    _check(tables)
    return tables


def _check(tables: ClassTables) -> None:
    """Tables that do not fit each other would shift labels to other particles."""
    k, count = len(tables.classes), tables.micrographs["count"]
    firsts = np.concatenate([[0], np.cumsum(count)[:-1]]) if len(count) else np.zeros(0, np.int64)
    if not np.array_equal(tables.micrographs["first"], firsts) or int(count.sum()) != len(tables.particles):
        raise ValueError("the micrographs' particles do not add up")
    if not k == len(tables.averages) == len(tables.halves) == len(tables.centres):
        raise ValueError(f"{k} classes, {len(tables.averages)} averages, {len(tables.centres)} centres")
    if len(tables.particles) and int(tables.particles["model"].max()) >= max(1, len(tables.models)):
        raise ValueError("particles of a model that is not listed")


def _texts(rows: Table, dtype: np.dtype[Any]) -> Table:
    """Rows whose texts are ``str``; h5py reads bytes."""
    found = np.zeros(len(rows), dtype)
    for name in dtype.names or ():
        column = rows[name]
        found[name] = [text.decode() for text in column] if column.dtype.kind == "O" else column
    return found


def _pairs(values: npt.NDArray[np.complex64]) -> Floats:
    found: Floats = np.stack([values.real, values.imag], -1).astype("<f4")
    return found


def _complex(pairs: Floats) -> npt.NDArray[np.complex64]:
    found: npt.NDArray[np.complex64] = np.empty(pairs.shape[:-1], np.complex64)
    found.real, found.imag = pairs[..., 0], pairs[..., 1]
    return found


class Labels:
    """Which class each particle is in, as ``classes.h5`` says; for tables that list particles by record."""

    def __init__(self, micrographs: Table, particles: Table) -> None:
        """From the tables of ``ClassTables``."""
        self._rows = particles
        starts = zip(micrographs["file"], micrographs["first"], micrographs["count"], strict=True)
        self._where = {str(file): (int(first), int(count)) for file, first, count in starts}

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, file: str, x: Floats, y: Floats, score: Floats) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Class int32 (n,) and rejected uint8 (n,) of these particles of the record ``file`` (below ``micrographs``).

        A particle is the same where x, y and score are: the record may have been picked again since the labels were
        written. ``NONE`` where it has no label.
        """
        rows = self.rows(file, x, y, score)
        return rows["class"].astype(np.int32), rows["rejected"].astype(np.uint8)

    def rows(self, file: str, x: Floats, y: Floats, score: Floats) -> Table:
        """As ``of``, with all that is known of the particles: rows of ``PARTICLE``, zeros where one has no label."""
        first, count = self._where.get(file, (0, 0))
        mine, columns = self._rows[first : first + count], {"x": x, "y": y, "score": score}
        if count == len(x) and all(np.array_equal(mine[name], column) for name, column in columns.items()):
            return mine
        known = {key: at for at, key in enumerate(_keys(mine["x"], mine["y"], mine["score"]))}
        at = np.array([known.get(key, -1) for key in _keys(x, y, score)], np.intp)
        found: Table = np.zeros(len(x), self._rows.dtype)
        found[at >= 0] = mine[at[at >= 0]]
        return found


def _keys(x: Floats, y: Floats, score: Floats) -> list[tuple[float, float, float]]:
    return list(zip(x.tolist(), y.tolist(), score.tolist(), strict=True))


def read_labels(directory: Path) -> Labels | None:
    """The labels of the session in ``directory``; None where nothing was classified. Raises ``BadData``."""
    path = directory / NAME
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("layout") != LAYOUT:
                raise ValueError(f"layout {file.attrs.get('layout')!r}")
            return Labels(_texts(file["micrographs"][()], MICROGRAPH), file["particles"][()])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error


def labels_in(directory: Path) -> Labels | None:
    """As ``read_labels``; a file that is damaged is told in the log, and there are no labels."""
    try:
        return read_labels(directory)
    except BadData as error:
        log.warning("%s", error.detail)
        return None
