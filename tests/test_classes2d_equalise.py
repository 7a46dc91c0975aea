"""Histogram equalisation of single images."""

from __future__ import annotations

import numpy as np
import pytest
from beamsieve.models.classes2d.equalise import equalised
from skimage.exposure import equalize_hist


@pytest.mark.parametrize("bins", [256, 16])
def test_it_is_scikit_image_s(bins: int) -> None:
    rng = np.random.default_rng(0)
    images = np.stack([rng.normal(size=(64, 64)), rng.exponential(1, (64, 64)), rng.uniform(-9, 9, (64, 64))])
    found = equalised(images, bins)
    wanted = np.stack(
        [equalize_hist(image, nbins=bins) for image in images.astype(np.float32)]  # type: ignore[no-untyped-call]
    )
    assert found.dtype == np.float32
    # A pixel on the edge between two bins may fall to either side of it.
    assert np.abs(found - wanted).max() < 3 / 64**2


def test_grey_values_are_spread_and_keep_their_order() -> None:
    image = np.random.default_rng(1).gamma(0.5, 1, (1, 64, 64)).astype(np.float32) ** 0.3
    found = equalised(image)[0]
    assert found.min() >= 0
    assert found.max() == 1
    counts, _ = np.histogram(found, 8, (0, 1))
    assert counts.min() > 0.6 * 64 * 64 / 8
    order = np.argsort(image.ravel())
    assert (np.diff(found.ravel()[order]) >= 0).all()


def test_images_do_not_know_of_each_other_nor_of_gain_and_offset() -> None:
    images = np.random.default_rng(2).normal(size=(3, 32, 32)).astype(np.float32)
    together = equalised(images)
    assert np.array_equal(together[1], equalised(images[1:2])[0])
    assert np.abs(equalised(5 * images + 3) - together).max() < 3 / 32**2


def test_what_cannot_be_equalised() -> None:
    assert (equalised(np.full((2, 8, 8), 3.0)) == 0).all()
    assert equalised(np.zeros((0, 8, 8))).shape == (0, 8, 8)
    with pytest.raises(ValueError, match="not finite"):
        equalised(np.full((1, 8, 8), np.nan))
    with pytest.raises(ValueError, match=r"\(n, y, x\)"):
        equalised(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="bins"):
        equalised(np.zeros((1, 8, 8)), bins=1)
