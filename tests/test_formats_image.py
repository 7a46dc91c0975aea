"""What a file is, pictures, gain references, and a corpus of files that lie: all end in an image or in a BadData."""

from __future__ import annotations

import io
import itertools
import os
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from beamsieve.stream.emulators.micrograph_files import mrc_bytes, tiff_bytes
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats.gain import make_gain, repair
from beamsieve.stream.formats.image import Header, image_header, read_image
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
REASONS = {"vanished", "empty", "truncated", "header", "mode", "dtype", "pages", "decode", "eer", "colour", "values"}
rng = np.random.default_rng(8)
GREY = rng.integers(0, 60000, (37, 52)).astype(np.uint16)


def put(path: Path, data: bytes | bytearray) -> Path:
    path.write_bytes(data)
    return path


# pictures


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_png_as_another_reader_sees_it(tmp_path: Path, dtype: str) -> None:
    data = GREY.astype(dtype)
    path = put(tmp_path / "named.mrc", imagecodecs.png_encode(data))
    header, found = image_header(path), read_image(path)
    assert (header.kind, header.shape, header.dtype) == ("png", (1, 37, 52), np.dtype(dtype))
    assert header.nbytes_expected == path.stat().st_size
    np.testing.assert_array_equal(found.data, data)
    assert (found.saturation, found.pixel_a) == (np.iinfo(dtype).max, None)


def test_png_cut_anywhere_is_truncated(tmp_path: Path) -> None:
    whole = imagecodecs.png_encode(GREY)
    for cut in (9, 20, 40, len(whole) // 2, len(whole) - 13, len(whole) - 1):
        path = put(tmp_path / "a.png", whole[:cut])
        with pytest.raises(BadData) as found:
            read_image(path)
        assert found.value.reason == "truncated"
    assert image_header(put(tmp_path / "a.png", whole[:-1])).nbytes_expected == len(whole)


def test_colour_pictures_are_refused_with_a_reason(tmp_path: Path) -> None:
    grey = np.repeat(GREY.astype(np.uint8)[..., None], 4, axis=2)
    grey[..., 3] = 255
    np.testing.assert_array_equal(
        read_image(put(tmp_path / "a.png", imagecodecs.png_encode(grey))).data, GREY.astype(np.uint8)
    )
    grey[0, 0, 0] ^= 1
    with pytest.raises(BadData, match="save it in grey") as found:
        read_image(put(tmp_path / "b.png", imagecodecs.png_encode(grey)))
    assert found.value.reason == "colour"


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    whole = imagecodecs.jpeg_encode(smooth, level=95)
    path = put(tmp_path / "a.jpg", whole)
    assert image_header(path).shape == (1, 64, 48)
    assert np.abs(read_image(path).data.astype(int) - smooth).max() <= 4
    for cut in (3, 100, len(whole) - 2):
        with pytest.raises(BadData) as found:
            read_image(put(tmp_path / "b.jpg", whole[:cut]))
        assert found.value.reason in ("truncated", "header")


@pytest.mark.data
def test_every_real_picture_opens() -> None:
    found = sorted((DATA / "micrographs").rglob("*.png"))
    if not found:
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    for path in found:
        header, image = image_header(path), read_image(path)
        assert header.nbytes_expected == path.stat().st_size
        assert (1, *image.data.shape) == header.shape
        np.testing.assert_array_equal(image.data, imagecodecs.imread(path))
    kinds = {(image_header(p).shape[1:], image_header(p).dtype.name) for p in found}
    assert kinds == {((1200, 1240), "uint16"), ((494, 512), "uint8")}


# gain references


def test_gain_is_multiplied_and_defects_take_their_neighbours(tmp_path: Path) -> None:
    movie = rng.integers(0, 9, (3, 20, 30)).astype(np.uint8)
    reference = rng.uniform(0.8, 1.2, (20, 30)).astype(np.float32)
    reference[4, 5], reference[0, 29], reference[11, 11] = 0, np.nan, -1
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, movie, photometric="minisblack")
    found = read_image(path, gain=make_gain(reference, "gain.mrc"))
    good = reference > 0
    expected = movie.sum(axis=0).astype(np.float32) * reference
    np.testing.assert_allclose(found.data[good], expected[good], rtol=1e-6)
    window = expected[2:7, 3:8][good[2:7, 3:8]]
    assert found.data[4, 5] == pytest.approx(window.mean(), rel=1e-5)
    assert (found.info["repaired"], found.saturation) == (3, None)
    assert found.data.dtype == np.float32


