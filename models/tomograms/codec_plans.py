"""The ways an autoencoder is run, and the choice among them: the fastest that gives the same codes.

All are float32. bfloat16 would be a tenth faster, and moves codes by a hundredth: into other clusters, now and then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bundle import BundleError, quiet_torchscript
from ..plans import measure
from . import swift
from .nets import Autoencoder3D

Half = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """``encode``: sub-volumes (n, 1, e, e, e) to codes (n, codes), ``decode`` the way back; ``piece``: n at a time.

    ``ms_encode``, ``ms_decode``: milliseconds per sub-volume, as measured at the choice.
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

    ``tolerance``: of a number, relative to the root mean square of all. Raises ``BundleError`` (``tolerance``) where
    not even the plain network gives on the device what it gives on a CPU.
    """
    device = next(net.parameters()).device
    plans = [plain(net, batch), *(_others(net, min(batch, swift.PIECE)) if device.type == "cpu" else ())]
    edge, codes = net.axis.shape[0], net.encoder.dense.out_features
    with torch.inference_mode(), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        boxes, code = torch.randn(2 * swift.PIECE, 1, edge, edge, edge), torch.rand(2 * swift.PIECE, codes)
        truth = copy.deepcopy(net).cpu()
        encodes = [(_time(p.encode, boxes, truth.encode(boxes), p.piece, device, tolerance), p) for p in plans]
        decodes = [(_time(p.decode, code, truth.decode(code), p.piece, device, tolerance), p) for p in plans]
    (fast, first), (back, second) = (min(some, key=lambda pair: pair[0]) for some in (encodes, decodes))
    if float("inf") in (fast, back):
        detail = f"on {device} it does not give what it gives on a CPU, to {tolerance:g}; use --device cpu"
        raise BundleError("tolerance", detail)
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


def _time(half: Half, given: Tensor, truth: Tensor, piece: int, device: torch.device, tolerance: float) -> float:
    """Milliseconds of one, infinite where the answer is another."""
    there = given.to(device)
    try:
        pieces = [there[first : first + piece] for first in range(0, len(there), piece)]
        answer = torch.cat([half(some) for some in pieces]).cpu()
        scale = float(truth.square().mean().sqrt()) or 1.0
        if not float((answer - truth).abs().max()) <= tolerance * scale:
            return float("inf")
        some = there[:piece]
        return 1e3 * measure(lambda: half(some).cpu()) / len(some)
    except RuntimeError:
        return float("inf")
