"""Bundles of the two networks: written with their cards, and made into modules that can be trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bundle import Bundle, BundleError, quiet_torchscript, save_bundle
from .nets import CODES, POOLED, Autoencoder3D, Edss3d

VOXEL_A = 14.2
"""Ångström of a voxel at which the networks that ship work: the paper's 3.55 Å, four times binned."""
EDGE = 32
NORMALISATION = (
    "the tomogram rescaled to the voxel size above, density bright, mean 0 and standard deviation 1 over the tomogram; "
    "each sub-volume then mean 0 and standard deviation 1 of itself (models/tomograms/working.py, boxes.py)"
)
SEGMENTED = (
    "the tomogram rescaled to the voxel size above, density bright, mean 0 and standard deviation 1 over the tomogram "
    "(models/tomograms/working.py)"
)
LICENCE = "Apache-2.0"
TRAINED_BY = "beamsieve train tomograms"
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}
"""Of a code, relative to the root mean square of all codes; of a probability, absolute."""


def save_codec(
    directory: Path,
    name: str,
    net: Autoencoder3D,
    *,
    posed: bool,
    voxel_a: float = VOXEL_A,
    training: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    trained_by: str = TRAINED_BY,
    licence: str = LICENCE,
) -> Path:
    """Write an autoencoder as a bundle of kind ``codes`` and return the path of its ``.pt`` file.

    ``posed``: whether it was trained on pose-normalised sub-volumes; ``voxel_a``: Å per voxel of them. ``training``,
    ``scores``: free mappings for the card; JSON must hold them. Raises ``OSError`` where ``directory`` cannot be
    written.
    """
    edge, channels, codes, smooth = codec_shape(net.state_dict())
    ready = Autoencoder3D(edge, channels, codes, smooth)
    ready.load_state_dict(net.state_dict())
    card = _card(
        edge,
        voxel_a,
        NORMALISATION,
        {"classes": [f"code {i + 1}" for i in range(codes)], "kind": "codes"},
        training={"posed": posed, **(training or {})},
        scores=dict(scores or {}),
        trained_by=trained_by,
        licence=licence,
    )
    return save_bundle(directory, name, _script(ready), card)


def save_segmenter(
    directory: Path,
    name: str,
    net: Edss3d,
    classes: Sequence[str],
    *,
    edge: int = EDGE,
    voxel_a: float = VOXEL_A,
    normalisation: str = SEGMENTED,
    training: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    trained_by: str = "beamsieve train segments",
    licence: str = LICENCE,
) -> Path:
    """Write an EDSS3D as a bundle of kind ``voxels``; ``classes`` are names in order, the background first.

    Raises ``ValueError`` for another number of names than the network has classes, ``OSError`` as ``save_codec``.
    """
    channels, count = segmenter_shape(net.state_dict())
    if len(classes) != count:
        raise ValueError(f"classes: {len(classes)} names for a network of {count} classes")
    ready = Edss3d(count, channels)
    ready.load_state_dict(net.state_dict())
    card = _card(
        edge,
        voxel_a,
        normalisation,
        {"classes": list(classes), "kind": "voxels"},
        training=dict(training or {}),
        scores=dict(scores or {}),
        trained_by=trained_by,
        licence=licence,
    )
    return save_bundle(directory, name, _script(ready), card)


def untrained(
    directory: Path,
    name: str = "tomograms-untrained",
    *,
    edge: int = EDGE,
    channels: int = 32,
    codes: int = CODES,
    seed: int = 0,
    posed: bool = False,
    voxel_a: float = VOXEL_A,
) -> Path:
    """An autoencoder with the weights it is born with, from ``seed``, as a bundle: where training has yet to start."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        net = Autoencoder3D(edge, channels, codes)
    told = {"recipe": "none", "seed": seed}
    return save_codec(directory, name, net, posed=posed, voxel_a=voxel_a, training=told, trained_by="not trained")


def codec_network(bundle: Bundle) -> Autoencoder3D:
    """The autoencoder of a bundle as a module that can be trained, with its weights.

    Raises ``BundleError``: ``task`` where it is no autoencoder of tomograms, ``format`` where it is another network.
    """
    expect_kind(bundle, "codes")
    weights = bundle.module.state_dict()
    try:
        net = Autoencoder3D(*codec_shape(weights))
        net.load_state_dict(weights)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise _other(bundle, "an Autoencoder3D", error, "train tomograms") from error
    return net


def segmenter_network(bundle: Bundle) -> Edss3d:
    """The EDSS3D of a bundle; raises ``BundleError`` as ``codec_network``."""
    expect_kind(bundle, "voxels")
    weights = bundle.module.state_dict()
    try:
        channels, classes = segmenter_shape(weights)
        net = Edss3d(classes, channels)
        net.load_state_dict(weights)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise _other(bundle, "an EDSS3D", error, "train segments") from error
    return net


def expect_kind(bundle: Bundle, kind: str) -> Bundle:
    """The bundle, if it is of tomograms and gives ``codes`` or ``voxels``; else ``BundleError`` (``task``)."""
    bundle.expect(task="tomograms")
    if bundle.card.output.kind != kind:
        made = {"codes": "an autoencoder (`beamsieve train tomograms`)"}
        needed = made.get(kind, "a segmentation (`beamsieve train segments`)")
        detail = f"{bundle.path}: it gives {bundle.card.output.kind}, needed is {needed}"
        raise BundleError("task", detail)
    return bundle


def codec_shape(weights: Mapping[str, Tensor]) -> tuple[int, int, int, float]:
    """Edge, channels, length of the code and smoothing of an autoencoder, read off its weights."""
    codes, pooled = weights["encoder.dense.weight"].shape
    channels = weights["encoder.first.weight"].shape[0]
    return POOLED * round((pooled / channels) ** (1 / 3)), channels, codes, float(weights["smooth"])


def segmenter_shape(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Channels and number of classes of an EDSS3D."""
    return weights["first.weight"].shape[0], weights["last.weight"].shape[0]


def _card(
    edge: int, voxel_a: float, normalisation: str, output: Mapping[str, object], **rest: object
) -> dict[str, object]:
    taken = {
        "name": "sub-volume",
        "shape": [1, edge, edge, edge],
        "dtype": "float32",
        "normalisation": normalisation,
        "pixel_a": voxel_a,
    }
    fixed = {"version": "1", "task": "tomograms", "threshold": 0, "tolerance": TOLERANCE}
    return {**fixed, "input": taken, "output": output, **rest}


def _script(net: nn.Module) -> torch.jit.ScriptModule:
    with quiet_torchscript():
        module: torch.jit.ScriptModule = torch.jit.script(net.eval())
    return module


def _other(bundle: Bundle, needed: str, error: Exception, command: str) -> BundleError:
    said = str(error).splitlines()[0][:120]
    detail = f"{bundle.path}: its weights are not those of {needed} ({said}); train it with `beamsieve {command}`"
    return BundleError("format", detail)
