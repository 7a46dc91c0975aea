"""What a picker's network sees: exact coordinates for every factor, robust to what cameras do, flat and standard."""

from __future__ import annotations

import numpy as np
import pytest
from beamsieve.models.particles.prepare import (
    CLIP,
    normalise,
    prepare,
    rescale,
    robust,
    scale_factor,
    to_full,
    to_small,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def blob(shape: tuple[int, int], y: float, x: float, sigma: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)).astype(np.float32)


def centroid(image: np.ndarray) -> tuple[float, float]:
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    total = image.sum(dtype=np.float64)
    return float((rows * image).sum() / total), float((columns * image).sum() / total)


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(
    factor=st.floats(0.7, 6.0),
    y=st.floats(60, 90),
    x=st.floats(70, 130),
)
def test_a_blob_is_where_the_formula_says_for_any_factor(factor: float, y: float, x: float) -> None:
    small = rescale(blob((151, 203), y, x, 9), 1.0, factor)
    assert small.shape == (int(151 / scale_factor(1, factor)), int(203 / scale_factor(1, factor)))
    assert small.dtype == np.float32
    found = to_full(centroid(small), scale_factor(1.0, factor))
    np.testing.assert_allclose(found, (y, x), atol=0.05)


@given(st.floats(-1e5, 1e5), st.floats(0.67, 32))
def test_coordinates_go_there_and_back(at: float, factor: float) -> None:
    np.testing.assert_allclose(to_small(to_full(at, factor), factor), at, rtol=1e-9, atol=1e-6)


def test_pixel_zero_of_a_threefold_binning_is_the_middle_of_the_first_three() -> None:
    np.testing.assert_allclose(to_full([0, 1], 3.0), [1, 4])


@pytest.mark.parametrize("factor", [0.8, 1.37, 2.0, 2.9, 4.096])
def test_a_gradient_stays_the_same_gradient(factor: float) -> None:
    image = np.broadcast_to(np.arange(400, dtype=np.float32), (300, 400)) + 50
    small = rescale(image, 1.0, factor)
    expected = to_full(np.arange(small.shape[1]), factor) + 50
    away = int(np.ceil(3 * max(factor, 1) / factor)) + 1
    rows = np.broadcast_to(expected, small.shape)[:, away:-away]
    np.testing.assert_allclose(small[:, away:-away], rows, atol=0.05)


def test_what_the_smaller_image_cannot_show_is_taken_away_before() -> None:
    wave = np.sin(2 * np.pi * 0.37 * np.arange(600))[None] * np.ones((600, 1))  # cycles per pixel; binned: 0.25 at most
    assert rescale(wave, 1.0, 2.0)[20:-20, 20:-20].std() < 0.15 * wave.std()
    slow = np.sin(2 * np.pi * 0.05 * np.arange(600))[None] * np.ones((600, 1))
    assert rescale(slow, 1.0, 2.0)[20:-20, 20:-20].std() == pytest.approx(slow.std(), rel=0.02)


def test_upscaling_draws_a_smooth_line_between_the_pixels() -> None:
    wave = np.cos(2 * np.pi * 0.15 * np.arange(300))[None] * np.ones((80, 1))
    large = rescale(wave, 1.0, 0.7)
    assert large.shape == (114, 428)
    expected = np.cos(2 * np.pi * 0.15 * to_full(np.arange(428), 0.7))
    np.testing.assert_allclose(large[20:-20, 20:-20], np.broadcast_to(expected, (114, 428))[20:-20, 20:-20], atol=0.02)


@pytest.mark.parametrize("factor", [1.1, 1.5, 2.3])
def test_noise_is_as_strong_everywhere_whatever_the_factor(factor: float) -> None:
    columns = rescale(noise((1500, 600)), 1.0, factor).std(axis=0)[5:-5]
    assert columns.std() / columns.mean() < 0.06  # area binning by 1.1 gives 0.12


def test_hot_pixels_and_what_is_no_number_leave_no_trace() -> None:
    image = noise((300, 360)) * 10 + 100
    expected = rescale(image, 1.0, 3.0)
    for value in (np.nan, np.inf, -np.inf, 1e30):
        bad = image.copy()
        bad[50, 60] = value
        found = rescale(bad, 1.0, 3.0)
        assert np.isfinite(found).all()
        # The median where nothing is known; ten s.d. where it is too bright to be true.
        assert np.abs(found - expected).max() < (5 if not np.isfinite(value) else 15)
        assert np.abs(normalise(bad) - normalise(image))[bad == image].max() < 0.02


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float16", "float32", "float64"])
def test_every_real_dtype_gives_the_same(dtype: str) -> None:
    image = np.rint(noise((200, 260)) * 8 + 60).astype(dtype)
    expected = prepare(image.astype(np.float64), 1.0, 1.7, 30)
    np.testing.assert_allclose(prepare(image, 1.0, 1.7, 30), expected, atol=1e-5)


