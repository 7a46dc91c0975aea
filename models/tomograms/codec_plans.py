"""The ways an autoencoder is run, and the choice among them: the fastest that gives the same codes.

All are float32. bfloat16 would be a tenth faster, and moves codes by a hundredth: into other clusters, now and then.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bundle import BundleError, quiet_torchscript
from . import swift
from .nets import Autoencoder3D

Half = Callable[[Tensor], Tensor]

_ROUNDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """``encode``: sub-volumes (n, 1, e, e, e) to codes (n, codes), ``decode`` the way back; ``piece``: n at a time.

    ``ms_encode``, ``ms_decode``: milliseconds per sub-volume and thread, as measured at the choice.
    """

    name: str
    encode: Half
    decode: Half
    piece: int
    ms_encode: float = float("nan")
    ms_decode: float = float("nan")

    def __str__(self) -> str:
        return f"{self.name}, {self.ms_encode:.2f} ms to encode and {self.ms_decode:.2f} ms to decode a sub-volume"


def plain(net: Autoencoder3D, piece: int) -> Plan:
    """The network as it is."""
    return Plan("as trained", net.encode, net.decode, piece)


def choose(net: Autoencoder3D, batch: int, tolerance: float) -> Plan:
    """The fastest halves on the network's device, of those whose codes and sub-volumes are the plain network's.

    ``tolerance``: of a number, relative to the root mean square of all. On a CPU the plain network is the last resort,
    and is not timed: it is far from the fastest, and a busy machine may mislead. Raises ``BundleError``
    (``tolerance``) where not even that gives on the device what it gives on a CPU.
    """
    device = next(net.parameters()).device
    others = _others(net, min(batch, swift.PIECE)) if device.type == "cpu" else []
    edge, codes = net.axis.shape[0], net.encoder.dense.out_features
    with torch.inference_mode(), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        boxes, code = torch.randn(2 * swift.PIECE, 1, edge, edge, edge), torch.rand(2 * swift.PIECE, codes)
        truth, last = copy.deepcopy(net).cpu(), plain(net, batch)
        first, fast = _fastest([(p, p.encode) for p in others], last, boxes, truth.encode(boxes), device, tolerance)
        second, back = _fastest([(p, p.decode) for p in others], last, code, truth.decode(code), device, tolerance)
    name = first.name if first is second else f"{first.name} and {second.name}"
    return Plan(name, first.encode, second.decode, min(first.piece, second.piece), fast, back)


def _others(net: Autoencoder3D, piece: int) -> list[Plan]:
    last = copy.deepcopy(net).to(memory_format=swift.LAYOUT)  # type: ignore[call-overload]
    made = swift.kernels(last.decoder)

    def decode(codes: Tensor) -> Tensor:
        return swift.decode(last.decoder, codes, made).div(last.gain)

    with quiet_torchscript():
        frozen = torch.jit.optimize_for_inference(torch.jit.script(net), ["encode"])
    return [Plan("channels last", last.encode, decode, piece), Plan("frozen", frozen.encode, decode, piece)]


def _fastest(
    halves: list[tuple[Plan, Half]], last: Plan, given: Tensor, truth: Tensor, device: torch.device, tolerance: float
) -> tuple[Plan, float]:
    """The plan whose half is the fastest of those that agree, and its milliseconds for one; else the ``last``."""
    there = given.to(device)
    agree = [(plan, half) for plan, half in halves if _agrees(half, there, truth, plan.piece, tolerance)]
    if not agree:
        half = last.encode if given.dim() > 2 else last.decode
        if not _agrees(half, there, truth, last.piece, tolerance):
            detail = f"on {device} it does not give what it gives on a CPU, to {tolerance:g}; use --device cpu"
            raise BundleError("tolerance", detail)
        agree = [(last, half)]
    times = [float("inf")] * len(agree)
    # In turns, so that what else the machine does slows all of them.
    for _ in range(_ROUNDS):
        times = [min(least, _time(half, there[: plan.piece])) for least, (plan, half) in zip(times, agree, strict=True)]
    best = times.index(min(times))
    return agree[best][0], 1e3 * times[best]


def _agrees(half: Half, given: Tensor, truth: Tensor, piece: int, tolerance: float) -> bool:
    try:
        answer = torch.cat([half(given[first : first + piece]) for first in range(0, len(given), piece)]).cpu()
    except RuntimeError:
        return False
    scale = float(truth.square().mean().sqrt()) or 1.0
    return float((answer - truth).abs().max()) <= tolerance * scale


def _time(half: Half, given: Tensor) -> float:
    """Seconds for one."""
    began = time.perf_counter()
    half(given).cpu()
    return (time.perf_counter() - began) / len(given)
