"""Simulated particles: as a slow projector in real space has them, at the noise that was asked for, from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.classes2d.pairs import Pool, turned
from beamsieve.models.classes2d.recipes import make_options
from beamsieve.models.classes2d.simulator import Particles, coloured, particles
from beamsieve.models.particles.ctf import Ctf
from beamsieve.models.particles.maps import Volume, prepared
from scipy import ndimage

Floats = npt.NDArray[np.float32]
PIXEL_A = 4.0


def silent(what: str, done: int, of: int) -> None:
    pass


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Three blobs of different weight and place: no two views look alike, and there is no mirror symmetry."""
    at = np.arange(48) - 22.0
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    blobs = [(8, 0, 0, 4, 1.0), (-6, 7, 2, 3, 1.5), (0, -5, -9, 5, 0.8)]
    density = sum(w * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * s * s)) for a, b, c, s, w in blobs)
    return prepared(np.asarray(density), PIXEL_A, name="blobs")


@pytest.fixture(scope="module")
def fine() -> Volume:
    """Many small blobs: what a transfer function turns over."""
    rng = np.random.default_rng(5)
    density = np.zeros((48, 48, 48), np.float32)
    density[tuple(np.round(rng.normal(24, 5, (60, 3))).astype(int).clip(8, 40).T)] = 1
    return prepared(ndimage.gaussian_filter(density, 1.4), PIXEL_A, name="grains", threshold=1e-4)


def some(volume: Volume, n: int = 8, **changes: Any) -> Particles:
    return particles(volume, n, **{"seed": 1, "snr": 0.1, "pixel_a": PIXEL_A, **changes})


