"""The ways to run one TorchScript module, tried and measured against plain float32 on the CPU.

Which way is the fastest depends on the processor and on the network, so nobody has to know: each is timed at start, and
only those are eligible whose probabilities agree with the plain module to the tolerance on the model's card.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from .bundle import quiet_torchscript
from .card import Card

Forward: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
DTYPES = ("float32", "bfloat16")
_LARGEST = {"uint8": 255, "int16": 32767, "uint16": 65535, "int32": 2**31 - 1, "float32": 2**24}


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run a module: in ``dtype``, and ``how``.

    ``plain``: as it was loaded. ``frozen``: parameters become constants, channels last. ``fused``: also with
    batch norm folded into convolutions and weights in the order that oneDNN or cuDNN like. ``autocast``: frozen, and
    torch chooses the dtype of each operation. ``cast``: the input, too, is converted; a module that does not convert it
    itself needs that, one that does is more exact without.
    """

    dtype: str
    how: str
    cast: bool = False

    def __str__(self) -> str:
        return f"{self.dtype} {self.how}{' input' if self.cast else ''}"

    def suits(self, card: Card) -> bool:
        """Whether it may be tried on a module of this card.

        What a picker or a denoiser takes is normalised before it, so it converts nothing itself, and torch 2.13 does
        not refuse a batch of float32 for convolutions in bfloat16: the process dies.
        """
        return (
            card.task not in ("particles", "classes2d")
            or self.dtype == "float32"
            or self.cast
            or self.how == "autocast"
        )


PLAIN = Plan("float32", "plain")
PLANS = (
    PLAIN,
    Plan("float32", "frozen"),
    Plan("float32", "fused"),
    Plan("bfloat16", "frozen"),
    Plan("bfloat16", "fused"),
    Plan("bfloat16", "frozen", cast=True),
    Plan("bfloat16", "fused", cast=True),
    Plan("bfloat16", "autocast"),
)


def compile_plan(plan: Plan, card: Card, module: torch.jit.ScriptModule, device: torch.device) -> Forward:
    """Give the function (n, …shape) of the card's dtype on ``device`` -> float32 probabilities (n, classes).

    Raises ``RuntimeError`` where torch cannot run the module this way. The module itself is not changed.
    """
    with quiet_torchscript():
        forward = _optimise(plan, copy.deepcopy(module).to(device))
    logits = card.output.kind == "logits"

    def run(batch: torch.Tensor) -> torch.Tensor:
        answer = forward(batch.to(torch.bfloat16) if plan.cast else batch).float()
        return torch.softmax(answer, dim=1) if logits else answer

    if plan.how != "autocast":
        return run

    def run_autocast(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            answer = forward(batch).float()
        return torch.softmax(answer, dim=1) if logits else answer

    return run_autocast


def _optimise(plan: Plan, module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    if plan.how == "plain":
        return module
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if plan.dtype == "bfloat16" and plan.how != "autocast":
        module = module.to(torch.bfloat16)
    frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
    return torch.jit.optimize_for_inference(frozen) if plan.how == "fused" else frozen


def measure(call: Callable[[], object], repeats: int = 5, budget_s: float = 0.5) -> float:
    """Seconds that a call takes, which returns when all is done: the shortest of ``repeats``, after two not counted.

    Fewer repeats where they do not fit into ``budget_s``, so that a slow or busy machine is ready in time.
    """
    best, first = float("inf"), time.perf_counter()
    for i in range(repeats + 2):
        began = time.perf_counter()
        call()
        now = time.perf_counter()
        if i >= 2:
            best = min(best, now - began)
            if now - first > budget_s:
                break
    return best


def trial(card: Card, count: int) -> torch.Tensor:
    """What to try a model of this card on, (count, …shape): noise of s.d. 1 where it denoises, else photon counts."""
    if card.output.kind == "images":
        rng = np.random.default_rng(0)
        return torch.from_numpy(rng.standard_normal((count, *card.input.shape), np.float32))
    return sample(card.input.shape, card.input.dtype, count)


def sample(shape: tuple[int, ...], dtype: str, count: int, seed: int = 0) -> torch.Tensor:
    """Photon counts to try a model on, (count, …shape): speckle |FFT|² of random blobs, 1 to 10⁵ photons, Poisson.

    They look enough like diffraction for rounding errors to show; they say nothing about accuracy.
    """
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(-0.5, 0.5, extent) for extent in (1, *shape)[-2:])
    frames = np.empty((count, *shape), np.float32)
    for frame in frames:
        blobs = np.zeros((y.size, x.size))
        for _ in range(3):
            (cy, cx), width = rng.uniform(-0.08, 0.08, 2), rng.uniform(0.01, 0.05)
            blobs += np.exp(-(((y[:, None] - cy) / width) ** 2) - ((x - cx) / width) ** 2)
        speckle = np.fft.fftshift(np.abs(np.fft.fft2(blobs)) ** 2)
        photons = 10 ** rng.uniform(0, 5)
        frame[...] = np.minimum(rng.poisson(speckle * (photons / speckle.sum()), frame.shape), _LARGEST[dtype])
    return torch.from_numpy(frames).to(getattr(torch, dtype))
