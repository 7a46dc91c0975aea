"""The scan of whole micrographs gives what the network gives box by box, for every layout, size, tile and thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from beamsieve.models.bundle import quiet_torchscript
from beamsieve.models.particles.deepem import ACTIVATIONS, PRESETS, DeepEM, Layout, layout_for
from beamsieve.models.particles.dense import DenseScan, single_thread
from hypothesis import given, settings
from hypothesis import strategies as st

LAYOUTS = {**PRESETS, "rule 56": layout_for(56), "rule 190": layout_for(190), "least": layout_for(24)}
SMALL = layout_for(40)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with single_thread():
        yield


@torch.no_grad()
def lively(layout: Layout, activation: str = "sigmoid", seed: int = 0) -> DeepEM:
    """Random weights, scaled layer by layer so that nothing saturates and scores differ from box to box."""
    torch.manual_seed(seed)
    net = DeepEM(layout, activation=activation).eval()
    x = torch.randn(6, 1, layout.box, layout.box)
    for at in (1, 2, 3):
        conv, pool = getattr(net, f"conv{at}"), getattr(net, f"pool{at}")
        y = conv(x)
        conv.weight /= y.std() / 1.5
        conv.bias.copy_(0.3 * torch.randn(len(conv.bias)) - (conv(x).mean((0, 2, 3)) - conv.bias))
        x = torch.nn.functional.avg_pool2d(net.act(conv(x)), pool)
    z = net.fc(x.flatten(1))
    net.fc.weight /= z.std() / 1.5
    net.fc.bias.copy_(net.fc.bias - net.fc(x.flatten(1)).mean())
    return net


def noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@torch.no_grad()
def box_by_box(net: DeepEM, image: np.ndarray, y: int, x: int, quarters: tuple[int, ...] = (0, 1, 2, 3)) -> float:
    """The paper's recognition at one place: cut the box out, turn it, ask the network, take the mean."""
    box = image[y : y + net.box, x : x + net.box]
    turned = np.stack([np.rot90(box, k) for k in quarters])
    return float(net(torch.from_numpy(turned)[:, None]).mean())