def slowly(volume: Volume, rotation: npt.NDArray[np.float64], shift: Floats, edge: int) -> Floats:
    """Turn the volume in real space, add it up along the beam, move the sum: nothing of the fast way is used."""
    size, n = edge, len(volume.data)
    cube = np.zeros((size,) * 3, np.float32)
    first = size // 2 - n // 2
    cube[(slice(first, first + n),) * 3] = volume.data
    # affine_transform asks where each voxel (z, y, x) comes from: the inverse turn, in the arrays' order of axes.
    back = rotation.T[::-1, ::-1]
    middle = np.full(3, size // 2)
    flat = ndimage.affine_transform(cube, back, middle - back @ middle, order=3).sum(axis=0)
    moved: Floats = ndimage.shift(flat, (shift[1], shift[0]), order=3)
    return moved


def alike(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_clean_images_are_those_of_a_slow_projector_in_real_space(volume: Volume) -> None:
    found = some(volume, in_plane=True, shift_px=4.0)
    for image, rotation, shift in zip(found.clean, found.rotations, found.shift_px, strict=True):
        assert alike(image, slowly(volume, rotation, shift, 64)) > 0.995
        assert alike(image, slowly(volume, rotation, -shift, 64)) < 0.95


def test_the_angle_turns_from_x_towards_y(volume: Volume) -> None:
    view = some(volume, 1).rotations
    straight = some(volume, orientations=view)
    turning = some(volume, orientations=view, in_plane=True)
    away = np.arange(64) - 32.0
    y, x = np.meshgrid(away, away, indexing="ij")
    for image, other, angle in zip(turning.clean, straight.clean, np.deg2rad(turning.angle_deg), strict=True):
        c, s = np.cos(angle), np.sin(angle)
        # What is at (1, 0) goes to (c, s), so that the pixel at (x, y) comes from the inverse turn of it.
        came = ndimage.map_coordinates(other, [-s * x + c * y + 32, c * x + s * y + 32], order=3, mode="nearest")
        assert alike(image, came) > 0.995
    assert np.ptp(turning.angle_deg) > 90


@pytest.mark.parametrize("snr", [0.02, 0.1, 2.0])
@pytest.mark.parametrize("colour", [0.0, 3.0])
def test_the_ratio_is_of_variances_over_the_whole_box(volume: Volume, snr: float, colour: float) -> None:
    found = some(volume, 64, snr=snr, colour=colour)
    noise = found.images - found.clean
    ratio = found.clean.var((1, 2), dtype=float) / noise.var((1, 2), dtype=float)
    np.testing.assert_allclose(ratio, snr, rtol=0.3 if colour else 0.12)
    assert ratio.mean() == pytest.approx(snr, rel=0.03)
    np.testing.assert_allclose(found.images.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.images.std((1, 2)), 1, atol=1e-5)


def test_each_particle_may_have_its_own_ratio(volume: Volume) -> None:
    wanted = np.geomspace(0.02, 5, 8).astype(np.float32)
    found = some(volume, snr=wanted)
    noise = found.images - found.clean
    np.testing.assert_allclose(found.clean.var((1, 2)) / noise.var((1, 2)), wanted, rtol=0.12)
    np.testing.assert_array_equal(found.snr, wanted)


def test_particles_are_white_also_through_a_microscope(volume: Volume) -> None:
    for ctf in (None, (1.5, 1.5)):
        clean = some(volume, ctf=ctf).clean
        for image in ndimage.gaussian_filter(clean, (0, 3, 3)):
            assert image.max() > 2 * abs(image.min() - np.median(image))


def test_a_transfer_function_is_the_microscope_s(volume: Volume) -> None:
    """Fourier transforms of images with it, over those without, are its values."""
    edge = 96
    plain, through = (some(volume, edge=edge, ctf=ctf).clean for ctf in (None, (0.9, 0.9)))
    wanted = -Ctf(9000, 9000).image((edge, edge), PIXEL_A)
    seen, made = np.fft.rfft2(plain), np.fft.rfft2(through)
    strong = np.abs(seen) > 0.02 * np.abs(seen[:, 1:, 1:]).max((1, 2), keepdims=True)
    strong[:, 0, 0] = False
    for before, after, good in zip(seen, made, strong, strict=True):
        scale = (after[good] * np.conj(before[good] * wanted[good])).sum() / (np.abs(before * wanted)[good] ** 2).sum()
        assert alike(np.real(after[good] / scale / before[good]), wanted[good]) > 0.98


def test_defocus_is_drawn_from_its_range(fine: Volume) -> None:
    near, far, both = (some(fine, 24, ctf=ctf).clean for ctf in ((0.8, 0.8), (3.0, 3.0), (0.8, 3.0)))
    low = [alike(a, b) for a, b in zip(near, both, strict=True)]
    assert max(low) > 0.9
    assert min(low) < 0.8
    assert max(alike(a, b) for a, b in zip(far, both, strict=True)) > 0.9


def test_the_seed_decides_everything_and_the_ratio_changes_only_the_noise(volume: Volume) -> None:
    kinds: dict[str, Any] = {"in_plane": True, "shift_px": 2.0, "ctf": (0.8, 2.0), "colour": 1.0}
    one, again, other = some(volume, **kinds), some(volume, **kinds), some(volume, seed=2, **kinds)
    np.testing.assert_array_equal(one.images, again.images)
    assert not np.array_equal(one.rotations, other.rotations)
    assert abs(alike(one.images, other.images)) < 0.2
    quiet = some(volume, snr=10.0, **kinds)
    np.testing.assert_array_equal(quiet.rotations, one.rotations)
    for a, b in zip(quiet.clean, one.clean, strict=True):
        assert alike(a, b) > 0.9999


def test_views_are_shared_in_turn_or_each_its_own(volume: Volume) -> None:
    few = some(volume, 10, orientations=4)
    assert few.orientation.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    np.testing.assert_array_equal(few.rotations[:4], few.rotations[4:8])
    assert len(np.unique(few.rotations[:4].round(6), axis=0)) == 4
    given = some(volume, 10, orientations=few.rotations[:3])
    np.testing.assert_allclose(given.rotations, few.rotations[np.arange(10) % 3], atol=1e-12)
    own = some(volume, 10)
    assert own.orientation.tolist() == list(range(10))
    assert len(np.unique(own.rotations.round(6), axis=0)) == 10
    assert some(volume, 0).images.shape == (0, 64, 64)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"snr": 0.0}, "snr"),
        ({"snr": float("nan")}, "snr"),
        ({"pixel_a": -1.0}, "pixel_a"),
        ({"orientations": 0}, "orientations"),
        ({"orientations": np.ones((2, 3, 3))}, "rotation matrices"),
        ({"ctf": (3.0, 1.0)}, "ctf"),
        ({"colour": -1.0}, "colour"),
        ({"edge": 63}, "64"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(volume: Volume, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        some(volume, 2, **changes)


def test_coloured_noise_has_its_power_where_it_was_asked_for() -> None:
    white = np.random.default_rng(1).standard_normal((400, 64, 64), np.float32)
    found = coloured(white, np.full(400, 3.0, np.float32))
    assert found.var() == pytest.approx(1, rel=0.01)
    power = (np.abs(np.fft.fft2(found)) ** 2).mean(0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    low, middle, high = (
        power[(frequency >= a) & (frequency < b)].mean() for a, b in ((0, 0.03), (0.07, 0.09), (0.4, 1))
    )
    extra = 3 / (1 + (0.45 / 0.08) ** 2)
    assert low / high == pytest.approx(4 / (1 + extra), rel=0.15)
    assert middle / high == pytest.approx(2.5 / (1 + extra), rel=0.15)
    np.testing.assert_allclose(coloured(white[:2], np.zeros(2, np.float32)), white[:2], atol=1e-5)


# Pairs


def test_the_eight_turns_keep_the_middle_and_are_all_different() -> None:
    image = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    ways = [turned(image, way) for way in range(8)]
    assert len({way.tobytes() for way in ways}) == 8
    for way in ways:
        assert way[4, 4] == image[4, 4]
        np.testing.assert_array_equal(np.sort(way.ravel()), np.sort(image.ravel()))
    # Half a turn brings (4 + a, 4 + b) to (4 - a, 4 - b).
    assert ways[6][4 + 2, 4 + 1] == image[4 - 2, 4 - 1]


def pool(volume: Volume, **changes: Any) -> Pool:
    return Pool(make_options(Path("x"), **{"images": 40, "batch": 16, **changes}), [volume], silent)


def test_pairs_are_at_the_published_ratios_in_units_of_the_start(volume: Volume) -> None:
    made = pool(volume, recipe="paper")
    for block, (low, high) in enumerate([(0.1, 0.4), (0.4, 0.6), (0.6, np.inf)]):
        batch = next(made.batches(block, 0))
        np.testing.assert_allclose(batch.start.std((1, 2)), 1, atol=1e-4)
        signal = batch.clean.var((1, 2), dtype=float)
        for images, snr in ((batch.start, 0.1), (batch.before, low)):
            np.testing.assert_allclose(signal / (images - batch.clean).var((1, 2)), snr, rtol=0.15)
        if np.isfinite(high):
            np.testing.assert_allclose(signal / (batch.after - batch.clean).var((1, 2)), high, rtol=0.15)
        else:
            np.testing.assert_array_equal(batch.after, batch.clean)
        # Simulated apart: what is noise in one is none in the other.
        apart = alike(batch.before - batch.clean, batch.after - batch.clean) if block < 2 else 0.0
        assert abs(apart) < 0.02


def test_paper_s_pool_is_so_many_views_and_no_more(volume: Volume) -> None:
    made = pool(volume, recipe="paper", images=300)
    assert len(np.unique(made.clean.astype(np.float32).round(2), axis=0)) == 4
    assert len(np.unique(pool(volume, images=40).clean, axis=0)) == 40


def test_an_epoch_shows_every_image_once_with_noise_that_is_new_only_where_it_should_be(volume: Volume) -> None:
    for recipe, fresh in (("paper", False), ("general", True)):
        made = pool(volume, recipe=recipe)
        one, again, next_ = (
            np.concatenate([b.start for b in made.batches(0, epoch)]).reshape(40, -1) for epoch in (0, 0, 1)
        )
        np.testing.assert_array_equal(one, again)
        assert len(one) == 40
        as_sets = [{row.tobytes() for row in images} for images in (one, next_)]
        assert (as_sets[0] == as_sets[1]) is not fresh
        assert not np.array_equal(one, next_)  # another order at least


def test_general_pairs_have_many_ratios_and_both_kinds_of_image(fine: Volume) -> None:
    made = pool(fine, images=256, batch=256)
    batch = next(made.batches(1, 0))
    ratio = batch.clean.var((1, 2)) / (batch.start - batch.clean).var((1, 2))
    assert 0.015 < ratio.min() < 0.03
    assert 0.35 < ratio.max() < 0.65
    np.testing.assert_allclose(batch.clean.var((1, 2)) / (batch.after - batch.clean).var((1, 2)), 6 * ratio, rtol=0.4)
    # A transfer function takes most of what varies slowly: the ring of low frequencies tells the two kinds apart.
    wave = np.abs(np.fft.rfft2(made.clean.astype(np.float32))) ** 2
    share = (wave[:, 1, 0] + wave[:, 0, 1]) / wave.sum((1, 2))
    without = float((share > 0.1).mean())
    assert 0.2 < without < 0.4
