"""Coordinates in the formats of other programs land on the pixel that was picked, as those programs compute it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import numpy.typing as npt
import pytest
import starfile
import yaml
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats import box, cbox, cryosparc, eman, plain, relion
from beamsieve.stream.formats.centres import Coordinates, upside_down
from beamsieve.stream.formats.coordinates import micrographs_in, read_coordinates, same_micrograph
from beamsieve.stream.formats.star import quote, read_star
from cryosparc.dataset import CSDAT_FORMAT, NUMPY_FORMAT, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPE = (40, 90)
BRIGHT = [(63, 11), (7, 33), (44, 20)]  # x, y
BOX = 12
X = np.array([x for x, _ in BRIGHT], np.float32)
Y = np.array([y for _, y in BRIGHT], np.float32)
SCORE = np.array([0.97, 0.8, 0.512345], np.float32)


def f32(values: list[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def image() -> npt.NDArray[np.uint8]:
    """Black but for the picked pixels."""
    pixels = np.zeros(SHAPE, np.uint8)
    for x, y in BRIGHT:
        pixels[y, x] = 1
    return pixels


def lands(columns: npt.ArrayLike, rows: npt.ArrayLike) -> None:
    """Integer positions hit all bright pixels."""
    columns, rows = np.asarray(columns), np.asarray(rows)
    assert len(columns) == len(BRIGHT)
    assert np.array_equal(columns, np.rint(columns))
    assert np.array_equal(rows, np.rint(rows))
    assert image()[rows.astype(int), columns.astype(int)].tolist() == [1] * len(BRIGHT)
    assert len(set(zip(columns.tolist(), rows.tolist(), strict=True))) == len(BRIGHT)


def located(y: npt.NDArray[np.float32] = Y) -> cryosparc.Located:
    return cryosparc.Located("g/a.mrc", "Movies/g/a.mrc", SHAPE, 1.5, 120.0, X, y, SCORE)


# Written here, read by others


def test_relion_finds_the_pixels_by_star(tmp_path: Path) -> None:
    path = tmp_path / "a_autopick.star"
    path.write_bytes(relion.encode_picks(X, Y, SCORE))
    frame = starfile.read(path)
    assert list(frame.columns) == [
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnClassNumber",
        "rlnAutopickFigureOfMerit",
        "rlnAnglePsi",
    ]
    lands(frame["rlnCoordinateX"], frame["rlnCoordinateY"])
    assert np.allclose(frame["rlnAutopickFigureOfMerit"], SCORE, atol=1e-6)
    assert frame["rlnClassNumber"].tolist() == [0, 0, 0]
    block = gemmi.cif.read(str(path)).sole_block()
    lands(np.array(block.find_loop("_rlnCoordinateX"), float), np.array(block.find_loop("_rlnCoordinateY"), float))
    assert path.read_text().split("\n")[1] == "# version 30001"


def test_relion_and_eman_agree_on_the_pixel_of_a_box(tmp_path: Path) -> None:
    path = tmp_path / "a.box"
    path.write_bytes(box.encode(X, Y, BOX))
    corners = [[int(word) for word in line.split("\t")] for line in path.read_text().splitlines()]
    x, y, width, height = np.array(corners).T
    lands(x + width // 2, y + height // 2)  # RELION: whole numbers, size / 2
    for (column, row), (left, low, *_) in zip(BRIGHT, corners, strict=True):
        # EMAN2 cuts [corner, corner + size) and has its origin at pixel size / 2 of it.
        assert image()[low : low + BOX, left : left + BOX][BOX // 2, BOX // 2] == 1
        assert (left + BOX // 2, low + BOX // 2) == (column, row)


def test_a_box_at_the_edge_has_a_corner_outside() -> None:
    assert box.encode(f32([2]), f32([0]), 12) == b"-4\t-6\t12\t12\n"
    with pytest.raises(ValueError, match="even"):
        box.encode(X, Y, 13)


def test_halves_go_up_as_where_particles_are_cut() -> None:
    found = np.loadtxt(box.encode(f32([10.5, 11.5, 11.49]), f32([20.5, 21.5, 0.5]), 8).splitlines())
    assert (found[:, :2] + 4).tolist() == [[11, 21], [12, 22], [11, 1]]


def test_eman2_json_has_centres_and_keeps_what_others_wrote(tmp_path: Path) -> None:
    others = {"ctf": [1, 2], "boxes": [[1, 2, "manual"], [3, 4, eman.TAG]]}
    found = json.loads(eman.encode(X, Y, before=others))
    assert found["ctf"] == [1, 2]
    assert found["boxes"][0] == [1, 2, "manual"]
    mine = [entry for entry in found["boxes"] if entry[2] == eman.TAG]
    lands([entry[0] for entry in mine], [entry[1] for entry in mine])


def test_cryolo_has_corners_and_all_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.cbox"
    path.write_bytes(cbox.encode(X, Y, SCORE, BOX))
    blocks = starfile.read(path, always_dict=True)
    table = blocks["cryolo"]
    lands(table["CoordinateX"] + table["Width"] / 2, table["CoordinateY"] + table["Height"] / 2)
    assert np.allclose(table["Confidence"], SCORE, atol=1e-6)
    assert list(table.columns) == list(cbox.COLUMNS)
    assert blocks["global"]["cbox_format_version"] == 1.0
    assert list(blocks["cryolo_include"].columns) == ["slice_index"]
    block = gemmi.cif.read(str(path)).find_block("cryolo")
    assert list(block.find_loop("_CoordinateZ")) == ["<NA>"] * 3


def test_cryosparc_tools_reads_our_file_and_finds_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.cs"
    path.write_bytes(cryosparc.encode([located()]))
    data = Dataset.load(path)
    shape = data["location/micrograph_shape"]
    assert shape.tolist() == [list(SHAPE)] * 3
    x = data["location/center_x_frac"] * shape[:, 1]
    y = data["location/center_y_frac"] * shape[:, 0]
    lands(np.floor(x), np.floor(y))
    lands(np.rint(x), np.rint(y))
    assert len(set(data["uid"].tolist())) == 3
    assert data["location/micrograph_path"].tolist() == ["Movies/g/a.mrc"] * 3
    assert np.allclose(data["location/micrograph_psize_A"], 1.5)
    assert np.allclose(data["pick_stats/ncc_score"], SCORE)
    again = cryosparc.table([located()])
    assert np.array_equal(again["uid"], data["uid"]), "the same pick keeps its number"


def test_the_cryosparc_group_names_what_is_there(tmp_path: Path) -> None:
    group = yaml.safe_load(cryosparc.encode_group("picks.cs", 3, created="2026-01-31 12:00:00.000000", version="0.3.0"))
    assert group["group"]["type"] == "particle"
    assert group["results"]["location"] == {"metafile": ">picks.cs", "num_items": 3, "type": "particle.location"}
    assert set(group["results"]) == {"location", "pick_stats"}


@pytest.mark.parametrize("edge", [40, 90, 1240, 1855, 4092, 5760, 8184, 11520])
def test_fractions_never_fall_below_their_pixel(edge: int) -> None:
    """A reader may cut off the fraction of frac * edge, in float32 or float64."""
    pixels = np.arange(edge, dtype=np.float32)
    found = cryosparc.fraction(pixels, edge)
    assert found.dtype == np.float32
    assert np.array_equal(np.floor(found * np.float32(edge)), pixels)
    assert np.array_equal(np.floor(found.astype(np.float64) * edge), pixels)
    assert found.max() < 1
    plainly = pixels / np.float32(edge)
    assert edge in (40, 8184, 11520) or (np.floor(plainly.astype(np.float64) * edge) != pixels).any()


def test_tables_of_relion(tmp_path: Path) -> None:
    one, other = relion.Optics(1.5, 300.0, 2.7, 0.1), relion.Optics(1.5, 200.0, 2.7, 0.1)
    path = tmp_path / "micrographs.star"
    path.write_bytes(relion.encode_micrographs([("a.mrc", one), ("b.mrc", other), ("c d.mrc", one)]))
    blocks = starfile.read(path)
    assert blocks["optics"]["rlnVoltage"].tolist() == [300.0, 200.0]
    assert blocks["optics"]["rlnMicrographPixelSize"].tolist() == [1.5, 1.5]
    assert blocks["optics"]["rlnOpticsGroupName"].tolist() == ["opticsGroup1", "opticsGroup2"]
    assert blocks["micrographs"]["rlnMicrographName"].tolist() == ["a.mrc", "b.mrc", "c d.mrc"]
    assert blocks["micrographs"]["rlnOpticsGroup"].tolist() == [1, 2, 1]
    path.write_bytes(relion.encode_summary([("a.mrc", "star/a_autopick.star")]))
    summary = starfile.read(path, always_dict=True)["coordinate_files"]
    assert summary.iloc[0].tolist() == ["a.mrc", "star/a_autopick.star"]


def test_particles_are_numbered_from_one_with_six_digits(tmp_path: Path) -> None:
    optics = relion.Optics(1.5, 300.0, 2.7, 0.1, image_pixel_a=3.0, image_size=64)
    path = tmp_path / "particles.star"
    path.write_bytes(relion.encode_particles([relion.Stack("a.mrc", "p/a.mrcs", optics, X, Y, SCORE)]))
    blocks = starfile.read(path)
    assert blocks["particles"]["rlnImageName"].tolist() == [f"00000{n}@p/a.mrcs" for n in (1, 2, 3)]
    lands(blocks["particles"]["rlnCoordinateX"], blocks["particles"]["rlnCoordinateY"])
    (row,) = blocks["optics"].to_dict("records")
    assert (row["rlnImagePixelSize"], row["rlnImageSize"], row["rlnImageDimensionality"]) == (3.0, 64, 2)
    assert row["rlnCtfDataAreCtfPremultiplied"] == 0
    assert row["rlnMicrographOriginalPixelSize"] == 1.5


def test_what_is_not_known_of_the_optics_is_no_invention(tmp_path: Path) -> None:
    path = tmp_path / "m.star"
    path.write_bytes(relion.encode_micrographs([("a.mrc", relion.Optics(1.5)), ("b.mrc", relion.Optics(1.2, 300.0))]))
    optics = starfile.read(path)["optics"]
    assert "rlnSphericalAberration" not in optics
    assert np.isnan(optics["rlnVoltage"][0])
    assert optics["rlnVoltage"][1] == 300.0


# Upside down


def test_eman_counts_rows_of_a_tiff_from_the_bottom() -> None:
    flipped = image()[::-1]  # as EMAN2 sees the file
    y = upside_down(Y, SHAPE[0])
    corners = np.loadtxt(box.encode(X, y.astype(np.float32), BOX).splitlines(), int)
    hits = flipped[corners[:, 1] + BOX // 2, corners[:, 0] + BOX // 2]
    assert hits.tolist() == [1, 1, 1]
    assert upside_down(y, SHAPE[0]).tolist() == Y.tolist()


@pytest.mark.parametrize("ending", [".box", ".json", ".star", ".cbox", ".cs", ".coords"])
def test_every_format_can_be_read_upside_down(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(written(ending, upside_down(Y, SHAPE[0]).astype(np.float32)))
    found = read_coordinates(path, shape=SHAPE, invert_y=True)
    lands(np.rint(found.x), np.rint(found.y))
    wrong = read_coordinates(path, shape=SHAPE)
    assert not np.array_equal(np.rint(wrong.y), Y)
    with pytest.raises(ValueError, match="shape"):
        read_coordinates(path, invert_y=True)


# Read back here


def written(ending: str, y: npt.NDArray[np.float32] = Y) -> bytes:
    return {
        ".box": lambda: box.encode(X, y, BOX),
        ".json": lambda: eman.encode(X, y),
        ".star": lambda: relion.encode_picks(X, y, SCORE),
        ".cbox": lambda: cbox.encode(X, y, SCORE, BOX),
        ".cs": lambda: cryosparc.encode([located(y)]),
        ".csv": lambda: plain.encode_csv("g/a.mrc", X, y, SCORE),
        ".coords": lambda: plain.encode_coords(X, y),
    }[ending]()


SCORED = (".star", ".cbox", ".cs", ".csv")


@pytest.mark.parametrize("ending", [".box", ".json", ".star", ".cbox", ".cs", ".csv", ".coords"])
def test_what_is_written_reads_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(written(ending))
    found = read_coordinates(path, micrograph="a.mrc", shape=SHAPE)
    lands(np.rint(found.x), np.rint(found.y))
    assert np.allclose(found.x, X, atol=1e-3)
    assert (found.score is not None) == (ending in SCORED)
    if found.score is not None:
        assert np.allclose(found.score, SCORE, atol=1e-6)
    assert found.wrong is None
    assert found.x.dtype == found.y.dtype == np.float32


places = st.floats(0, 11519, width=32)


@settings(max_examples=40)
@given(st.lists(st.tuples(places, places, st.floats(0, 1, width=32)), max_size=20))
def test_any_list_reads_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float, float]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    x, y, score = (np.array([row[i] for row in rows], np.float32) for i in range(3))
    one = cryosparc.Located("a.mrc", "a.mrc", (11520, 11520), 1.0, 100.0, x, y, score)
    files: dict[str, tuple[bytes, float]] = {
        "a.star": (relion.encode_picks(x, y, score), 1e-3),
        "a.json": (eman.encode(x, y), 0.01),
        "a.box": (box.encode(x, y, 64), 0.51),
        "a.cbox": (cbox.encode(x, y, score, 64), 0.01),
        "a.cs": (cryosparc.encode([one]), 2e-3),
        "a.csv": (plain.encode_csv("a, b.mrc", x, y, score), 0.01),
        "a.coords": (plain.encode_coords(x, y), 0.01),
    }
    for name, (content, tolerance) in files.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(len(rows), hash(content) % 10**15))
        found = read_coordinates(folder / name)
        assert len(found) == len(rows), name
        assert np.allclose(found.x, x, rtol=0, atol=tolerance), name
        assert np.allclose(found.y, y, rtol=0, atol=tolerance), name


@pytest.mark.parametrize(
    ("text", "x", "y"),
    [
        ("10\t20\t13\t13\n", 16, 26),  # EMAN2 writes centre - 13 // 2
        ("10.25 20.5 12 12\n", 16.25, 26.5),
        ("10.0\t20.0\t12.0\t12.0\n", 16, 26),
        ("# x y w h\n\n10 20 12 14 0\n", 16, 27),
    ],
)
def test_boxes_that_others_write(tmp_path: Path, text: str, x: float, y: float) -> None:
    path = tmp_path / "a.box"
    path.write_text(text)
    found = read_coordinates(path)
    assert (found.x.tolist(), found.y.tolist()) == ([x], [y])


def test_an_old_cbox_has_scores(tmp_path: Path) -> None:
    path = tmp_path / "a.cbox"
    path.write_text("10\t20\t12\t12\t0.25\t11\t13\n")
    found = read_coordinates(path)
    assert (found.x.tolist(), found.y.tolist()) == ([16], [26])
    assert found.score is not None
    assert found.score.tolist() == [0.25]


def test_a_cbox_without_sizes_needs_them_said(tmp_path: Path) -> None:
    path = tmp_path / "a.cbox"
    path.write_bytes(cbox.encode(X, Y, SCORE, BOX).replace(b" 12 12 <NA>", b" <NA> <NA> <NA>"))
    with pytest.raises(BadData, match=r"a\.cbox:21: Width: unknown; say the edge of the boxes \(box_px\)"):
        read_coordinates(path)
    found = read_coordinates(path, box_px=BOX)
    lands(found.x, found.y)


PARTICLES_30 = """
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMicrographName #3
_rlnDetectorPixelSize #4
 63.0 11.0 mics/01.mrc 5.0   # a comment would be data
