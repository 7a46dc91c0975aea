"""What the microscope says in an MRC file's extended header: FEI1 and FEI2 (EPU, Tomography), SERI (SerialEM).

Sources: Thermo Fisher's description of the MRC extended header (fields in order, each announced by a bit of a mask),
and SerialEM's "About image file formats" (short integers per section, announced by the bits of ``nreal``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

_OLE_ZERO = datetime(1899, 12, 30)
# name, byte, bit of the first mask, factor from SI units
_FEI: tuple[tuple[str, int, int, float], ...] = (
    ("voltage_kv", 84, 5, 1e-3),
    ("dose_e_a2", 92, 6, 1e-20),
    ("tilt_deg", 100, 7, 1.0),
    ("stage_x_um", 116, 9, 1e6),
    ("stage_y_um", 124, 10, 1e6),
    ("stage_z_um", 132, 11, 1e6),
    ("pixel_a", 156, 14, 1e10),
    ("defocus_um", 220, 22, 1e6),
    ("applied_defocus_um", 236, 24, 1e6),
)
_POSITIVE = ("voltage_kv", "dose_e_a2", "pixel_a", "exposure_s", "magnification")
_LARGEST = {"voltage_kv": 3000.0, "dose_e_a2": 1e5, "pixel_a": 1e4, "exposure_s": 1e5, "magnification": 1e8}
_FEI_BYTES = 427
# of SerialEM's fields, in order: bit of nreal, name or None, format, factor
_SERI: tuple[tuple[int, tuple[str, ...], str, float], ...] = (
    (1, ("tilt_deg",), "h", 0.01),
    (2, (), "3h", 1.0),
    (4, ("stage_x_um", "stage_y_um"), "2h", 1 / 25),
    (8, ("magnification",), "h", 100.0),
    (16, (), "h", 1.0),
    (32, (), "2h", 1.0),
)


def extended_info(kind: bytes, extended: bytes, start: bytes, order: str) -> Mapping[str, Any]:
    """What the extended header says of the first section, by the names of a micrograph's ``info``.

    ``kind`` is ``exttyp``, ``extended`` its first bytes, ``start`` the 1024 bytes before it, ``order`` ``<`` or ``>``.
    ``pixel_a`` is among them where it is there. Values that cannot be are left out; nothing is raised.
    """
    if kind in (b"FEI1", b"FEI2"):
        return _plausible(dict(_fei(extended)))
    if kind == b"SERI":
        return _plausible(dict(_seri(extended, start, order)))
    return {}


def _fei(data: bytes) -> Iterator[tuple[str, Any]]:
    # The masks, and in every file seen the rest too, are little-endian whatever the main header is.
    if len(data) < _FEI_BYTES:
        return
    mask = struct.unpack_from("<I", data, 8)[0]
    for name, at, bit, factor in _FEI:
        if mask >> bit & 1:
            yield name, struct.unpack_from("<d", data, at)[0] * factor
    if mask & 1:
        days = struct.unpack_from("<d", data, 12)[0]
        if 20000 < days < 100000:
            yield "acquired", (_OLE_ZERO + timedelta(days=days)).isoformat(timespec="seconds")
    yield "magnification", struct.unpack_from("<d", data, 289)[0]
    yield "exposure_s", struct.unpack_from("<d", data, 419)[0]
    for name, at in (("instrument", 20), ("software", 52)):
        if text := data[at : at + 16].split(b"\0")[0].decode("ascii", "replace").strip():
            yield name, text


def _seri(data: bytes, start: bytes, order: str) -> Iterator[tuple[str, Any]]:
    size, flags = struct.unpack_from(f"{order}2h", start, 128)
    fields = [field for field in _SERI if flags & field[0]]
    # Any other sum of bytes is another program's use of these numbers.
    if size <= 0 or len(data) < size or sum(struct.calcsize(f"={form}") for _, _, form, _ in fields) != size:
        return
    at = 0
    for _, names, form, factor in fields:
        values = struct.unpack_from(order + form, data, at)
        at += struct.calcsize(f"={form}")
        yield from ((name, value * factor) for name, value in zip(names, values, strict=False))


def _plausible(found: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, and without numbers no microscope has."""
    kept = {}
    for name, value in found.items():
        if isinstance(value, float):
            if not math.isfinite(value) or abs(value) > _LARGEST.get(name, 1e5):
                continue
            if name in _POSITIVE and value <= 0:
                continue
        kept[name] = value
    return kept
