"""What is written of a mined tomogram for other programs reads back at the same places, and records as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import starfile
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats import copick, eman_boxes3d, relion_tomo
from beamsieve.stream.formats.tomogram_names import series_of
from beamsieve.stream.formats.volume_slices import Slices
from beamsieve.stream.sinks.tomograms import record
from beamsieve.stream.sinks.tomograms.exports import csv
from beamsieve.stream.sinks.tomograms.mined import Kept, LabelFiles, MinedTomogram, Picked
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SHAPE = (30, 41, 52)  # z, y, x; of both parities
CLASSES = ("membrane", "ribosome-like")


def mined(n: int = 12, name: str = "grid/TS_01_14.20Apx.mrc", **more: object) -> MinedTomogram:
    rng = np.random.default_rng(3)
    picked = Picked.of(
        (rng.random((n, 3)) * np.array(SHAPE[::-1])).astype(np.float32),
        rng.random(n).astype(np.float32) * 5,
        rng.normal(size=(n, 32)).astype(np.float32),
        error=rng.random(n).astype(np.float32),
        cluster=np.arange(n) % 5,
        label=np.arange(n) % 3,
        rotation=rng.normal(size=(n, 3, 3)).astype(np.float32),
    )
    made = MinedTomogram(
        name,
        Path("/data") / name,
        SHAPE,
        14.2,
        14.2,
        picked,
        "tomograms-general",
        "ab" * 32,
        3.0,
        classes=CLASSES,
        colours=("#e6c229", "#e5484d"),
        seconds={"pick": 1.5, "encode": 0.5},
        options={"sigma": 5.0, "unit": "voxels"},
        flags=("zero_tail",),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xy, xz, yz = (rng.integers(0, 255, (4, 5)).astype(np.uint8) for _ in range(3))
    slices = Slices(xy, xz, yz, factor=2, at=(26, 20, 15))
    kept = Kept(np.array([1, 5], np.int32), rng.normal(size=(2, 8, 8, 8)).astype(np.float16))
    labels = LabelFiles(tmp_path / "labels/a.mrc", CLASSES, {"membrane": tmp_path / "labels/m.mrc"}, {"membrane": 0.25})
    path = tmp_path / "session" / "a.mrc.h5"
    path.parent.mkdir()
    found = mined(slices=slices, kept=kept, segmentation=labels, flip="z", hand="mirrored", origin_a=(1.5, -2.0, 3.0))
    path.write_bytes(record.encode(found, stem="grid/TS_01", path=path))
    back = record.read(path, kept=True)
    for name in ("xyz", "score", "error", "cluster", "label", "codes", "rotation", "shift"):
        assert (getattr(back.picked, name) == getattr(found.picked, name)).all(), name
    assert back.kept is not None
    assert (back.kept.boxes == kept.boxes).all()
    assert back.slices is not None
    assert (back.slices.yz == slices.yz).all()
    one, other = (replace(m, picked=found.picked, kept=None, slices=None) for m in (back, found))
    assert repr(one) == repr(other)
    assert back.segmentation == labels
    assert record.stem_in(path) == "grid/TS_01"
    assert back.counts == {"membrane": 4, "ribosome-like": 4, "unmarked": 4}
    light = record.read(path, slices=False, codes=False)
    assert (light.slices, light.picked.codes.shape) == (None, (12, 0))
    moved = tmp_path / "elsewhere" / "session" / "a.mrc.h5"
    moved.parent.mkdir(parents=True)
    path.rename(moved)
    files = record.read(moved).segmentation
    assert isinstance(files, LabelFiles)
    assert files.labels == tmp_path / "elsewhere/labels/a.mrc"


def test_people_find_what_they_look_for_with_any_hdf5_program(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(record.encode(mined(), stem="a"))
    with h5py.File(path) as file:
        assert file.attrs["layout"] == "beamsieve tomogram 1"
        assert list(file.attrs["shape"]) == list(SHAPE)
        assert file.attrs["classes"] == "membrane, ribosome-like"
        assert file.attrs["picks"] == 12
        assert dict(file["counts"].attrs) == {"membrane": 4, "ribosome-like": 4, "unmarked": 4}
        assert dict(file["seconds"].attrs) == {"pick": 1.5, "encode": 0.5}
        assert file["picks/z"][3] == mined().picked.xyz[3, 2]
        assert file["codes"].shape == (12, 32)


def test_other_classes_replace_the_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(
        record.encode(mined(kept=Kept(np.zeros(1, np.int32), np.ones((1, 8, 8, 8), np.float16))), stem="a")
    )
    old = tmp_path / "old"
    old.hardlink_to(path)
    first = old.read_bytes()
    for version in range(1, 4):
        record.relabel(path, np.arange(12), np.full(12, 1), classes=["carbon edge"], clusters_version=version)
    back = record.read(path, kept=True)
    assert old.read_bytes() == first  # what a reader has open stays as it is
    old.unlink()
    assert back.picked.cluster.tolist() == list(range(12))
    assert (back.classes, back.clusters_version, back.counts) == (
        ("carbon edge",),
        3,
        {"carbon edge": 12, "unmarked": 0},
    )
    assert back.kept is not None
    with h5py.File(path) as file:
        assert dict(file["counts"].attrs) == back.counts
        assert file.attrs["clusters_version"] == 3
    before = path.read_bytes()
    with pytest.raises(ValueError, match="for 12 sub-volumes"):
        record.relabel(path, np.arange(11), np.zeros(11, int), classes=[], clusters_version=4)
    with pytest.raises(ValueError, match="label 1, and 0 classes"):
        record.relabel(path, np.arange(12), np.ones(12, int), classes=[], clusters_version=4)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("how", ["noise", "cut", "other layout", "short codes", "no facts", "text", "rows outside"])
def test_a_record_that_is_none_is_said_to_be_so(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.h5"
    kept = Kept(np.array([3], np.int32), np.ones((1, 8, 8, 8), np.float16))
    content = record.encode(mined(kept=kept), stem="a")
    path.write_bytes({"noise": b"\x89HDF" * 100, "cut": content[:3000]}.get(how, content))
    if how not in {"noise", "cut"}:
        with h5py.File(path, "r+") as file:
            if how == "other layout":
                file.attrs["layout"] = "beamsieve picks 1"
            elif how == "short codes":
                del file["codes"]
                file["codes"] = np.zeros((3, 32), "f4")
            elif how == "rows outside":
                file["kept/rows"][0] = 99
            else:
                del file["facts"]
                if how == "text":
                    file["facts"] = np.bytes_(b"[1, 2]")
    with pytest.raises(BadData, match=r"a\.h5") as error:
        record.read(path, kept=True)
    assert error.value.reason == "record"
    if how not in {"short codes", "rows outside"}:  # which are nothing to do with classes
        with pytest.raises(BadData, match=r"a\.h5"):
            record.relabel(path, np.zeros(12, int), np.zeros(12, int), classes=[], clusters_version=1)


def test_columns_of_other_lengths_and_unknown_labels_are_mistakes() -> None:
    with pytest.raises(ValueError, match="score"):
        Picked.of(np.zeros((3, 3), np.float32), np.zeros(2, np.float32), np.zeros((3, 32), np.float32))
    with pytest.raises(ValueError, match="codes"):
        Picked.of(np.zeros((3, 3), np.float32), np.zeros(3, np.float32), np.zeros((2, 32), np.float32))
    with pytest.raises(ValueError, match="label 2, and 1 classes"):
        record.encode(mined(classes=("membrane",)), stem="a")


def part_of(found: MinedTomogram, **more: object) -> relion_tomo.Part:
    p = found.picked
    made = relion_tomo.Part("TS_01", found.shape, found.voxel_a, p.xyz, p.score, p.label, np.arange(1, len(p) + 1))
    return replace(made, **more)  # type: ignore[arg-type]


def test_relion_finds_particles_where_they_are(tmp_path: Path) -> None:
    """By RELION's own sum: centred over the pixel size, and half of the size, not rounded."""
    found, path = mined(), tmp_path / "particles.star"
    second = part_of(found, tomogram="TS 02", note="x, flip z\nhand")
    path.write_bytes(relion_tomo.encode([part_of(found), second]))
    table = starfile.read(path)
    assert list(table.columns) == [
        "rlnTomoName",
        *relion_tomo.CENTRED,
        "rlnTomoParticleName",
        "rlnClassNumber",
        "rlnAutopickFigureOfMerit",
    ]
    first = table[table.rlnTomoName == "TS_01"]
    pixels = first[list(relion_tomo.CENTRED)].to_numpy() / 14.2 + np.array(SHAPE[::-1]) / 2.0
    assert pixels == pytest.approx(found.picked.xyz, abs=1e-4)
    assert first.rlnTomoParticleName.tolist()[:2] == ["TS_01/1", "TS_01/2"]
    assert first.rlnClassNumber.tolist() == found.picked.label.tolist()
    assert len(set(table.rlnTomoParticleName)) == 24
    back = relion_tomo.read(path)
    assert list(back) == ["TS_01", "TS 02"]
    assert relion_tomo.from_centred(back["TS 02"], SHAPE, 14.2) == pytest.approx(found.picked.xyz, abs=1e-4)
    assert '# "TS 02": x, flip z hand' in path.read_text()


