"""Rotational spectra: what does not change when a particle turns or moves, and the angle between two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.classes2d.averages import turned
from beamsieve.models.classes2d.polar import (
    MOST_SHIFT_PX,
    ORDERS,
    RINGS,
    compare,
    features,
    normalised,
    turned_spectra,
)
from beamsieve.tests.turned_views import EDGE, off, particles, smoothed, views
from hypothesis import given, settings
from hypothesis import strategies as st

KNOWN = views(6)


def middle_of_mass(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    at = np.arange(EDGE) - EDGE // 2
    moments: npt.NDArray[np.float64] = np.array([(image.sum(0) * at).sum(), (image.sum(1) * at).sum()]) / image.sum()
    return moments


def test_a_turned_and_shifted_particle_is_the_same_and_its_angle_is_found() -> None:
    angle, shift = np.array([0, 17, -63, 90, 179.5]), np.array([[0, 0], [3, -2], [-5, 1], [0.5, 4.2], [-2, -3]])
    found = features(KNOWN.draw(np.zeros(5, int), angle, shift))
    similarity, turn = compare(found.spectra, features(KNOWN.draw(0)).spectra)
    assert similarity.min() > 0.995
    # The view was turned by angle, so it has to be turned back by as much.
    assert off(turn[:, 0], -angle).max() < 0.5


def test_views_differ() -> None:
    spectra = features(KNOWN.draw(np.arange(6))).spectra
    similarity, _ = compare(spectra, spectra)
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-5)
    assert (similarity - np.eye(6)).max() < 0.95
    np.testing.assert_allclose(similarity, similarity.T, atol=2e-3)


def test_shift_is_that_of_the_centre_of_mass_in_x_and_y() -> None:
    moved = np.array([[5.0, -2.0], [0.0, 0.0], [-3.3, 4.4]])
    images = KNOWN.draw(np.zeros(3, int), 0.0, moved)
    found = features(images - images.mean((1, 2), keepdims=True)).shift
    expected = np.array([middle_of_mass(i) for i in images])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.2)


def test_shift_and_angle_bring_the_particle_onto_its_view() -> None:
    some = particles(KNOWN, 60, snr=None, seed=3)
    found = features(some.images)
    reference = KNOWN.draw(np.arange(6))
    own = features(reference)
    _, turn = compare(found.spectra, own.spectra)
    laid = turned(some.images, turn[np.arange(60), some.view], found.shift)
    # The view's own centre of mass comes to the middle, too.
    wanted = turned(reference, 0.0, own.shift)[some.view]
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(laid, wanted, strict=True)]
    assert min(likeness) > 0.99


def test_shift_is_bounded() -> None:
    far = KNOWN.draw(0, 0.0, np.array([[20.0, 0.0]]))
    (shift,) = features(far).shift
    assert np.hypot(*shift) <= MOST_SHIFT_PX + 1e-4
    assert shift[0] > 5


def test_noise_moves_the_centre_by_less_than_a_pixel() -> None:
    some = particles(KNOWN, 200, snr=0.1, seed=4)
    own = features(KNOWN.draw(np.arange(6))).shift[some.view]
    a = np.radians(some.angle)
    x, y = own.T
    expected = some.shift + np.stack([np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y], 1)
    off_px = np.hypot(*(features(smoothed(some.images)).shift - expected).T)
    assert np.median(off_px) < 0.8


def test_a_neighbour_at_the_rim_hardly_moves_the_centre() -> None:
    image = KNOWN.draw(0)
    neighbour = KNOWN.draw(1, 0.0, np.array([[29.0, 12.0]]))
    alone, beside = features(image).shift[0], features(image + neighbour).shift[0]
    assert np.hypot(*(alone - beside)) < 1


def test_spectra_have_length_1_and_do_not_know_units() -> None:
    images = KNOWN.draw(np.arange(6))
    found, other = features(images), features(7 * images + 300)
    assert found.spectra.shape == (6, RINGS, ORDERS)
    assert found.spectra.dtype == np.complex64
    np.testing.assert_allclose((np.abs(found.spectra) ** 2).sum((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(found.spectra, other.spectra, atol=1e-4)


def test_similarity_is_that_of_the_polar_images() -> None:
    """Orders above 0 stand for two each; the inverse transform must weigh them so."""
    spectra = features(KNOWN.draw(np.arange(2))).spectra
    waves = np.zeros((2, RINGS, 33), np.complex128)
    waves[:, :, :ORDERS] = spectra / np.where(np.arange(ORDERS) > 0, np.sqrt(2), 1)
    polar = np.fft.irfft(waves, 64, axis=2, norm="ortho")
    rolled = [float((polar[0] * np.roll(polar[1], s, axis=1)).sum()) for s in range(64)]
    similarity, angle = compare(spectra[1:], spectra[:1])
    assert similarity[0, 0] == pytest.approx(max(rolled), abs=0.002)
    assert off(angle[0, 0], int(np.argmax(rolled)) * 360 / 64) < 360 / 64


def test_an_image_without_contrast_is_nothing() -> None:
    found = features(np.stack([np.zeros((64, 64)), np.full((64, 64), 5.0)]).astype(np.float32))
    assert not found.spectra.any()
    np.testing.assert_array_equal(found.shift, 0)
    similarity, _ = compare(found.spectra, features(KNOWN.draw(0)).spectra)
    np.testing.assert_array_equal(similarity, 0)


def test_pieces_give_what_all_at_once_gives() -> None:
    images = particles(KNOWN, 300, snr=1.0).images
    found = features(images)
    alone = features(images[290:291])
    np.testing.assert_allclose(found.spectra[290], alone.spectra[0], atol=1e-5)
    many = np.repeat(found.spectra[:6], 200, axis=0)
    similarity, angle = compare(found.spectra, many)
    few, turn = compare(found.spectra[-1:], many[:1])
    assert similarity[-1, 0] == pytest.approx(few[0, 0], abs=1e-5)
    assert off(angle[-1, 0], turn[0, 0]) < 0.01


@given(st.floats(-180, 180), st.floats(-180, 180))
@settings(max_examples=30, deadline=None)
def test_turning_spectra_adds_angles(first: float, second: float) -> None:
    spectra = features(KNOWN.draw(2)).spectra
    twice = turned_spectra(turned_spectra(spectra, [first]), [second])
    similarity, angle = compare(twice, spectra)
    assert similarity[0, 0] > 0.999
    assert off(angle[0, 0], -(first + second)) < 0.5


def test_nobody_and_nothing_are_compared_without_fuss() -> None:
    none = np.zeros((0, RINGS, ORDERS), np.complex64)
    assert features(np.zeros((0, 64, 64), np.float32)).spectra.shape == none.shape
    assert compare(none, none)[0].shape == (0, 0)
    assert compare(features(KNOWN.draw(0)).spectra, none)[1].shape == (1, 0)
    assert normalised(none).shape == none.shape


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="64 × 64 pixels are needed"):
        features(np.zeros((3, 32, 32), np.float32))
