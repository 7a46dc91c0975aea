"""Images of micrographs for the page, within a budget: the last ones, and earlier ones on demand from their files."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from ..formats.image import image_header, read_image
from .micrographs import Micrograph
from .overview import View, view_of
from .shelf import Shelf

log = logging.getLogger(__name__)

Image = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

BUDGET = 256 << 20
LARGE_SHARE = 0.25
LARGEST_PX = 200_000_000
LARGEST_TILE_PX = 1024
FORGET_S = 30.0


def still_image(path: Path, shape: tuple[int, int]) -> Image | None:
    """The pixels at ``path``, if they are a still image of that shape (ny, nx); None for a movie and all else.

    A movie was summed with a gain reference that is not known here, and reading one takes minutes.
    """
    try:
        header = image_header(path)
        if header.shape != (1, *shape) or shape[0] * shape[1] > LARGEST_PX:
            return None
        image = read_image(path).data
    except BadData as error:
        log.info("%s", error.detail)
        return None
    return image if image.shape == shape else None


@dataclass(frozen=True, slots=True, eq=False)
class _Large:
    """An overview, and by what it was binned."""

    pixels: Bytes
    factor: int

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


class Views:
    """Overviews and full resolution of micrographs, uint8, in at most ``budget`` bytes. For any thread.

    ``load(path, shape)`` gives the pixels (ny, nx) of a micrograph that is not kept any more, or None. It is called by
    one thread at a time.
    """

    def __init__(
        self,
        budget: int = BUDGET,
        load: Callable[[Path, tuple[int, int]], Image | None] = still_image,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._full: Shelf[Bytes] = Shelf(round(budget * (1 - LARGE_SHARE)))
        self._large: Shelf[_Large] = Shelf(round(budget * LARGE_SHARE))
        self._load, self._clock = load, clock
        self._loading = threading.Lock()
        self._failed: dict[str, float] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of pixels kept."""
        return self._full.nbytes + self._large.nbytes

    def put(self, row_id: str, view: View) -> None:
        """Keep these."""
        self._full.put(row_id, view.full)
        self._large.put(row_id, _Large(view.large, view.large_factor))

    def has_full(self, row_id: str) -> bool:
        """Whether the full resolution is at hand."""
        return row_id in self._full

    def large(self, found: Micrograph) -> tuple[Bytes, int] | None:
        """The overview of at most 2048 pixels, and how many pixels of the micrograph one of its is wide."""
        kept = self._large.get(found.id)
        if kept is None:
            view = self._loaded(found)
            return None if view is None else (view.large, view.large_factor)
        return kept.pixels, kept.factor

    def tile(self, found: Micrograph, x: int, y: int, size: int) -> Bytes | None:
        """Pixels [y, y + size) × [x, x + size) in full resolution, as far as they are in the micrograph.

        None where none are, or ``size`` is not 1..1024, or the image is gone.
        """
        ny, nx = found.shape
        if not (0 <= x < nx and 0 <= y < ny and 1 <= size <= LARGEST_TILE_PX):
            return None
        full = self._full.get(found.id)
        if full is None:
            view = self._loaded(found)
            full = None if view is None else view.full
        return None if full is None else np.ascontiguousarray(full[y : y + size, x : x + size])

    def _loaded(self, found: Micrograph) -> View | None:
        """The view of an earlier micrograph, read again from its file; None where that cannot be had."""
        # One at a time: ten browsers that look at old micrographs must not read ten files at once.
        with self._loading:
            now = self._clock()
            self._failed = {row_id: at for row_id, at in self._failed.items() if now - at < FORGET_S}
            if found.id in self._failed:
                return None
            image = self._load(found.path, found.shape)
            if image is None:
                self._failed[found.id] = now
                return None
            view = view_of(image)
            self.put(found.id, view)
            return view
