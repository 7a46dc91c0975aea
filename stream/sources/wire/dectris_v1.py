"""DECTRIS SIMPLON stream version 1: JSON parts and pixels, as multipart messages or as a flat run of parts.

Source: SIMPLON API reference, stream interface ("legacy"); htypes ``dheader``, ``dimage``, ``dimage_d``, ``dconfig``,
``dflatfield``, ``dpixelmask``, ``dcountrate_table``, ``dseries_end``. A detector sends the header as one multipart
message; some senders send its parts one by one, so parts are read as a flat run whose mark is the htype. Shapes in the
stream are (x, y). Pure: parts in, messages out. Images stay compressed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...flow.frame import BadData, Encoded
from .arrays import array_of
from .messages import End, Foreign, Image, Message, Start

MAX_JSON = 1 << 18
"""Longest JSON part read, in bytes: a hundred times a detector's configuration."""

EV = 1.602176634e-19  # J per eV (exact, SI 2019)
_LARGEST = 1 << 63
_BRACE = ord("{")
_DETAIL_PARTS = {"none": 1, "basic": 2, "all": 8}
_IMAGE_PARTS = 4
_TYPES = {"uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"}
_ENCODING = re.compile(r"(?:bs(8|16|32|64)-)?(lz4)?([<>])")

# Our name, SIMPLON's name, factor to SI.
_FACTS = (
    ("energy_J", "photon_energy", EV),
    ("wavelength_m", "wavelength", 1e-10),
    ("distance_m", "detector_distance", 1.0),
    ("x_pixel_size_m", "x_pixel_size", 1.0),
    ("y_pixel_size_m", "y_pixel_size", 1.0),
    ("beam_center_x_px", "beam_center_x", 1.0),
    ("beam_center_y_px", "beam_center_y", 1.0),
    ("exposure_s", "count_time", 1.0),
    ("frame_s", "frame_time", 1.0),
    ("sensor_thickness_m", "sensor_thickness", 1.0),
    ("saturation_value", "countrate_correction_count_cutoff", None),
)
_TEXTS = (
    ("detector", "description"),
    ("detector_serial", "detector_number"),
    ("sensor_material", "sensor_material"),
    ("arm_date", "data_collection_date"),
)
_TIMES = (("start_s", "start_time"), ("stop_s", "stop_time"), ("real_s", "real_time"))


class Fault(NamedTuple):
    """Parts that make no message. ``series`` and ``number`` are -1 where they are not known."""

    series: int
    number: int
    error: BadData


class Codec:
    """Puts parts together. What is not complete at the end of ``feed`` waits for the parts of the next message."""

    def __init__(self) -> None:
        self._parts: list[memoryview] = []
        self._head: Mapping[str, Any] = {}
        self._need = 0

    @property
    def pending(self) -> bool:
        """Whether a message has begun and lacks parts."""
        return self._need > 0

    def feed(self, parts: Sequence[memoryview]) -> list[Message | Fault]:
        """Take the parts of one ZeroMQ message; give what is complete. Never raises for what they hold."""
        out: list[Message | Fault] = []
        if self._need and (len(parts) > 1 or self._begins(parts[0])):
            out.append(self._interrupt("the next message came before its last part"))
        for index, part in enumerate(parts):
            if self._need:
                self._parts.append(part)
            elif (answer := self._open(part)) is not None:
                out.append(answer)
                return out
            if len(self._parts) == self._need:
                out.append(self._close(parts[index + 1 :]))
                return out
        if len(parts) > 1:
            # A multipart message is whole or lost.
            out.append(self._interrupt(f"it has {len(parts)} parts, not {self._need}"))
        return out

    def _begins(self, part: memoryview) -> bool:
        """Whether a part that came alone starts a new message, although another is not complete."""
        if not 0 < len(part) <= 4096 or part[0] != _BRACE:
            return False
        try:
            return _kind(_json(part, "part")) in ("dheader", "dimage", "dseries_end")
        except BadData:
            return False

    def _open(self, part: memoryview) -> Message | Fault | None:
        """Begin a message with its first part. Answers what needs no more parts than that, or cannot be begun."""
        try:
            head = _json(part, "first part")
            kind = _kind(head)
            if kind == "dseries_end":
                return End(_number(head, "series"), "")
            if kind == "dimage":
                self._need = _IMAGE_PARTS
            elif kind == "dheader":
                self._need = _DETAIL_PARTS.get(str(head.get("header_detail", "none")), 1)
            else:
                return Foreign(kind[:32])
        except BadData as error:
            return Fault(-1, -1, error)
        self._head = head
        self._parts = [part]
        return None

    def _close(self, appendix: Sequence[memoryview]) -> Message | Fault:
        parts, head = [*self._parts, *appendix], self._head
        self._reset()
        try:
            return _start(head, parts) if _kind(head) == "dheader" else _image(head, parts)
        except BadData as error:
            return _fault(head, error)

    def _interrupt(self, why: str) -> Message | Fault:
        """End a message that lacks parts. A header may do without the tables; older firmware does not send all."""
        if _kind(self._head) == "dheader":
            return self._close(())
        fault = _fault(self._head, BadData("cut", f"image: the message is cut: {why}"))
        self._reset()
        return fault

    def _reset(self) -> None:
        self._parts, self._head, self._need = [], {}, 0


