"""A real daemon of tomograms, killed and stopped: what was done is done once, the rest at the next start."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from beamsieve.models.tomograms.book import read_clusters
from beamsieve.models.tomograms.mine import Miner
from beamsieve.models.tomograms.told import Stopped
from beamsieve.stream.__main__ import app
from beamsieve.stream.beamlines.cryoet_mining import CryoetMining, build
from beamsieve.stream.flow.settings import Where
from beamsieve.stream.sinks.tomograms.record import read
from beamsieve.tests.mining_sessions import network, settings, write
from beamsieve.tests.prometheus_server import free_port
from typer.testing import CliRunner

PATIENCE_S = 50.0


class Process:
    """``beamsieve run`` in ``folder``, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        chosen = settings(folder, network(folder / "nets"), source={"end_idle_s": None}, service={"port": self.port})
        (folder / "x.yaml").write_text(yaml.safe_dump(chosen))
        (folder / "in").mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "beamsieve.stream", "run", "x.yaml", "--json", "summary.json"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)

    def until(self, so: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not so():
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, f"{what}\n{self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def records(self) -> list[Path]:
        return sorted((self.folder / "out" / "session").glob("*.h5"))

    def drop(self, name: str, seed: int) -> None:
        """Whole under another name, then renamed: a kill finds no file that grows."""
        write(self.folder / f"{name}.part", seed)
        (self.folder / f"{name}.part").rename(self.folder / "in" / f"{name}.mrc")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_killed_it_loses_nothing_and_doubles_nothing(process: Process) -> None:
    for number in (1, 2):
        process.drop(f"t{number}", number)
    process.start()
    process.until(process.records, "a first tomogram")
    process.end(signal.SIGKILL)
    assert len(process.records()) < 3
    process.drop("t3", 3)
    folder = process.folder
    chosen = settings(folder, folder / "nets" / "tiny.pt")
    made = build(CryoetMining.model_validate(chosen), Where(folder / "x.yaml", {}))
    made.pipeline.run()
    made.close()
    tally = made.pipeline.metrics.tally()
    assert tally.read == tally.accepted
    assert tally.read in {1, 2, 3}, "what was written before the kill may not have been noted in the journal"
    found = read_clusters(folder / "out" / "clusters.h5")
    assert found is not None
    assert len(process.records()) == 3
    for path in process.records():
        one = read(path)
        np.testing.assert_array_equal(one.picked.cluster, found.assign(one.picked.codes)[0])
    with sqlite3.connect(folder / "out" / "journal.sqlite") as journal:
        assert journal.execute("select state, count(*) from files group by state").fetchall() == [("done", 3)]
    told = CliRunner().invoke(app, ["status", str(folder / "out")])
    assert told.exit_code == 0
    assert "3 done" in told.output
    assert "subvolumes" in told.output
    assert not list((folder / "out").rglob("*.tmp"))


def test_sigterm_ends_it_with_0_and_a_summary(process: Process) -> None:
    process.drop("t1", 1)
    process.start()
    process.until(process.records, "a tomogram")
    metrics = _get(f"http://127.0.0.1:{process.port}/metrics")
    assert 'beamsieve_tomogram_mode{mode="explore"} 1.0' in metrics
    assert process.end(signal.SIGTERM) == 0, process.log()
    summary = json.loads((process.folder / "summary.json").read_text())["cryoet_mining"]
    assert (summary["read"], summary["accepted"]) == (1, 1)
    assert summary["subvolumes"]["unmarked"] > 20


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_what_is_in_work_at_an_abort_is_given_back_and_what_waits_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        write(tmp_path / "in" / f"t{number}.mrc", number)
    chosen = settings(tmp_path, network(tmp_path / "nets"), source={"end_idle_s": None})
    made = build(CryoetMining.model_validate(chosen), Where(tmp_path / "x.yaml", {}))
    begun, asked = threading.Event(), []

    def endless(*_: Any, stop: Callable[[], bool], **__: Any) -> None:
        asked.append(1)
        begun.set()
        while not stop():
            time.sleep(0.01)
        raise Stopped("pick")

    monkeypatch.setattr(Miner, "mine", endless)
    made.pipeline.start()
    assert begun.wait(30)
    assert made.work.telling.now is None
    made.pipeline.stop()
    assert not made.pipeline.wait(0.3), "what is in work may be finished"
    made.pipeline.abort()
    assert made.pipeline.wait(20), "it ends at once"
    made.close()
    made.pipeline.settle()
    tally = made.pipeline.metrics.tally()
    assert (tally.accepted, tally.failed, tally.balanced) == (0, 0, True)
    assert tally.dropped == tally.read
    assert asked == [1], "the other is not begun"
    with sqlite3.connect(tmp_path / "out" / "journal.sqlite") as journal:
        states = dict(journal.execute("select name, state from files").fetchall())
    assert set(states.values()) == {"waiting"}, "both are done at the next start"
    assert not list((tmp_path / "out" / "session").rglob("*.h5"))


def test_a_stop_while_one_is_in_work_finishes_it_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        write(tmp_path / "in" / f"t{number}.mrc", number)
    chosen = settings(tmp_path, network(tmp_path / "nets"), source={"end_idle_s": None})
    made = build(CryoetMining.model_validate(chosen), Where(tmp_path / "x.yaml", {}))
    mine = Miner.mine

    def stopped_meanwhile(*args: Any, **options: Any) -> Any:
        made.pipeline.stop()
        return mine(*args, **options)

    monkeypatch.setattr(Miner, "mine", stopped_meanwhile)
    made.pipeline.start()
    assert made.pipeline.wait(30)
    made.close()
    made.pipeline.settle()
    tally = made.pipeline.metrics.tally()
    assert tally.accepted == 1
    assert tally.balanced
    with sqlite3.connect(tmp_path / "out" / "journal.sqlite") as journal:
        states = sorted(state for (state,) in journal.execute("select state from files"))
    assert states in (["done"], ["done", "waiting"])


def test_a_wrong_configuration_ends_with_2_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "x.yaml"
    path.write_text(
        "beamline: cryoet_mining\nsource: {directory: in}\nmodel: {bundle: none-of-that-name, sigma: 0}\n"
        "clusters: {nummber: 3}\nfiles: {directory: out}\n"
    )
    result = CliRunner().invoke(app, ["run", str(path)])
    assert result.exit_code == 2
    assert f"{path}:3: model.sigma" in result.output
    assert "did you mean number?" in result.output
    path.write_text("beamline: cryoet_mining\nsource: {directory: in}\nfiles: {directory: in}\n")
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    assert f"{path}:2: source" in result.output
    assert "take: tomograms" in result.output
    assert "is the watched folder" in result.output
