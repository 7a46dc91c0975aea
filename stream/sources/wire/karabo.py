"""The karabo-bridge wire format, protocols 1.0, 2.0, 2.1 and 2.2: message parts to arrays and metadata.

Source of the format: the serializer of the ``karabo-bridge`` package and European XFEL's description of the bridge.
A 1.0 message is one msgpack map ``{source: {key: value, "metadata": {...}}}`` with arrays as msgpack-numpy maps. A 2.x
message is pairs of parts, header and payload: per source one msgpack map of values, then its arrays as plain C-order
bytes. 2.0 and 2.1 differ from 2.2 in where the metadata are: nested in the values, flat in the values, in the header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgpack
import numpy as np

from ...flow.frame import EMPTY, BadData, Encoded

Part: TypeAlias = bytes | memoryview

_KINDS = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)
DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for kind in _KINDS
    for code in [np.dtype(kind).str[1:]]
    for name in (kind, *(o + code for o in "<>=|"))
}
"""The names an array's type may have on the wire: plain numbers, never objects, strings or structures."""

MAX_DIMENSIONS = 8
MAX_ITEMS = 1 << 20
"""Longest msgpack list or map, because msgpack allocates a list of the length its header claims."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands for an array that cannot be used, so that it only matters to who asks for it."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Device:
    """What one source of a train said: ``metadata``, plain ``values``, and ``arrays`` still as bytes."""

    metadata: Mapping[str, Any]
    values: Mapping[str, Any]
    arrays: Mapping[str, Encoded | Unusable]

    def train_id(self) -> int | None:
        """The train this belongs to: metadata first, then ``image.trainId``; None where neither says."""
        stamp = self.metadata.get("timestamp")
        tid = self.metadata.get("timestamp.tid", stamp.get("tid") if isinstance(stamp, Mapping) else None)
        if tid is None and isinstance(ids := self.arrays.get("image.trainId"), Encoded):
            numbers = integers(ids)
            tid = int(numbers[0]) if numbers.size else None
        return tid if isinstance(tid, int) and not isinstance(tid, bool) and tid >= 0 else None

    def timestamp(self) -> float | None:
        """Seconds since 1970 as the sender says, or None."""
        stamp = self.metadata.get("timestamp")
        return float(stamp) if isinstance(stamp, int | float) else None


@dataclass(frozen=True, slots=True)
class Train:
    """One message: every source's name in ``names``, and what the wanted ones said in ``devices``."""

    names: tuple[str, ...]
    devices: Mapping[str, Device]


def decode(parts: Sequence[Part], wanted: Callable[[str], bool] = lambda _: True) -> Train:
    """Read one message of any protocol version. Arrays stay in the memory they came in, and no array is decoded.

    Sources that are not ``wanted`` are named but not read. Raises ``BadData`` with reason ``framing`` (not pairs of
    parts), ``msgpack`` (a part is no msgpack map), ``header`` (a field is missing or of the wrong type).
    """
    if len(parts) == 1:
        return _decode_single(parts[0], wanted)
    if not parts or len(parts) % 2:
        raise BadData("framing", f"karabo message of {len(parts)} parts: expected 1 (protocol 1.0) or pairs (2.x)")
    return _decode_pairs(parts, wanted)


def integers(array: Encoded) -> np.ndarray[Any, np.dtype[Any]]:
    """A small integer array such as ``image.pulseId`` as 1-D values. Raises ``BadData("dtype")`` for other types."""
    if array.dtype.kind not in "iu":
        raise BadData("dtype", f"identifiers of type {array.dtype}: expected integers")
    return np.frombuffer(array.buffer, array.dtype) if array.nbytes else np.empty(0, array.dtype)


def _decode_pairs(parts: Sequence[Part], wanted: Callable[[str], bool]) -> Train:
    names: dict[str, None] = {}
    devices: dict[str, Device] = {}
    for i in range(0, len(parts), 2):
        header = _unpack(parts[i], i)
        source = _text(header, "source", i)
        names[source] = None
        if not wanted(source):
            continue
        content = header.get("content")
        if content == "msgpack":
            devices[source] = _device(_unpack(parts[i + 1], i + 1), header.get("metadata"), devices.get(source))
        elif content in ("array", "ImageData"):
            arrays = devices.setdefault(source, Device(EMPTY, EMPTY, {})).arrays
            assert isinstance(arrays, dict)
            arrays[_text(header, "path", i)] = _array(parts[i + 1], header.get("dtype"), header.get("shape"), source)
        else:
            raise BadData("header", f"karabo part {i}: content {content!r}: expected msgpack, array or ImageData")
    return Train(tuple(names), devices)


