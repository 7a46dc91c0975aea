"""The weights that the training of a segmentation begins with: random ones, or what another network has learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..bundle import Bundle
from .bundles import codec_network, segmenter_network
from .nets import Edss3d

TRUTH = "truth of simulated tomograms"
"""What the card of a network says of its labels that was trained on simulated tomograms."""


def begun(net: Edss3d) -> Edss3d:
    """The network with weights to begin with: He's for layers behind which a ReLU halves the variance, no biases.

    torch's own keep a sixth of the variance per layer: of what the input says, the sixth layer then sees next to
    nothing, and training stands still for epochs that a session does not have.
    """
    for layer in net.children():
        assert isinstance(layer, torch.nn.Conv3d)
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        torch.nn.init.zeros_(_bias(layer))
    return net


def begin_with(net: Edss3d, bundle: Bundle, classes: Sequence[str]) -> None:
    """Give ``net`` what a bundle has learned.

    Of an autoencoder its two first layers, which are those of EDSS3D as well; of a segmentation all hidden layers, and
    the last one's filters of those ``classes`` that it knows. Not so where it was trained on the truth of simulated
    tomograms: what a class is, a session's marks say, whatever they are called. Raises ``BundleError`` where it is
    neither, ``ValueError`` where its layers have another width.
    """
    if bundle.card.output.kind == "codes":
        codec = codec_network(bundle)
        _copy({"first": codec.encoder.first, "second": codec.encoder.second}, net, bundle)
        return
    other = segmenter_network(bundle)
    _copy({name: getattr(other, name) for name in ("first", "second", "third", "fourth", "fifth")}, net, bundle)
    if bundle.card.training.get("labels") == TRUTH:
        return
    known = bundle.card.output.classes
    with torch.no_grad():
        for row, name in enumerate(classes):
            if name in known:
                net.last.weight[row] = other.last.weight[known.index(name)]
                _bias(net.last)[row] = _bias(other.last)[known.index(name)]


def _copy(layers: Mapping[str, torch.nn.Conv3d], net: Edss3d, bundle: Bundle) -> None:
    for name, layer in layers.items():
        mine = getattr(net, name)
        if mine.weight.shape != layer.weight.shape:
            raise ValueError(
                f"{bundle.path}: its layers have {len(layer.weight)} channels, needed are {len(mine.weight)}"
            )
        mine.load_state_dict(layer.state_dict())


def _bias(layer: torch.nn.Conv3d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
