"""The published networks computed another way: the same numbers to rounding, in a fraction of the time on a CPU.

A convolution of an image whose voxels were doubled reads the same voxel many times. Its kernel of three, laid over
doubled voxels, is one of four over single ones with stride two, a transposed convolution; or eight kernels, for
the eight new voxels of an old one (the phases). Neither makes the doubled image. Zeros around stay what they were.
Both are computed from the layer's own weights, so that they can also be trained through.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .nets import Decoder3D

LAYOUT = torch.channels_last_3d
PIECE = 4
"""Sub-volumes at a time. More of them make feature maps of 32 MiB and above, which the C library takes from the system
anew each time: torch then mostly waits for pages to be zeroed."""


def doubling(weight: Tensor) -> Tensor:
    """The kernel (i, o, 4, 4, 4) of a transposed convolution, stride 2 and padding 1, that doubles and convolves.

    ``weight``: (o, i, 3, 3, 3), of the convolution that would follow a doubling by nearest voxels.
    """
    kernel = weight.flip(2, 3, 4)
    for pads in ((0, 1), (0, 0, 0, 1), (0, 0, 0, 0, 0, 1)):
        other = tuple(reversed(pads[-2:]))
        kernel = functional.pad(kernel, pads) + functional.pad(kernel, (*pads[:-2], *other))
    return kernel.transpose(0, 1)


def phases(weight: Tensor) -> Tensor:
    """The kernels (8 · o, i, 3, 3, 3) of the same: outputs of the phase (z, y, x) = (0, 0, 0) first, then (0, 0, 1)."""
    found = []
    for phase in itertools.product((0, 1), repeat=3):
        kernel = weight
        for axis, odd in zip((2, 3, 4), phase, strict=True):
            before, middle, after = kernel.unbind(axis)
            none = torch.zeros_like(before)
            parts = [none, before + middle, after] if odd else [before, middle + after, none]
            kernel = torch.stack(parts, axis)
        found.append(kernel)
    return torch.cat(found)


def interleaved(maps: Tensor) -> Tensor:
    """Phases (n, 8, z, y, x) put together: (n, 1, 2 z, 2 y, 2 x)."""
    n, _, z, y, x = maps.shape
    apart = maps.reshape(n, 2, 2, 2, z, y, x).permute(0, 4, 1, 5, 2, 6, 3)
    return apart.reshape(n, 1, 2 * z, 2 * y, 2 * x)


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """Kernels of a decoder: ``second`` for a transposed convolution, ``last`` of the eight phases and its bias."""

    second: Tensor
    last: Tensor
    bias: Tensor


def kernels(decoder: Decoder3D) -> Kernels:
    """Those of a decoder as it is now; gradients flow through them to its weights."""
    assert decoder.last.bias is not None
    return Kernels(
        doubling(decoder.second.weight).contiguous(memory_format=LAYOUT),
        phases(decoder.last.weight).contiguous(memory_format=LAYOUT),
        decoder.last.bias.repeat(8),
    )


def decode(decoder: Decoder3D, codes: Tensor, made: Kernels) -> Tensor:
    """What ``Decoder3D`` gives for codes (n, codes), with ``made`` its ``kernels``."""
    n = decoder.small
    maps = functional.relu(decoder.dense(codes)).reshape(-1, decoder.channels, n, n, n)
    maps = functional.relu(decoder.first(maps.contiguous(memory_format=LAYOUT)))
    maps = functional.conv_transpose3d(maps, made.second, decoder.second.bias, 2, 1)
    return interleaved(functional.conv3d(functional.relu(maps), made.last, made.bias, padding=1))
