"""The sink for picks: every micrograph's files are whole, on the right pixel, once; revisions and tables keep up."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters
import imagecodecs
import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import starfile
from beamsieve.models.particles.candidates import Candidates
from beamsieve.stream.flow.frame import Failure, Frame, Key, Outcome, Result, RunEnd, RunStart
from beamsieve.stream.sinks.picks import files as pick_files
from beamsieve.stream.sinks.picks import record as record_module
from beamsieve.stream.sinks.picks import sink as sink_module
from beamsieve.stream.sinks.picks.files import keep_as, lock, sweep, whole, write_whole
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.picture import draw, encode
from beamsieve.stream.sinks.picks.places import Places, safe, stem_of
from beamsieve.stream.sinks.picks.record import read, read_images
from beamsieve.stream.sinks.picks.settings import FORMATS, PickSettings, noted_settings
from beamsieve.stream.sinks.picks.sink import PickSink
from beamsieve.stream.sinks.picks.tables import Pace
from cryosparc.dataset import Dataset
from pydantic import ValidationError

SHAPE = (48, 96)
BRIGHT = [(63, 11), (20, 33), (44, 20), (70, 40)]  # x, y; the last is a candidate, no pick
SCORES = (0.9, 0.8, 0.7, 0.3)
SIZE = 8


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bringing each of a thousand small files to the disk would take these tests a minute."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Told:
    def __init__(self) -> None:
        self.events: list[str] = []

    def event(self, kind: str, n: int = 1) -> None:
        self.events += [kind] * n


def f32(values: list[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def pixels() -> npt.NDArray[np.float32]:
    image = np.zeros(SHAPE, np.float32)
    for x, y in BRIGHT:
        image[y, x] = 1
    return image


def micrograph(name: str = "g/a.mrc", threshold: float = 0.5, **changes: Any) -> PickedMicrograph:
    x, y = (np.array(v, np.float32) for v in zip(*BRIGHT, strict=True))
    candidates = Candidates(x, y, np.array(SCORES, np.float32), np.ones(4, np.float32))
    picked = candidates.picked(threshold)
    plain = PickedMicrograph(
        name,
        Path("/data") / name,
        SHAPE,
        1.5,
        candidates,
        picked,
        threshold,
        "tiny",
        "ab" * 32,
        diameter_a=18.0,
        box_px=16,
        quality={"mean": 10.0, "ice": 0.25},
        info={"voltage_kv": 300.0, "acquired": "2026-11-20T08:00:00Z", "grid_square": "7"},
    )
    return replace(plain, **changes)


def with_particles(found: PickedMicrograph) -> PickedMicrograph:
    n = int(found.picked.sum())
    particles = np.arange(n * SIZE * SIZE, dtype=np.float32).reshape(n, SIZE, SIZE) / np.float32(7)
    return replace(found, particles=particles, particle_pixel_a=3.0)


def result(found: PickedMicrograph, number: int = 0, data: npt.NDArray[Any] | None = None) -> Result:
    frame = Frame(Key("session", number), pixels() if data is None else data, 0.0, 0.0)
    outcome = Outcome.REJECTED if found.skipped else Outcome.ACCEPTED
    return Result(frame, outcome, 1.0, "picker", 1.0, {"micrograph": found, "seconds": {"score": 0.5, "read": 0.25}})


def settings(folder: Path, **words: Any) -> PickSettings:
    return PickSettings.model_validate({"directory": folder, "formats": FORMATS, "min_free_gb": 0, **words})


def session(folder: Path, *found: PickedMicrograph, **words: Any) -> PickSink:
    """A session with these micrographs, closed."""
    sink = PickSink(settings(folder, **words))
    sink.open()
    sink.start(RunStart("session"))
    for at, one in enumerate(found):
        assert sink.write([result(one, at)]) == []
    sink.end(RunEnd("session"))
    sink.close()
    assert sink.lost() == ()
    return sink


def bright(columns: Any, rows: Any, count: int = 3, image: npt.NDArray[np.float32] | None = None) -> None:
    """These positions are ``count`` different bright pixels."""
    columns, rows = (np.asarray(values, float) for values in (columns, rows))
    at = list(zip(columns.tolist(), rows.tolist(), strict=True))
    assert len(at) == len(set(at)) == count
    shown = pixels() if image is None else image
    assert shown[np.rint(rows).astype(int), np.rint(columns).astype(int)].tolist() == [1] * count


# Every format, read by others


def test_every_file_lands_on_the_picked_pixels(tmp_path: Path) -> None:
    session(tmp_path, micrograph())
    star = starfile.read(tmp_path / "star/g/a_autopick.star")
    bright(star["rlnCoordinateX"], star["rlnCoordinateY"])
    corners = np.loadtxt(tmp_path / "box/g/a.box", int)
    bright(corners[:, 0] + corners[:, 2] // 2, corners[:, 1] + corners[:, 3] // 2)
    boxes = json.loads((tmp_path / "info/g/a_info.json").read_text())["boxes"]
    bright([box[0] for box in boxes], [box[1] for box in boxes])
    cbox = starfile.read(tmp_path / "cbox/g/a.cbox")["cryolo"]
    bright(cbox["CoordinateX"] + cbox["Width"] / 2, cbox["CoordinateY"] + cbox["Height"] / 2, 4)
    for path in ("cryosparc/g/a.cs", "picks.cs"):
        data = Dataset.load(tmp_path / path)
        edges = data["location/micrograph_shape"]
        bright(data["location/center_x_frac"] * edges[:, 1], data["location/center_y_frac"] * edges[:, 0])
    for path in ("csv/g/a.csv", "picks.csv"):
        with (tmp_path / path).open() as file:
            rows = list(csv.DictReader(file))
        assert [row["micrograph"] for row in rows] == ["g/a.mrc"] * 3
        bright([float(row["x"]) for row in rows], [float(row["y"]) for row in rows])
    table = np.loadtxt(tmp_path / "coords/g/a.coords")
    bright(table[:, 0], table[:, 1])
    with h5py.File(tmp_path / "micrographs/g/a.mrc.h5") as file:
        rows = file["candidates"][()]
        assert rows["picked"].tolist() == [1, 1, 1, 0]
        bright(rows["x"], rows["y"], 4)
        assert file.attrs["model_sha256"] == "ab" * 32
        assert file.attrs["shape"].tolist() == list(SHAPE)
        assert file["quality"].attrs["ice"] == 0.25
    with h5py.File(tmp_path / "session.h5") as file:
        bright(file["picks"]["x"], file["picks"]["y"])
        assert file["micrographs"]["name"].tolist() == [b"g/a.mrc"]


def test_rows_are_counted_from_the_bottom_only_where_that_is_asked_for(tmp_path: Path) -> None:
    session(tmp_path, micrograph(), invert_y=["eman", "box", "star", "cbox", "cryosparc"])
    flipped = pixels()[::-1]
    star = starfile.read(tmp_path / "star/g/a_autopick.star")
    bright(star["rlnCoordinateX"], star["rlnCoordinateY"], image=flipped)
    corners = np.loadtxt(tmp_path / "box/g/a.box", int)
    bright(corners[:, 0] + corners[:, 2] // 2, corners[:, 1] + corners[:, 3] // 2, image=flipped)
    boxes = json.loads((tmp_path / "info/g/a_info.json").read_text())["boxes"]
    bright([box[0] for box in boxes], [box[1] for box in boxes], image=flipped)
    cbox = starfile.read(tmp_path / "cbox/g/a.cbox")["cryolo"]
    bright(cbox["CoordinateX"] + cbox["Width"] / 2, cbox["CoordinateY"] + cbox["Height"] / 2, 4, flipped)
    for path in ("cryosparc/g/a.cs", "picks.cs"):
        data = Dataset.load(tmp_path / path)
        x = data["location/center_x_frac"] * SHAPE[1]
        bright(x, data["location/center_y_frac"] * SHAPE[0], image=flipped)
    table = np.loadtxt(tmp_path / "csv/g/a.csv", delimiter=",", skiprows=1, usecols=(1, 2))
    bright(table[:, 0], table[:, 1])
    table = np.loadtxt(tmp_path / "coords/g/a.coords")
    bright(table[:, 0], table[:, 1])
    with pytest.raises(ValidationError, match="csv always has row 0"):
        settings(tmp_path, invert_y=["csv"])


def test_tables_for_relion(tmp_path: Path) -> None:
    project = tmp_path / "project"
    other = micrograph("g/b.mrc", info={"voltage_kv": 200.0})
    skipped = micrograph("g/c.mrc", picked=np.zeros(4, bool), skipped=("ice",))
    folder = project / "AutoPick/live"
    session(folder, micrograph(), other, skipped, project=str(project), spherical_aberration_mm=2.7)
    summary = starfile.read(folder / "autopick.star")
    found = [(project / name).resolve() for name in summary["rlnMicrographName"]]
    assert found == [Path("/data/g/a.mrc"), Path("/data/g/b.mrc")]
    assert all(name.startswith("../") for name in summary["rlnMicrographName"])
    for name in summary["rlnMicrographCoordinates"]:
        assert name.startswith("AutoPick/live/star/g/")
        assert (project / name).is_file()
    blocks = starfile.read(folder / "micrographs.star")
    assert blocks["optics"]["rlnVoltage"].tolist() == [300.0, 200.0]
    assert blocks["optics"]["rlnSphericalAberration"].tolist() == [2.7, 2.7]
    assert blocks["optics"]["rlnAmplitudeContrast"].tolist() == [0.1, 0.1]
    assert blocks["micrographs"]["rlnOpticsGroup"].tolist() == [1, 2]


def test_the_table_for_people_has_every_micrograph_and_number(tmp_path: Path) -> None:
    skipped = micrograph("g/c.mrc", picked=np.zeros(4, bool), skipped=("ice",), warnings=("mean", "ice"))
    session(tmp_path, micrograph(quality={"mean": 1.5}), skipped)
    with (tmp_path / "micrographs.csv").open() as file:
        one, two = csv.DictReader(file)
    assert (one["micrograph"], one["picks"], one["candidates"], one["threshold"]) == ("g/a.mrc", "3", "4", "0.5")
    assert (one["mean"], one["ice"], one["seconds"]) == ("1.5", "", "0.750")
    assert (one["acquired"], one["grid_square"], one["foil_hole"]) == ("2026-11-20T08:00:00Z", "7", "")
    assert (two["picks"], two["skipped"], two["warnings"], two["ice"]) == ("0", "ice", "mean ice", "0.25")
    assert (one["ny"], one["nx"], one["voltage_kv"]) == ("48", "96", "300.0")


def test_a_skipped_micrograph_has_a_record_and_no_files(tmp_path: Path) -> None:
    sink = session(tmp_path, micrograph())
    assert {path.name for path in sink.files} == {
        *("micrographs.csv", "autopick.star", "micrographs.star"),
        *("picks.csv", "picks.cs", "picks.csg", "session.h5"),
    }
    session(tmp_path, micrograph(picked=np.zeros(4, bool), skipped=("ice",)))
    record = read(tmp_path / "micrographs/g/a.mrc.h5")
    assert len(record.micrograph.candidates) == 4
    assert record.micrograph.skipped == ("ice",)
    assert not (tmp_path / "star/g/a_autopick.star").exists()
    assert not (tmp_path / "cbox/g/a.cbox").exists()
    assert json.loads((tmp_path / "info/g/a_info.json").read_text())["boxes"] == []
    assert starfile.read(tmp_path / "autopick.star").empty


# Particles


@pytest.mark.parametrize(("dtype", "mode"), [("float32", 2), ("float16", 12)])
def test_particles_are_kept_with_where_they_are(tmp_path: Path, dtype: str, mode: int) -> None:
    found = with_particles(micrograph())
    particles = {"keep": True, "mrcs": True, "dtype": dtype, "size_px": SIZE}
    session(tmp_path, found, with_particles(micrograph("g/b.mrc", threshold=0.75)), particles=particles)
    assert found.particles is not None
    stored = found.particles.astype(dtype)
    with h5py.File(tmp_path / "micrographs/g/a.mrc.h5") as file:
        images = file["particles/images"]
        assert images.chunks == (1, SIZE, SIZE)
        assert images.dtype == dtype
        assert "32008" in images._filters
        assert np.array_equal(images[()], stored)
        bright(file["particles/x"], file["particles/y"])
        assert file["particles"].attrs["pixel_a"] == 3.0
    with mrcfile.open(tmp_path / "particles/g/a.mrcs") as stack:
        assert int(stack.header.mode) == mode
        assert stack.is_image_stack()
        assert np.array_equal(np.asarray(stack.data), stored)
        assert stack.voxel_size.x == pytest.approx(3.0)
    for path, count in (("particles/g/a_particles.star", 3), ("particles.star", 5)):
        blocks = starfile.read(tmp_path / path)
        assert len(blocks["particles"]) == count
        assert blocks["optics"]["rlnImagePixelSize"].tolist() == [3.0]
        assert blocks["optics"]["rlnImageSize"].tolist() == [SIZE]
    rows = starfile.read(tmp_path / "particles.star")["particles"]
    for _, row in rows.iterrows():
        number, _, file = row["rlnImageName"].partition("@")
        with mrcfile.open(file) as stack:
            assert len(number) == 6
            assert 1 <= int(number) <= len(stack.data)
        assert pixels()[int(row["rlnCoordinateY"]), int(row["rlnCoordinateX"])] == 1
    with h5py.File(tmp_path / "session.h5") as file:
        images = file["particles/images"]
        assert images.is_virtual
        assert images.shape == (5, SIZE, SIZE)
        assert np.array_equal(images[:3], stored)
        assert np.array_equal(images[3:], stored[:2])
        bright(file["particles/x"][:3], file["particles/y"][:3])
        assert file["particles/micrograph"][()].tolist() == [0, 0, 0, 1, 1]


def test_a_session_may_be_moved(tmp_path: Path) -> None:
    session(tmp_path / "one", with_particles(micrograph()), particles={"keep": True})
    os.rename(tmp_path / "one", tmp_path / "two")
    with h5py.File(tmp_path / "two/session.h5") as file:
        assert file["particles/images"][2, 0, 0] == pytest.approx(2 * SIZE * SIZE / 7)


@pytest.mark.parametrize("name", ["100% sure.mrc", "%2e%2e%2fx.mrc", "%d/%s%%b.mrc"])
def test_a_percent_sign_in_a_name_is_no_format_of_a_virtual_dataset(tmp_path: Path, name: str) -> None:
    found = with_particles(micrograph(name))
    session(tmp_path, with_particles(micrograph()), found, particles={"keep": True})
    assert found.particles is not None
    with h5py.File(tmp_path / "session.h5") as file:
        names = [one.decode() for one in file["micrographs"]["name"]]
        images = file["particles/images"][file["particles/micrograph"][()] == names.index(name)]
    assert np.array_equal(images, found.particles.astype(images.dtype))


def test_a_single_particle_and_none_at_all(tmp_path: Path) -> None:
    one, none = micrograph(threshold=0.85), micrograph("g/b.mrc", threshold=0.95)
    session(tmp_path, with_particles(one), with_particles(none), particles={"keep": True, "mrcs": True})
    with mrcfile.open(tmp_path / "particles/g/a.mrcs") as stack:
        header = stack.header
        assert (int(header.nx), int(header.ny), int(header.nz), int(header.mz), int(header.ispg)) == (
            SIZE,
            SIZE,
            1,
            1,
            0,
        )
    assert not (tmp_path / "particles/g/b.mrcs").exists()
    images = read_images(tmp_path / "micrographs/g/b.mrc.h5")
    assert images is not None
    assert images.pixels.shape == (0, SIZE, SIZE)
    assert starfile.read(tmp_path / "star/g/b_autopick.star").empty
    assert len(starfile.read(tmp_path / "autopick.star")) == 2


# Names


def test_names_stay_below_the_folder_and_apart() -> None:
    assert safe("../../etc/passwd") == "etc/passwd"
    assert safe("/abs/a.mrc") == "abs/a.mrc"
    assert safe("..") == "micrograph"
    taken = {"g/a": "g/a.mrc"}
    assert stem_of("g/a.mrc", taken) == "g/a"
    assert stem_of("g/a.tif", taken) == "g/a.tif"
    assert Places(Path("/s"), Path("/s/p")).called(Path("/s/p/q/a.mrc")) == "q/a.mrc"


def test_two_micrographs_of_one_stem_do_not_share_files(tmp_path: Path) -> None:
    session(tmp_path, micrograph(), micrograph("g/a.tif", threshold=0.75))
    assert len(starfile.read(tmp_path / "star/g/a_autopick.star")) == 3
    assert len(starfile.read(tmp_path / "star/g/a.tif_autopick.star")) == 2
    assert len(set(starfile.read(tmp_path / "autopick.star")["rlnMicrographCoordinates"])) == 2
    session(tmp_path, micrograph("g/a.tif", threshold=0.85))
    assert len(starfile.read(tmp_path / "star/g/a_autopick.star")) == 3, "the names survive a restart"
    assert len(starfile.read(tmp_path / "star/g/a.tif_autopick.star")) == 1


# Revisions and repeats


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in {".h5", ".csg"} and not path.name.startswith(".")
    }


def test_a_repeat_changes_nothing(tmp_path: Path) -> None:
    found = with_particles(micrograph())
    session(tmp_path, found, particles={"keep": True, "mrcs": True})
    before = {name: data for name, data in contents(tmp_path).items() if not name.endswith(".mrcs")}
    session(tmp_path, found, found, particles={"keep": True, "mrcs": True})
    after = {name: data for name, data in contents(tmp_path).items() if not name.endswith(".mrcs")}
    assert before == after
    assert len(list(tmp_path.rglob("*.h5"))) == 2
    with mrcfile.open(tmp_path / "particles/g/a.mrcs") as stack:
        assert np.array_equal(stack.data, np.asarray(found.particles))


def test_a_later_revision_keeps_the_earlier_one(tmp_path: Path) -> None:
    told = Told()
    session(tmp_path, micrograph())
    old = contents(tmp_path)
    sink = PickSink(settings(tmp_path), told)
    sink.open()
    newer = micrograph(revision=1, threshold=0.75)
    assert sink.write([result(newer), result(newer)]) == []
    sink.close()
    assert told.events == ["superseded"], "the repeat has nothing to keep"
    assert len(starfile.read(tmp_path / "star/g/a_autopick.star")) == 2
    assert (tmp_path / "star/g/a_autopick.star.r0").read_bytes() == old["star/g/a_autopick.star"]
    assert (tmp_path / "box/g/a.box.r0").read_bytes() == old["box/g/a.box"]
    assert (tmp_path / "pictures/g/a.png.r0").is_file()
    assert read(tmp_path / "micrographs/g/a.mrc.h5").micrograph.revision == 1
    assert read(tmp_path / "micrographs/g/a.mrc.h5.r0").micrograph.revision == 0
    with (tmp_path / "micrographs.csv").open() as file:
        assert [(row["revision"], row["picks"]) for row in csv.DictReader(file)] == [("1", "2")]
    assert starfile.read(tmp_path / "autopick.star")["rlnMicrographCoordinates"].tolist() == [
        str(tmp_path / "star/g/a_autopick.star")
    ]


def test_a_kill_between_keeping_and_writing_a_revision_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of steps of a revision that was broken off, a repeat ends as if it had not been."""
    for steps in range(1, 24):
        folder = tmp_path / str(steps)
        session(folder, micrograph(), pictures=False, formats=["star", "coords"])
        old = contents(folder)
        left = steps

        def some(*args: Any, _real: Callable[..., None] = os.replace) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            _real(*args)

        def linked(*args: Any, _real: Callable[..., None] = os.link) -> None:
            some(*args, _real=_real)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", some)
            patch.setattr(os, "link", linked)
            sink = PickSink(settings(folder, pictures=False))
            try:
                sink.write([result(micrograph(revision=1, threshold=0.75))])
            except KeyboardInterrupt:
                pass
            else:
                assert left >= 0
        session(folder, micrograph(revision=1, threshold=0.75), pictures=False)
        assert (folder / "star/g/a_autopick.star.r0").read_bytes() == old["star/g/a_autopick.star"], steps
        assert (folder / "coords/g/a.coords.r0").read_bytes() == old["coords/g/a.coords"], steps
        assert len(starfile.read(folder / "star/g/a_autopick.star")) == 2
        assert read(folder / "micrographs/g/a.mrc.h5.r0").micrograph.revision == 0
        assert not (folder / "box/g/a.box.r0").exists(), "there was none before"
    assert left > 0, "the last turn was not broken off"


