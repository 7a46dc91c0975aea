"""How EDSS3D is run: in float32 or bfloat16, the fastest that agrees with the network as trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from ..bundle import Bundle, BundleError
from ..plans import measure
from .nets import Edss3d
from .volume import Floats

_TRIAL = 48
_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A network on its device; called with a window (z, y, x), it gives float32 (classes, z, y, x)."""

    net: nn.Module = field(repr=False)
    dtype: torch.dtype
    device: torch.device
    ms: float = float("nan")

    def __call__(self, box: Floats) -> Floats:
        """Any thread."""
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(box, np.float32))[None, None].to(self.device, self.dtype)
            # The soft-max in float32: in bfloat16 the probabilities of a voxel would not add up to 1.
            found = torch.softmax(self.net.logits(given)[0].float(), 0)  # type: ignore[operator]
            answer: Floats = found.cpu().numpy()
        return answer

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}, {self.ms:.1f} ms per 32³ voxels and thread"


def choose(net: Edss3d, bundle: Bundle, device: torch.device) -> Plan:
    """The fastest plan within the tolerance on the card; raises ``BundleError`` (``tolerance``)."""
    box = np.random.default_rng(0).standard_normal((_TRIAL, _TRIAL, _TRIAL)).astype(np.float32)
    truth = Plan(net.to("cpu"), torch.float32, torch.device("cpu"))(box)
    found, differs = [], []
    for dtype in _DTYPES:
        plan = Plan(_copy(net, dtype, device), dtype, device)
        difference = float(np.abs(plan(box) - truth).max())
        differs.append(f"{plan.dtype}: {difference:.1e}")
        if difference <= getattr(bundle.card.tolerance, str(dtype).removeprefix("torch.")):
            ms = 1e3 * measure(partial(plan, box)) * (32 / _TRIAL) ** 3
            found.append(Plan(plan.net, dtype, device, ms))
    if not found:
        raise BundleError(
            "tolerance", f"{bundle.path}: on {device} its probabilities are not those of a CPU ({'; '.join(differs)})"
        )
    return min(found, key=lambda plan: plan.ms)


def _copy(net: Edss3d, dtype: torch.dtype, device: torch.device) -> nn.Module:
    copied = Edss3d(net.last.out_channels, net.first.out_channels)
    copied.load_state_dict(net.state_dict())
    layout: nn.Module = copied.eval().to(device, dtype).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return layout
