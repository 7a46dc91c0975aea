"""Particles are cut out where they are, shrunk about their middle, and normalised outside the particle."""

from __future__ import annotations

import numpy as np
import pytest
from beamsieve.models.particles.extract import _cropped, corners, extract, inside

SHAPE = (300, 420)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 4, SHAPE).astype(np.float32)


def outside(size: int, diameter: float) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    circle: np.ndarray = np.hypot(rows - size // 2, columns - size // 2) > diameter / 2
    return circle


@pytest.mark.parametrize("box", [32, 64])
@pytest.mark.parametrize("dtype", ["float32", "uint16", "int16", "float16"])
def test_the_pixel_at_the_centre_is_the_middle_one_of_the_box(box: int, dtype: str) -> None:
    image = np.rint(noise()).astype(dtype)
    image[71, 203] = 1000
    for x, y in ((203, 71), (202.5, 70.5), (203.49, 71.49)):
        particle = extract(image, [x], [y], box_px=box, size=box, diameter_px=20, invert=False)
        assert particle.shape == (1, box, box)
        assert particle.dtype == np.float32
        assert np.unravel_index(particle[0].argmax(), (box, box)) == (box // 2, box // 2)


def test_boxes_begin_half_a_box_before_the_nearest_pixel() -> None:
    column, row = corners([100.49, 100.5, -0.5], [7, 7.2, 0.4], 10)
    assert column.tolist() == [95, 96, -5]
    assert row.tolist() == [2, 2, -5]


def test_without_shrinking_the_pixels_are_those_of_the_micrograph() -> None:
    image = noise()
    particle = extract(image, [150], [90], box_px=40, size=40, diameter_px=30, invert=False)[0]
    cut = image[70:110, 130:170]
    assert np.corrcoef(particle.ravel(), cut.ravel())[0, 1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("box", "size"), [(96, 64), (272, 128), (100, 98), (64, 64)])
def test_shrinking_keeps_the_middle_the_mean_and_what_is_coarse(box: int, size: int) -> None:
    rows, columns = np.mgrid[:box, :box] - box / 2
    wide = np.exp(-(rows**2 + 2 * columns**2) / (2 * (box / 8) ** 2)).astype(np.float32)
    small = _cropped(wide[None], size)[0]
    scale = box / size
    rows, columns = (np.mgrid[:size, :size] - size / 2) * scale
    np.testing.assert_allclose(small, np.exp(-(rows**2 + 2 * columns**2) / (2 * (box / 8) ** 2)), atol=2e-3)
    assert small.mean() == pytest.approx(wide.mean(), rel=1e-4)


def test_shrinking_takes_away_what_would_come_back_as_something_else() -> None:
    fine = np.cos(2 * np.pi * 0.4 * np.arange(100)).astype(np.float32)[None, None] * np.ones((1, 100, 1), np.float32)
    assert np.abs(_cropped(fine, 50)).max() < 1e-3
    # Exactly half the new rate stands for two frequencies at once: it would depend on the phase whether it is seen.
    half = np.cos(2 * np.pi * 0.25 * np.arange(100)).astype(np.float32)
    for wave in (np.tile(half, (1, 100, 1)), np.tile(half[:, None], (1, 1, 100))):
        assert np.abs(_cropped(wave, 50)).max() < 1e-3


@pytest.mark.parametrize("ramp", [False, True])
def test_the_background_has_mean_0_and_sd_1(ramp: bool) -> None:
    x, y = np.random.default_rng(1).uniform(60, 240, (2, 150))
    particles = extract(noise(), x, y, box_px=96, size=48, diameter_px=60, invert=False, ramp=ramp)
    around = particles[:, outside(48, 30)]
    np.testing.assert_allclose(around.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(around.std(1), 1, atol=1e-5)


def test_the_particle_itself_does_not_count_for_the_normalisation() -> None:
    image = noise()
    plain = extract(image, [200], [150], box_px=80, size=80, diameter_px=40, invert=False)[0]
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    image[np.hypot(rows - 150, columns - 200) < 19] -= 500
    dark = extract(image, [200], [150], box_px=80, size=80, diameter_px=40, invert=False)[0]
    np.testing.assert_allclose(dark[outside(80, 40)], plain[outside(80, 40)], atol=1e-4)
    assert dark[40, 40] < -50
    white = extract(image, [200], [150], box_px=80, size=80, diameter_px=40, invert=True)[0]
    np.testing.assert_array_equal(white, -dark)


def test_a_ramp_is_taken_away_where_that_is_asked_for() -> None:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    flat = noise()
    tilted = (flat + 0.5 * rows - 0.2 * columns).astype(np.float32)
    kwargs = {"box_px": 64, "size": 64, "diameter_px": 40, "invert": False}
    expected = extract(flat, [200], [150], ramp=True, **kwargs)  # type: ignore[arg-type]
    np.testing.assert_allclose(extract(tilted, [200], [150], ramp=True, **kwargs), expected, atol=1e-3)  # type: ignore[arg-type]
    assert np.abs(extract(tilted, [200], [150], **kwargs) - expected).max() > 1  # type: ignore[arg-type]


def test_what_lies_outside_the_micrograph_is_the_mean_of_what_lies_inside() -> None:
    image = noise()
    box = extract(image, [2], [290], box_px=40, size=40, diameter_px=24, invert=False)[0]
    there = np.zeros((40, 40), bool)
    there[:30, 18:] = True  # rows 270 to 299, columns 0 to 21
    cut = image[270:300, :22]
    np.testing.assert_allclose(np.ptp(box[~there]), 0, atol=1e-6)
    scale = np.polyfit(cut.ravel(), box[there].ravel(), 1)
    assert box[~there][0] == pytest.approx(np.polyval(scale, cut.mean(dtype=np.float64)), abs=1e-4)


def test_boxes_over_the_edge_are_dropped_where_that_is_asked_for() -> None:
    x, y = [20.0, 19.0, 400.0, 401.0, 200.0], [150.0, 150.0, 150.0, 150.0, 281.0]
    kept = inside(SHAPE, x, y, 40)
    assert kept.tolist() == [True, False, True, False, False]
    whole = extract(noise(), x, y, box_px=40, size=20, diameter_px=20, invert=True)
    dropped = extract(noise(), x, y, box_px=40, size=20, diameter_px=20, invert=True, edges="drop")
    np.testing.assert_array_equal(dropped, whole[kept])


def test_pixels_that_are_no_numbers_become_the_mean() -> None:
    image = noise()
    image[150, 200:205] = np.nan
    image[148, 200] = np.inf
    assert np.isfinite(extract(image, [200], [150], box_px=64, size=32, diameter_px=30, invert=True)).all()


def test_a_background_without_variance_is_left_at_zero() -> None:
    image = np.full(SHAPE, 1234.567, np.float32)
    image[150, 200] = 2000
    found = extract(image, [200], [150], box_px=64, size=64, diameter_px=30, invert=False)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[outside(64, 30)], 0, atol=1e-3)
    # The last bit of a number is no variance, and is not blown up to an s.d. of 1; with a ramp neither.
    bits = np.where(noise() > 50, np.float32(10_000), np.nextafter(np.float32(10_000), np.float32(0)))
    for ramp in (False, True):
        empty = extract(bits, [200], [150], box_px=64, size=32, diameter_px=30, invert=False, ramp=ramp)
        np.testing.assert_allclose(empty, 0, atol=0.01)


def test_more_than_one_chunk_comes_in_order_and_none_gives_none() -> None:
    image = noise()
    x, y = np.random.default_rng(3).uniform(40, 260, (2, 150))
    every = extract(image, x, y, box_px=32, size=16, diameter_px=16, invert=True)
    one = extract(image, x[140:141], y[140:141], box_px=32, size=16, diameter_px=16, invert=True)
    np.testing.assert_allclose(every[140:141], one, atol=1e-5)
    assert extract(image, [], [], box_px=32, size=16, diameter_px=16, invert=True).shape == (0, 16, 16)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"box_px": 41}, "even"),
        ({"size": 15}, "even"),
        ({"size": 64}, "not enlarged"),
        ({"edges": "wrap"}, "edges"),
        ({"diameter_px": 70.0}, "fills its box"),
    ],
)
def test_impossible_boxes_are_refused(changes: dict[str, object], said: str) -> None:
    kwargs = {"box_px": 40, "size": 20, "diameter_px": 20.0, "invert": True} | changes
    with pytest.raises(ValueError, match=said):
        extract(noise(), [200], [150], **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("centre", [(-25.0, 150.0), (445.0, 150.0), (200.0, -21.0), (200.0, 330.0)])
def test_centres_outside_the_micrograph_are_refused(centre: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="centre 0"):
        extract(noise(), [centre[0]], [centre[1]], box_px=40, size=20, diameter_px=20, invert=True)
