"""Moving the threshold of a session: files, records and tables agree afterwards, also under a daemon that writes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters
import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import starfile
import typer
from beamsieve.models.particles.candidates import Candidates
from beamsieve.models.particles.extract import extract
from beamsieve.stream.commands.rethreshold import rethreshold
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result
from beamsieve.stream.sinks.picks import again
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.record import read, read_images
from beamsieve.stream.sinks.picks.settings import PickSettings
from beamsieve.stream.sinks.picks.sink import PickSink
from beamsieve.stream.sinks.picks.threshold import NAME, Moved, read_moved, write_moved
from typer.testing import CliRunner
from typer.testing import Result as Told


def f32(values: list[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


SHAPE = (96, 160)
X = f32([30, 80, 120, 50, 100])
Y = f32([30, 60, 40, 70, 25])
SCORES = f32([0.95, 0.8, 0.65, 0.4, 0.2])
SD = f32([1.0, 1.0, 3.0, 1.0, 1.0])
BOX, SIZE = 24, 16


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def image(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, SHAPE).astype(np.float32)


def cut(data: npt.NDArray[np.float32], x: Any, y: Any) -> npt.NDArray[np.float32]:
    return extract(data, x, y, box_px=BOX, size=SIZE, diameter_px=14.0, invert=True)


def picked(folder: Path, name: str, seed: int, threshold: float = 0.7, **changes: Any) -> Result:
    """A micrograph as the beamline makes it; its file is written too."""
    data = image(seed)
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
    band = (0.5, 2.0)
    candidates = Candidates(X, Y, SCORES, SD)
    found = PickedMicrograph(
        name,
        path,
        SHAPE,
        2.0,
        candidates,
        candidates.picked(threshold, band),
        threshold,
        "tiny",
        "ab" * 32,
        diameter_a=28.0,
        box_px=BOX,
        quality={"mean": 0.0},
        sd_range=band,
        floor=0.1,
    )
    found = replace(found, **changes)
    found = replace(found, particles=cut(data, found.picks.x, found.picks.y), particle_pixel_a=3.0)
    outcome = Outcome.REJECTED if found.skipped else Outcome.ACCEPTED
    return Result(Frame(Key("s", seed), data, 0.0, 0.0), outcome, 1.0, "picker", 1.0, {"micrograph": found})


def sink(tmp_path: Path, **words: Any) -> PickSink:
    plain: dict[str, Any] = {
        "directory": tmp_path / "out",
        "formats": ("star", "csv", "cbox"),
        "particles": {"keep": True, "mrcs": True, "size_px": SIZE},
        "min_free_gb": 0,
    }
    made = PickSink(PickSettings.model_validate(plain | words))
    made.open()
    return made


def session(tmp_path: Path, **words: Any) -> Path:
    """Two micrographs at 0.7 (two picks each) and one that was skipped."""
    made = sink(tmp_path, **words)
    none = np.zeros(5, bool)
    results = [picked(tmp_path / "in", "a.mrc", 1), picked(tmp_path / "in", "g/b.mrc", 2)]
    results.append(picked(tmp_path / "in", "c.mrc", 3, skipped=("ice",), picked=none))
    assert not made.write(results)
    made.close()
    return tmp_path / "out"


def tell(*words: object) -> Told:
    app = typer.Typer()
    app.command()(rethreshold)
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def counts(folder: Path) -> list[int]:
    return [len(starfile.read(folder / "star" / name)) for name in ("a_autopick.star", "g/b_autopick.star")]


def test_all_files_follow_a_higher_threshold(tmp_path: Path) -> None:
    out = session(tmp_path)
    assert counts(out) == [2, 2]
    told = tell(out, "--threshold", 0.9)
    assert told.exit_code == 0, told.output
    assert "3 micrographs: threshold 0.9 gives 2 picks; 0.7 gave 4" in told.output
    assert counts(out) == [1, 1]
    assert len(starfile.read(out / "cbox/a.cbox")["cryolo"]) == 5, "CBOX always has all candidates"
    assert len((out / "picks.csv").read_text().splitlines()) == 3
    record = read(out / "micrographs/a.mrc.h5")
    assert record.micrograph.picked.tolist() == [True, False, False, False, False]
    assert (record.micrograph.threshold, record.configured) == (0.9, 0.7)
    assert [(change.threshold, change.picks) for change in record.changes] == [(0.7, 2), (0.9, 1)]
    assert all(len(change.when) == 20 for change in record.changes)
    with h5py.File(out / "session.h5") as file:
        assert file["particles/images"].shape == (2, SIZE, SIZE)
        assert np.array_equal(file["particles/images"][1], cut(image(2), X[:1], Y[:1])[0])
    assert len(starfile.read(out / "particles.star")["particles"]) == 2
    with mrcfile.open(out / "particles/a.mrcs") as stack:
        assert int(stack.header.nz) == 1
    lines = (out / "micrographs.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["a.mrc", "1", "5", "0.9"],
        ["c.mrc", "0", "5", "0.9"],
        ["g/b.mrc", "1", "5", "0.9"],
    ]


def test_there_and_back_again_is_as_before(tmp_path: Path) -> None:
    out = session(tmp_path)
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.suffix in {".star", ".csv", ".cbox", ".png"}}
    images = read_images(out / "micrographs/a.mrc.h5")
    assert tell(out, "-t", 0.15).exit_code == 0
    assert counts(out) == [4, 4]
    assert tell(out, "-t", 0.7).exit_code == 0
    after = {path: path.read_bytes() for path in before}
    assert before == after
    again_ = read_images(out / "micrographs/a.mrc.h5")
    assert images is not None
    assert again_ is not None
    assert np.array_equal(images.pixels, again_.pixels)


def test_new_picks_are_cut_out_of_their_micrograph(tmp_path: Path) -> None:
    out = session(tmp_path)
    told = tell(out, "-t", 0.3)
    assert told.exit_code == 0
    assert "no image" not in told.output
    images = read_images(out / "micrographs/g/b.mrc.h5")
    assert images is not None
    which = [0, 1, 3]
    assert images.x.tolist() == X[which].tolist()
    assert np.array_equal(images.pixels, cut(image(2), X[which], Y[which]))


def test_what_cannot_be_cut_out_is_said(tmp_path: Path) -> None:
    out = session(tmp_path)
    os.remove(tmp_path / "in/a.mrc")
    with mrcfile.new(tmp_path / "in/g/b.mrc", overwrite=True) as file:
        file.set_data(np.zeros((10, 10), np.float32))
    told = tell(out, "-t", 0.3)
    assert told.exit_code == 0
    assert "2 picks in 2 micrographs have no image" in told.output
    assert "pictures that could not be drawn again were removed" in told.output
    assert not (out / "pictures/a.png").exists()
    assert (out / "pictures/c.png").exists(), "a skipped one has no picks to show"
    images = read_images(out / "micrographs/a.mrc.h5")
    assert images is not None
    assert images.x.tolist() == X[:2].tolist()
    assert counts(out) == [3, 3]
    stacked = starfile.read(out / "particles.star")["particles"]
    assert len(stacked) == 4
    assert set(stacked["rlnCoordinateX"]) == {30.0, 80.0}
    with h5py.File(out / "session.h5") as file:
        assert len(file["picks"]) == 6
        assert file["particles/x"][()].tolist() == [30, 80, 30, 80]


def test_movies_are_not_summed_without_their_gain(tmp_path: Path) -> None:
    out = session(tmp_path)
    with mrcfile.new(tmp_path / "in/a.mrc", overwrite=True) as file:
        file.set_data(np.stack([image(1), image(1)]))
        file.set_image_stack()
    assert "1 picks in 1 micrographs have no image" in tell(out, "-t", 0.3).output


def test_the_band_can_be_moved_too(tmp_path: Path) -> None:
    out = session(tmp_path)
    assert tell(out, "-t", 0.6, "--sd", 0.5, 4).exit_code == 0
    assert counts(out) == [3, 3]
    assert read(out / "micrographs/a.mrc.h5").micrograph.sd_range == (0.5, 4.0)
    assert tell(out, "-t", 0.3).exit_code == 0
    assert counts(out) == [4, 4], "the band stays"
    assert tell(out, "-t", 0.3, "--sd", 2, 1).exit_code == 2


def test_images_stay_with_their_picks(tmp_path: Path) -> None:
    out = session(tmp_path)
    assert tell(out, "-t", 0.6, "--sd", 0.5, 4).exit_code == 0
    os.remove(tmp_path / "in/a.mrc")
    assert "no image" not in tell(out, "-t", 0.6, "--sd", 2, 4).output
    images = read_images(out / "micrographs/a.mrc.h5")
    assert images is not None
    assert images.score.tolist() == SCORES[2:3].tolist()
    assert np.array_equal(images.pixels, cut(image(1), X[2:3], Y[2:3]))


def test_a_further_format_is_written(tmp_path: Path) -> None:
    out = session(tmp_path)
    assert tell(out, "-t", 0.7, "--format", "box", "--no-pictures").exit_code == 0
    assert len((out / "box/g/b.box").read_text().splitlines()) == 2
    assert not (out / "pictures/a.png").exists()
    told = tell(out, "-t", 0.9)
    assert told.exit_code == 0
    assert len((out / "box/g/b.box").read_text().splitlines()) == 1, "what is there never shows old picks"
    told = tell(out, "-t", 0.7, "--format", "bx")
    assert (told.exit_code, "--format bx: is not one of star, box" in told.output) == (2, True)


def test_a_dry_run_shows_a_curve_and_writes_nothing(tmp_path: Path) -> None:
    out = session(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    told = tell(out, "-t", 0.35, "--dry-run", "--json", tmp_path / "told.json")
    assert told.exit_code == 0
    assert "threshold 0.35 would give 6 picks; 0.7 gave 4" in told.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    found = json.loads((tmp_path / "told.json").read_text())
    curve = {step["threshold"]: (step["picks"], step["median"]) for step in found["curve"]}
    assert curve[0.1] == (8, 4.0)
    assert curve[0.35] == (6, 3.0)
    assert curve[0.7] == (4, 2.0)
    assert curve[0.95] == (2, 1.0)
    assert min(curve) == 0.1, "below the floor nothing is known"
    assert (found["before"], found["after"], found["dry_run"]) == (4, 6, True)
    assert {one["name"]: one["after"] for one in found["micrographs"]} == {"a.mrc": 3, "g/b.mrc": 3, "c.mrc": 0}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "-t", "0.5"], 2, "nowhere: no such folder"),
        ([".", "-t", "0.5"], 2, "holds no micrographs"),
        (["out", "-t", "0.05"], 2, "--threshold 0.05: candidates below 0.1 were not kept"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    session(tmp_path)
    monkeypatch.chdir(tmp_path)
    told = tell(*words)
    assert told.exit_code == code
    assert message in told.output
    assert told.output.count("\n") == 1


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    out = session(tmp_path)
    path = out / "micrographs/a.mrc.h5"
    path.write_bytes(path.read_bytes()[:500])
    told = tell(out, "-t", 0.5)
    assert (told.exit_code, told.output.count("\n")) == (1, 1)
    assert "a.mrc.h5: is no record of a micrograph, or damaged" in told.output
    assert counts(out) == [2, 2], "nothing was changed"


def test_a_session_without_settings_goes_by_its_files(tmp_path: Path) -> None:
    out = session(tmp_path)
    os.remove(out / "settings.json")
    assert tell(out, "-t", 0.9).exit_code == 0
    assert counts(out) == [1, 1]
    with mrcfile.open(out / "particles/a.mrcs") as stack:
        assert int(stack.header.nz) == 1
    (out / "settings.json").write_text("{")
    told = tell(out, "-t", 0.9)
    assert (told.exit_code, "settings.json: cannot be used" in told.output) == (1, True)


# With a daemon


def test_a_running_daemon_follows(tmp_path: Path) -> None:
    out = session(tmp_path)
    running = sink(tmp_path)
    assert tell(out, "-t", 0.3).exit_code == 0
    assert not running.write([picked(tmp_path / "in", "d.mrc", 4)])
    running.close()
    record = read(out / "micrographs/d.mrc.h5")
    assert record.micrograph.picked.tolist() == [True, True, False, True, False]
    assert [(change.threshold, change.picks) for change in record.changes] == [(0.7, 2), (0.3, 3)]
    images = read_images(out / "micrographs/d.mrc.h5")
    assert images is not None
    assert np.array_equal(images.pixels, cut(image(4), X[[0, 1, 3]], Y[[0, 1, 3]]))
    assert len((out / "picks.csv").read_text().splitlines()) == 1 + 3 * 3


def test_a_daemon_that_is_configured_anew_goes_by_its_configuration(tmp_path: Path) -> None:
    out = session(tmp_path)
    assert tell(out, "-t", 0.9).exit_code == 0
    other = sink(tmp_path)
    assert not other.write([picked(tmp_path / "in", "d.mrc", 4, threshold=0.6)])
    assert not other.write([picked(tmp_path / "in", "e.mrc", 5, model_sha256="cd" * 32)])
    other.close()
    assert read(out / "micrographs/d.mrc.h5").micrograph.threshold == 0.6
    assert read(out / "micrographs/e.mrc.h5").micrograph.threshold == 0.7


def test_a_skipped_micrograph_stays_without_picks_in_a_running_daemon(tmp_path: Path) -> None:
    out = session(tmp_path)
    assert tell(out, "-t", 0.3).exit_code == 0
    running = sink(tmp_path)
    none = np.zeros(5, bool)
    assert not running.write([picked(tmp_path / "in", "d.mrc", 4, skipped=("ice",), picked=none)])
    assert not read(out / "micrographs/d.mrc.h5").micrograph.picked.any()


def test_what_comes_in_meanwhile_is_treated_too(tmp_path: Path) -> None:
    """A daemon with another configured threshold writes while the command works."""
    out = session(tmp_path)
    running = sink(tmp_path)
    seen: list[str] = []

    def progress(what: str, done: int, of: int) -> None:
        if not seen:
            assert not running.write([picked(tmp_path / "in", "late.mrc", 9, threshold=0.6)])
        seen.append(what)

    settings = PickSettings.model_validate({**running.settings.model_dump()})
    found = again.rethreshold(out, settings, 0.9, None, progress)
    assert [recount.name for recount in found] == ["a.mrc", "c.mrc", "g/b.mrc", "late.mrc"]
    assert read(out / "micrographs/late.mrc.h5").micrograph.threshold == 0.9
    assert {(m.configured, m.threshold) for m in read_moved(out)} == {(0.7, 0.9), (0.6, 0.9)}


def test_a_damaged_threshold_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = session(tmp_path)
    (out / NAME).write_text("[1]")
    running = sink(tmp_path)
    assert not running.write([picked(tmp_path / "in", "d.mrc", 4)])
    assert "threshold.json: damaged" in caplog.text
    assert read(out / "micrographs/d.mrc.h5").micrograph.threshold == 0.7
    told = tell(out, "-t", 0.9)
    assert (told.exit_code, "threshold.json: damaged" in told.output) == (1, True)


def test_moves_are_kept_for_others(tmp_path: Path) -> None:
    out = session(tmp_path)
    other = Moved("ef" * 32, 0.4, 0.45, (0.0, float("inf")), "2026-11-20T08:00:00Z")
    write_moved(out, [other])
    assert tell(out, "-t", 0.9).exit_code == 0
    moved = read_moved(out)
    assert other in moved
    assert [(m.configured, m.threshold, m.sd_range) for m in moved if m != other] == [(0.7, 0.9, None)]