def test_picks_of_another_model_are_kept_too(tmp_path: Path) -> None:
    session(tmp_path, micrograph())
    session(tmp_path, micrograph(model_sha256="cd" * 32))
    assert read(tmp_path / "micrographs/g/a.mrc.h5.r0-abababab").micrograph.model_sha256 == "ab" * 32
    assert read(tmp_path / "micrographs/g/a.mrc.h5").micrograph.model_sha256 == "cd" * 32


def test_a_damaged_record_is_kept_aside_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session(tmp_path, micrograph(), micrograph("g/b.mrc"))
    path = tmp_path / "micrographs/g/a.mrc.h5"
    path.write_bytes(path.read_bytes()[:700])
    sink = session(tmp_path)
    assert caplog.text.count("g/a.mrc.h5: is no record of a micrograph, or damaged") == 1
    assert len(sink._rows) == 1
    session(tmp_path, micrograph())
    assert read(path).micrograph.name == "g/a.mrc"
    assert path.with_name("a.mrc.h5.damaged").exists()


def test_what_others_keep_in_eman_files_stays(tmp_path: Path) -> None:
    path = tmp_path / "info/g/a_info.json"
    write_whole(path, b'{"ctf": [3], "boxes": [[1, 2, "manual"]]}')
    session(tmp_path, micrograph())
    session(tmp_path, micrograph())
    found = json.loads(path.read_text())
    assert found["ctf"] == [3]
    assert len(found["boxes"]) == 4
    path.write_text("{")
    session(tmp_path, micrograph())
    assert len(json.loads(path.read_text())["boxes"]) == 3


