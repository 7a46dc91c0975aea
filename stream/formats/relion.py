"""RELION's STAR tables: coordinates of picks, the summary of a picking job, micrographs and particles with optics.

Columns as RELION 4 and 5 write them; older layouts (a single ``data_``) are read too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias

from ..flow.frame import BadData
from . import box, plain
from .centres import REASON, Coordinates, Floats, Sorted, Tables, number
from .star import Block, loop, quote, read_star

SUFFIX = "_autopick.star"
COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnClassNumber", "rlnAutopickFigureOfMerit", "rlnAnglePsi")
MICROGRAPH = "rlnMicrographName"
SCORE = "rlnAutopickFigureOfMerit"


def read(path: Path) -> Tables:
    """Centres by micrograph of a coordinate file, of a particles STAR (3.0, 3.1, 4, 5), or of a job's summary.

    The files that a summary (``autopick.star``) names (STAR, ``.box``, ``.txt``) lie below its folder or one above it.
    Raises ``OSError`` and ``BadData``.
    """
    blocks = read_star(path)
    if "coordinate_files" in blocks:
        return _summary(blocks["coordinate_files"], path)
    block = next((b for b in blocks.values() if b.index("rlnCoordinateX") is not None), None)
    if block is None:
        names = ", ".join(f"data_{name}" for name in blocks)
        raise BadData(REASON, f"{path}: no column _rlnCoordinateX in {names}; name a STAR of picks or particles")
    x, y, name, score = (block.index(column) for column in ("rlnCoordinateX", "rlnCoordinateY", MICROGRAPH, SCORE))
    if x is None or y is None:
        raise BadData(REASON, f"{path}: data_{block.name} has no column _rlnCoordinateY")
    found = Sorted()
    if name is None:
        found.of("")
    for line, row in zip(block.lines, block.rows, strict=True):
        found.of("" if name is None else row[name]).add(
            number(row[x], path, line, "_rlnCoordinateX"),
            number(row[y], path, line, "_rlnCoordinateY"),
            None if score is None else number(row[score], path, line, f"_{SCORE}"),
        )
    return found.done()


def _summary(block: Block, path: Path) -> Tables:
    name, file = block.index(MICROGRAPH), block.index("rlnMicrographCoordinates")
    if name is None or file is None:
        raise BadData(REASON, f"{path}: data_coordinate_files has no _{MICROGRAPH} or no _rlnMicrographCoordinates")
    found: Tables = {}
    for line, row in zip(block.lines, block.rows, strict=True):
        found[row[name]] = _named(path, row[file], line)
    return found


def _named(path: Path, name: str, line: int) -> Coordinates:
    there = next((folder / name for folder in path.resolve().parents if (folder / name).is_file()), None)
    if there is None:
        raise BadData(REASON, f"{path}:{line}: {name}: no such file in this folder or one above it")
    if there.suffix == ".box":
        return box.read(there)
    if there.suffix == ".txt":
        return plain.read_coords(there)
    block = next(iter(read_star(there).values()))
    if block.index("rlnCoordinateX") is None or block.index(MICROGRAPH) is not None:
        raise BadData(REASON, f"{path}:{line}: {name}: is no STAR of the picks of one micrograph")
    return next(iter(read(there).values()))


def encode_picks(x: Floats, y: Floats, score: Floats) -> bytes:
    """``<stem>_autopick.star``: centres (n,) in pixels and scores; class and angle are 0, as RELION has it."""
    rows = (
        (f"{a:12.6f}", f"{b:12.6f}", "           0", f"{s:12.6f}", "    0.000000")
        for a, b, s in zip(x, y, score, strict=True)
    )
    return loop("", COORDINATES, rows).encode()


def encode_summary(files: Sequence[tuple[str, str]]) -> bytes:
    """``autopick.star``: pairs of a micrograph's name and the name of its coordinate file."""
    rows = ((quote(name), quote(file)) for name, file in files)
    return loop("coordinate_files", (MICROGRAPH, "rlnMicrographCoordinates"), rows).encode()


