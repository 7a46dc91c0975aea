"""Networks to train: new ones, ones to go on from, and how they score many boxes at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..bundle import load_bundle
from .deepem import DeepEM, Layout, layout_of
from .recipes import Options


def fresh(options: Options, layout: Layout) -> DeepEM:
    """A network to train: new weights from the seed, or those of the bundle ``options.start``.

    New weights are uniform within ±√(6 / (inputs + outputs)) of a kernel, biases zero, as the toolbox draws them that
    the paper's program was built on (DeepLearnToolbox, ``cnnsetup``). (The paper's text says between 0 and 1: with
    kernels of hundreds of positive weights every sigmoid answers 1, and nothing is learnt.) Raises ``BundleError`` for
    a bundle that cannot be read, ``ValueError`` for one of another layout.
    """
    torch.manual_seed(options.seed)
    if options.start is not None:
        return _continued(options.start, layout)
    net = DeepEM(layout, activation=options.activation, batch_norm=options.batch_norm)
    for part in (net.conv1, net.conv2, net.conv3, net.fc):
        torch.nn.init.xavier_uniform_(part.weight)
        assert part.bias is not None
        torch.nn.init.zeros_(part.bias)
    return net


def _continued(start: str, layout: Layout) -> DeepEM:
    bundle = load_bundle(start).expect(task="particles")
    if layout_of(bundle.module) != layout:
        raise ValueError(
            f"{bundle.path}: its layout is {layout_of(bundle.module)}, wanted is {layout}; "
            "leave box, preset, maps and pixel size to it"
        )
    net = DeepEM(layout, activation="relu" if bundle.module.relu else "sigmoid")
    net.load_state_dict(bundle.module.state_dict())
    return net


@torch.no_grad()
def unfolded(net: DeepEM, images: Tensor) -> DeepEM:
    """The inverse of ``folded``: the same function, with batch normalisations whose statistics are those of ``images``.

    A network learns far better with them; ones that start with mean 0 and variance 1 would change what it answers.
    """
    found = DeepEM(layout_of(net), activation="relu" if net.relu else "sigmoid", batch_norm=True).eval()
    found.load_state_dict(net.state_dict(), strict=False)
    x = images
    for at in (1, 2, 3):
        conv, norm, pool = (getattr(found, f"{part}{at}") for part in ("conv", "norm", "pool"))
        maps = conv(x)
        norm.running_mean.copy_(maps.mean((0, 2, 3)))
        norm.running_var.copy_(maps.var((0, 2, 3)))
        norm.bias.copy_(norm.running_mean)
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
        x = functional.avg_pool2d(found.act(norm(maps)), pool)
    return found


def logits(net: DeepEM, x: Tensor) -> Tensor:
    """Logits (n, 1, i, j) of all boxes one stride apart in images (n, 1, y, x); (n, 1, 1, 1) for single boxes."""
    x = functional.avg_pool2d(net.act(net.norm1(net.conv1(x))), net.pool1)
    x = functional.avg_pool2d(net.act(net.norm2(net.conv2(x))), net.pool2)
    x = functional.avg_pool2d(net.act(net.norm3(net.conv3(x))), net.pool3)
    last = math.isqrt(net.fc.in_features // x.shape[1])
    return functional.conv2d(x, net.fc.weight.reshape(1, -1, last, last), net.fc.bias)
