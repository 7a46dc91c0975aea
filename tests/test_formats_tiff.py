"""TIFF images and movies: as tifffile wrote them, with all pages or not at all; EER movies count every electron."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from beamsieve.stream.emulators.micrograph_files import tiff_bytes
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats.image import image_header, read_image

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
rng = np.random.default_rng(5)
MOVIE = rng.integers(0, 200, (6, 40, 56)).astype(np.uint8)


def paged(frames: Any, **options: Any) -> bytes:
    """A TIFF with one page per frame, and nothing that tells how many there should be."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(
        stream, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("order", "<")
    ) as file:
        for frame in frames:
            file.write(frame, contiguous=False, metadata=None, **options)
    return stream.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_movies_are_summed_whatever_their_packing(tmp_path: Path, compression: str, order: str, bigtiff: bool) -> None:
    path = put(tmp_path / "m.tif", paged(MOVIE, compression=compression, order=order, bigtiff=bigtiff, rowsperstrip=7))
    header, summed = image_header(path), read_image(path)
    assert (header.kind, header.shape, header.dtype, header.frames) == ("tiff", (6, 40, 56), np.dtype("u1"), 6)
    assert header.nbytes_expected == path.stat().st_size
    assert summed.data.dtype == np.uint32
    np.testing.assert_array_equal(summed.data, MOVIE.sum(axis=0, dtype=np.uint32))
    np.testing.assert_array_equal(read_image(path, frames=4).data, MOVIE[4])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "u4", "f4", "f2"])
def test_types(tmp_path: Path, dtype: str, order: str) -> None:
    frame = (rng.normal(0, 90, (33, 21)) + (100 if dtype[0] == "u" else 0)).clip(-120, 250).astype(dtype)
    path = put(tmp_path / "a.tif", paged([frame, frame], order=order, tile=(16, 16)))
    one, two = read_image(path, frames="first").data, read_image(path).data
    assert one.dtype == (np.float32 if dtype == "f2" else np.dtype(dtype))
    np.testing.assert_array_equal(one, frame.astype(one.dtype))
    assert two.dtype.itemsize == (8 if dtype in ("i4", "u4") else 4)
    np.testing.assert_allclose(two, 2 * frame.astype(np.float64), rtol=1e-6)


def test_four_bits_packed_two_pixels_in_a_byte(tmp_path: Path) -> None:
    frame = MOVIE[0] % 16
    raw = bytearray(paged([frame[:, ::2] << 4 | frame[:, 1::2]]))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
    struct.pack_into("<I" if tags[256].dtype == 4 else "<H", raw, tags[256].valueoffset, 56)
    struct.pack_into("<H", raw, tags[258].valueoffset, 4)
    np.testing.assert_array_equal(read_image(put(tmp_path / "a.tif", bytes(raw))).data, frame)


def test_wide_integers_do_not_overflow(tmp_path: Path) -> None:
    frames = np.full((3, 4, 4), 2**32 - 1, np.uint32)
    np.testing.assert_array_equal(read_image(put(tmp_path / "a.tif", paged(frames))).data, 3 * (2**32 - 1))


def test_a_movie_cut_between_two_pages_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    whole = paged(MOVIE, compression="lzw")
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        starts = [page.offset for page in file.pages]
    seen = set()
    for cut in sorted({*starts, *(start + 30 for start in starts), len(whole) - 1, len(whole) - 200, 8, 5}):
        path = put(tmp_path / "m.tif", whole[:cut])
        try:
            header = image_header(path)
            assert header.nbytes_expected is not None
            assert header.nbytes_expected > cut
        except BadData as error:
            seen.add(error.reason)
        with pytest.raises(BadData) as found:
            read_image(path)
        assert found.value.reason in ("truncated", "header")
        assert "m.tif" in found.value.detail
    assert "truncated" in seen


def test_fewer_pages_than_the_description_speaks_of(tmp_path: Path) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, MOVIE, compression="lzw")
    assert image_header(put(tmp_path / "m.tif", stream.getvalue())).info["frames_expected"] == 6
    assert read_image(tmp_path / "m.tif").frames == 6
    # As a writer leaves it that was killed after the second page: its chain ends there, and opens clean.
    raw = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        second = file.pages[1].offset
        n = struct.unpack_from("<H", raw, second)[0]
    struct.pack_into("<I", raw, second + 2 + 12 * n, 0)
    path = put(tmp_path / "cut.tif", bytes(raw))
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 2
    assert image_header(path).frames == 2
    with pytest.raises(BadData, match="2 pages, its description speaks of 6") as found:
        read_image(path)
    assert found.value.reason == "pages"


def test_imagej_says_its_pixel_and_its_frames(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "m.tif",
        MOVIE[:, None],
        imagej=True,
        resolution=(1 / 0.83, 1 / 0.83),
        metadata={"unit": "angstrom", "axes": "TCYX"},
    )
    header = image_header(tmp_path / "m.tif")
    assert header.pixel_a == pytest.approx(0.83, rel=1e-4)
    assert header.info["frames_expected"] == 6
    np.testing.assert_array_equal(read_image(tmp_path / "m.tif").data, MOVIE.sum(axis=0))


