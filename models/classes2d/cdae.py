"""The cascade of denoising autoencoders: three blocks, each of which takes noise off what the one before left.

Lei and Yang, "CDAE: a cascade of denoising autoencoders for noise reduction in the clustering of single-particle
cryo-EM images", Frontiers in Genetics 11 (2021), section 3.5: an encoder of three modules of two convolutions and a
pooling layer, a decoder of three deconvolutions and a convolution that combines 32 channels into one, dropout of 0.5
in both. The other numbers of channels stood in a figure that is not in the text; those below are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

BLOCKS = 3
ENCODER = (8, 16, 32)
DECODER = (32, 16, 32)
KERNEL = 4
DROPOUT = 0.5


class Block(nn.Module):
    """One autoencoder: images (n, 1, e, e) to images of the same shape; e a multiple of 8.

    ``encoder``, ``decoder``: channels of its three modules and of its three deconvolutions. ``kernel``: edge of the
    deconvolutions' kernels, 2, 3 or 4. ``dropout``: share of the values that training drops at the end of the
    encoder and after the first deconvolution; the text says "in the encoder and decoder", and dropping whole pixels of
    the picture nearer to its end leaves little to learn from.
    """

    def __init__(
        self,
        encoder: Sequence[int] = ENCODER,
        decoder: Sequence[int] = DECODER,
        *,
        kernel: int = KERNEL,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        if len(encoder) != 3 or len(decoder) != 3 or min(*encoder, *decoder) < 1:
            raise ValueError(f"channels {tuple(encoder)}, {tuple(decoder)}: give three and three of at least 1")
        if kernel not in {2, 3, 4}:
            raise ValueError(f"kernel: {kernel} does not double an image; use 2, 3 or 4")
        layers: list[nn.Module] = []
        before = 1
        for width in encoder:
            layers += _module(before, width)
            before = width
        # A layer of its own also at 0, so that weights have the same names with and without dropout.
        layers.append(nn.Dropout(dropout))
        for number, width in enumerate(decoder):
            padding, extra = (kernel - 1) // 2, kernel % 2
            layers += [nn.ConvTranspose2d(before, width, kernel, 2, padding, output_padding=extra), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if number == 0 else []
            before = width
        layers.append(nn.Conv2d(before, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        _settle(self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 1, e, e) with less noise, in the units of those given."""
        denoised: Tensor = self.layers(images)
        return denoised


class Cdae(nn.Module):
    """Three blocks in a row. ``forward``: (n, 1, e, e) to (n, 1, e, e); ``blocks`` gives them singly."""

    def __init__(
        self,
        encoder: Sequence[int] = ENCODER,
        decoder: Sequence[int] = DECODER,
        *,
        kernel: int = KERNEL,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(encoder, decoder, kernel=kernel, dropout=dropout) for _ in range(BLOCKS)])

    def forward(self, images: Tensor) -> Tensor:
        """What the last block leaves."""
        for block in self.blocks:
            images = block(images)
        return images

    @torch.no_grad()
    def steps(self, images: Tensor, blocks: int = BLOCKS) -> list[Tensor]:
        """What each of the first ``blocks`` leaves of ``images`` (n, 1, e, e): so many tensors of that shape."""
        found = []
        for block in list(self.blocks)[:blocks]:
            images = block(images)
            found.append(images)
        return found


def _module(before: int, width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


def _settle(layers: nn.Sequential) -> None:
    """He's initialisation (2015), by how many values each output is a sum of; the last layer starts small.

    So the first answers are close to 0, the mean image, which is the best guess of one who knows nothing.
    """
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            edge, doubled = layer.kernel_size[0], isinstance(layer, nn.ConvTranspose2d)
            # A deconvolution of stride 2 adds up a quarter of its kernel at each place.
            summed = layer.in_channels * max(1.0, edge**2 / (4 if doubled else 1))
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / summed))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    last = layers[-1].weight
    assert isinstance(last, Tensor)
    with torch.no_grad():
        last.mul_(0.1)
