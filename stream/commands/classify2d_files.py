"""The files of ``beamsieve classify2d``: labels, averages, pictures, and the sets for RELION and cryoSPARC."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...models.classes2d.classify import Classified
from ...models.classes2d.montage import montage
from ...models.classes2d.working import EDGE
from ..formats.cryosparc_classes import Aligned
from ..formats.relion import Optics
from ..formats.relion_classes import ClassifiedStack
from ..sinks.picks.class_exports import Labelled
from ..sinks.picks.class_sets import ClassAverage, write_cryosparc, write_relion, write_stack
from ..sinks.picks.classes_file import CLASS, MICROGRAPH, PARTICLE, ClassTables, DenoisedBy, Table, write_classes
from ..sinks.picks.files import write_whole
from ..sinks.picks.places import RECORDS, Places
from ..sinks.picks.settings import PickSettings, noted_settings
from .particle_files import Part
from .particle_stacks import Stacks

Floats = npt.NDArray[np.float32]
Rows2d = tuple[ClassifiedStack | None, Aligned | None]
COLUMNS = ("source", "index", "class", "angle", "shift_x", "shift_y", "similarity")


@dataclass(frozen=True, slots=True)
class Model:
    """What denoised."""

    name: str
    sha256: str
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class Labelled2d:
    """All particles with their classes. ``centres``: complex64 (k, R, M), of what is compared of the averages."""

    found: Stacks
    made: Classified
    centres: npt.NDArray[np.complex64]
    model: Model


@dataclass(frozen=True, slots=True)
class Written:
    """The files, and what people should know of them."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def write(labelled: Labelled2d, out: Path, project: Path | None, optics: Optics) -> Written:
    """Write every file but ``denoised.mrcs`` into ``out``. ``optics``: where a source does not say.

    Raises ``OSError``, and ``ValueError`` for a session whose settings are damaged.
    """
    found, made = labelled.found, labelled.made
    tables = _tables(labelled)
    classes = [
        ClassAverage(at, at, int(count), "", float(resolution), float(spread))
        for at, (count, resolution, spread) in enumerate(
            zip(made.counts, made.resolution_a, made.spread, strict=True), 1
        )
    ]
    files = [out / name for name in ("labels.csv", "classes.mrcs", "classes.png", "classes.h5")]
    write_whole(files[0], _csv(labelled).encode())
    write_stack(files[1], made.averages, found.working_a)
    write_whole(files[2], montage(made.averages, made.counts, [str(one.number) for one in classes]))
    write_classes(files[3], tables)
    if not found.working_a:
        return Written(
            tuple(files), ("no pixel size: no files for RELION and cryoSPARC; give --pixel-size to have them",)
        )
    called = Places(out, project).called
    rows = [_rows(part, tables, project, optics) for part in found.parts]
    pixel_a = found.working_a
    files += write_relion(out / "relion", 1, [relion for relion, _ in rows], made.averages, pixel_a, classes, called)
    files += write_cryosparc(out / "cryosparc", [cs for _, cs in rows], made.averages, pixel_a, classes, called)
    return Written(tuple(files), tuple(_remarks([relion for relion, _ in rows])))


def _remarks(rows: Sequence[ClassifiedStack | None]) -> Iterator[str]:
    stacks = [row for row in rows if row is not None]
    if len(stacks) < len(rows):
        yield f"relion, cryosparc: {len(rows) - len(stacks)} micrographs have no .mrcs beside their record; left out"
    if any(stack.file is None for stack in stacks):
        yield (
            "relion: not all particles lie in .mrcs stacks, so that data.star names no images; "
            "with files.particles.mrcs: true the daemon writes such stacks"
        )
    if any(stack.optics.voltage_kv is None or stack.optics.spherical_aberration_mm is None for stack in stacks):
        yield "relion: voltage and spherical aberration are not known; RELION asks for them: give --voltage and --cs"