def test_the_micrograph_itself_is_not_changed() -> None:
    image = noise((90, 120))
    image[3, 4] = np.nan
    before = image.copy()
    prepare(image, 1.0, 1.0, 20)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("dose", [0.05, 1.0, 30.0])
def test_counts_of_any_dose_come_out_standard(dose: float) -> None:
    counts = np.random.default_rng(1).poisson(dose, (500, 700)).astype(np.uint8)
    flat = prepare(counts, 1.0, 2.0, 40)
    assert abs(float(flat.mean())) < 0.05
    assert float(flat.std()) == pytest.approx(1, abs=0.05)


def test_gradients_go_and_particles_stay() -> None:
    y, x = np.mgrid[:600, :800] / 800
    image = noise((600, 800), 3) + 20 * x + 10 * y**2
    disc = np.hypot(np.arange(600)[:, None] - 300, np.arange(800) - 400) < 20
    image[disc] -= 2
    flat = normalise(image, diameter_px=40)
    assert abs(np.corrcoef(flat.ravel(), x.ravel())[0, 1]) < 0.02
    assert flat[disc].mean() - flat[:100, :100].mean() == pytest.approx(-2, abs=0.25)


def test_uneven_ice_goes_too() -> None:
    y, x = np.mgrid[:500, :700]
    ice = 3 * np.sin(2 * np.pi * x / 450) * np.cos(2 * np.pi * y / 500)
    flat = normalise(noise((500, 700)) + ice, diameter_px=20)
    left = np.corrcoef(flat.ravel(), ice.ravel())[0, 1]
    assert left**2 < 0.2  # 0.7 before


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(1e-3, 1e4), offset=st.floats(-1e4, 1e4))
def test_gain_and_offset_of_the_camera_do_not_matter(gain: float, offset: float) -> None:
    image = noise((120, 160)).astype(np.float64)
    np.testing.assert_allclose(normalise(gain * (image + offset)), normalise(image), atol=0.01)


def test_dark_rubbish_does_not_change_the_scale_and_is_cut_off() -> None:
    image = noise((400, 400))
    expected = normalise(image, diameter_px=20)
    image[50:54, 70:74] -= 300
    found = normalise(image, diameter_px=20)
    assert found[51, 71] < -0.99 * CLIP
    assert np.abs(found).max() <= CLIP
    assert np.abs(found - expected)[200:, 200:].max() < 0.02


def test_robust_numbers_of_a_sample_with_outliers() -> None:
    image = noise((500, 500)) * 3 + 7
    image[::50] = 1000
    centre, spread = robust(image)
    assert centre == pytest.approx(7, abs=0.05)
    assert spread == pytest.approx(3, abs=0.05)


def test_a_few_lit_pixels_are_something_to_normalise() -> None:
    image = np.zeros((1100, 1100), np.uint8)
    image[301, 407] = 9  # not in the sample of every second pixel
    assert normalise(image)[301, 407] > 1


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full((50, 60), 7, np.uint16), "same value"),
        (np.full((50, 60), np.nan), "finite"),
        (np.zeros((3, 50, 60)), "shape"),
        (np.zeros((0, 60)), "shape"),
        (np.zeros((50, 60), complex), "dtype"),
    ],
)
def test_what_is_no_micrograph_is_refused(image: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        normalise(image)


@pytest.mark.parametrize(
    ("pixel_a", "target_a", "said"),
    [(0, 2, "above 0"), (np.nan, 2, "above 0"), (1, -2, "above 0"), (3.1, 2, "pixel size"), (0.05, 2, "pixel size")],
)
def test_absurd_pixel_sizes_are_refused(pixel_a: float, target_a: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rescale(noise((50, 60)), pixel_a, target_a)


def test_less_than_a_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one"):
        rescale(noise((3, 60)), 1.0, 4.0)


def test_equal_pixel_sizes_change_no_pixel() -> None:
    image = noise((50, 60))
    np.testing.assert_array_equal(rescale(image, 1.06, 1.06), image)
    assert scale_factor(1.0, 1.00005) == 1
    assert scale_factor(1.0, 1.001) == 1.001