# Records


def test_a_record_reads_back_as_it_was(tmp_path: Path) -> None:
    found = micrograph(
        "gö/ä.mrc",
        quality={"mean": 1.5, "bad": float("nan")},
        warnings=("mean",),
        sd_range=(0.5, float("inf")),
        floor=0.02,
        revision=3,
        info={"stage": Path("x"), "n": np.int64(3), "no": None, "f": np.float32(0.5), "yes": True},
    )
    session(tmp_path, found)
    record = read(tmp_path / "micrographs/gö/ä.mrc.h5")
    again = record.micrograph
    for name in ("name", "path", "shape", "pixel_a", "threshold", "model", "diameter_a", "box_px", "revision", "floor"):
        assert getattr(again, name) == getattr(found, name), name
    assert (again.warnings, again.skipped, again.sd_range) == (("mean",), (), (0.5, float("inf")))
    assert again.quality["mean"] == 1.5
    assert np.isnan(again.quality["bad"])
    assert again.info == {"stage": "x", "n": 3, "no": None, "f": 0.5, "yes": True}
    assert np.array_equal(again.picked, found.picked)
    assert np.array_equal(again.candidates.sd, found.candidates.sd)
    assert record.configured == 0.5
    assert [(change.threshold, change.picks) for change in record.changes] == [(0.5, 3)]
    assert record.seconds == {"score": 0.5, "read": 0.25}
    assert record.images is None