def test_relions_optics_are_there_where_the_tilt_series_is_known(tmp_path: Path) -> None:
    path = tmp_path / "particles.star"
    path.write_bytes(relion_tomo.encode([part_of(mined())], relion_tomo.TomoOptics(1.7, 300, None, 0.1)))
    blocks = starfile.read(path)
    assert list(blocks) == ["optics", "particles"]
    assert blocks["optics"].rlnTomoTiltSeriesPixelSize.tolist() == [1.7]
    assert "rlnSphericalAberration" not in blocks["optics"]
    assert set(blocks["particles"].rlnOpticsGroup) == {1}


@settings(max_examples=30, deadline=None)
@given(
    xyz=arrays(np.float32, (4, 3), elements=st.floats(0, 4000, width=32)),
    voxel_a=st.floats(0.5, 50),
    shape=st.tuples(*(st.integers(1, 4000),) * 3),
)
def test_centred_coordinates_and_back(xyz: np.ndarray, voxel_a: float, shape: tuple[int, int, int]) -> None:
    back = relion_tomo.from_centred(relion_tomo.centred(xyz, shape, voxel_a), shape, voxel_a)
    assert back == pytest.approx(xyz, abs=1e-6)
    middle = np.array(shape[::-1]) / 2
    assert relion_tomo.centred(middle[None], shape, voxel_a) == pytest.approx(0)


