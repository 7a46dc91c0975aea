"""The simulated patterns against direct sums, symmetries and statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from beamsieve.models.hits import shapes
from beamsieve.models.hits.aggregates import random_cluster
from beamsieve.models.hits.conditions import PRESETS, Conditions, preset
from beamsieve.models.hits.detector import poisson
from beamsieve.models.hits.fourier import Geometry, ewald, sample, scatter, transform
from beamsieve.models.hits.shapes import Particle, random_particle, random_rotation
from beamsieve.models.hits.simulator import Recipe, join, pool, render, simulate, simulate_block
from scipy import stats
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.spatial import ConvexHull

CPU = torch.device("cpu")
SMALL = Recipe(seed=5, per_model=6)


def voxels(particle: Particle) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coordinates (n, 3) and densities (n,) of the filled voxels."""
    index = np.argwhere(particle.density > 0)
    return index + np.array(particle.corner), particle.density[tuple(index.T)].astype(float)


def direct(particle: Particle, q: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    """The slow way: Σ ρ(x) exp(-2πi q·x) over all voxels, times the blur."""
    x, density = voxels(particle)
    wave = np.exp(-2j * np.pi * (q @ x.T)) @ density
    blurred: npt.NDArray[np.complex128] = wave * np.exp(-2 * np.pi**2 * particle.blur**2 * (q**2).sum(-1))
    return blurred


@pytest.fixture(scope="module")
def particle() -> Particle:
    return random_particle(np.random.default_rng(3), "icosahedron")


@pytest.mark.parametrize(
    ("shape", "volume"),
    [
        # Volumes for a circumscribed sphere of radius 1, from tables of the edge length.
        ("octahedron", 4 / 3),
        ("dodecahedron", 2.785163863),
        ("icosahedron", 2.536150710),
        ("truncated_icosahedron", 55.28773076 / 2.47801866**3),
    ],
)
def test_polyhedra_have_their_volume(shape: str, volume: float) -> None:
    points = shapes.grid(50) / np.float32(46)
    found = shapes.body(shape, points, np.random.default_rng(0)).sum() / 46**3
    assert found == pytest.approx(volume, rel=0.01)


def test_truncated_icosahedron_has_32_faces_all_touching_the_body() -> None:
    normals, distances = shapes.faces("truncated_icosahedron")
    assert len(normals) == 32
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    # The 60 corners: cut each of the icosahedron's 30 edges at its thirds.
    corners = shapes.icosahedron_vertices()
    gaps = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
    edge = gaps[gaps > 1e-9].min()
    thirds = np.array([(2 * a + b) / 3 for a in corners for b in corners if abs(np.linalg.norm(a - b) - edge) < 1e-9])
    thirds /= np.linalg.norm(thirds[0])
    assert len(thirds) == 60
    inside = thirds @ normals.T - distances
    assert inside.max() < 1e-9
    assert (np.isclose(inside, 0, atol=1e-9).sum(axis=1) == 3).all()


def test_partial_transform_is_the_middle_of_the_256_cubed_fft(particle: Particle) -> None:
    box = np.zeros((256, 256, 256), dtype=np.float32)
    start = [round(c + 63.5) for c in particle.corner]
    a, b, c = (slice(s, s + n) for s, n in zip(start, particle.density.shape, strict=True))
    box[a, b, c] = particle.density
    half = 9
    k = np.arange(-half, half + 1)
    full = np.fft.rfftn(box)
    full = full[np.ix_(k, k, k[half:])]
    f = k / 256
    # The FFT counts voxels from the corner of the box, the simulator from its centre.
    shift = np.exp(2j * np.pi * 63.5 * (f[:, None, None] + f[None, :, None] + f[None, None, half:]))
    blur = np.exp(-2 * np.pi**2 * particle.blur**2 * (f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[half:] ** 2))
    mine = transform(particle, (half - 1) / 256, CPU, grid=256, compensate=False).values[0].numpy()
    found = (mine[0] + 1j * mine[1])[:, :, half:]
    expected = full * shift * blur
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("shape", ["dodecahedron", "torus", "core_shell"])
def test_fourier_slice_equals_the_direct_sum(shape: str) -> None:
    rng = np.random.default_rng(8)
    body = random_particle(rng, shape)
    geometry = Geometry(edge=14 / (2 * body.diameter), angle=0.25, centre=(2.0, -3.0))
    q, _ = ewald([geometry], 24, CPU)
    turn = random_rotation(rng)
    model = transform(body, geometry.highest(24), CPU)
    found = sample(model, torch.einsum("nyxi,ij->nyxj", q, torch.tensor(turn, dtype=torch.float32)))[0].numpy()
    # The direct sum takes long: some pixels of all parts of the picture.
    some = np.sort(rng.choice(24 * 24, 160, replace=False))
    found = found.ravel()[some]
    expected = direct(body, (q[0].numpy().astype(float) @ turn).reshape(-1, 3)[some])
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
    # Where the wave is weak, it counts too: the relative error of the amplitude at the rim.
    rim = (np.hypot(*np.mgrid[-11.5:12:1, -11.5:12:1]) > 8).ravel()[some]
    assert np.linalg.norm((found - expected)[rim]) < 0.02 * np.linalg.norm(expected[rim])


def test_cluster_equals_the_direct_sum_over_all_its_voxels(particle: Particle) -> None:
    rng = np.random.default_rng(4)
    geometry = Geometry(edge=10 / (2 * particle.diameter), angle=0.2)
    q, _ = ewald([geometry] * 2, 20, CPU)
    model = transform(particle, geometry.highest(20), CPU)
    clusters = [random_cluster(rng, 3, particle.hull, common, (1.0, 1.0)) for common in (False, True)]
    found = scatter(model, q, clusters).numpy()
    # The direct sum takes long: some pixels of all parts of the picture.
    some = np.sort(rng.choice(20 * 20, 100, replace=False))
    every = q[0].numpy().astype(float).reshape(-1, 3)
    points = every[some]
    for image, (rotations, positions) in zip(found.reshape(2, -1)[:, some], clusters, strict=True):
        first = direct(particle, every @ rotations[0])
        alone = [first[some], *(direct(particle, points @ r) for r in rotations[1:])]
        wave = sum(a * np.exp(-2j * np.pi * points @ p) for a, p in zip(alone, positions, strict=True))
        expected = np.abs(wave) ** 2 / (np.abs(first) ** 2).sum()
        assert np.linalg.norm(image - expected) < 0.02 * np.linalg.norm(expected)


def test_pattern_is_centrosymmetric_when_the_sphere_is_flat_and_not_when_it_is_curved(particle: Particle) -> None:
    rng = np.random.default_rng(6)
    cluster = random_cluster(rng, 2, particle.hull, False, (1.0, 1.0))
    asymmetry = []
    for angle in (1e-4, 0.3):
        geometry = Geometry(12 / (2 * particle.diameter), angle)
        q, _ = ewald([geometry], 64, CPU)
        image = scatter(transform(particle, geometry.highest(64), CPU), q, [cluster])[0].numpy()
        asymmetry.append(np.abs(image - image[::-1, ::-1]).sum() / image.sum())
    assert asymmetry[0] < 1e-3
    assert asymmetry[1] > 0.02


def test_scattering_vectors_lie_on_the_ewald_sphere() -> None:
    geometry = Geometry(edge=0.1, angle=0.3)
    q, solid = ewald([geometry], 129, CPU)
    wave = 0.1 / (2 * np.sin(0.15))
    points = q[0].numpy().astype(float)
    assert np.allclose(np.linalg.norm(points + np.array([0, 0, wave]), axis=-1), wave, rtol=1e-5)
    assert np.linalg.norm(points[64, 64]) < 1e-9
    # Interpolated to 64.5 pixels from the centre, the edge of the outermost pixel
    radius = np.linalg.norm(points[64, 64:], axis=-1)
    assert np.interp(64.5, [63, 64], radius[-2:], right=radius[-1] + (radius[-1] - radius[-2]) / 2) == pytest.approx(
        0.1, rel=1e-3
    )
    assert solid.max() == 1


def test_particles_touch_and_do_not_overlap(particle: Particle) -> None:
    rng = np.random.default_rng(12)
    hull = particle.hull[ConvexHull(particle.hull).vertices]
    for count in (2, 5, 8):
        rotations, positions = random_cluster(rng, count, particle.hull, False, (1.0, 1.0))
        bodies = [hull @ r.T + p for r, p in zip(rotations, positions, strict=True)]
        assert np.allclose(positions.mean(axis=0), 0)
        nearest = []
        for i, first in enumerate(bodies):
            gaps = []
            for j, second in enumerate(bodies):
                if i == j:
                    continue
                line = (positions[j] - positions[i]) / np.linalg.norm(positions[j] - positions[i])
                gaps.append((second @ line).min() - (first @ line).max())
            assert min(gaps) > -1e-6
            nearest.append(min(gaps))
        assert max(nearest) < 1e-6


def test_blur_is_the_gaussian_filter_of_the_density(particle: Particle) -> None:
    padded = np.pad(particle.density, 12)
    soft = gaussian_filter(padded, particle.blur, truncate=6)
    corner = tuple(c - 12 for c in particle.corner)
    q = np.random.default_rng(0).uniform(-0.08, 0.08, (40, 3))
    index = np.argwhere(binary_dilation(padded > 0, iterations=11))
    blurred = np.exp(-2j * np.pi * (q @ (index + corner).T)) @ soft[tuple(index.T)]
    assert np.abs(blurred - direct(particle, q)).max() < 1e-4 * particle.density.sum()


@pytest.mark.parametrize("mean", [0.003, 0.7, 9.0, 63.0, 65.0, 4000.0])
def test_poisson_counts_follow_the_distribution(mean: float) -> None:
    uniform = torch.from_numpy(np.random.default_rng(1).random(200_000, dtype=np.float32))
    counts = poisson(torch.full((200_000,), mean), uniform).numpy()
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / 200_000))
    assert counts.var() == pytest.approx(mean, rel=0.03 + 3 * np.sqrt(1 / (mean * 200_000)))
    expected = stats.poisson.ppf(uniform.double().numpy(), mean)
    assert np.abs(counts - expected).max() <= 1
    assert (counts != expected).mean() < (0.0001 if mean < 64 else 0.02)