@dataclass(frozen=True, slots=True)
class Optics:
    """What distinguishes optics groups; None: not known.

    ``pixel_a``: ångström per pixel of the micrograph. ``image_pixel_a`` and ``image_size``: of images of particles,
    their pixel size and edge in pixels.
    """

    pixel_a: float
    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None
    image_pixel_a: float | None = None
    image_size: int | None = None


Column: TypeAlias = tuple[str, Callable[[Optics], float | None]]
COLUMNS: tuple[Column, ...] = (
    ("rlnMicrographOriginalPixelSize", attrgetter("pixel_a")),
    ("rlnVoltage", attrgetter("voltage_kv")),
    ("rlnSphericalAberration", attrgetter("spherical_aberration_mm")),
    ("rlnAmplitudeContrast", attrgetter("amplitude_contrast")),
)
OF_MICROGRAPHS: tuple[Column, ...] = (("rlnMicrographPixelSize", attrgetter("pixel_a")),)
OF_PARTICLES: tuple[Column, ...] = (
    ("rlnImagePixelSize", attrgetter("image_pixel_a")),
    ("rlnImageSize", attrgetter("image_size")),
    ("rlnImageDimensionality", lambda _: 2),
    ("rlnCtfDataAreCtfPremultiplied", lambda _: 0),
)


class Groups:
    """Numbers optics groups from 1 as they come."""

    def __init__(self) -> None:
        self._numbers: dict[Optics, int] = {}

    def number(self, optics: Optics) -> str:
        """The number of this one."""
        return str(self._numbers.setdefault(optics, len(self._numbers) + 1))

    def block(self, more: Sequence[Column]) -> str:
        """``data_optics``. A value that one group does not know is ``nan``; a column that none knows is left out."""
        columns = [(name, [value(optics) for optics in self._numbers]) for name, value in (*COLUMNS, *more)]
        known = [(name, values) for name, values in columns if any(value is not None for value in values)]
        names = ["rlnOpticsGroupName", "rlnOpticsGroup", *(name for name, _ in known)]
        rows = (
            [f"opticsGroup{number}", str(number), *(_text(values[number - 1]) for _, values in known)]
            for number in self._numbers.values()
        )
        return loop("optics", names, rows)


def _text(value: float | None) -> str:
    if value is None:
        return "nan"
    return str(value) if isinstance(value, int) else f"{value:.6f}"


def encode_micrographs(micrographs: Sequence[tuple[str, Optics]]) -> bytes:
    """``micrographs.star``: names, and the optics group of each."""
    groups = Groups()
    rows = [(quote(name), groups.number(optics)) for name, optics in micrographs]
    return (groups.block(OF_MICROGRAPHS) + loop("micrographs", (MICROGRAPH, "rlnOpticsGroup"), rows)).encode()


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Particles of one micrograph in the ``.mrcs`` named ``file``; ``x``, ``y``, ``score``: float32 (n,), by image.

    ``optics`` has the pixel size and the edge of the images.
    """

    micrograph: str
    file: str
    optics: Optics
    x: Floats
    y: Floats
    score: Floats


PARTICLES = ("rlnCoordinateX", "rlnCoordinateY", SCORE, "rlnImageName", MICROGRAPH, "rlnOpticsGroup")


def encode_particles(stacks: Sequence[Stack]) -> bytes:
    """``particles.star``. Images are numbered from 1, with six digits, as RELION does."""
    groups = Groups()
    rows: list[tuple[str, ...]] = []
    for stack in stacks:
        group, name = groups.number(stack.optics), quote(stack.micrograph)
        for at, (a, b, s) in enumerate(zip(stack.x, stack.y, stack.score, strict=True), 1):
            rows.append((f"{a:12.6f}", f"{b:12.6f}", f"{s:12.6f}", quote(f"{at:06d}@{stack.file}"), name, group))
    return (groups.block(OF_PARTICLES) + loop("particles", PARTICLES, rows)).encode()
