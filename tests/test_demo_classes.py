"""How the demo compares the 2-D classes with what was simulated, and how it waits for them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.commands import demo_classes, demo_picks
from beamsieve.stream.sinks.picks.classes_file import (
    CLASS,
    MICROGRAPH,
    NAME,
    PARTICLE,
    ClassTables,
    DenoisedBy,
    write_classes,
)

Labelled = dict[str, list[tuple[float, float, int]]]

#: Per micrograph: x, y, and the class; 0 is none.
CLASSIFIED: Labelled = {
    "Images-Disc1/GridSquare_1/Data/a.mrc": [(10, 10, 1), (50, 10, 1), (90, 10, 2), (10, 90, 2), (50, 90, 0)],
    "Images-Disc1/GridSquare_1/Data/b.mrc": [(10, 10, 3), (50, 50, 3)],
    "gone.mrc": [(10, 10, 1)],
}
TRUE: Labelled = {
    "elsewhere/a.mrc": [(51, 11, 1), (12, 9, 1), (88, 10, 2), (10, 91, 3), (50, 90, 1)],
    "elsewhere/b.mrc": [(50, 52, 2), (40, 10, 2)],
}


def classified(directory: Path, classified: Labelled) -> None:
    """A session's ``classes.h5``."""
    micrographs = np.zeros(len(classified), MICROGRAPH)
    particles: list[tuple[Any, ...]] = []
    for at, (name, rows) in enumerate(classified.items()):
        micrographs[at]["name"], micrographs[at]["file"] = name, name + ".h5"
        micrographs[at]["first"], micrographs[at]["count"] = len(particles), len(rows)
        particles += [(at, x, y, 0.9, number, 0.0, (0.0, 0.0), 0.5, 0, 0) for x, y, number in rows]
    numbers = sorted({number for rows in classified.values() for *_, number in rows} - {0})
    classes = np.array([(n, 1, b"", 0.0, 0.0, 20.0) for n in numbers], CLASS)
    k = len(numbers)
    tables = ClassTables(
        pixel_a=6.0,
        edge=64,
        micrographs=micrographs,
        particles=np.array(particles, PARTICLE),
        models=(DenoisedBy("classes2d-general", "0" * 64, 0.0),),
        classes=classes,
        averages=np.zeros((k, 64, 64), np.float32),
        halves=np.zeros((k, 2, 64, 64), np.float32),
        centres=np.zeros((k, 3, 4), np.complex64),
    )
    write_classes(directory / NAME, tables)


def simulated(path: Path, true: Labelled) -> Path:
    """The emulator's file of truth."""
    rows = [(name, x, y, "particle", view) for name, many in true.items() for x, y, view in many]
    with path.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([("micrograph", "x", "y", "kind", "view"), *rows])
    return path


def test_a_particle_counts_for_the_view_that_was_simulated_where_it_was_picked(tmp_path: Path) -> None:
    classified(tmp_path, CLASSIFIED)
    truth = simulated(tmp_path / "truth.csv", TRUE)
    (tmp_path / "classes.png").write_bytes(b"")
    found = demo_classes.compare(tmp_path, truth, 5.0)
    assert found == {
        "classes": 3,
        "particles": 7,
        "unlabelled": 1,
        # Of b only the second is near a true particle, and of the third micrograph nothing is known.
        "matched": 5,
        "views": 3,
        # Class 1 shows view 1 twice, class 2 views 2 and 3, class 3 view 2.
        "purity": pytest.approx(4 / 5),
        "homogeneity": pytest.approx(1 - (2 / 5 * np.log(2)) / -(2 * 0.4 * np.log(0.4) + 0.2 * np.log(0.2))),
        "rand": pytest.approx(0.375),
        "picture": str(tmp_path / "classes.png"),
    }
    text = "\n".join(demo_classes.describe(found | {"pick_to_class_median_s": 1.26}))
    assert "3 classes of 7 particles; 80.0 % of the 5 true ones are in a class of their own view" in text
    assert "3 views were simulated; homogeneity 0.74" in text
    assert "1.3 s from pick to class (median)" in text
    assert text.endswith("classes.png")


def test_classes_that_are_the_views_score_one_and_others_do_not(tmp_path: Path) -> None:
    places = [(20.0 * i, 40.0 * j, 1 + (i + j) % 3) for i in range(8) for j in range(8)]
    truth = simulated(tmp_path / "truth.csv", {"a.mrc": places})
    for number, purity, rand in ((lambda view: 7 - view, 1.0, 1.0), (lambda view: 1, 22 / 64, 0.0)):
        classified(tmp_path, {"a.mrc": [(x + 1, y - 1, number(view)) for x, y, view in places]})
        found = demo_classes.compare(tmp_path, truth, 3.0)
        assert (found["matched"], found["views"]) == (64, 3)
        assert (found["purity"], found["rand"]) == (pytest.approx(purity), pytest.approx(rand))


def test_where_any_view_may_be_there_is_nothing_to_agree_with(tmp_path: Path) -> None:
    classified(tmp_path, CLASSIFIED)
    truth = simulated(tmp_path / "truth.csv", {name: [(x, y, 0) for x, y, _ in rows] for name, rows in TRUE.items()})
    found = demo_classes.compare(tmp_path, truth, 5.0)
    assert (found["purity"], found["rand"], found["matched"], found["picture"]) == (None, None, 0, None)
    assert demo_classes.describe(found) == ["classes     3 classes of 7 particles"]


def test_nothing_classified_and_a_damaged_file_are_said(tmp_path: Path) -> None:
    truth = simulated(tmp_path / "truth.csv", TRUE)
    assert demo_classes.describe(demo_classes.compare(tmp_path, truth, 5.0)) == [
        "classes     none: too few particles came"
    ]
    (tmp_path / NAME).write_bytes(b"no HDF5")
    (line,) = demo_classes.describe(demo_classes.compare(tmp_path, truth, 5.0))
    assert str(tmp_path / NAME) in line


class Daemon:
    """A daemon whose metrics follow a script, by seconds of a clock that only sleeping moves."""

    def __init__(self, files_s: float, classified_s: float, picked: int) -> None:
        self.now, self._files_s, self._classified_s, self._picked = 0.0, files_s, classified_s, picked

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def sum_of(self, port: int, *names: str) -> float | None:
        if names == ("beamsieve_particles",):
            return self._picked
        if names == ("beamsieve_class_waiting_particles",):
            return self._picked * (self.now < self._classified_s)
        assert names == ("beamsieve_waiting_files", "beamsieve_frames_in_flight")
        return float(self.now < self._files_s)


@pytest.mark.parametrize(
    ("files_s", "classified_s", "picked", "ended"),
    [
        (3.0, 0.0, 500, 5.0),
        (3.0, 15.0, 500, 15.0),
        # Too few for any class.
        (3.0, 1000.0, 80, 5.0),
        (3.0, 1000.0, 500, 40.0),
        (1000.0, 0.0, 500, 40.0),
    ],
)
def test_the_demo_waits_for_classes_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, files_s: float, classified_s: float, picked: int, ended: float
) -> None:
    daemon: Any = Daemon(files_s, classified_s, picked)
    monkeypatch.setattr(demo_picks, "time", daemon)
    monkeypatch.setattr(demo_picks, "sum_of", daemon.sum_of)
    demo_picks.drained(1, lambda: False)
    assert daemon.now == pytest.approx(ended, abs=0.6)
