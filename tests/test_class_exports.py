"""Classes of a session for RELION and cryoSPARC: every row is the particle that it names, and none of a bad class."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import starfile
from beamsieve.models.particles.candidates import Candidates
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result, RunEnd, RunStart
from beamsieve.stream.sinks.picks import class_sets
from beamsieve.stream.sinks.picks.class_exports import GOOD, export_classes
from beamsieve.stream.sinks.picks.classes_file import (
    CLASS,
    MICROGRAPH,
    PARTICLE,
    ClassTables,
    DenoisedBy,
    Labels,
    Table,
    read_classes,
    write_classes,
)
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.places import Places
from beamsieve.stream.sinks.picks.rows import Row, Rows
from beamsieve.stream.sinks.picks.settings import PickSettings
from beamsieve.stream.sinks.picks.sink import PickSink
from cryosparc.dataset import Dataset

SHAPE, SIZE, EDGE = (300, 500), 128, 64
PIXEL_A = 3.0
#: Class by micrograph and particle; ids have gaps, 0 is none. Class 9 is bad.
CLASSES = {"a.mrc": [7, 2, 0, 9], "g/b c.mrc": [9, 2, 2, 7]}
IDS = (2, 7, 9)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def found(name: str, number: int) -> PickedMicrograph:
    n = len(CLASSES[name])
    x = np.array([50.25, 150.25, 250.25, 350.25], np.float32) + np.float32(number)
    candidates = Candidates(x, x / np.float32(2), np.linspace(0.9, 0.6, n, dtype=np.float32), np.ones(n, np.float32))
    particles = np.full((n, SIZE, SIZE), number, np.float32)
    particles += np.arange(n, dtype=np.float32)[:, None, None] / 10
    return PickedMicrograph(
        name,
        Path("/data") / name,
        SHAPE,
        1.5,
        candidates,
        np.ones(n, bool),
        0.5,
        "tiny",
        "ab" * 32,
        diameter_a=120.0,
        box_px=256,
        quality={},
        info={"voltage_kv": 300.0, "spherical_aberration_mm": 2.7},
        particles=particles,
        particle_pixel_a=PIXEL_A,
    )


def session(folder: Path, **words: Any) -> tuple[list[Row], PickSettings, Places]:
    words = {"formats": ("star", "cryosparc"), "particles": {"mrcs": True}, "pictures": False, **words}
    settings = PickSettings.model_validate({"directory": folder, "min_free_gb": 0, **words})
    sink = PickSink(settings)
    sink.open()
    sink.start(RunStart("session"))
    for number, name in enumerate(CLASSES):
        frame = Frame(Key("session", number), np.zeros(SHAPE, np.float32), 0.0, 0.0)
        told = {"micrograph": found(name, number), "seconds": {}}
        assert sink.write([Result(frame, Outcome.ACCEPTED, 1.0, "picker", 1.0, told)]) == []
    sink.end(RunEnd("session"))
    sink.close()
    places = Places(folder, settings.project)
    rows = Rows(places)
    rows.scan()
    return rows.sorted(), settings, places


def tables(rows: list[Row]) -> ClassTables:
    """Labels as the daemon writes them: angle and shift tell which particle it is."""
    micrographs = np.zeros(len(rows), MICROGRAPH)
    parts: list[Table] = []
    for at, row in enumerate(rows):
        images = row.record.images
        assert images is not None
        labels = np.zeros(len(images), PARTICLE)
        labels["micrograph"], labels["class"] = at, CLASSES[row.record.micrograph.name]
        labels["x"], labels["y"], labels["score"] = images.x, images.y, images.score
        labels["angle"] = 10 * at + np.arange(len(images))
        labels["shift"] = np.stack([np.arange(len(images)), np.full(len(images), -at - 1)], 1)
        labels["similarity"] = 0.5
        labels["rejected"] = labels["class"] == 9
        file = row.file.removeprefix("micrographs/")
        first = sum(len(part) for part in parts)
        micrographs[at] = (row.record.micrograph.name, file, first, len(images), (0, 0, 0), SIZE, PIXEL_A)
        parts.append(labels)
    particles = np.concatenate(parts)
    # Not in order of their numbers: the file is the daemon's.
    classes = np.zeros(3, CLASS)
    classes["id"] = (9, 2, 7)
    classes["count"] = [int((particles["class"] == one).sum()) for one in classes["id"]]
    classes["mark"] = (b"bad", b"good", b"")
    classes["resolution_a"] = (np.nan, 11.0, 14.0)
    averages = np.stack([np.full((EDGE, EDGE), one, np.float32) for one in (9, 2, 7)])
    halves = np.stack([averages, averages], 1)
    model = DenoisedBy("general", "cd" * 32, 1.0)
    centres = np.zeros((3, 4, 4), np.complex64)
    return ClassTables(6.0, EDGE, micrographs, particles, (model,), classes, averages, halves, centres)


def test_relions_rows_name_the_image_the_class_and_where_it_lies(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path, project=tmp_path)
    written = export_classes(tables(rows), rows, settings, places, 3)
    folder = tmp_path / "classes"
    assert {folder / f"run_it003_{kind}" for kind in ("classes.mrcs", "data.star", "model.star", "optimiser.star")} <= {
        *written
    }
    data = starfile.read(folder / "run_it003_data.star")
    particles = data["particles"]
    # The particle of class 0 is left out; numbers without gaps, by id: 2, 7, 9 are 1, 2, 3.
    assert particles["rlnClassNumber"].tolist() == [2, 1, 3, 3, 1, 1, 2]
    assert particles["rlnImageName"].tolist() == [
        *(f"{at:06d}@particles/a.mrcs" for at in (1, 2, 4)),
        *(f"{at:06d}@particles/g/b c.mrcs" for at in (1, 2, 3, 4)),
    ]
    assert particles["rlnCoordinateX"].tolist() == [50.25, 150.25, 350.25, 51.25, 151.25, 251.25, 351.25]
    assert particles["rlnAnglePsi"].tolist() == [0, 1, 3, 10, 11, 12, 13]
    # One pixel of the 64 is two of 128: 6 Å.
    assert particles["rlnOriginXAngst"].tolist() == [0, -6, -18, 0, -6, -12, -18]
    assert particles["rlnOriginYAngst"].tolist() == [6] * 3 + [12] * 4
    optics = data["optics"][["rlnImageSize", "rlnImagePixelSize", "rlnVoltage"]]
    assert optics.to_numpy().tolist() == [[SIZE, PIXEL_A, 300]]
    # Every image that is named shows the particle that is meant.
    for name, x in zip(particles["rlnImageName"], particles["rlnCoordinateX"], strict=True):
        at, _, file = name.partition("@")
        with mrcfile.open(tmp_path / file) as stack:
            shown = float(stack.data[int(at) - 1].mean())
        number = int(x - 50) % 100
        assert shown == pytest.approx(number + (x - 50.25 - number) / 1000, abs=1e-4)


def test_the_model_shows_the_averages_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path)
    export_classes(tables(rows), rows, settings, places, 1)
    folder = tmp_path / "classes"
    with mrcfile.open(folder / "run_it001_classes.mrcs") as stack:
        assert stack.is_image_stack()
        assert stack.data[:, 0, 0].tolist() == [2, 7, 9]
        assert stack.voxel_size.x == pytest.approx(6)
    classes = starfile.read(folder / "run_it001_model.star")["model_classes"]
    assert classes["rlnReferenceImage"].tolist()[0] == f"000001@{folder}/run_it001_classes.mrcs"
    assert classes["rlnClassDistribution"].tolist() == pytest.approx([3 / 7, 2 / 7, 2 / 7], abs=1e-6)
    optimiser = starfile.read(folder / "run_it001_optimiser.star", always_dict=True)["optimiser_general"]
    # RELION puts _data.star in the place of _optimiser.star.
    assert optimiser["rlnExperimentalDataStarFile"] == f"{folder}/run_it001_data.star"
    with (folder / "classes.csv").open() as file:
        which = list(csv.DictReader(file))
    assert [(row["class"], row["relion"], row["cryosparc"], row["mark"]) for row in which] == [
        ("2", "1", "0", "good"),
        ("7", "2", "1", ""),
        ("9", "3", "2", "bad"),
    ]


def test_particles_of_bad_classes_are_in_no_table_of_good_ones(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path)
    export_classes(tables(rows), rows, settings, places, 1)
    good = starfile.read(tmp_path / GOOD)["particles"]
    # Five of good or unmarked classes, and the one that has no label.
    assert good["rlnClassNumber"].tolist() == [2, 1, 0, 1, 1, 2]
    assert [name.partition("@")[0] for name in good["rlnImageName"]] == [f"{at:06d}" for at in (1, 2, 3, 2, 3, 4)]
    everything = starfile.read(tmp_path / "particles.star")["particles"]
    assert set(good["rlnImageName"]) < set(everything["rlnImageName"])


def test_cryosparc_tools_finds_the_same_picks_with_classes(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path)
    export_classes(tables(rows), rows, settings, places, 1)
    particles, picks = (Dataset.load(tmp_path / name) for name in ("classes/particles.cs", "picks.cs"))
    assert set(particles["uid"].tolist()) < set(picks["uid"].tolist())
    assert particles["alignments2D/class"].tolist() == [1, 0, 2, 2, 0, 0, 1]
    at = {uid: n for n, uid in enumerate(picks["uid"].tolist())}
    for name in ("location/center_x_frac", "location/micrograph_path", "pick_stats/ncc_score"):
        assert [picks[name][at[uid]] for uid in particles["uid"].tolist()] == list(particles[name])
    assert particles["alignments2D/shift"].tolist()[1] == [-2, 2]
    assert particles["blob/idx"].tolist() == [0, 1, 3, 0, 1, 2, 3]
    templates = Dataset.load(tmp_path / "classes/templates.cs")
    assert templates["blob/path"][0] == str(tmp_path / "classes/templates.mrc")
    assert templates["blob/psize_A"].tolist() == [6, 6, 6]
    with mrcfile.open(tmp_path / "classes/templates.mrc") as stack:
        assert stack.data[:, 0, 0].tolist() == [2, 7, 9]


def test_only_the_newest_grouping_is_kept_and_nothing_of_others_goes(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path)
    made = tables(rows)
    export_classes(made, rows, settings, places, 1)
    theirs = [tmp_path / "classes" / name for name in ("run_it001_mine.star", "notes.txt", "run_it1_data.star")]
    for path in theirs:
        path.write_text("mine")
    export_classes(made, rows, settings, places, 2)
    names = {path.name for path in (tmp_path / "classes").glob("run_it*")}
    kinds = ("classes.mrcs", "data.star", "model.star", "optimiser.star")
    assert names == {f"run_it002_{kind}" for kind in kinds} | {"run_it001_mine.star", "run_it1_data.star"}
    assert [path.read_text() for path in theirs] == ["mine"] * 3


def test_without_any_class_no_set_shows_particles_that_are_gone(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path)
    made = tables(rows)
    export_classes(made, rows, settings, places, 1)
    (tmp_path / "classes/notes.txt").write_text("mine")
    gone = {name: getattr(made, name)[:0] for name in ("micrographs", "particles", "classes", "averages", "halves")}
    assert export_classes(replace(made, **gone), [], settings, places, 1) == [tmp_path / GOOD]
    assert [path.name for path in (tmp_path / "classes").iterdir()] == ["notes.txt"]
    assert "@" not in (tmp_path / GOOD).read_text()


def test_without_stacks_there_are_places_and_no_images(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path, particles={"mrcs": False}, invert_y=("star",))
    export_classes(tables(rows), rows, settings, places, 1)
    particles = starfile.read(tmp_path / "classes/run_it001_data.star")["particles"]
    assert "rlnImageName" not in particles.columns
    assert particles["rlnCoordinateY"].tolist()[0] == pytest.approx(SHAPE[0] - 1 - 25.125)
    assert "blob/path" not in Dataset.load(tmp_path / "classes/particles.cs").fields()
    assert not (tmp_path / GOOD).exists()


def test_formats_that_are_not_asked_for_are_not_written(tmp_path: Path) -> None:
    rows, settings, places = session(tmp_path, formats=("csv",), particles={"mrcs": False})
    assert export_classes(tables(rows), rows, settings, places, 1) == [tmp_path / "classes/classes.csv"]
    empty = tables(rows)
    nothing = replace(empty, classes=empty.classes[:0], averages=empty.averages[:0])
    assert export_classes(nothing, rows, settings, places, 1) == []


def test_labels_follow_their_particles_when_a_threshold_has_moved(tmp_path: Path) -> None:
    rows, _, _ = session(tmp_path)
    path = tmp_path / "classes.h5"
    write_classes(path, tables(rows))
    made = read_classes(path)
    images = rows[0].record.images
    assert images is not None
    fewer = replace(images, x=images.x[[3, 1]], y=images.y[[3, 1]], score=images.score[[3, 1]])
    labels = Labels(made.micrographs, made.particles)
    assert labels.rows(rows[0].labelled, fewer.x, fewer.y, fewer.score)["class"].tolist() == [9, 2]
    assert labels.rows(rows[0].labelled, fewer.x + 1, fewer.y, fewer.score)["class"].tolist() == [0, 0]
    assert labels.rows("none.h5", images.x, images.y, images.score)["class"].tolist() == [0] * 4


def test_labels_are_looked_up_and_not_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of all micrographs for each of them takes minutes in a session of thousands."""
    rows, settings, places = session(tmp_path)
    made, indexed = tables(rows), []
    whole = Labels.__init__

    def counted(self: Labels, *given: Table) -> None:
        indexed.append(len(given[0]))
        whole(self, *given)

    monkeypatch.setattr(Labels, "__init__", counted)
    export_classes(made, rows, settings, places, 1)
    assert indexed == [len(rows)]


def test_a_disk_that_fails_leaves_the_earlier_set_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, settings, places = session(tmp_path)
    export_classes(tables(rows), rows, settings, places, 1)
    before = {path: path.read_bytes() for path in (tmp_path / "classes").iterdir() if path.name.startswith("run_")}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "classes")

    monkeypatch.setattr(class_sets, "write_stack", full)
    with pytest.raises(OSError, match="No space"):
        export_classes(tables(rows), rows, settings, places, 2)
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in (tmp_path / "classes").iterdir() if path.name.endswith(".tmp")]
