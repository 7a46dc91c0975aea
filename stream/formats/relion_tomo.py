"""RELION 5's table of particles in tomograms: names of tomograms, and coordinates in ångström from their centres.

RELION adds half the tomogram's size, ``(w0/2, h0/2, d0/2)`` in pixels of the tilt series and not rounded, to
``rlnCenteredCoordinate…Angst`` over the pixel size (``ParticleSet::getParticleCoordDecenteredPixel``), and counts
pixels from the middle of the first. A binned tomogram has its voxel i at b·i of these, so that the same holds in its
own voxels: centred = (i − n/2) · voxel, n being its size and even or odd. Where a tomogram was padded or cut on one
side after its reconstruction, its centre is not RELION's, and neither are these coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .centres import REASON, number
from .star import loop, quote, read_star

Shape: TypeAlias = tuple[int, int, int]
Floats: TypeAlias = npt.NDArray[np.float32]
CENTRED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
NAME, PARTICLE, CLASS, SCORE = "rlnTomoName", "rlnTomoParticleName", "rlnClassNumber", "rlnAutopickFigureOfMerit"


@dataclass(frozen=True, slots=True)
class TomoOptics:
    """What RELION asks of the tilt series. ``pixel_a``: ångström per pixel, unbinned; the others None: not known."""

    pixel_a: float
    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Particles of one tomogram. ``number``: int (n,), of each in the tomogram's name (``TS_01/17``), from 1.

    ``xyz``: float32 (n, 3), voxels of the tomogram of ``shape`` (z, y, x) and ``voxel_a``. ``label``: int (n,), the
    number of its class. ``note``: a line of comment about the tomogram, or nothing.
    """

    tomogram: str
    shape: Shape
    voxel_a: float
    xyz: Floats
    score: Floats
    label: npt.NDArray[np.integer]
    number: npt.NDArray[np.integer]
    note: str = ""


def centred(xyz: npt.NDArray[np.floating], shape: Shape, voxel_a: float) -> npt.NDArray[np.float64]:
    """Positions (n, 3) in voxels, as ångström from the centre."""
    return (np.asarray(xyz, np.float64) - _half(shape)) * voxel_a


def from_centred(angstrom: npt.NDArray[np.floating], shape: Shape, voxel_a: float) -> npt.NDArray[np.float64]:
    """The inverse of ``centred``."""
    return np.asarray(angstrom, np.float64) / voxel_a + _half(shape)


def _half(shape: Shape) -> npt.NDArray[np.float64]:
    return np.array(shape[::-1], np.float64) / 2


def encode(parts: Sequence[Part], optics: TomoOptics | None = None) -> bytes:
    """``particles.star``. Without ``optics`` it holds ``data_particles`` alone, for RELION's import of coordinates."""
    columns = [NAME, *CENTRED, PARTICLE, CLASS, SCORE, *(["rlnOpticsGroup"] if optics else [])]
    notes = "".join(f"# {quote(part.tomogram)}: {_line(part.note)}\n" for part in parts if part.note)
    block = loop("particles", columns, (row for part in parts for row in _rows(part, grouped=optics is not None)))
    return (notes + (_optics(optics) if optics else "") + block).encode()


def _rows(part: Part, *, grouped: bool) -> Iterable[tuple[str, ...]]:
    name = quote(part.tomogram)
    end = ("1",) if grouped else ()
    where = centred(part.xyz, part.shape, part.voxel_a)
    for (x, y, z), label, score, at in zip(where, part.label, part.score, part.number, strict=True):
        particle = quote(f"{part.tomogram}/{at}")
        yield (name, f"{x:.4f}", f"{y:.4f}", f"{z:.4f}", particle, str(int(label)), f"{score:.6f}", *end)


def _optics(optics: TomoOptics) -> str:
    known = [
        ("rlnTomoTiltSeriesPixelSize", optics.pixel_a),
        ("rlnVoltage", optics.voltage_kv),
        ("rlnSphericalAberration", optics.spherical_aberration_mm),
        ("rlnAmplitudeContrast", optics.amplitude_contrast),
    ]
    known = [(name, value) for name, value in known if value is not None]
    names = ["rlnOpticsGroup", "rlnOpticsGroupName", *(name for name, _ in known)]
    return loop("optics", names, [["1", "opticsGroup1", *(f"{value:.6f}" for _, value in known)]])


def _line(text: str) -> str:
    return " ".join(text.split())


def read(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Centred coordinates (n, 3), ångström, by the name of the tomogram. Raises ``OSError`` and ``BadData``."""
    blocks = read_star(path)
    block = next((b for b in blocks.values() if b.index(CENTRED[0]) is not None), None)
    if block is None:
        raise BadData(REASON, f"{path}: no column _{CENTRED[0]}; name a particles STAR of RELION 5")
    at, name = [block.index(column) for column in CENTRED], block.index(NAME)
    if name is None or None in at:
        raise BadData(REASON, f"{path}: data_{block.name} lacks _{NAME}, _{CENTRED[1]} or _{CENTRED[2]}")
    found: dict[str, list[list[float]]] = {}
    for line, row in zip(block.lines, block.rows, strict=True):
        point = [
            number(row[i], path, line, f"_{column}") for i, column in zip(at, CENTRED, strict=True) if i is not None
        ]
        found.setdefault(row[name], []).append(point)
    return {tomogram: np.array(points) for tomogram, points in found.items()}
