"""classes.h5, and what the session's tables say of classes."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.sinks.picks.classes_file import (
    CLASS,
    MICROGRAPH,
    PARTICLE,
    ClassTables,
    DenoisedBy,
    labels_in,
    read_classes,
    read_labels,
    write_classes,
)
from beamsieve.stream.sinks.picks.particles import open_particles
from beamsieve.stream.sinks.picks.settings import PickSettings
from beamsieve.stream.sinks.picks.sink import PickSink
from beamsieve.tests.class_sessions import SIZE, Session, particles, write_record

NAMES = ("grid/ü 1.mrc", 'b, "c".mrc')


def tables(counts: tuple[int, ...] = (2, 3), k: int = 2) -> ClassTables:
    random = np.random.default_rng(0)
    micrographs = np.zeros(len(counts), MICROGRAPH)
    firsts = np.cumsum([0, *counts])
    for at, count in enumerate(counts):
        micrographs[at] = (NAMES[at], f"{NAMES[at]}.h5", firsts[at], count, (1, 2, 3), 32, 4.0)
    rows = np.zeros(sum(counts), PARTICLE)
    rows["micrograph"] = np.repeat(np.arange(len(counts)), counts)
    rows["x"] = [at for count in counts for at in range(count)]
    rows["class"], rows["rejected"] = np.arange(len(rows)) % 3, np.arange(len(rows)) % 2
    rows["shift"] = random.normal(size=(len(rows), 2))
    classes = np.zeros(k, CLASS)
    classes["id"], classes["mark"], classes["resolution_a"] = np.arange(1, k + 1), b"bad", np.nan
    shape = (k, 4, 5)
    return ClassTables(
        pixel_a=2.5,
        edge=64,
        micrographs=micrographs,
        particles=rows,
        models=(DenoisedBy("one", "a" * 64, 5.0, "/models/one.pt"),),
        classes=classes,
        averages=random.normal(size=(k, 64, 64)).astype(np.float32),
        halves=random.normal(size=(k, 2, 64, 64)).astype(np.float32),
        centres=(random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64),
        events=((7.5, "Class 3 is new – ü"),),
        written=9.0,
        facts={"went": 3, "since": {"1": 0.5}},
        state={"online_numbers": np.arange(6)},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    given = tables()
    path = tmp_path / "classes.h5"
    write_classes(path, given)
    found = read_classes(path)
    for name in ("pixel_a", "edge", "models", "events", "written", "facts"):
        assert getattr(found, name) == getattr(given, name), name
    for name in ("micrographs", "particles", "averages", "halves", "centres"):
        assert np.array_equal(getattr(found, name), getattr(given, name)), name
    assert found.classes.tobytes() == given.classes.tobytes()
    assert np.array_equal(found.state["online_numbers"], np.arange(6))
    with h5py.File(path) as file:
        assert file.attrs["layout"] == "beamsieve classes 1"
        assert file["centres"].shape == (2, 4, 5, 2)


def test_a_session_without_particles_or_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.h5", replace(tables((), 0), models=()))
    found = read_classes(tmp_path / "classes.h5")
    assert (len(found.particles), len(found.classes), found.averages.shape) == (0, 0, (0, 64, 64))


@pytest.mark.parametrize("what", ["nothing", "text", "other", "cut", "counts", "model", "classes"])
def test_a_file_that_is_none_is_named_with_what_to_do(tmp_path: Path, what: str) -> None:
    path, given = tmp_path / "classes.h5", tables()
    if what == "counts":
        given.micrographs["count"][0] = 1
    if what == "model":
        given.particles["model"][1] = 1
    if what == "classes":
        given = replace(given, averages=given.averages[:1])
    write_classes(path, given)
    if what == "text":
        path.write_text("classes")
    if what == "other":
        with h5py.File(path, "a") as file:
            file.attrs["layout"] = "beamsieve picks 1"
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-3000])
    if what == "nothing":
        path.unlink()
        with pytest.raises(FileNotFoundError):
            read_classes(path)
        assert read_labels(tmp_path) is None
        return
    with pytest.raises(BadData, match="remove it to classify anew"):
        read_classes(path)


def test_labels_are_found_by_place_and_score_whatever_became_of_the_record(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.h5", tables())
    labels = read_labels(tmp_path)
    assert labels is not None
    assert len(labels) == 5
    file, zero = f"{NAMES[1]}.h5", np.zeros(3, np.float32)
    number, rejected = labels.of(file, np.arange(3, dtype=np.float32), zero, zero)
    assert number.tolist() == [2, 0, 1]
    assert rejected.tolist() == [0, 1, 0]
    x = np.array([2, 9, 0, 1], np.float32)
    number, rejected = labels.of(file, x, np.zeros(4, np.float32), np.zeros(4, np.float32))
    assert number.tolist() == [1, 0, 2, 0]
    assert rejected.tolist() == [0, 0, 0, 1]
    assert labels.of(file, zero + 1, zero, zero + 0.5)[0].tolist() == [0, 0, 0]
    assert labels.of("unknown.h5", zero, zero, zero)[0].tolist() == [0, 0, 0]


def test_a_damaged_file_costs_the_tables_only_the_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "classes.h5").write_bytes(b"nothing")
    assert labels_in(tmp_path) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_particles_of_a_record_are_read_some_at_a_time(tmp_path: Path) -> None:
    images, _ = particles(10, 1)
    path = write_record(tmp_path, "a.mrc", images)
    with open_particles(path) as found:
        assert (found.name, len(found), found.imaged.size) == ("a.mrc", 10, SIZE)
        assert np.array_equal(found.read(np.arange(3, 6)), images[3:6])
        assert np.array_equal(found.read(np.array([0, 4, 9])), images[[0, 4, 9]])
        assert found.read(np.array([], np.intp)).shape == (0, SIZE, SIZE)
        assert 1 <= found.at_once * SIZE * SIZE * 4 <= 32 << 20
    with pytest.raises(BadData, match="gone"), open_particles(tmp_path / "gone.h5"):
        pass


def test_the_tables_of_a_session_say_which_particle_is_in_which_class(tmp_path: Path) -> None:
    """As the sink writes them, a record more than is classified, and again when only a mark changed."""
    for at in range(3):
        write_record(tmp_path, f"m{at}.mrc", particles(30, at)[0])
    session = Session(tmp_path, formats=("csv",)).begin()
    session.settle()
    write_record(tmp_path, "m3.mrc", particles(5, 3)[0])
    sink = PickSink(PickSettings(directory=tmp_path, formats=("csv",), tables_every_s=5), clock=session.clock)
    sink.open()
    sink.flush()
    labels = session.labels()
    wanted = np.concatenate([*(labels[f"m{at}.mrc.h5"] for at in range(3)), np.zeros(5, int)])
    with h5py.File(tmp_path / "session.h5") as file:
        group = file["particles"]
        assert len(group["images"]) == len(group["class"]) == len(group["rejected"]) == 95
        assert group["class"][()].tolist() == wanted.tolist()
        assert not group["rejected"][()].any()
    with (tmp_path / "picks.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["class"]) for row in rows] == wanted.tolist()

    view = session.keeping.current().classes[0]
    session.marks.put(view.id, "bad", "Ana", view.since)
    session.clock.now += 100
    session.keeping.keep_up()
    sink.flush()
    with h5py.File(tmp_path / "session.h5") as file:
        assert int(file["particles/rejected"][()].sum()) == view.count
    with (tmp_path / "picks.csv").open(newline="") as lines:
        bad = [int(row["class"]) for row in csv.DictReader(lines) if row["rejected"] == "1"]
    assert bad == [view.id] * view.count
    session.end()


def test_without_classes_the_tables_are_as_before(tmp_path: Path) -> None:
    write_record(tmp_path, "m.mrc", particles(4, 0)[0])
    sink = PickSink(PickSettings(directory=tmp_path, formats=("csv",)))
    sink.open()
    sink.close()
    assert (tmp_path / "picks.csv").read_text().splitlines()[0] == "micrograph,x,y,score"
    with h5py.File(tmp_path / "session.h5") as file:
        assert "class" not in file["particles"]
