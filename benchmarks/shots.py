"""The shots that are sent: simulated diffraction, saved once per run so that every sender plays the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIZES = {"128²": 128, "1 Mpx": 1024}
SEED = 3
# A miss of the simulator may hold enough background to look like a hit to a count of lit pixels; the screen's
# threshold is put between the two, so that the share of hits is the share that reaches the network.
ADU_THRESHOLD = 1


class Shots:
    """Files with ``count`` frames of a size and a share of hits, made when first asked for, in ``folder``."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self._folder = folder
        self._per_class = {128: 8 if quick else 20, 1024: 2 if quick else 4}
        self._pools: dict[int, tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]] = {}

    def threshold(self, size: int) -> int:
        """Lit pixels (more than ``ADU_THRESHOLD`` photons) that no miss and every hit of the pool has."""
        misses, hits = (lit(stack) for stack in self.pool(size))
        return int((misses.max() + hits.min()) // 2 + 1)

    def file(self, size: int, share: float) -> tuple[Path, int]:
        """A file of uint16 frames (n, size, size) of which ``share`` are hits, spread out evenly, and n."""
        misses, hits = self.pool(size)
        wanted = 200 if size == 128 else 20
        number = round(share * wanted)
        # spread out evenly, and never all of them in one burst
        is_hit = np.diff(np.floor(np.arange(wanted + 1) * number / wanted)).astype(bool)
        path = self._folder / f"shots-{size}-{share:g}.npy"
        if not path.exists():
            frames = np.empty((wanted, size, size), np.uint16)
            for flags, stack in ((is_hit, hits), (~is_hit, misses)):
                frames[flags] = stack[np.arange(np.count_nonzero(flags)) % len(stack)]
            np.save(path, frames)
        return path, wanted

    def pool(self, size: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Misses and hits that a count of lit pixels can tell apart."""
        if size not in self._pools:
            from beamsieve.models.hits.simulator import pool

            made = pool(self._per_class[size], SEED, size)
            misses, hits = made.images[made.labels == 0], made.images[made.labels == 1]
            self._pools[size] = misses[lit(misses) < lit(hits).min()], hits
        return self._pools[size]


def lit(stack: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Pixels with more than ``ADU_THRESHOLD`` photons in each frame of (n, y, x)."""
    counts: npt.NDArray[np.int64] = np.count_nonzero(stack > ADU_THRESHOLD, axis=(1, 2))
    return counts
