"""The network: sizes, folding, export, and what the exported module takes."""

from __future__ import annotations

import io

import pytest
import torch
from beamsieve.models.bundle import quiet_torchscript
from beamsieve.models.hits.resnet10 import Block, Convolution, ResNet10, compress, export, fold
from torch import nn


@pytest.fixture(scope="module")
def trained() -> ResNet10:
    """A network whose batch statistics and affine terms are not the initial ones."""
    torch.manual_seed(0)
    net = ResNet10()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 1, 128, 128))
    return net.eval()


def test_ten_layers_with_weights_of_32_then_64_channels() -> None:
    net = ResNet10()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [32] * 5 + [64] * 4
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert len(convolutions) + sum(isinstance(m, nn.Linear) for m in net.modules()) == 10
    kernels = 9 * (32 + 4 * 32 * 32 + 32 * 64 + 3 * 64 * 64)
    assert sum(k.numel() for k in net.kernels()) == kernels
    assert sum(p.numel() for p in net.parameters()) == kernels + 2 * (5 * 32 + 4 * 64) + 1024 * 5 + 5
    assert {m.dropout.p for m in net.modules() if isinstance(m, Convolution)} == {0.25}


def test_each_block_gives_the_size_it_says() -> None:
    seen = []
    net = ResNet10().eval()
    for block in net.blocks:
        block.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[1:])))
    assert net(torch.zeros(2, 1, 128, 128)).shape == (2, 5)
    assert seen == [(32, 32, 32), (32, 32, 32), (64, 16, 16), (64, 8, 8)]


def test_shortcut_passes_the_input_on_when_the_convolutions_are_silent() -> None:
    block = Block(2, 3, 2, 0.0).eval()
    nn.init.zeros_(block.second.norm.weight)  # type: ignore[arg-type]
    x = torch.rand(1, 2, 4, 4)
    y = block(x)
    assert torch.allclose(y[0, :2, 0, 0], x[0, :, :2, :2].mean(dim=(1, 2)))
    assert not y[0, 2].any()


def test_folded_network_scores_the_same_without_batch_normalisation(trained: ResNet10) -> None:
    x = torch.randn(4, 1, 128, 128)
    folded = fold(trained)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.Dropout) for m in folded.modules())
    with torch.inference_mode():
        assert torch.allclose(folded(x), trained(x), atol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "sqrt", "log"])
def test_exported_module_normalises_photons_of_any_type(trained: ResNet10, kind: str) -> None:
    photons = torch.poisson(torch.full((3, 1, 128, 128), 4.0), generator=torch.Generator().manual_seed(1))
    mean, std = torch.rand(1, 1, 128, 128), torch.rand(1, 1, 128, 128) + 0.5
    with quiet_torchscript():
        module = export(trained, mean, std, kind)
        kept = io.BytesIO()
        torch.jit.save(module, kept)
        kept.seek(0)
        module = torch.jit.load(kept)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        expected = torch.softmax(trained((compress(photons, kind) - mean) / std), dim=1)
        for dtype in (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float32, torch.float64):
            found = module(photons.to(dtype))
            assert found.dtype == torch.float32
            assert torch.allclose(found, expected, atol=1e-4)
        assert torch.allclose(found.sum(1), torch.ones(3))
        assert torch.allclose(module.to(torch.bfloat16)(photons), expected, atol=0.05)
