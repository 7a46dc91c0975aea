"""How EDSS3D is run: in float32 or bfloat16, the fastest that agrees with the network as trained.

Its two convolutions behind an up-sampling are computed as transposed ones from the maps before it (``swift.doubling``):
a third of the work, and no doubled maps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..bundle import Bundle, BundleError
from ..plans import measure
from . import swift
from .nets import Edss3d
from .volume import Floats

_TRIAL = 48
_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A network on its device; called with a window (z, y, x), it gives float32 (classes, z, y, x)."""

    net: Edss3d = field(repr=False)
    kernels: tuple[Tensor, Tensor] = field(repr=False)
    dtype: torch.dtype
    device: torch.device
    ms: float = float("nan")

    def __call__(self, box: Floats) -> Floats:
        """Any thread."""
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(box, np.float32))[None, None].to(self.device, self.dtype)
            # The soft-max in float32: in bfloat16 the probabilities of a voxel would not add up to 1.
            found = torch.softmax(logits(self.net, given, self.kernels)[0].float(), 0)
            answer: Floats = found.cpu().numpy()
        return answer

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}, {self.ms:.1f} ms per 32³ voxels and thread"


def logits(net: Edss3d, boxes: Tensor, made: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """What ``net.logits`` gives, to rounding; ``made``: ``kernels(net)``, where its weights do not change."""
    fourth, fifth = made or kernels(net)
    maps = functional.relu(functional.max_pool3d(net.first(boxes), 2))
    maps = functional.relu(functional.max_pool3d(net.second(maps), 2))
    maps = functional.relu(net.third(maps))
    maps = functional.relu(functional.conv_transpose3d(maps, fourth, net.fourth.bias, 2, 1))
    maps = functional.relu(functional.conv_transpose3d(maps, fifth, net.fifth.bias, 2, 1))
    found: Tensor = net.last(maps)
    return found


def kernels(net: Edss3d) -> tuple[Tensor, Tensor]:
    """Of the convolutions behind up-samplings, the fourth and the fifth; gradients flow through them."""
    fourth, fifth = (
        swift.doubling(layer.weight).contiguous(memory_format=swift.LAYOUT) for layer in (net.fourth, net.fifth)
    )
    return fourth, fifth


def choose(net: Edss3d, bundle: Bundle, device: torch.device) -> Plan:
    """The fastest plan within the tolerance on the card; raises ``BundleError`` (``tolerance``)."""
    box = np.random.default_rng(0).standard_normal((_TRIAL, _TRIAL, _TRIAL)).astype(np.float32)
    with torch.inference_mode():
        truth = net.to("cpu")(torch.from_numpy(box)[None, None])[0].numpy()
    found, differs = [], []
    for dtype in _DTYPES:
        plan = _plan(net, dtype, device)
        difference = float(np.abs(plan(box) - truth).max())
        differs.append(f"{dtype}: {difference:.1e}")
        if difference <= getattr(bundle.card.tolerance, str(dtype).removeprefix("torch.")):
            found.append(replace(plan, ms=1e3 * measure(partial(plan, box)) * (32 / _TRIAL) ** 3))
    if not found:
        raise BundleError(
            "tolerance", f"{bundle.path}: on {device} its probabilities are not those of a CPU ({'; '.join(differs)})"
        )
    return min(found, key=lambda plan: plan.ms)


def _plan(net: Edss3d, dtype: torch.dtype, device: torch.device) -> Plan:
    copied = Edss3d(net.last.out_channels, net.first.out_channels)
    copied.load_state_dict(net.state_dict())
    copied.eval().to(device, dtype).to(memory_format=swift.LAYOUT)  # type: ignore[call-overload]
    with torch.no_grad():
        return Plan(copied, kernels(copied), dtype, device)
