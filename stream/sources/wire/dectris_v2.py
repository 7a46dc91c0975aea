"""DECTRIS stream version 2 (CBOR), and Jungfraujoch's dialect of it.

Source: dectris/documentation, stream_v2 (message types ``start``, ``image``, ``end``; tags 40, 56500 and RFC 8746), and
the Jungfraujoch documentation (channel ``default``, ``detector_distance``, ``error_value``). Pure: bytes in, messages
out. Images stay compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...flow.frame import BadData, Encoded
from .arrays import array_of
from .cbor import Reader
from .cbor_tags import Tagged
from .layout import Layout, Span
from .messages import End, Foreign, Image, Message, Start

EV = 1.602176634e-19  # J per eV (exact, SI 2019)

# Our name, DECTRIS's name, factor to SI.
_FACTS = (
    ("energy_J", "incident_energy", EV),
    ("wavelength_m", "incident_wavelength", 1e-10),
    ("x_pixel_size_m", "pixel_size_x", 1.0),
    ("y_pixel_size_m", "pixel_size_y", 1.0),
    ("beam_center_x_px", "beam_center_x", 1.0),
    ("beam_center_y_px", "beam_center_y", 1.0),
    ("exposure_s", "count_time", 1.0),
    ("frame_s", "frame_time", 1.0),
    ("sensor_thickness_m", "sensor_thickness", 1.0),
    ("saturation_value", "saturation_value", None),
    ("error_value", "error_value", None),
    ("images_expected", "number_of_images", None),
)
_TEXTS = (
    ("detector", "detector_description"),
    ("detector_serial", "detector_serial_number"),
    ("sensor_material", "sensor_material"),
    ("dtype", "image_dtype"),
    ("arm_date", "arm_date"),
)
_TIMES = (("start_s", "start_time"), ("stop_s", "stop_time"), ("real_s", "real_time"))
_TRIES, _HITS_PER_TRY = 16, 256
_LARGEST = 1 << 63


class Codec:
    """Reads messages; remembers the layout of the last image, which makes the next ones several times cheaper."""

    def __init__(self) -> None:
        self._learned: _Learned | None = None
        self._tries = self._hits = 0

    def parse(self, buffer: memoryview) -> Message:
        """Read one message.

        Raises ``BadData``: ``cbor`` (not CBOR, or cut), ``field`` (a field is missing or of another type), ``shape``,
        ``dtype``, ``size`` (an array that contradicts itself).
        """
        if self._learned is not None:
            image = self._learned.parse(buffer)
            if image is not None:
                self._hits += 1
                return image
        reader = Reader(buffer)
        fields, spans = reader.entries()
        kind = fields.get("type")
        if kind == "image":
            image = _image(fields)
            # Learning costs as much as reading twenty images: senders whose images never look alike soon stop paying.
            if self._tries < _TRIES + self._hits // _HITS_PER_TRY:
                self._tries += 1
                self._learned = _learn(image, reader, fields, spans)
            return image
        if kind == "start":
            self._learned, self._tries, self._hits = None, 0, 0
            return _start(fields)
        if kind == "end":
            return End(_integer(fields, "series_id"), _text(fields, "series_unique_id"))
        if not isinstance(kind, str):
            raise BadData("field", "message: no field 'type'; is the sender a DECTRIS stream 2?")
        return Foreign(kind[:32])


class _Learned(NamedTuple):
    """One image of a series, its layout, and what the numbers and byte strings of the layout are.

    ``number_at``: which number is the image's; ``times``: name, numerator and denominator of each time.
    """

    image: Image
    layout: Layout
    arrays: tuple[tuple[str, Encoded], ...]
    number_at: int
    times: tuple[tuple[str, int, int], ...]

    def parse(self, buffer: memoryview) -> Image | None:
        """The image, when the message has this layout and the full reader would have nothing to complain of."""
        found = self.layout.match(buffer)
        if found is None:
            return None
        numbers, blobs = found
        info = dict(self.image.info)
        for name, numerator, denominator in self.times:
            if not numbers[denominator]:
                return None
            info[name] = numbers[numerator] / numbers[denominator]
        images = {}
        for (name, like), blob in zip(self.arrays, blobs, strict=True):
            if like.compression[:4] == "none" and len(blob) != len(like.buffer):
                return None
            images[name] = Encoded(blob, like.shape, like.dtype, like.compression)
        number = numbers[self.number_at]
        if number >= _LARGEST:
            return None
        return Image(self.image.series, self.image.unique, number, images, info)


def _learn(image: Image, reader: Reader, fields: dict[Any, Any], spans: dict[Any, Span]) -> _Learned | None:
    """Learn the layout of an image just read; None when it cannot be learned."""
    found = {id(blob): (begin, end) for begin, end, blob in reader.blobs}
    places = {name: found.get(id(encoded.buffer)) for name, encoded in image.images.items()}
    blobs = sorted(place for place in places.values() if place is not None)
    arrays = sorted(image.images.items(), key=lambda item: places[item[0]] or (0, 0))
    numbers = {spans["image_id"]: "image_id"}
    for ours, theirs in _TIMES:
        if ours in image.info:
            pair = _pair(reader.buffer, spans[theirs], fields[theirs])
            numbers |= dict(zip(pair, (ours, ours + "/"), strict=False))
    order = [numbers[span] for span in sorted(numbers)]
    pairs = [ours for ours, _ in _TIMES if ours + "/" in order]
    times = tuple((ours, order.index(ours), order.index(ours + "/")) for ours in pairs)
    layout = Layout.learn(reader.buffer, sorted(numbers), blobs)
    learned = _Learned(image, layout, tuple(arrays), order.index("image_id"), times)
    again = learned.parse(reader.buffer)
    same = again is not None and (again.number, again.info) == (image.number, image.info)
    return learned if same and len(arrays) == len(blobs) else None


def _pair(buffer: memoryview, span: Span, value: object) -> tuple[Span, ...]:
    """Where numerator and denominator of a rational stand, when it is written as two unsigned numbers."""
    begin, end = span
    plain = isinstance(value, list) and len(value) == 2 and all(type(n) is int and n >= 0 for n in value)
    if not plain or buffer[begin] != 0x82 or buffer[begin + 1] >> 5:
        return ()
    info = buffer[begin + 1]
    middle = begin + 2 + (0 if info < 24 else 1 << (info - 24))
    return (begin + 1, middle), (middle, end)


def _image(fields: dict[Any, Any]) -> Image:
    data = fields.get("data")
    if isinstance(data, memoryview):
        raise BadData("field", "image: 'data' is bytes without a channel, as in Jungfraujoch of 2023: update it")
    if not isinstance(data, dict) or not data:
        raise BadData("field", "image: 'data' is not a map of channels")
    for channel, array in data.items():
        if not isinstance(array, Encoded) or not isinstance(channel, str):
            raise BadData("field", f"image: channel {str(channel)[:32]!r} is not an array")
        if len(array.shape) not in (2, 3) or not array.nbytes:
            raise BadData("shape", f"image: channel {channel[:32]!r} has shape {array.shape}, not (y, x)")
    info: dict[str, Any] = {}
    for ours, theirs in _TIMES:
        seconds = _seconds(fields.get(theirs))
        if seconds is not None:
            info[ours] = seconds
    for name in ("series_date", "user_data"):
        if name in fields:
            info[name] = _plain(fields[name])
    number = _integer(fields, "image_id")
    return Image(_integer(fields, "series_id"), _text(fields, "series_unique_id"), number, data, info)


def _start(fields: dict[Any, Any]) -> Start:
    info: dict[str, Any] = {}
    for ours, theirs, factor in _FACTS:
        value = fields.get(theirs)
        if isinstance(value, int | float) and not isinstance(value, bool):
            info[ours] = value if factor is None else value * factor
    for ours, theirs in _TEXTS:
        if isinstance(fields.get(theirs), str):
            info[ours] = fields[theirs]
    info |= _geometry(fields)
    if "user_data" in fields:
        info["user_data"] = _plain(fields["user_data"])
    channels = fields.get("channels")
    if isinstance(channels, list):
        info["channels"] = tuple(name for name in channels if isinstance(name, str))
    problems: list[str] = []
    for ours, theirs in (("pixel_mask", "pixel_mask"), ("flatfield", "flatfield")):
        info[ours] = _constants(fields.get(theirs), ours, info.get("image_size"), problems)
    series = _integer(fields, "series_id")
    unique = _text(fields, "series_unique_id")
    return Start(series, unique, info | {"series": series, "series_unique_id": unique}, tuple(problems))


def _geometry(fields: dict[Any, Any]) -> dict[str, Any]:
    """Image size (y, x), distance in m, thresholds in J."""
    info: dict[str, Any] = {}
    size = fields.get("image_size_y"), fields.get("image_size_x")
    if all(type(n) is int and n > 0 for n in size):
        info["image_size"] = size
    distance = fields.get("detector_distance")
    translation = fields.get("detector_translation")
    if distance is None and isinstance(translation, list) and len(translation) == 3:
        # Sample to detector in the detector's own axes, so that the third is minus the distance.
        distance = translation[2]
    if isinstance(distance, int | float) and distance:
        info["distance_m"] = abs(float(distance))
    thresholds = fields.get("threshold_energy")
    if isinstance(thresholds, dict):
        info["threshold_energy_J"] = {
            str(name): value * EV for name, value in thresholds.items() if isinstance(value, int | float)
        }
    return info


def _constants(value: object, what: str, size: object, problems: list[str]) -> dict[str, Any]:
    """Arrays by channel. One that cannot be used is told of and left out: a bad mask must not cost the images."""
    arrays: dict[str, Any] = {}
    for channel, encoded in value.items() if isinstance(value, dict) else ():
        try:
            array = array_of(encoded, f"start: {what}[{str(channel)[:32]!r}]")
        except BadData as error:
            problems.append(error.detail)
            continue
        if size is None or array.shape == size:
            arrays[str(channel)] = array
        else:
            problems.append(f"start: {what}[{str(channel)[:32]!r}] has shape {array.shape}, the image {size}")
    return arrays


def _integer(fields: Mapping[Any, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise BadData("field", f"{fields.get('type')}: {name!r} is not a number from 0 to 2^63-1")
    return value


def _text(fields: Mapping[Any, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > 256:
        raise BadData("field", f"{fields.get('type')}: {name!r} is not a short text")
    return value


def _seconds(value: object) -> float | None:
    """A time given as [numerator, denominator] or as a number; None when it is neither."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int | float) for n in value) and value[1]:
        return float(value[0] / value[1])
    return float(value) if isinstance(value, int | float) else None


def _plain(value: object) -> Any:
    """What a user attached, with only what JSON knows: bytes and arrays are named, not kept."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Encoded):
        return f"<array {value.shape} {value.dtype}>"
    return _plain(value.value) if isinstance(value, Tagged) else value
