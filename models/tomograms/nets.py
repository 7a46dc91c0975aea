"""The two networks of Zeng et al. (2018), section 2 and figure 2: Autoencoder3D, and EDSS3D for segmentation.

Layers are the published ones: 3 x 3 x 3 convolutions with zeros around, 2 x 2 x 2 max-pooling, nearest up-sampling,
ReLU after every hidden layer and after the code. The paper gives 32 filters for the autoencoder's layers, and not how
EDSS3D's layers are placed: here each pool and each up-sampling stands between two of its five convolutions, so that the
fifth works at full size.

One thing is not published: an autoencoder may smooth sub-volumes by a fixed Gaussian first. A code of 32 numbers cannot
hold what is finer, but noise of a tomogram is mostly there, and hides from training what there is to learn.
"""

# No annotations from __future__: TorchScript reads those of attributes, and wants types there, not their names.
import torch
from torch import Tensor, nn
from torch.nn import functional

CODES = 32
"""Numbers in a code."""
CHANNELS = 32
"""Filters of each hidden convolution."""
POOLED = 4
"""Edges are divided by this on the way through, so that they must be multiples of it."""


def checked_edge(edge: int) -> int:
    """``edge``; raises ``ValueError`` where two poolings by 2 do not fit it."""
    if edge < POOLED or edge % POOLED:
        raise ValueError(f"edge: {edge} voxels; the network needs a multiple of {POOLED}")
    return edge


def _conv(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, 3, padding=1)


def _pooled(maps: Tensor) -> Tensor:
    # The ReLU after the pool is the ReLU before it, on an eighth of the voxels.
    return functional.relu(functional.max_pool3d(maps, 2))


def _doubled(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2.0, mode="nearest")


class Encoder3D(nn.Module):
    """Sub-volumes (n, 1, e, e, e) to codes (n, ``codes``), none of them negative; float32.

    ``edge``: e, a multiple of 4 (``ValueError``); it fixes the size of the dense layer.
    """

    def __init__(self, edge: int = 32, channels: int = CHANNELS, codes: int = CODES) -> None:
        super().__init__()
        self.first = _conv(1, channels)
        self.second = _conv(channels, channels)
        self.dense = nn.Linear(channels * (checked_edge(edge) // POOLED) ** 3, codes)

    def forward(self, boxes: Tensor) -> Tensor:
        """See the class."""
        return functional.relu(self.before(boxes))

    def before(self, boxes: Tensor) -> Tensor:
        """The code before its ReLU."""
        maps = _pooled(self.second(_pooled(self.first(boxes))))
        found: Tensor = self.dense(maps.flatten(1))
        return found


class Decoder3D(nn.Module):
    """Codes (n, ``codes``) to sub-volumes (n, 1, e, e, e), float32: the encoder mirrored, the output linear."""

    def __init__(self, edge: int = 32, channels: int = CHANNELS, codes: int = CODES) -> None:
        super().__init__()
        self.channels = channels
        self.small = checked_edge(edge) // POOLED
        self.dense = nn.Linear(codes, channels * self.small**3)
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels)
        self.last = _conv(channels, 1)

    def forward(self, codes: Tensor) -> Tensor:
        """See the class."""
        n = self.small
        maps = functional.relu(self.dense(codes)).reshape(-1, self.channels, n, n, n)
        maps = _doubled(functional.relu(self.first(maps)))
        maps = _doubled(functional.relu(self.second(maps)))
        found: Tensor = self.last(maps)
        return found


def blur(edge: int, smooth: float) -> Tensor:
    """The matrix (e, e) that smooths an axis by a Gaussian of ``smooth`` voxels, mirrored beyond its ends."""
    at = torch.arange(edge)
    weights = torch.exp(-0.5 * ((torch.arange(-edge, 2 * edge) - at[:, None]) / smooth) ** 2)
    before, within, after = weights[:, :edge], weights[:, edge : 2 * edge], weights[:, 2 * edge :]
    found = within + before.flip(1) + after.flip(1)
    return found.div(found.sum(1, keepdim=True))


class Autoencoder3D(nn.Module):
    """``forward`` gives the reconstruction of sub-volumes (n, 1, e, e, e); ``encode`` and ``decode`` are its halves.

    ``edge``: e in voxels, a multiple of 4. ``channels``: filters of the hidden layers. ``codes``: numbers in a code.
    ``smooth``: standard deviation, in voxels, of a Gaussian that ``encode`` applies first, and that is then missing
    from the reconstruction, too; 0: none, as published. Inside, what is smoothed is multiplied by ``gain``, so that it
    varies by about 1, and the reconstruction is divided by it. It can be scripted: the script keeps both halves.
    """

    smooth: Tensor
    gain: Tensor
    axis: Tensor

    def __init__(
        self, edge: int = 32, channels: int = CHANNELS, codes: int = CODES, smooth: float = 0.0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = Encoder3D(edge, channels, codes)
        self.decoder = Decoder3D(edge, channels, codes)
        self.smooths = smooth > 0
        self.register_buffer("smooth", torch.tensor(float(smooth)))
        self.register_buffer("gain", torch.tensor(float(gain)))
        self.register_buffer("axis", blur(edge, smooth) if smooth > 0 else torch.eye(edge))

    def forward(self, boxes: Tensor) -> Tensor:
        """See the class."""
        return self.decode(self.encode(boxes))

    @torch.jit.export
    def smoothed(self, boxes: Tensor) -> Tensor:
        """Sub-volumes as the encoder is given them, (n, 1, e, e, e)."""
        if not self.smooths:
            return boxes * self.gain
        found = torch.matmul(boxes, self.axis.t() * self.gain)
        found = torch.matmul(self.axis, found)
        return torch.matmul(self.axis, found.flatten(3)).reshape(boxes.shape)

    @torch.jit.export
    def encode(self, boxes: Tensor) -> Tensor:
        """Codes (n, ``codes``) >= 0 of sub-volumes (n, 1, e, e, e)."""
        codes: Tensor = self.encoder(self.smoothed(boxes))
        return codes

    @torch.jit.export
    def decode(self, codes: Tensor) -> Tensor:
        """Sub-volumes (n, 1, e, e, e) of codes (n, ``codes``)."""
        boxes: Tensor = self.decoder(codes)
        return boxes / self.gain


class Edss3d(nn.Module):
    """Probability of each class in each voxel: (n, 1, z, y, x) to (n, ``classes``, z, y, x), sums 1 over classes.

    Edges may be any multiples of 4, as there is no dense layer. ``classes``: at least 2, the background among them.
    """

    def __init__(self, classes: int, channels: int = CHANNELS) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: {classes}; a segmentation needs at least 2, the background among them")
        self.first = _conv(1, channels)
        self.second = _conv(channels, channels)
        self.third = _conv(channels, channels)
        self.fourth = _conv(channels, channels)
        self.fifth = _conv(channels, channels)
        self.last = _conv(channels, classes)

    def forward(self, boxes: Tensor) -> Tensor:
        """See the class."""
        return functional.softmax(self.logits(boxes), 1)

    @torch.jit.export
    def logits(self, boxes: Tensor) -> Tensor:
        """What the soft-max is taken of, and the cross-entropy: the same shape as the probabilities."""
        maps = _pooled(self.second(_pooled(self.first(boxes))))
        maps = _doubled(functional.relu(self.third(maps)))
        maps = _doubled(functional.relu(self.fourth(maps)))
        found: Tensor = self.last(functional.relu(self.fifth(maps)))
        return found