# Trouble with the disk


def test_a_full_disk_costs_micrographs_and_not_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(), Told()
    sink = PickSink(settings(tmp_path), told, clock=clock)
    sink.open()
    full = True

    def fsync(descriptor: int, _real: Callable[[int], None] = os.fsync) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        _real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    (failure,) = sink.write([result(micrograph(), 4)])
    assert isinstance(failure, Failure)
    assert (failure.key, failure.reason) == (Key("session", 4), "disk_full")
    assert "free some space" in failure.detail
    assert sink.healthy() is not None
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in {".lock", "settings.json"}]
    (again,) = sink.write([result(micrograph(), 5)])
    assert again.reason == "disk_full", "not tried for a while"
    full = False
    clock.now = 5.0
    assert sink.write([result(micrograph(), 6)]) == []
    assert sink.healthy() is None
    sink.close()
    assert len(starfile.read(tmp_path / "star/g/a_autopick.star")) == 3
    assert "file_failed" in told.events


def test_too_little_free_space_is_refused_before(tmp_path: Path) -> None:
    clock, free = Clock(), 5e8
    sink = PickSink(settings(tmp_path, min_free_gb=1.0), clock=clock, free=lambda _: int(free))
    sink.open()
    (failure,) = sink.write([result(micrograph())])
    assert failure.reason == "disk_full"
    assert "min_free_gb" in (sink.healthy() or "")
    assert not (tmp_path / "micrographs").exists()
    free = 5e9
    clock.now = 2.0
    sink.flush()
    assert sink.healthy() is None
    assert sink.write([result(micrograph())]) == []


