"""Simulated micrographs: where the particles are, how strong they are in the noise, and what lies beside them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.particles import simulator
from beamsieve.models.particles.conditions import NAMED, Conditions, named
from beamsieve.models.particles.maps import Volume, prepared
from beamsieve.models.particles.projector import projector_for, random_rotations
from beamsieve.models.particles.scenery import Room, carbon_film, smooth_noise, stamp
from beamsieve.models.particles.simulator import LEVEL, Simulated, disc_variance, picture, simulate
from beamsieve.models.particles.views import in_plane, orientations, well_apart
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

BARE = Conditions(shape=(360, 420), pixel_a=4.0, particles=(6, 10), snr=0.1)


def made() -> Volume:
    """A lopsided particle about 120 Å across."""
    at = (np.arange(40) - 20) * 4.0
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    body = ((x / 55) ** 2 + (y / 40) ** 2 + (z / 48) ** 2 < 1) * 1.0 + ((x - 25) ** 2 + y**2 + (z - 20) ** 2 < 400)
    grain = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(body.shape), 2)
    return prepared(body * np.clip(1 + 4 * grain, 0, None), 4.0, threshold=0.1)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return made()


def particles(c: Conditions, volume: Volume, seed: int = 0) -> tuple[Simulated, npt.NDArray[np.float32]]:
    """A micrograph, and what its particles add: at another signal-to-noise ratio it differs in nothing else.

    At twice the ratio the difference is (√2 - 1) of what the particles add at the lower one.
    """
    low, high = (simulate(seed, 0, replace(c, snr=r), volume) for r in (c.snr, 2 * c.snr))
    return low, (high.image - low.image) / np.float32(np.sqrt(2) - 1)


def test_particles_are_dark_and_where_it_says(volume: Volume) -> None:
    simulated, signal = particles(BARE, volume)
    assert 6 <= len(simulated.x) <= 10
    assert simulated.x.dtype == simulated.y.dtype == np.float32
    d = simulated.diameter_a / simulated.pixel_a
    parts = np.zeros(signal.shape, int)
    y, x = np.mgrid[: signal.shape[0], : signal.shape[1]]
    for at, (px, py) in enumerate(zip(simulated.x, simulated.y, strict=True), 1):
        parts[np.hypot(x - px, y - py) < 0.55 * d] = at
    smooth = -ndimage.gaussian_filter(signal, 2)
    assert smooth[parts > 0].mean() > 5 * abs(smooth[parts == 0].mean())
    centres = np.array(ndimage.center_of_mass(np.maximum(smooth, 0), parts, range(1, len(simulated.x) + 1)))
    assert np.hypot(centres[:, 1] - simulated.x, centres[:, 0] - simulated.y).max() < 0.1 * d


def test_centres_between_pixels_move_the_particle_by_parts_of_one(volume: Volume) -> None:
    ctf = simulate(0, 0, BARE, volume).ctf
    at = [np.array([[200.0, 180.0]]), np.array([[200.4, 179.7]])]
    turn = random_rotations(np.random.default_rng(0), 1)
    still, moved = (simulator._signal(turn, BARE, volume, ctf, c, 1) for c in at)
    wanted = np.fft.irfft2(ndimage.fourier_shift(np.fft.rfft2(still), (-0.3, 0.4), n=420), s=still.shape)
    assert np.abs(moved - wanted).max() < 0.05 * np.abs(moved - still).max()


def test_snr_is_the_variance_in_the_disc_over_that_of_a_pixels_noise(volume: Volume) -> None:
    simulated, signal = particles(replace(BARE, snr=0.05), volume)
    d = simulated.diameter_a / simulated.pixel_a
    y, x = np.mgrid[: signal.shape[0], : signal.shape[1]]
    found = [signal[np.hypot(x - px, y - py) <= d / 2].var() for px, py in zip(simulated.x, simulated.y, strict=True)]
    noise = (simulated.image - signal).var()
    assert noise == pytest.approx(1, rel=0.03)
    assert np.mean(found) / noise == pytest.approx(0.05, rel=0.06)


@pytest.mark.parametrize("solvent", [0.0, 0.5, 0.9])
def test_the_noise_has_its_share_of_ice_and_of_detector(volume: Volume, solvent: float) -> None:
    """Only the ice's noise passes the transfer function: beyond the envelope the detector's is alone."""
    c = replace(BARE, particles=(0, 0), solvent=solvent, b_factor_a2=3000.0, astigmatism_a=0.0)
    image = simulate(1, 0, c, volume).image
    assert image.mean() == pytest.approx(LEVEL, abs=0.05)
    assert image.var() == pytest.approx(1, rel=0.05)
    power = np.abs(np.fft.rfft2(image - image.mean())) ** 2 / image.size
    k = np.hypot(np.fft.fftfreq(image.shape[0], 4.0)[:, None], np.fft.rfftfreq(image.shape[1], 4.0))
    assert power[k > 0.1].mean() == pytest.approx(1 - solvent, rel=0.05)


def test_thon_rings_lie_where_the_defocus_puts_them(volume: Volume) -> None:
    c = replace(BARE, particles=(0, 0), solvent=0.9, astigmatism_a=0.0, b_factor_a2=0.0, shape=(512, 512))
    simulated = simulate(2, 0, c, volume)
    power = np.abs(np.fft.rfft2(simulated.image - simulated.image.mean())) ** 2
    transfer = simulated.ctf.image((512, 512), 4.0) ** 2
    assert np.log(power[transfer > 0.9]).mean() - np.log(power[transfer < 0.05]).mean() > 1
    other = replace(simulated.ctf, defocus_u_a=simulated.ctf.defocus_u_a + 4000).image((512, 512), 4.0) ** 2
    assert np.corrcoef(power.ravel(), transfer.ravel())[0, 1] > 1.5 * np.corrcoef(power.ravel(), other.ravel())[0, 1]


def digest(simulated: Simulated) -> str:
    parts = (simulated.image, simulated.x, simulated.y, simulated.other_x, simulated.other_y)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


EVERYTHING = replace(
    BARE, carbon=(0.1, 0.2), ice=(1, 2), aggregates=(1, 1), overlaps=(1, 1), gold=(1, 1), hot_pixels=5, gradient=0.2
)


def test_another_process_makes_the_same_micrograph(volume: Volume) -> None:
    """What it depends on are its arguments: not the process, not what was made before."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_micrograph_simulator import *; "
        "print(digest(simulate(7, 3, EVERYTHING, made())))"
    )
    here = __file__.rsplit("/", 1)[0]
    done = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=True, timeout=50)
    simulate(7, 2, EVERYTHING, volume)
    assert digest(simulate(7, 3, EVERYTHING, volume)) == done.stdout.strip()


