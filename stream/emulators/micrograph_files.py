"""What a microscope's computer writes for one exposure: the image's bytes, its name, and the file beside it.

Names and companions are those of EPU and SerialEM, as far as a program that watches their folders reads them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import tifffile

Layout: TypeAlias = Literal["flat", "epu", "serialem"]
Format: TypeAlias = Literal["mrc", "tiff"]
Centre: TypeAlias = tuple[float, float, str, int]
_MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6}
_SHARED = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
_ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
_SCHEMA = "http://www.w3.org/2001/XMLSchema"
_HOLES_PER_SQUARE = 20


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """One exposure: ``data``, the file's bytes, and what is true of it.

    ``centres``: rows of (x, y, kind, view) of all that lies on it, kind ``particle`` for what should be picked;
    ``view`` is which of a few views a particle shows, from 1, and 0 where it may be any. ``optics``:
    ``pixel_a``, ``voltage_kv``, ``dose_e_a2``, ``defocus_um`` (negative = under focus), ``nx`` and ``ny``, where known.
    """

    data: bytes
    suffix: str
    centres: tuple[Centre, ...] = ()
    optics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def mrc_bytes(image: npt.NDArray[Any], pixel_a: float) -> bytes:
    """An MRC2014 file of one image (ny, nx), int8, int16, uint16 or float32. Raises ``ValueError`` for other types."""
    if image.dtype.name not in _MODES or image.ndim != 2:
        raise ValueError(f"an image of {image.dtype} {image.shape}: MRC takes {', '.join(_MODES)}, two axes")
    ny, nx = image.shape
    low, high, mean = float(image.min()), float(image.max()), float(image.mean(dtype=np.float64))
    header = struct.pack("<10i", nx, ny, 1, _MODES[image.dtype.name], 0, 0, 0, nx, ny, 1)
    header += struct.pack("<6f3i3f2i", nx * pixel_a, ny * pixel_a, pixel_a, 90, 90, 90, 1, 2, 3, low, high, mean, 0, 0)
    header = header.ljust(108, b"\0") + struct.pack("<i", 20141)
    header = header.ljust(208, b"\0") + b"MAP \x44\x44\0\0" + struct.pack("<f", float(image.std(dtype=np.float64)))
    label = b"beamsieve emulate micrographs".ljust(80)
    return (header + struct.pack("<i", 1) + label).ljust(1024, b"\0") + image.astype(
        image.dtype.newbyteorder("<")
    ).tobytes()


def tiff_bytes(image: npt.NDArray[Any], pixel_a: float) -> bytes:
    """An LZW-compressed TIFF of one image (ny, nx), its resolution in pixels per centimetre of the specimen."""
    stream = io.BytesIO()
    per_cm = 1e8 / pixel_a
    tifffile.imwrite(
        stream, image, compression="lzw", resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None
    )
    return stream.getvalue()


def name_of(layout: Layout, number: int, when: datetime, suffix: str) -> str:
    """Path of exposure ``number`` (from 1) below the session's folder, with forward slashes."""
    if layout == "epu":
        square = 10_000_001 + (number - 1) // _HOLES_PER_SQUARE
        return (
            f"Images-Disc1/GridSquare_{square}/Data/FoilHole_{11_000_000 + number}_Data_12000001_{number}_"
            f"{when:%Y%m%d_%H%M%S}{suffix}"
        )
    if layout == "serialem":
        # SerialEM writes the month in English whatever the computer speaks.
        month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[when.month - 1]
        return f"grid1_{number:05d}_{month}{when:%d_%H.%M.%S}{suffix}"
    return f"micrograph_{number:05d}{suffix}"


def companion_of(
    layout: Layout, name: str, number: int, when: datetime, optics: Mapping[str, float]
) -> tuple[str, str]:
    """Path and text of the file that the microscope's program writes beside ``name``; two empty texts for ``flat``."""
    if layout == "epu":
        return name.rpartition(".")[0] + ".xml", _epu_xml(number, when, optics)
    if layout == "serialem":
        return name + ".mdoc", _mdoc(name, number, when, optics)
    return "", ""


def _stage_um(number: int) -> tuple[float, float]:
    """Where the stage stands for an exposure: holes 2 µm apart, in rows of five."""
    return 2.0 * ((number - 1) % 5) - 120.0, 2.0 * ((number - 1) // 5) + 35.0


def _epu_xml(number: int, when: datetime, optics: Mapping[str, float]) -> str:
    x, y = _stage_um(number)
    pixel_m = optics.get("pixel_a", 0.0) * 1e-10
    zone = when.astimezone(UTC).isoformat()
    return f"""<MicroscopeImage xmlns="{_SHARED}" xmlns:i="{_SCHEMA}-instance">
  <name>Empty</name>
  <CustomData xmlns:a="{_ARRAYS}">
    {_pair("Dose", optics.get("dose_e_a2", 0.0) * 1e20)}
    {_pair("AppliedDefocus", optics.get("defocus_um", 0.0) * 1e-6)}
  </CustomData>
  <SpatialScale><pixelSize><x><numericValue>{pixel_m:.9E}</numericValue></x>\
<y><numericValue>{pixel_m:.9E}</numericValue></y></pixelSize></SpatialScale>
  <microscopeData>
    <acquisition>
      <acquisitionDateTime>{zone}</acquisitionDateTime>
      <camera><ExposureTime>2.5</ExposureTime><Name>BM-Falcon</Name>\
<ReadoutArea xmlns:a="http://schemas.datacontract.org/2004/07/System.Drawing">\
<a:height>{optics.get("ny", 0):.0f}</a:height><a:width>{optics.get("nx", 0):.0f}</a:width></ReadoutArea></camera>
    </acquisition>
    <core><ApplicationSoftware>EPU</ApplicationSoftware></core>
    <gun><AccelerationVoltage>{optics.get("voltage_kv", 300.0) * 1e3:.0f}</AccelerationVoltage></gun>
    <instrument><InstrumentModel>EMULATED</InstrumentModel></instrument>
    <optics><TemMagnification><NominalMagnification>105000</NominalMagnification></TemMagnification></optics>
    <stage><Position><A>0</A><B>0</B><X>{x * 1e-6:.9E}</X><Y>{y * 1e-6:.9E}</Y><Z>0.00008</Z></Position></stage>
  </microscopeData>
</MicroscopeImage>
"""


def _pair(key: str, value: float) -> str:
    typed = f'<a:Value i:type="b:double" xmlns:b="{_SCHEMA}">{value:.9E}</a:Value>'
    return f"<a:KeyValueOfstringanyType><a:Key>{key}</a:Key>{typed}</a:KeyValueOfstringanyType>"


def _mdoc(name: str, number: int, when: datetime, optics: Mapping[str, float]) -> str:
    x, y = _stage_um(number)
    pixel = optics.get("pixel_a", 0.0)
    return "\r\n".join(
        [
            f"PixelSpacing = {pixel:.6g}",
            f"Voltage = {optics.get('voltage_kv', 300.0):.0f}",
            f"ImageFile = {name}",
            "",
            "[T = beamsieve emulate micrographs]",
            "",
            "[ZValue = 0]",
            f"StagePosition = {x:.4f} {y:.4f}",
            f"ExposureDose = {optics.get('dose_e_a2', 0.0):.4g}",
            f"PixelSpacing = {pixel:.6g}",
            f"TargetDefocus = {optics.get('defocus_um', 0.0):.4g}",
            "ExposureTime = 2.5",
            rf"SubFramePath = X:\session\{name}",
            f"DateTime = {when.strftime('%Y-%m-%d  %H:%M:%S')}",
            "",
        ]
    )