def test_gain_that_is_divided_by(tmp_path: Path) -> None:
    reference = np.full((37, 52), 4.0)
    reference[0, 0] = 0
    path = put(tmp_path / "a.png", imagecodecs.png_encode(GREY))
    found = read_image(path, gain=make_gain(reference, "g", divide=True)).data
    np.testing.assert_allclose(found[1:], GREY[1:] / 4, rtol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("rotate", "flip", "turn"),
    [
        (90, "none", np.rot90),
        (180, "none", lambda a: a[::-1, ::-1]),
        (270, "none", lambda a: np.rot90(a, 3)),
        (0, "up_down", lambda a: a[::-1]),
        (0, "left_right", lambda a: a[:, ::-1]),
        (90, "up_down", lambda a: np.rot90(a)[::-1]),
    ],
)
def test_gain_is_turned_then_flipped(rotate: int, flip: str, turn: object) -> None:
    reference = rng.uniform(0.5, 2, (4, 7)).astype(np.float32)
    np.testing.assert_array_equal(make_gain(reference, "g", rotate=rotate, flip=flip).factor, turn(reference))  # type: ignore[arg-type, operator]


def test_gain_of_another_shape_names_the_remedy(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", imagecodecs.png_encode(GREY))
    for shape, remedy in (((52, 37), "it is turned: set rotate"), ((37, 50), "of this camera mode")):
        with pytest.raises(BadData, match=remedy) as found:
            read_image(path, gain=make_gain(np.ones(shape), "gain.mrc"))
        assert found.value.reason == "gain_shape"
        assert "37 × 52" in found.value.detail
        assert "gain.mrc" in found.value.detail


def test_gains_that_are_none() -> None:
    for reference in (np.ones(7), np.zeros((6, 6)), np.full((6, 6), np.nan), np.full((6, 6), -1.0)):
        with pytest.raises(BadData, match="gain") as found:
            make_gain(reference, "g.mrc")
        assert found.value.reason == "gain"
    with pytest.raises(ValueError, match="rotate 45"):
        make_gain(np.ones((3, 3)), "g", rotate=45)


def test_a_pixel_without_any_good_neighbour_gets_the_mean_of_all() -> None:
    data = np.arange(100, dtype=np.float32).reshape(10, 10)
    bad = np.zeros((10, 10), np.bool_)
    bad[:5] = True
    mean = data[5:].mean()
    found = repair(data.copy(), bad)
    assert found[0, 0] == pytest.approx(mean)
    assert found[4, 0] == pytest.approx(data[5:7, :3].mean())


# files that lie


def header_with(**places: int) -> bytes:
    """A small MRC with some integers of its header replaced, by name."""
    raw = bytearray(mrc_bytes(np.ones((8, 8), np.float32), 1.0))
    at = {"nx": 0, "ny": 4, "nz": 8, "mode": 12, "mx": 28, "nsymbt": 92}
    for name, value in places.items():
        struct.pack_into("<i", raw, at[name], value)
    return bytes(raw)


def tiff_with(code: int, value: int, page: int = 0, of: bytes = b"") -> bytes:
    """A movie in TIFF with one value of one page's directory replaced."""
    raw = bytearray(of or _movie())
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        tag = file.pages[page].tags[code]  # type: ignore[union-attr]
    struct.pack_into("<I" if tag.dtype == 4 else "<H", raw, tag.valueoffset, value)
    return bytes(raw)


def _movie(**options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for i in range(3):
            file.write(np.full((16, 16), i, np.uint8), compression="lzw", metadata=None, contiguous=False, **options)
    return stream.getvalue()


def looped(back_to: int) -> bytes:
    """A TIFF whose last page leads back to an earlier one."""
    raw = bytearray(_movie())
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        offsets = [page.offset for page in file.pages]
    n = struct.unpack_from("<H", raw, offsets[-1])[0]
    struct.pack_into("<I", raw, offsets[-1] + 2 + 12 * n, offsets[back_to])
    return bytes(raw)


def corpus() -> Iterator[tuple[str, bytes | bytearray]]:
    """Files that cannot be used, by name."""
    big = 2**31 - 1
    for name in ("nx", "ny", "nz"):
        for value in (0, -1, big, -big, 10**6):
            yield f"{name}={value}", header_with(**{name: value})
    yield "terabytes", header_with(nx=100000, ny=100000, nz=1000)
    yield "section of 8 GiB", header_with(nx=1 << 16, ny=1 << 17)
    yield "nsymbt huge", header_with(nsymbt=big)
    yield "nsymbt negative", header_with(nsymbt=-4)
    yield "nsymbt takes the pixels", header_with(nsymbt=200)
    for mode in (99, -1, 5, 101, 3, 4, 16):
        yield f"mode {mode}", header_with(mode=mode)
    whole = header_with()
    for cut in (0, 1, 4, 100, 1023, 1024, 1025, len(whole) - 1):
        yield f"mrc cut at {cut}", whole[:cut]
    swapped = bytearray(whole)
    swapped[:16] = np.frombuffer(whole[:16], "<i4").byteswap().tobytes()
    yield "mrc with half a header swapped", bytes(swapped[:1100])
    unstamped = bytearray(whole)
    unstamped[208:212] = bytes(4)
    yield "mrc without MAP, cut", bytes(unstamped[:-1])
    yield "mrc without MAP, longer", bytes(unstamped) + b"x"
    yield "text", b"micrograph,x,y\n" * 200
    yield "zeros", bytes(5000)
    yield "ones", b"\xff" * 5000
    yield "hdf5", b"\x89HDF\r\n\x1a\n" + bytes(3000)
    yield "gzip", b"\x1f\x8b\x08" + rng.bytes(3000)
    for code, name in ((256, "width"), (257, "length")):
        for value in (0, 65535 if code == 256 else 2**31):
            yield f"tiff {name} {value}", tiff_with(code, value)
    yield "tiff format 9", tiff_with(258, 24)
    yield "tiff compression unknown", tiff_with(259, 77)
    yield "tiff strips elsewhere", tiff_with(273, 2**32 - 10)
    yield "tiff strip size", tiff_with(279, 2**32 - 10)
    yield "tiff later page of another size", tiff_with(256, 8, page=2)
    yield "tiff samples", tiff_with(277, 200)
    yield "tiff of half a gigapixel in a few bytes", tiff_with(257, 8000, of=tiff_with(256, 65535))
    yield "tiff of giant tiles", tiff_with(322, 1 << 20, of=tiff_with(323, 1 << 12, of=_movie(tile=(16, 16))))
    yield "tiff loop to itself", looped(2)
    yield "tiff loop to the first", looped(0)
    yield "tiff without a page", b"II*\0" + bytes(4)
    yield "tiff with a page of no entries", b"II*\0\x08\0\0\0" + bytes(20)
    yield "tiff with 65535 entries", b"II*\0\x08\0\0\0\xff\xff" + bytes(20)
    yield "tiff header only", b"MM\0*"
    yield "bigtiff far away", b"II+\0\x08\0\0\0" + b"\xff" * 8
    png = imagecodecs.png_encode(GREY)
    huge = bytearray(png)
    struct.pack_into(">2I", huge, 16, 2**31 - 1, 2**31 - 1)
    yield "png of 4 exapixels", bytes(huge)
    struct.pack_into(">2I", huge, 16, 20000, 20000)
    yield "png that cannot hold its pixels", bytes(huge)
    yield "png with damaged pixels", png[:60] + bytes(30) + png[90:]
    yield "jpeg of markers", b"\xff\xd8\xff" + b"\xff" * 3000
    yield "jpeg without a frame", b"\xff\xd8\xff\xda\0\x02" + bytes(30)


CORPUS = list(corpus())


@pytest.mark.parametrize(("name", "data"), CORPUS, ids=[name for name, _ in CORPUS])
def test_no_lie_allocates_or_ends_in_anything_but_bad_data(tmp_path: Path, name: str, data: bytes | bytearray) -> None:
    path = put(tmp_path / "lie.mrc", data)
    tracemalloc.start()
    try:
        with pytest.raises(BadData) as found:
            read_image(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.value.reason in REASONS
    assert "lie.mrc" in found.value.detail
    assert peak < 20e6
    if "without MAP" in name:
        assert found.value.reason == "header"
    if any(part in name for part in ("half a giga", "giant", "png that cannot", "section of 8")):
        assert said(path) == "header"
    assert said(path) in REASONS | {""}


def said(path: Path) -> str:
    """The reason why there is no header; empty where there is one."""
    try:
        return "" if isinstance(image_header(path), Header) else "no header"
    except BadData as error:
        return error.reason


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(BadData, match="no longer there") as found:
        image_header("/nowhere/a.mrc")
    assert found.value.reason == "vanished"
    with pytest.raises(BadData, match="Is a directory"):
        read_image("/tmp")


def test_zeros_at_the_end_are_data_like_others(tmp_path: Path) -> None:
    """A pre-allocated file is whole by its header: that its tail is zeros is for the source to doubt."""
    data = mrc_bytes(np.ones((64, 64), np.float32), 1.0)
    path = put(tmp_path / "a.mrc", data[:9000] + bytes(len(data) - 9000))
    assert image_header(path).nbytes_expected == len(data)
    assert read_image(path).data[-1, -1] == 0


VALID = {
    "mrc": mrc_bytes(np.arange(600, dtype=np.int16).reshape(20, 30), 1.5),
    "tiff": tiff_bytes(np.arange(600, dtype=np.uint16).reshape(20, 30), 1.5),
    "movie": _movie(),
    "png": imagecodecs.png_encode(np.arange(600, dtype=np.uint16).reshape(20, 30)),
    "jpeg": imagecodecs.jpeg_encode(np.arange(600, dtype=np.uint8).reshape(20, 30)),
}


def opens_or_is_bad(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder) / "a.bin", data)
        assert said(path) in REASONS | {""}
        try:
            found = read_image(path)
        except BadData as error:
            reason = error.reason
        else:
            reason = "" if found.data.ndim == 2 else "no image"
        assert reason in REASONS | {""}


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_damaged_bytes_give_an_image_or_bad_data(kind: str, draw: st.DataObject) -> None:
    raw = bytearray(VALID[kind])
    for _ in range(draw.draw(st.integers(1, 6))):
        at = draw.draw(st.integers(0, min(len(raw) - 1, 1100)))
        raw[at] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    opens_or_is_bad(bytes(raw[:cut]))


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]),
    st.binary(max_size=1500),
)
def test_random_bytes_behind_any_magic(magic: bytes, data: bytes) -> None:
    opens_or_is_bad(magic + data)


def test_a_movie_is_summed_in_the_memory_of_a_few_frames(tmp_path: Path) -> None:
    frame = np.ones((512, 512), np.uint8)
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in itertools.repeat(None, 40):
            file.write(frame, contiguous=False, metadata=None)
    read_image(path)
    tracemalloc.start()
    try:
        assert (read_image(path).data == 40).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the sum in 32 bits, and a few frames of 8
    assert peak < 4 * frame.size + 6 * frame.size
