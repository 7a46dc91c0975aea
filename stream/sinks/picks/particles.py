"""The particles of one record, read some at a time: a micrograph may hold more than fit into memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ...flow.frame import BadData
from .record import LAYOUT, Imaged

AT_ONCE_BYTES = 32 << 20
ERRORS = (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError)


class Particles:
    """Particles of an open record: ``imaged`` says where and how large they are, ``read`` gives their pixels.

    ``name``: the micrograph's.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        if file.attrs.get("layout") != LAYOUT:
            raise ValueError(f"layout {file.attrs.get('layout')!r}")
        self._path = path
        self.name = str(file.attrs["name"])
        self._images: h5py.Dataset | None = None
        none = np.zeros(0, np.float32)
        self.imaged = Imaged(none, none, none, 0, 0.0, "float32")
        if "particles" in file:
            group = file["particles"]
            self._images = group["images"]
            x, y, score = (np.ascontiguousarray(group[name][()], np.float32) for name in ("x", "y", "score"))
            count, size, width = self._images.shape
            if not count == len(x) == len(y) == len(score) or size != width:
                raise ValueError(f"{count} images of {size} × {width} pixels, {len(x)} centres")
            self.imaged = Imaged(x, y, score, int(size), float(group.attrs["pixel_a"]), str(self._images.dtype))

    def __len__(self) -> int:
        return len(self.imaged)

    @property
    def at_once(self) -> int:
        """How many to read in one go, at most."""
        return max(1, AT_ONCE_BYTES // max(1, 4 * self.imaged.size**2))

    def read(self, at: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """Pixels (n, size, size), as stored, of the particles with these numbers, ascending. Raises ``BadData``."""
        if self._images is None or not len(at):
            return np.zeros((0, self.imaged.size, self.imaged.size), np.float32)
        first, last = int(at[0]), int(at[-1]) + 1
        try:
            if last - first == len(at):
                return np.asarray(self._images[first:last])
            return np.asarray(self._images[at])
        except ERRORS as error:
            raise _damaged(self._path, error) from error


@contextmanager
def open_particles(path: Path) -> Iterator[Particles]:
    """Open a record for its particles. Raises ``BadData`` for a file that is none, is damaged, or is gone."""
    try:
        file = h5py.File(path, "r")
    except ERRORS as error:
        raise _damaged(path, error) from error
    with file:
        try:
            particles = Particles(path, file)
        except ERRORS as error:
            raise _damaged(path, error) from error
        yield particles


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData("record", f"{path}: its particles cannot be read ({error}); remove the record, or restore it")