def test_patterns_have_the_expected_photons() -> None:
    """Over many noisy copies of one shot the mean is the expected intensity: its sum is the stated fluence."""
    fixed = Conditions(photons=(2e4, 2e4), edge_angle_rad=(0.01, 0.01))
    made = simulate_block(Recipe(seed=2, conditions=fixed, per_model=8), 0, labels=np.ones(8, dtype=np.int8))
    assert made.images.dtype == np.uint16
    assert np.allclose(made.images.sum(axis=(1, 2)), 2e4, rtol=5 / np.sqrt(2e4))
    assert np.allclose(made.photons, 2e4)


def test_the_seed_fixes_every_pattern_and_blocks_come_in_any_order() -> None:
    whole = simulate(18, SMALL)
    again = simulate(13, SMALL)
    assert np.array_equal(whole.images[:13], again.images)
    backwards = [simulate_block(SMALL, i) for i in (2, 1, 0)][::-1]
    assert np.array_equal(join(backwards).images, whole.images)
    assert whole.model_id.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    other = simulate_block(Recipe(seed=6, per_model=6), 0)
    assert not np.array_equal(other.images, whole.images[:6])


def test_streams_of_one_seed_share_no_random_numbers() -> None:
    blocks = [simulate_block(Recipe(seed=5, per_model=6, stream=s), 0) for s in ("train", "test", "threshold", "pool")]
    for i, first in enumerate(blocks):
        for second in blocks[:i]:
            assert not np.array_equal(first.images, second.images)
            assert not np.array_equal(first.photons, second.photons)


