"""A class for every voxel of a tomogram: EDSS3D (Zeng et al., 2018, section 2.4) over all of it, slab by slab.

The published way cuts boxes at the picks of marked clusters and looks at each alone; ``near`` keeps to their
surroundings. Memory is bounded: some planes of the working volume, a few windows, and a slab of the file's planes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..bundle import Bundle, load_bundle
from ..lanes import open_lane
from ..runner import usable_cores
from .bundles import segmenter_network
from .segment_plan import Plan, choose
from .segment_slabs import Enlarger, Halves, Slab
from .segment_tiles import Near, Tile, inner, tiles, window
from .told import Progress, Stop, Told
from .volume import Floats, Shape, Volume

__all__ = ["Segmenter", "Slab"]

SLAB_MB = 256
"""Of probabilities of working voxels at a time, float16."""
TILE = 104
"""Edge of tiles along y and x, in working voxels."""
MOST_PLANES = 64


class Rescaled(Volume, Protocol):
    """A working volume (``working.Working``): rescaled, density bright, mean 0 and s.d. 1 over the tomogram."""

    @property
    def factor(self) -> float:
        """Voxels of the file per working voxel."""

    @property
    def volume(self) -> Volume:
        """The file's."""

    def to_work(self, xyz: npt.NDArray[np.floating]) -> Floats:
        """Positions (n, 3) in voxels of the file, in working voxels."""


class Segmenter:
    """Says of each voxel which class it is of, with a bundle of kind ``voxels``.

    ``bundle``: a loaded one, or what ``load_bundle`` takes. ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    ``threads``: windows that are worked on side by side on a CPU; None: one per usable core. Raises ``BundleError``
    where the bundle is no segmentation of tomograms, or there is no such device.
    """

    def __init__(self, bundle: Bundle | str | Path, *, device: str = "auto", threads: int | None = None) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._net = segmenter_network(self.bundle).eval()
        card = self.bundle.card
        self.name, self.sha256, self.classes = card.name, card.sha256, card.output.classes
        self.edge = card.input.shape[-1]
        self.voxel_a = card.input.pixel_a or 0.0
        self.device, _ = open_lane(device)
        self.threads = (threads or usable_cores()) if self.device.type == "cpu" else 1
        self._plan: Plan | None = None
        self._turn = threading.Lock()

    def warm_up(self) -> str:
        """Choose the fastest way to run the network that agrees with it as trained; says which, and its speed.

        Raises ``BundleError`` (``tolerance``) where none agrees to the tolerance on the card.
        """
        with self._turn:
            if self._plan is None:
                with self._pool() as pool:
                    self._plan = pool.submit(choose, self._net, self.bundle, self.device).result()
        return f"{self.name} on {self.device} ({self.threads}): {self._plan}"

    def probabilities(self, boxes: Floats) -> Floats:
        """Of sub-volumes (n, e, e, e), normalised as the tomogram: float32 (n, classes, e, e, e)."""
        self.warm_up()
        with self._pool() as pool:
            found = list(pool.map(self._run, boxes))
        return np.stack(found) if found else np.empty((0, len(self.classes), *boxes.shape[1:]), np.float32)

    def segment(
        self,
        working: Rescaled,
        *,
        near: npt.NDArray[np.floating] | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
        tile: int = TILE,
    ) -> Iterator[Slab]:
        """Slabs of labels and probabilities on the file's voxels, in order of z, without gaps.

        ``working``: of the voxel size on the card (``voxel_a``; ``ValueError`` for another). ``near``: positions
        (n, 3), x, y, z in voxels of the file; farther than half a box from all of them everything is background.
        ``progress("segment", tiles done, tiles)``. ``stop``: when it says so, ``Stopped`` is raised. ``tile``: edge in
        working voxels, a multiple of 4; the result does not depend on it.
        """
        if abs(working.voxel_a / self.voxel_a - 1) > 1e-3:
            raise ValueError(
                f"{self.bundle.path}: is for voxels of {self.voxel_a:g} Å, the working volume has {working.voxel_a:g} Å"
            )
        self.warm_up()
        places = None if near is None else Near(working.to_work(np.asarray(near, np.float32)), self.edge / 2)
        enlarger = Enlarger(working.volume.shape, working.shape, working.factor)
        with self._pool() as pool:
            for planes in self._slabs(working, places, pool, Told(progress, stop), tile):
                yield from enlarger.add(planes)

    def _slabs(
        self,
        working: Rescaled,
        near: Near | None,
        pool: ThreadPoolExecutor,
        told: Told,
        tile: int,
    ) -> Iterator[Halves]:
        """Probabilities of working planes, float16 (classes, dz, y, x), slab after slab."""
        shape = working.shape
        step = _planes(shape, len(self.classes))
        slabs = [list(tiles(shape, z, min(z + step, shape[0]), tile)) for z in range(0, shape[0], step)]
        done, of = 0, sum(map(len, slabs))
        for slab in slabs:
            first, last = slab[0].low[0], slab[0].high[0]
            planes = np.zeros((len(self.classes), last - first, *shape[1:]), np.float16)
            planes[0] = 1
            coming = deque(pool.submit(self._tile, working, near, one) for one in slab)
            try:
                for one in slab:
                    found = coming.popleft().result()
                    if found is not None:
                        planes[:, :, one.low[1] : one.high[1], one.low[2] : one.high[2]] = found
                    done += 1
                    told("segment", done, of)
            finally:
                for future in coming:
                    future.cancel()
            yield planes

    def _tile(self, working: Volume, near: Near | None, tile: Tile) -> Halves | None:
        """Probabilities of a tile, float16; None where all is background."""
        mask = None if near is None else near.mask(tile)
        if near is not None and mask is None:
            return None
        found = np.asarray(inner(self._run(window(working, tile)), tile), np.float16)
        if mask is not None:
            found[:, ~mask] = 0
            found[0, ~mask] = 1
        return found

    def _run(self, box: Floats) -> Floats:
        """Probabilities (classes, z, y, x) of one window."""
        assert self._plan is not None
        return self._plan(box)

    def _pool(self) -> ThreadPoolExecutor:
        # Two windows on two threads are faster than one window cut in two: pooling and soft-max wait for memory.
        return ThreadPoolExecutor(self.threads, "segment", initializer=torch.set_num_threads, initargs=(1,))


def _planes(shape: Shape, classes: int) -> int:
    """Working planes in a slab: a multiple of 4, within ``SLAB_MB``."""
    fitting = (SLAB_MB << 20) // (2 * classes * shape[1] * shape[2])
    return max(4, min(MOST_PLANES, fitting) // 4 * 4)