def test_a_particles_table_without_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text("data_particles\n\nloop_\n_rlnCoordinateX #1\n1.0\n")
    with pytest.raises(BadData, match="no column _rlnCenteredCoordinateXAngst"):
        relion_tomo.read(path)
    path.write_text("data_particles\n\nloop_\n_rlnCenteredCoordinateXAngst #1\n1.0\n")
    with pytest.raises(BadData, match="lacks"):
        relion_tomo.read(path)


def eman(found: MinedTomogram, before: dict[str, object] | None = None) -> dict[str, object]:
    p = found.picked
    content = eman_boxes3d.encode(
        p.xyz,
        p.score,
        p.label,
        shape=SHAPE,
        voxel_a=14.2,
        classes=CLASSES,
        box_a=454.4,
        about={"flip": "z"},
        before=before,
    )
    read: dict[str, object] = json.loads(content)
    return read


def test_eman2_finds_boxes_where_they_are(tmp_path: Path) -> None:
    """By EMAN2's own sum: over the voxel, times apix_unbin, and n // 2."""
    found, path = mined(), tmp_path / "a_info.json"
    content = eman(found)
    boxes = content["boxes_3d"]
    assert isinstance(boxes, list)
    where = np.array([box[:3] for box in boxes]) / 14.2 * float(str(content["apix_unbin"])) + np.array(SHAPE[::-1]) // 2
    assert where == pytest.approx(found.picked.xyz, abs=1e-2)
    classes = content["class_list"]
    assert isinstance(classes, dict)
    assert {key: entry["name"] for key, entry in classes.items()} == {
        "0": "unmarked",
        "1": "membrane",
        "2": "ribosome-like",
    }
    assert classes["1"]["boxsize"] == 32
    assert content["beamsieve"] == {"flip": "z"}
    path.write_text(json.dumps(content))
    back = eman_boxes3d.read(path, SHAPE, 14.2)
    assert back["membrane"] == pytest.approx(found.picked.xyz[found.picked.label == 1], abs=1e-2)


