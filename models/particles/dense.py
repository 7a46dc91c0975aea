"""The whole micrograph's score map in one pass, instead of box by box.

Every layer of DeepEM is local, so it is run on the micrograph as if that were one large box; its fully connected layer
becomes a convolution. At multiples of the network's total stride this equals the scan patch by patch, to rounding. The
last pooling may be moved one pixel at a time (and the layer after it takes every pool3-th pixel): then it also equals
it at every multiple of pool1 × pool2, for little more.

Turning a box by 90° and running the network is the same as running the network with all its kernels turned back: pools
divide without rest, so they turn along. So all four rotations are scanned on one grid, and share one Fourier transform
of the micrograph. (Turning the micrograph would shift the grid by its size modulo the stride.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .blocks import IN_CACHE, Stage, convolve, convolve_by_fft, plan, split
from .candidates import Floats
from .deepem import layout_of

ROTATIONS = (1, 2, 4)
TILE = 3072


class DenseScan:
    """A DeepEM network, scripted or not, as a scan of whole micrographs.

    ``rotations``: 1, 2 (0 and 180°) or 4. ``fine``: at every pool1 × pool2 pixels instead of every total stride.
    ``tile_px``: longest edge of what is scanned at once, which bounds memory; results do not depend on it. ``threads``:
    how many blocks are worked on at once on a CPU (each by one torch thread: blocks fit a core's cache, and torch's own
    splitting of such small operations costs more than it saves). Raises ``ValueError`` for other networks and numbers.

    ``box``, ``stride``: in pixels. Score (i, j) belongs to the box whose first pixel is (i * stride, j * stride).
    """

    def __init__(
        self,
        module: Any,
        *,
        rotations: int = 4,
        fine: bool = True,
        tile_px: int = TILE,
        device: str | torch.device = "cpu",
        threads: int = 1,
    ) -> None:
        if rotations not in ROTATIONS:
            raise ValueError(f"rotations: {rotations} is not one of 1, 2, 4")
        self.layout = layout_of(module)
        self.box, self.rotations = self.layout.box, rotations
        one, two, three = self.layout.pools
        self.stride = one * two if fine else self.layout.stride
        if tile_px < 2 * self.box:
            raise ValueError(f"tile_px: {tile_px} is less than two boxes of {self.box}; give at least {2 * self.box}")
        self.tile_px, self.threads, self.device = tile_px, max(1, threads), torch.device(device)
        act = "relu" if module.relu else "sigmoid"
        last = self.layout.sizes[-1]
        dense = module.fc.weight.reshape(1, self.layout.maps[-1], last, last)
        self._stages = (
            self._stage(module.conv1.weight, module.conv1.bias, one, one, act),
            self._stage(module.conv2.weight, module.conv2.bias, two, two, act),
            self._stage(module.conv3.weight, module.conv3.bias, three, 1 if fine else three, act),
            self._stage(dense, module.fc.bias, 1, 1, "", three if fine else 1),
        )
        self._kernels: dict[tuple[int, int], Tensor] = {}

    def _stage(self, weight: Tensor, bias: Tensor, pool: int, step: int, act: str, dilation: int = 1) -> Stage:
        quarters = range(0, 4, 4 // self.rotations)
        turned = torch.stack([torch.rot90(weight.detach().float(), -k, (-2, -1)) for k in quarters])
        return Stage(turned.to(self.device), bias.detach().float().to(self.device), pool, step, act, dilation)

    def grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """How many boxes are scored along y and x of a micrograph of ``shape``; 0 where none fits."""
        ny, nx = (max(0, (n - self.box) // self.stride + 1) for n in shape)
        return ny, nx

    def memory_bytes(self, shape: tuple[int, int]) -> int:
        """About how much memory ``log_odds`` takes at its peak beside its input: the maps of a tile, and the blocks."""
        tile = [min(n, self.tile_px) for n in shape]
        maps, before, peak = 4.0 * math.prod(tile), 0.0, 0.0
        for stage in self._stages:
            before, tile = maps, [stage.out(n) for n in tile]
            maps = 4.0 * self.rotations * stage.weight.shape[1] * math.prod(tile)
            peak = max(peak, before + maps)
        kernels = sum(8 * s.weight[..., 0, 0].numel() * IN_CACHE**2 / 2 for s in self._stages if s.by_fft)
        blocks = self.threads * 5 * 4 * max(self.layout.maps) * IN_CACHE**2
        return int(peak + kernels + blocks + 4 * math.prod(self.grid(shape)))

    def scores(self, image: npt.NDArray[np.float32]) -> Floats:
        """Mean score of the rotations, 0..1, float32 ``grid(image.shape)``; see ``log_odds``."""
        found: Floats = torch.sigmoid(torch.from_numpy(self.log_odds(image))).numpy()
        return found

    def log_odds(self, image: npt.NDArray[np.float32]) -> Floats:
        """Logarithm of score / (1 - score), where score is the mean of the rotations' sigmoids (the paper's).

        ``image``: float32 (ny, nx), as the network takes it. Gives float32 ``grid(image.shape)``. Unlike the score it
        does not saturate at 1: peaks keep a top. Raises ``ValueError`` where not one box fits. One thread at a time.
        """
        ny, nx = self.grid(image.shape)
        if ny < 1 or nx < 1:
            raise ValueError(f"image: {image.shape[0]} × {image.shape[1]} pixels hold no box of {self.box}")
        whole = torch.from_numpy(np.ascontiguousarray(image, np.float32))
        found = torch.empty((ny, nx))
        with torch.inference_mode(), _workers(self.threads, self.device) as workers:
            for (i, m), (j, n) in product(self._tiles(ny), self._tiles(nx)):
                rows, columns = (
                    slice(a * self.stride, (a + c - 1) * self.stride + self.box) for a, c in ((i, m), (j, n))
                )
                found[i : i + m, j : j + n] = self._tile(whole[rows, columns].to(self.device), workers).cpu()
        scores: Floats = found.numpy()
        return scores

    def _tiles(self, count: int) -> list[tuple[int, int]]:
        """First and number of the positions of each tile along an axis, as equal as can be."""
        most = (self.tile_px - self.box) // self.stride + 1
        return split(count, math.ceil(count / most))

    def _tile(self, image: Tensor, workers: Executor | None) -> Tensor:
        """Log-odds of a tile (ny, nx): all stages, then the mean over rotations."""
        x = image[None, None]
        for at, stage in enumerate(self._stages):
            x = self._run(at, stage, x, workers)
        z = x[:, 0]
        hit, miss = functional.logsigmoid(z), functional.logsigmoid(-z)
        return torch.logsumexp(hit, 0) - torch.logsumexp(miss, 0)

    def _run(self, at: int, stage: Stage, x: Tensor, workers: Executor | None) -> Tensor:
        """One stage, block by block: (rotations or 1, in, ny, nx) to (rotations, out, ny', nx')."""
        ny, nx = stage.out(x.shape[-2]), stage.out(x.shape[-1])
        out = torch.empty((self.rotations, stage.weight.shape[1], ny, nx), device=self.device)
        down, across, size = plan(stage, ny, nx, self.device.type == "cpu")
        kernels = self._transformed(at, stage, size) if stage.by_fft else None

        @torch.inference_mode()  # the mode is a thread's own
        def block(job: tuple[tuple[int, int], tuple[int, int], slice]) -> None:
            (i, m), (j, n), turns = job
            rows, columns = (slice(a * stage.step, a * stage.step + stage.needs(c)) for a, c in ((i, m), (j, n)))
            piece = x[turns.start if len(x) > 1 else 0, :, rows, columns]
            target = out[turns, :, i : i + m, j : j + n]
            if kernels is None:
                convolve(stage, piece, turns, target)
            else:
                convolve_by_fft(stage, piece, kernels[turns], size, target)

        # The first stage's input is the same for all rotations: they share its transform.
        turns = [slice(0, self.rotations)] if len(x) == 1 else [slice(r, r + 1) for r in range(self.rotations)]
        jobs = product(split(ny, down), split(nx, across), turns)
        for _ in workers.map(block, jobs) if workers else map(block, jobs):
            pass
        return out

    def _transformed(self, at: int, stage: Stage, size: int) -> Tensor:
        """Conjugate transforms of a stage's kernels for blocks of ``size`` pixels; kept, as micrographs are alike."""
        if (at, size) not in self._kernels:
            for old in [key for key in self._kernels if key[0] == at]:
                del self._kernels[old]
            self._kernels[at, size] = torch.fft.rfft2(stage.weight, s=(size, size)).conj().resolve_conj()
        return self._kernels[at, size]


def patch_by_patch(module: Any, image: Floats, scan: DenseScan) -> Floats:
    """The naive way to what ``scan.scores`` gives: cut out every box, turn it, ask the network; float32 (ny, nx)."""
    (ny, nx), step, box = scan.grid((image.shape[0], image.shape[1])), scan.stride, scan.box
    quarters = range(0, 4, 4 // scan.rotations)
    found = np.empty((ny, nx), np.float32)
    with torch.inference_mode():
        for i in range(ny):
            row = [torch.from_numpy(image[i * step : i * step + box, j * step : j * step + box]) for j in range(nx)]
            boxes = torch.stack(row)[:, None]
            answers = [module(torch.rot90(boxes, k, (-2, -1)))[:, 0] for k in quarters]
            found[i] = torch.stack(answers).mean(0).numpy()
    return found


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch compute each operation in one thread. That is the process's setting, so it is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _workers(threads: int, device: torch.device) -> Iterator[Executor | None]:
    """Threads that each compute alone; new ones take torch's setting over."""
    if device.type != "cpu":
        yield None
        return
    with single_thread():
        if threads == 1:
            yield None
        else:
            with ThreadPoolExecutor(threads, "scan") as pool:
                yield pool
