"""Compress as detectors do: HDF5's own filters run on a file in memory, and its chunks are what a detector sends."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

COMPRESSIONS = ("none", "bslz4", "lz4", "bszstd")
"""Names as in ``Encoded.compression``."""

_lock = threading.Lock()
_names = iter(range(1 << 62))


class Compressor:
    """Compresses arrays one by one; a context manager. Not for several threads.

    ``bslz4`` and ``bszstd`` are HDF5's filter 32008, ``lz4`` is filter 32004, each with its 12-byte header. Raises
    ``ValueError`` for another name.
    """

    def __init__(self, compression: str = "bslz4") -> None:
        if compression not in COMPRESSIONS:
            raise ValueError(f"compression {compression!r}: use one of {', '.join(COMPRESSIONS)}")
        self.compression = compression
        with _lock:
            name = f"beamsieve-compressor-{next(_names)}"
        self._file = h5py.File(name, "w", driver="core", backing_store=False)
        self._sets: dict[tuple[tuple[int, ...], str], h5py.Dataset] = {}

    def __enter__(self) -> Compressor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def compress(self, array: npt.NDArray[Any]) -> bytes:
        """The bytes of one array of any shape and numeric dtype, little-endian and row-major."""
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        if self.compression == "none":
            return plain.tobytes()
        dataset = self._dataset(plain)
        dataset[...] = plain
        dataset.flush()
        chunk: bytes = dataset.id.read_direct_chunk((0,) * plain.ndim)[1]
        return chunk

    def close(self) -> None:
        """Forget the file in memory."""
        self._file.close()

    def _dataset(self, array: npt.NDArray[Any]) -> h5py.Dataset:
        known = self._sets.get((array.shape, array.dtype.str))
        if known is None:
            known = self._file.create_dataset(
                f"{len(self._sets)}", array.shape, array.dtype, chunks=array.shape, **_filter(self.compression)
            )
            self._sets[array.shape, array.dtype.str] = known
        return known


def _filter(compression: str) -> Mapping[str, Any]:
    if compression == "lz4":
        return hdf5plugin.LZ4()
    return hdf5plugin.Bitshuffle(cname="lz4" if compression == "bslz4" else "zstd")
