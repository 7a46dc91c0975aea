"""ResNet-10 for diffraction patterns: how many particles the pulse hit.

Han & Li, section 4.1 and figure 3: 3×3 convolutions with 32, then 64 channels, identity shortcuts over every two of
them, each convolution followed by batch normalisation, dropout and ReLU; a fully connected layer for five classes.
Nine convolutions and the last layer are ten. The paper does not say where it down-samples; here the stem halves the
image and three of the four blocks halve it again, to 8×8.
"""

# No postponed annotations here: TorchScript reads those of the classes as types.
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIDE = 128
INPUTS = ("linear", "sqrt", "log")
# Channels and stride of the four blocks of two convolutions.
BLOCKS = ((32, 2), (32, 1), (64, 2), (64, 2))


class Convolution(nn.Module):
    """3×3 convolution, batch normalisation, dropout (element-wise, as the paper's); no ReLU yet."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.dropout: nn.Module = nn.Dropout(dropout)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h/stride, w/stride)."""
        return self.dropout(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two convolutions and a shortcut without weights.

    The shortcut is averaged over 2×2 pixels where the block halves the image; channels that are new get zeros.
    """

    halve: Final[bool]
    added: Final[int]

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.first = Convolution(inputs, outputs, stride, dropout)
        self.second = Convolution(outputs, outputs, 1, dropout)
        self.halve = stride == 2
        self.added = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h/stride, w/stride), not negative."""
        y = self.second(relu(self.first(x)))
        if self.halve:
            x = avg_pool2d(x, 2)
        if self.added > 0:
            x = pad(x, [0, 0, 0, 0, 0, self.added])
        return relu(x + y)


class ResNet10(nn.Module):
    """Normalised patterns float (n, 1, 128, 128) to scores (n, 5) before the softmax."""

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        self.stem = Convolution(1, BLOCKS[0][0], 2, dropout)
        blocks = []
        inputs = BLOCKS[0][0]
        for outputs, stride in BLOCKS:
            blocks.append(Block(inputs, outputs, stride, dropout))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        # Averaging to 4×4 keeps the distance from the beam, which a global average would lose.
        self.score = nn.Linear(inputs * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.blocks(relu(self.stem(x)))
        return self.score(avg_pool2d(x, 2).flatten(1))  # type: ignore[no-any-return]

    def kernels(self) -> list[nn.Parameter]:
        """The convolution kernels, the W_k of the paper's equation 2."""
        return [p for m in self.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()]


def compress(photons: Tensor, kind: str) -> Tensor:
    """Photons float (…) to what is normalised: as they are (``linear``, the paper), ``sqrt``, or ``log``(1 + photons).

    The square root makes Poisson noise equally strong everywhere, the logarithm makes fringes equally strong at every
    fluence; ``linear`` leaves the centre a thousand times stronger than the rim.
    """
    if kind == "sqrt":
        return torch.sqrt(photons.clamp_min(0))
    if kind == "log":
        return torch.log1p(photons.clamp_min(0))
    return photons


class HitClassifier(nn.Module):
    """What is exported: photons of any integer or float type (n, 1, 128, 128) to probabilities float32 (n, 5).

    Holds the mean and the standard deviation of the (compressed) training images as buffers (1, 1, 128, 128) and
    normalises with them in float32, whatever type the weights have.
    """

    kind: Final[str]
    mean: Tensor
    std: Tensor

    def __init__(self, net: ResNet10, mean: Tensor, std: Tensor, kind: str) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.kind = kind

    def forward(self, photons: Tensor) -> Tensor:
        """See the class."""
        x = photons.to(torch.float32)
        if self.kind == "sqrt":
            x = torch.sqrt(x.clamp_min(0.0))
        elif self.kind == "log":
            x = torch.log1p(x.clamp_min(0.0))
        x = (x - self.mean.to(torch.float32)) / self.std.to(torch.float32)
        scores = self.net(x.to(self.net.score.weight.dtype))
        return torch.softmax(scores.to(torch.float32), dim=1)


def fold(net: ResNet10) -> ResNet10:
    """A copy for inference: batch normalisation folded into the convolutions, dropout gone. Same scores to rounding."""
    copy = ResNet10(0.0)
    copy.load_state_dict(net.state_dict())
    copy.eval()
    for module in copy.modules():
        if isinstance(module, Convolution) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm, module.dropout = nn.Identity(), nn.Identity()
    return copy


def classifier(net: ResNet10, mean: Tensor, std: Tensor, kind: str) -> HitClassifier:
    """The folded network with its normalisation, on the CPU, in evaluation mode."""
    module = HitClassifier(fold(net.cpu()), mean.cpu(), std.cpu(), kind).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def export(net: ResNet10, mean: Tensor, std: Tensor, kind: str) -> torch.jit.ScriptModule:
    """TorchScript of ``classifier``. Its weights can still be moved or cast."""
    return torch.jit.script(classifier(net, mean, std, kind))
