"""Single autoencoders that the cascade is compared with: the block of the cascade, trained in other ways.

Lei and Yang 2021, sections 4.3 and 4.4: a single denoising autoencoder of the same layers; one that is trained on the
images themselves, with the mean of each image's nearest ones as its target; and a plain one, whose input is its target
and whose innermost values are clustered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .cdae import Block
from .neighbours import find, means
from .rate import set_rate

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How an autoencoder is trained: RMSprop on the mean square error, as the cascade's blocks.

    ``epochs``: passes over the images. ``batch``: images per step. ``rate``: RMSprop's. ``dropout``: probability, in
    the first ``dropped`` of the epochs; the others teach the brightness that images have without (as ``recipes``).
    ``falling``: the rate rises shortly, then falls to 0 like a cosine, as in fine-tunings of the cascade (``tuner``).
    """

    epochs: int = 20
    batch: int = 32
    rate: float = 1e-3
    dropout: float = 0.5
    dropped: float = 0.75
    falling: bool = False
    seed: int = 0


def new_block(seed: int, dropout: float = 0.5) -> Block:
    """A block with random weights from ``seed``; the caller's random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Block(dropout=dropout)


def copy_of(block: Block, dropout: float = 0.5) -> Block:
    """The same block again, to be trained on."""
    other = new_block(0, dropout)
    other.load_state_dict(block.state_dict())
    return other


def fit(
    block: Block, inputs: Floats, targets: Floats, how: FitOptions, what: str, progress: Progress | None = None
) -> Block:
    """Train ``block`` to make ``targets`` of ``inputs``, both (n, s, s); gives it back in evaluation mode."""
    # Few channels: this order of an image's values takes two thirds of the time.
    block = block.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.RMSprop(block.parameters(), lr=how.rate)
    chance = np.random.default_rng([how.seed, 5])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        for epoch in range(how.epochs):
            if epoch >= how.dropped * how.epochs:
                block.eval()
            total = 0.0
            order = chance.permutation(len(inputs))
            for first in range(0, len(order), how.batch):
                rows = order[first : first + how.batch]
                if how.falling:
                    set_rate(optimiser, how.rate, (epoch + first / len(order)) / how.epochs)
                with torch.autocast("cpu", torch.bfloat16):
                    made = block(_tensor(inputs[rows]))
                loss = functional.mse_loss(made.float(), _tensor(targets[rows]))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total += float(loss.detach()) * len(rows)
            if progress:
                progress(f"{what}: loss {total / len(inputs):.4f}", epoch + 1, how.epochs)
    return block.eval()


def tuned(
    block: Block,
    images: Floats,
    how: FitOptions,
    k: int = 30,
    *,
    aligned: bool = False,
    progress: Progress | None = None,
) -> Block:
    """A copy of ``block`` fine-tuned as a block of the cascade is: its target is the mean of its own outputs.

    The mean is over the ``k`` images (n, s, s) whose outputs are most like an image's (section 3.3); ``aligned``: after
    turning and shifting them onto it.
    """
    outputs = run(block, images)
    targets = means(outputs, find(outputs, k, aligned=aligned))
    return fit(copy_of(block, how.dropout), images, targets, how, "tune single autoencoder", progress)


def on_means(images: Floats, how: FitOptions, k: int = 30, progress: Progress | None = None) -> Block:
    """The paper's "DAE": from random weights on the images (n, s, s) alone, its targets means of ``k`` raw images."""
    targets = means(images, find(images, k))
    return fit(new_block(how.seed, how.dropout), images, targets, how, "train on neighbours' means", progress)


def plain(images: Floats, how: FitOptions, progress: Progress | None = None) -> Block:
    """The paper's "CAE": from random weights, images (n, s, s) as input and target."""
    return fit(new_block(how.seed, how.dropout), images, images, how, "train plain autoencoder", progress)


def run(block: Block, images: Floats) -> Floats:
    """What ``block`` makes of images: float32 (n, s, s), in evaluation mode."""
    return _through(block.layers, images)


def latent(block: Block, images: Floats) -> Floats:
    """The innermost values, float32 (n, channels, s / 8, s / 8): what the encoder leaves."""
    deepest = next(i for i, layer in enumerate(block.layers) if isinstance(layer, torch.nn.ConvTranspose2d))
    return _through(block.layers[:deepest], images)


@torch.inference_mode()
def _through(layers: torch.nn.Module, images: Floats) -> Floats:
    ready = layers.eval()
    found = [ready(_tensor(images[i : i + _AT_ONCE])).numpy() for i in range(0, len(images), _AT_ONCE)]
    whole: Floats = np.concatenate(found)
    return whole[:, 0] if whole.shape[1] == 1 else whole


def _tensor(images: Floats) -> Tensor:
    return torch.from_numpy(images)[:, None].contiguous(memory_format=torch.channels_last)
