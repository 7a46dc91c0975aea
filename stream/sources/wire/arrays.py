"""Arrays inside start messages (flat field, pixel mask, tables): small, rare, and needed before the first image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from dectris.compression import decompress

from ...flow.frame import BadData, Encoded
from .cbor_tags import COLUMN_MAJOR

MAX_BYTES = 1 << 29


def array_of(encoded: object, what: str) -> npt.NDArray[Any]:
    """The array, in native byte order and of its own memory. ``what`` names it in errors.

    Raises ``BadData``: ``shape`` (no array, or its bytes do not fill its shape), ``decompress``.
    """
    if not isinstance(encoded, Encoded):
        raise BadData("shape", f"{what}: not an array")
    compression, dtype, nbytes = encoded.compression.removesuffix(COLUMN_MAJOR), encoded.dtype, encoded.nbytes
    buffer: memoryview | bytes = encoded.buffer
    if compression != "none":
        if nbytes > MAX_BYTES or int.from_bytes(buffer[:8], "big") != nbytes:
            raise BadData("shape", f"{what}: {compression} header does not say the {nbytes} bytes of shape and type")
        try:
            buffer = decompress(buffer, compression, elem_size=dtype.itemsize)
        except (RuntimeError, ValueError, MemoryError) as error:
            raise BadData("decompress", f"{what}: {compression}: {error}") from error
    if len(buffer) != nbytes or not nbytes:
        raise BadData("shape", f"{what}: {len(buffer)} bytes where shape and type say {nbytes}")
    order = "F" if encoded.compression.endswith(COLUMN_MAJOR) else "C"
    flat = np.frombuffer(buffer, dtype)
    return (flat.reshape(encoded.shape, order=order)).astype(dtype.newbyteorder("="), order="C")  # type: ignore[call-overload,no-any-return]
