"""MRC files: what mrcfile writes is read as mrcfile reads it, in every mode and byte order, and nothing is believed."""

from __future__ import annotations

import os
import struct
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from beamsieve.stream.emulators.micrograph_files import mrc_bytes
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats.image import image_header, read_image
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
MRCFILE_SOURCE = Path(os.environ.get("BEAMSIEVE_MRCFILE_SOURCE", "/nonexistent"))
TYPES = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}


def image(dtype: str, shape: tuple[int, ...] = (5, 7)) -> np.ndarray:
    """Values that use the whole range of the type, different in each pixel."""
    n = int(np.prod(shape))
    if dtype[0] == "f":
        return np.linspace(-3, 1000, n).reshape(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return np.linspace(limits.min, limits.max, n).round().astype(dtype).reshape(shape)


def written(path: Path, data: np.ndarray, *, order: str = "<", **header: Any) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        file.voxel_size = 1.25
        for name, value in header.items():
            file.header[name] = value
    if order == ">":
        with mrcfile.open(path, "r+") as file:
            header_swapped = file.header.byteswap().tobytes()
            body = file.data.byteswap().tobytes()
        raw = bytearray(header_swapped + body)
        raw[212:216] = b"\x11\x11\0\0"
        raw[208:212] = b"MAP "
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_mode_and_byte_order_as_mrcfile_reads_it(tmp_path: Path, dtype: str, order: str) -> None:
    path = written(tmp_path / "a.mrc", image(dtype), order=order)
    with mrcfile.open(path, permissive=True) as file:
        theirs = np.array(file.data)
        assert int(file.header.mode) == TYPES[dtype]
    header, ours = image_header(path), read_image(path)
    assert (header.kind, header.shape, header.nbytes_expected) == ("mrc", (1, 5, 7), path.stat().st_size)
    assert header.pixel_a == pytest.approx(1.25)
    assert ours.data.dtype == (np.float32 if dtype == "f2" else np.dtype(dtype))
    assert ours.data.dtype == header.dtype
    np.testing.assert_array_equal(ours.data, theirs.astype(ours.data.dtype))
    assert ours.saturation == (None if dtype[0] == "f" else np.iinfo(dtype).max)


def test_row_0_of_the_file_is_y_0(tmp_path: Path) -> None:
    data = np.zeros((4, 6), np.float32)
    data[0, 5] = 9
    raw = written(tmp_path / "a.mrc", data).read_bytes()
    assert struct.unpack("<f", raw[1024 + 20 : 1024 + 24]) == (9.0,)
    assert read_image(tmp_path / "a.mrc").data[0, 5] == 9


def test_sections_are_summed_in_integers_that_hold_them(tmp_path: Path) -> None:
    stack = np.stack([image("u2"), image("u2")[::-1], image("u2")])
    path = written(tmp_path / "a.mrcs", stack)
    summed = read_image(path)
    assert summed.data.dtype == np.uint32
    np.testing.assert_array_equal(summed.data, stack.sum(axis=0, dtype=np.int64))
    assert (summed.frames, summed.saturation) == (3, None)
    np.testing.assert_array_equal(read_image(path, frames=1).data, stack[1])
    first = read_image(path, frames="first")
    np.testing.assert_array_equal(first.data, stack[0])
    assert (first.frames, first.saturation) == (1, 65535.0)
    with pytest.raises(BadData, match="frame 3 of 3") as found:
        read_image(path, frames=3)
    assert found.value.reason == "pages"


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "f2"])
def test_sums_of_other_types(tmp_path: Path, dtype: str) -> None:
    stack = np.stack([image(dtype)] * 4)
    summed = read_image(written(tmp_path / "a.mrc", stack)).data
    assert summed.dtype == (np.float32 if dtype[0] == "f" else np.int32)
    np.testing.assert_allclose(summed, stack.astype(np.float64).sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("at", "value"),
    [(208, b"MAP\0"), (208, b"\0\0\0\0"), (212, b"\0\0\0\0"), (212, b"DDDD"), (212, b"\x11\x11\0\0"), (208, b"")],
    ids=["MAP-null", "no-map", "no-stamp", "odd-stamp", "wrong-stamp", "none"],
)
def test_stamps_that_programs_write_wrongly(tmp_path: Path, at: int, value: bytes) -> None:
    raw = bytearray(mrc_bytes(image("f4"), 2.0))
    raw[at : at + len(value)] = value
    (tmp_path / "a.mrc").write_bytes(raw)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc").data, image("f4"))
    assert image_header(tmp_path / "a.mrc").pixel_a == pytest.approx(2.0)


def test_big_endian_file_with_a_little_endian_stamp(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrc", image("i2"), order=">")
    raw = bytearray(path.read_bytes())
    raw[212:214] = b"\x44\x44"
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_image(path).data, image("i2"))


