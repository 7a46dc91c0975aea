"""Projections against a slow real-space projector, maps from files, and the contrast transfer function."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.particles import maps
from beamsieve.models.particles.ctf import Ctf, wavelength_a
from beamsieve.models.particles.maps import BUILT_IN, Volume, load_map, prepared
from beamsieve.models.particles.projector import Projector, random_rotations
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "maps"
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Three blobs of different weight and place: no two orientations look alike."""
    at = np.arange(48) - 22.0
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    blobs = [(8, 0, 0, 4, 1.0), (-6, 7, 2, 3, 1.5), (0, -5, -9, 5, 0.8)]
    density = sum(w * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * s * s)) for a, b, c, s, w in blobs)
    return prepared(np.asarray(density), 4.0)


def slowly(volume: Volume, rotation: npt.NDArray[np.float64]) -> Floats:
    """Turn the volume, then add it up along the beam: projections at the volume's own pixel size."""
    n = len(volume.data)
    # affine_transform asks where each output voxel (z, y, x) comes from: the inverse turn, in the arrays' axis order.
    back = rotation.T[::-1, ::-1]
    middle = np.full(3, n // 2)
    turned = ndimage.affine_transform(volume.data, back, middle - back @ middle, order=3)
    total: Floats = turned.sum(axis=0) * volume.voxel_a
    return total


def single(values: list[float]) -> Floats:
    return np.array(values, np.float32)


def alike(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_projections_are_those_of_turning_and_adding_up(volume: Volume) -> None:
    n = len(volume.data)
    turns = random_rotations(np.random.default_rng(1), 12)
    fast = Projector(volume).project(turns, n, volume.voxel_a)
    for image, turn in zip(fast, turns, strict=True):
        slow = slowly(volume, turn)
        assert alike(image, slow) > 0.995
        assert image.max() == pytest.approx(slow.max(), rel=0.05)


def test_a_wrong_turn_looks_different(volume: Volume) -> None:
    """Else the test above would not notice a transposed matrix or swapped axes."""
    turns = random_rotations(np.random.default_rng(1), 12)
    n = len(volume.data)
    fast = Projector(volume).project(turns.transpose(0, 2, 1), n, volume.voxel_a)
    found = [alike(image, slowly(volume, turn)) for image, turn in zip(fast, turns, strict=True)]
    # Half a turn is its own inverse, so that some of them may still look alike.
    assert np.median(found) < 0.9


@pytest.mark.parametrize("pixel_a", [2.5, 4.0, 7.0])
def test_every_pixel_size_gives_the_same_picture_and_mass(volume: Volume, pixel_a: float) -> None:
    turn = random_rotations(np.random.default_rng(2), 1)
    size = 2 * round(len(volume.data) * volume.voxel_a / pixel_a / 2)
    image = Projector(volume).project(turn, size, pixel_a)[0]
    at = (np.arange(size) - size // 2) * pixel_a
    # Interpolation leaves faint copies of the volume around the picture, so only the particle is looked at.
    image *= np.hypot(at[:, None], at) < 0.65 * volume.diameter_a
    assert image.sum() * pixel_a**2 == pytest.approx(volume.data.sum() * volume.voxel_a**3, rel=0.03)
    x, y = (image.sum(0) @ at) / image.sum(), (image.sum(1) @ at) / image.sum()
    # The volume's centre of mass is its middle, so a projection's is too.
    assert np.hypot(x, y) < 0.15 * volume.voxel_a


def test_shifts_move_right_and_down_by_parts_of_a_pixel(volume: Volume) -> None:
    turn = np.eye(3)[None].repeat(2, 0)
    still, moved = Projector(volume).project(turn, 80, 4.0, np.array([[0, 0], [3.4, -6.7]]))
    wanted = np.fft.irfft2(ndimage.fourier_shift(np.fft.rfft2(still), (-6.7, 3.4), n=80))
    np.testing.assert_allclose(moved, wanted, atol=1e-3 * still.max())
    assert np.unravel_index(moved.argmax(), moved.shape) != np.unravel_index(still.argmax(), still.shape)


def test_sizes_and_padding_that_cannot_be_are_refused(volume: Volume) -> None:
    with pytest.raises(ValueError, match="use 34"):
        Projector(volume).project(np.eye(3), 33, 4.0)
    with pytest.raises(ValueError, match="padding"):
        Projector(volume, padding=0.5)
    assert Projector(volume).project(np.zeros((0, 3, 3)), 32, 4.0).shape == (0, 32, 32)


def test_orientations_are_rotations_and_uniform() -> None:
    turns = random_rotations(np.random.default_rng(3), 4000)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    assert np.linalg.det(turns) == pytest.approx(1)
    for column in range(3):
        for row in range(3):
            # Archimedes: each coordinate of a direction uniform on the sphere is uniform from -1 to 1.
            assert stats.kstest(turns[:, row, column], stats.uniform(-1, 2).cdf).pvalue > 1e-4
    angle = np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert stats.kstest(angle, lambda t: (t - np.sin(t)) / np.pi).pvalue > 1e-4


# Maps


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [("ribosome", 240, 280), ("proteasome", 380, 470), ("apoferritin", 115, 130), ("hemocyanin", 380, 470)],
)
def test_built_in_maps_have_their_size_and_no_two_views_alike(name: str, smallest: float, largest: float) -> None:
    volume = load_map(name)
    assert smallest <= volume.diameter_a <= largest
    assert volume.data.dtype == np.float32
    assert len(set(volume.data.shape)) == 1
    middle = np.array(ndimage.center_of_mass(volume.data))
    np.testing.assert_allclose(middle, len(volume.data) // 2, atol=0.05)
    assert np.array_equal(load_map(name).data, volume.data)
    views = Projector(volume).project(random_rotations(np.random.default_rng(0), 6), 64, volume.diameter_a / 48)
    pairs = [alike(views[i], views[j]) for i in range(6) for j in range(i)]
    assert max(pairs) < 0.99


def test_no_built_in_map_is_forgotten_here() -> None:
    assert set(BUILT_IN) == {"ribosome", "proteasome", "apoferritin", "hemocyanin"}


def written(path: Path, density: Floats, voxel_a: float | tuple[float, float, float] = 0.0) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(density)
        if voxel_a:
            file.voxel_size = voxel_a
    return path


def test_a_map_file_is_masked_centred_cubic_and_normalised(tmp_path: Path) -> None:
    density = np.random.default_rng(0).normal(0, 0.02, (30, 36, 40)).astype(np.float32)
    density[8:20, 10:26, 20:32] += 2
    volume = load_map(written(tmp_path / "box.mrc", density, 3.0))
    assert volume.voxel_a == pytest.approx(3.0)
    assert volume.name == "box"
    n = len(volume.data)
    assert volume.data.shape == (n, n, n)
    np.testing.assert_allclose(ndimage.center_of_mass(volume.data), n // 2, atol=0.05)
    assert volume.data[n // 2, n // 2, n // 2] == pytest.approx(1, abs=0.05)
    assert not volume.data[0].any()
    inside = np.random.default_rng(1).uniform(-0.5, 0.5, (100000, 3)) * (12, 16, 12)
    assert volume.diameter_a / 3.0 == pytest.approx(2 * np.quantile(np.linalg.norm(inside, axis=1), 0.99), rel=0.07)


def test_axes_of_a_map_file_are_put_in_order(tmp_path: Path) -> None:
    density = np.zeros((20, 24, 28), np.float32)
    density[5:15, 6:10, 4:24] = 1
    density[10:14, 6:18, 4:9] = 1
    plain = load_map(written(tmp_path / "plain.mrc", density, 2.0))
    turned = written(tmp_path / "turned.mrc", density.transpose(1, 2, 0).copy(), 2.0)
    with mrcfile.open(turned, mode="r+") as file:
        # Columns run along z, rows along x, sections along y.
        file.header.mapc, file.header.mapr, file.header.maps = 3, 1, 2
    np.testing.assert_allclose(load_map(turned).data, plain.data, atol=1e-6)


def test_maps_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    density = np.zeros((16, 16, 16), np.float32)
    density[5:11, 5:11, 5:11] = 1
    bare = written(tmp_path / "bare.mrc", density)
    with pytest.raises(ValueError, match="no voxel size; state it"):
        load_map(bare)
    assert load_map(bare, voxel_a=4.9).diameter_a == pytest.approx(4.9 * 8.5, rel=0.1)
    with pytest.raises(ValueError, match="not cubes"):
        load_map(written(tmp_path / "flat.mrc", density, (2.0, 2.0, 3.0)))
    with pytest.raises(ValueError, match="no density above"):
        load_map(bare, voxel_a=4.9, threshold=5.0)
    with pytest.raises(ValueError, match="three-dimensional"):
        load_map(written(tmp_path / "image.mrc", density[0]))
    with pytest.raises(ValueError, match="neither a built-in map"):
        load_map("ribosom")
    with pytest.raises(FileNotFoundError):
        load_map(tmp_path / "absent.mrc")
    with pytest.raises(ValueError, match="not finite"):
        prepared(np.full((8, 8, 8), np.nan), 4.0)


def test_a_file_that_is_no_map_says_so(tmp_path: Path) -> None:
    (tmp_path / "junk.mrc").write_bytes(b"not a map at all" * 100)
    with pytest.raises(ValueError, match=r"junk\.mrc: its header says"):
        load_map(tmp_path / "junk.mrc")


ATOM = "ATOM  {:5d}  {:<3s} ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00 20.00          {:>2s}\n"


def test_an_atomic_model_becomes_blobs_where_its_atoms_are(tmp_path: Path) -> None:
    atoms = [(0.0, 0.0, 0.0, "C"), (16.0, 0.0, 0.0, "C"), (0.0, 24.0, 0.0, "FE"), (0.0, 0.0, 40.0, "C")]
    lines = [ATOM.format(i, e, i, x, y, z, e) for i, (x, y, z, e) in enumerate(atoms, 1)]
    lines += ["ENDMDL\n", ATOM.format(9, "C", 9, 500.0, 0.0, 0.0, "C")]
    path = tmp_path / "four.pdb.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    density, voxel = maps.read_pdb(path, 2.0, 8.0)
    assert density.sum() == pytest.approx(6 * 3 + 26, rel=1e-3)
    brightest = np.array(np.unravel_index(density.argmax(), density.shape))
    parts, count = ndimage.label(density > 0.02 * density.max())
    assert count == 4
    centres = np.array(ndimage.center_of_mass(density, parts, range(1, 5))) * voxel
    wanted = np.array([(z, y, x) for x, y, z, _ in atoms])
    np.testing.assert_allclose(np.sort(centres - centres.mean(0), 0), np.sort(wanted - wanted.mean(0), 0), atol=1.5)
    iron = centres[np.argmin(np.abs(centres - brightest * voxel).sum(1))]
    assert iron[1] == centres[:, 1].max()


@pytest.mark.parametrize(
    ("text", "message"),
    [("HEADER\n", "no ATOM lines"), ("ATOM      1  C   ALA A   1      what    0.000\n", ":1: columns")],
)
def test_broken_atomic_models_say_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.pdb"
    path.write_text(text, encoding="ascii")
    with pytest.raises(ValueError, match=message):
        load_map(path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "voxel_a", "diameter_a"),
    [
        ("70S_65.mrc", 5.0, 245),
        ("betaGal.mrc", None, 178),
        ("emd_1099.map", None, 133),
        ("1aon.pdb.gz", None, 213),
        ("3iyf.pdb.gz", None, 208),
    ],
)
def test_real_maps_load(name: str, voxel_a: float | None, diameter_a: float) -> None:
    if not DATA.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    volume = load_map(DATA / name, voxel_a=voxel_a)
    assert volume.diameter_a == pytest.approx(diameter_a, rel=0.05)
    assert Projector(volume).project(np.eye(3), 64, volume.diameter_a / 40)[0].max() > 0


# The contrast transfer function


@pytest.mark.parametrize(("kv", "angstrom"), [(80, 0.04176), (120, 0.03349), (200, 0.02508), (300, 0.01969)])
def test_electron_wavelengths_are_those_of_the_tables(kv: float, angstrom: float) -> None:
    assert wavelength_a(kv) == pytest.approx(angstrom, abs=1e-5)


def test_transfer_is_zero_where_theory_says() -> None:
    """Without aberration and amplitude contrast the zeros lie at k² = n / (λ Δf)."""
    ctf = Ctf(15000, 15000, cs_mm=0, amplitude_contrast=0)
    k = np.sqrt(np.arange(1, 20) / (wavelength_a(300) * 15000)).astype(np.float32)
    np.testing.assert_allclose(ctf.at(k, np.float32(0) * k), 0, atol=2e-3)
    first = np.sqrt(0.5 / (wavelength_a(300) * 15000))
    assert ctf.at(single([first]), single([0]))[0] == pytest.approx(-1, abs=1e-4)


def test_aberration_works_against_underfocus() -> None:
    """CTFFIND4's phase: πλk²(Δf - λ²k²Cs/2) + asin(amplitude contrast), in double precision here."""
    k = np.linspace(0, 0.3, 200)
    length = wavelength_a(200)
    phase = np.pi * length * k**2 * (18000 - 0.5 * length**2 * k**2 * 2.0e7) + np.arcsin(0.1)
    ctf = Ctf(18000, 18000, voltage_kv=200, cs_mm=2.0, amplitude_contrast=0.1)
    found = ctf.at(k.astype(np.float32), np.zeros(200, np.float32))
    np.testing.assert_allclose(found, -np.sin(phase), atol=1e-3)
    assert found[0] == pytest.approx(-0.1)


@given(st.floats(0, 180), st.floats(5000, 30000), st.floats(0, 3000))
@settings(max_examples=30, deadline=None)
def test_astigmatism_has_its_defocus_along_its_axis(angle: float, u: float, difference: float) -> None:
    k, turn = 0.04, np.radians(angle)
    ctf = Ctf(u, u - difference, angle)
    for axis, defocus in ((turn, u), (turn + np.pi / 2, u - difference)):
        along = ctf.at(single([k * np.cos(axis)]), single([k * np.sin(axis)]))
        assert along == pytest.approx(Ctf(defocus, defocus).at(single([k]), single([0])), abs=2e-3)


def test_envelope_falls_like_a_temperature_factor() -> None:
    kx, ky = single([0.02, 0.1]), single([0, 0])
    ratio = Ctf(1e4, 1e4, b_factor_a2=150).at(kx, ky) / Ctf(1e4, 1e4).at(kx, ky)
    np.testing.assert_allclose(ratio, np.exp(-150 * kx**2 / 4), rtol=1e-4)


def test_detail_is_carried_no_further_than_said() -> None:
    """A point seen through the transfer function: almost all of it lies within the delocalisation."""
    ctf = Ctf(20000, 20000, cs_mm=0, amplitude_contrast=0.07)
    image = np.fft.fftshift(np.fft.irfft2(ctf.image((512, 512), 3.0)))
    at = (np.arange(512) - 256) * 3.0
    away = np.hypot(at[:, None], at)
    reach = ctf.delocalisation_a(3.0)
    power = image**2
    assert power[away <= 1.5 * reach].sum() > 0.95 * power.sum()
    assert power[away <= 0.5 * reach].sum() < 0.7 * power.sum()


@pytest.mark.parametrize("wrong", [{"voltage_kv": 0.0}, {"amplitude_contrast": 1.5}])
def test_optics_that_no_microscope_has_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Ctf(1e4, 1e4, **wrong)