def test_seeds_and_indices_are_independent(volume: Volume) -> None:
    found = [simulate(s, i, EVERYTHING, volume) for s, i in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for a in range(4):
        for b in range(a):
            assert not np.array_equal(found[a].x[:3], found[b].x[:3])
            same = np.corrcoef(found[a].image[:100, :100].ravel(), found[b].image[:100, :100].ravel())[0, 1]
            assert abs(same) < 0.5


def test_any_orientation_is_drawn_as_it_always_was(volume: Volume) -> None:
    """What trained the models that ship must come out of the same seeds again."""
    simulated = simulate(7, 3, BARE, volume)
    assert (simulated.view == 0).all()
    assert len(simulated.view) == len(simulated.x)
    turns, _ = orientations(np.random.default_rng([7, 3, 3]), np.random.default_rng(0), 0, len(simulated.x))
    np.testing.assert_array_equal(turns, random_rotations(np.random.default_rng([7, 3, 3]), len(simulated.x)))


def test_few_views_are_the_same_on_every_micrograph_of_a_seed(volume: Volume) -> None:
    """Particles of one view differ by a turn in the plane: they have the same mean on rings around the centre."""
    c = replace(BARE, views=3, particles=(16, 16), shape=(640, 640), distance=1.4, defocus_um=(1, 1), astigmatism_a=0)
    rings, views = [], []
    for index in range(2):
        low, high = (simulate(5, index, replace(c, snr=snr), volume) for snr in (0.1, 0.2))
        np.testing.assert_array_equal(low.view, high.view)
        signal = ndimage.gaussian_filter(high.image - low.image, 1)
        y, x = np.mgrid[:640, :640]
        for px, py in zip(low.x, low.y, strict=True):
            away = np.hypot(x - px, y - py).astype(int)
            rings.append([signal[away == r].mean() for r in range(2, 16)])
        views += [*low.view]
    assert sorted(set(views)) == [1, 2, 3]
    # The strength of a whole micrograph is scaled by the particles on it, so shapes are compared.
    shapes = np.array(rings) / np.linalg.norm(rings, axis=1, keepdims=True)
    first = len(views) - len(low.view)
    apart = np.linalg.norm(shapes[:first, None] - shapes[None, first:], axis=2)
    # Each is most like one of its view on the other micrograph.
    assert (low.view[apart.argmin(1)] == views[:first]).mean() > 0.9
    other = simulate(6, 0, c, volume)
    assert not np.array_equal(other.view, views[: len(other.view)])


def test_views_are_far_from_each_other_and_from_each_others_mirror() -> None:
    for seed in range(5):
        along = well_apart(np.random.default_rng(seed), 4)[:, 2]
        angle = np.degrees(np.arccos(np.abs(along @ along.T).clip(max=1)))[~np.eye(4, dtype=bool)]
        # Four lines through a point can be 70.5 degrees apart and no more.
        assert 50 < angle.min() < 70.6


def test_a_turn_in_the_plane_leaves_what_is_seen(volume: Volume) -> None:
    one = well_apart(np.random.default_rng(0), 1)
    turned = in_plane(np.random.default_rng(1), one)
    np.testing.assert_allclose(turned[:, 2], one[:, 2], atol=1e-12)
    np.testing.assert_allclose(turned[0] @ turned[0].T, np.eye(3), atol=1e-12)
    still, moved = projector_for(volume).project(np.concatenate([one, turned]), 64, 4.0)
    angle = np.degrees(np.arctan2((turned @ one[0].T)[0, 1, 0], (turned @ one[0].T)[0, 0, 0]))
    # From x towards y on the picture, whose rows are y.
    y, x = np.mgrid[:64, :64] - 32.0
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    back = ndimage.map_coordinates(moved, [s * x + c * y + 32, c * x - s * y + 32], order=1)
    assert np.corrcoef(back.ravel(), still.ravel())[0, 1] > 0.97
    assert np.corrcoef(moved.ravel(), still.ravel())[0, 1] < 0.95


def test_what_is_added_leaves_noise_and_optics_as_they_were(volume: Volume) -> None:
    plain = simulate(3, 0, BARE, volume)
    hot = simulate(3, 0, replace(BARE, hot_pixels=30), volume)
    changed = plain.image != hot.image
    assert 20 <= changed.sum() <= 40
    assert (hot.image[changed] > LEVEL + 10).sum() >= 20
    assert (hot.image[changed] == 0).sum() >= 8
    assert plain.ctf == hot.ctf


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.floats(0.6, 2.0), st.floats(0, 0.4))
def test_centres_keep_their_distances(seed: int, wanted: int, distance: float, carbon: float) -> None:
    volume = VOLUME
    c = replace(BARE, particles=(wanted, wanted), distance=distance, carbon=(carbon, carbon), ice=(0, 2), border=0.6)
    simulated = simulate(seed, 0, c, volume)
    d = simulated.diameter_a / simulated.pixel_a
    centres = np.stack([simulated.x, simulated.y], axis=1).astype(float)
    assert len(centres) <= wanted
    apart = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1)) + np.eye(len(centres)) * 1e9
    assert apart.size == 0 or apart.min() >= distance * d - 1e-3
    ny, nx = simulated.image.shape
    for at, side in ((simulated.x, nx), (simulated.y, ny)):
        assert ((at >= 0.6 * d - 1e-3) & (at <= side - 1 - 0.6 * d + 1e-3)).all()
    if simulated.carbon is not None and len(centres):
        to_carbon = ndimage.distance_transform_edt(~simulated.carbon)
        # Distances to the film are looked up on a grid of 8 pixels.
        near = to_carbon[np.rint(simulated.y).astype(int), np.rint(simulated.x).astype(int)]
        assert near.min() >= d / 2 - 12