@pytest.mark.parametrize(
    ("mode", "remedy"), [(101, "4 bits"), (4, "complex"), (3, "complex"), (16, "RGB"), (99, "mode 99")]
)
def test_modes_that_are_not_read_say_why(tmp_path: Path, mode: int, remedy: str) -> None:
    raw = bytearray(mrc_bytes(image("f4"), 1.0))
    raw[12:16] = struct.pack("<i", mode)
    (tmp_path / "a.mrc").write_bytes(raw)
    with pytest.raises(BadData, match=remedy) as found:
        image_header(tmp_path / "a.mrc")
    assert found.value.reason == ("header" if mode == 99 else "mode")
    assert "a.mrc" in found.value.detail


def test_bytes_that_imod_says_are_unsigned(tmp_path: Path) -> None:
    raw = bytearray(mrc_bytes(image("i1"), 1.0))
    raw[152:160] = struct.pack("<2i", 1146047817, 0)
    (tmp_path / "unsigned.mrc").write_bytes(raw)
    assert read_image(tmp_path / "unsigned.mrc").data.dtype == np.uint8
    raw[156:160] = struct.pack("<i", 1)
    (tmp_path / "signed.mrc").write_bytes(raw)
    assert read_image(tmp_path / "signed.mrc").data.dtype == np.int8
    raw[156:160] = struct.pack("<i", 16)
    (tmp_path / "packed.mrc").write_bytes(raw)
    with pytest.raises(BadData, match="4 bits"):
        read_image(tmp_path / "packed.mrc")


@pytest.mark.parametrize(
    ("cell", "pixel"),
    [((0, 0), None), ((7 * 3.0, 5 * 3.0), 3.0), ((7 * 3.0, 5 * 3.2), None), ((-7, 5), None), ((np.nan, 5), None)],
)
def test_pixel_size_of_the_header(tmp_path: Path, cell: tuple[float, float], pixel: float | None) -> None:
    raw = bytearray(mrc_bytes(image("f4"), 1.0))
    raw[40:48] = struct.pack("<2f", *cell)
    (tmp_path / "a.mrc").write_bytes(raw)
    assert image_header(tmp_path / "a.mrc").pixel_a == (None if pixel is None else pytest.approx(pixel))


def fei(kind: bytes, **changes: Any) -> bytes:
    """An MRC with an extended header as mrcfile lays it out: the fields that EPU fills."""
    dtype = mrcfile.dtypes.get_ext_header_dtype(kind, "<")
    extended = np.zeros(1, dtype)
    values = {
        "Bitmask 1": 0xFFFFFFFF,
        "Timestamp": 44138.5,
        "HT": 300000.0,
        "Dose": 4.1e21,
        "X-Stage": -6.4e-4,
        "Y-Stage": 7.2e-4,
        "Z-Stage": 8e-5,
        "Pixel size X": 0.667e-10,
        "Defocus": 1.8e-6,
        "Applied defocus": -2.2e-6,
        "Magnification": 120000.0,
        "Integration time": 12.2,
        "Microscope type": b"TITAN",
    }
    for name, value in (values | changes).items():
        extended[name] = value
    raw = bytearray(mrc_bytes(image("u2"), 1.0))
    raw[40:48] = struct.pack("<2f", 0, 0)
    raw[92:96] = struct.pack("<i", extended.nbytes)
    raw[104:108] = kind
    return bytes(raw[:1024]) + extended.tobytes() + bytes(raw[1024:])


@pytest.mark.parametrize("kind", [b"FEI1", b"FEI2"])
def test_what_epu_writes_into_the_extended_header(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "a.mrc").write_bytes(fei(kind))
    header = image_header(tmp_path / "a.mrc")
    assert header.pixel_a == pytest.approx(0.667)
    expected = {
        "voltage_kv": 300.0,
        "dose_e_a2": 41.0,
        "stage_x_um": -640.0,
        "stage_y_um": 720.0,
        "stage_z_um": 80.0,
        "defocus_um": 1.8,
        "applied_defocus_um": -2.2,
        "exposure_s": 12.2,
        "magnification": 120000.0,
    }
    assert {name: header.info[name] for name in expected} == pytest.approx(expected)
    assert header.info["acquired"] == "2020-11-03T12:00:00"
    assert header.info["instrument"] == "TITAN"
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc").data, image("u2"))


def test_extended_header_without_sense_is_passed_over(tmp_path: Path) -> None:
    nonsense = {"HT": np.nan, "Dose": -1.0, "Pixel size X": 1e30, "Timestamp": 1e300, "Bitmask 1": 0xFFFFFFFF}
    (tmp_path / "a.mrc").write_bytes(fei(b"FEI2", **nonsense))
    header = image_header(tmp_path / "a.mrc")
    assert header.pixel_a is None
    assert not {"voltage_kv", "dose_e_a2", "acquired"} & set(header.info)
    (tmp_path / "b.mrc").write_bytes(fei(b"FEI1", **{"Bitmask 1": 0}))
    assert not {"voltage_kv", "dose_e_a2", "stage_x_um"} & set(image_header(tmp_path / "b.mrc").info)


