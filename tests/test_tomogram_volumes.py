"""Tomograms in files: what is read is what is there, box by box, and what cannot be used is refused with its reason."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.tomograms.volume import ArrayVolume, Volume
from beamsieve.stream.decode.tomograms import DecodeTomograms, TomogramSettings
from beamsieve.stream.flow.frame import STILL_A_FILE, BadData, Failure, Frame, Key, Raw
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.formats.volume_slices import central_slices
from beamsieve.stream.formats.volumes import FLIPS, Flip, VolumeFile, open_volume
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
SHAPE = (9, 11, 14)
VOXEL = 13.5

Array = npt.NDArray[Any]


def voxels(dtype: str = "f4", seed: int = 0) -> Array:
    """A volume that is nowhere the same."""
    return (np.random.default_rng(seed).normal(size=SHAPE) * 30).astype(dtype)


def written(path: Path, data: Array, mode: int = 2, voxel_a: float = VOXEL) -> Path:
    with MrcWriter(path, data.shape, mode, voxel_a) as out:
        out.write(data)
    return path


def patched(path: Path, at: int, form: str, *values: float) -> Path:
    """The same file with other words in its header."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(form, *values))
    return path


def raw_of(path: Path, **info: Any) -> Raw:
    return Raw(Key("s", 1), STILL_A_FILE, 0.0, 0.0, info={"path": str(path), "name": path.name, **info})


@pytest.mark.parametrize(("mode", "dtype"), [(0, "i1"), (1, "i2"), (2, "f4"), (12, "f2")])
def test_what_is_written_slab_by_slab_is_valid_and_reads_back(tmp_path: Path, mode: int, dtype: str) -> None:
    # The validator itself sums squares in the file's type, and float16 ends at 65504.
    data, path = voxels() if mode != 12 else voxels() / 100, tmp_path / "a.mrc"
    data = data.astype(dtype)
    with MrcWriter(path, SHAPE, mode, VOXEL, labels=["what it is"]) as out:
        out.write(data[:4])
        out.write(data[4])
        assert not path.exists()
        out.write(data[5:])
    assert mrcfile.validate(path)
    with mrcfile.open(path) as found:
        assert (found.data == data).all()
        assert found.is_volume()
        assert float(found.voxel_size.z) == pytest.approx(VOXEL)
        assert "what it is" in str(found.header.label[1])
        whole = data.astype(np.float64)
        stored = [float(found.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        assert stored == pytest.approx([whole.min(), whole.max(), whole.mean(), whole.std()], rel=1e-5)
    with open_volume(path) as volume:
        assert (volume.shape, volume.info.mode) == (SHAPE, mode)
        assert volume.voxel_a == pytest.approx(VOXEL)
        assert (volume.read((0, 0, 0), SHAPE) == data.astype(np.float32)).all()


def test_nothing_is_left_of_a_volume_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 of 9 planes"), MrcWriter(tmp_path / "a.mrc", SHAPE, 2, VOXEL) as out:
        out.write(voxels()[:4])

    def interrupted() -> None:
        with MrcWriter(tmp_path / "a.mrc", SHAPE, 2, VOXEL) as out:
            out.write(voxels())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "slab", "why"),
    [
        (0, np.full((1, 11, 14), 200), "do not fit int8"),
        (0, np.full((1, 11, 14), 0.5), "float64 given for whole numbers"),
        (2, np.full((1, 11, 14), np.nan), "not finite"),
        (12, np.full((1, 11, 14), 1e6), "too large for float16"),
        (2, np.zeros((1, 11, 13)), "a slab"),
        (2, np.zeros((10, 11, 14)), "a slab"),
    ],
)
def test_values_that_a_mode_cannot_hold_are_refused(tmp_path: Path, mode: int, slab: Array, why: str) -> None:
    with pytest.raises(ValueError, match=why), MrcWriter(tmp_path / "a.mrc", SHAPE, mode, VOXEL) as out:
        out.write(slab)


