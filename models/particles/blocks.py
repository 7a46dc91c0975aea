"""One stage of the scan, block by block: convolution (by FFT where that is faster), activation, average pooling.

All rotations go through a stage together: their kernels are turned, not the micrograph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

_FFT_SIZES = (32, 48, 64, 72, 96, 128, 144, 160, 180, 192, 216, 256, 288, 320, 384, 512, 768, 1024, 1536, 2048)
IN_CACHE = 288
_DIRECT_EDGE = 192


@dataclass(frozen=True, slots=True)
class Stage:
    """Convolution, activation, average pooling, of all rotations.

    ``weight``: (rotations, out, in, k, k), ``bias``: (out,). ``step``: of the pooling. ``act``: ``sigmoid``,
    ``relu`` or nothing. ``dilation``: of the convolution, which is then never done by FFT.
    """

    weight: Tensor
    bias: Tensor
    pool: int
    step: int
    act: str
    dilation: int = 1

    @property
    def reach(self) -> int:
        """How many pixels of the input one of the convolution's output sees, along an axis."""
        return (self.weight.shape[-1] - 1) * self.dilation + 1

    @property
    def by_fft(self) -> bool:
        """Whether an FFT is the faster way: measured on one core, from 4 pixels on for one map, from 8 for more."""
        return self.dilation == 1 and self.weight.shape[-1] >= (4 if self.weight.shape[2] == 1 else 8)

    def out(self, extent: int) -> int:
        """Pixels that ``extent`` become."""
        return (extent - self.reach + 1 - self.pool) // self.step + 1

    def needs(self, count: int) -> int:
        """Pixels of the input that ``count`` pixels of the output need."""
        return (count - 1) * self.step + self.pool + self.reach - 1


def convolve_by_fft(stage: Stage, piece: Tensor, kernels: Tensor, size: int, target: Tensor) -> None:
    """One block: ``piece`` (in, y, x) by ``kernels`` (r, out, in, size, size / 2 + 1) into ``target`` (r, out, …)."""
    ny, nx = (n - stage.reach + 1 for n in piece.shape[-2:])
    maps = torch.fft.rfft2(piece, s=(size, size))
    for turn, kernel in enumerate(kernels):
        mixed = kernel[:, 0] * maps[0]
        for channel in range(1, len(maps)):
            mixed.addcmul_(kernel[:, channel], maps[channel])
        y = torch.fft.irfft2(mixed, s=(size, size))[:, :ny, :nx] + stage.bias[:, None, None]
        target[turn] = _finish(stage, y)


def convolve(stage: Stage, piece: Tensor, turns: slice, target: Tensor) -> None:
    """One block of the rotations ``turns`` without FFT: ``piece`` (in, y, x) into ``target`` (r, out, …)."""
    for turn, weight in enumerate(stage.weight[turns]):
        target[turn] = _finish(stage, functional.conv2d(piece[None], weight, stage.bias, dilation=stage.dilation)[0])


def _finish(stage: Stage, y: Tensor) -> Tensor:
    """Activation and pooling of (out, ny, nx)."""
    if stage.act:
        y = y.relu_() if stage.act == "relu" else y.sigmoid_()
    return functional.avg_pool2d(y, stage.pool, stage.step) if stage.pool > 1 else y


def plan(stage: Stage, ny: int, nx: int, cpu: bool) -> tuple[int, int, int]:
    """Into how many blocks to cut ``ny`` × ``nx`` pixels of output along y and x, and the edge of the transform."""
    if not stage.by_fft:
        edge = _DIRECT_EDGE if cpu else max(ny, nx)
        return math.ceil(ny / edge), math.ceil(nx / edge), 0
    best: tuple[float, int, int, int] | None = None
    for size in _FFT_SIZES:
        most = (size - stage.reach + 1 - stage.pool) // stage.step + 1
        if size < stage.reach + stage.pool - 1 or most < 1:
            continue
        down, across = math.ceil(ny / most), math.ceil(nx / most)
        # Measured: the maps of larger blocks leave a core's cache, and each block costs calls; on a GPU calls weigh.
        each = size**2 * (1.0 if size <= IN_CACHE else 1.7) + 4000 if cpu else size**2 + 1e6
        if best is None or down * across * each < best[0]:
            best = (down * across * each, down, across, size)
    if best is None:
        raise ValueError(f"a kernel of {stage.reach} pixels is too large for the scan")
    return best[1:]


def split(count: int, parts: int) -> list[tuple[int, int]]:
    """(first, number) of ``parts`` ranges that cover ``count``, as equal as can be."""
    ends = [count * part // parts for part in range(parts + 1)]
    return [(a, b - a) for a, b in pairwise(ends)]