"""
PARTICLES_31 = """# RELION 3.1

# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
1 'one group'

# version 30001

data_particles

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnAutopickFigureOfMerit #4
"mics/a b.mrc" 63.0 11.0 0.9
mics/01.mrc 7.0 33.0 0.8
mics/01.mrc 44.0 20.0 0.5
mics/1.mrc 1.0 2.0 0.4
"""


def test_one_star_of_all_micrographs(tmp_path: Path) -> None:
    path = tmp_path / "particles.star"
    path.write_text(PARTICLES_31)
    assert micrographs_in(path) == ("mics/a b.mrc", "mics/01.mrc", "mics/1.mrc")
    found = read_coordinates(path, micrograph="elsewhere/01.tif")
    assert (found.x.tolist(), found.y.tolist()) == ([7, 44], [33, 20]), "01 is not 1"
    assert found.score is not None
    assert read_coordinates(path, micrograph="a b.mrc").x.tolist() == [63]
    assert len(read_coordinates(path, micrograph="none.mrc")) == 0
    with pytest.raises(BadData, match="holds 3 micrographs"):
        read_coordinates(path)
    path.write_text(PARTICLES_30.replace("   # a comment would be data", ""))
    assert read_coordinates(path).x.tolist() == [63]


def test_a_job_summary_leads_to_its_files(tmp_path: Path) -> None:
    job = tmp_path / "AutoPick" / "job004"
    (job / "mics").mkdir(parents=True)
    (job / "mics" / "a_autopick.star").write_bytes(relion.encode_picks(X, Y, SCORE))
    (job / "mics" / "b.box").write_bytes(box.encode(X[:1], Y[:1], BOX))
    summary = job / "autopick.star"
    names = [("mics/a.mrc", "AutoPick/job004/mics/a_autopick.star"), ("mics/b.mrc", "AutoPick/job004/mics/b.box")]
    summary.write_bytes(relion.encode_summary(names))
    lands(read_coordinates(summary, micrograph="a.mrc").x, read_coordinates(summary, micrograph="a.mrc").y)
    assert len(read_coordinates(summary, micrograph="b.mrc")) == 1
    summary.write_bytes(relion.encode_summary([("mics/c.mrc", "AutoPick/job004/mics/c_autopick.star")]))
    os.utime(summary, (1, 1))
    with pytest.raises(BadData, match=r"autopick\.star:9: AutoPick/job004/mics/c_autopick\.star: no such file"):
        read_coordinates(summary)


def test_names_are_compared_as_programs_change_them() -> None:
    assert same_micrograph("C:\\data\\a_1.tif", "MotionCorr/job002/Movies/a_1.mrc")
    assert same_micrograph("J1/imported/0001234567890123456_a.mrc", "a.mrc")
    assert not same_micrograph("a.mrc", "a_1.mrc")
    assert not same_micrograph("1.5.mrc", "1.mrc")


def test_two_micrographs_of_one_name_need_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("micrograph,x,y\ng1/a.mrc,1,2\ng2/a.mrc,3,4\n")
    assert read_coordinates(path, micrograph="g2/a.mrc").x.tolist() == [3]
    with pytest.raises(BadData, match="name the folder"):
        read_coordinates(path, micrograph="a.mrc")


@pytest.mark.parametrize(
    "text",
    [
        "x,y\n63,11\n7,33\n44,20\n",
        "63,11\n7,33\n44,20\n",
        "X-Coordinate;Y-Coordinate\n63;11\n7;33\n44;20\n",
        "\ufeffmicrograph\tY\tX\na.mrc\t11\t63\na.mrc\t33\t7\na.mrc\t20\t44\n",
        "# mine\n_rlnCoordinateX, _rlnCoordinateY\n63, 11\n7, 33\n\n44, 20\n",
    ],
)
def test_tables_with_any_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    found = read_coordinates(path, micrograph="a.mrc", shape=SHAPE)
    lands(found.x, found.y)
    assert found.score is None


def test_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("micrograph,x,y,score,verdict\na.mrc,63,11,0.9,true\na.mrc,7,33,0.8,FALSE\na.mrc,44,20,0.7,good\n")
    found = read_coordinates(path)
    assert found.wrong is not None
    assert found.wrong.tolist() == [False, True, False]
    kept = found.take(~found.wrong)
    assert kept.x.tolist() == [63, 44]
    path = tmp_path / "a.json"
    path.write_text('[{"x": 63, "y": 11, "correct": 1}, {"x": 7, "y": 33, "correct": 0}]')
    again = read_coordinates(path)
    assert again.wrong is not None
    assert again.wrong.tolist() == [False, True]
    path.write_text("[[63, 11], [7, 33], [44, 20]]")
    lands(read_coordinates(path).x, read_coordinates(path).y)
    path.write_text("[[63, 11, 0.5], [7, 33, 0.25]]")
    scored = read_coordinates(path).score
    assert scored is not None
    assert scored.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.box", "10 20 12\n", r"a\.box:1: 3 columns; a box has"),
        ("a.box", "10 20 12 12\n10 zwanzig 12 12\n", r"a\.box:2: y: 'zwanzig' is not a number"),
        ("a.box", "10 20 0 12\n", r"a\.box:1: width, height: a box of 0 x 12"),
        ("a.box", "10 20 12 12 -1\n", r"a\.box:1: boxes along a filament"),
        ("a.csv", "", r"a\.csv: is empty"),
        ("a.csv", "a,b\n1,2\n", r"a\.csv:1: no column x among a, b"),
        ("a.csv", "x,y\n1,2\n3\n", r"a\.csv:3: y: missing"),
        ("a.csv", "x,y\n1,nan\n", r"a\.csv:2: y: 'nan' is not a number"),
        ("a.csv", "x,y,verdict\n1,2,perhaps\n", r"a\.csv:2: verdict: 'perhaps' says neither"),
        ("a.coords", "1\n", r"a\.coords:1: one column"),
        ("a.json", "{", r"a\.json:1: not JSON"),
        ("a.json", '{"ctf": 1}', r'a\.json: no "boxes" \(EMAN2\) and no list of points, but ctf'),
        ("a.json", '{"boxes": [["1", 2, "manual"]]}', r"a\.json: boxes\[0\]: '1' is not a number"),
        ("a.json", "[[1]]", r"a\.json: \[0\]: \[1\] is no point"),
        ("a.json", '[{"x": 1}]', r"a\.json: \[0\]: no y"),
        ("a.json", "[" * 100_000, r"a\.json:1: not JSON"),
        ("a.star", "", r"a\.star: holds no data_ block"),
        ("a.star", "x y\n", r"a\.star:1: no data_ block before"),
        ("a.star", "data_\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1\n", r"a\.star:5: 1 values for 2 columns"),
        ("a.star", "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 b\n", r"a\.star:5: _rlnCoordinateY: 'b' is not"),
        ("a.star", "data_\nloop_\n_rlnMicrographName\n", r"a\.star: no column _rlnCoordinateX in data_"),
        ("a.star", "data_a\ndata_a\n", r"a\.star:2: a second block data_a"),
        ("a.star", "data_a\n_rlnX\n", r"a\.star:2: _rlnX: has no value"),
        ("a.cbox", "data_cryolo\nloop_\n_CoordinateX\n", r"a\.cbox: data_cryolo has no column _CoordinateY"),
        ("a.cs", "\x93NUMPY", r"a\.cs: does not begin as a numpy array"),
        ("a.hdf", "", r"a\.hdf: unknown ending"),
        ("a.csv", "x,y\n1,\0\n", r"a\.csv: holds zero bytes"),
    ],
)
def test_what_cannot_be_used_is_refused_with_file_line_and_field(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadData, match=message) as caught:
        read_coordinates(path)
    assert caught.value.reason == "coordinates"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(b"data_\xff\xfe")
    with pytest.raises(BadData, match=r"a\.star: byte 5 is no UTF-8"):
        read_coordinates(path)
    with pytest.raises(FileNotFoundError):
        read_coordinates(tmp_path / "none.star")


def test_slices_of_a_tomogram_are_no_micrograph(tmp_path: Path) -> None:
    path = tmp_path / "a.cbox"
    content = cbox.encode(X, Y, SCORE, BOX).replace(b"<NA>", b"1", 1).replace(b"<NA>", b"2", 2)
    path.write_bytes(content)
    with pytest.raises(BadData, match="slices of a tomogram"):
        read_coordinates(path)


def test_cryosparc_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cs"
    path.write_bytes(b"\x95CSDAT" + b"\0" * 50)
    with pytest.raises(BadData, match="compressed format; save it as numpy with cryosparc-tools"):
        read_coordinates(path)
    whole = cryosparc.encode([located()])
    path.write_bytes(whole[:-5])
    with pytest.raises(BadData, match="is it cut"):
        read_coordinates(path)
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
    path.write_bytes((tmp_path / "o.npy").read_bytes())
    with pytest.raises(BadData, match="cannot be read"):
        read_coordinates(path)
    np.save(tmp_path / "o.npy", np.zeros(3))
    path.write_bytes((tmp_path / "o.npy").read_bytes())
    with pytest.raises(BadData, match="holds no table"):
        read_coordinates(path)
    np.save(tmp_path / "o.npy", np.zeros(3, [("uid", "<u8")]))
    path.write_bytes((tmp_path / "o.npy").read_bytes())
    with pytest.raises(BadData, match=r"no location/center_x_frac; name a file of particles"):
        read_coordinates(path)


def test_what_cryosparc_tools_writes_is_refused_or_read(tmp_path: Path) -> None:
    rows = cryosparc.table([located()])
    data = Dataset(rows)
    path = tmp_path / "a.cs"
    data.save(path, format=NUMPY_FORMAT)
    found = read_coordinates(path)
    lands(np.rint(found.x), np.rint(found.y))
    data.save(path, format=CSDAT_FORMAT)
    os.utime(path, (1, 1))
    with pytest.raises(BadData, match="compressed format"):
        read_coordinates(path)


@pytest.mark.parametrize(("x", "y"), [(100, 5), (5, 60), (-30, 5)])
def test_coordinates_of_another_binning_are_refused(tmp_path: Path, x: float, y: float) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"x,y\n{x},{y}\n")
    with pytest.raises(BadData, match="another binning, or x and y exchanged"):
        read_coordinates(path, shape=SHAPE)
    assert len(read_coordinates(path)) == 1


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n")
    assert len(read_coordinates(path)) == 1
    path.write_text("x,y\n1,2\n3,4\n")
    assert len(read_coordinates(path)) == 2


words = st.text(st.characters(codec="ascii", exclude_characters="\"'", exclude_categories=["Cc"]), min_size=1)


@given(st.lists(words.filter(lambda word: word.strip() == word), min_size=1, max_size=5))
def test_names_in_star_files_read_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("names") / "a.star"
    from beamsieve.stream.formats.star import loop

    path.write_text(loop("micrographs", ("rlnMicrographName", "rlnOpticsGroup"), ((quote(n), "1") for n in names)))
    block = read_star(path)["micrographs"]
    assert [row[0] for row in block.rows] == names
    assert list(gemmi.cif.read(str(path)).sole_block().find_loop("_rlnOpticsGroup")) == ["1"] * len(names)


def test_no_centres() -> None:
    none = Coordinates.none()
    assert len(none) == 0
    assert none.x.dtype == np.float32


DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "micrographs").is_dir(), reason="needs the shared data set")
def test_real_picks_lie_on_their_micrographs() -> None:
    found: dict[str, Any] = {}
    for path in sorted((DATA / "micrographs/apoferritin").glob("*.csv")):
        found[path.name] = len(read_coordinates(path, shape=(1200, 1240)))
    assert len(found) == 10
    assert found["May08_03.05.02.bin_avg.csv"] == 149