def test_a_name_that_cannot_be_is_that_micrographs_trouble_only(tmp_path: Path) -> None:
    sink = PickSink(settings(tmp_path))
    sink.open()
    failures = sink.write([result(micrograph("g/" + "x" * 300 + ".mrc")), result(micrograph(), 1)])
    assert [(failure.key.number, failure.reason) for failure in failures] == [(0, "write")]
    assert "shorter name" in failures[0].detail
    assert sink.healthy() is None
    sink.close()
    assert len(list((tmp_path / "micrographs").rglob("*.h5"))) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="set directory to a folder you may write to"):
        PickSink(settings(tmp_path / "x")).open()


def test_a_folder_that_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="set directory to a folder you may write to"):
        PickSink(settings(tmp_path / "file/x")).open()


def test_results_without_picks_are_not_ours(tmp_path: Path) -> None:
    sink = PickSink(settings(tmp_path))
    sink.open()
    frame = Frame(Key("r", 0), pixels(), 0.0, 0.0)
    assert sink.write([Result(frame, Outcome.ACCEPTED, 1.0, weight=1.0)]) == []
    assert sink.write([replace(result(micrograph()), weight=0.0)]) == []
    sink.close()
    assert not (tmp_path / "micrographs").exists()
    assert not (tmp_path / "micrographs.csv").exists()


