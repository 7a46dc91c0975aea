"""What a tomogram's file says of itself before a voxel is read, for whoever waits until it is complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..flow.frame import BadData
from .image import Header
from .mrc import read_header
from .volume_hdf import SIGNATURE, HdfStore


def volume_header(path: Path, size: int) -> Header:
    """A ``Header`` of one frame, however many planes there are: tomograms of a session need not be equally thick.

    Of MRC only the header is read, and nothing judged but whether it is one; HDF5 must open. Raises ``BadData`` (see
    ``open_volume``) and ``OSError``.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(SIGNATURE))
            if start != SIGNATURE:
                found = read_header(stream, size, path.name)
                shape = (1, found.ny, found.nx)
                return Header("mrc", shape, np.dtype(np.float32), found.expected_bytes, found.pixel_a, {})
    except FileNotFoundError:
        raise BadData("vanished", f"{path}: no longer there; was it moved or renamed?") from None
    store = HdfStore.of(path)
    try:
        return Header("hdf", (1, *store.shape[1:]), store.dtype, None, store.voxels_a[0], {})
    finally:
        store.close()