def test_statistics_hold_for_large_values_and_offsets(tmp_path: Path) -> None:
    data = voxels().astype(np.float32) * np.float32(1e25) + np.float32(3e25)
    written(tmp_path / "a.mrc", data)
    with mrcfile.open(tmp_path / "a.mrc") as found:
        assert float(found.header.rms) == pytest.approx(data.astype(np.float64).std(), rel=1e-4)


BOX = st.tuples(
    *(
        st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(lambda e: (min(e[0], e[1] - 1), max(e[0] + 1, e[1])))
        for n in SHAPE
    )
)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One volume in many files: modes, byte orders, axes, HDF5."""
    folder = tmp_path_factory.mktemp("volumes")
    data = voxels("i1")
    paths = {"int8": written(folder / "a.mrc", data, 0)}
    for order in "<>":
        for dtype, name in (("i2", "short"), ("f4", "float"), ("f2", "half")):
            path = paths[name + order] = folder / f"{name}{'be' if order == '>' else 'le'}.mrc"
            with mrcfile.new(path) as file:
                file.set_data(data.astype(dtype))
                file.voxel_size = VOXEL
            if order == ">":
                _swap(path, data.astype(dtype))
    for axes in ((3, 2, 1), (1, 3, 2), (2, 3, 1)):
        # Columns, rows and sections are these of x, y, z.
        stored = data.astype("f4").transpose([3 - axis for axis in axes[::-1]])
        path = written(folder / f"axes{axes}.mrc", np.ascontiguousarray(stored))
        # The cell is along x, y, z, whatever the axes of the file.
        patched(path, 28, "<3i", *SHAPE[::-1])
        patched(path, 40, "<3f", *(n * VOXEL for n in SHAPE[::-1]))
        paths[f"axes{axes}"] = patched(path, 64, "<3i", *axes)
    paths |= {name: _hdf(folder / f"{name}.hdf", data, name) for name in ("eman", "plain", "bitshuffle")}
    return paths


def _swap(path: Path, data: Array) -> None:
    """As a big-endian machine would write it."""
    head = np.frombuffer(path.read_bytes()[:1024], "<u4").astype(">u4").tobytes()
    old = path.read_bytes()[:1024]
    head = head[:208] + b"MAP " + b"\x11\x11\0\0" + head[216:224] + old[224:]
    path.write_bytes(head + data.astype(data.dtype.newbyteorder(">")).tobytes())


def _hdf(path: Path, data: Array, kind: str) -> Path:
    with h5py.File(path, "w") as file:
        if kind == "eman":
            file["MDF/images/0/image"] = data.astype("f4")
            for axis in "xyz":
                file["MDF/images/0"].attrs[f"EMAN.apix_{axis}"] = VOXEL
        elif kind == "plain":
            made = file.create_dataset("volume", data=data, chunks=(4, 5, 6), compression="gzip")
            made.attrs["voxel_size"] = [VOXEL] * 3
        else:
            made = file.create_dataset("a/b", data=data.astype(">i2"), chunks=(2, 11, 14), **hdf5plugin.Bitshuffle())
            made.attrs["voxel_a"] = VOXEL
    return path


@settings(max_examples=25, deadline=None)
@given(box=BOX, flip=st.sampled_from(sorted(FLIPS)))
def test_any_box_of_any_file_is_that_of_the_array(many: dict[str, Path], box: Any, flip: Flip) -> None:
    data = voxels("i1").astype(np.float32)
    low, high = (tuple(edge[i] for edge in box) for i in (0, 1))
    axis = FLIPS[flip]
    expected = ArrayVolume(data if axis is None else np.flip(data, axis), VOXEL).read(low, high)
    for name, path in many.items():
        with open_volume(path, flip=flip) as volume:
            found: Volume = volume  # it is what the models ask for
            assert found.shape == SHAPE, name
            assert found.voxel_a == pytest.approx(VOXEL), name
            got = found.read(low, high)
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            assert (got == expected).all(), name
            got[:] = 0  # a copy: the next read is as before


def test_several_threads_read_at_once(many: dict[str, Path]) -> None:
    data = voxels("i1").astype(np.float32)
    wrong: list[int] = []

    def read(volume: VolumeFile) -> None:
        wrong.extend(
            z
            for z in [*range(9)] * 20
            if not (volume.read((z, 1, 2), (z + 1, 9, 12)) == data[z : z + 1, 1:9, 2:12]).all()
        )

    for name in ("int8", "half>", "plain"):
        with open_volume(many[name]) as volume:
            threads = [threading.Thread(target=read, args=(volume,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert wrong == []


@pytest.mark.parametrize("low", [(0, 0, -1), (0, 11, 0), (9, 0, 0)])
def test_a_box_outside_is_refused(many: dict[str, Path], low: tuple[int, int, int]) -> None:
    with open_volume(many["int8"]) as volume, pytest.raises(ValueError, match="reaches out of"):
        volume.read(low, SHAPE)


def test_unsigned_bytes_of_imod_are_not_negative(tmp_path: Path) -> None:
    path = written(tmp_path / "a.rec", np.full(SHAPE, -1, "i1"), 0)
    assert open_volume(path).read((0, 0, 0), (1, 1, 1)) == -1
    patched(path, 152, "<2i", 1146047817, 0)
    with open_volume(path) as volume:
        assert volume.read((0, 0, 0), (1, 1, 1)) == 255


BAD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "empty": (lambda p: p.write_bytes(b""), "empty", "0 bytes"),
    "gone": (lambda p: p.unlink(), "vanished", "no longer there"),
    "header cut": (lambda p: os.truncate(p, 500), "truncated", "500 bytes"),
    "header only": (lambda p: os.truncate(p, 1024), "truncated", "1024 bytes, its header speaks of"),
    "one byte short": (lambda p: os.truncate(p, p.stat().st_size - 1), "truncated", "copy it again"),
    "noise": (lambda p: p.write_bytes(os.urandom(4096)), "header", "no MRC header"),
    "complex": (lambda p: patched(p, 12, "<i", 4), "mode", "complex"),
    "no voxel": (lambda p: patched(p, 40, "<3f", 0, 0, 0), "voxel", "set decode.voxel_a"),
    "NaN voxel": (lambda p: patched(p, 48, "<f", float("nan")), "voxel", "set decode.voxel_a"),
    "1 Å": (lambda p: patched(p, 40, "<3f", 14, 11, 9), "voxel", "exactly 1 Å"),
    "no cubes": (lambda p: patched(p, 48, "<f", 9 * 2 * VOXEL), "voxel", "13.5 × 13.5 × 27 Å are no cubes"),
    "axes twice": (lambda p: patched(p, 64, "<3i", 1, 1, 3), "axes", "mapc, mapr, maps = (1, 1, 3)"),
    "stack": (lambda p: patched(patched(p, 88, "<i", 0), 36, "<i", 1), "stack", "stack of 9 images"),
    "volumes": (lambda p: patched(p, 88, "<i", 401), "stack", "stack of volumes"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_is_refused_with_its_reason(tmp_path: Path, what: str) -> None:
    spoil, reason, words = BAD[what]
    path = written(tmp_path / "a.mrc", voxels())
    spoil(path)
    with pytest.raises(BadData) as error:
        open_volume(path)
    assert error.value.reason == reason
    assert words in error.value.detail
    assert str(path.name) in error.value.detail


def test_a_tilt_series_and_one_image_are_no_tomograms(tmp_path: Path) -> None:
    one = written(tmp_path / "one.mrc", voxels()[:1])
    with pytest.raises(BadData, match="holds one image"):
        open_volume(one)
    series = written(tmp_path / "TS_01.mrc", voxels())
    content = series.read_bytes()
    tilts = b"".join(struct.pack("<h", 100 * angle) for angle in range(-4, 5))
    series.write_bytes(content[:1024] + tilts.ljust(32, b"\0") + content[1024:])
    patched(series, 92, "<i", 32)
    patched(series, 104, "4s", b"SERI")  # type: ignore[arg-type]
    patched(series, 128, "<2h", 2, 1)
    with pytest.raises(BadData, match="tilt series"):
        open_volume(series)
    with open_volume(series, stacks=True) as volume:
        assert (volume.read((0, 0, 0), SHAPE) == voxels()).all()


def test_voxels_that_differ_by_less_than_a_percent_are_cubes_and_settings_come_first(tmp_path: Path) -> None:
    path = patched(written(tmp_path / "a.mrc", voxels()), 48, "<f", 9 * VOXEL * 1.008)
    with open_volume(path) as volume:
        assert volume.voxel_a == pytest.approx(VOXEL * 1.008 / 3 + VOXEL * 2 / 3)
        assert volume.info.voxel_from == "header"
    with open_volume(path, voxel_a=10.0) as volume:
        assert (volume.voxel_a, volume.info.voxel_from, volume.info.flags) == (10.0, "settings", ("voxel_disagrees",))


def test_what_is_known_of_the_hand_is_said(tmp_path: Path, many: dict[str, Path]) -> None:
    with open_volume(many["int8"]) as volume:
        assert volume.info.hand == "not stated by the file, and not determined"
        assert volume.info.flags == ()
    with open_volume(many["axes(3, 2, 1)"], flip="z") as volume:
        assert "mirrored along z" in volume.info.hand
        assert "axes put in order" in volume.info.hand
        assert volume.info.flags == ("axes_permuted",)
    with open_volume(written(tmp_path / "full_rec.mrc", np.zeros((40, 10, 50), "f4"))) as volume:
        assert volume.info.flags == ("thin_y",)


def test_a_file_that_is_cut_while_it_is_open_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrc", voxels())
    with open_volume(path) as volume:
        volume.check_same()
        os.truncate(path, 2000)
        with pytest.raises(BadData, match="ends before byte"):
            volume.read((8, 0, 0), SHAPE)
        with pytest.raises(BadData, match="changed while it was read"):
            volume.check_same()
        path.unlink()
        with pytest.raises(BadData, match="no longer there"):
            volume.check_same()
    with pytest.raises(BadData, match="cannot be read"):
        volume.read((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("what", ["two", "none", "complex", "images", "outside", "huge chunk", "cut"])
def test_hdf5_without_one_volume_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.hdf"
    with h5py.File(path, "w") as file:
        if what == "two":
            file["a"] = file["b"] = voxels()
            file["b"][...] = 1
            file["c"] = voxels()
        elif what == "none":
            file["a"] = voxels()[0]
        elif what == "complex":
            file["a"] = voxels().astype("c8")
        elif what == "images":
            file["MDF/images/0/image"] = file["MDF/images/1/image"] = voxels()
        elif what == "outside":
            file.create_dataset("a", (4, 4, 4), "f4", external=[(str(tmp_path / "secret"), 0, 256)])
        elif what == "huge chunk":
            file.create_dataset("a", (700, 700, 700), "f4", chunks=(700, 700, 700))
        else:
            file["a"] = voxels()
    reason = {"complex": "dtype", "huge chunk": "chunks", "cut": "hdf"}.get(what, "contents")
    if what == "cut":
        os.truncate(path, path.stat().st_size - 3000)
    with pytest.raises(BadData) as error:
        open_volume(path, voxel_a=10.0)
    assert error.value.reason == reason, error.value.detail


def test_hdf5_whose_chunks_are_damaged_fails_at_the_box(many: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(many["plain"].read_bytes())
    with h5py.File(many["plain"]) as file:
        chunk = file["volume"].id.get_chunk_info(0)
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path = tmp_path / "damaged.hdf"
    path.write_bytes(content)
    with open_volume(path) as volume, pytest.raises(BadData) as error:
        volume.read((0, 0, 0), SHAPE)
    assert error.value.reason == "decode"


def test_slices_are_means_of_the_middle_and_skip_what_is_no_number(tmp_path: Path) -> None:
    data = np.zeros((30, 40, 50), "f4")
    data[13:18] = 1.0
    data[:, :, 45:] = 2.0
    data[14, 3, 3] = np.nan
    with open_volume(written_with_nan(tmp_path / "a.mrc", data)) as volume:
        slices, preview = central_slices(volume, largest=25)
    assert (slices.factor, slices.at) == (2, (25, 20, 15))
    assert (slices.xy.shape, slices.xz.shape, slices.yz.shape) == ((20, 25), (15, 25), (15, 20))
    assert preview.shape == (20, 25)
    assert np.isfinite(preview).all()
    assert preview[10, 5] == pytest.approx(5 / 7, abs=0.05)  # 7 planes of 14.2 Å, five of them 1
    assert slices.xy[10, 24] > slices.xy[10, 2]
    assert slices.xz[7, 5] > slices.xz[1, 5]


def written_with_nan(path: Path, data: Array) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(np.nan_to_num(data))
        file.voxel_size = 14.2
    content = path.read_bytes()
    path.write_bytes(content[:1024] + data.tobytes())
    return path


def test_decoding_opens_looks_and_tells(tmp_path: Path) -> None:
    path = written(tmp_path / "TS_01_13.50Apx.mrc", voxels())
    decode = DecodeTomograms(TomogramSettings(bright=True, flip="y"))
    (frame,) = decode([raw_of(path, bytes=path.stat().st_size, flags=("zero_tail",))])
    assert isinstance(frame, Frame)
    assert frame.data.shape == SHAPE[1:]
    assert frame.data.nbytes < 10_000
    volume = frame.info["volume"]
    assert (volume.read((0, 0, 0), SHAPE) == np.flip(voxels(), 1)).all()
    said = {name: frame.info[name] for name in ("series", "bright", "flip", "voxel_from", "flags")}
    assert said == {
        "series": "TS_01",
        "bright": True,
        "flip": "y",
        "voxel_from": "header",
        "flags": ("zero_tail",),
    }
    assert "mirrored along y" in frame.info["hand"]
    volume.close()


@pytest.mark.parametrize(
    ("name", "stacks", "taken"),
    [("TS_01.mrc", "refuse", False), ("TS_01.mrc", "take", True), ("TS_01_Vol.mrc", "refuse", True)],
)
def test_a_stack_by_its_header_may_be_a_tomogram_by_its_name(
    tmp_path: Path, name: str, stacks: str, taken: bool
) -> None:
    path = patched(patched(written(tmp_path / name, voxels()), 88, "<i", 0), 36, "<i", 1)
    patched(path, 48, "<f", VOXEL)
    (got,) = DecodeTomograms(TomogramSettings.model_validate({"stacks": stacks}))([raw_of(path)])
    assert isinstance(got, Frame) is taken
    if isinstance(got, Frame):
        assert got.info["voxel_a"] == pytest.approx(VOXEL)
    else:
        assert got.reason == "stack"


def test_decoding_fails_with_the_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrc", voxels())
    size = path.stat().st_size
    flat = written(tmp_path / "flat.mrc", np.zeros(SHAPE, "f4"))
    for raw, reason, options in (
        (raw_of(path, bytes=size + 1), "truncated", {}),
        (raw_of(path, bytes=size - 1), "changed", {}),
        (raw_of(flat), "values", {}),
        (raw_of(path), "size", {"max_volume_gb": 1e-6}),
        (raw_of(tmp_path / "none.mrc"), "vanished", {}),
    ):
        (failure,) = DecodeTomograms(TomogramSettings(**options))([raw])
        assert isinstance(failure, Failure)
        assert failure.reason == reason
        assert failure.raw is raw


def test_a_frame_that_is_dropped_closes_its_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrc", voxels())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        DecodeTomograms(TomogramSettings())([raw_of(path)])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.data
def test_a_real_tomogram_is_read() -> None:
    path = DATA / "tomograms" / "empiar10499_10A_y000-399.mrc"
    if not path.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    with open_volume(path) as volume, mrcfile.mmap(path, permissive=True) as peer:
        assert volume.shape == (110, 400, 652)
        assert volume.voxel_a == pytest.approx(10.0)
        assert (volume.read((50, 100, 200), (82, 132, 232)) == peer.data[50:82, 100:132, 200:232]).all()