def test_serialem_writes_stage_and_tilt_per_section(tmp_path: Path) -> None:
    raw = bytearray(mrc_bytes(image("i2"), 1.0))
    extended = struct.pack("<4h", -6050, 250, -75, 330)
    raw[92:96] = struct.pack("<i", len(extended))
    raw[104:108] = b"SERI"
    raw[128:132] = struct.pack("<2h", 8, 1 | 4 | 8)
    (tmp_path / "a.mrc").write_bytes(bytes(raw[:1024]) + extended + bytes(raw[1024:]))
    info = image_header(tmp_path / "a.mrc").info
    assert info["tilt_deg"] == pytest.approx(-60.5)
    assert (info["stage_x_um"], info["stage_y_um"]) == pytest.approx((10.0, -3.0))
    assert info["magnification"] == 33000


@given(st.binary(min_size=0, max_size=1024), st.integers(0, 900))
def test_an_extended_header_of_random_bytes_changes_no_pixel(extended: bytes, cut: int) -> None:
    raw = bytearray(mrc_bytes(image("f4"), 1.5))
    raw[92:96] = struct.pack("<i", len(extended))
    raw[104:108] = (b"FEI1", b"FEI2", b"SERI")[cut % 3]
    raw[128:132] = struct.pack("<2h", cut % 20, cut % 64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mrc"
        path.write_bytes(bytes(raw[:1024]) + extended + bytes(raw[1024:]))
        np.testing.assert_array_equal(read_image(path).data, image("f4"))


def test_pixels_that_are_not_finite_get_their_neighbours_mean(tmp_path: Path) -> None:
    data = np.full((20, 30), 5, np.float32)
    data[3, 4], data[10, 10], data[0, 0] = np.nan, np.inf, -np.inf
    data[2, 4] = 29
    header = mrc_bytes(np.zeros_like(data), 1.0)[:1024]
    (tmp_path / "a.mrc").write_bytes(header + data.tobytes())
    found = read_image(tmp_path / "a.mrc")
    assert found.info["repaired"] == 3
    assert found.data[10, 10] == found.data[0, 0] == 5
    assert found.data[3, 4] == pytest.approx(5 + 24 / 24)
    data[:5] = np.nan
    (tmp_path / "b.mrc").write_bytes(header + data.tobytes())
    with pytest.raises(BadData, match="no measurement") as refused:
        read_image(tmp_path / "b.mrc")
    assert refused.value.reason == "values"


def test_what_the_emulator_writes_mrcfile_calls_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(image("f4"), 1.7))
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, image("f4"))
        assert float(file.voxel_size.x) == pytest.approx(1.7)
    with pytest.raises(ValueError, match="float64"):
        mrc_bytes(np.zeros((2, 2)), 1.0)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape", "pixel"),
    [
        ("micrographs/contaminated_1142.mrc", (1, 927, 959), 1.0),
        ("tomograms/empiar10499_10A_y000-399.mrc", (110, 400, 652), 10.0),
        ("maps/betaGal.mrc", (100, 100, 100), 3.54),
        ("maps/70S_65.mrc", (65, 65, 65), None),
        ("maps/emd_1087.map", (21, 89, 81), None),
    ],
)
def test_real_files(name: str, shape: tuple[int, int, int], pixel: float | None) -> None:
    if not (DATA / name).is_file():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    header = image_header(DATA / name)
    assert (header.shape, header.nbytes_expected) == (shape, (DATA / name).stat().st_size)
    assert header.pixel_a == (None if pixel is None else pytest.approx(pixel))
    with mrcfile.mmap(DATA / name, permissive=True) as file:
        theirs = file.data.astype(np.float64).reshape(shape).sum(axis=0)
    np.testing.assert_allclose(read_image(DATA / name).data, theirs, rtol=1e-4, atol=1e-3)


def test_a_real_micrograph_of_epu(tmp_path: Path) -> None:
    """From the source distribution of mrcfile: ``pip download mrcfile --no-binary :all: --no-deps -d FOLDER``."""
    archives = sorted(MRCFILE_SOURCE.glob("mrcfile-*.tar.gz"))
    if not archives:
        pytest.skip("no source distribution of mrcfile (BEAMSIEVE_MRCFILE_SOURCE names its folder)")
    with tarfile.open(archives[-1]) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("epu2.9_example.mrc"))
        member.name = "epu.mrc"
        archive.extract(member, tmp_path, filter="data")
    header = image_header(tmp_path / "epu.mrc")
    assert header.shape == (1, 4096, 4096)
    assert header.dtype == np.uint16
    assert header.pixel_a == pytest.approx(0.66655, abs=1e-4)
    assert header.info["voltage_kv"] == 300
    assert header.info["dose_e_a2"] == pytest.approx(41.17, abs=0.01)
    assert header.info["applied_defocus_um"] == pytest.approx(-2.2)
    assert header.info["acquired"] == "2020-11-03T17:36:04"
    assert read_image(tmp_path / "epu.mrc").data.mean() == pytest.approx(5612.22, abs=0.01)
