"""The cascade has the published layers, its bundle gives it back, and the denoiser answers what it answers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.classes2d import bundles
from beamsieve.models.classes2d.cdae import Block, Cdae
from beamsieve.models.classes2d.denoise import Denoiser
from beamsieve.models.runner import Runner
from beamsieve.stream.__main__ import app
from torch import Tensor, nn
from typer.testing import CliRunner

SMALL: dict[str, Any] = {"encoder": (2, 3, 4), "decoder": (5, 2, 6), "kernel": 2}
Floats = npt.NDArray[np.float32]


def cascade(seed: int = 1, **changes: Any) -> Cdae:
    """A small cascade whose answers are as large as what it is given, so that differences show."""
    torch.manual_seed(seed)
    net = Cdae(**{**SMALL, **changes})
    with torch.no_grad():
        for block in net.blocks:
            assert isinstance(block, Block)
            block.layers[-1].weight.mul_(20)  # type: ignore[operator]
    return net.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = bundles.write(tmp_path_factory.mktemp("bundle"), "small", cascade(), training={"maps": ["none"]}, scores={})
    return load_bundle(path)


@pytest.fixture(scope="module")
def denoiser(bundle: Bundle) -> Denoiser:
    return Denoiser(bundle, device="cpu", threads=2, batch=16)


def noise(n: int, seed: int = 2) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, 64, 64), np.float32)


@torch.no_grad()
def straight(net: Cdae, images: Floats) -> Floats:
    found: Floats = net(torch.from_numpy(images)[:, None])[:, 0].numpy()
    return found


def test_a_block_has_the_published_layers() -> None:
    layers = list(Block().layers)
    kinds = [type(layer) for layer in layers if not isinstance(layer, nn.ReLU | nn.Dropout)]
    module = [nn.Conv2d, nn.Conv2d, nn.MaxPool2d]
    assert kinds == [*module, *module, *module, *[nn.ConvTranspose2d] * 3, nn.Conv2d]
    last = layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert (last.in_channels, last.out_channels) == (32, 1)
    dropped = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Dropout)]
    assert [layers[i].p for i in dropped] == [0.5, 0.5]
    middle = kinds.index(nn.ConvTranspose2d)
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.ConvTranspose2d))
    assert middle == 9
    assert dropped[0] < first < dropped[1]  # one in the encoder, one in the decoder
    assert len(Cdae().blocks) == 3


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("edge", [16, 64])
def test_images_keep_their_size_and_the_cascade_is_its_blocks_in_a_row(kernel: int, edge: int) -> None:
    net = cascade(kernel=kernel)
    images = torch.randn(3, 1, edge, edge)
    steps = net.steps(images)
    assert [step.shape for step in steps] == [images.shape] * 3
    by_hand = images
    for block, step in zip(net.blocks, steps, strict=True):
        by_hand = block(by_hand)
        torch.testing.assert_close(step, by_hand)
    torch.testing.assert_close(net(images), steps[-1])
    assert len(net.steps(images, 2)) == 2


def test_training_drops_and_answering_does_not() -> None:
    block, images = Block(), torch.randn(4, 1, 64, 64)
    block.train()
    assert not torch.equal(block(images), block(images))
    block.eval()
    torch.testing.assert_close(block(images), block(images), rtol=0, atol=0)
    whole = Block(dropout=0.0).train()
    torch.testing.assert_close(whole(images), whole(images), rtol=0, atol=0)


def test_the_first_answers_are_small_but_not_lost() -> None:
    torch.manual_seed(3)
    images = torch.randn(16, 1, 64, 64)
    for kernel in (2, 3, 4):
        spread = float(Block(kernel=kernel).eval()(images).detach().std())
        assert 0.01 < spread < 1


@pytest.mark.parametrize("wrong", [{"kernel": 5}, {"encoder": (8, 16)}, {"decoder": (8, 0, 8)}])
def test_networks_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"kernel|channels"):
        Block(**wrong)


# Bundles


@pytest.mark.parametrize("changes", [{}, {"kernel": 4}, {"encoder": (8, 16, 32), "decoder": (32, 16, 32), "kernel": 3}])
def test_a_bundle_gives_its_network_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    net = cascade(**changes)
    path = bundles.write(tmp_path, "one", net.train(), training={"seed": 1}, scores={"gain": 2.0}, version="7")
    found = load_bundle(path)
    assert (found.card.task, found.card.output.kind, found.card.output.classes) == (
        "classes2d",
        "images",
        ("denoised",),
    )
    assert (found.card.input.name, found.card.input.shape, found.card.version) == ("particle", (1, 64, 64), "7")
    again = bundles.network(found, dropout=0.25).eval()
    images = noise(4)
    np.testing.assert_array_equal(straight(again, images), straight(net.eval(), images))
    np.testing.assert_allclose(found.module(torch.from_numpy(images)[:, None])[:, 0].detach(), straight(net, images))
    assert {layer.p for layer in again.modules() if isinstance(layer, nn.Dropout)} == {0.25}
    assert all(p.requires_grad for p in again.parameters())


class Doubled(nn.Module):
    """Answers images twice as large as it was given."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        """Each pixel as often as the factor says, in x."""
        return images.repeat(1, 1, 1, self.factor)


def other(directory: Path, module: nn.Module, **changes: Any) -> Bundle:
    card: dict[str, Any] = {
        "version": "1",
        "task": "classes2d",
        "input": {"name": "particle", "shape": [1, 64, 64], "dtype": "float32", "normalisation": "any"},
        "output": {"classes": ["denoised"], "kind": "images"},
        "threshold": 0,
        **{name: {} for name in ("training", "scores")},
        "trained_by": "a test",
        "licence": "Apache-2.0",
    }
    with quiet_torchscript():
        return load_bundle(save_bundle(directory, "other", torch.jit.script(module.eval()), {**card, **changes}))


def test_other_networks_run_but_are_not_trained_on(tmp_path: Path) -> None:
    found = other(tmp_path, Doubled(1))
    images = noise(3)
    np.testing.assert_allclose(Denoiser(found, device="cpu", threads=1, batch=8)(images), images, atol=1e-2)
    with pytest.raises(BundleError, match="beamsieve train classes2d") as caught:
        bundles.network(found)
    assert caught.value.reason == "format"


# Denoiser


@pytest.mark.parametrize("n", [0, 1, 16, 17, 70])
def test_the_denoiser_answers_what_the_network_answers(denoiser: Denoiser, n: int) -> None:
    images = noise(n, seed=n)
    found = denoiser(images)
    assert found.shape == images.shape
    assert found.dtype == np.float32
    wanted = straight(cascade(), images)
    np.testing.assert_allclose(found, wanted, atol=bundles.TOLERANCE["bfloat16"])
    if n:
        assert wanted.std() > 0.5  # else the tolerance would hold for anything
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999


def test_it_says_what_it_is_and_leaves_the_images_and_others_threads_alone(bundle: Bundle, denoiser: Denoiser) -> None:
    before = torch.get_num_threads()
    assert (denoiser.name, denoiser.sha256, denoiser.edge) == ("small", bundle.card.sha256, 64)
    assert "2 threads" in denoiser.warm_up()
    assert denoiser.warm_up() == denoiser.report
    images = noise(5).astype(np.float64)
    kept = images.copy()
    denoiser(images)
    np.testing.assert_array_equal(images, kept)
    assert torch.get_num_threads() == before


def test_callers_in_several_threads_get_their_own(denoiser: Denoiser) -> None:
    inputs = [noise(20, seed) for seed in range(4)]
    alone = [denoiser(images) for images in inputs]
    found: dict[int, Floats] = {}

    def call(number: int) -> None:
        found[number] = denoiser(inputs[number])

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for number, wanted in enumerate(alone):
        np.testing.assert_array_equal(found[number], wanted)


@pytest.mark.parametrize("shape", [(64, 64), (2, 32, 32), (2, 1, 64, 64)])
def test_images_of_another_shape_are_refused(denoiser: Denoiser, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="working"):
        denoiser(np.zeros(shape, np.float32))


def test_what_is_no_denoiser_is_refused_with_the_reason(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        Denoiser(bundle, device="abacus")
    assert caught.value.reason == "device"
    with pytest.raises(ValueError, match="batch"):
        Denoiser(bundle, batch=0)
    with pytest.raises(BundleError) as caught:
        Denoiser(load_bundle("hits-resnet10"))
    assert caught.value.reason == "task"
    broken = Denoiser(other(tmp_path, Doubled()), device="cpu", threads=1)
    with pytest.raises(BundleError, match="128") as caught:
        broken(noise(1))
    assert caught.value.reason == "output"


def test_the_runner_and_models_verify_know_images(bundle: Bundle) -> None:
    runner = Runner(bundle, batch=4, device="cpu", threads=1)
    images = noise(3)
    answer = runner.run(runner.prepare(images))
    assert answer.shape == (3, 1, 64, 64)
    np.testing.assert_allclose(answer[:, 0], straight(cascade(), images), atol=bundles.TOLERANCE["bfloat16"])
    said = CliRunner().invoke(app, ["models", "verify", str(bundle.path), "--device", "cpu", "--batch", "2"])
    assert said.exit_code == 0, said.output
    assert "small.pt: holds" in said.output
    listed = CliRunner().invoke(app, ["models", "list", "--models", str(bundle.path.parent)])
    assert "classes2d" in next(line for line in listed.output.splitlines() if line.strip().startswith("small"))