def _csv(labelled: Labelled2d) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    made = labelled.made
    for part in labelled.found.parts:
        some = slice(part.first, part.first + part.count)
        shifts = made.shift[some] * np.float32(part.even / EDGE)
        columns = (made.labels[some], made.angle[some], shifts, made.similarity[some])
        for at, (label, angle, (x, y), like) in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1):
            numbers = (f"{angle:.3f}", f"{x:.3f}", f"{y:.3f}", f"{like:.5f}") if label else ("", "", "", "")
            writer.writerow((part.path, at, label, *numbers))
    return out.getvalue()


def _tables(labelled: Labelled2d) -> ClassTables:
    """The contents of ``classes.h5``, as the daemon has it; places that are not known are NaN."""
    found, made = labelled.found, labelled.made
    particles: Table = np.zeros(found.count, PARTICLE)
    micrographs: Table = np.zeros(len(found.parts), MICROGRAPH)
    for name in ("x", "y", "score"):
        particles[name] = np.nan
    for number, part in enumerate(found.parts):
        some = particles[part.first : part.first + part.count]
        some["micrograph"] = number
        images = None if part.row is None else part.row.record.images
        if part.row is not None and images is not None:
            some["x"], some["y"], some["score"] = images.x, images.y, images.score
        name = str(part.path) if part.row is None else part.row.record.micrograph.name
        file = str(part.path) if part.row is None else part.row.file.removeprefix(f"{RECORDS}/")
        micrographs[number] = (name, file, part.first, part.count, (0, 0, 0), part.edge, part.pixel_a or 0.0)
    for name, values in (("class", made.labels), ("angle", made.angle), ("shift", made.shift)):
        particles[name] = values
    particles["similarity"] = made.similarity
    classes: Table = np.zeros(len(made.counts), CLASS)
    now = time.time()
    classes["id"], classes["count"] = np.arange(1, len(classes) + 1), made.counts
    classes["since"], classes["spread"], classes["resolution_a"] = now, made.spread, made.resolution_a
    if not found.working_a:
        classes["resolution_a"] = np.nan
    model = DenoisedBy(labelled.model.name, labelled.model.sha256, now, labelled.model.path)
    return ClassTables(
        found.working_a or 0.0,
        EDGE,
        micrographs,
        particles,
        (model,),
        classes,
        made.averages,
        made.halves,
        labelled.centres,
        written=now,
    )


def _rows(part: Part, tables: ClassTables, project: Path | None, optics: Optics) -> Rows2d:
    """One file's particles for RELION and for cryoSPARC."""
    labels = tables.particles[part.first : part.first + part.count]
    if part.row is not None:
        return _of_session(part, labels, project, optics)
    kept = np.flatnonzero(labels["class"] > 0)
    pixel_a, chosen = part.pixel_a or 0.0, labels[kept]
    path = Places(part.path.parent, project).called(part.path) if part.dataset is None else None
    shift = chosen["shift"] * np.float32(part.even / EDGE)
    return (
        ClassifiedStack(
            replace(optics, pixel_a=pixel_a, image_pixel_a=pixel_a, image_size=part.edge),
            (kept + 1).astype(np.int32),
            chosen["class"],
            chosen["angle"],
            shift * np.float32(pixel_a),
            # RELION takes a stack for one by its ending.
            path if part.path.suffix.lower() == ".mrcs" else None,
        ),
        Aligned(
            str(part.path),
            kept.astype(np.int32),
            chosen["class"] - 1,
            chosen["angle"],
            shift,
            chosen["similarity"],
            part.edge,
            pixel_a,
            path,
        ),
    )


def _of_session(part: Part, labels: Table, project: Path | None, optics: Optics) -> Rows2d:
    """The same for a record of a session, which says where the particles were; None where its stack is not there."""
    assert part.row is not None
    settings = noted_settings(part.folder) or PickSettings.model_validate({"directory": part.folder})
    known = {
        name: getattr(optics, name)
        for name in ("voltage_kv", "spherical_aberration_mm")
        if getattr(settings, name) is None
    }
    places = Places(part.folder, project or settings.project)
    one = Labelled(labels, part.row, settings.model_copy(update=known), places, EDGE)
    numbers = {int(number): int(number) for number in np.unique(labels["class"])}
    return one.relion(numbers, lambda rows: rows["class"] > 0), one.cryosparc(numbers)