def _device(values: Mapping[str, Any], metadata: Any, earlier: Device | None) -> Device:
    if not isinstance(metadata, Mapping):
        metadata = values.get("metadata")  # protocol 2.0
    if not isinstance(metadata, Mapping):  # protocol 2.1
        metadata = {k[9:]: v for k, v in values.items() if isinstance(k, str) and k.startswith("metadata.")}
    arrays: dict[str, Encoded | Unusable] = dict(earlier.arrays) if earlier is not None else {}
    arrays.update((k, v) for k, v in values.items() if isinstance(v, Encoded | Unusable))
    return Device(metadata, values, arrays)


def _decode_single(part: Part, wanted: Callable[[str], bool]) -> Train:
    devices = {}
    message = _unpack(part, 0, _numpy_map)
    for source, values in message.items():
        if not isinstance(source, str) or not isinstance(values, Mapping):
            raise BadData("header", "karabo 1.0 message: expected a map of source names to maps of values")
        if wanted(source):
            devices[source] = _device(values, None, None)
    return Train(tuple(message), devices)


def _numpy_map(found: dict[Any, Any]) -> Any:
    """Turn a msgpack-numpy map into ``Encoded`` or a number; its pickled and structured kinds become ``Unusable``."""
    plain = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in found.items()}
    if not isinstance(plain.get("nd"), bool) or "data" not in plain:
        return plain
    dtype, data = plain.get("type"), plain["data"]
    if plain.get("kind") not in (None, "", b"") or not isinstance(data, bytes):
        return Unusable("dtype", f"array of kind {plain.get('kind')!r}: only plain numbers are read from a network")
    if isinstance(dtype, bytes):
        dtype = dtype.decode("latin-1")
    array = _array(data, dtype, plain.get("shape", ()) if plain["nd"] else (), "protocol 1.0")
    if plain["nd"] or isinstance(array, Unusable):
        return array
    return np.frombuffer(array.buffer, array.dtype)[0].item()


def _array(payload: Part, dtype: Any, shape: Any, source: str) -> Encoded | Unusable:
    kind = DTYPES.get(dtype) if isinstance(dtype, str) else None
    if kind is None:
        return Unusable("dtype", f"{source}: array of dtype {str(dtype)[:40]!r}: only plain numbers are read")
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS or not all(_is_extent(n) for n in shape):
        return Unusable("shape", f"{source}: array of shape {str(shape)[:80]}: expected at most 8 whole numbers")
    array = Encoded(payload, tuple(shape), kind)
    size = memoryview(payload).nbytes
    if array.nbytes != size:
        return Unusable("size", f"{source}: {kind} {tuple(shape)} needs {array.nbytes} bytes, the payload has {size}")
    return array


def _is_extent(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 40


def _text(header: Mapping[Any, Any], field: str, i: int) -> str:
    value = header.get(field)
    if not isinstance(value, str):
        raise BadData("header", f"karabo part {i}: {field} is {str(value)[:40]!r}: expected text")
    return value


def _unpack(part: Part, i: int, hook: Callable[[dict[Any, Any]], Any] | None = None) -> dict[Any, Any]:
    size = memoryview(part).nbytes
    try:
        found = msgpack.unpackb(
            part,
            raw=False,
            unicode_errors="replace",
            object_hook=hook,
            max_bin_len=size,
            max_str_len=size,
            max_ext_len=size,
            max_array_len=min(size, MAX_ITEMS),
            max_map_len=min(size, MAX_ITEMS),
        )
    except BadData:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise BadData("msgpack", f"karabo part {i} ({size} bytes) is not msgpack: {str(error)[:120]}") from error
    if not isinstance(found, dict):
        raise BadData("msgpack", f"karabo part {i}: expected a msgpack map, found {type(found).__name__}")
    return found
