"""A picker finds what is planted, in pixels of the micrograph as read, and refuses what it cannot pick rightly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.particles.deepem import DeepEM, Layout
from beamsieve.models.particles.peaks import apart, disc_sd, maxima
from beamsieve.models.particles.pick import Picker, PickOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

PIXEL_A, DIAMETER_A = 5.0, 150.0
DIAMETER_PX = DIAMETER_A / PIXEL_A
LAYOUT = Layout(48, (5, 5, 2), (2, 2, 2))


@torch.no_grad()
def detector() -> DeepEM:
    """A network made by hand: dark, smoothed, and darker in the middle of the box than around it."""
    net = DeepEM(LAYOUT, activation="relu").eval()
    for at, sign in ((1, -1), (2, 1), (3, 1)):
        conv = getattr(net, f"conv{at}")
        conv.weight.zero_()
        conv.bias.zero_()
        conv.weight[0, 0] = sign / conv.weight.shape[-1] ** 2
    size = LAYOUT.sizes[-1]
    away = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) * LAYOUT.stride
    template = np.where(away < 0.3 * DIAMETER_PX, 1.0, 0.0)
    template -= template.mean()
    net.fc.weight.zero_()
    net.fc.weight[0, : size**2] = torch.from_numpy(template / np.abs(template).sum()).flatten() * 25
    net.fc.bias.fill_(-4)
    return net


class Off(DeepEM):
    """One that does not answer what its weights say."""

    def forward(self, x: Tensor) -> Tensor:
        """A thousandth too much."""
        return torch.sigmoid(self.logits(x)) + 0.001


CARD: dict[str, Any] = {
    "version": "1",
    "task": "particles",
    "input": {
        "name": "micrograph",
        "shape": [1, LAYOUT.box, LAYOUT.box],
        "dtype": "float32",
        "normalisation": "the micrograph",
        "pixel_a": PIXEL_A,
        "diameter_a": DIAMETER_A,
    },
    "output": {"classes": ["particle"], "kind": "probabilities"},
    "threshold": 0.4,
    "training": {},
    "scores": {},
    "trained_by": "a test",
    "licence": "BSD-3-Clause",
}


def save(folder: Path, net: torch.nn.Module, **changes: object) -> Bundle:
    with quiet_torchscript():
        path = save_bundle(folder, "disc", torch.jit.script(net), CARD | changes)
    return load_bundle(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save(tmp_path_factory.mktemp("bundle"), detector())


@pytest.fixture(scope="module")
def picker(bundle: Bundle) -> Picker:
    return Picker(bundle, device="cpu", threads=1)


def planted(
    shape: tuple[int, int], centres: list[tuple[float, float]], diameter: float, noise: float = 1.0, seed: int = 0
) -> np.ndarray:
    """A micrograph with dark discs at (x, y), float32."""
    image = np.random.default_rng(seed).normal(100, noise, shape)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for x, y in centres:
        image -= 1.5 - 1.5 * np.tanh(np.hypot(rows - y, columns - x) - diameter / 2)
    return image.astype(np.float32)


SHAPE, CENTRES = (620, 410), [(80.3, 71.9), (300.0, 120.5), (210.7, 333.3), (85.2, 540.1), (340.4, 505.0)]


def test_planted_particles_are_found_where_they_are_on_a_micrograph_that_is_not_square(picker: Picker) -> None:
    found = picker.pick(planted(SHAPE, CENTRES, DIAMETER_PX), PIXEL_A)
    picks = found.take(picker.picked(found))
    assert len(picks) == len(CENTRES)
    np.testing.assert_allclose(sorted(zip(picks.x, picks.y, strict=True)), sorted(CENTRES), atol=0.08 * DIAMETER_PX)
    assert all(array.dtype == np.float32 for array in (found.x, found.y, found.score, found.sd))
    assert (np.diff(found.score) <= 0).all()
    assert found.score.min() >= picker.options.floor


@pytest.mark.parametrize("factor", [1.0, 2.6])
def test_centres_are_off_by_chance_only_not_by_half_a_pixel(picker: Picker, factor: float) -> None:
    places = np.random.default_rng(4).uniform(-4, 4, (16, 2)) + 60 + 75 * np.array(list(np.ndindex(4, 4)))
    centres = [((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5) for x, y in places]
    image = planted((round(350 * factor), round(370 * factor)), centres, DIAMETER_PX * factor, 0.3)
    found = picker.pick(image, PIXEL_A / factor)
    picks = np.array(sorted(zip(found.x[:16], found.y[:16], strict=True)))
    off = np.array([min(picks - centre, key=lambda d: float(np.hypot(*d))) for centre in centres])
    assert np.abs(off).max() < factor
    assert np.abs(off.mean(axis=0)).max() < 0.1 * factor


@pytest.mark.parametrize("factor", [0.75, 1.73, 3.1])
def test_a_micrograph_of_another_pixel_size_is_rescaled_and_centres_are_in_its_own_pixels(
    picker: Picker, factor: float
) -> None:
    centres = [((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5) for x, y in CENTRES]
    shape = (round(SHAPE[0] * factor), round(SHAPE[1] * factor))
    found = picker.pick(planted(shape, centres, DIAMETER_PX * factor, max(1.0, factor)), PIXEL_A / factor)
    picks = found.take(picker.picked(found))
    assert len(picks) == len(centres)
    expected = sorted(centres)
    np.testing.assert_allclose(
        sorted(zip(picks.x, picks.y, strict=True)), expected, atol=0.08 * DIAMETER_PX * max(1, factor)
    )


def test_picks_are_those_of_any_dtype_and_gain(picker: Picker) -> None:
    image = planted(SHAPE, CENTRES, DIAMETER_PX, noise=2)
    expected = picker.pick(image, PIXEL_A)
    found = picker.pick(np.rint(image * 40).astype(np.uint16), PIXEL_A)
    # Weak maxima of noise may fall on either side of the floor.
    several = slice(0, len(CENTRES))
    np.testing.assert_allclose(found.x[several], expected.x[several], atol=0.05)
    np.testing.assert_allclose(found.score[several], expected.score[several], atol=2e-3)


def test_another_diameter_rescales_the_model(bundle: Bundle) -> None:
    centres = [(200.0, 150.0), (420.0, 500.0)]
    picker = Picker(bundle, device="cpu", threads=1, diameter_a=2 * DIAMETER_A)
    assert picker.pixel_a == 2 * PIXEL_A
    assert picker.diameter_a == 2 * DIAMETER_A
    found = picker.pick(planted((700, 640), centres, 2 * DIAMETER_PX, 2), PIXEL_A)
    picks = found.take(picker.picked(found))
    np.testing.assert_allclose(sorted(zip(picks.x, picks.y, strict=True)), centres, atol=5)


def test_tiles_and_threads_give_the_same_candidates(bundle: Bundle, picker: Picker) -> None:
    image = planted(SHAPE, CENTRES, DIAMETER_PX)
    expected = picker.pick(image, PIXEL_A)
    tiled = Picker(bundle, PickOptions(tile_px=128), device="cpu", threads=2)
    assert tiled.scan.tile_px == 128
    found = tiled.pick(image, PIXEL_A)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-2)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-4)
    assert Picker(bundle, PickOptions(tile_px=20), device="cpu").scan.tile_px == 2 * LAYOUT.box


def test_candidates_keep_their_distance_from_each_other_and_from_the_edge(bundle: Bundle) -> None:
    centres = [(60.0, 60.0), (72.0, 60.0), (200.0, 60.0), (200.0, 90.0)]  # the first two overlap
    image = planted((160, 300), centres, DIAMETER_PX)
    for border, apart_by in ((0.5, 0.75), (1.0, 1.5), (0.0, 0.2)):
        options = PickOptions(border=border, min_distance=apart_by, floor=0)
        found = Picker(bundle, options, device="cpu", threads=1).pick(image, PIXEL_A)
        assert len(found) > 5
        points = np.stack([found.x, found.y], 1)
        distance = np.hypot(*(points[:, None] - points).transpose(2, 0, 1)) + 1e9 * np.eye(len(points))
        assert distance.min() >= apart_by * DIAMETER_PX - 1e-3
        edge = border * DIAMETER_PX - 0.5 - 1e-3
        assert found.x.min() >= edge
        assert found.y.min() >= edge
        assert found.x.max() <= 299 - edge
        assert found.y.max() <= 159 - edge
    assert found.x.min() < DIAMETER_PX / 2  # with no border there are some


@pytest.mark.parametrize("place", [(17.0, 80.0), (80.0, 17.0), (282.0, 80.0), (150.0, 142.0)])
def test_a_particle_just_inside_the_border_is_found_though_its_box_reaches_over_the_edge(
    picker: Picker, place: tuple[float, float]
) -> None:
    assert min(place[0], place[1], 299 - place[0], 159 - place[1]) < LAYOUT.box / 2
    found = picker.pick(planted((160, 300), [place], DIAMETER_PX, 0.5), PIXEL_A)
    assert (found.x[0], found.y[0]) == pytest.approx(place, abs=3)
    assert found.score[0] > picker.threshold


@pytest.mark.parametrize("shape", [(160, 300), (161, 303), (158, 298)])
def test_the_margin_is_mirrored_and_the_grid_reaches_beyond_the_border_on_all_sides(
    picker: Picker, shape: tuple[int, int]
) -> None:
    prepared = picker.prepare(planted(shape, [], DIAMETER_PX), PIXEL_A)
    padded, before = picker._padded(prepared.image)
    ny, nx = shape
    np.testing.assert_array_equal(padded[before : before + ny, before : before + nx], prepared.image)
    np.testing.assert_array_equal(padded[:before], padded[before : 2 * before][::-1])
    np.testing.assert_array_equal(
        padded[:, before + nx :], padded[:, 2 * nx + 2 * before - padded.shape[1] : before + nx][:, ::-1]
    )
    scores = picker.run(prepared)
    border = picker.options.border * DIAMETER_PX - 0.5
    assert scores.origin < border  # so that a maximum at the border has a neighbour on the other side
    for count, extent in zip(scores.log_odds.shape, shape, strict=True):
        assert scores.origin + (count - 1) * scores.stride > extent - 1 - border


def test_the_band_of_standard_deviations_takes_rubbish_away(bundle: Bundle) -> None:
    image = planted(SHAPE, CENTRES, DIAMETER_PX)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    disc = np.hypot(rows - 230, columns - 90) < 15
    image[disc] -= 3 + np.random.default_rng(2).normal(0, 8, disc.sum()).astype(np.float32)
    found = Picker(bundle, device="cpu", threads=1).pick(image, PIXEL_A)
    rubbish = np.hypot(found.x - 90, found.y - 230) < 10
    assert found.sd[rubbish].min() > 2 * found.sd[~rubbish].max()
    options = PickOptions(sd_range=(0.0, 2.5))
    kept = Picker(bundle, options, device="cpu", threads=1).picked(found)
    assert not kept[rubbish].any()
    assert int(kept.sum()) == len(CENTRES)


def test_the_threshold_is_the_cards_unless_another_is_given(bundle: Bundle, picker: Picker) -> None:
    assert picker.threshold == 0.4
    high = Picker(bundle, PickOptions(threshold=0.999), device="cpu", threads=1)
    found = picker.pick(planted(SHAPE, CENTRES, DIAMETER_PX), PIXEL_A)
    np.testing.assert_array_equal(high.picked(found), found.score >= 0.999)


def test_two_micrographs_may_be_prepared_before_the_first_is_decided(picker: Picker) -> None:
    one = picker.prepare(planted(SHAPE, CENTRES, DIAMETER_PX), PIXEL_A)
    two = picker.prepare(planted((300, 400), [(200, 150)], DIAMETER_PX), PIXEL_A)
    second, first = picker.run(two), picker.run(one)
    assert len(picker.decide(one, first).take(picker.picked(picker.decide(one, first)))) == len(CENTRES)
    assert picker.decide(two, second).x[0] == pytest.approx(200, abs=3)
    assert first.scores.max() <= 1
    at = np.unravel_index(first.log_odds.argmax(), first.log_odds.shape)
    centre = [first.origin + k * first.stride for k in at]
    assert min(math.dist(centre, (y, x)) for x, y in CENTRES) < first.stride


def test_warming_up_checks_the_scan_against_the_network(picker: Picker) -> None:
    report = picker.warm_up()
    assert report.difference < 1e-5
    assert report.device == "cpu"
    assert report.seconds > 0
    assert "cpu (1 threads)" in str(report)
    assert report.to_json()["threads"] == 1


def test_a_module_that_does_not_answer_what_its_weights_say_is_refused(tmp_path: Path) -> None:
    net = Off(LAYOUT, activation="relu").eval()
    net.load_state_dict(detector().state_dict())
    with pytest.raises(BundleError, match="differs by") as refused:
        Picker(save(tmp_path, net), device="cpu", threads=1).warm_up()
    assert refused.value.reason == "tolerance"


def test_bundles_that_are_no_pickers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as refused:
        Picker(save(tmp_path, detector(), task="hits"))
    assert refused.value.reason == "task"
    with pytest.raises(BundleError) as refused:
        Picker(save(tmp_path, detector(), output={"classes": ["a", "b"], "kind": "probabilities"}))
    assert refused.value.reason == "classes"
    bare = {key: value for key, value in CARD["input"].items() if key != "pixel_a"}
    with pytest.raises(BundleError, match="pixel_a") as refused:
        Picker(save(tmp_path, detector(), input=bare))
    assert refused.value.reason == "card"
    with pytest.raises(BundleError) as refused:
        Picker(save(tmp_path, detector(), input=CARD["input"] | {"shape": [1, 50, 50]}))
    assert refused.value.reason == "shape"
    with pytest.raises(BundleError, match="not a DeepEM network") as refused:
        Picker(save(tmp_path, torch.nn.Linear(3, 1)))
    assert refused.value.reason == "format"
    with pytest.raises(BundleError) as refused:
        Picker(save(tmp_path, detector()), device="toaster")
    assert refused.value.reason == "device"


@pytest.mark.parametrize(
    ("shape", "pixel_a", "said"),
    [
        ((300, 300), None, r"does not state it; .*decode\.pixel_a.*--pixel-size"),
        ((300, 300), 0.0, r"above 0.*decode\.pixel_a"),
        ((300, 300), 0.1, r"factor of 50.*decode\.pixel_a"),
        ((300, 300), 9.0, r"factor of 0\.556.*decode\.pixel_a"),
        ((300, 300), 0.5, r"less than one box of 48"),
        ((30, 300), 5.0, r"less than one box of 48"),
    ],
)
def test_micrographs_of_unknown_or_absurd_scale_are_refused(
    picker: Picker, shape: tuple[int, int], pixel_a: float | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        picker.prepare(np.random.default_rng(0).normal(size=shape), pixel_a)


def test_an_empty_micrograph_is_refused_and_one_of_noise_has_no_picks(picker: Picker) -> None:
    with pytest.raises(ValueError, match="same value"):
        picker.prepare(np.zeros((300, 300)), PIXEL_A)
    found = picker.pick(planted(SHAPE, [], DIAMETER_PX), PIXEL_A)
    assert not picker.picked(found).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.5}, {"floor": 1.0}, {"floor": -0.1}, {"sd_range": (2.0, 1.0)}, {"min_distance": -1.0},
        {"border": math.nan}, {"rotations": 3},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PickOptions(**wrong)


@settings(deadline=None)
@given(y=st.floats(3.5, 6.5), x=st.floats(3.5, 8.5), tilt=st.floats(-0.6, 0.6))
def test_the_top_of_a_paraboloid_is_found_between_the_grid_points(y: float, x: float, tilt: float) -> None:
    rows, columns = np.ogrid[:11, :13]
    dy, dx = rows - y, columns - x
    surface = (5 - dy**2 - 1.5 * dx**2 + tilt * dy * dx).astype(np.float32)
    i, j, height = maxima(surface, 0.1)
    assert (i[0], j[0]) == (pytest.approx(y, abs=1e-3), pytest.approx(x, abs=1e-3))
    assert height[0] == surface.max()


def test_flat_and_tiny_maps_and_the_rim_have_no_maxima() -> None:
    assert len(maxima(np.full((9, 9), 3, np.float32), 0.1)[0]) == 0
    assert len(maxima(np.ones((2, 9), np.float32), 0.1)[0]) == 0
    rim = np.zeros((9, 9), np.float32)
    rim[0, 4] = rim[4, 8] = 7
    assert len(maxima(rim, 0.1)[0]) == 0


def test_maxima_below_the_floor_are_none() -> None:
    surface = np.full((9, 9), -9, np.float32)
    surface[2, 2], surface[6, 6] = math.log(0.3 / 0.7) - 1e-4, math.log(0.3 / 0.7) + 1e-4
    i, j, _ = maxima(surface, 0.3)
    assert (i.tolist(), j.tolist()) == ([6], [6])
    assert len(maxima(surface, 0.0)[0]) == 2


@settings(deadline=None, max_examples=60)
@given(
    points=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5)), max_size=40),
    distance=st.floats(0, 12),
)
def test_suppression_is_the_greedy_one(points: list[tuple[int, int, int]], distance: float) -> None:
    x, y, score = np.array(points, float).reshape(-1, 3).T
    order = sorted(range(len(points)), key=lambda k: (-score[k], k))
    expected: list[int] = []
    for k in order:
        if all(math.dist((x[k], y[k]), (x[m], y[m])) >= distance for m in expected):
            expected.append(k)
    assert apart(x, y, score, distance).tolist() == expected


def test_points_exactly_as_far_apart_as_they_have_to_be_both_stay() -> None:
    assert apart([0, 3, 3], [0, 4, 3], [1, 0.5, 0.7], 5.0).tolist() == [0, 1]
    assert apart([0, 3], [0, 4], [1, 0.5], 5.001).tolist() == [0]


def test_the_disc_is_the_one_around_the_point_and_ends_at_the_edge() -> None:
    image = np.random.default_rng(0).normal(2, 3, (60, 90)).astype(np.float32)
    rows, columns = np.ogrid[:60, :90]
    places = [(40.0, 20.0), (3.2, 57.6), (0.0, 0.0)]
    x, y = zip(*places, strict=True)
    found = disc_sd(image, x, y, 15)
    for (column, row), spread in zip(places, found, strict=True):
        disc = np.hypot(rows - round(row), columns - round(column)) <= 7.5
        assert spread == pytest.approx(image[disc].std(), rel=1e-5)
