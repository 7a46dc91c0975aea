"""The tables of a session: for RELION, for cryoSPARC, for people, and one HDF5 file over all the others."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...formats import cryosparc, plain, relion
from .classes_file import Labels, labels_in
from .exports import located, optics, stack
from .files import whole, write_whole
from .places import Places
from .rows import Row
from .session import write_session
from .settings import PickSettings

INFO = ("acquired", "grid_square", "foil_hole")
SHARE = 0.05

Encoded = tuple[str, Callable[[], bytes]]


class Pace:
    """Says when tables are due again: every so many seconds, and so seldom that they take a twentieth of the time."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._due = -math.inf
        self._began = 0.0

    def due(self) -> bool:
        """Whether it is time."""
        return self._clock() >= self._due

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        now = self._clock()
        self._due = now + max(self._every_s, (now - self._began) / SHARE)


def write_small(rows: Sequence[Row], settings: PickSettings, places: Places) -> list[Path]:
    """``micrographs.csv``, and RELION's ``micrographs.star`` and ``autopick.star``. Raises ``OSError``.

    The CSV has every micrograph, with whatever the microscope said and every quality number; the tables for RELION
    leave those out that were skipped.
    """
    good = [row for row in rows if not row.record.micrograph.skipped]
    made: list[Encoded] = [("micrographs.csv", lambda: _csv(rows).encode())]
    if "star" in settings.formats:
        named = [(row.record.micrograph, places.of("star", row.record.stem)) for row in good]
        files = [(places.called(m.path), places.called(path)) for m, path in named if path.exists()]
        groups = [(places.called(row.record.micrograph.path), optics(row.record.micrograph, settings)) for row in good]
        made += [
            ("autopick.star", lambda: relion.encode_summary(files)),
            ("micrographs.star", lambda: relion.encode_micrographs(groups)),
        ]
    return _write(made, places)


def write_large(rows: Sequence[Row], settings: PickSettings, places: Places) -> list[Path]:
    """The tables with a row per particle, of all micrographs together, with their classes. Raises ``OSError``."""
    made: list[Encoded] = []
    labels = labels_in(places.directory)
    if "csv" in settings.formats:
        made.append(("picks.csv", lambda: _picks(rows, labels)))
    if settings.particles.mrcs:
        made.append(("particles.star", lambda: _particles(rows, settings, places)))
    if "cryosparc" in settings.formats:
        turned = "cryosparc" in settings.invert_y
        found = [located(row.record.micrograph, places, turned=turned) for row in rows]
        count = sum(len(m.x) for m in found)
        # The group is written after the file that it names.
        made += [("picks.cs", lambda: cryosparc.encode(found)), ("picks.csg", lambda: _group(count))]
    written = _write(made, places)
    path = places.directory / "session.h5"
    with whole(path) as working:
        write_session(working, rows, labels)
    return [*written, path]


def _write(made: Iterable[Encoded], places: Places) -> list[Path]:
    written = []
    for name, encode in made:
        path = places.directory / name
        write_whole(path, encode())
        written.append(path)
    return written


def _csv(rows: Sequence[Row]) -> str:
    numbers = list(dict.fromkeys(name for row in rows for name in row.record.micrograph.quality))
    said = list(dict.fromkeys([*INFO, *(name for row in rows for name in row.record.micrograph.info)]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    known = ("micrograph", "picks", "candidates", "threshold", "skipped", "warnings", "seconds", "pixel_a", "ny", "nx")
    writer.writerow([*known, "revision", "model", "model_sha256", *said, *numbers, "path"])
    for row in rows:
        writer.writerow(_line(row, said, numbers))
    return out.getvalue()


def _line(row: Row, said: Sequence[str], numbers: Sequence[str]) -> list[Any]:
    m = row.record.micrograph
    seconds = sum(row.record.seconds.values())
    return [
        m.name,
        len(m.candidates),
        row.candidates,
        f"{m.threshold:g}",
        " ".join(m.skipped),
        " ".join(m.warnings),
        f"{seconds:.3f}" if row.record.seconds else "",
        f"{m.pixel_a:.6g}",
        *m.shape,
        m.revision,
        m.model,
        m.model_sha256,
        *("" if m.info.get(name) is None else m.info[name] for name in said),
        *(f"{m.quality[name]:.6g}" if name in m.quality else "" for name in numbers),
        m.path,
    ]


def _picks(rows: Sequence[Row], labels: Labels | None) -> bytes:
    """``class`` is 0 for a particle without one; both columns are there where particles are classified."""
    lines = ["micrograph,x,y,score\n" if labels is None else "micrograph,x,y,score,class,rejected\n"]
    for row in rows:
        picks = row.record.micrograph.candidates
        more = () if labels is None else labels.of(row.labelled, picks.x, picks.y, picks.score)
        lines.append(plain.csv_rows(row.record.micrograph.name, picks.x, picks.y, picks.score, *more))
    return "".join(lines).encode()


def _particles(rows: Sequence[Row], settings: PickSettings, places: Places) -> bytes:
    stacks = []
    for row in rows:
        file = places.of("mrcs", row.record.stem)
        if row.record.images is not None and len(row.record.images) and file.exists():
            stacks.append(stack(row.record.micrograph, file, row.record.images, settings, places))
    return relion.encode_particles(stacks)


def _group(count: int) -> bytes:
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return cryosparc.encode_group("picks.cs", count, created=created, version=version("beamsieve"))
