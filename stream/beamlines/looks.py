"""How a frame looks to people: a picture of the whole detector, with what is masked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...models.hits.infer import bad_pixels
from ..decode.crystfel import read_geometry
from ..decode.frames import DetectorSettings
from ..decode.geometry import Assembler
from ..decode.layout import GeometryError
from ..decode.masks import Mask
from ..live.frame_views import Array, Drawn


def stacked(data: Array, mask: Mask | None) -> Drawn:
    """Modules one below the other: (module, y, x) to (module · y, x); (y, x) stays."""
    bad = None if mask is None else bad_pixels(mask).reshape(-1, data.shape[-1])
    return data.reshape(-1, data.shape[-1]), bad


class Looks:
    """How a detector's frames look to people: the whole detector, assembled where there is a geometry. Any thread.

    ``mask_of``: a run's static mask (CXI's bits), for frames without one of their own. Raises ``GeometryError`` and
    ``OSError`` where the geometry cannot be read, as ``View`` does.
    """

    def __init__(self, settings: DetectorSettings, base: Path, mask_of: Callable[[str], Mask | None]) -> None:
        self._mask_of = mask_of
        self._geometry = settings.geometry
        file = settings.geometry.file
        self._layout = None if file is None else read_geometry(base / file)
        self._assembler: Assembler | None = None

    @property
    def from_below(self) -> bool:
        """Whether row 0 of a picture belongs at the bottom: y grows upwards in a geometry."""
        return self._layout is not None

    def __call__(self, data: Array, mask: Mask | None, run: str) -> Drawn:
        """A frame, or what has the shape of one, as a picture: assembled where there is a geometry, else stacked."""
        mask = self._mask_of(run) if mask is None else mask
        mask = mask if mask is not None and mask.shape == data.shape else None
        assembler = self._fitted(data.shape)
        if assembler is None:
            return stacked(data, mask)
        pictures, placed = assembler.assemble(data[np.newaxis], mask)
        return pictures[0], bad_pixels(placed)

    def _fitted(self, shape: tuple[int, ...]) -> Assembler | None:
        if self._layout is None:
            return None
        if self._assembler is None or self._assembler.shape != shape:
            try:
                self._assembler = Assembler(self._layout, shape, self._geometry.mask_files)
            except GeometryError:
                # Such frames are failures of the model's stage, which says why; a picture of them may still help.
                return None
        return self._assembler
