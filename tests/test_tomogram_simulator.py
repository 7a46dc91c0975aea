"""Simulated tomograms: that the geometry, the missing wedge, the noise and the truth are what they are said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from beamsieve.models.tomograms import surfaces, tilts
from beamsieve.models.tomograms.assemble import turned
from beamsieve.models.tomograms.scene import CLASSES, Kind, SceneOptions
from beamsieve.models.tomograms.simulator import Simulated, simulate
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

SERIES = tilts.angles(-60, 50, 4)
SMALL = SceneOptions(shape=(40, 64, 64), margin=8, vesicles=(1, 1), vesicle_nm=(20, 25), sheets=(0, 0), carbon=0.0)
MEMBRANE, RIBOSOME, CARBON, GOLD = (CLASSES.index(name) for name in ("membrane", "ribosome", "carbon", "gold"))


@pytest.fixture(scope="module")
def made() -> Simulated:
    return simulate(7, replace(SMALL, kinds=(Kind("ribosome", "ribosome", (60, 60)),), gold=(1, 1)))


def test_a_voxel_is_seen_where_the_tilt_puts_it() -> None:
    volume = np.zeros((21, 5, 61), np.float32)
    volume[16, 2, 20] = 3.0
    images = tilts.project(volume, SERIES)
    assert images.shape == (28, 5, 61)
    assert not images[:, [0, 1, 3, 4]].any()
    seen = (images[:, 2] * np.arange(61)).sum(1) / images[:, 2].sum(1)
    angle = np.radians(SERIES)
    np.testing.assert_allclose(seen, 30 + (20 - 30) * np.cos(angle) + (16 - 10) * np.sin(angle), atol=1e-4)
    np.testing.assert_allclose(images.sum((1, 2)), 3.0, rtol=1e-5)


def test_back_projection_is_the_transpose_of_projection() -> None:
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((9, 4, 30)).astype(np.float32)
    images = rng.standard_normal((len(SERIES), 4, 30)).astype(np.float32)
    there = float((tilts.project(volume, SERIES) * images).sum(dtype=np.float64))
    back = float((tilts.back_project(images, SERIES, 9) * volume).sum(dtype=np.float64))
    assert there == pytest.approx(back, rel=1e-4)


def test_a_ball_is_back_where_it_was_and_the_wedge_is_empty() -> None:
    rng = np.random.default_rng(1)
    shape = (64, 8, 64)
    noise = rng.standard_normal((len(SERIES), 8, 64)).astype(np.float32)
    power = np.abs(np.fft.fftn(tilts.back_project(tilts.weighted(noise), SERIES, 64))) ** 2
    z, _, x = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    radius = np.hypot(x, z)
    turn = np.degrees(np.arctan2(z, x))
    turn = (turn + 90) % 180 - 90
    ring = (radius > 0.15) & (radius < 0.35)
    inside = power[ring & (turn > -56) & (turn < 46)].mean()
    for empty in (ring & (turn > 60), ring & (turn < -70)):
        assert power[empty].mean() < 0.03 * inside
    # The series reaches further to one side than to the other.
    assert power[ring & (turn > -58) & (turn < -54)].mean() > 3 * power[ring & (turn > 54) & (turn < 58)].mean()
    z, y, x = np.ogrid[:48, :24, :64]
    ball = ((z - 30) ** 2 + (y - 12) ** 2 + (x - 40) ** 2 < 16).astype(np.float32)
    found = tilts.back_project(tilts.weighted(tilts.project(ball, SERIES)), SERIES, 48)
    assert np.hypot(*(np.array(np.unravel_index(found.argmax(), found.shape))[[0, 2]] - (30, 40))) <= 3
    assert found[ball > 0].mean() > 5 * found.std()


def test_what_no_tilt_shows() -> None:
    x, z = np.cos(np.radians([0, 40, 55, -55, -65, 90])), np.sin(np.radians([0, 40, 55, -55, -65, 90]))
    assert tilts.shown(x, z, SERIES).tolist() == [True, True, False, True, False, False]
    # A normal along y is at right angles to the tilts' plane, and one almost along y is taken for it.
    assert tilts.shown(np.zeros(3), np.array([0.0, 0.2, 0.5]), SERIES).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="no series"):
        tilts.angles(50, -60, 4)


def test_a_bilayer_has_two_leaflets_at_their_distance() -> None:
    away = np.arange(-60, 61).astype(np.float32)
    profile = surfaces.bilayer(away, 1.0)
    peaks = away[1:-1][(profile[1:-1] > profile[:-2]) & (profile[1:-1] > profile[2:])]
    np.testing.assert_allclose(np.abs(peaks), surfaces.LEAFLETS_A / 2, atol=2)
    assert profile[60] < 0.2 * profile.max()
    # The same matter in coarser voxels.
    coarse = surfaces.bilayer(np.arange(-10, 11).astype(np.float32), 14.2)
    assert coarse.sum() * 14.2 == pytest.approx(profile.sum(), rel=0.1)


def test_a_map_is_turned_as_its_matrix_says() -> None:
    body = np.zeros((24, 24, 24), np.float32)
    # 6 map voxels along x and 3 along z from the centre: 60 and 30 Å.
    body[12 + 3, 12, 12 + 6] = 1
    rotation = Rotation.from_euler("zyx", [40, 25, -70], degrees=True).as_matrix()
    at = np.array([20.0, 17.0, 15.0])
    found = turned(body, 10.0, rotation, at, (slice(0, 32), slice(0, 34), slice(0, 40)), 8.0)
    centre = (np.indices(found.shape).reshape(3, -1) * found.ravel()).sum(1)[::-1] / found.sum()
    np.testing.assert_allclose(centre, at + rotation @ np.array([60, 0, 30]) / 8.0, atol=0.5)


def test_the_same_seed_gives_the_same_tomogram_and_another_does_not() -> None:
    options = replace(SMALL, shape=(24, 32, 32), kinds=(), margin=4)
    first, again, other = simulate(3, options), simulate(3, options), simulate(4, options)
    assert first.data.tobytes() == again.data.tobytes()
    assert not np.array_equal(first.labels, other.labels)
    assert first.data.dtype == np.float32
    assert first.data.shape == (24, 32, 32)


def test_density_is_dark_and_labels_lie_on_it(made: Simulated) -> None:
    assert made.data.mean() == pytest.approx(0, abs=1e-4)
    assert made.data.std() == pytest.approx(1, abs=1e-4)
    assert {MEMBRANE, RIBOSOME, GOLD} <= set(np.unique(made.labels))
    seen = (made.labels == MEMBRANE) & ~made.hidden
    background = made.clean[made.labels == 0]
    for where in (seen, made.labels == RIBOSOME, made.labels == GOLD):
        assert made.clean[where].mean() < background.mean() - background.std()
    # What no tilt shows is not there, though it is labelled.
    assert made.hidden.any()
    assert made.clean[made.hidden].mean() > made.clean[seen].mean() / 2
    assert (made.labels[made.hidden] == MEMBRANE).all()


def test_particles_are_where_the_table_says_and_do_not_overlap(made: Simulated) -> None:
    of = made.particles
    assert len(of) >= 4
    assert of.xyz.shape == (len(of), 3)
    pairs = cKDTree(of.xyz).query_pairs(100)
    for i, j in pairs:
        apart = np.linalg.norm(of.xyz[i] - of.xyz[j]) * made.voxel_a
        assert apart > (of.diameter_a[i] + of.diameter_a[j]) / 2
    z, y, x = np.indices(made.labels.shape)
    for (px, py, pz), label, diameter in zip(of.xyz, of.label, of.diameter_a, strict=True):
        near = (x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2 <= (0.45 * diameter / made.voxel_a) ** 2
        assert (made.labels[near] == label).mean() > 0.4
    assert set(of.name) == {"ribosome", "gold"}
    np.testing.assert_allclose(
        of.rotation @ of.rotation.transpose(0, 2, 1), np.eye(3)[None].repeat(len(of), 0), atol=1e-5
    )


def test_the_noise_is_that_of_the_ratio_asked_for() -> None:
    options = replace(SMALL, shape=(24, 48, 48), kinds=(), margin=4, snr=0.1)
    fields = {snr: simulate(9, replace(options, snr=snr)) for snr in (None, 0.1, 0.4)}
    clean = fields[None]
    assert clean.noise_sd == 0
    assert np.array_equal(clean.data, clean.clean)
    # In units of the signal, four times the ratio halves the noise.
    relative = {snr: field.noise_sd / float(field.clean.std()) for snr, field in fields.items()}
    assert relative[0.1] / relative[0.4] == pytest.approx(2, rel=0.01)


def test_gold_and_carbon_do_not_make_more_noise() -> None:
    options = replace(SMALL, shape=(24, 48, 48), kinds=(), margin=4, snr=0.1)
    plain = simulate(11, replace(options, gold=(0, 0)))
    gold = simulate(11, replace(options, gold=(3, 3)))
    unit = float(np.abs(plain.clean).max()), float(np.abs(gold.clean).max())
    assert (gold.labels == GOLD).any()
    assert np.array_equal(gold.labels == MEMBRANE, plain.labels == MEMBRANE)
    membrane = plain.labels == MEMBRANE
    contrast = [float(s.clean[s.labels == 0].mean() - s.clean[membrane].mean()) / s.noise_sd for s in (plain, gold)]
    assert contrast[1] == pytest.approx(contrast[0], rel=0.4)
    assert unit[1] / gold.noise_sd > 2 * unit[0] / plain.noise_sd


def test_carbon_has_an_edge_and_nothing_lies_in_it() -> None:
    made = simulate(5, replace(SMALL, carbon=1.0, kinds=(Kind("apoferritin", "globule", (20, 20)),)))
    film = made.labels == CARBON
    share = film.any(0).mean()
    assert 0.05 < share < 0.6
    # A slab: as thick in the middle of the film as it is said to be.
    thick = film.sum(0).max() * made.voxel_a
    assert 100 <= thick <= 210
    for x, y, z in np.rint(made.particles.xyz).astype(int):
        assert not film[z, y, x]


def test_sizes_are_physical() -> None:
    kinds = (Kind("ribosome", "ribosome", (6, 6)),)
    coarse = SceneOptions(shape=(24, 40, 40), voxel_a=24.0, kinds=kinds, vesicles=(0, 0), sheets=(0, 0), margin=0)
    fine = replace(coarse, shape=(48, 80, 80), voxel_a=12.0)
    sizes = []
    for options in (coarse, fine):
        made = simulate(2, replace(options, carbon=0.0, gold=(0, 0)))
        sizes.append((made.labels == RIBOSOME).sum() * options.voxel_a**3 / len(made.particles))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.25)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shape": (8, 64, 64)}, "16 voxels"),
        ({"snr": 0.0}, "snr"),
        ({"kinds": (Kind("ribosome", "dragon"),)}, "dragon"),
        ({"tilts": (-90.0, 50.0, 4.0)}, "tilts"),
    ],
)
def test_options_that_cannot_be_are_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(SMALL, **change)  # type: ignore[arg-type]