# Tables in time


def test_tables_follow_within_seconds_and_again_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    sink = PickSink(settings(tmp_path, tables_every_s=5.0), clock=clock)
    sink.open()
    sink.write([result(micrograph())])
    sink.flush()
    table = tmp_path / "micrographs.csv"
    assert len(table.read_text().splitlines()) == 2
    sink.write([result(micrograph("g/b.mrc"))])
    clock.now = 4.0
    sink.flush()
    assert len(table.read_text().splitlines()) == 2
    clock.now = 5.1
    sink.flush()
    assert len(table.read_text().splitlines()) == 3
    sink.write([result(micrograph("g/c.mrc"))])
    sink.end(RunEnd("session"))
    assert len(table.read_text().splitlines()) == 4
    stamp = table.stat().st_mtime_ns
    clock.now = 20.0
    sink.flush()
    assert table.stat().st_mtime_ns == stamp, "nothing new, nothing written"


def test_large_tables_take_a_twentieth_of_the_time() -> None:
    clock = Clock()
    pace = Pace(5.0, clock)
    assert pace.due()
    with pace:
        clock.now = 2.0
    clock.now = 41.9
    assert not pace.due()
    clock.now = 42.0
    assert pace.due()
    with pace:
        clock.now = 42.1
    clock.now = 47.2
    assert pace.due()


def test_a_restart_and_another_daemon_are_in_the_tables(tmp_path: Path) -> None:
    session(tmp_path, micrograph())
    one, other = PickSink(settings(tmp_path)), PickSink(settings(tmp_path))
    one.open()
    other.open()
    one.write([result(micrograph("g/b.mrc"))])
    other.write([result(micrograph("g/c.mrc"))])
    one.close()
    names = starfile.read(tmp_path / "micrographs.star")["micrographs"]["rlnMicrographName"].tolist()
    assert names == ["/data/g/a.mrc", "/data/g/b.mrc", "/data/g/c.mrc"]
    os.remove(tmp_path / "micrographs/g/c.mrc.h5")
    other.close()
    with h5py.File(tmp_path / "session.h5") as file:
        assert file["micrographs"]["name"].tolist() == [b"g/a.mrc", b"g/b.mrc"]
        assert len(file["picks"]) == 6