def test_boxes_of_others_stay_and_ours_are_replaced(tmp_path: Path) -> None:
    """A project of EMAN2: tilt series of 1.775 Å, an alignment, and boxes that a person has set."""
    theirs = [10.0, 20.0, -5.0, "manual", 0.0, 1]
    before = {
        "apix_unbin": 1.775,
        "tlt_params": [[0.0, 1.0]],
        "boxes_3d": [theirs],
        "class_list": {"1": {"name": "mine", "boxsize": 64}},
    }
    once = eman(mined(), before)
    twice = eman(mined(5), once)
    assert (twice["apix_unbin"], twice["tlt_params"]) == (1.775, [[0.0, 1.0]])
    boxes, classes = twice["boxes_3d"], twice["class_list"]
    assert isinstance(boxes, list)
    assert isinstance(classes, dict)
    assert boxes[0] == theirs
    assert len(boxes) == 6
    assert {key: entry["name"] for key, entry in classes.items()} == {
        "1": "mine",
        "2": "unmarked",
        "3": "membrane",
        "4": "ribosome-like",
    }
    assert classes["3"]["boxsize"] == 256
    path = tmp_path / "a.json"
    path.write_text(json.dumps(twice))
    back = eman_boxes3d.read(path, SHAPE, 14.2)
    found = mined(5).picked
    assert back["ribosome-like"] == pytest.approx(found.xyz[found.label == 2], abs=1e-2)


@pytest.mark.parametrize("text", ["{", "[]", '{"boxes": []}', '{"boxes_3d": [[1, 2]]}', '{"boxes_3d": [["a", 1, 2]]}'])
def test_what_is_no_info_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadData, match=r"a\.json"):
        eman_boxes3d.read(path, SHAPE, 14.2)


def test_copick_finds_points_where_they_are(tmp_path: Path) -> None:
    p = mined().picked
    path = tmp_path / copick.place("TS_01", "carbon edge")
    assert path == tmp_path / "ExperimentRuns/TS-01/Picks/beamsieve_0_carbon-edge.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(copick.encode(p.xyz, p.score, run="TS_01", name="carbon edge", voxel_a=14.2, about={"flip": "z"}))
    name, points = copick.read(path)
    assert name == "carbon-edge"
    assert points / 14.2 == pytest.approx(p.xyz, abs=1e-3)
    content = json.loads(path.read_text())
    # Fields, types and defaults of copick's CopickPicksFile and CopickPoint.
    assert {key: content[key] for key in ("user_id", "session_id", "run_name", "voxel_spacing", "unit")} == {
        "user_id": "beamsieve",
        "session_id": "0",
        "run_name": "TS-01",
        "voxel_spacing": 14.2,
        "unit": "angstrom",
    }
    assert content["trust_orientation"] is False
    assert set(content["points"][0]) == {"location", "transformation_", "instance_id", "score"}
    assert content["points"][0]["transformation_"] == np.eye(4).tolist()
    for text in ("{", "[]", '{"points": [{}], "pickable_object_name": "a"}'):
        path.write_text(text)
        with pytest.raises(BadData, match="no picks of copick"):
            copick.read(path)


def test_copicks_configuration_names_the_objects(tmp_path: Path) -> None:
    content = json.loads(copick.encode_config(tmp_path, CLASSES, ("#e6c229", ""), "night 1"))
    assert [(o["name"], o["label"], o["color"]) for o in content["pickable_objects"]] == [
        ("membrane", 1, [230, 194, 41, 255]),
        ("ribosome-like", 2, [128, 128, 128, 255]),
    ]
    assert content["overlay_root"] == f"local://{tmp_path}"


def test_the_csv_has_a_line_per_sub_volume() -> None:
    lines = csv(mined(classes=('a "b", c', "ribosome-like"))).splitlines()
    assert lines[0] == "x,y,z,score,error,cluster,class"
    assert len(lines) == 13
    assert lines[1].endswith(",0,")
    assert lines[2].endswith(',1,"a ""b"", c"')
    assert [float(value) for value in lines[3].split(",")[:3]] == pytest.approx(mined().picked.xyz[2], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("reconstruction/TS_01_10.00Apx.mrc", "TS_01"),
        ("TS_01.rec", "TS_01"),
        ("TS_01_full_rec.mrc", "TS_01"),
        ("a/b/TS_01_Vol.mrc", "TS_01"),
        ("rec_Position_7.mrc", "Position_7"),
        ("Position_7_2_bin4_rec.mrc", "Position_7_2"),
        ("C:\\data\\lamella3_Vol.mrc", "lamella3"),
        ("_rec.mrc", "_rec"),
        ("rec_.mrc", "rec_"),
        ("tomo.v2.hdf", "tomo.v2"),
    ],
)
def test_the_tilt_series_in_a_name(name: str, series: str) -> None:
    assert series_of(name) == series
