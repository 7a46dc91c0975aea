"""What an MRC header says of a volume: axes, size of a voxel along each, origin, labels, and what speaks against it.

``mrc`` reads sizes and type of the data; the rest of the 1024 bytes is read here, by the words of MRC2014 (Cheng et
al., J. Struct. Biol. 192 (2015) 146) and of IMOD's notes on it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..flow.frame import BadData
from .mrc import HEADER_BYTES, MrcHeader, read_header

_LABEL = 80
_LABELS = 10


@dataclass(frozen=True, slots=True)
class MrcVolume:
    """The header of a volume. ``axes``: which axis of the file (0 sections, 1 rows, 2 columns) is z, y, x.

    ``voxel_a``: ångström along x, y, z, None along an axis of which the header says 0 or nonsense. ``origin_a``: as the
    header has it, (x, y, z). ``space_group``: 0 for images, 1 for a volume, 401 for volumes. ``sampled``: mz.
    """

    data: MrcHeader
    axes: tuple[int, int, int]
    voxel_a: tuple[float | None, float | None, float | None]
    origin_a: tuple[float, float, float]
    space_group: int
    sampled: int
    labels: tuple[str, ...]

    @property
    def stored(self) -> tuple[int, int, int]:
        """Sections, rows, columns."""
        return self.data.nz, self.data.ny, self.data.nx


def read_volume_header(stream: BinaryIO, size: int, path: Path, *, stacks: bool = False) -> MrcVolume:
    """Read the header of an MRC file of ``size`` bytes that should hold one volume.

    ``stacks``: believe the file, not a header that says stack of images (space group 0, mz 1).

    Raises ``BadData``: those of ``mrc.read_header``, and ``axes``, ``stack`` (images, a tilt series, or several
    volumes).
    """
    name = str(path)
    data = read_header(stream, size, name)
    stream.seek(0)
    start = stream.read(HEADER_BYTES)
    order = "<" if struct.unpack("<4i", start[:16]) == (data.nx, data.ny, data.nz, data.mode) else ">"
    sampled = struct.unpack(f"{order}3i", start[28:40])
    cell = struct.unpack(f"{order}3f", start[40:52])
    found = MrcVolume(
        data,
        _axes(struct.unpack(f"{order}3i", start[64:76]), name),
        _voxel(cell, sampled, data),
        _origin(struct.unpack(f"{order}3f", start[196:208])),
        struct.unpack(f"{order}i", start[88:92])[0],
        sampled[2],
        _labels(start, order),
    )
    if (what := _images(found, stacks=stacks)) is not None:
        raise BadData(
            "stack",
            f"{name}: holds {what}, no tomogram; leave it out (source.exclude), or, where it is one, set "
            "decode.stacks: take",
        )
    return found


def _axes(words: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """From mapc, mapr, maps (which of x 1, y 2, z 3 the columns, rows and sections are)."""
    columns, rows, sections = (1, 2, 3) if words == (0, 0, 0) else words
    if sorted((columns, rows, sections)) != [1, 2, 3]:
        raise BadData(
            "axes", f"{name}: mapc, mapr, maps = {words} are not 1, 2, 3 in some order; write them as 1, 2, 3"
        )
    z, y, x = ((sections, rows, columns).index(axis) for axis in (3, 2, 1))
    return z, y, x


def _voxel(
    cell: tuple[float, ...], sampled: tuple[int, ...], data: MrcHeader
) -> tuple[float | None, float | None, float | None]:
    """Cell over sampling along x, y, z. Some programs leave mz at 1 and give the whole depth: then nz divides it."""
    found: list[float | None] = []
    for length, m in zip(cell, sampled, strict=True):
        good = m > 0 and math.isfinite(length) and length != 0
        found.append(abs(length) / m if good else None)
    x, y, z = found
    if sampled[2] == 1 and data.nz > 1 and x is not None and z is not None and abs(z / data.nz - x) <= 0.01 * x:
        z = z / data.nz
    return x, y, z


def _origin(values: tuple[float, ...]) -> tuple[float, float, float]:
    x, y, z = (value if math.isfinite(value) else 0.0 for value in values)
    return x, y, z


def _labels(start: bytes, order: str) -> tuple[str, ...]:
    count = struct.unpack(f"{order}i", start[220:224])[0]
    texts = (
        start[224 + at * _LABEL : 224 + (at + 1) * _LABEL].split(b"\0")[0].decode("ascii", "replace").strip()
        for at in range(min(max(count, 0), _LABELS))
    )
    return tuple(text for text in texts if text)


def _images(found: MrcVolume, *, stacks: bool) -> str | None:
    """What else the file holds, in words: a tilt series or a stack of particles has the sizes of a volume, no more."""
    sections = found.data.nz
    if sections == 1:
        return "one image"
    if found.space_group > 400:
        return f"a stack of volumes (space group {found.space_group})"
    if stacks:
        return None
    if "tilt_deg" in found.data.info:
        return f"{sections} images with tilt angles in the extended header (a tilt series)"
    if found.space_group == 0 and found.sampled == 1:
        return f"a stack of {sections} images (space group 0, mz 1)"
    return None
