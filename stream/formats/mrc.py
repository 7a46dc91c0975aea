r"""MRC2014 images and stacks (mode, sizes, pixel size), read from a header that is not trusted.

The 1024 bytes are parsed here and compared with the file's size before a byte is allocated for pixels: programs write
wrong machine stamps, ``MAP\0`` for ``MAP `` and no stamp at all, and garbage read as a header promises terabytes.
Source of the layout: Cheng et al., J. Struct. Biol. 192 (2015) 146, and IMOD's notes on its use of the spare bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .mrc_extended import extended_info

Order: TypeAlias = Literal["<", ">"]
HEADER_BYTES = 1024
LARGEST_SIDE = 1 << 17
LARGEST_SECTION = 1 << 29  # pixels; the largest camera of 2026 has 16384² in super-resolution, which is half of it
LARGEST_STACK = 1 << 20
MODES: Mapping[int, str] = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_REFUSED = {
    3: "complex of int16 (a transform)",
    4: "complex of float32 (a transform)",
    16: "RGB",
    101: "4 bits packed, two pixels in a byte",
}
_IMOD_STAMP = 1146047817
_SIGNED_BYTES, _PACKED_BYTES = 1, 16
_SQUARE = 0.01


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What an MRC header says. ``dtype`` has the file's byte order; pixels start at byte ``offset``.

    ``pixel_a``: ångström per pixel along x, or None where the header says 0, nonsense, or pixels that are not square.
    """

    nx: int
    ny: int
    nz: int
    mode: int
    dtype: np.dtype[Any]
    offset: int
    pixel_a: float | None
    info: Mapping[str, Any]

    @property
    def frame_bytes(self) -> int:
        """Bytes of one section."""
        return self.nx * self.ny * self.dtype.itemsize

    @property
    def expected_bytes(self) -> int:
        """Bytes a whole file of this header has at least."""
        return self.offset + self.nz * self.frame_bytes


def read_header(stream: BinaryIO, size: int, name: str) -> MrcHeader:
    """Read and check the header of an MRC file of ``size`` bytes; nothing is allocated for pixels.

    Raises ``BadData``: ``truncated`` (not even a header), ``header`` (no MRC file, or impossible sizes), ``mode`` (an
    encoding that is not read). Data that end early are no error here: compare ``expected_bytes`` with ``size``.
    """
    stream.seek(0)
    start = stream.read(HEADER_BYTES)
    if len(start) < HEADER_BYTES:
        raise BadData("truncated", f"{name}: {len(start)} bytes, an MRC header has {HEADER_BYTES}; copy it again")
    order = _byte_order(start, size, name)
    nx, ny, nz, mode = struct.unpack(f"{order}4i", start[:16])
    nsymbt = struct.unpack(f"{order}i", start[92:96])[0]
    dtype = np.dtype(_type_of(mode, start, order, name)).newbyteorder(order)
    stream.seek(HEADER_BYTES)
    extended = stream.read(min(nsymbt, 1 << 16))
    info: dict[str, Any] = {}
    from_extended = extended_info(start[104:108], extended, start, order)
    info |= {key: value for key, value in from_extended.items() if key != "pixel_a"}
    pixel = _pixel_a(start, order, info) or from_extended.get("pixel_a")
    return MrcHeader(nx, ny, nz, mode, dtype, HEADER_BYTES + nsymbt, pixel, info)


def _byte_order(start: bytes, size: int, name: str) -> Order:
    """``<`` or ``>``: the machine stamp's, unless the header only makes sense in the other one."""
    stamped: Order = ">" if start[212:214] == b"\x11\x11" else "<"
    other: Order = "<" if stamped == ">" else ">"
    wrong = _nonsense(start, stamped, size)
    if not wrong:
        return stamped
    if not _nonsense(start, other, size):
        return other
    raise BadData("header", f"{name}: no MRC header: {wrong}; is it an MRC file, and copied whole?")


def _nonsense(start: bytes, order: str, size: int) -> str | None:
    """What is impossible in this header when read in this byte order; None where it makes sense."""
    nx, ny, nz, mode = struct.unpack(f"{order}4i", start[:16])
    nsymbt = struct.unpack(f"{order}i", start[92:96])[0]
    sides = 0 < nx <= LARGEST_SIDE and 0 < ny <= LARGEST_SIDE and 0 < nz <= LARGEST_STACK
    if not sides or nx * ny > LARGEST_SECTION:
        return f"nx, ny, nz = {nx}, {ny}, {nz}"
    if mode not in MODES and mode not in _REFUSED:
        return f"mode {mode} (known are {', '.join(map(str, MODES))})"
    if not 0 <= nsymbt <= size:
        return f"nsymbt {nsymbt} of extended header in a file of {size} bytes"
    if start[208:211] == b"MAP":
        return None
    # Without the stamp three plausible integers are not enough: then the file has to have the size they imply.
    itemsize = np.dtype(MODES.get(mode, "i1")).itemsize
    if HEADER_BYTES + nsymbt + nx * ny * nz * itemsize != size:
        return f"no 'MAP ' at byte 208 ({start[208:212]!r}), and nx, ny, nz = {nx}, {ny}, {nz} do not fit its size"
    return None


def _type_of(mode: int, start: bytes, order: str, name: str) -> str:
    stamp, flags = struct.unpack(f"{order}2i", start[152:160])
    if mode in _REFUSED or (mode == 0 and stamp == _IMOD_STAMP and flags & _PACKED_BYTES):
        what = _REFUSED.get(mode, _REFUSED[101])
        raise BadData(
            "mode", f"{name}: mode {mode} is {what}; write it as mode 2 (float32) or 6 (uint16), as newstack does"
        )
    # IMOD wrote unsigned bytes for years, and says so with a stamp of its own.
    unsigned = mode == 0 and stamp == _IMOD_STAMP and not flags & _SIGNED_BYTES
    return "u1" if unsigned else MODES[mode]


def _pixel_a(start: bytes, order: str, info: dict[str, Any]) -> float | None:
    """Ångström per pixel: cella / m along x; None for 0, nonsense, or another value along y."""
    mx, my = struct.unpack(f"{order}2i", start[28:36])
    cell_x, cell_y = struct.unpack(f"{order}2f", start[40:48])
    if mx <= 0 or my <= 0 or not (math.isfinite(cell_x) and math.isfinite(cell_y)) or cell_x <= 0 or cell_y <= 0:
        return None
    x, y = cell_x / mx, cell_y / my
    if abs(x - y) > _SQUARE * x:
        info["not_square_a"] = (x, y)
        return None
    return x if math.isfinite(x) and x > 0 else None


def read_section(stream: BinaryIO, header: MrcHeader, index: int, name: str) -> npt.NDArray[Any]:
    """One section as (ny, nx) in native byte order; row 0 is y = 0. float16 comes as float32.

    Raises ``BadData("truncated")`` where the file ends before it does.
    """
    stream.seek(header.offset + index * header.frame_bytes)
    data = np.empty((header.ny, header.nx), header.dtype)
    # ``readinto`` may give less than asked; a view of bytes, because it does not count elements.
    view, got = data.reshape(-1).view(np.uint8).data, 0
    while got < header.frame_bytes and (n := stream.readinto(view[got:])):  # type: ignore[attr-defined]
        got += n
    if got < header.frame_bytes:
        raise BadData(
            "truncated",
            f"{name}: ends {header.frame_bytes - got} bytes early in section {index + 1} of {header.nz}; copy it again",
        )
    return data.astype(np.float32 if header.mode == 12 else header.dtype.newbyteorder("="), copy=False)
