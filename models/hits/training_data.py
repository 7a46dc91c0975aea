"""The patterns of a training: simulated, split by particle model, on the device, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .conditions import preset
from .dataset import generate_all
from .recipes import Options, Progress
from .resnet10 import compress
from .simulator import SIZE, Patterns, Recipe

HELD_BACK = 1 / 60


@dataclass(frozen=True, slots=True)
class Split:
    """Patterns of particle models that no other part has."""

    train: Patterns
    validation: Patterns
    test: Patterns


def split_by_model(patterns: Patterns) -> Split:
    """The last sixtieth of the particle models (at least one) tests, the sixtieth before validates, the rest trains.

    Models are independent draws, so the last ones are as random as any; that is 58 000/1 000/1 000 of 60 000.
    """
    models = int(patterns.model_id[-1]) + 1
    held = max(1, round(models * HELD_BACK))
    if models < 2 * held + 1:
        raise ValueError(f"{len(patterns)} patterns come from {models} particle models; at least 3 are needed")
    at = np.searchsorted(patterns.model_id, [models - 2 * held, models - held])
    bounds = [0, int(at[0]), int(at[1]), len(patterns)]
    return Split(*(patterns.part(slice(a, b)) for a, b in pairwise(bounds)))


def simulate_for(options: Options, stream: str, n: int, progress: Progress) -> list[Patterns]:
    """One data set per entry of the mix, n patterns in all, each of whole particle models."""
    wanted = []
    for conditions, share in options.mix:
        recipe = Recipe(seed=options.seed, stream=stream, conditions=preset(conditions))
        # The nearest whole number of particle models, but at least enough to split.
        wanted.append((max(3, round(n * share / recipe.per_model)) * recipe.per_model, recipe))
    what = f"simulate patterns for {stream}"
    return generate_all(wanted, options.cache, options.workers, lambda done, of: progress(what, done, of))


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. ``ValueError`` where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: unknown; choose auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"--device {name}: there are {count} CUDA devices here; choose auto or cpu")
    return device


class OnDevice:
    """Patterns that lie on the device once, as 16-bit integers, and come out as float32 (n, 1, 128, 128)."""

    def __init__(self, patterns: Patterns, device: torch.device) -> None:
        # torch cannot index uint16 on every device: the same bits as int16, undone in ``photons``
        self.bits = torch.from_numpy(patterns.images.view(np.int16)).to(device)
        self.labels = torch.from_numpy(patterns.labels.astype(np.int64)).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def photons(self, index: Tensor | slice) -> Tensor:
        """Photons of the chosen patterns."""
        return (self.bits[index].to(torch.int32) & 0xFFFF).to(torch.float32)[:, None]


def normalisation(data: OnDevice, kind: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, 1, 128, 128) of the compressed training images, per pixel.

    The paper brings "the image to zero mean value and unit variance across all training data". Where pixels are all
    but constant the deviation is held at a twentieth of its mean over the image.
    """
    total = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64, device=data.bits.device)
    square = torch.zeros_like(total)
    for at in range(0, len(data), 1024):
        x = compress(data.photons(slice(at, at + 1024)), kind).to(torch.float64)
        total += x.sum(0, keepdim=True)
        square += x.square().sum(0, keepdim=True)
    mean = total / len(data)
    std = (square / len(data) - mean.square()).clamp_min(0).sqrt()
    return mean.float(), std.clamp_min(float(std.mean()) / 20 + 1e-6).float()
