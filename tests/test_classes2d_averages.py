"""Class averages: which way images turn, half sets, ring correlation, and what a finer alignment gains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from beamsieve.models.classes2d.averages import Averages, turned
from beamsieve.models.classes2d.frc import Doubles, resolution, ring_correlation
from beamsieve.models.classes2d.refine import references, refined
from beamsieve.tests.turned_views import EDGE, Floats, off, particles, views
from hypothesis import given, settings
from hypothesis import strategies as st

KNOWN = views(3)


def middle(images: Floats) -> Floats:
    """Inside a circle that no turned corner reaches."""
    at = np.arange(EDGE) - EDGE // 2
    inside: Floats = images[..., np.hypot(at[:, None], at) < 24]
    return inside


def test_turning_goes_from_x_to_y() -> None:
    image = np.zeros((1, EDGE, EDGE), np.float32)
    image[0, 32, 32 + 10] = 1
    at = {90: (42, 32), 180: (32, 22), -90: (22, 32)}
    for angle, place in at.items():
        assert np.unravel_index(turned(image, angle, 0)[0].argmax(), (EDGE, EDGE)) == place


def test_the_shift_is_taken_away_before_the_turn() -> None:
    image = np.zeros((1, EDGE, EDGE), np.float32)
    image[0, 32 - 4, 32 + 7] = 1
    found = turned(image, 123.0, [[7.0, -4.0]])[0]
    assert np.unravel_index(found.argmax(), (EDGE, EDGE)) == (32, 32)
    assert found.max() == pytest.approx(1, abs=1e-4)


@given(st.floats(-180, 180), st.floats(-4, 4), st.floats(-4, 4))
@settings(max_examples=25, deadline=None)
def test_what_was_turned_and_shifted_comes_back(angle: float, x: float, y: float) -> None:
    moved = KNOWN.draw(0, angle, np.array([[x, y]]))
    np.testing.assert_allclose(middle(turned(moved, -angle, [[x, y]])), middle(KNOWN.draw(0)), atol=0.01)


def test_nothing_to_do_changes_nothing() -> None:
    noise = np.random.default_rng(0).standard_normal((2, EDGE, EDGE)).astype(np.float32)
    np.testing.assert_allclose(turned(noise, 0.0, 0.0), noise, atol=1e-4)


def test_corners_get_the_level_of_the_rim() -> None:
    flat = np.full((1, EDGE, EDGE), 5, np.float32)
    np.testing.assert_allclose(turned(flat, 45.0, [[6.0, 6.0]]), 5, atol=1e-3)


def filled(n: int, snr: float | None = 0.5, seed: int = 0) -> Averages:
    some = particles(KNOWN, n, snr=snr, seed=seed)
    averages = Averages()
    for first in range(0, n, 70):
        part = slice(first, first + 70)
        similarity = np.full(len(some.view[part]), 0.75)
        averages.add(some.view[part] + 1, some.images[part], -some.angle[part], some.shift[part], similarity)
    return averages


def test_the_average_of_aligned_originals_is_the_view() -> None:
    averages = filled(300)
    assert averages.classes() == (1, 2, 3)
    for number in averages.classes():
        assert averages.count(number) == 100
        assert np.corrcoef(middle(averages.mean(number)), middle(KNOWN.draw(number - 1)[0]))[0, 1] > 0.97
        assert averages.spread(number) == pytest.approx(0.25)


def test_half_sets_go_by_turns_over_batches_and_add_up() -> None:
    images = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((1, EDGE, EDGE), np.float32)
    averages = Averages()
    for first in range(0, 7, 3):
        n = len(images[first : first + 3])
        averages.add(np.full(n, 4), images[first : first + 3], np.zeros(n), np.zeros((n, 2)), np.ones(n))
    halves = averages.halves(4)[:, 32, 32]
    np.testing.assert_allclose(halves, [(0 + 2 + 4 + 6) / 4, (1 + 3 + 5) / 3], rtol=1e-5)
    assert averages.mean(4)[32, 32] == pytest.approx(3, rel=1e-5)


def test_class_0_and_nobody_are_left_out() -> None:
    averages = Averages()
    averages.add([0, 0], KNOWN.draw([0, 1]), np.zeros(2), np.zeros((2, 2)), np.ones(2))
    averages.add([], KNOWN.draw([0])[:0], [], np.zeros((0, 2)), [])
    assert averages.classes() == ()
    assert averages.count(1) == 0
    with pytest.raises(KeyError):
        averages.mean(1)


def test_resolution_gets_finer_with_more_images_and_scales_with_the_pixel() -> None:
    few, many = filled(90), filled(600)
    assert many.resolution_a(1, 3.0) < few.resolution_a(1, 3.0)
    assert many.resolution_a(1, 6.0) == pytest.approx(2 * many.resolution_a(1, 3.0))
    assert 2 * 3.0 <= many.resolution_a(1, 3.0) < 10 * 3.0


def test_there_is_no_resolution_of_a_few_images_of_an_unknown_class_or_of_noise() -> None:
    assert math.isnan(filled(30).resolution_a(1, 3.0))
    assert math.isnan(filled(30).resolution_a(99, 3.0))
    rng = np.random.default_rng(1)
    found = [resolution(rng.standard_normal((EDGE, EDGE)), rng.standard_normal((EDGE, EDGE)), 3.0) for _ in range(40)]
    assert np.isnan(found).sum() >= 39


def test_equal_halves_reach_nyquist() -> None:
    noise = np.random.default_rng(2).standard_normal((EDGE, EDGE))
    assert resolution(noise, noise, 2.5) == 5.0
    np.testing.assert_allclose(ring_correlation(noise, noise), 1)
    np.testing.assert_allclose(ring_correlation(noise, -noise)[1:], -1)


def test_ring_correlation_falls_where_the_noise_begins() -> None:
    """Halves that share all frequencies below ring 16 and none above."""
    rng = np.random.default_rng(3)
    f = np.fft.fftfreq(EDGE, 1 / EDGE)
    low = np.hypot(f[:, None], f) <= 16
    shared, one, two = rng.standard_normal((3, EDGE, EDGE))

    def mixed(own: Doubles) -> Doubles:
        both: Doubles = np.fft.ifft2(np.where(low, np.fft.fft2(shared), np.fft.fft2(own))).real
        return both

    curve = ring_correlation(mixed(one), mixed(two))
    assert curve[1:14].min() > 0.95
    assert np.abs(curve[19:]).max() < 0.4
    assert resolution(mixed(one), mixed(two), 1.0) == pytest.approx(64 / 16.5, rel=0.04)


def test_ring_correlation_foretells_the_signal_to_noise_ratio() -> None:
    """White signal and noise of equal power: half of what the halves hold is shared."""
    rng = np.random.default_rng(4)
    curves = []
    for _ in range(30):
        shared, one, two = rng.standard_normal((3, EDGE, EDGE))
        curves.append(ring_correlation(shared + one, shared + two))
    assert np.mean(curves, axis=0)[4:].mean() == pytest.approx(0.5, abs=0.03)


def test_mean_and_slow_background_do_not_count() -> None:
    rng = np.random.default_rng(5)
    one, two = rng.standard_normal((2, EDGE, EDGE))
    assert math.isnan(resolution(one + 100, two + 100, 1.0))


def test_state_goes_round() -> None:
    averages = filled(90)
    again = Averages.restore(averages.state())
    some = particles(KNOWN, 30, snr=0.5, seed=9)
    for each in (averages, again):
        each.add(some.view + 1, some.images, -some.angle, some.shift, np.ones(30))
    assert again.classes() == averages.classes()
    for number in averages.classes():
        np.testing.assert_allclose(again.halves(number), averages.halves(number), rtol=1e-6)
        assert (again.count(number), again.spread(number)) == (averages.count(number), averages.spread(number))


def test_what_is_no_state_is_refused() -> None:
    state = filled(30).state()
    with pytest.raises(ValueError, match="'sums' is missing"):
        Averages.restore({k: v for k, v in state.items() if k != "sums"})
    with pytest.raises(ValueError, match="another layout"):
        Averages.restore(state | {"sums": state["sums"][:, :, :32]})
    assert Averages.restore(Averages().state()).classes() == ()


def test_restored_averages_do_not_write_to_the_state() -> None:
    state = filled(30).state()
    before = state["sums"].copy()
    again = Averages.restore(state)
    some = particles(KNOWN, 30, snr=0.5, seed=9)
    again.add(some.view + 1, some.images, -some.angle, some.shift, np.ones(30))
    np.testing.assert_array_equal(state["sums"], before)


def test_memory_of_a_class_does_not_grow() -> None:
    def size(averages: Averages) -> int:
        return sum(a.nbytes for a in averages.state().values())

    assert size(filled(300)) == size(filled(60))


def test_a_finer_alignment_finds_what_was_left() -> None:
    """Starting a few degrees and more than a pixel off, against an average of others."""
    some = particles(views(1), 300, snr=0.3, seed=6)
    averages = Averages()
    averages.add(np.ones(200, int), some.images[:200], -some.angle[:200], some.shift[:200], np.ones(200))
    reference, _ = references(averages.halves(1))
    rng = np.random.default_rng(7)
    rough_angle = (-some.angle[200:] + rng.uniform(-9, 9, 100)).astype(np.float32)
    rough_shift = (some.shift[200:] + rng.uniform(-2, 2, (100, 2))).astype(np.float32)
    angle, shift = refined(some.images[200:], reference, rough_angle, rough_shift)
    assert np.median(off(angle, -some.angle[200:])) < 2.5
    assert np.median(np.hypot(*(shift - some.shift[200:]).T)) < 0.5
    assert np.abs(angle).max() <= 180


def test_what_is_shared_beside_the_particle_does_not_count() -> None:
    rng = np.random.default_rng(8)
    one, two, shared = rng.standard_normal((3, EDGE, EDGE))
    at = np.arange(EDGE) - EDGE // 2
    corners = 10 * shared * (np.hypot(at[:, None], at) > 31.5)
    assert math.isnan(resolution(one + corners, two + corners, 1.0))
