"""The job whole: a folder that fills, the shipped network, picks beside the truth; killed and started again."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import yaml
from beamsieve.models.particles.conditions import named
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.matching import match
from beamsieve.models.particles.simulator import Simulated, simulate
from beamsieve.stream.beamlines.cryoem_picks import CryoemPicks, build, tell
from beamsieve.stream.commands.pick import find, read_options
from beamsieve.stream.flow.frame import Failure, Raw
from beamsieve.stream.flow.ports import NoFacts
from beamsieve.stream.flow.settings import ConfigError, Where
from beamsieve.stream.sources.folder.settings import FolderSettings
from beamsieve.stream.sources.folder.source import FolderSource

BUNDLE = "particles-ribosome"
# No training sees this seed.
SEED = 990_001


@pytest.fixture(scope="module")
def fields() -> list[Simulated]:
    """Three small micrographs, not square, of a ribosome at a signal-to-noise ratio of 0.1."""
    volume = load_map("ribosome")
    return [simulate(SEED, at, named("small", snr=0.1), volume) for at in range(3)]


def write(path: Path, field: Simulated) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as out:
        out.set_data(field.image.astype(np.float32))
        out.voxel_size = field.pixel_a
    return path


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "beamline": "cryoem_picks",
        "source": {
            "kind": "folder",
            "directory": str(folder / "in"),
            "settle_s": 0.0,
            "poll_s": 0.05,
            "end_idle_s": 1.0,
            "retry_s": 0.1,
            "incomplete_s": 0.5,
            "attempts": 2,
            **changes.pop("source", {}),
        },
        "model": {"bundle": BUNDLE, "threads": 1, **changes.pop("model", {})},
        "files": {
            "directory": str(folder / "out"),
            "formats": ["star", "box", "csv"],
            "particles": {"keep": True, "size_px": 32},
            "pictures": False,
            "min_free_gb": 0,
            **changes.pop("files", {}),
        },
        "service": {"port": 0},
        **changes,
    }


def daemon(folder: Path, **changes: Any) -> Any:
    return build(CryoemPicks.model_validate(settings(folder, **changes)), Where(folder / "x.yaml"), config="the text")


def run(folder: Path, **changes: Any) -> Any:
    made = daemon(folder, **changes)
    made.pipeline.run()
    made.close()
    return made


def picks_of(csv_file: Path) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, list[tuple[float, float]]] = {}
    with csv_file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            found.setdefault(row["micrograph"], []).append((float(row["x"]), float(row["y"])))
    return {name: np.array(rows) for name, rows in found.items()}


def test_a_folder_becomes_picks_where_the_particles_are(tmp_path: Path, fields: list[Simulated]) -> None:
    for at, field in enumerate(fields):
        write(tmp_path / "in" / "grid" / f"m{at}.mrc", field)
    (tmp_path / "in" / "cut.mrc").write_bytes((tmp_path / "in" / "grid" / "m0.mrc").read_bytes()[:-1000])
    (tmp_path / "in" / "noise.mrc").write_bytes(os.urandom(5000))
    (tmp_path / "in" / "gain_ref.mrc").write_bytes(b"not a micrograph")
    made = run(tmp_path)
    tally = made.pipeline.metrics.tally()
    assert (tally.accepted, tally.rejected, tally.dropped) == (3, 0, 0)
    assert tally.failed >= 2, "both broken files failed"
    assert tally.balanced
    assert tally.read == tally.accepted + tally.failed
    picked = picks_of(tmp_path / "out" / "picks.csv")
    assert set(picked) == {f"grid/m{at}.mrc" for at in range(3)}
    for at, field in enumerate(fields):
        mine = picked[f"grid/m{at}.mrc"]
        radius = 0.2 * field.diameter_a / field.pixel_a
        right = len(match(mine[:, 0], mine[:, 1], field.x, field.y, radius))
        assert right >= 0.85 * len(field.x), "recall"
        assert right >= 0.8 * len(mine), "precision"
    with h5py.File(tmp_path / "out" / "micrographs" / "grid" / "m0.mrc.h5") as file:
        assert file["particles/images"].shape[1:] == (32, 32)
        assert len(file["particles/images"]) == len(picked["grid/m0.mrc"])
        assert len(file["candidates"]) > len(picked["grid/m0.mrc"]), "what lies below the threshold is kept too"
    trend = made.yields.trend()
    assert trend.micrographs == 3
    assert trend.particles == sum(map(len, picked.values()))


def test_a_second_run_does_nothing_twice_and_a_changed_file_again(tmp_path: Path, fields: list[Simulated]) -> None:
    for at in range(2):
        write(tmp_path / "in" / f"m{at}.mrc", fields[at])
    assert run(tmp_path).pipeline.metrics.tally().accepted == 2
    assert run(tmp_path).pipeline.metrics.tally().read == 0
    before = picks_of(tmp_path / "out" / "picks.csv")
    write(tmp_path / "in" / "m0.mrc", fields[2])
    assert run(tmp_path).pipeline.metrics.tally().accepted == 1
    after = picks_of(tmp_path / "out" / "picks.csv")
    np.testing.assert_array_equal(before["m1.mrc"], after["m1.mrc"])
    assert len(before["m0.mrc"]) != len(after["m0.mrc"]) or (before["m0.mrc"] != after["m0.mrc"]).any()
    with h5py.File(tmp_path / "out" / "micrographs" / "m0.mrc.h5") as file:
        assert file.attrs["revision"] == 1


def test_quality_and_too_few_picks_reject_and_keep_the_candidates(tmp_path: Path, fields: list[Simulated]) -> None:
    write(tmp_path / "in" / "m0.mrc", fields[0])
    made = run(tmp_path, model={"min_picks": 10_000})
    tally = made.pipeline.metrics.tally()
    assert (tally.accepted, tally.rejected) == (0, 1)
    assert picks_of(tmp_path / "out" / "picks.csv") == {}
    with h5py.File(tmp_path / "out" / "micrographs" / "m0.mrc.h5") as file:
        assert len(file["candidates"]) > 10
    assert made.yields.warnings() == {("picks", "skip"): 1}


def test_without_a_pixel_size_a_file_fails_with_the_remedy(tmp_path: Path, fields: list[Simulated]) -> None:
    path = write(tmp_path / "in" / "m0.mrc", fields[0])
    with mrcfile.open(path, mode="r+") as file:
        file.voxel_size = 0.0
    made = run(tmp_path)
    assert set(made.pipeline.metrics.tally().failures) == {"pixel_size"}
    set_aside = list((tmp_path / "out").rglob("set_aside/**/*.json"))
    assert len(set_aside) == 1
    assert "pixel size" in set_aside[0].read_text()
    assert run(tmp_path, decode={"pixel_a": fields[0].pixel_a}).pipeline.metrics.tally().read == 0, (
        "until it is retried"
    )


def test_pixels_coarser_than_the_network_s_are_warned_of(tmp_path: Path, fields: list[Simulated]) -> None:
    write(tmp_path / "in" / "m0.mrc", fields[0])
    assert run(tmp_path, model={"diameter_a": 140.0}).yields.warnings()["coarse_pixels", "warn"] == 1
    assert not run(tmp_path / "b", source={"directory": str(tmp_path / "in")}).yields.warnings()


def start(folder: Path, config: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "beamsieve.stream",
        "run",
        str(config),
        "--quiet",
        "--json",
        str(folder / "s.json"),
    ]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def test_killed_at_any_moment_it_loses_and_doubles_nothing(tmp_path: Path, fields: list[Simulated]) -> None:
    # So many that a busy machine does not do them all before it lets us kill.
    files = 24
    for at in range(files):
        write(tmp_path / "in" / f"m{at}.mrc", fields[at % 3])
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path)))
    journal = tmp_path / "out" / "journal.sqlite"
    for done_before_the_kill in (1, 4):
        process = start(tmp_path, config)
        while process.poll() is None and done(journal) < done_before_the_kill:
            time.sleep(0.01)
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(tmp_path, config)
    _, said = process.communicate(timeout=50)
    assert process.returncode == 0, said.decode()
    assert done(journal) == files
    last = json.loads((tmp_path / "s.json").read_text())["cryoem_picks"]
    assert 0 < last["read"] <= files - 4, "what was done was not done again"
    whole = picks_of(tmp_path / "out" / "picks.csv")
    assert set(whole) == {f"m{at}.mrc" for at in range(files)}
    for at in range(files):
        np.testing.assert_array_equal(whole[f"m{at}.mrc"], whole[f"m{at % 3}.mrc"])
    assert len(list((tmp_path / "out" / "micrographs").iterdir())) == files


def done(journal: Path) -> int:
    if not journal.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as db:
            return int(db.execute("select count(*) from files where state = 'done'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_sigterm_drains_and_the_rest_is_done_at_the_next_start(tmp_path: Path, fields: list[Simulated]) -> None:
    for at in range(4):
        write(tmp_path / "in" / f"m{at}.mrc", fields[at % 3])
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path)))
    process = start(tmp_path, config)
    while process.poll() is None and done(tmp_path / "out" / "journal.sqlite") < 1:
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=50)
    assert process.returncode == 0, said.decode()
    first = json.loads((tmp_path / "s.json").read_text())["cryoem_picks"]
    assert first["read"] == first["accepted"], "all that was read was picked"
    assert run(tmp_path).pipeline.metrics.tally().accepted == 4 - first["read"]


def test_picking_files_gives_what_the_daemon_gives(tmp_path: Path, fields: list[Simulated]) -> None:
    path = write(tmp_path / "in" / "m0.mrc", fields[0])
    run(tmp_path)
    command = [sys.executable, "-m", "beamsieve.stream", "pick", str(path), str(tmp_path / "gone"), "--bundle", BUNDLE]
    wrong = subprocess.run([*command, "--out", str(tmp_path / "p")], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "no such file or folder" in wrong.stderr
    command.remove(str(tmp_path / "gone"))
    (tmp_path / "junk.mrc").write_bytes(b"\0" * 2000)
    more = ["--out", str(tmp_path / "p"), "--format", "star", "--json", str(tmp_path / "p.json")]
    half = subprocess.run([*command, str(tmp_path / "junk.mrc"), *more], capture_output=True, text=True, check=False)
    assert half.returncode == 1, half.stderr
    assert "junk.mrc" in half.stderr
    mine, theirs = picks_of(tmp_path / "p" / "picks.csv"), picks_of(tmp_path / "out" / "picks.csv")
    np.testing.assert_array_equal(mine["in/m0.mrc"], theirs["m0.mrc"])
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["micrographs"][0]["picks"] == len(theirs["m0.mrc"])
    assert [one["reason"] for one in found["failures"]]


def test_wrong_settings_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(
            {"decode": {"pixel_a": -1.0}, "model": {}, "files": {"directory": str(tmp_path), "formats": ("stra",)}},
            ["model.min_distanse=1"],
        )
    text = "\n".join(caught.value.mistakes)
    assert "--pixel-size: " in text
    assert "--format: " in text
    assert "--set model.min_distanse=1: " in text
    assert "did you mean min_distance?" in text
    with pytest.raises(ConfigError, match="no such file or folder"):
        find([tmp_path / "none.mrc"])
    with pytest.raises(ConfigError, match="no micrographs in it"):
        find([tmp_path])


def test_a_wrong_bundle_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for bundle, why in {"hits-resnet10": "its task is hits", "particles-ribosom": "did you mean"}.items():
        with pytest.raises(ConfigError, match=why):
            daemon(tmp_path, model={"bundle": bundle})


def test_a_full_disk_costs_no_attempt_and_picking_goes_on_when_there_is_room(
    tmp_path: Path, fields: list[Simulated], monkeypatch: pytest.MonkeyPatch
) -> None:
    from beamsieve.stream.sinks.picks import sink

    write(tmp_path / "in" / "m0.mrc", fields[0])
    free = [10**12]
    monkeypatch.setattr(sink, "free_bytes", lambda _: free[0])
    monkeypatch.setattr("beamsieve.stream.sinks.hdf5_room.CHECK_S", 0.0)
    made = daemon(tmp_path, files={"min_free_gb": 1.0})
    made.picks._room._free = lambda _: free[0]
    free[0] = 0
    made.pipeline.start()
    try:
        until = time.monotonic() + 20
        while made.healthy() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert "free" in str(made.healthy())
        assert made.pipeline.metrics.tally().accepted == 0
        free[0] = 10**12
        assert made.pipeline.wait(30), "it ends when all is done"
    finally:
        made.pipeline.stop()
        made.close()
    tally = made.pipeline.metrics.tally()
    assert (tally.read, tally.accepted) == (1, 1), "nothing was taken while the disk was full"
    with sqlite3.connect(tmp_path / "out" / "journal.sqlite") as db:
        assert db.execute("select state, attempts from files").fetchall() == [("done", 0)]


def test_a_disk_that_fills_under_a_micrograph_costs_it_no_attempt_and_a_bad_file_does(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("good.mrc", "bad.mrc"):
        (tmp_path / "in" / name).write_bytes(name.encode())
    settings = FolderSettings(directory=tmp_path / "in", settle_s=0, poll_s=0.01, attempts=5, retry_s=1000)
    source = FolderSource(settings, NoFacts(), journal=tmp_path / "j.sqlite", header=lambda *_: None)  # type: ignore[arg-type]
    source.open()
    taken: dict[str, Raw] = {}
    until = time.monotonic() + 10
    while len(taken) < 2 and time.monotonic() < until:
        taken |= {str(item.info["name"]): item for item in source.read(0.05) or () if isinstance(item, Raw)}
    failed = tell(source)
    failed(Failure(taken["good.mrc"].key, "disk_full", "no room"))
    failed(Failure(taken["bad.mrc"].key, "header", "not an image"))
    source.finish()
    with sqlite3.connect(tmp_path / "j.sqlite") as db:
        found = {name: rest for name, *rest in db.execute("select name, state, attempts from files")}
    assert found == {"good.mrc": ["waiting", 0], "bad.mrc": ["failed", 1]}


def test_the_demo_finds_the_particles_it_wrote(tmp_path: Path) -> None:
    out = tmp_path / "demo.json"
    command = [sys.executable, "-m", "beamsieve.stream", "demo", "--only", "cryoem_picks", "--seconds", "4.4"]
    command += ["--every", "0.8", "--out", str(tmp_path), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=58)
    assert done.returncode == 0, done.stderr
    assert "ended early" not in done.stderr, "six micrographs need less than the 4.4 s"
    found = json.loads(out.read_text())["cryoem_picks"]
    assert found["read"] == found["accepted"] + found["rejected"] + found["failed"] + found["dropped"]
    assert found["failures"] == {"truncated": 1}, "one is cut short"
    assert len(found["truncated"]) == len(found["changed"]) == 1
    assert found["accepted"] == found["written"] - 1 + 1, "all but that one, and one twice, because it changed"
    assert found["recall"] > 0.9
    assert found["precision"] > 0.85
    assert "true particles found" in done.stdout
    classes = found["classes"]
    assert classes["particles"] + classes["unlabelled"] == found["picks_in_files"]
    assert classes["views"] == 4
    assert classes["purity"] > 0.6, "a class is one view, as far as two hundred particles tell"
    assert "are in a class of their own view" in done.stdout
    assert Path(classes["picture"]).read_bytes().startswith(b"\x89PNG")
    assert list(Path(found["directory"], "pictures").rglob("*.png"))
