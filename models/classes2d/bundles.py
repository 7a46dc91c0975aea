"""Bundles of denoisers: a cascade with its card written, and a cascade that can be trained on made from a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..bundle import Bundle, BundleError, quiet_torchscript, save_bundle
from .cdae import BLOCKS, Cdae
from .working import EDGE

NORMALISATION = (
    "each particle's image: its box cropped or padded in Fourier space to 64 × 64 pixels, mean 0 and standard "
    "deviation 1 over the whole image (models/classes2d/working.py); particles are white on dark"
)
TRAINED_BY = "beamsieve train classes2d"
LICENCE = "Apache-2.0"
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Of a pixel, in standard deviations of the noisy image, in whose units the answer is."""


def write(
    directory: Path,
    name: str,
    net: Cdae,
    *,
    training: Mapping[str, Any],
    scores: Mapping[str, Any],
    version: str = "1",
    trained_by: str = TRAINED_BY,
    licence: str = LICENCE,
) -> Path:
    """Write ``net`` as a bundle of task ``classes2d`` and return the path of its ``.pt`` file.

    ``training``, ``scores``: free mappings for the card; JSON must hold them. Raises ``OSError`` where ``directory``
    cannot be written.
    """
    ready = Cdae(**shape_of(net.state_dict()))
    ready.load_state_dict(net.state_dict())
    with quiet_torchscript():
        module: torch.jit.ScriptModule = torch.jit.script(ready.eval())
    card = {
        "version": version,
        "task": "classes2d",
        "input": {"name": "particle", "shape": [1, EDGE, EDGE], "dtype": "float32", "normalisation": NORMALISATION},
        "output": {"classes": ["denoised"], "kind": "images"},
        "threshold": 0,
        "training": dict(training),
        "scores": dict(scores),
        "trained_by": trained_by,
        "licence": licence,
        "tolerance": TOLERANCE,
    }
    return save_bundle(directory, name, module, card)


def network(bundle: Bundle, *, dropout: float = 0.0) -> Cdae:
    """The cascade of a bundle as a module that can be trained, with its weights; ``dropout`` is not in them.

    Raises ``BundleError``: ``task`` where it is no denoiser, ``format`` where it is none of this network.
    """
    bundle.expect(task="classes2d", shape=(EDGE, EDGE))
    weights = bundle.module.state_dict()
    try:
        net = Cdae(**shape_of(weights), dropout=dropout)
        net.load_state_dict(weights)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        remedy = "train it with `beamsieve train classes2d`"
        detail = f"{bundle.path}: its weights are not those of a cascade ({error}); {remedy}"
        raise BundleError("format", detail) from error
    return net


def shape_of(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Channels and kernel of a cascade, read off its weights: the arguments of ``Cdae`` but dropout."""
    first = [v for k, v in sorted(weights.items(), key=_place) if k.startswith("blocks.0.") and k.endswith(".weight")]
    if len(first) != 10 or f"blocks.{BLOCKS - 1}.layers.0.weight" not in weights:
        raise ValueError(f"{len(first)} layers in the first block, 10 are needed, and {BLOCKS} blocks")
    return {
        "encoder": tuple(int(first[i].shape[0]) for i in (0, 2, 4)),
        "decoder": tuple(int(first[i].shape[1]) for i in (6, 7, 8)),
        "kernel": int(first[6].shape[-1]),
    }


def _place(item: tuple[str, torch.Tensor]) -> tuple[int, ...]:
    return tuple(int(part) for part in item[0].split(".") if part.isdigit())