def some(ny: int, nx: int, count: int) -> list[tuple[int, int]]:
    """The four corners of a grid, and places between."""
    chosen = np.random.default_rng(5).integers((ny, nx), size=(count, 2)).tolist()
    return [(0, 0), (0, nx - 1), (ny - 1, 0), (ny - 1, nx - 1), *((i, j) for i, j in chosen)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_score_is_that_of_the_patch_for_every_layout(name: str, activation: str) -> None:
    layout = LAYOUTS[name]
    net = lively(layout, activation)
    image = noise(layout.box + 58, layout.box + 5 * layout.stride + 29)  # neither size fits the grid
    fine, coarse = DenseScan(net), DenseScan(net, fine=False)
    assert fine.stride == layout.pools[0] * layout.pools[1]
    assert coarse.stride == layout.stride
    dense, sparse = fine.scores(image), coarse.scores(image)
    assert dense.shape == (58 // fine.stride + 1, (5 * layout.stride + 29) // fine.stride + 1)
    assert dense.dtype == np.float32
    # On the common grid both are the same; what is compared with patches below is the finer one.
    np.testing.assert_allclose(sparse, dense[:: layout.pools[2], :: layout.pools[2]], atol=5e-5)
    places = some(*dense.shape, count=2 if layout.box > 200 else 8)
    naive = [box_by_box(net, image, i * fine.stride, j * fine.stride) for i, j in places]
    np.testing.assert_allclose([dense[at] for at in places], naive, atol=1e-4)
    assert np.std(naive) > 0.005  # a scan that answers one number for all would be seen
    assert 0.002 < min(naive) < max(naive) < 0.998


@settings(deadline=None, max_examples=12)
@given(dy=st.integers(0, 40), dx=st.integers(0, 60), rotations=st.sampled_from([1, 2, 4]), fine=st.booleans())
def test_the_grid_of_any_size_is_scored_in_full(dy: int, dx: int, rotations: int, fine: bool) -> None:
    net, quarters = lively(SMALL), tuple(range(0, 4, 4 // rotations))
    image = noise(SMALL.box + dy, SMALL.box + dx)
    scan = DenseScan(net, rotations=rotations, fine=fine)
    found = scan.scores(image)
    assert found.shape == scan.grid(image.shape) == (dy // scan.stride + 1, dx // scan.stride + 1)
    for i, j in some(*found.shape, count=2):
        assert found[i, j] == pytest.approx(
            box_by_box(net, image, i * scan.stride, j * scan.stride, quarters), abs=1e-4
        )


def test_rotations_matter_and_a_turned_micrograph_has_the_turned_map() -> None:
    net, image = lively(SMALL), noise(SMALL.box + 64, SMALL.box + 96)
    one, four = DenseScan(net, rotations=1).scores(image), DenseScan(net).scores(image)
    assert np.abs(one - four).max() > 0.05
    np.testing.assert_allclose(DenseScan(net).scores(np.rot90(image)), np.rot90(four), atol=1e-5)


@pytest.mark.parametrize("tile_px", [80, 97, 130, 1000])
def test_tiles_do_not_change_the_scores(tile_px: int) -> None:
    net, image = lively(SMALL, "relu"), noise(233, 311)
    whole = DenseScan(net, tile_px=4000).log_odds(image)
    np.testing.assert_allclose(DenseScan(net, tile_px=tile_px).log_odds(image), whole, atol=1e-4)


def test_tiles_are_scanned_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = lively(SMALL), noise(400, 500)
    scan = DenseScan(net, tile_px=120)
    seen: list[tuple[int, ...]] = []
    tile = scan._tile

    def watched(x: torch.Tensor, workers: Executor | None) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return tile(x, workers)

    monkeypatch.setattr(scan, "_tile", watched)
    scan.scores(image)
    assert len(seen) >= 20
    assert max(max(shape) for shape in seen) <= 120


def test_threads_do_not_change_the_scores_and_torch_is_left_as_it_was() -> None:
    net, image = lively(SMALL), noise(300, 333)
    torch.set_num_threads(2)
    one = DenseScan(net, threads=1).scores(image)
    np.testing.assert_array_equal(DenseScan(net, threads=3).scores(image), one)
    assert torch.get_num_threads() == 2


def test_a_second_micrograph_of_another_size_is_scored_right() -> None:
    net = lively(SMALL)
    scan = DenseScan(net)
    for shape in ((300, 200), (90, 640), (60, 70), (300, 200)):
        image = noise(*shape, seed=shape[1])
        np.testing.assert_allclose(scan.scores(image), DenseScan(net).scores(image), atol=1e-6)
    assert len(scan._kernels) == len({at for at, _ in scan._kernels})  # those of the last size, not of every one


def test_a_scripted_network_is_scanned_as_the_one_it_was_made_from() -> None:
    net, image = lively(SMALL, "relu"), noise(120, 140)
    with quiet_torchscript():
        scripted = torch.jit.script(net)
    np.testing.assert_array_equal(DenseScan(scripted).scores(image), DenseScan(net).scores(image))


@torch.no_grad()
def test_log_odds_tell_certain_boxes_apart_where_scores_cannot() -> None:
    net, image = lively(SMALL), noise(120, 140)
    net.fc.weight *= 0.2
    plain = DenseScan(net).log_odds(image)
    net.fc.bias.copy_(net.fc.bias + 40)
    sure = DenseScan(net)
    assert (sure.scores(image) == 1).all()
    found = sure.log_odds(image)
    assert np.isfinite(found).all()
    assert np.corrcoef(found.ravel(), plain.ravel())[0, 1] > 0.95


def test_memory_grows_with_the_tile_and_hardly_with_the_micrograph() -> None:
    scan = DenseScan(lively(LAYOUTS["rule 56"]), tile_px=2048)
    k3, superres = scan.memory_bytes((4092, 5760)), scan.memory_bytes((8184, 11520))
    assert superres - k3 < 4 * np.prod(scan.grid((8184, 11520)))
    assert 100e6 < k3 < 500e6
    assert DenseScan(lively(LAYOUTS["rule 56"]), tile_px=1024).memory_bytes((4092, 5760)) < k3 / 2


def test_what_cannot_be_scanned_is_refused() -> None:
    net = lively(SMALL)
    with pytest.raises(ValueError, match="no box of 40"):
        DenseScan(net).scores(noise(39, 200))
    with pytest.raises(ValueError, match="rotations: 3"):
        DenseScan(net, rotations=3)
    with pytest.raises(ValueError, match="tile_px: 79"):
        DenseScan(net, tile_px=79)
    with pytest.raises(ValueError, match="not a DeepEM network"):
        DenseScan(torch.nn.Linear(3, 1))


def test_other_numbers_of_maps_are_scanned_too() -> None:
    net = lively(replace(SMALL, maps=(3, 5, 8)))
    image = noise(90, 77)
    scan = DenseScan(net)
    found = scan.scores(image)
    for i, j in product((0, found.shape[0] - 1), (0, found.shape[1] - 1)):
        assert found[i, j] == pytest.approx(box_by_box(net, image, i * scan.stride, j * scan.stride), abs=1e-4)
