"""The emulated reconstruction program: what it drops, how untidily, and that the truth beside it is true."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import typer
from beamsieve.models.tomograms.scene import Kind, SceneOptions
from beamsieve.models.tomograms.simulator import Simulated, simulate
from beamsieve.stream.commands.emulate_tomograms import emulate_tomograms
from beamsieve.stream.emulators.micrographs import Clock
from beamsieve.stream.emulators.tomograms import MANNERS, Session, TomogramWriter
from beamsieve.stream.formats.volumes import open_volume
from typer.testing import CliRunner

TINY = SceneOptions(
    shape=(16, 24, 28),
    margin=4,
    vesicles=(1, 1),
    vesicle_nm=(8, 9),
    sheets=(0, 0),
    carbon=0.0,
    kinds=(Kind("apoferritin", "globule", (200, 200)),),
)


class FakeClock(Clock):
    """Time that passes only when somebody waits; the folder is looked at each time."""

    def __init__(self, look: Callable[[float], None] = lambda _: None) -> None:
        self.time, self._look = 0.0, look

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, stop: threading.Event) -> None:
        assert seconds > 0
        self.time += seconds
        self._look(self.time)


@lru_cache
def make(number: int) -> Simulated:
    return simulate(50 + number, TINY)


def run(session: Session, look: Callable[[float], None] = lambda _: None) -> TomogramWriter:
    writer = TomogramWriter(session, make, clock=FakeClock(look))
    writer.run(threading.Event())
    return writer


def voxels(path: Path) -> np.ndarray[Any, Any]:
    with mrcfile.open(path) as file:
        return np.array(file.data)


def test_a_tomogram_grows_in_pieces_and_its_file_says_what_it_is(tmp_path: Path) -> None:
    sizes: dict[str, list[int]] = {}

    def look(now: float) -> None:
        for path in tmp_path.iterdir():
            sizes.setdefault(path.name, []).append(path.stat().st_size)

    writer = run(Session(tmp_path, count=2, every_s=10.0), look)
    assert writer.dropped.written == ["TS_0001.mrc", "TS_0002.mrc"]
    assert len(set(sizes["TS_0001.mrc"])) >= 10
    assert sizes["TS_0001.mrc"] == sorted(sizes["TS_0001.mrc"])
    with mrcfile.open(tmp_path / "TS_0001.mrc") as file:
        assert file.is_volume()
        assert float(file.voxel_size.x) == pytest.approx(14.2, rel=1e-4)
        np.testing.assert_array_equal(file.data, make(1).data)
    with open_volume(tmp_path / "TS_0002.mrc") as volume:
        assert volume.shape == (16, 24, 28)
        assert volume.voxel_a == pytest.approx(14.2, rel=1e-4)


def test_truth_is_beside_it(tmp_path: Path) -> None:
    out, truth = tmp_path / "out", tmp_path / "truth"
    writer = run(Session(out, count=1, every_s=0, truth=truth, clean=True))
    made = make(1)
    np.testing.assert_array_equal(voxels(truth / "TS_0001_labels.mrc"), made.labels)
    np.testing.assert_array_equal(voxels(truth / "TS_0001_hidden.mrc"), made.hidden)
    np.testing.assert_array_equal(voxels(truth / "TS_0001_clean.mrc"), made.clean)
    classes = json.loads((truth / "classes.json").read_text())
    assert [classes[str(value)] for value in range(len(classes))] == list(made.classes)
    with (truth / "TS_0001_particles.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(made.particles) > 0
    place = [float(rows[0][axis]) for axis in "xyz"]
    np.testing.assert_allclose(place, made.particles.xyz[0], atol=0.01)
    assert rows[0]["class"] in made.classes
    report = writer.dropped.report()
    assert sum(report["particles"].values()) == len(rows)
    assert sorted(path.name for path in out.iterdir()) == ["TS_0001.mrc"]


def test_each_manner_of_being_broken(tmp_path: Path) -> None:
    out, truth = tmp_path / "out", tmp_path / "truth"
    whole = 1024 + 4 * make(1).data.size
    seen: dict[str, set[int]] = {}

    def look(now: float) -> None:
        for path in out.iterdir():
            seen.setdefault(path.name, set()).add(path.stat().st_size)

    session = Session(out, count=9, every_s=8.0, hostile=tuple(MANNERS), change_s=3.0, truth=truth)
    report = run(session, look).dropped.report()
    names = {manner: report[manner] for manner in MANNERS}
    assert all(len(of) == 1 for of in names.values())
    (changed,), (cut,), (allocated,), (renamed,) = names.values()
    np.testing.assert_array_equal(voxels(out / changed), make(2 + 1_000_000).data)
    np.testing.assert_array_equal(voxels(truth / f"{changed[:-4]}_labels.mrc"), make(2 + 1_000_000).labels)
    assert (out / cut).stat().st_size < 0.7 * whole
    assert not (truth / f"{cut[:-4]}_labels.mrc").exists()
    assert seen[allocated] == {whole}
    np.testing.assert_array_equal(voxels(out / allocated), make(6).data)
    assert seen[renamed] == {whole}
    assert len(seen[renamed + ".tmp"]) > 5
    assert not (out / (renamed + ".tmp")).exists()


@pytest.mark.parametrize(("stored", "kind"), [("int16", np.int16), ("int8", np.int8)])
def test_whole_numbers_are_stored_too(tmp_path: Path, stored: Any, kind: type) -> None:
    run(Session(tmp_path, count=1, every_s=0, voxels=stored, suffix=".rec"))
    found = voxels(tmp_path / "TS_0001.rec")
    assert found.dtype == kind
    assert np.corrcoef(found.ravel(), make(1).data.ravel())[0, 1] > 0.99


def test_a_stop_ends_it_after_the_file_in_work(tmp_path: Path) -> None:
    stop = threading.Event()

    def look(now: float) -> None:
        if (tmp_path / "TS_0002.mrc").exists():
            stop.set()

    TomogramWriter(Session(tmp_path, count=0, every_s=5.0), make, clock=FakeClock(look)).run(stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["TS_0001.mrc", "TS_0002.mrc"]
    assert (tmp_path / "TS_0002.mrc").stat().st_size == 1024 + 4 * make(2).data.size


def test_sessions_that_cannot_be(tmp_path: Path) -> None:
    session = Session(tmp_path)
    with pytest.raises(ValueError, match="melted"):
        replace(session, hostile=("melted",))
    with pytest.raises(ValueError, match="need 3"):
        replace(session, count=2, hostile=("changed", "truncated"))
    with pytest.raises(ValueError, match="name another"):
        replace(session, truth=tmp_path / "." / "")


app = typer.Typer()
app.command()(emulate_tomograms)


def test_the_command_drops_what_was_asked_for(tmp_path: Path) -> None:
    out, told, truth = tmp_path / "out", tmp_path / "told.json", tmp_path / "truth"
    words = f"--out {out} --truth {truth} --json {told} --count 2 --every 0 --shape 16x32x32 --voxel-a 20 --snr 0.5"
    found = CliRunner().invoke(app, [*words.split(), "--classes", "membrane,gold", "--renamed", "--seed", "8"])
    assert found.exit_code == 0, found.output
    report = json.loads(told.read_text())
    assert report["written"] == 2
    assert report["renamed"] == ["TS_0001.mrc", "TS_0002.mrc"]
    assert report["shape"] == [16, 32, 32]
    options = SceneOptions((16, 32, 32), 20.0, 0.5, kinds=(), carbon=0.0)
    np.testing.assert_array_equal(voxels(out / "TS_0002.mrc"), simulate(10, options).data)
    assert set(np.unique(voxels(truth / "TS_0001_labels.mrc"))) <= {0, 1, 5}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--shape 3x3", "--shape 3x3"),
        ("--classes dragons", "dragons"),
        ("--map ribosome", "CLASS=MAP"),
        ("--map ribosome=/nowhere.mrc", "nowhere.mrc"),
        ("--hostile melted", "melted"),
        ("--clean", "--truth"),
        ("--snr -1", "snr"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path: Path, words: str, told: str) -> None:
    found = CliRunner().invoke(app, ["--out", str(tmp_path / "out"), *words.split()])
    assert found.exit_code == 2
    assert told in found.output
    assert len(found.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
