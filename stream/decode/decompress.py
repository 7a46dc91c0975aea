"""Encoded arrays to numpy arrays: bitshuffle-LZ4, bitshuffle-Zstandard and LZ4 as detectors send them.

The framing is that of HDF5's filters 32008 (bitshuffle) and 32004 (LZ4): u64 big-endian size in bytes of the decoded
array, u32 big-endian size in bytes of a block, then the blocks. The library that decodes allocates whatever that size
says, so every size is compared with the shape first: a corrupt frame fails, and never takes the memory of the daemon.
"""

from __future__ import annotations

import struct
from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from dectris.compression import decompress as _decode

from ..flow.frame import BadData, Encoded

MAX_BYTES = 1 << 29
"""Largest decoded array accepted by default, in bytes: seven times an EIGER 16M with 32 bits."""

COLUMN_MAJOR = "/F"
"""What an ``Encoded.compression`` ends with when the array is stored column-major (CBOR tag 1040)."""

_HEADER = struct.Struct(">QI")
_FRAME = struct.Struct(">QII")
_MAX_BLOCK = 0x7E000000
_SHUFFLED = ("bslz4", "bszstd")
_ROW_MAJOR = ("none", "lz4", *_SHUFFLED)


def decompress(
    encoded: Encoded, out: npt.NDArray[Any] | None = None, *, max_bytes: int = MAX_BYTES
) -> npt.NDArray[Any]:
    """Decode one array: shape ``encoded.shape``, dtype ``encoded.dtype`` in native byte order.

    With ``out`` (same shape and native dtype) the pixels are written there and ``out`` is returned. Without it the
    answer may be a read-only view of the received bytes (``none``). Decoding runs without the GIL.

    Raises ``BadData``: ``shape`` (negative extents, or unlike ``out``), ``dtype`` (not a number, or unlike ``out``),
    ``size`` (more than ``max_bytes``, or the sizes in shape, header and buffer disagree), ``decompress`` (unknown
    compression, nonsense block size, or the bytes cannot be decoded).
    """
    compression, order = encoded.compression, "C"
    if compression.endswith(COLUMN_MAJOR):
        compression, order = compression[: -len(COLUMN_MAJOR)], "F"
    dtype = encoded.dtype
    nbytes = _checked_size(encoded, max_bytes)
    flat = np.frombuffer(_plain(encoded, nbytes), dtype)
    array = flat.reshape(encoded.shape) if order == "C" else flat.reshape(encoded.shape, order="F")
    if out is None:
        native = array if dtype.isnative else array.astype(dtype.newbyteorder("="))
        return native if order == "C" else np.ascontiguousarray(native)
    _check_out(out, encoded)
    out[...] = array
    return out


