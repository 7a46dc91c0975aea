"""The emulated microscope: what it drops, how untidily, and that the truth it writes is true."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.commands.emulate import app
from beamsieve.stream.emulators.cameras import CopyingCamera, SimulatedCamera
from beamsieve.stream.emulators.dropped import MANNERS, others_file
from beamsieve.stream.emulators.micrograph_files import Exposure, companion_of, mrc_bytes, name_of
from beamsieve.stream.emulators.micrographs import Clock, MicrographWriter, Session
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats.epu import read_epu
from beamsieve.stream.formats.image import image_header, read_image
from beamsieve.stream.formats.mdoc import mdoc_info
from beamsieve.stream.sources.folder import layouts
from typer.testing import CliRunner

PATIENCE_S = 40.0
START = datetime.fromisoformat("2026-11-20T09:00:00+00:00")


class FakeClock(Clock):
    """Time that passes only when somebody waits; what happens in the folder is looked at each time."""

    def __init__(self, look: Callable[[float], None] = lambda _: None) -> None:
        self.time, self._look = 100.0, look

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, stop: threading.Event) -> None:
        assert seconds > 0
        self.time += seconds
        self._look(self.time - 100.0)

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.time)


def camera(number: int, manner: str) -> Exposure:
    """A micrograph whose pixels tell its number, with a particle and a crystal."""
    image = np.full((40, 50), number if number < 1000 else 500 + number % 1000, np.int16)
    centres = ((10.25 if number < 1000 else 12.5, 20.0, "particle", 2), (30.0, 5.5, "ice", 0))
    return Exposure(mrc_bytes(image, 2.0), ".mrc", centres, {"pixel_a": 2.0, "nx": 50, "ny": 40})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def run(session: Session, look: Callable[[float], None]) -> MicrographWriter:
    """Write a session to its end, looking at the folder while time passes and once more at the end."""
    clock = FakeClock(look)
    writer = MicrographWriter(session, camera, clock=clock)
    writer.run(threading.Event())
    look(clock.time - 100.0)
    return writer


def test_a_session_comes_at_its_pace_and_each_file_in_pieces(tmp_path: Path) -> None:
    sizes: dict[str, list[tuple[float, int]]] = {}

    def look(now: float) -> None:
        for path in tmp_path.iterdir():
            sizes.setdefault(path.name, []).append((now, path.stat().st_size))

    writer = run(Session(tmp_path, count=3, every_s=4.0), look)
    names = [f"micrograph_{i:05d}.mrc" for i in (1, 2, 3)]
    assert writer.dropped.written == names
    first_seen = [sizes[name][0][0] for name in names]
    assert np.diff(first_seen) == pytest.approx([4.0, 4.0])
    grown = [size for _, size in sizes[names[0]]]
    assert grown == sorted(grown)
    assert len(set(grown)) == 8
    for number, name in enumerate(names, 1):
        assert (read_image(tmp_path / name).data == number).all()


def test_hostile_ones_are_as_they_are_said_to_be(tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[tuple[float, str, int, bytes]] = []

    def look(now: float) -> None:
        files = [path for path in sorted(out.rglob("*")) if path.is_file()]
        seen.extend((now, p.relative_to(out).as_posix(), p.stat().st_size, p.read_bytes()[-1000:]) for p in files)

    hostile = ("changed", "truncated", "preallocated", "renamed", "late")
    truth = tmp_path / "truth.csv"
    session = Session(out, "serialem", 11, 2.0, hostile, change_s=9.0, late_s=5.0, truth=truth)
    writer = run(session, look)
    of = {manner: names[0] for manner, names in writer.dropped.by_manner.items() if names}
    assert list(of) == list(hostile)
    assert [writer.dropped.written.index(of[m]) for m in hostile] == [1, 3, 5, 7, 9]
    whole = len(camera(1, "plain").data)

    header = image_header(out / of["truncated"])
    assert (out / of["truncated"]).stat().st_size == int(0.6 * whole)
    assert header.nbytes_expected == whole
    with pytest.raises(BadData):
        read_image(out / of["truncated"])

    first = next(entry for entry in seen if entry[1] == of["preallocated"])
    assert first[2] == whole
    assert first[3] == bytes(1000)
    assert (read_image(out / of["preallocated"]).data == 6).all()

    grew = [size for _, name, size, _ in seen if name == of["renamed"] + ".tmp"]
    assert len(set(grew)) == 8
    assert {size for _, name, size, _ in seen if name == of["renamed"]} == {whole}
    assert not list(out.rglob("*.tmp"))

    appeared = {name: now for now, name, _, _ in reversed(seen)}
    done = min(now for now, name, size, _ in seen if name == of["late"] and size == whole)
    assert appeared[of["late"] + ".mdoc"] - done == pytest.approx(5.0, abs=0.3)
    plain = writer.dropped.written[0]
    assert appeared[plain + ".mdoc"] - appeared[plain] < 2.0

    contents = [data for _, name, size, data in seen if name == of["changed"] and size == whole]
    assert contents[0] == camera(2, "plain").data[-1000:]
    assert (read_image(out / of["changed"]).data == 502).all()
    rewritten = min(now for now, name, _, data in seen if name == of["changed"] and data == contents[-1])
    finished = min(now for now, name, size, _ in seen if name == of["changed"] and size == whole)
    assert rewritten - finished >= 9.0

    particles = rows(truth)
    assert {row["micrograph"] for row in particles} == set(writer.dropped.written) - {of["truncated"]}
    for row in particles:
        x = "12.50" if row["micrograph"] == of["changed"] else "10.25"
        assert (row["x"], row["y"], row["kind"], row["view"]) == (x, "20.00", "particle", "2")
    assert {(row["x"], row["kind"], row["view"]) for row in rows(others_file(truth))} == {("30.00", "ice", "0")}
    assert writer.dropped.report()["particles"] == len(particles) == 10


def test_a_session_that_fell_behind_does_not_catch_up_in_a_burst(tmp_path: Path) -> None:
    clock = FakeClock()
    starts = []

    class Slow(MicrographWriter):
        def _drop(self, number: int, *rest: Any) -> None:
            starts.append(clock.time)
            super()._drop(number, *rest)
            clock.time += 5.0 if number == 1 else 0.0

    Slow(Session(tmp_path, count=5, every_s=1.0), camera, clock=clock).run(threading.Event())
    assert np.diff(starts) == pytest.approx([5.5, 1.0, 1.0, 1.0])


def test_a_stop_leaves_no_half_file(tmp_path: Path) -> None:
    stop = threading.Event()

    def look(now: float) -> None:
        if now > 2.2:
            stop.set()

    session = Session(tmp_path, count=0, every_s=2.0, hostile=("changed",))
    writer = MicrographWriter(session, camera, clock=FakeClock(look))
    writer.run(stop)
    assert len(writer.dropped.written) == 2
    assert writer.dropped.by_manner["changed"] == []
    for name in writer.dropped.written:
        assert read_image(tmp_path / name).data.shape == (40, 50)


def test_names_and_companions_are_those_the_folder_source_looks_for() -> None:
    for layout in ("epu", "serialem", "flat"):
        wanted, left_out = layouts.chooser(layout, "micrographs", (), ("*.tmp",))
        name = name_of(layout, 23, START, ".mrc")
        assert wanted(name)
        assert left_out(PurePosixPath(name).name + ".tmp")
        beside, text = companion_of(layout, name, 23, START, {"pixel_a": 1.5})
        due = layouts.companions(layout, PurePosixPath(name).name)
        assert bool(due) == bool(beside)
        if due:
            (names,) = due.values()
            assert PurePosixPath(beside).name in names
            assert text
    found = layouts.parse_name("epu", name_of("epu", 23, START, ".mrc"))
    assert (found["grid_square"], found["foil_hole"], found["acquired"][:10]) == ("10000002", "11000023", "2026-11-20")


def test_companions_say_what_was_simulated(tmp_path: Path) -> None:
    optics = {"pixel_a": 1.5, "voltage_kv": 200.0, "dose_e_a2": 38.0, "defocus_um": -1.9, "nx": 60, "ny": 50}
    for layout, read in (("epu", read_epu), ("serialem", mdoc_info)):
        beside, text = companion_of(layout, "a.mrc", 3, START, optics)  # type: ignore[arg-type]
        (tmp_path / beside).write_text(text, encoding="utf-8")
        found = read(tmp_path / beside)
        assert {name: found[name] for name in ("pixel_a", "voltage_kv", "dose_e_a2", "applied_defocus_um")} == (
            pytest.approx({"pixel_a": 1.5, "voltage_kv": 200, "dose_e_a2": 38, "applied_defocus_um": -1.9})
        )
        assert found["acquired"].startswith("2026-11-20T09:00:00")
        assert (found["stage_x_um"], found["stage_y_um"]) == pytest.approx((-116.0, 35.0))


def test_sessions_that_cannot_be(tmp_path: Path) -> None:
    for options, why in (
        ({"hostile": ("nasty",)}, "nasty unknown"),
        ({"hostile": ("changed", "truncated"), "count": 2}, "need 3 or more"),
        ({"hostile": ("late",)}, "needs a layout"),
    ):
        with pytest.raises(ValueError, match=why):
            Session(tmp_path, **options)


@pytest.fixture(scope="module")
def simulated() -> SimulatedCamera:
    return SimulatedCamera("ribosome", "small", seed=3, snr=5.0, shape=(480, 448))


def test_simulated_particles_are_dark_where_the_truth_says(simulated: SimulatedCamera, tmp_path: Path) -> None:
    exposure = simulated(1, "plain")
    (tmp_path / "a.mrc").write_bytes(exposure.data)
    found = read_image(tmp_path / "a.mrc")
    assert found.data.shape == (480, 448)
    assert found.pixel_a == pytest.approx(exposure.optics["pixel_a"])
    half = int(0.2 * simulated.diameter_a / simulated.conditions.pixel_a)
    patches = [
        found.data[int(y) - half : int(y) + half + 1, int(x) - half : int(x) + half + 1].mean()
        for x, y, kind, _ in exposure.centres
        if kind == "particle"
    ]
    assert len(patches) >= 3
    assert np.mean(patches) < np.median(found.data) - 0.25 * found.data.std()


def test_simulated_manners(simulated: SimulatedCamera) -> None:
    assert not [c for c in simulated(2, "empty").centres if c[2] == "particle"]
    assert (
        simulated(1, "plain").data
        == SimulatedCamera("ribosome", "small", seed=3, snr=5.0, shape=(480, 448))(1, "plain").data
    )
    assert simulated(1, "plain").data != simulated(2, "plain").data != simulated(2, "carbon").data


def test_files_are_copied_as_they_are(tmp_path: Path) -> None:
    files = []
    for number in (1, 2):
        files.append(tmp_path / f"{number}.mrc")
        files[-1].write_bytes(camera(number, "plain").data)
    copying = CopyingCamera(files)
    assert [copying(n, "plain").data == files[(n - 1) % 2].read_bytes() for n in (1, 2, 3)] == [True] * 3
    assert copying(1, "plain").optics == {"pixel_a": 2.0, "nx": 50, "ny": 40}
    with pytest.raises(ValueError, match="cannot be made of files"):
        copying(1, "empty")
    (tmp_path / "c.mrc").write_bytes(b"no image")
    with pytest.raises(BadData):
        CopyingCamera([tmp_path / "c.mrc"])


def call(*args: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["micrographs", *map(str, args)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.output


def test_the_command(tmp_path: Path) -> None:
    code, text = call(
        *("--out", tmp_path / "s", "--count", 9, "--every", 0, "--layout", "epu", "--hostile", "all", "--seed", 2),
        *("--shape", "192x160", "--change-after", 0.05, "--late", 0.05, "--format", "tiff"),
        *("--truth", tmp_path / "t.csv", "--json", tmp_path / "s.json", "--views", 2),
    )
    assert code == 0, text
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert found["written"] == 9
    for manner in MANNERS:
        assert len(found[manner]) == 1
    assert found["truth"] == str(tmp_path / "t.csv")
    assert found["particles"] == len(rows(tmp_path / "t.csv"))
    assert found["views"] == 2
    assert {row["view"] for row in rows(tmp_path / "t.csv")} == {"1", "2"}
    assert found["diameter_px"] == pytest.approx(found["diameter_a"] / found["pixel_a"], rel=1e-3)
    files = sorted((tmp_path / "s").rglob("*.tiff"))
    assert len(files) == 9
    assert len(sorted((tmp_path / "s").rglob("*.xml"))) == 9
    whole = [file for file in files if file.relative_to(tmp_path / "s").as_posix() not in found["truncated"]]
    assert {image_header(file).shape for file in whole} == {(1, 192, 160)}


def test_the_command_copies_files(tmp_path: Path) -> None:
    source = tmp_path / "a.mrc"
    source.write_bytes(camera(5, "plain").data)
    code, text = call("--out", tmp_path / "s", "--every", 0, "--from", source, "--from", source)
    assert code == 0, text
    assert [p.read_bytes() == source.read_bytes() for p in sorted((tmp_path / "s").iterdir())] == [True, True]


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (["--map", "unicorn"], 2, "unicorn"),
        (["--conditions", "unicorn"], 2, "unicorn"),
        (["--shape", "huge"], 2, "1024x960"),
        (["--shape", "4x4"], 2, "shape"),
        (["--snr", "0"], 2, "snr"),
        (["--hostile", "nasty"], 2, "known are"),
        (["--hostile", "changed,changed"], 2, "once"),
        (["--hostile", "late"], 2, "layout"),
        (["--hostile", "empty", "--from", "FILE"], 2, "cannot be made of files"),
        (["--from", "nowhere.mrc"], 2, "nowhere.mrc"),
        (["--count", "1", "--hostile", "changed"], 2, "need 2"),
        (["--every", "-1"], 2, "every"),
        (["--views", "-1"], 2, "views"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, args: list[str], code: int, why: str) -> None:
    (tmp_path / "a.mrc").write_bytes(camera(1, "plain").data)
    named = [str(tmp_path / "a.mrc") if arg == "FILE" else arg for arg in args]
    got, text = call("--out", tmp_path / "s", *named)
    assert got == code, text
    assert why in text
    assert "Traceback" not in text


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    code, text = call("--out", tmp_path / "file" / "s", "--count", 1, "--every", 0, "--shape", "192x160")
    assert code in (1, 2)
    assert str(tmp_path / "file") in text


def test_sigterm_ends_a_real_process_cleanly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "beamsieve.stream", "emulate", "micrographs", "--out", str(tmp_path / "s")]
    command += ["--count", "0", "--every", "0.2", "--shape", "192x160", "--json", str(tmp_path / "s.json"), "--quiet"]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + PATIENCE_S
        while len(list((tmp_path / "s").glob("*.mrc"))) < 3 and time.monotonic() < until:
            assert process.poll() is None, process.stderr.read() if process.stderr else b""
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, b"")
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    files = sorted((tmp_path / "s").iterdir())
    assert found["written"] == len(files) >= 3
    assert {read_image(file).data.shape for file in files} == {(192, 160)}