def test_classes_come_in_the_paper_s_proportions() -> None:
    labels = np.concatenate([simulate_block(Recipe(seed=1, size=8), i).labels for i in range(12)])
    counts = np.bincount(labels, minlength=5)
    assert np.allclose(counts / len(labels), np.array([5, 30, 10, 10, 5]) / 60, atol=0.05)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_condition_yields_patterns_with_masked_pixels_empty(name: str) -> None:
    made = simulate_block(Recipe(seed=9, conditions=preset(name), per_model=5), 1, labels=np.arange(5, dtype=np.int8))
    assert made.images.shape == (5, 128, 128)
    assert not made.images[:, made.masks[0]].any()
    assert made.masks.any() == (name in {"detector", "mixed", "gaps", "beam_stop"})
    assert (made.images[1:].sum(axis=(1, 2)) > 100).all()


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="paper"):
        preset("papr")
    with pytest.raises(ValueError, match="octahedron"):
        simulate_block(Recipe(shapes=("cube",)), 0)


def test_pool_holds_as_many_of_each_class() -> None:
    made = pool(8, seed=3)
    assert np.bincount(made.labels).tolist() == [8] * 5
    assert not np.array_equal(made.labels, np.sort(made.labels))
    assert len(np.unique(made.model_id)) == len(made.masks) == 2


def test_render_cuts_a_larger_detector_into_modules() -> None:
    images, dead = render([0, 1, 2], seed=4, shape=(256, 300), modules=(2, 3), gap_px=6)
    assert images.shape == (3, 256, 300)
    assert images.dtype == np.uint16
    assert dead[125:131].all()
    assert dead[:, 97:103].all()
    assert dead.mean() == pytest.approx(6 / 256 + 12 / 300, rel=0.05)
    assert not images[:, dead].any()
    assert images[1].sum() > 1000
