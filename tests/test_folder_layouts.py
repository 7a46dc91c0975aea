"""What microscopes' programs call their files: which are taken, which left out, and what the names say."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import pytest
from beamsieve.stream.flow.settings import ConfigError, check
from beamsieve.stream.sources.folder.companions import expected_frames
from beamsieve.stream.sources.folder.layouts import chooser, companions, parse_name
from beamsieve.stream.sources.folder.patterns import compile_globs
from beamsieve.stream.sources.folder.settings import EXCLUDE, FolderSettings
from hypothesis import given
from hypothesis import strategies as st

EPU = "Images-Disc1/GridSquare_30423/Data/FoilHole_456_Data_789_17_20231215_101112"


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**/*.mrc", ["a.mrc", "x/a.mrc", "x/y/a.MRC", ".mrc"], ["a.mrcs", "a.mrc/b", "amrc"]),
        ("*.tif", ["a.tif", "ä b.TIF"], ["x/a.tif"]),
        ("Data/**", ["Data/a", "data/x/y"], ["a", "MyData/a"]),
        ("a/**/b?.[em]rc", ["a/b1.mrc", "a/x/y/b2.erc"], ["a/b.mrc", "a/b12.mrc", "b1.mrc"]),
        ("x[!0-9].mrc", ["xa.mrc"], ["x7.mrc", "x/.mrc"]),
        ("1+1(2).mrc", ["1+1(2).mrc"], ["11.mrc"]),
        ("line*", ["line\nbreak"], ["new\nline"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    matches = compile_globs((glob,))
    assert [name for name in yes + no if matches(name)] == yes


@given(
    st.text("ab*?.", min_size=1, max_size=8).filter(lambda glob: "**" not in glob),
    st.text("ab.", min_size=1, max_size=8),
)
def test_globs_without_folders_are_those_of_the_shell(glob: str, name: str) -> None:
    assert compile_globs((glob,))(name) == fnmatch.fnmatchcase(name, glob)


def test_no_glob_matches_nothing_and_many_match_what_one_does() -> None:
    assert not compile_globs(())("a")
    assert compile_globs(("*.a", "*.b"))("x.b")


@pytest.mark.parametrize("glob", ["", "/data/*.mrc", r"C:\data\*.mrc", "a[z-a].mrc"])
def test_bad_globs_are_mistakes_of_the_configuration(glob: str) -> None:
    with pytest.raises(ConfigError, match="patterns"):
        check({"directory": ".", "patterns": [glob]}, FolderSettings, "c.yaml")


def taken(layout: str, take: str, names: list[str]) -> list[str]:
    wanted, _ = chooser(layout, take, (), ())
    return [name for name in names if wanted(name)]


def test_epu_movies_and_micrographs_are_told_apart() -> None:
    micrographs = [f"{EPU}.mrc", "FoilHole_1_Data_2_3_20231215_1011.tif", f"{EPU}.MRC"]
    movies = [f"{EPU}_Fractions.mrc", f"{EPU}_fractions.tiff", f"{EPU}_EER.eer", f"{EPU}.eer", f"{EPU}-0001.mrc"]
    neither = [f"{EPU}.xml", f"{EPU}.jpg", "GridSquare_1_20231215_101112.mrc", f"{EPU}-gain-ref.MRC", f"{EPU}_x.mrc"]
    everything = micrographs + movies + neither
    assert taken("epu", "micrographs", everything) == micrographs
    assert taken("epu", "movies", everything) == movies


def test_leginon_exposures_are_taken_and_its_maps_and_aligned_copies_are_not() -> None:
    stem = "rawdata/24nov20c_00012gr_00034sq_v01_00002hl"
    names = [
        f"{stem}_00005enn.mrc",
        f"{stem}_00005es.frames.tif",
        f"{stem}_00005enn-a.mrc",
        f"{stem}_v01.mrc",
        f"{stem}.mrc",
        "x.mrc",
    ]
    assert taken("leginon", "micrographs", names) == names[:1]
    assert taken("leginon", "movies", names) == names[1:2]


def test_a_flat_folder_and_serialem_take_every_image() -> None:
    names = ["a.mrc", "b.mrcs", "c.tif", "x/d.TIFF", "e.eer", "f.png", "g.mrc.mdoc", "h.xml"]
    for layout in ("flat", "serialem"):
        assert taken(layout, "micrographs", names) == names[:5]


def test_what_is_never_an_image_is_left_out_and_samples_with_such_letters_are_not() -> None:
    excluded = compile_globs(EXCLUDE)
    out = [".a.mrc", "a.mrc.tmp", "b.part", "c.downloading", "gain.mrc", "x_gain.tif", "GainRef.mrc", "x-gain-ref.MRC"]
    out += ["SuperRef_x.mrc", "CountRef_a_0001.dm4", "defects_x.tif", "a_defect_map.tif", "DarkRef.mrc", "a_jpg.mrc"]
    assert [name for name in out if not excluded(name)] == []
    assert [
        n for n in ("again_01.mrc", "bargain.tif", "reference_1.mrc", "apo_part2.mrc", "x.mrc") if excluded(n)
    ] == []


@pytest.mark.parametrize(
    ("layout", "name", "says"),
    [
        (
            "epu",
            f"{EPU}_Fractions.mrc",
            {
                "foil_hole": "456",
                "template": "789",
                "acquisition": 17,
                "grid_square": "30423",
                "disc": "1",
                "acquired": "2023-12-15T10:11:12",
            },
        ),
        (
            "epu",
            r"X:\epu\session 1\Images-Disc2\GridSquare_9\Data\FoilHole_4_Data_7_8_20160102_2304.mrc",
            {
                "foil_hole": "4",
                "template": "7",
                "acquisition": 8,
                "grid_square": "9",
                "disc": "2",
                "acquired": "2016-01-02T23:04:00",
            },
        ),
        (
            "epu",
            "FoilHole_17609431_Data_17592522_17592524_20200226_160139-68811.mrc",
            {
                "foil_hole": "17609431",
                "template": "17592522",
                "acquisition": 17592524,
                "acquired": "2020-02-26T16:01:39",
            },
        ),
        ("epu", "FoilHole_1_Data_2_20231399_101112.mrc", {"foil_hole": "1", "template": "2"}),
        ("epu", "holiday.mrc", {}),
        ("serialem", "frames/TS_01_012_-36.0.tif", {"series": "TS_01", "acquisition": 12, "tilt_deg": -36.0}),
        ("serialem", "Position_1_2_001[3.00]_EER.eer", {"series": "Position_1_2", "acquisition": 1, "tilt_deg": 3.0}),
        (
            "serialem",
            "grid_00012_Nov05_10.11.12.tif",
            {"series": "grid", "acquisition": 12},
        ),
        ("serialem", "sq_20241105_101112.tif", {"acquired": "2024-11-05T10:11:12"}),
        (
            "serialem",
            "lam3_007_-12.00_20241105_101112_EER.eer",
            {"series": "lam3", "acquisition": 7, "tilt_deg": -12.0, "acquired": "2024-11-05T10:11:12"},
        ),
        ("serialem", "sq3_0007.mrc", {"series": "sq3", "acquisition": 7}),
        (
            "leginon",
            "s_00012gr_00034sq_v01_00002hl_00005enn.frames.mrc",
            {
                "series": "s",
                "grid": "00012",
                "grid_square": "00034",
                "foil_hole": "00002",
                "acquisition": 5,
                "preset": "enn",
                "version": 1,
            },
        ),
        ("leginon", "x.mrc", {}),
        ("flat", f"{EPU}.mrc", {}),
        ("epu", "", {}),
    ],
)
def test_names_say(layout: str, name: str, says: dict[str, Any]) -> None:
    assert parse_name(layout, name) == says


@given(st.sampled_from(["flat", "epu", "serialem", "leginon"]), st.text(max_size=60))
def test_any_name_can_be_parsed(layout: str, name: str) -> None:
    parse_name(layout, name)
    chooser(layout, "movies", (), EXCLUDE)[0](name)


def test_companions_of_a_file() -> None:
    last = EPU.rpartition("/")[2]
    for ending in ("_Fractions.mrc", "_EER.eer", "-0001.mrc"):
        assert companions("epu", last + ending)["xml"][-1] == f"{last}.xml"
    assert companions("epu", f"{last}.mrc") == {"xml": (f"{last}.xml",)}
    assert companions("serialem", "a.tif") == {"mdoc": ("a.tif.mdoc", "a.mdoc")}
    assert companions("flat", "a.tif") == companions("leginon", "a.mrc") == {}


def test_frames_that_companions_promise(tmp_path: Path) -> None:
    one, many, xml = tmp_path / "a.mdoc", tmp_path / "b.mdoc", tmp_path / "a.xml"
    one.write_text("T = SerialEM\n[FrameSet = 0]\nTiltAngle = 1\nNumSubFrames = 40\n")
    many.write_text(
        "[ZValue = 0]\nSubFramePath = X:\\frames\\ts_0.tif\nNumSubFrames = 8\n\n"
        "[ZValue = 1]\nNumSubFrames = 9\nSubFramePath = X:\\frames\\TS_1.tif\n"
    )
    xml.write_text(
        "<a><b:FractionationSettings><b:NumberOffractions>41</b:NumberOffractions></b:FractionationSettings></a>"
    )
    assert expected_frames("mdoc", str(one), "x.tif") == 40
    assert expected_frames("mdoc", str(many), "frames/ts_1.tif") == 9
    assert expected_frames("mdoc", str(many), "frames/ts_7.tif") is None
    assert expected_frames("xml", str(xml), "x.tif") == 41
    assert expected_frames("xml", str(many), "x.tif") is None
    assert expected_frames("xml", None, "x.tif") is expected_frames("mdoc", str(tmp_path / "no"), "x") is None


def test_relative_names_of_the_settings_start_at_the_configuration(tmp_path: Path) -> None:
    made = FolderSettings(directory=Path("in"), journal=Path("j.sqlite"), companion_directory=Path("meta")).at(tmp_path)
    assert (made.directory, made.journal, made.companion_directory) == (
        tmp_path / "in",
        tmp_path / "j.sqlite",
        tmp_path / "meta",
    )
    assert made.run == "in"
    assert made.listens == f"watching {tmp_path / 'in'}"
    assert FolderSettings(directory=Path("in"), session="night 3").run == "night 3"


def test_mistakes_of_the_settings_name_field_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def mistakes(**settings: Any) -> dict[str, str]:
        return {str(place[0]): why for place, why in FolderSettings(**settings).mistakes()}

    assert mistakes(directory=tmp_path) == mistakes(directory=tmp_path / "comes later") == {}
    assert "is a file" in mistakes(directory=tmp_path / "file")["directory"]
    assert "no such folder" in mistakes(directory=tmp_path / "no" / "no")["directory"]
    assert "SerialEM" in mistakes(directory=tmp_path, frames="mdoc")["frames"]
    assert "EPU" in mistakes(directory=tmp_path, frames="xml", layout="serialem")["frames"]
    assert "is a folder" in mistakes(directory=tmp_path, journal=tmp_path)["journal"]
    with pytest.raises(ConfigError, match="at least one frame"):
        check({"directory": ".", "frames": 0}, FolderSettings, "c.yaml")
