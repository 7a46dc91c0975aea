"""DeepEM's network: three times convolution, activation, average pooling; then one fully connected sigmoid.

Zhu, Ouyang, Mao, "A deep convolutional neural network approach to single-particle recognition in cryo-electron
microscopy" (2017), Fig. 1 and Table 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS = ("sigmoid", "relu")
MAPS = (6, 12, 12)


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of a DeepEM network for boxes of ``box`` pixels. Raises ``ValueError`` where they do not divide."""

    box: int
    kernels: tuple[int, int, int]
    pools: tuple[int, int, int]
    maps: tuple[int, int, int] = MAPS

    def __post_init__(self) -> None:
        size = self.box
        for at, (kernel, pool) in enumerate(zip(self.kernels, self.pools, strict=True), 1):
            size = size - kernel + 1
            if size < pool or size % pool:
                raise ValueError(
                    f"box {self.box}: convolution {at} leaves {size} pixels, which pools of {pool} do not divide"
                )
            size //= pool

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of C1, S2, C3, S4, C5, S6 in pixels."""
        found: list[int] = []
        for kernel, pool in zip(self.kernels, self.pools, strict=True):
            found.append((found[-1] if found else self.box) - kernel + 1)
            found.append(found[-1] // pool)
        return tuple(found)

    @property
    def stride(self) -> int:
        """Total stride: the product of the pools."""
        return math.prod(self.pools)


PRESETS: Mapping[str, Layout] = MappingProxyType(
    {
        "klh": Layout(272, (51, 21, 10), (3, 2, 2)),
        "19s": Layout(160, (20, 10, 4), (3, 2, 2)),
        "26s": Layout(150, (31, 15, 10), (2, 2, 2)),
        "inflammasome": Layout(112, (15, 10, 7), (2, 2, 2)),
    }
)
LARGE_BOX = 160
SMALLEST_BOX = 24


def layout_for(box: int, maps: tuple[int, int, int] = MAPS) -> Layout:
    """The layout of any box: a published one where its box is this one, else by a rule.

    Pools are 2, 2, 2, or 3, 2, 2 from 160 pixels on. Kernels are as close as divisibility allows to those of the preset
    of the same pools whose box is nearest, scaled with the box (at least 3, 3, 2). Raises ``ValueError`` for a box that
    no kernels fit.
    """
    for preset in PRESETS.values():
        if preset.box == box:
            return Layout(box, preset.kernels, preset.pools, maps)
    if box < SMALLEST_BOX:
        raise ValueError(f"box {box}: DeepEM needs at least {SMALLEST_BOX} pixels; use a smaller pixel size")
    pools = (3, 2, 2) if box >= LARGE_BOX else (2, 2, 2)
    nearest = min((p for p in PRESETS.values() if p.pools == pools), key=lambda p: abs(p.box - box))
    wanted = [max(least, k * box / nearest.box) for k, least in zip(nearest.kernels, (3, 3, 2), strict=True)]
    fits: list[tuple[float, Layout]] = []
    for first in _around(wanted[0], 3):
        for second in _around(wanted[1], 3):
            for third in _around(wanted[2], 2):
                try:
                    layout = Layout(box, (first, second, third), pools, maps)
                except ValueError:
                    continue
                off = sum(abs(math.log(k / w)) for k, w in zip(layout.kernels, wanted, strict=True))
                fits.append((off, layout))
    if not fits:
        raise ValueError(f"box {box}: no kernels fit; use a box a few pixels larger")
    return min(fits, key=lambda fit: (fit[0], fit[1].kernels))[1]


def _around(value: float, least: int) -> range:
    return range(max(least, math.floor(value) - 4), math.ceil(value) + 5)


class DeepEM(nn.Module):
    """Scores boxes: (n, 1, box, box) float32 to (n, 1), the probability that a particle is in the middle.

    ``activation`` is ``sigmoid`` (published) or ``relu``. With ``batch_norm`` each convolution is followed by batch
    normalisation while it trains; ``folded`` takes it away again.
    """

    def __init__(self, layout: Layout, *, activation: str = "sigmoid", batch_norm: bool = False) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        one, two, three = layout.maps
        self.conv1 = nn.Conv2d(1, one, layout.kernels[0], bias=True)
        self.conv2 = nn.Conv2d(one, two, layout.kernels[1], bias=True)
        self.conv3 = nn.Conv2d(two, three, layout.kernels[2], bias=True)
        self.norm1: nn.Module = nn.BatchNorm2d(one) if batch_norm else nn.Identity()
        self.norm2: nn.Module = nn.BatchNorm2d(two) if batch_norm else nn.Identity()
        self.norm3: nn.Module = nn.BatchNorm2d(three) if batch_norm else nn.Identity()
        self.fc = nn.Linear(three * layout.sizes[-1] ** 2, 1)
        self.box: int = layout.box
        self.pool1, self.pool2, self.pool3 = layout.pools
        self.relu: bool = activation == "relu"

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (n, 1)."""
        return torch.sigmoid(self.logits(x))

    @torch.jit.export
    def logits(self, x: Tensor) -> Tensor:
        """What the last sigmoid is given, (n, 1)."""
        x = nn.functional.avg_pool2d(self.act(self.norm1(self.conv1(x))), self.pool1)
        x = nn.functional.avg_pool2d(self.act(self.norm2(self.conv2(x))), self.pool2)
        x = nn.functional.avg_pool2d(self.act(self.norm3(self.conv3(x))), self.pool3)
        scores: Tensor = self.fc(x.flatten(1))
        return scores

    def act(self, x: Tensor) -> Tensor:
        """The activation."""
        return torch.relu(x) if self.relu else torch.sigmoid(x)


def layout_of(module: Any) -> Layout:
    """The layout of a ``DeepEM`` or of a scripted one, from its weights and pools. Raises ``ValueError`` for others."""
    try:
        weights = [getattr(module, name).weight for name in ("conv1", "conv2", "conv3")]
        pools = (int(module.pool1), int(module.pool2), int(module.pool3))
        kernels = (int(weights[0].shape[-1]), int(weights[1].shape[-1]), int(weights[2].shape[-1]))
        maps = (int(weights[0].shape[0]), int(weights[1].shape[0]), int(weights[2].shape[0]))
        return Layout(int(module.box), kernels, pools, maps)
    except AttributeError as error:
        raise ValueError(f"not a DeepEM network: {error}") from error


@torch.no_grad()
def folded(net: DeepEM) -> DeepEM:
    """The same network in evaluation mode, its batch normalisations folded into the convolutions before them."""
    plain = DeepEM(layout_of(net), activation="relu" if net.relu else "sigmoid")
    plain.fc.load_state_dict(net.fc.state_dict())
    for at in (1, 2, 3):
        conv, norm, target = getattr(net, f"conv{at}"), getattr(net, f"norm{at}"), getattr(plain, f"conv{at}")
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            target.weight.copy_(conv.weight * scale[:, None, None, None])
            target.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
        else:
            target.load_state_dict(conv.state_dict())
    return plain.eval()