def test_the_job_summary_names_only_files_that_are_there(tmp_path: Path) -> None:
    session(tmp_path, micrograph(), formats=["csv"])
    session(tmp_path, micrograph("g/b.mrc"), formats=["star"])
    assert starfile.read(tmp_path / "autopick.star")["rlnMicrographName"].tolist() == ["/data/g/b.mrc"]
    assert len(starfile.read(tmp_path / "micrographs.star")["micrographs"]) == 2


def test_tables_that_cannot_be_written_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = PickSink(settings(tmp_path))
    sink.open()
    sink.write([result(micrograph())])
    with monkeypatch.context() as patch:

        def full(*_: object) -> list[Path]:
            raise OSError(errno.ENOSPC, "No space left on device", "x.csv")

        patch.setattr(sink_module, "write_small", full)
        sink.end(RunEnd("session"))
    assert "the tables are behind" in caplog.text
    assert not (tmp_path / "micrographs.csv").exists()
    sink.close()
    assert (tmp_path / "micrographs.csv").exists()


# Settings


def test_settings_and_configuration_are_kept_beside_the_picks(tmp_path: Path) -> None:
    base = tmp_path
    words = PickSettings(directory=Path("out"), project=Path("."), formats=("box",), min_free_gb=0)
    PickSink(words, config="a: 1\n", base=base).open()
    PickSink(words, config="a: 1\n", base=base).open()
    PickSink(words, config="a: 2\n", base=base).open()
    assert (base / "out/config.yaml").read_text() == "a: 2\n"
    assert (base / "out/config.yaml.r0").read_text() == "a: 1\n"
    assert not (base / "out/config.yaml.r1").exists()
    noted = noted_settings(base / "out")
    assert noted is not None
    assert noted.formats == ("box",)
    assert noted.project == base
    assert noted_settings(base) is None
    (base / "out/settings.json").write_text("{}")
    with pytest.raises(ValueError, match=r"settings\.json: cannot be used"):
        noted_settings(base / "out")


def test_boxes_are_even() -> None:
    with pytest.raises(ValidationError, match="use 102"):
        PickSettings(directory=Path("x"), box_px=101)


# Whole files


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "sub/a.txt"

    def broken_off() -> None:
        with whole(path) as working:
            working.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert list(path.parent.iterdir()) == []
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [found.name for found in path.parent.iterdir()] == ["a.txt"]


def test_an_earlier_file_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, earlier = tmp_path / "a", tmp_path / "a.r0"
    keep_as(path, earlier)
    assert not earlier.exists()
    path.write_text("0")
    keep_as(path, earlier)
    write_whole(path, b"1")
    keep_as(path, earlier)
    assert (path.read_text(), earlier.read_text()) == ("1", "0")

    def none(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", none)
    keep_as(path, tmp_path / "a.r1")
    assert (path.exists(), (tmp_path / "a.r1").read_text()) == (False, "1")


def test_contents_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    replace_ = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(os.readlink(f"/proc/self/fd/{descriptor}")))

    def replaced(*names: Path) -> None:
        steps.append("replace")
        replace_(*names)

    monkeypatch.setattr(os, "replace", replaced)
    write_whole(tmp_path / "a.txt", b"one")
    assert Path(steps[0]).name.endswith(".tmp")
    assert steps[1:] == ["replace", str(tmp_path)]


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    host = pick_files._host()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    names = {
        f".a.h5.{host}-{int(dead.stdout)}.tmp": False,
        f".b.h5.{host}-{os.getppid()}.tmp": True,
        f".me.h5.{host}-{os.getpid()}.tmp": False,  # a process before us that had our number
        ".c.h5.elsewhere-3.tmp": True,
        ".old.h5.elsewhere-3.tmp": False,
        "mine.tmp": True,
    }
    for name in names:
        (tmp_path / name).write_text("")
    os.utime(tmp_path / ".old.h5.elsewhere-3.tmp", (1, 1))
    assert sweep(tmp_path) == 3
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}


def test_the_lock_keeps_others_out_but_not_for_ever(tmp_path: Path) -> None:
    with lock(tmp_path) as mine:
        assert mine
        with lock(tmp_path, patience_s=0.03) as second:
            assert not second
    with lock(tmp_path, patience_s=0.03) as free:
        assert free


def test_others_are_kept_out_while_a_micrograph_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[bool] = []

    def watched(*args: Any, _real: Callable[..., bytes] = record_module.encode) -> bytes:
        with lock(tmp_path, patience_s=0.01) as mine:
            free.append(mine)
        return _real(*args)

    monkeypatch.setattr(sink_module, "encode", watched)
    session(tmp_path, micrograph())
    assert free == [False]


# Pictures


