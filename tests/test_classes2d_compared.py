"""What is compared to find a particle's class."""

import numpy as np
from beamsieve.models.classes2d.compared import SMOOTH_PX, compared, smoothed
from scipy.ndimage import gaussian_filter


def test_smoothing_is_a_gaussian_filter() -> None:
    images = np.random.default_rng(1).standard_normal((5, 64, 64), np.float32)
    expected = gaussian_filter(images, (0, SMOOTH_PX, SMOOTH_PX), mode="reflect", truncate=8)
    assert np.allclose(smoothed(images), expected, atol=1e-5)


def test_both_weigh_the_same_whatever_their_units() -> None:
    rng = np.random.default_rng(2)
    images, denoised = (rng.standard_normal((4, 64, 64), np.float32) for _ in range(2))
    once = compared(images, denoised)
    assert np.allclose(once, compared(images * 3 + 1, denoised * 0.01 - 5), atol=1e-3)
    for part in (smoothed(images), denoised):
        for one, other in zip(part, once, strict=True):
            assert 0.6 < np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.8


def test_what_has_no_contrast_adds_nothing() -> None:
    images = np.random.default_rng(3).standard_normal((2, 64, 64), np.float32)
    flat = np.full_like(images, 7)
    assert np.allclose(compared(images, flat).std((1, 2)), 1, atol=1e-3)
    assert not compared(flat, flat).any()
