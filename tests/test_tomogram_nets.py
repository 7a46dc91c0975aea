"""The networks of tomograms: layers as published, the same numbers by the fast ways, bundles and the codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from beamsieve.models.bundle import BundleError, load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.tomograms import codec_plans, swift
from beamsieve.models.tomograms.bundles import (
    codec_network,
    codec_shape,
    save_segmenter,
    segmenter_network,
    untrained,
)
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.nets import Autoencoder3D, Edss3d
from scipy import ndimage
from torch.nn import functional

EDGE = 8


def small(smooth: float = 0.0, gain: float = 1.0) -> Autoencoder3D:
    torch.manual_seed(3)
    return Autoencoder3D(EDGE, 4, 5, smooth, gain).eval()


def noise(n: int, edge: int = EDGE, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((n, edge, edge, edge)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("bundle"), edge=EDGE, channels=4, codes=6, seed=5, posed=True)


# Layers


def test_the_autoencoder_has_the_published_layers() -> None:
    net = Autoencoder3D()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "encoder.first.weight": (32, 1, 3, 3, 3),
        "encoder.second.weight": (32, 32, 3, 3, 3),
        "encoder.dense.weight": (32, 8 * 8 * 8 * 32),
        "decoder.dense.weight": (8 * 8 * 8 * 32, 32),
        "decoder.first.weight": (32, 32, 3, 3, 3),
        "decoder.second.weight": (32, 32, 3, 3, 3),
        "decoder.last.weight": (1, 32, 3, 3, 3),
    }
    assert codec_shape(net.state_dict()) == (32, 32, 32, 0.0)


def test_it_computes_what_the_paper_says_step_by_step() -> None:
    net, boxes = small(), torch.from_numpy(noise(3))[:, None]
    weights = net.state_dict()

    def conv(maps: torch.Tensor, layer: str) -> torch.Tensor:
        return functional.conv3d(maps, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1)

    with torch.no_grad():
        maps = functional.max_pool3d(conv(boxes, "encoder.first").relu(), 2)
        maps = functional.max_pool3d(conv(maps, "encoder.second").relu(), 2)
        codes = (maps.flatten(1) @ weights["encoder.dense.weight"].T + weights["encoder.dense.bias"]).relu()
        maps = (codes @ weights["decoder.dense.weight"].T + weights["decoder.dense.bias"]).relu().view(3, 4, 2, 2, 2)
        for layer in ("first", "second"):
            maps = functional.interpolate(conv(maps, f"decoder.{layer}").relu(), scale_factor=2, mode="nearest")
        assert torch.allclose(net.encode(boxes), codes, atol=1e-6)
        assert torch.allclose(net(boxes), conv(maps, "decoder.last"), atol=1e-6)
    assert bool((codes >= 0).all())
    assert bool((codes > 0).any())


def test_segmentation_gives_probabilities_of_each_voxel_at_any_multiple_of_four() -> None:
    torch.manual_seed(1)
    net = Edss3d(3, 4)
    assert sum(layer.kernel_size == (3, 3, 3) for layer in net.children() if isinstance(layer, torch.nn.Conv3d)) == 6
    found = net(torch.randn(2, 1, 8, 12, 16))
    assert found.shape == (2, 3, 8, 12, 16)
    assert torch.allclose(found.sum(1), torch.ones(2, 8, 12, 16), atol=1e-5)
    assert torch.allclose(net.logits(torch.zeros(1, 1, 8, 8, 8)).softmax(1), net(torch.zeros(1, 1, 8, 8, 8)))
    with pytest.raises(ValueError, match="classes: 1"):
        Edss3d(1)


@pytest.mark.parametrize("edge", [0, 2, 30])
def test_edges_that_are_no_multiple_of_four_are_refused(edge: int) -> None:
    with pytest.raises(ValueError, match=f"edge: {edge} voxels; the network needs a multiple of 4"):
        Autoencoder3D(edge)


def test_smoothing_is_scipys_gaussian_and_the_gain_cancels() -> None:
    net, boxes = small(1.3, 4.0), noise(2)
    expected = 4 * ndimage.gaussian_filter(boxes, (0, 1.3, 1.3, 1.3), mode="reflect", truncate=8)
    with torch.no_grad():
        found = net.smoothed(torch.from_numpy(boxes)[:, None])[:, 0].numpy()
        assert np.abs(found - expected).max() < 1e-5
        codes = torch.rand(2, 5)
        assert torch.allclose(4 * net.decode(codes), net.decoder(codes))


# The same in less time


def test_doubling_and_phases_are_convolutions_of_doubled_images() -> None:
    torch.manual_seed(0)
    weight, maps = torch.randn(5, 3, 3, 3, 3), torch.randn(2, 3, 4, 6, 5)
    truth = functional.conv3d(functional.interpolate(maps, scale_factor=2.0, mode="nearest"), weight, padding=1)
    found = functional.conv_transpose3d(maps, swift.doubling(weight), stride=2, padding=1)
    assert torch.allclose(found, truth, atol=1e-4)
    one = functional.conv3d(maps, swift.phases(weight[:1]), padding=1)
    assert torch.allclose(swift.interleaved(one), truth[:, :1], atol=1e-4)


def test_gradients_through_the_fast_decoder_are_those_of_the_layers() -> None:
    gradients = []
    for fast in (False, True):
        net = small()
        codes = torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
        made = swift.decode(net.decoder, codes, swift.kernels(net.decoder)) if fast else net.decoder(codes)
        (made.square() * torch.arange(1, 4)[:, None, None, None, None]).sum().backward()
        gradients.append({name: value.grad for name, value in net.decoder.named_parameters()})
    for name, expected in gradients[0].items():
        assert expected is not None
        found = gradients[1][name]
        assert found is not None
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5), name


# Bundles and codec


def test_a_bundle_holds_the_network_and_says_what_it_takes(bundle: Path) -> None:
    found = load_bundle(bundle)
    card = found.card
    assert (card.task, card.output.kind, card.input.shape) == ("tomograms", "codes", (1, EDGE, EDGE, EDGE))
    assert (card.input.pixel_a, card.training["posed"], len(card.output.classes)) == (14.2, True, 6)
    boxes = torch.from_numpy(noise(2))[:, None]
    with torch.no_grad():
        assert torch.allclose(found.module(boxes), codec_network(found)(boxes), atol=1e-6)
        assert torch.allclose(found.module.encode(boxes), codec_network(found).encode(boxes), atol=1e-6)
    again = untrained(bundle.parent, "again", edge=EDGE, channels=4, codes=6, seed=5)
    other = untrained(bundle.parent, "other", edge=EDGE, channels=4, codes=6, seed=6)
    one, same, another = (codec_network(load_bundle(path)).state_dict() for path in (bundle, again, other))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], another[name]) for name in one)


def test_smoothing_travels_with_the_bundle(tmp_path: Path) -> None:
    from beamsieve.models.tomograms.bundles import save_codec

    net, boxes = small(0.9, 2.5), noise(5)
    codec = Codec(save_codec(tmp_path, "smooth", net, posed=False), device="cpu", threads=1)
    with torch.no_grad():
        truth = net.encode(torch.from_numpy(boxes)[:, None]).numpy()
    assert np.abs(codec.encode(boxes) - truth).max() < 1e-5
    assert not codec.posed
    seen = ndimage.gaussian_filter(boxes, (0, 0.9, 0.9, 0.9), mode="reflect", truncate=9)
    missed = np.square(codec.decode(truth) - seen).mean((1, 2, 3)) / seen.var((1, 2, 3))
    assert np.allclose(codec.error(boxes), missed, rtol=1e-3)


def test_the_wrong_bundle_is_refused_with_what_is_needed(bundle: Path, tmp_path: Path) -> None:
    voxels = load_bundle(save_segmenter(tmp_path, "voxels", Edss3d(2, 4), ("background", "membrane"), edge=EDGE))
    assert voxels.card.output.classes == ("background", "membrane")
    assert segmenter_network(voxels).first.out_channels == 4
    with pytest.raises(BundleError, match=r"gives voxels, needed is an autoencoder \(`beamsieve train tomograms`\)"):
        Codec(voxels)
    with pytest.raises(BundleError, match="gives codes, needed is a segmentation"):
        segmenter_network(load_bundle(bundle))
    with pytest.raises(ValueError, match="3 names for a network of 2 classes"):
        save_segmenter(tmp_path, "more", Edss3d(2, 4), ("a", "b", "c"))
    with quiet_torchscript():
        other = torch.jit.script(torch.nn.Conv3d(1, 2, 3).eval())
    card = load_bundle(bundle).card.to_json()
    strange = save_bundle(tmp_path, "strange", other, card)
    with pytest.raises(BundleError, match="not those of an Autoencoder3D"):
        Codec(strange)


def test_the_codec_encodes_any_number_of_boxes_and_neighbours_do_not_matter(bundle: Path) -> None:
    codec = Codec(str(bundle), device="cpu", threads=1, batch=32)
    boxes = noise(7)
    codes = codec.encode(boxes)
    assert codes.shape == (7, 6)
    assert codes.dtype == np.float32
    for row in (0, 5, 6):
        assert np.array_equal(codec.encode(boxes[row : row + 1])[0], codes[row])
    back = codec.decode(codes)
    net = codec_network(load_bundle(bundle))
    with torch.no_grad():
        given = torch.from_numpy(boxes)[:, None]
        assert np.abs(codes - net.encode(given).numpy()).max() < 1e-5
        assert np.abs(back - net(given)[:, 0].numpy()).max() < 1e-5
    missed = np.square(back - boxes).mean((1, 2, 3)) / boxes.var((1, 2, 3))
    assert np.allclose(codec.error(boxes), missed, rtol=1e-4)
    assert np.array_equal(codec.error(boxes, codes), codec.error(boxes))
    assert codec.encode(boxes[:0]).shape == (0, 6)
    assert codec.decode(codes[:0]).shape == (0, EDGE, EDGE, EDGE)
    assert np.array_equal(codec.encode(boxes.astype(np.float16)), codec.encode(boxes.astype(np.float16)))
    for wrong in (noise(1, 12), boxes[0]):
        with pytest.raises(ValueError, match=r"is not \(n, 8, 8, 8\)"):
            codec.encode(wrong)
    with pytest.raises(ValueError, match=r"is not \(n, 6\)"):
        codec.decode(codes[:, :5])
    assert codec.posed
    assert (codec.edge, codec.voxel_a, codec.name) == (EDGE, 14.2, "tomograms-untrained")


def test_the_faster_of_those_that_agree_is_taken(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = codec_network(load_bundle(bundle)).eval()
    for winner in ("frozen", "channels last"):
        halves = {half: p.name for p in codec_plans._others(net, 4) for half in (p.encode,)}
        others = [codec_plans.Plan(name, half, net.decode, 4) for half, name in halves.items()]
        monkeypatch.setattr(codec_plans, "_others", lambda *_, made=others: made)
        monkeypatch.setattr(
            codec_plans, "_time", lambda half, _, w=winner, h=halves: 1.0 if h.get(half, w) == w else 2.0
        )
        assert codec_plans.choose(net, 4, 1e-3).name.split(" and ")[0] == winner
        monkeypatch.undo()


def test_warm_up_says_what_runs_and_leaves_out_what_answers_otherwise(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ms to encode" in Codec(bundle, device="cpu", threads=1).warm_up()
    net = codec_network(load_bundle(bundle)).eval()
    chosen = codec_plans.choose(net, 4, 1e-3)
    assert {*chosen.name.split(" and ")} <= {"channels last", "frozen"}
    assert chosen.ms_encode > 0
    real = codec_plans._others

    def broken(net: Autoencoder3D, piece: int) -> list[codec_plans.Plan]:
        return [
            codec_plans.Plan(p.name, lambda boxes, e=p.encode: e(boxes) * 1.01, p.decode, p.piece)  # type: ignore[misc]
            for p in real(net, piece)
        ]

    monkeypatch.setattr(codec_plans, "_others", broken)
    chosen = codec_plans.choose(net, 4, 1e-3)
    assert chosen.name.startswith("as trained and ")
    boxes = torch.from_numpy(noise(2))[:, None]
    with torch.inference_mode():
        assert torch.equal(chosen.encode(boxes), net.encode(boxes))
    monkeypatch.setattr(codec_plans, "_others", lambda *_: [])
    with pytest.raises(BundleError, match="does not give what it gives on a CPU"):
        codec_plans.choose(net, 4, -1.0)
