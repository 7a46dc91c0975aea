"""The most similar images of each image, as they lie and turned in the plane, and the mean of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.classes2d.averages import turned
from beamsieve.models.classes2d.neighbours import find, lowpassed, means, nearest, standardised
from hypothesis import given, settings
from hypothesis import strategies as st

Floats = npt.NDArray[np.float32]
K = 6


def slow(images: Floats, k: int, among: Floats | None = None) -> npt.NDArray[np.intp]:
    """Neighbours by numpy's own correlation coefficients, all at once."""
    rows = images.reshape(len(images), -1)
    others = rows if among is None else among.reshape(len(among), -1)
    alike = np.corrcoef(rows, others)[: len(rows), len(rows) :]
    if among is None:
        np.fill_diagonal(alike, -np.inf)
    return np.argsort(-alike, axis=1)[:, :k]


@pytest.mark.parametrize("count", [7, 300, 530])  # below, and no multiple of, what is compared at once
def test_neighbours_are_those_of_the_slow_way(count: int) -> None:
    images = np.random.default_rng(count).normal(3, 2, (count, 6, 6)).astype(np.float32)
    assert np.array_equal(nearest(images, 5), slow(images, 5))
    found = find(images[:9], 5, among=images[9:] if count > 20 else images)
    assert np.array_equal(found.index, slow(images[:9], 5, images[9:] if count > 20 else images))
    assert (np.diff(found.similarity, axis=1) <= 0).all()


def test_an_image_is_its_own_neighbour_only_when_asked_for() -> None:
    images = np.random.default_rng(0).normal(size=(40, 8, 8)).astype(np.float32)
    assert not (nearest(images, 39) == np.arange(40)[:, None]).any()
    with_itself = find(images, 3, itself=True)
    assert (with_itself.index[:, 0] == np.arange(40)).all()
    assert with_itself.similarity[:, 0] == pytest.approx(1, abs=1e-5)
    assert np.array_equal(with_itself.index[:, 1:], nearest(images, 2))


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(0.01, 100), offset=st.floats(-50, 50))
def test_brightness_and_contrast_do_not_matter(gain: float, offset: float) -> None:
    images = np.random.default_rng(1).normal(size=(30, 8, 8)).astype(np.float32)
    changed = images.copy()
    changed[::3] = changed[::3] * np.float32(gain) + np.float32(offset)
    assert (nearest(changed, 3) == nearest(images, 3)).mean() > 0.97


def test_constant_images_are_like_nothing_and_raise_nothing() -> None:
    images = np.random.default_rng(2).normal(size=(20, 8, 8)).astype(np.float32)
    images[4] = 7
    assert (standardised(images)[4] == 0).all()
    found = find(images, 19)
    assert np.isfinite(found.similarity).all()
    assert (found.similarity[4] == 0).all()


def test_fewer_images_than_neighbours_are_all_of_them_and_none_is_refused() -> None:
    images = np.random.default_rng(3).normal(size=(4, 8, 8)).astype(np.float32)
    assert nearest(images, 30).shape == (4, 3)
    assert find(images, 30, among=images[:2]).index.shape == (4, 2)
    with pytest.raises(ValueError, match="more images"):
        nearest(images[:1], 30)


def test_the_mean_is_of_the_neighbours_and_in_their_units() -> None:
    images = np.random.default_rng(4).normal(5, 1, (50, 8, 8)).astype(np.float32)
    neighbours = nearest(images, 4)
    assert np.allclose(means(images, neighbours), images[neighbours].mean(1), atol=1e-5)
    large = np.random.default_rng(5).normal(size=(60, 64, 64)).astype(np.float32)
    told: list[tuple[int, int]] = []
    whole = means(large, nearest(large, 30), each=lambda done, of: told.append((done, of)))  # more than one block
    assert np.allclose(whole[-1], large[nearest(large, 30)[-1]].mean(0), atol=1e-5)
    assert len(told) > 1
    assert told[-1] == (60, 60)


def test_what_each_raises_stops_the_search() -> None:
    images = np.random.default_rng(6).normal(size=(600, 8, 8)).astype(np.float32)
    told = []

    def once(done: int, of: int) -> None:
        told.append((done, of))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        find(images, 3, each=once)
    assert told == [(256, 600)]


def blobs(kind: int) -> Floats:
    """A shape without symmetry, (64, 64): three blobs of different size, further apart for other kinds."""
    y, x = np.mgrid[:64, :64] - 32.0
    image = np.zeros((64, 64))
    for bx, by, width, weight in ((0, 0, 5, 1.0), (9 + 3 * kind, 0, 3, 0.8), (0, 6 + 2 * kind, 2, 0.9 - 0.6 * kind)):
        image += weight * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / (2 * width**2))
    return image.astype(np.float32)


def turned_set(count: int, noise: float) -> tuple[Floats, Floats, npt.NDArray[np.intp]]:
    """Two shapes at any angle, up to 3 pixels off the middle: noisy, clean, which."""
    rng = np.random.default_rng(7)
    kind = rng.integers(0, 2, count)
    both = np.stack([blobs(0), blobs(1)])
    clean = turned(both[kind], rng.uniform(-180, 180, count), rng.uniform(-3, 3, (count, 2)))
    return clean + rng.normal(0, noise, clean.shape).astype(np.float32), clean, kind


def mean_correlation(one: Floats, other: Floats) -> float:
    return float((standardised(one) * standardised(other)).sum(1).mean())


def test_turned_and_shifted_neighbours_are_found_and_laid_onto_the_image() -> None:
    images, clean, kind = turned_set(80, 0.02)
    found = find(images, K, aligned=True)
    assert (kind[found.index] == kind[:, None]).mean() > 0.98
    assert not (found.index == np.arange(80)[:, None]).any()
    assert mean_correlation(means(images, found), clean) > 0.97
    # As they lie, the same neighbours tell nothing: that it is the turning, and in the right sense.
    assert mean_correlation(means(images, found.index), clean) < 0.9
    backwards = find(images, K, aligned=True)
    assert backwards.angle is not None
    np.negative(backwards.angle, out=backwards.angle)
    assert mean_correlation(means(images, backwards), clean) < 0.9


def test_turned_neighbours_of_other_images_and_blocks_are_the_same() -> None:
    images, _, _ = turned_set(90, 0.1)
    whole = find(images[:70], K, among=images[70:], aligned=True)
    alone = find(images[66:70], K, among=images[70:], aligned=True)  # in the second block of the former
    assert np.array_equal(whole.index[66:], alone.index)
    assert np.allclose(means(images[70:], whole)[66:], means(images[70:], alone), atol=1e-4)


def test_the_fast_turn_is_that_of_the_class_averages() -> None:
    """Neighbours are laid bilinearly; ``averages.turned`` takes splines. On smooth images they agree."""
    images, _, _ = turned_set(30, 0.0)
    found = find(images, K, aligned=True)
    assert found.angle is not None
    assert found.shift is not None
    flat = images[found.index[:5]].reshape(-1, 64, 64)
    slowly = turned(flat, found.angle[:5].ravel(), found.shift[:5].reshape(-1, 2)).reshape(5, K, 64, 64).mean(1)
    assert np.abs(means(images, found)[:5] - slowly)[:, 10:-10, 10:-10].max() < 0.03


def test_low_passed_images_keep_means_and_coarse_structure() -> None:
    image = blobs(0)[None]
    small = lowpassed(image, 32)
    assert small.shape == (1, 32, 32)
    assert small.mean() == pytest.approx(image.mean(), rel=1e-4)
    assert np.allclose(small[0], image[0, ::2, ::2], atol=0.03)
