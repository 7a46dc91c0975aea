"""EPU's XML beside a micrograph: what the microscope was set to (``MicroscopeImage``), by the names of ``info``.

Elements are found by their local names, because namespaces differ between versions. A document type is refused, so
that no entity can be named, let alone expanded. Sources: XML files of EPU 1.x to 3.x; values are in SI units.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ..flow.frame import BadData

MOST_BYTES = 1 << 22
_MOST_DEPTH = 64
_Element = tuple[str, ...]
# name, end of the element's path, factor from SI, smallest and largest believable value
_NUMBERS: tuple[tuple[str, _Element, float, float, float], ...] = (
    ("pixel_a", ("pixelSize", "x", "numericValue"), 1e10, 0.01, 1000.0),
    ("voltage_kv", ("gun", "AccelerationVoltage"), 1e-3, 1.0, 3000.0),
    ("exposure_s", ("camera", "ExposureTime"), 1.0, 0.0, 1e5),
    ("magnification", ("TemMagnification", "NominalMagnification"), 1.0, 1.0, 1e8),
    ("defocus_um", ("optics", "Defocus"), 1e6, -1e3, 1e3),
    ("stage_x_um", ("stage", "Position", "X"), 1e6, -1e4, 1e4),
    ("stage_y_um", ("stage", "Position", "Y"), 1e6, -1e4, 1e4),
    ("stage_z_um", ("stage", "Position", "Z"), 1e6, -1e4, 1e4),
    ("tilt_deg", ("stage", "Position", "A"), 180 / math.pi, -360.0, 360.0),
    ("beam_shift_x", ("BeamShift", "_x"), 1.0, -1e3, 1e3),
    ("beam_shift_y", ("BeamShift", "_y"), 1.0, -1e3, 1e3),
    ("frames", ("NumberOffractions",), 1.0, 0.5, 1e6),
    ("camera_nx", ("camera", "ReadoutArea", "width"), 1.0, 0.5, 1e6),
)
_TEXTS: tuple[tuple[str, _Element], ...] = (
    ("acquired", ("acquisition", "acquisitionDateTime")),
    ("instrument", ("instrument", "InstrumentModel")),
    ("software", ("core", "ApplicationSoftware")),
    ("camera", ("camera", "Name")),
)
# what stands in CustomData, as pairs of Key and Value
_CUSTOM: tuple[tuple[str, str, float, float, float], ...] = (
    ("dose_e_a2", "Dose", 1e-20, 0.0, 1e5),
    ("applied_defocus_um", "AppliedDefocus", 1e6, -1e3, 1e3),
)


def read_epu(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an EPU XML says: ``voltage_kv``, ``pixel_a``, ``dose_e_a2``, ``defocus_um``, ``acquired`` …, where it does.

    ``defocus_um`` is what the microscope shows, ``applied_defocus_um`` what was asked for (negative = under focus).
    ``pixel_a`` is that of the camera as it was read out, ``camera_nx`` pixels wide: a movie in super-resolution has
    more of them. Raises ``BadData``: ``vanished``, ``xml`` (too large, not well-formed, with a document type, or no
    MicroscopeImage).
    """
    name = Path(path).name
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadData("vanished", f"{path}: cannot be read ({error.strerror}); was it moved?") from None
    if len(data) > MOST_BYTES:
        raise BadData("xml", f"{name}: more than {MOST_BYTES >> 20} MiB; this is no EPU image XML")
    values = list(_leaves(data, name))
    if not values or "MicroscopeImage" not in values[0][0]:
        raise BadData("xml", f"{name}: no MicroscopeImage in it; is it the XML of an EPU image?")
    return dict(_known(values))


def _known(values: list[tuple[_Element, str]]) -> Iterator[tuple[str, Any]]:
    for name, tail, factor, low, high in _NUMBERS:
        found = next((text for place, text in values if place[-len(tail) :] == tail), "")
        number = _number(found, factor, low, high)
        if number is not None:
            yield name, round(number) if name in ("frames", "camera_nx") else number
    for name, tail in _TEXTS:
        found = next((text for place, text in values if place[-len(tail) :] == tail), "")
        if found:
            yield name, found
    pairs = dict(_pairs(values))
    for name, key, factor, low, high in _CUSTOM:
        number = _number(pairs.get(key, ""), factor, low, high)
        if number is not None:
            yield name, number


def _number(text: str, factor: float, low: float, high: float) -> float | None:
    try:
        value = float(text) * factor
    except ValueError:
        return None
    return value if low < value < high else None


def _pairs(values: list[tuple[_Element, str]]) -> Iterator[tuple[str, str]]:
    """The pairs of CustomData and CameraSpecificInput: a Key, and the Value that follows it."""
    key = ""
    for place, text in values:
        if place[-1] == "Key":
            key = text
        elif place[-1] == "Value" and key:
            yield key, text
            key = ""


def _leaves(data: bytes, name: str) -> Iterator[tuple[_Element, str]]:
    """Path of local names and text of each element that has text, in the order in which they end."""
    place: list[str] = []
    texts: list[list[str]] = []
    found: list[tuple[_Element, str]] = []

    def start(tag: str, _: dict[str, str]) -> None:
        place.append(tag.rpartition(":")[2])
        texts.append([])
        if len(place) > _MOST_DEPTH:
            raise BadData("xml", f"{name}: nested more than {_MOST_DEPTH} deep; this is no EPU image XML")

    def end(_: str) -> None:
        text = "".join(texts.pop()).strip()
        if text:
            found.append((tuple(place), text))
        place.pop()

    def doctype(*_: object) -> None:
        raise BadData("xml", f"{name}: has a document type (DOCTYPE), which EPU never writes; it is not read")

    _parse(data, name, start, end, lambda text: texts[-1].append(text) if texts else None, doctype)
    # The root's own name is in every path; where nothing has text there is none.
    yield from found


def _parse(
    data: bytes,
    name: str,
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None],
    text: Callable[[str], None],
    doctype: Callable[..., None],
) -> None:
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise BadData("xml", f"{name}: not well-formed ({error}); copy it again") from None
    except (LookupError, ValueError) as error:
        raise BadData("xml", f"{name}: an encoding that is not known ({error}); copy it again") from None