def _fault(head: Mapping[str, Any], error: BadData) -> Fault:
    values = [head.get(name) for name in ("series", "frame")]
    series, number = (v if type(v) is int and 0 <= v < _LARGEST else -1 for v in values)
    return Fault(series, number, error)


def _json(part: memoryview, what: str) -> Mapping[str, Any]:
    """The JSON object in a part, of bounded size and depth."""
    if len(part) > MAX_JSON:
        raise BadData("json", f"{what}: {len(part)} bytes where JSON was expected, at most {MAX_JSON}")
    try:
        value = json.loads(str(part, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadData("json", f"{what}: not JSON: {str(error)[:80]}") from None
    if not isinstance(value, dict):
        raise BadData("json", f"{what}: JSON, but not an object")
    return value


def _kind(head: Mapping[str, Any]) -> str:
    """The htype without its version: ``dimage-1.0`` is ``dimage``."""
    htype = head.get("htype")
    return htype.rpartition("-")[0] or htype if isinstance(htype, str) else ""


def _image(head: Mapping[str, Any], parts: Sequence[memoryview]) -> Image:
    """dimage, dimage_d, pixels, dconfig, optionally an appendix."""
    series, number = _number(head, "series"), _number(head, "frame")
    what = f"image {number}"
    about = _json(parts[1], f"{what}, part 2")
    if _kind(about) != "dimage_d":
        raise BadData("field", f"{what}, part 2: htype {str(about.get('htype'))[:32]!r}, not dimage_d")
    blob = parts[2]
    size = about.get("size")
    if isinstance(size, int) and size != len(blob):
        raise BadData("size", f"{what}: {len(blob)} bytes of pixels where 'size' says {size}; the message was cut")
    shape = _shape(about, what)
    dtype, compression = _how(str(about.get("type"))[:16], str(about.get("encoding"))[:16])
    times = _json(parts[3], f"{what}, part 4")
    info: dict[str, Any] = {}
    for ours, theirs in _TIMES:
        nanoseconds = times.get(theirs)
        if type(nanoseconds) is int and 0 <= nanoseconds < _LARGEST:
            info[ours] = nanoseconds * 1e-9
    if len(parts) > _IMAGE_PARTS:
        info["user_data"] = _appendix(parts[_IMAGE_PARTS])
    return Image(series, "", number, {"": Encoded(blob, shape, dtype, compression)}, info)


def _start(head: Mapping[str, Any], parts: Sequence[memoryview]) -> Start:
    """dheader, then by detail: configuration; flat field, pixel mask and count-rate table, each with its bytes."""
    series = _number(head, "series")
    info: dict[str, Any] = {"series": series, "series_unique_id": "", "pixel_mask": {}, "flatfield": {}}
    problems: list[str] = []
    detail = head.get("header_detail")
    rest = list(parts[1:])
    if detail in ("basic", "all") and rest:
        try:
            info |= _facts(_json(rest.pop(0), "header, part 2"))
        except BadData as error:
            problems.append(error.detail)
    while detail == "all" and len(rest) > 1 and (name := _table(rest[0])):
        about, blob = _json(rest[0], name), rest[1]
        del rest[:2]
        try:
            array = _constants(about, blob, name, info.get("image_size"))
        except BadData as error:
            problems.append(error.detail)
            continue
        if name != "countrate_table":
            info[name] = {"": array}
    if rest:
        info["user_data"] = _appendix(rest[0])
    return Start(series, "", info, tuple(problems))


def _table(part: memoryview) -> str:
    """Which table a part announces, or nothing. Some senders leave out the ``d`` of the htype."""
    try:
        kind = _kind(_json(part, "header"))
    except BadData:
        return ""
    endings = {"flatfield": "flatfield", "pixelmask": "pixel_mask", "countrate_table": "countrate_table"}
    return next((name for ending, name in endings.items() if kind.endswith(ending)), "")


def _constants(about: Mapping[str, Any], blob: memoryview, name: str, size: object) -> np.ndarray[Any, Any]:
    shape = _shape(about, f"header, {name}")
    dtype, _ = _how(str(about.get("type"))[:16], "<")
    array = array_of(Encoded(blob, shape, dtype), f"header, {name}")
    if name != "countrate_table" and size is not None and array.shape != size:
        raise BadData("shape", f"header, {name}: shape {array.shape}, the image has {size}")
    return array


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The detector's configuration in SI units."""
    info: dict[str, Any] = {}
    for ours, theirs, factor in _FACTS:
        value = _finite(config.get(theirs))
        if value is not None:
            info[ours] = value if factor is None else value * factor
    for ours, theirs in _TEXTS:
        if isinstance(config.get(theirs), str):
            info[ours] = config[theirs]
    if not info.get("distance_m"):
        info.pop("distance_m", None)
    size = config.get("y_pixels_in_detector"), config.get("x_pixels_in_detector")
    if all(type(n) is int and 0 < n < 1 << 31 for n in size):
        info["image_size"] = size
    if config.get("bit_depth_image") in (8, 16, 32):
        info["dtype"] = f"uint{config['bit_depth_image']}"
    threshold = _finite(config.get("threshold_energy"))
    if threshold is not None:
        info["threshold_energy_J"] = {"": threshold * EV}
    counts = _finite(config.get("nimages")), _finite(config.get("ntrigger", 1))
    if counts[0] is not None and counts[1] is not None:
        info["images_expected"] = int(counts[0] * counts[1])
    return info


def _shape(about: Mapping[str, Any], what: str) -> tuple[int, ...]:
    """The stream's (x, y[, …]) as (…, y, x)."""
    shape = about.get("shape")
    if isinstance(shape, list) and len(shape) in (2, 3) and all(type(n) is int and 0 < n < 1 << 31 for n in shape):
        return tuple(shape[::-1])
    raise BadData("shape", f"{what}: 'shape' is {str(shape)[:64]}, not [x, y]")


@lru_cache(64)
def _how(name: str, encoding: str) -> tuple[np.dtype[Any], str]:
    """The dtype with byte order, and compression, of ``type`` and ``encoding`` (``<``, ``lz4<``, ``bs16-lz4<`` …)."""
    found = _ENCODING.fullmatch(encoding)
    if name not in _TYPES:
        raise BadData("dtype", f"image: type {name!r} is unknown")
    if found is None or (found[1] and not found[2]):
        raise BadData("encoding", f"image: encoding {encoding!r} is unknown; known: <, lz4<, bs16-lz4< and the like")
    dtype = np.dtype(found[3] + np.dtype(name).str[1:])
    if found[1] and int(found[1]) != 8 * dtype.itemsize:
        raise BadData("dtype", f"image: encoding {encoding!r} does not fit type {name!r}")
    return dtype, "bslz4" if found[1] else found[2] or "none"


def _number(head: Mapping[str, Any], name: str) -> int:
    value = head.get(name)
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise BadData("field", f"{_kind(head)}: {name!r} is not a number from 0 to 2^63-1")
    return value


def _finite(value: object) -> int | float | None:
    """A number that arithmetic is safe with, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e18 else None


def _appendix(part: memoryview) -> Any:
    """What a user attached: JSON where it is JSON, else text."""
    try:
        return _json(part, "appendix")
    except BadData:
        return str(part[:4096], "utf-8", "replace")