VOLUME = made()


def test_what_is_not_to_be_picked_is_listed_by_kind(volume: Volume) -> None:
    c = replace(BARE, shape=(800, 900), particles=(8, 8), ice=(2, 2), aggregates=(2, 2), overlaps=(3, 3), gold=(4, 4))
    simulated = simulate(0, 0, c, volume)
    kinds = {kind: simulated.other_kind.count(kind) for kind in simulated.other_kind}
    assert kinds["ice"] == 2
    assert kinds["gold"] == 4
    assert kinds["overlap"] == 6
    assert 10 <= kinds["aggregate"] <= 24
    assert len(simulated.other_x) == len(simulated.other_y) == len(simulated.other_kind)
    d = simulated.diameter_a / simulated.pixel_a
    pairs = [
        (x, y)
        for x, y, k in zip(simulated.other_x, simulated.other_y, simulated.other_kind, strict=True)
        if k == "overlap"
    ]
    for (ax, ay), (bx, by) in zip(pairs[::2], pairs[1::2], strict=True):
        assert 0.3 * d < np.hypot(ax - bx, ay - by) < 0.8 * d
    for x, y, kind in zip(simulated.other_x, simulated.other_y, simulated.other_kind, strict=True):
        if kind != "aggregate":
            assert np.hypot(simulated.x - x, simulated.y - y).min() > 0.6 * d
        if kind == "ice" and 40 < x < 860 and 40 < y < 760:
            patch = simulated.image[round(y) - 30 : round(y) + 31, round(x) - 30 : round(x) + 31]
            assert patch.min() < LEVEL - 4