@pytest.mark.parametrize(
    ("unit", "resolution", "pixel"), [("INCH", 300, None), ("CENTIMETER", 1e8 / 1.6, 1.6), ("CENTIMETER", 118, None)]
)
def test_a_resolution_is_a_pixel_size_only_if_a_specimen_has_it(
    tmp_path: Path, unit: str, resolution: float, pixel: float | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", MOVIE[0], resolution=(resolution,) * 2, resolutionunit=unit)
    found = image_header(tmp_path / "a.tif").pixel_a
    assert found == (None if pixel is None else pytest.approx(pixel, rel=1e-5))


def test_what_the_emulator_writes(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tiff", tiff_bytes(MOVIE[0].astype(np.float32), 2.2))
    np.testing.assert_array_equal(tifffile.imread(path), MOVIE[0])
    found = read_image(path)
    np.testing.assert_array_equal(found.data, MOVIE[0])
    assert found.pixel_a == pytest.approx(2.2, rel=1e-5)


def test_previews_are_no_frames_and_pages_of_other_sizes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(MOVIE[0], metadata=None)
        file.write(MOVIE[0, ::4, ::4], subfiletype=1, metadata=None)
    assert read_image(tmp_path / "preview.tif").frames == 1
    with pytest.raises(BadData, match=r"page 2 is 14 × 10 .* first 56 × 40") as found:
        read_image(put(tmp_path / "mixed.tif", paged([MOVIE[0], MOVIE[0, ::4, ::4]])))
    assert found.value.reason == "pages"


def test_colours_are_refused_and_grey_saved_as_rgb_is_not(tmp_path: Path) -> None:
    grey = np.repeat(MOVIE[0][..., None], 3, axis=2)
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.tif").data, MOVIE[0])
    grey[3, 4, 1] ^= 1
    tifffile.imwrite(tmp_path / "colour.tif", grey, photometric="rgb")
    with pytest.raises(BadData, match="colour") as found:
        read_image(tmp_path / "colour.tif")
    assert found.value.reason == "colour"


def test_types_that_are_no_image_of_counts(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.complex64))
    with pytest.raises(BadData, match="64 bits, format 6") as found:
        image_header(tmp_path / "a.tif")
    assert found.value.reason == "dtype"


def test_a_strip_that_cannot_be_decoded(tmp_path: Path) -> None:
    raw = bytearray(paged(MOVIE[:2], compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(raw))) as file:
        at = file.pages[1].dataoffsets[0]
    raw[at : at + 8] = b"\xff" * 8
    with pytest.raises(BadData, match="page 2 cannot be decoded") as found:
        read_image(put(tmp_path / "a.tif", bytes(raw)))
    assert found.value.reason == "decode"


@pytest.mark.data
def test_the_real_ones() -> None:
    if not (DATA / "micrographs" / "KLH.tif").is_file():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    for name, shape in (("micrographs/KLH.tif", (1, 844, 760)), ("tomograms/13pf_MT.tif", (36, 206, 94))):
        theirs = tifffile.imread(DATA / name)
        assert image_header(DATA / name).shape == shape
        np.testing.assert_array_equal(read_image(DATA / name).data, theirs.reshape(shape).sum(axis=0, dtype=np.int64))


# EER


def events(counts: np.ndarray, gap_bits: int, sub_bits: int) -> bytes:
    """Encode electrons per pixel as a frame of events: gap, place in the pixel; a gap of all ones has no event."""
    bits: list[int] = []
    most, at = (1 << gap_bits) - 1, 0

    def gap(n: int) -> None:
        for value in [most] * (n // most) + [n % most]:
            bits.extend(value >> i & 1 for i in range(gap_bits))

    for place in np.repeat(np.arange(counts.size), counts.ravel()):
        gap(int(place) - at)
        bits.extend(rng.integers(0, 2, sub_bits).tolist())
        at = int(place) + 1
    gap(counts.size - at)
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def eer(frames: list[list[bytes]], shape: tuple[int, int], code: int, extra: dict[int, int], xml: bytes = b"") -> bytes:
    """A BigTIFF by hand: one directory per frame, whose strips are given; metadata in the first."""
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    for number, strips in enumerate(frames):
        places = []
        for strip in strips:
            places.append((len(out), len(strip)))
            out += strip
        tags: list[tuple[int, int, int, bytes]] = [
            (256, 4, 1, struct.pack("<I", shape[1])),
            (257, 4, 1, struct.pack("<I", shape[0])),
            (258, 3, 1, struct.pack("<H", 8)),
            (259, 3, 1, struct.pack("<H", code)),
            (273, 16, len(strips), struct.pack(f"<{len(strips)}Q", *(at for at, _ in places))),
            (278, 4, 1, struct.pack("<I", -(-shape[0] // len(strips)))),
            (279, 16, len(strips), struct.pack(f"<{len(strips)}Q", *(n for _, n in places))),
        ]
        tags += [(tag, 3, 1, struct.pack("<H", value)) for tag, value in extra.items()]
        tags += [(65001, 7, len(xml), xml)] if xml and number == 0 else []
        entries = b""
        for tag, kind, count, data in sorted(tags):
            if len(data) > 8:
                entries += struct.pack("<HHQQ", tag, kind, count, len(out))
                out += data
            else:
                entries += struct.pack("<HHQ", tag, kind, count) + data.ljust(8, b"\0")
        struct.pack_into("<Q", out, link, len(out))
        out += struct.pack("<Q", len(tags)) + entries
        link = len(out)
        out += bytes(8)
    return bytes(out)


KINDS = {65000: (8, 4, {}), 65001: (7, 4, {}), 65002: (6, 4, {65007: 6, 65008: 2, 65009: 2})}
XML = (
    b'<metadata><item name="exposureTime" unit="s">4.5</item><item name="numberOfFrames">9</item>'
    b'<item name="totalDose" unit="e/A^2">39.5</item><item name="timestamp">2026-11-20T08:00:00</item>'
    b'<item name="sensorPixelSize.width" unit="m">7.3e-11</item></metadata>'
)


def electrons(n: int, shape: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    return [(rng.random(shape) < 0.03).astype(np.int64) for _ in range(n)]


@pytest.mark.parametrize("code", KINDS)
def test_eer_counts_every_electron(tmp_path: Path, code: int) -> None:
    gap_bits, sub_bits, extra = KINDS[code]
    counts = electrons(9)
    coded = [events(frame, gap_bits, sub_bits) for frame in counts]
    # In one strip, and in two that only make sense together.
    strips = [[c] if i % 2 else [c[: len(c) // 2], c[len(c) // 2 :]] for i, c in enumerate(coded)]
    path = put(tmp_path / "a.eer", eer(strips, (48, 64), code, extra, XML))
    header, summed = image_header(path), read_image(path)
    assert (header.kind, header.shape) == ("eer", (9, 48, 64))
    assert header.pixel_a == pytest.approx(0.73)
    assert header.info == {
        "exposure_s": 4.5,
        "dose_e_a2": 39.5,
        "frames_expected": 9,
        "acquired": "2026-11-20T08:00:00",
    }
    assert (summed.data.dtype, summed.frames) == (np.dtype(np.uint32), 9)
    np.testing.assert_array_equal(summed.data, np.sum(counts, axis=0))
    np.testing.assert_array_equal(read_image(path, frames=5).data, counts[5])


def test_eer_as_tifffile_reads_it(tmp_path: Path) -> None:
    coded = [events(frame, 7, 4) for frame in electrons(4)]
    coded = [c + b"\xff" * (len(c) % 2) for c in coded]
    path = put(tmp_path / "a.eer", eer([[c] for c in coded], (48, 64), 65001, {}, XML))
    theirs = tifffile.imread(path).astype(np.int64)
    assert theirs.shape == (4, 48, 64)
    np.testing.assert_array_equal(read_image(path).data, theirs.sum(axis=0))


def test_more_eer_frames_than_a_group_of_16_bits_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamsieve.stream.formats.eer._GROUP", 2)
    counts = electrons(5)
    path = put(tmp_path / "a.eer", eer([[events(c, 7, 4)] for c in counts], (48, 64), 65001, {}))
    np.testing.assert_array_equal(read_image(path).data, np.sum(counts, axis=0))


def test_eer_that_is_cut_or_damaged(tmp_path: Path) -> None:
    whole = eer([[events(c, 7, 4)] for c in electrons(3)], (48, 64), 65001, {})
    for cut in (len(whole) - 9, len(whole) // 2, 40, 16, 9):
        path = put(tmp_path / "a.eer", whole[:cut])
        with pytest.raises(BadData, match=r"a\.eer") as found:
            read_image(path)
        assert found.value.reason == ("empty" if cut == 16 and whole[8:16] == bytes(8) else "truncated")
    damaged = eer([[rng.bytes(6000)]], (48, 64), 65001, {})
    with pytest.raises(BadData, match="frame 1 of 1: its events") as found:
        read_image(put(tmp_path / "b.eer", damaged))
    assert found.value.reason == "eer"
    odd = eer([[events(electrons(1)[0], 7, 4)]], (48, 64), 65002, {65007: 90, 65008: 2, 65009: 2})
    with pytest.raises(BadData, match="cannot be decoded"):
        read_image(put(tmp_path / "c.eer", odd))


def test_imagecodecs_still_adds_to_what_is_there() -> None:
    """The sum of a movie relies on it: a decoder that overwrote would leave the last frame alone."""
    counts = electrons(1)[0]
    coded = events(counts, 7, 4)
    coded += b"\xff" * (len(coded) % 2)
    total = np.zeros((48, 64), np.uint16)
    for _ in range(3):
        imagecodecs.eer_decode(coded, total.shape, 7, 2, 2, out=total)
    np.testing.assert_array_equal(total, 3 * counts)
