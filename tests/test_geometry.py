"""Geometry files against extra-geom and by hand, assembly against one pixel at a time, mistakes by name."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import extra_geom
import h5py
import numpy as np
import pytest
from beamsieve.stream.decode.crystfel import read_geometry
from beamsieve.stream.decode.geometry import Assembler
from beamsieve.stream.decode.layout import GeometryError, Layout, Panel, pixel_positions, static_mask
from beamsieve.stream.decode.scattering import momentum_transfer, q_map, wavelength_m
from beamsieve.stream.flow.frame import BadData
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
BAD, MISSING = 0x80, 0x200

TWO_PANELS = """
; a comment
clen = 95.3 mm
photon_energy = 4570eV
res = 10000 ; pixels per metre
fs = x
a/min_fs = 0
a/max_fs = 3
a/min_ss = 0
a/max_ss = 2
a/corner_x = -5
a/corner_y = 1.0
a/ss = y
res = 20000  ; for panels first mentioned from here on: none
b/res = 10000
b/min_fs = 0
b/max_fs = 3
b/min_ss = 3
b/max_ss = 5.0
b/corner_x = +1.6e0
b/corner_y = 5
b/fs = -1.0y + 0.0 x
b/ss = -x
b/coffset = 0.002
badspot/panel = b
badspot/min_fs = 1
badspot/max_fs = 2
badspot/min_ss = 4
badspot/max_ss = 4
badbeam/min_x = -2
badbeam/max_x = 10
badbeam/min_y = 0
badbeam/max_y = 2.4
rigid_group_all = a,b
"""


def write(folder: Path, text: str, name: str = "d.geom") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def two(tmp_path: Path) -> Layout:
    return read_geometry(write(tmp_path, TWO_PANELS))


def test_a_file_read_by_hand(two: Layout) -> None:
    a, b = two.panels
    assert two.shape == (6, 4)
    assert two.distance_m == pytest.approx(0.0953)
    assert two.photon_energy_ev == pytest.approx(4570)
    assert a.slices == (slice(0, 3), slice(0, 4))
    assert a.corner_m == pytest.approx((-5e-4, 1e-4, 0))
    assert (a.fs_m, a.ss_m) == ((1e-4, 0, 0), (0, 1e-4, 0))
    assert b.corner_m == pytest.approx((1.6e-4, 5e-4, 0.002))
    assert b.fs_m == (0, -1e-4, 0)
    assert b.ss_m == (-1e-4, 0, 0)
    x, y, z = pixel_positions(two)[:, 4, 1] / 1e-4
    assert (x, y, z) == pytest.approx((0.1, 3.5, 20), abs=1e-5)


@pytest.mark.parametrize("res", [10000, 4000])
def test_bad_regions_in_both_systems(tmp_path: Path, res: int) -> None:
    two = read_geometry(write(tmp_path, TWO_PANELS.replace("10000", str(res))))
    mask = static_mask(two)
    positions = pixel_positions(two) * res
    for ss, fs in np.ndindex(two.shape):
        x, y = positions[:2, ss, fs]
        expected = (ss == 4 and fs in (1, 2)) or (-2 <= x <= 10 and 0 <= y <= 2.4)
        assert mask[ss, fs] == (BAD if expected else 0)
    assert 0 < np.count_nonzero(mask) < mask.size


def test_assembly_of_two_turned_panels(two: Layout) -> None:
    assembler = Assembler(two, two.shape)
    frame = np.arange(24, dtype=np.uint16).reshape(1, 6, 4)
    picture, mask = assembler.assemble(frame)
    assert picture[0].tolist() == [
        [0, 1, 2, 3, 23, 19, 15],
        [4, 5, 6, 7, 22, 18, 14],
        [8, 9, 10, 11, 21, 17, 13],
        [0, 0, 0, 0, 20, 16, 12],
    ]
    assert (mask[3, :4] == MISSING).all()
    assert not (mask[:3] & MISSING).any()
    assert assembler.pixel_size_m == pytest.approx((1e-4, 1e-4))
    assert assembler.distance_m == pytest.approx(0.0963)
    # by panel a the beam is 5 pixels to the right, by panel b, 0.4 away from where whole pixels allow, 5.4
    assert assembler.centre == pytest.approx((-1, 5.2))


EXAMPLES = ["AGIPD_1MGeometry", "DSSC_1MGeometry", "LPD_1MGeometry", "LPD_MiniGeometry", "JUNGFRAUGeometry"]
EXAMPLES += ["PNCCDGeometry", "Epix100Geometry", "Epix10KGeometry"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_same_as_extra_geom(tmp_path: Path, name: str) -> None:
    kind: Any = getattr(extra_geom, name)
    theirs = kind.example() if hasattr(kind, "example") else kind.from_origin()
    theirs.write_crystfel_geom(tmp_path / "d.geom", nquads=0)
    shape = theirs.expected_data_shape
    assembler = Assembler(tmp_path / "d.geom", shape)
    assert assembler.layout is not None
    positions = np.moveaxis(pixel_positions(assembler.layout), 0, -1).reshape(*shape, 3)
    error = np.abs(positions - theirs.get_pixel_positions())[..., :2].max() / theirs.pixel_size
    # the hexagons of DSSC shift every other row by half a pixel, which a .geom file cannot say
    assert error < (0.51 if name.startswith("DSSC") else 0.01)
    frames = np.random.default_rng(0).integers(1, 60000, (2, *shape)).astype(np.uint16)
    expected, centre = theirs.position_modules(frames.astype(np.float32))
    picture, mask = assembler.assemble(frames)
    assert assembler.centre is not None
    assert np.abs(np.array(assembler.centre) - centre).max() <= 1.5
    if name.startswith("Epix"):  # corners at half pixels are rounded to the other side
        assert np.abs(np.array(picture.shape) - expected.shape).max() <= 1
        assert np.array_equal(
            np.sort(picture[0].ravel()), np.sort(np.pad(frames[0].ravel(), (picture[0].size - frames[0].size, 0)))
        )
    else:
        assert np.array_equal(picture, np.nan_to_num(expected))
        assert np.array_equal(mask == MISSING, np.isnan(expected[0]))


def test_modules_with_an_axis_or_stacked_are_the_same_detector(tmp_path: Path) -> None:
    geometry = extra_geom.AGIPD_1MGeometry.example()
    geometry.write_crystfel_geom(tmp_path / "d.geom", dims=("frame", "ss", "fs"))
    frames = np.random.default_rng(0).random((1, 16, 512, 128), np.float32)
    one, _ = Assembler(tmp_path / "d.geom", (16, 512, 128)).assemble(frames)
    two, _ = Assembler(tmp_path / "d.geom", (8192, 128)).assemble(frames.reshape(1, 8192, 128))
    assert np.array_equal(one, two)
    with pytest.raises(GeometryError, match=r"panels fill an array of \(8192, 128\), frames have \(15, 512, 128\)"):
        Assembler(tmp_path / "d.geom", (15, 512, 128))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 4), st.floats(-4, 4))
def test_each_pixel_is_near_where_it_belongs_and_none_is_lost(seed: int, count: int, tilt: float) -> None:
    rng = np.random.default_rng(seed)
    pitch, panels, row = 1e-4, [], 0
    for number in range(count):
        slow, fast = (int(n) for n in rng.integers(1, 9, 2))
        angle = math.radians(90 * rng.integers(4) + tilt)
        handed = rng.choice([-1, 1])
        fs = (math.cos(angle) * pitch, math.sin(angle) * pitch, 0.0)
        ss = (-handed * math.sin(angle) * pitch, handed * math.cos(angle) * pitch, 0.0)
        corner = (rng.normal(0, 3e-4) + number * 30e-4, rng.normal(0, 3e-4), 0.0)
        panels.append(Panel(str(number), (slice(row, row + slow), slice(0, fast)), corner, fs, ss, 1 / pitch))
        row += slow
    layout = Layout(Path("drawn.geom"), (row, 8), tuple(panels))
    assembler = Assembler(layout, layout.shape)
    assert assembler.centre is not None
    positions = pixel_positions(layout)
    known = ~np.isnan(positions[0])
    frame = np.arange(1, row * 8 + 1).reshape(1, row, 8)
    picture, mask = assembler.assemble(frame)
    assert not assembler.overlapping
    assert sorted(picture[0][mask == 0].tolist()) == frame[0][known].tolist()
    assert not picture[0][mask > 0].any()
    for y, x in np.argwhere(mask == 0):
        place = np.argwhere(frame[0] == picture[0, y, x])[0]
        true = positions[1::-1, place[0], place[1]] / pitch
        # half a pixel of the panel, half of the mean, and what the tilt moves an end of a panel of 8 pixels
        assert np.abs(np.array([y, x]) + 0.5 - np.array(assembler.centre) - true).max() < 1.01 + 4 * math.radians(4)


def test_masks_go_with_their_pixels(two: Layout) -> None:
    assembler = Assembler(two, two.shape)
    mask = np.zeros((2, 6, 4), np.uint32)
    mask[1, 0, 0] = 2
    assembled = assembler.assemble_mask(mask)
    assert assembled.shape == (2, 4, 7)
    assert np.array_equal(assembled[0], assembler.mask)
    assert assembled[1, 0, 0] == assembler.mask[0, 0] | 2
    assert np.array_equal(assembler.assemble_mask(mask[1]), assembled[1])
    _, both = assembler.assemble(np.zeros((2, 6, 4), np.uint8), mask)
    assert np.array_equal(both, assembled)


def test_out_is_reused_and_gaps_stay(two: Layout) -> None:
    assembler = Assembler(two, two.shape)
    out = assembler.empty(2, np.float32)
    picture, _ = assembler.assemble(np.ones((2, 6, 4), np.float32), out=out)
    assert picture is out
    assert not out[:, 3, :4].any()
    with pytest.raises(BadData, match="frames of"):
        assembler.assemble(np.ones((2, 5, 4), np.float32))


def test_without_a_geometry_frames_pass() -> None:
    assembler = Assembler(None, (3, 4))
    frames = np.ones((2, 3, 4), np.uint16)
    picture, mask = assembler.assemble(frames)
    assert picture is frames
    assert assembler.output_shape == (3, 4)
    assert not mask.any()
    assert assembler.centre is None


def test_mask_files_by_the_bits_the_geometry_names(tmp_path: Path) -> None:
    values = np.zeros((6, 4), np.uint16)
    values[0, 0], values[5, 3] = 3, 1
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["mask"] = values
    words = "mask_file = m.h5\nmask = /mask\nmask_good = 0x1\nmask_bad = 2\n"
    clean = "\n".join(line for line in TWO_PANELS.splitlines() if not line.startswith("bad"))
    path = write(tmp_path, words + clean)
    expected = np.full((6, 4), BAD)
    expected[5, 3] = 0
    assert np.array_equal(static_mask(read_geometry(path)), expected)
    (tmp_path / "m.h5").unlink()
    with pytest.raises(GeometryError, match=r"mask_file: .*m\.h5: no such file.*mask_files: ignore"):
        Assembler(path, (6, 4))
    assert Assembler(path, (6, 4), "ignore").output_shape == (4, 7)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a/max_fs = 3", "a/max_fs = three", r"d\.geom:8: a/max_fs: 'three' is no number; write a number"),
        ("a/max_fs = 3", "a/max_fs = 2.5", r"d\.geom:8: a/max_fs: 2.5 is no pixel"),
        ("a/max_fs = 3", "", "a/max_fs: missing; add it"),
        ("a/max_ss = 2", "a/max_ss = -2", "a/max_ss: range 0 to -2"),
        ("a/corner_x = -5", "a/corner_z = -5", "did you mean corner_"),
        ("b/fs = -1.0y + 0.0 x", "b/fs = -1.0q", "'-1.0q' is no direction"),
        ("b/ss = -x", "b/ss = 2y", "fs and ss span no area"),
        ("b/res = 10000", "b/res = 0", "give pixels per metre"),
        ("clen = 95.3 mm", "clen = 95.3 cm", "clen: '95.3 cm'; give a number above 0 in m or mm"),
        ("badspot/panel = b", "badspot/panel = c", "no panel 'c'"),
        ("badspot/max_fs = 2", "badspot/max_x = 2", "mixes x, y with fs, ss"),
        ("badspot/max_fs = 2", "", "badspot/max_fs: missing"),
        ("clen = 95.3 mm", "clen", "not of the form parameter = value"),
        ("clen = 95.3 mm", "dim0 = fs\ndim1 = ss", "axes are not"),
        ("clen = 95.3 mm", "dim0 = 7x\ndim1 = ss\ndim2 = fs", "'7x'; write %, ss, fs or an index"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TWO_PANELS
    with pytest.raises(GeometryError, match=message):
        read_geometry(write(tmp_path, TWO_PANELS.replace(old, new, 1)))


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = TWO_PANELS.replace("a/max_fs = 3", "a/max_fs = x").replace("b/res = 10000", "b/res = y")
    with pytest.raises(GeometryError) as caught:
        read_geometry(write(tmp_path, text))
    assert len(caught.value.problems) == 2
    with pytest.raises(GeometryError, match="panels: none defined"):
        read_geometry(write(tmp_path, "clen = 1\n"))


@settings(deadline=None, max_examples=80)
@given(number=st.integers(0, len(TWO_PANELS.splitlines()) - 1), junk=st.text("=/;.0159xyfsbadnm_-+e% ", max_size=12))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, number: int, junk: str) -> None:
    lines = TWO_PANELS.splitlines()
    lines[number] = junk
    path = write(tmp_path_factory.getbasetemp(), "\n".join(lines), "junk.geom")
    problems: tuple[str, ...] = ()
    try:
        layout = read_geometry(path)
    except GeometryError as error:
        problems = error.problems
    else:
        assert layout.panels
    assert all(problem.startswith("junk.geom") for problem in problems)


def test_a_panel_turned_by_45_degrees_is_refused(tmp_path: Path) -> None:
    text = TWO_PANELS.replace("b/fs = -1.0y + 0.0 x", "b/fs = 0.7x -0.7y").replace("b/ss = -x", "b/ss = 0.7x +0.7y")
    with pytest.raises(GeometryError, match="panel b is turned 45 degrees"):
        Assembler(write(tmp_path, text), (6, 4))


def test_panels_of_different_pixels_are_refused(tmp_path: Path) -> None:
    text = TWO_PANELS.replace("b/res = 10000", "b/res = 20000")
    with pytest.raises(GeometryError, match="/res: pixels of"):
        Assembler(write(tmp_path, text), (6, 4))


def test_momentum_transfer() -> None:
    # Bragg: a period d scatters at 2 d sin(theta/2) = wavelength, so that q = 2 pi / d
    wavelength = wavelength_m(8000)
    assert wavelength == pytest.approx(1.5498e-10, rel=1e-4)
    distance, period = 0.3, 5e-10
    radius = distance * math.tan(2 * math.asin(wavelength / (2 * period)))
    assert float(momentum_transfer(radius, distance, wavelength)) == pytest.approx(2 * math.pi / period)
    q = q_map((3, 4), (1.5, 0.0), (1e-4, 2e-4), distance, wavelength)
    assert q.dtype == np.float32
    for y, x in np.ndindex(3, 4):
        radius = math.hypot((y + 0.5 - 1.5) * 1e-4, (x + 0.5) * 2e-4)
        expected = 4 * math.pi / wavelength * math.sin(math.atan(radius / distance) / 2)
        assert q[y, x] == pytest.approx(expected, rel=1e-5)


REAL = {
    "Eiger16M-binning2-nativefiles.geom": (1, (2167, 2070)),
    "cspad-cxiformat.geom": (64, (1480, 1552)),
    "cspad-single.geom": (64, (1480, 1552)),
    "docs__docs__files__lcls__cxi__dev__jungfrau4M.geom": (64, (1480, 1552)),
    "docs__docs__files__lcls__cxi__jungfrau4M.geom": (64, (1480, 1552)),
    "docs__docs__files__lcls__mfx__epix10k2M.geom": (64, (5632, 384)),
    "docs__docs__files__lcls__other__rayonix.geom": (1, (1920, 1920)),
    "docs__docs__files__local__pilatus__pilatus.geom": (1, (2527, 2463)),
    "jf-swissfel-16M.geom": (32, (16448, 1030)),
    "lcls-dec.geom": (2, (1024, 1024)),
    "lcls-june-r0013-r0128.geom": (2, (1024, 1024)),
    "lcls-xpp-estimate.geom": (1, (1456, 1456)),
    "pilatus.geom": (1, (2527, 2463)),
    "simple.geom": (2, (1024, 1024)),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    path = DATA / "geometry" / name
    if not path.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    panels, shape = REAL[name]
    layout = read_geometry(path)
    assert (len(layout.panels), layout.shape) == (panels, shape)
    assembler = Assembler(layout, shape, "ignore")
    assert assembler.centre is not None
    assert assembler.pixel_size_m is not None
    assert not assembler.overlapping
    covered = static_mask(layout, read_files=False) & MISSING == 0
    picture, mask = assembler.assemble(np.ones((1, *shape), np.uint8))
    assert np.count_nonzero(picture) == np.count_nonzero(covered) == np.count_nonzero(mask & MISSING == 0)
    rows, columns = np.indices(assembler.output_shape, sparse=True)
    positions = pixel_positions(layout)
    # bring each pixel's own coordinates to its place in the picture: they must be those of the place
    for axis, index, pitch, centre in (
        (1, rows, assembler.pixel_size_m[0], assembler.centre[0]),
        (0, columns, assembler.pixel_size_m[1], assembler.centre[1]),
    ):
        there, _ = assembler.assemble(positions[axis][None])
        shift = np.where(picture[0] > 0, there[0] / pitch + centre - index - 0.5, 0)
        # a panel of jf-swissfel-16M is turned by 0.3 degrees, which is 3 pixels at the end of 1030
        assert np.abs(shift).max() < 3.5


@pytest.mark.data
def test_real_mask_file_that_is_not_there_is_named() -> None:
    path = DATA / "geometry" / "jf-swissfel-16M.geom"
    if not path.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    with pytest.raises(GeometryError, match=r"run47\.JF06T32V01\.mask\.h5: no such file"):
        Assembler(path, (16448, 1030))
