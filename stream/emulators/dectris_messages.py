"""DECTRIS messages as a detector writes them: stream 1 (JSON parts) and stream 2 (CBOR).

Sources: SIMPLON API reference, stream interface (htypes, encodings, shapes as [x, y]); dectris/documentation, stream_v2
(fields, tags 40, 69, 56500). What is the same for all images of a series is written once, so that an emulator is as
fast as a detector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import cbor2
import numpy as np
import numpy.typing as npt

Parts: TypeAlias = Sequence[bytes]

EV = 1.602176634e-19  # J per eV (exact, SI 2019)
DENOMINATOR = 50_000_000
"""Stream 2 gives times as fractions of a 50 MHz clock's ticks."""

_TAGS = {"|u1": 64, "<u2": 69, "<u4": 70, "<u8": 71, "|i1": 72, "<i2": 77, "<i4": 78, "<i8": 79, "<f4": 85, "<f8": 86}
_SELF_DESCRIBE = b"\xd9\xd9\xf7"


class Blob(NamedTuple):
    """One image, compressed, and its MD5 as stream 1 gives it."""

    data: bytes
    md5: str

    @classmethod
    def of(cls, data: bytes) -> Blob:
        """Add the sum, which is not for security."""
        return cls(data, hashlib.md5(data, usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class SeriesInfo:
    """What a detector says of a series. Lengths in m, times in s, ``energy_J`` per photon; ``shape`` is (y, x)."""

    series: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    images: int
    compression: str = "bslz4"
    period_s: float = 1 / 120
    energy_J: float = 1.25e-16  # noqa: N815
    distance_m: float = 0.581
    pixel_size_m: float = 7.5e-5
    detector: str = "beamsieve emulated detector"
    channel: str = "threshold_1"
    unique: str = ""
    date: str = "2024-01-01T00:00:00.000+00:00"
    pixel_mask: npt.NDArray[np.uint32] | None = None
    flatfield: npt.NDArray[np.float32] | None = None
    user_data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wavelength_m(self) -> float:
        """h·c over the photon energy."""
        return 1.98644586e-25 / self.energy_J


class Writer(Protocol):
    """Writes the messages of one series, as lists of parts."""

    def start(self) -> list[Parts]:
        """The messages that open the series."""

    def image(self, number: int, blob: Blob, user_data: Mapping[str, Any]) -> Parts:
        """One image's message."""

    def end(self) -> Parts:
        """The message that closes the series."""


class WriterV2:
    """Stream 2: one CBOR map per message."""

    def __init__(self, info: SeriesInfo) -> None:
        self.info = info
        named = {"type": "image", "series_id": info.series, "series_unique_id": info.unique}
        constant = _entries(named) + cbor2.dumps("image_id")
        self._plain_start, self._user_start = (_SELF_DESCRIBE + _head(5, n) + constant for n in (9, 10))
        self._times = [b"\x82", _int(DENOMINATOR)]
        self._date = _entries({"series_date": info.date})
        self._keys = {name: cbor2.dumps(name) for name in ("real_time", "start_time", "stop_time", "user_data", "data")}
        self._ticks = round(info.period_s * DENOMINATOR)
        self._real = self._keys["real_time"] + self._rational(self._ticks)
        self._array = self._keys["data"] + b"\xa1" + cbor2.dumps(info.channel) + _array_head(info)

    def start(self) -> list[Parts]:
        """One message, with mask and flat field where there are any."""
        info = self.info
        fields: dict[str, Any] = {
            "type": "start",
            "series_id": info.series,
            "series_unique_id": info.unique,
            "arm_date": info.date,
            "beam_center_x": info.shape[1] / 2,
            "beam_center_y": info.shape[0] / 2,
            "channels": [info.channel],
            "count_time": info.period_s,
            "detector_description": info.detector,
            "detector_serial_number": "emulated",
            "detector_translation": [
                info.shape[1] / 2 * info.pixel_size_m, info.shape[0] / 2 * info.pixel_size_m, -info.distance_m,
            ],
            "flatfield": {} if info.flatfield is None else {info.channel: _plain_array(info.flatfield)},
            "flatfield_enabled": False,
            "frame_time": info.period_s,
            "image_dtype": info.dtype.name,
            "image_size_x": info.shape[1],
            "image_size_y": info.shape[0],
            "incident_energy": info.energy_J / EV,
            "incident_wavelength": info.wavelength_m * 1e10,
            "number_of_images": info.images,
            "pixel_mask": {} if info.pixel_mask is None else {info.channel: _plain_array(info.pixel_mask)},
            "pixel_mask_enabled": info.pixel_mask is not None,
            "pixel_size_x": info.pixel_size_m,
            "pixel_size_y": info.pixel_size_m,
            "saturation_value": int(np.iinfo(info.dtype).max) - 1 if info.dtype.kind in "ui" else 0,
            "sensor_material": "Si",
            "sensor_thickness": 4.5e-4,
            "threshold_energy": {info.channel: info.energy_J / EV / 2},
            "user_data": dict(info.user_data),
        }  # fmt: skip
        return [[_SELF_DESCRIBE + cbor2.dumps(fields)]]

    def image(self, number: int, blob: Blob, user_data: Mapping[str, Any]) -> Parts:
        """One part; what does not change was written before."""
        keys, begin = self._keys, number * self._ticks
        parts = [
            self._user_start if user_data else self._plain_start, _int(number), self._real, self._date,
            keys["start_time"], self._rational(begin), keys["stop_time"], self._rational(begin + self._ticks),
        ]  # fmt: skip
        if user_data:
            parts += [keys["user_data"], cbor2.dumps(dict(user_data))]
        parts += [self._array, _head(2, len(blob.data)), blob.data]
        return [b"".join(parts)]

    def end(self) -> Parts:
        """One part."""
        fields = {"type": "end", "series_id": self.info.series, "series_unique_id": self.info.unique}
        return [_SELF_DESCRIBE + cbor2.dumps(fields)]

    def _rational(self, ticks: int) -> bytes:
        return self._times[0] + _int(ticks) + self._times[1]


class WriterV1:
    """Stream 1: JSON parts around the pixels. ``flat``: the header's parts are messages of their own."""

    def __init__(self, info: SeriesInfo, *, detail: str = "all", flat: bool = False) -> None:
        self.info = info
        self._detail, self._flat = detail, flat
        width = {"none": "", "lz4": "lz4", "bslz4": f"bs{8 * info.dtype.itemsize}-lz4"}.get(info.compression)
        if width is None:
            raise ValueError(f"compression {info.compression!r} does not exist in stream 1: use bslz4, lz4 or none")
        about = {
            "htype": "dimage_d-1.0",
            "shape": [*info.shape[::-1]],
            "type": info.dtype.name,
            "encoding": width + "<",
        }
        self._about = _json(about)[:-1] + b',"size":%d}'
        self._head = b'{"htype":"dimage-1.0","series":' + str(info.series).encode() + b',"frame":%d,"hash":"%b"}'
        self._config = b'{"htype":"dconfig-1.0","start_time":%d,"stop_time":%d,"real_time":%d}'
        self._period_ns = round(info.period_s * 1e9)

    def start(self) -> list[Parts]:
        """The header with the detail asked for: none, basic or all."""
        info = self.info
        parts = [_json({"htype": "dheader-1.0", "series": info.series, "header_detail": self._detail})]
        if self._detail != "none":
            parts.append(_json(self._configuration()))
        if self._detail == "all":
            flatfield = np.ones(info.shape, "<f4") if info.flatfield is None else info.flatfield.astype("<f4")
            mask = np.zeros(info.shape, "<u4") if info.pixel_mask is None else info.pixel_mask.astype("<u4")
            for kind, table in (
                ("dflatfield", flatfield),
                ("dpixelmask", mask),
                ("dcountrate_table", np.zeros((2, 2), "<f4")),
            ):
                about = {"htype": f"{kind}-1.0", "shape": [*table.shape[::-1]], "type": table.dtype.name}
                parts += [_json(about), table.tobytes()]
        return [[part] for part in parts] if self._flat else [parts]

    def image(self, number: int, blob: Blob, user_data: Mapping[str, Any]) -> Parts:
        """Four parts, and a fifth with what the user attached."""
        begin = number * self._period_ns
        parts = [
            self._head % (number, blob.md5.encode()),
            self._about % len(blob.data),
            blob.data,
            self._config % (begin, begin + self._period_ns, self._period_ns),
        ]
        return [*parts, _json(dict(user_data))] if user_data else parts

    def end(self) -> Parts:
        """One part."""
        return [_json({"htype": "dseries_end-1.0", "series": self.info.series})]

    def _configuration(self) -> dict[str, Any]:
        info = self.info
        return {
            "description": info.detector,
            "detector_number": "emulated",
            "bit_depth_image": 8 * info.dtype.itemsize,
            "compression": info.compression,
            "nimages": info.images,
            "ntrigger": 1,
            "x_pixels_in_detector": info.shape[1],
            "y_pixels_in_detector": info.shape[0],
            "x_pixel_size": info.pixel_size_m,
            "y_pixel_size": info.pixel_size_m,
            "beam_center_x": info.shape[1] / 2,
            "beam_center_y": info.shape[0] / 2,
            "detector_distance": info.distance_m,
            "photon_energy": info.energy_J / EV,
            "threshold_energy": info.energy_J / EV / 2,
            "wavelength": info.wavelength_m * 1e10,
            "count_time": info.period_s,
            "frame_time": info.period_s,
            "countrate_correction_count_cutoff": int(np.iinfo(info.dtype).max) - 1 if info.dtype.kind in "ui" else 0,
            "data_collection_date": info.date,
        }


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _head(major: int, value: int) -> bytes:
    """The shortest head of a CBOR item (RFC 8949, section 3)."""
    if value < 24:
        return bytes([major << 5 | value])
    size = 1 if value < 1 << 8 else 2 if value < 1 << 16 else 4 if value < 1 << 32 else 8
    return bytes([major << 5 | 23 + size.bit_length()]) + value.to_bytes(size, "big")


def _int(value: int) -> bytes:
    return _head(0, value)


def _entries(fields: Mapping[str, Any]) -> bytes:
    """Keys and values of a map, without the map's own head."""
    return b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items())


def _plain_array(array: npt.NDArray[Any]) -> cbor2.CBORTag:
    """An uncompressed array: tag 40 around a typed array."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return cbor2.CBORTag(40, [list(little.shape), cbor2.CBORTag(_TAGS[little.dtype.str], little.tobytes())])


def _array_head(info: SeriesInfo) -> bytes:
    """Everything of an image's array before its bytes: written with none, whose head (one byte) is cut off."""
    data: Any = b""
    if info.compression != "none":
        data = cbor2.CBORTag(56500, [info.compression, info.dtype.itemsize, b""])
    typed = cbor2.CBORTag(_TAGS[info.dtype.newbyteorder("<").str], data)
    return cbor2.dumps(cbor2.CBORTag(40, [list(info.shape), typed]))[:-1]