def decompress_many(
    items: Sequence[Encoded],
    out: npt.NDArray[Any] | None = None,
    *,
    errors: MutableMapping[int, BadData] | None = None,
    max_bytes: int = MAX_BYTES,
) -> npt.NDArray[Any]:
    """Decode arrays of one shape and dtype into one stack (n, …), allocated once unless ``out`` is given.

    The first usable item says what shape and dtype the stack has. With ``errors``, what cannot be decoded is told
    there (index to error) and its row is zero, so that one bad frame does not take a burst with it.

    Raises ``BadData`` as ``decompress``; at once without ``errors``, and with it only when no item is usable.
    """
    stack, rows, known = out, None, None
    faults: dict[int, BadData] = {}
    for index, item in enumerate(items):
        try:
            if rows is not None and (item.shape, item.dtype, item.compression) == known:
                # Through a view of bytes: a numpy array for each small frame costs more than its pixels.
                size = len(rows) // len(items)
                rows[index * size : (index + 1) * size] = _plain(item, size)
                continue
            if stack is None:
                _checked_size(item, max_bytes // len(items))
                stack = np.empty((len(items), *item.shape), item.dtype.newbyteorder("="))
                stack[:index] = 0
                if item.dtype.isnative and item.compression in _ROW_MAJOR:
                    rows, known = stack.data.cast("B"), (item.shape, item.dtype, item.compression)
            decompress(item, stack[index], max_bytes=max_bytes)
        except BadData as error:
            if errors is None:
                raise
            faults[index] = error
            if stack is not None:
                stack[index] = 0
    if errors is not None:
        errors.update(faults)
    if stack is None:
        raise faults[0] if faults else BadData("shape", "no image to decode: give at least one")
    return stack


_CHANGED = "it changed during the run"
_CUT = "the message was cut, or its header belongs to another image"


def _checked_size(encoded: Encoded, max_bytes: int) -> int:
    """Bytes of the decoded array, once shape and dtype make sense."""
    if encoded.dtype.kind not in "uif":
        raise BadData("dtype", f"image: type {encoded.dtype} is not a number")
    nbytes = encoded.nbytes
    if nbytes <= 0 or min(encoded.shape, default=1) < 0:
        raise BadData("shape", f"image: shape {encoded.shape} holds no pixel")
    if nbytes > max_bytes:
        raise BadData("size", f"image: {nbytes} bytes decoded, more than the {max_bytes} allowed")
    return nbytes


def _check_out(out: npt.NDArray[Any], encoded: Encoded) -> None:
    if out.shape != encoded.shape:
        raise BadData("shape", f"image: shape {encoded.shape} where {out.shape} was expected; {_CHANGED}")
    if out.dtype != encoded.dtype.newbyteorder("="):
        raise BadData("dtype", f"image: type {encoded.dtype} where {out.dtype} was expected; {_CHANGED}")


def _plain(encoded: Encoded, nbytes: int) -> memoryview | bytes:
    """The decoded bytes, exactly ``nbytes`` of them; of what is not compressed, the bytes that came."""
    compression = encoded.compression.removesuffix(COLUMN_MAJOR)
    if compression != "none":
        return _expand(encoded.buffer, compression, encoded.dtype.itemsize, nbytes)
    if len(encoded.buffer) != nbytes:
        raise BadData("size", f"image: {len(encoded.buffer)} bytes where shape and type say {nbytes}; {_CUT}")
    return encoded.buffer


def _expand(buffer: memoryview | bytes, compression: str, itemsize: int, nbytes: int) -> bytes:
    """The decoded bytes, exactly ``nbytes`` of them."""
    if compression in _SHUFFLED:
        _check_shuffled(buffer, compression, itemsize, nbytes)
        algorithm = compression
    elif compression == "lz4":
        buffer = _framed_lz4(buffer, nbytes)
        algorithm = "lz4"
    else:
        raise BadData("decompress", f"image: compression {compression!r} is unknown; known: none, bslz4, bszstd, lz4")
    try:
        plain: bytes = _decode(buffer, algorithm, elem_size=itemsize)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise BadData("decompress", f"image: {compression} of {len(buffer)} bytes: {error}") from error
    if len(plain) != nbytes:
        raise BadData("size", f"image: {len(plain)} bytes decoded where shape and type say {nbytes}")
    return plain


def _check_shuffled(buffer: memoryview | bytes, compression: str, itemsize: int, nbytes: int) -> None:
    if len(buffer) <= _HEADER.size:
        raise BadData("decompress", f"image: {compression} of {len(buffer)} bytes has no data; {_CUT}")
    said, block = _HEADER.unpack_from(buffer)
    if said != nbytes:
        raise BadData("size", f"image: {compression} header says {said} bytes, shape and type {nbytes}; {_CUT}")
    # A block holds a multiple of eight elements; one larger than the array only costs a buffer as large as it says.
    if block == 0 or block % (8 * itemsize) or block > max(nbytes, 1 << 20):
        raise BadData("decompress", f"image: {compression} block of {block} bytes does not fit elements of {itemsize}")


def _framed_lz4(buffer: memoryview | bytes, nbytes: int) -> memoryview | bytes:
    """The buffer in the framing of HDF5's LZ4 filter; a bare LZ4 block, as old senders give it, is framed here."""
    size = len(buffer)
    if nbytes > 255 * size:
        raise BadData("size", f"image: {nbytes} bytes cannot come from {size} bytes of lz4; {_CUT}")
    if size >= _HEADER.size:
        said, block = _HEADER.unpack_from(buffer)
        if said == nbytes:
            if not 0 < block <= _MAX_BLOCK:
                raise BadData("decompress", f"image: lz4 block of {block} bytes")
            return buffer
    if nbytes > _MAX_BLOCK or size >= nbytes + nbytes // 255 + 16:
        raise BadData("decompress", f"image: {size} bytes are neither framed lz4 nor one lz4 block of {nbytes} bytes")
    return _FRAME.pack(nbytes, nbytes, size) + bytes(buffer)
