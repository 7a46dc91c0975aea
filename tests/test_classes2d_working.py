"""Working images: the middle stays in the middle, the scale is one, and what is no picture is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.classes2d.working import EDGE, scaled, working
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = [32, 46, 64, 100, 128]


def spots(size: int, n: int = 3) -> npt.NDArray[np.float64]:
    """Smooth spots in the middle of their boxes, one box after the other wider."""
    away = (np.arange(size) - size // 2) / size
    square = away[:, None] ** 2 + away**2
    return np.stack([np.exp(-square / (2 * (0.05 + 0.02 * i) ** 2)) for i in range(n)])


@pytest.mark.parametrize("size", SIZES)
def test_every_size_gives_the_same_picture_with_its_middle_at_32_32(size: int) -> None:
    images, good = working(spots(size))
    assert images.shape == (3, EDGE, EDGE)
    assert images.dtype == np.float32
    assert good.tolist() == [True] * 3
    for image in images:
        assert np.unravel_index(image.argmax(), image.shape) == (32, 32)
    np.testing.assert_allclose(images, working(spots(256))[0], atol=2e-3)


@pytest.mark.parametrize("size", SIZES)
def test_waves_that_both_grids_hold_are_kept_exactly(size: int) -> None:
    def wave(edge: int) -> npt.NDArray[np.float64]:
        at = (np.arange(edge) - edge // 2) / edge
        return (2 + np.cos(2 * np.pi * 9 * at)[:, None] + np.sin(2 * np.pi * (5 * at[:, None] - 13 * at)))[None]

    np.testing.assert_allclose(scaled(wave(size), EDGE), wave(EDGE), atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_a_mirrored_particle_gives_a_mirrored_image(size: int) -> None:
    plain = np.random.default_rng(7).standard_normal((2, size, size))
    for axis in (1, 2):
        # Around the middle: row 0 has no partner.
        mirrored = np.roll(np.flip(plain, axis), 1, axis)
        np.testing.assert_allclose(working(mirrored)[0], np.roll(np.flip(working(plain)[0], axis), 1, axis), atol=1e-5)


def test_waves_finer_than_the_working_image_are_gone_and_not_folded() -> None:
    at = np.arange(128)
    fine = np.cos(2 * np.pi * 50 * at / 128)[None, None, :] * np.ones((1, 128, 1))
    np.testing.assert_allclose(scaled(fine, EDGE), 0, atol=1e-9)
    images, good = working(fine)
    assert not good[0]
    assert not images.any()


@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32"]),
    size=st.sampled_from(SIZES),
    seed=st.integers(0, 99),
)
def test_mean_and_spread_are_those_promised_for_every_dtype(dtype: str, size: int, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 100, (2, size, size)).astype(dtype)
    images, good = working(counts)
    assert good.all()
    np.testing.assert_allclose(images.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize(("scale", "offset"), [(1e-30, 0.0), (1e30, 0.0), (1e200, -1e200), (3.0, 5e4), (0.5, -7.0)])
def test_brightness_and_contrast_do_not_matter(scale: float, offset: float) -> None:
    plain = np.random.default_rng(1).standard_normal((2, 80, 80))
    changed, good = working(plain * scale + offset)
    assert good.all()
    np.testing.assert_allclose(changed, working(plain)[0], atol=2e-4)


def test_particles_stay_white() -> None:
    image = working(spots(96))[0][0]
    assert image[32, 32] > 3
    assert image[0, 0] < 0


def broken() -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((64, 64)).astype(np.float32)
    hole, overflow = noise.copy(), noise.copy()
    hole[3, 7] = np.nan
    overflow[60, 1] = -np.inf
    return {
        "constant": np.full((64, 64), 5, np.float32),
        "zero": np.zeros((64, 64), np.float32),
        "hole": hole,
        "infinite": overflow,
        "all NaN": np.full((64, 64), np.nan, np.float32),
        "rounding": 1000 + 1e-4 * noise,
    }


def test_what_is_no_picture_is_told_and_becomes_zero_and_its_neighbours_are_untouched() -> None:
    bad = broken()
    fine = np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)
    given = np.stack([fine, *bad.values(), fine])
    images, good = working(given)
    assert good.tolist() == [True, *[False] * len(bad), True]
    assert np.isfinite(images).all()
    assert not images[1:-1].any()
    np.testing.assert_array_equal(images[[0, -1]], working(given[[0, -1]])[0])


def test_many_are_worked_in_pieces_and_none_is_fine() -> None:
    many = np.random.default_rng(4).standard_normal((600, 32, 32)).astype(np.float32)
    images, good = working(many)
    assert good.all()
    np.testing.assert_array_equal(images[550:], working(many[550:])[0])
    none, nothing = working(np.zeros((0, 128, 128), np.float32))
    assert none.shape == (0, EDGE, EDGE)
    assert nothing.shape == (0,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((64, 64)), "square boxes"),
        (np.zeros((2, 64, 62)), "square boxes"),
        (np.zeros((2, 63, 63)), "even"),
        (np.zeros((2, 64, 64), complex), "complex"),
        (np.array([["a"]]), "square"),
    ],
)
def test_other_shapes_and_dtypes_are_refused(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        working(given)


def test_an_odd_edge_is_refused() -> None:
    with pytest.raises(ValueError, match="use 64"):
        working(np.zeros((1, 64, 64)), edge=63)