def test_carbon_is_dark_grainy_and_marked(volume: Volume) -> None:
    simulated = simulate(4, 0, replace(BARE, carbon=(0.4, 0.4), particles=(0, 0)), volume)
    film = simulated.carbon
    assert film is not None
    assert film.mean() == pytest.approx(0.4, abs=0.03)
    deep, far = ndimage.binary_erosion(film, iterations=15), ~ndimage.binary_dilation(film, iterations=15)
    assert simulated.image[deep].mean() < simulated.image[far].mean() - 1
    assert simulated.image[deep].std() > 1.2 * simulated.image[far].std()
    assert simulate(4, 0, BARE, volume).carbon is None


def test_nothing_is_carried_around_the_pictures_edge(volume: Volume) -> None:
    """A film at one side must leave no fringe at the other, as a Fourier transform of the bare picture would."""
    c = replace(BARE, particles=(0, 0), carbon=(0.3, 0.3), shape=(400, 400))
    for index in range(4):
        simulated = simulate(5, index, c, volume)
        film = simulated.carbon
        assert film is not None
        clear = ~ndimage.binary_dilation(film, iterations=25)
        for edge in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
            if clear[edge].all():
                assert simulated.image[edge].mean() == pytest.approx(simulated.image[clear].mean(), abs=0.15)


def test_counts_are_poissons(volume: Volume) -> None:
    c = replace(BARE, dose=2.0, particles=(0, 0), solvent=0.0)
    image = simulate(0, 0, c, volume).image
    assert image.dtype == np.uint16
    assert image.mean() == pytest.approx(2.0 * 16, rel=0.01)
    assert image.var() == pytest.approx(2.0 * 16, rel=0.02)
    iced = simulate(0, 0, replace(c, solvent=0.5), volume).image
    assert iced.var() == pytest.approx(2 * 2.0 * 16, rel=0.05)