def test_a_picture_shows_picks_where_they_are() -> None:
    image = np.random.default_rng(0).normal(100, 10, (600, 1500)).astype(np.float32)
    x, y = f32([1200, 300]), f32([150, 450])
    candidates = Candidates(x, y, f32([1.0, 0.5]), f32([1, 1]))
    found = micrograph(candidates=candidates, picked=np.ones(2, bool), shape=image.shape, diameter_a=90.0)
    picture = draw(image, found)
    assert picture.shape == (300, 750, 3)
    coloured = np.argwhere((picture.max(axis=2) - picture.min(axis=2)) > 40)
    first = coloured[coloured[:, 1] > 400]
    assert np.allclose(first.mean(axis=0), [(150.5 / 2) - 0.5, (1200.5 / 2) - 0.5], atol=0.5)
    assert np.ptp(first[:, 0]) + 1 == pytest.approx(30, abs=2), "the particle's diameter: 60 pixels, binned by 2"
    best, worst = picture[75, 600 - 15].astype(int), picture[225, 150 - 15].astype(int)
    assert best[0] > best[2]  # yellow
    assert worst[2] > worst[0]  # blue
    decoded = imagecodecs.png_decode(encode(picture))
    assert np.array_equal(decoded, picture)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f2"])
def test_pictures_of_any_micrograph(dtype: str) -> None:
    image = np.random.default_rng(0).normal(100, 10, (48, 96)).astype(dtype)
    assert draw(image, micrograph()).shape == (48, 96, 3)
    flat = draw(np.full((48, 96), 3, dtype), micrograph(picked=np.zeros(4, bool)))
    assert flat.shape == (48, 96, 3)


def test_pictures_of_pixels_without_value() -> None:
    image = np.full((48, 96), np.nan, np.float32)
    draw(image, micrograph())
    image[:, ::2] = np.linspace(0, 1, 48)
    assert np.ptp(draw(image, micrograph(picked=np.zeros(4, bool)))) > 100


# Killed

WRITER = """
import sys
from pathlib import Path
import numpy as np
from beamsieve.models.particles.candidates import Candidates
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.settings import FORMATS
from beamsieve.stream.sinks.picks.sink import PickSettings, PickSink
words = {"particles": {"keep": True, "mrcs": True}, "tables_every_s": 0.001, "min_free_gb": 0}
sink = PickSink(PickSettings(directory=Path(sys.argv[1]), formats=FORMATS, **words))
sink.open()
four = np.arange(1, 5, dtype=np.float32)
candidates = Candidates(four * 9, four * 7, 1 - four / 10, four)
image, particles = np.zeros((48, 96), np.float32), np.ones((3, 8, 8), np.float32)
at = 0
while True:
    name = f"g/{at % 6:03d}.mrc"
    found = PickedMicrograph(name, Path("/data") / name, image.shape, 1.5, candidates, four < 4, 0.5, "tiny", "ab" * 32,
        18.0, 16, {"mean": 1.0}, revision=at // 6, particles=particles, particle_pixel_a=3.0)
    result = Result(Frame(Key("r", at), image, 0.0, 0.0), Outcome.ACCEPTED, 1.0, "picker", 1.0, {"micrograph": found})
    assert not sink.write([result])
    print(at, flush=True)
    sink.flush()
    at += 1
"""


def everything_opens(folder: Path) -> int:
    """Every file under a final name is whole; returns how many records there are."""
    records = 0
    for path in (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = re.sub(r"\.r\d+$", "", path.name)
        if name.endswith(".mrc.h5"):
            record, images = read(path), read_images(path)
            assert images is not None
            assert len(images) == len(record.micrograph.picks) == 3
            records += name == path.name
        elif name == "session.h5":
            with h5py.File(path) as file:
                assert len(file["picks"]) == 3 * len(file["micrographs"])
        elif name.endswith((".star", ".cbox")):
            starfile.read(path)
        elif name.endswith(".cs"):
            assert len(Dataset.load(path)) >= 3
        elif name.endswith(".json"):
            json.loads(path.read_text())
        elif name.endswith(".mrcs"):
            with mrcfile.open(path) as stack:
                assert stack.data.shape == (3, SIZE, SIZE)
        elif name.endswith(".png"):
            imagecodecs.png_decode(path.read_bytes())
        else:
            assert path.read_bytes().endswith(b"\n"), path
    return records


def test_killed_at_any_moment_leaves_whole_files_only(tmp_path: Path) -> None:
    chance = random.Random(3)
    safe_records = 0
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    for turn in range(3):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(2, 12)):
                assert process.stdout.readline()
            end = time.monotonic() + chance.random() * 0.05
            while time.monotonic() < end:
                pass
            process.send_signal(signal.SIGKILL)
            last = [line for line in process.stdout.read().split("\n")[:-1] if line]
            safe_records = max(safe_records, int(last[-1]) + 1 if last else 0)
        assert everything_opens(tmp_path) >= min(safe_records, 6), turn
    left = list(tmp_path.rglob(".*.tmp"))
    sink = session(tmp_path)
    assert not list(tmp_path.rglob(".*.tmp")), left
    names = starfile.read(tmp_path / "micrographs.star")["micrographs"]["rlnMicrographName"]
    assert len(names) == len(set(names)) == len(sink._rows) == len(list((tmp_path / "micrographs").rglob("*.h5")))
