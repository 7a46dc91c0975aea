"""From complete files to frames: pixels, pixel size and what the microscope said, whatever happens to the file."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from beamsieve.stream.decode import micrographs
from beamsieve.stream.decode.micrographs import DecodeMicrographs, MicrographSettings
from beamsieve.stream.emulators.micrograph_files import companion_of, mrc_bytes
from beamsieve.stream.flow.frame import BadData, Encoded, Failure, Frame, Key, Raw, RunStart
from beamsieve.stream.flow.settings import ConfigError, check
from beamsieve.stream.flow.stages import do
from beamsieve.stream.formats.image import read_image

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
WHEN = datetime.fromisoformat("2026-11-20T09:15:00+00:00")
PIXELS = np.arange(30, dtype=np.uint16).reshape(5, 6) * 100


def raw(path: Path, number: int = 1, **info: Any) -> Raw:
    image = Encoded(b"", (), np.dtype("u1"), "file")
    return Raw(Key("session", number), image, 1.0, 2.0, info={"path": str(path), "name": path.name} | info)


def decoded(path: Path, settings: MicrographSettings | None = None, **info: Any) -> Frame:
    (found,) = DecodeMicrographs(settings or MicrographSettings(), path.parent)([raw(path, **info)])
    assert isinstance(found, Frame), found
    return found


def refused(path: Path, settings: MicrographSettings | None = None, **info: Any) -> Failure:
    (found,) = DecodeMicrographs(settings or MicrographSettings(), path.parent)([raw(path, **info)])
    assert isinstance(found, Failure), found
    return found


@pytest.fixture
def mrc(tmp_path: Path) -> Path:
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(PIXELS, 1.2))
    return path


def xml(path: Path, pixel_a: float, **optics: float) -> dict[str, str]:
    """An EPU XML beside an image, as the emulator writes it."""
    beside, text = companion_of("epu", path.name, 7, WHEN, {"pixel_a": pixel_a, "nx": 6, "ny": 5, **optics})
    path.with_name(beside).write_text(text, encoding="utf-8")
    return {"xml": str(path.with_name(beside))}


def mdoc(path: Path, pixel_a: float, **optics: float) -> dict[str, str]:
    beside, text = companion_of("serialem", path.name, 7, WHEN, {"pixel_a": pixel_a, **optics})
    path.with_name(beside).write_text(text, encoding="utf-8")
    return {"mdoc": str(path.with_name(beside))}


def test_a_frame_has_the_file_s_pixels_and_the_raw_s_facts(mrc: Path) -> None:
    frame = decoded(mrc, bytes=mrc.stat().st_size, grid_square="17", revision=2, flags=("zero_tail",))
    np.testing.assert_array_equal(frame.data, PIXELS)
    assert (frame.key, frame.arrived, frame.wall) == (Key("session", 1), 1.0, 2.0)
    assert frame.info["pixel_a"] == pytest.approx(1.2)
    assert {name: frame.info[name] for name in ("pixel_from", "saturation", "frames", "revision", "flags")} == {
        "pixel_from": "header",
        "saturation": 65535.0,
        "frames": 1,
        "revision": 2,
        "flags": ("zero_tail",),
    }
    assert frame.info["microscope"] == {"grid_square": "17"}
    assert 0 < frame.info["read_s"] < 10


def test_what_the_xml_says_of_the_microscope(mrc: Path) -> None:
    said = xml(mrc, 1.2, voltage_kv=200.0, dose_e_a2=41.5, defocus_um=-1.8)
    found = decoded(mrc, companions=said).info["microscope"]
    assert (found["voltage_kv"], found["dose_e_a2"], found["applied_defocus_um"]) == pytest.approx((200, 41.5, -1.8))
    assert (found["stage_x_um"], found["stage_y_um"], found["exposure_s"]) == pytest.approx((-118, 37, 2.5))
    assert found["acquired"] == "2026-11-20T09:15:00+00:00"
    # The configuration has the last word.
    settings = MicrographSettings(voltage_kv=300, spherical_aberration_mm=2.7, amplitude_contrast=0.07, dose_e_a2=30)
    found = decoded(mrc, settings, companions=said).info["microscope"]
    assert (found["voltage_kv"], found["dose_e_a2"], found["spherical_aberration_mm"], found["amplitude_contrast"]) == (
        300,
        30,
        2.7,
        0.07,
    )


@pytest.mark.parametrize(
    ("header", "xml_a", "mdoc_a", "setting", "expected", "where", "flagged"),
    [
        (1.2, None, None, None, 1.2, "header", False),
        (0.0, None, None, None, None, None, False),
        (0.0, 1.3, 1.4, None, 1.3, "xml", True),
        (0.0, None, 1.4, None, 1.4, "mdoc", False),
        (1.2, 1.21, None, None, 1.2, "header", False),
        (1.2, 1.25, None, None, 1.2, "header", True),
        (1.0, 1.3, None, None, 1.3, "xml", False),
        (1.0, None, None, None, 1.0, "header", False),
        (1.2, None, None, 2.0, 2.0, "settings", True),
        (0.0, None, None, 2.0, 2.0, "settings", False),
    ],
)
def test_pixel_size_settings_then_header_then_xml_then_mdoc(
    mrc: Path,
    header: float,
    xml_a: float | None,
    mdoc_a: float | None,
    setting: float | None,
    expected: float | None,
    where: str | None,
    flagged: bool,
) -> None:
    mrc.write_bytes(mrc_bytes(PIXELS, header))
    companions = (xml(mrc, xml_a) if xml_a else {}) | (mdoc(mrc, mdoc_a) if mdoc_a else {})
    frame = decoded(mrc, MicrographSettings(pixel_a=setting), companions=companions)
    assert frame.info["pixel_a"] == (None if expected is None else pytest.approx(expected))
    assert frame.info["pixel_from"] == where
    assert ("pixel_disagrees" in frame.info["flags"]) is flagged


def test_a_movie_in_super_resolution_has_finer_pixels_than_its_camera(mrc: Path) -> None:
    mrc.write_bytes(mrc_bytes(PIXELS, 0.0))
    assert decoded(mrc, companions=xml(mrc, 1.4, nx=3)).info["pixel_a"] == pytest.approx(0.7)
    assert decoded(mrc, companions=xml(mrc, 1.4, nx=17)).info["pixel_a"] == pytest.approx(1.4)


def test_a_companion_that_cannot_be_read_costs_a_flag(mrc: Path) -> None:
    bad = mrc.with_suffix(".xml")
    bad.write_text("<!DOCTYPE a><MicroscopeImage/>", encoding="utf-8")
    frame = decoded(mrc, companions={"xml": str(bad), "mdoc": "/nowhere/a.mdoc"})
    assert frame.info["flags"] == ("bad_xml", "bad_mdoc")
    assert frame.info["pixel_a"] == pytest.approx(1.2)


def test_files_that_are_not_what_they_were(mrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = mrc.stat().st_size
    assert refused(mrc.with_name("b.mrc")).reason == "vanished"
    assert refused(mrc, bytes=size + 1).reason == "truncated"
    assert refused(mrc, bytes=size - 1).reason == "changed"
    mrc.write_bytes(mrc.read_bytes()[:-1])
    assert refused(mrc, bytes=size - 1).reason == "truncated"

    mrc.write_bytes(mrc_bytes(PIXELS, 1.2))

    def read_while_it_is_overwritten(path: Path, **options: Any) -> Any:
        found = read_image(path, **options)
        os.utime(path, ns=(0, 0))
        return found

    monkeypatch.setattr(micrographs, "read_image", read_while_it_is_overwritten)
    found = refused(mrc, bytes=size)
    assert found.reason == "changed"
    assert str(mrc) in found.detail


def test_one_bad_file_fails_alone(mrc: Path) -> None:
    work = DecodeMicrographs(MicrographSettings())
    raws = [raw(mrc, 1), raw(mrc.with_name("gone.mrc"), 2), raw(mrc, 3)]
    made = do("decode", work, raws)
    assert [type(item) for item in made] == [Frame, Failure, Frame]
    assert [item.key.number for item in made] == [1, 2, 3]  # type: ignore[union-attr]
    assert made[1].raw is raws[1]  # type: ignore[union-attr]
    assert work.mark(RunStart("session")) == RunStart("session")


def test_movies_are_summed_and_the_gain_is_applied(tmp_path: Path) -> None:
    movie = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    tifffile.imwrite(tmp_path / "m.tiff", movie, photometric="minisblack")
    gain = np.linspace(0.5, 2, 30, dtype=np.float32).reshape(5, 6)
    gain[2, 3] = np.nan
    (tmp_path / "g.mrc").write_bytes(mrc_bytes(np.ones_like(gain), 1.0)[:1024] + np.rot90(gain, -1).tobytes())
    # The reference's header has the turned sides.
    turned = bytearray((tmp_path / "g.mrc").read_bytes())
    turned[0:8] = np.array([5, 6], "<i4").tobytes()
    (tmp_path / "g.mrc").write_bytes(turned)
    settings = MicrographSettings(gain=Path("g.mrc"), gain_rotate_deg=90)
    frame = decoded(tmp_path / "m.tiff", settings)
    expected = movie.sum(axis=0) * gain
    good = np.isfinite(gain)
    np.testing.assert_allclose(frame.data[good], expected[good], rtol=1e-6)
    assert (frame.info["frames"], frame.info["repaired"], frame.info["saturation"]) == (4, 1, None)
    assert np.isfinite(frame.data).all()
    divided = decoded(
        tmp_path / "m.tiff", MicrographSettings(gain=Path("g.mrc"), gain_rotate_deg=90, gain_is="divided")
    )
    np.testing.assert_allclose(divided.data[good], (movie.sum(axis=0) / gain)[good], rtol=1e-6)
    failed = refused(tmp_path / "m.tiff", MicrographSettings(gain=Path("g.mrc")))
    assert failed.reason == "gain_shape"
    assert "rotate" in failed.detail
    first = decoded(tmp_path / "m.tiff", MicrographSettings(frames="first"))
    np.testing.assert_array_equal(first.data, movie[0])


def test_a_gain_that_cannot_be_used_is_noticed_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"nogain\.mrc: no such file"):
        DecodeMicrographs(MicrographSettings(gain=Path("nogain.mrc")), tmp_path)
    (tmp_path / "dark.mrc").write_bytes(mrc_bytes(np.zeros((5, 6), np.float32), 1.0))
    with pytest.raises(BadData, match="is it a gain"):
        DecodeMicrographs(MicrographSettings(gain=Path("dark.mrc")), tmp_path)


def test_bright_particles_are_made_dark(mrc: Path) -> None:
    frame = decoded(mrc, MicrographSettings(invert=True))
    assert frame.data.dtype == np.float32
    np.testing.assert_array_equal(frame.data, -PIXELS.astype(np.float32))
    assert frame.info["saturation"] is None


def test_an_image_that_is_too_large_is_refused_before_it_is_read(mrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mrc.write_bytes(mrc_bytes(np.zeros((600, 500), np.int8), 1.0))
    monkeypatch.setattr(micrographs, "read_image", lambda *_, **__: pytest.fail("was read"))
    found = refused(mrc, MicrographSettings(max_image_mb=1))
    assert found.reason == "size"
    assert "max_image_mb: 1" in found.detail


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"pixel_a": 0}, "pixel_a"),
        ({"pixel_a": 1e9}, "pixel_a"),
        ({"gain_rotate_deg": 45}, "gain_rotate_deg"),
        ({"frames": "last"}, "frames"),
        ({"gane": "a.mrc"}, "did you mean gain"),
        ({"amplitude_contrast": 7}, "amplitude_contrast"),
    ],
)
def test_settings_that_are_mistakes(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        check(settings, MicrographSettings, "a.yaml")


@pytest.mark.data
def test_real_files_of_every_kind() -> None:
    files = [
        ("contaminated_1142.mrc", (927, 959)),
        ("KLH.tif", (844, 760)),
        ("quality/3Empty_1.png", (494, 512)),
        ("apoferritin/May08_03.05.02.bin_avg.png", (1200, 1240)),
    ]
    if not (DATA / "micrographs" / "KLH.tif").is_file():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    for name, shape in files:
        frame = decoded(DATA / "micrographs" / name, MicrographSettings(pixel_a=1.5))
        assert frame.data.shape == shape
        assert frame.info["pixel_a"] == 1.5