def test_a_gradient_changes_the_brightness_by_its_fraction(volume: Volume) -> None:
    c = replace(BARE, gradient=0.5, particles=(0, 0))
    for index in range(3):
        image = simulate(0, index, c, volume).image
        rows, columns = image.mean(1), image.mean(0)
        slope = np.hypot(rows[-40:].mean() - rows[:40].mean(), columns[-40:].mean() - columns[:40].mean())
        assert slope == pytest.approx(0.5 * LEVEL, rel=0.35)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_named_conditions_are_as_their_name_says(name: str) -> None:
    c = named(name, shape=(512, 480), pixel_a=8.0)
    simulated = simulate(0, 0, c, VOLUME)
    assert simulated.image.shape == (512, 480)
    assert np.isfinite(simulated.image).all()
    assert simulated.image.dtype == (np.uint16 if c.dose else np.float32)
    assert (len(simulated.x) > 20) is (name != "empty")
    if name == "clean":
        assert simulated.carbon is None
        assert not simulated.other_kind
    if name == "carbon":
        assert simulated.carbon is not None
        assert simulated.carbon.mean() > 0.25


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"snr": 0.0}, "snr"),
        ({"snr": float("nan")}, "snr"),
        ({"shape": (8, 100)}, "shape"),
        ({"particles": (5, 2)}, "particles"),
        ({"ice": (-1, 2)}, "ice"),
        ({"defocus_um": (2.0, 1.0)}, "defocus_um"),
        ({"carbon": (0.5, 0.99)}, "carbon"),
        ({"dose": 0.0}, "dose"),
        ({"views": -1}, "views"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_conditions_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named("paper", **wrong)


def test_unknown_names_and_negative_seeds_are_refused(volume: Volume) -> None:
    with pytest.raises(ValueError, match="known are paper"):
        named("papre")
    with pytest.raises(ValueError, match="seed -1"):
        simulate(-1, 0, BARE, volume)


def test_as_training_takes_it(volume: Volume) -> None:
    simulated = simulate(0, 0, replace(BARE, dose=1.0), volume)
    labelled = simulated.labelled()
    assert labelled.name == simulated.name == "simulated-0-00000"
    assert labelled.load().dtype == np.float32
    np.testing.assert_array_equal(labelled.load(), simulated.image)
    assert len(labelled.x) == len(simulated.x)
    assert len(labelled.wrong_x) == 0


def test_pictures_ring_each_particle_where_it_is(volume: Volume) -> None:
    simulated = simulate(0, 0, BARE, volume)
    shown = picture(simulated, width=210)
    assert shown.shape == (180, 210, 3)
    green = (shown == (60, 220, 60)).all(-1)
    d = simulated.diameter_a / simulated.pixel_a
    for x, y in zip(simulated.x, simulated.y, strict=True):
        row, column = round((y - 0.5) / 2), round((x - 0.5 + d / 2) / 2 - 0.25)
        assert green[row - 1 : row + 2, column - 1 : column + 2].any()
    assert not (shown == (230, 60, 60)).all(-1).any()


# Parts


def test_smooth_noise_has_its_spread_and_its_length() -> None:
    found = np.stack([smooth_noise(np.random.default_rng(i), (200, 260), 40) for i in range(60)])
    assert found.shape == (60, 200, 260)
    assert 0.6 < found.std() < 1.1
    near = np.corrcoef(found[:, :, :-4].ravel(), found[:, :, 4:].ravel())[0, 1]
    far = np.corrcoef(found[:, :, :-120].ravel(), found[:, :, 120:].ravel())[0, 1]
    assert near > 0.95
    assert abs(far) < 0.1


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.8])
def test_a_film_covers_its_fraction_from_one_side(fraction: float) -> None:
    film = carbon_film(np.random.default_rng(1), (300, 400), 4.0, fraction)
    assert (film > 0.5).mean() == pytest.approx(fraction, abs=0.03)
    assert ndimage.label(film > 0.5)[1] == 1
    assert film.min() == 0
    assert film.max() == 1


@given(st.floats(-30, 60), st.floats(-30, 60), st.integers(1, 20))
def test_stamps_are_cut_off_at_the_edge(x: float, y: float, side: int) -> None:
    canvas, patch = np.zeros((24, 30), np.float32), np.ones((side, side), np.float32)
    stamp(canvas, patch, x, y)
    rows = set(range(round(y) - side // 2, round(y) - side // 2 + side)) & set(range(24))
    columns = set(range(round(x) - side // 2, round(x) - side // 2 + side)) & set(range(30))
    assert canvas.sum() == len(rows) * len(columns)


def test_there_is_no_room_where_the_border_takes_all() -> None:
    assert Room((50, 500), 30.0, None, 0.0).find(np.random.default_rng(0), 1.0) is None
    blocked = np.ones((64, 64), bool)
    assert Room((64, 64), 0.0, blocked, 1.0).find(np.random.default_rng(0), 1.0) is None


def test_disc_variance_leaves_the_corners_out() -> None:
    image = np.zeros((1, 32, 32), np.float32)
    image[0, :4, :4] = 100
    assert disc_variance(image, 20) == 0
    image[0, 16, 16:20] = 1
    inside = np.hypot(*(np.mgrid[:32, :32] - 16)) <= 10
    assert disc_variance(image, 20) == pytest.approx(image[0, inside].var())
