"""Real processes on one folder: killed at any moment, or two at once, and every file is done exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from beamsieve.stream.flow.frame import Raw
from beamsieve.stream.flow.ports import NoFacts
from beamsieve.stream.sources.folder import wake
from beamsieve.stream.sources.folder.report import report
from beamsieve.stream.sources.folder.settings import FolderSettings
from beamsieve.stream.sources.folder.source import FolderSource
from watchdog.events import (
    FileClosedEvent,
    FileClosedNoWriteEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileOpenedEvent,
    FileSystemEvent,
)

PATIENCE_S = 40.0

# Takes files, says when each is begun, writes its answer beside and renames it, and says that it is done.
WORKER = """
import os, sys, time
from pathlib import Path
from beamsieve.stream.flow.frame import Raw
from beamsieve.stream.flow.ports import NoFacts
from beamsieve.stream.sources.folder.settings import FolderSettings
from beamsieve.stream.sources.folder.source import FolderSource
base, work_s = Path(sys.argv[1]), float(sys.argv[2])
source = FolderSource(
    FolderSettings(
        directory=base / "in", poll_s=0.05, settle_s=0.05, frames=None, end_idle_s=0.5, claims=4, deaths=50,
        lease_s=3600,
    ),
    NoFacts(), journal=base / "out" / "journal.sqlite", header=lambda path, size: None,
)
source.open()
print("open", flush=True)
log = os.open(base / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(what, name):
    os.write(log, f"{what} {os.getpid()} {name}\\n".encode())
while (items := source.read(0.05)) is not None:
    for item in items:
        if isinstance(item, Raw):
            say("take", item.info["name"])
            time.sleep(work_s)
            source.done([item.key])
            say("done", item.info["name"])
source.close()
print("end", flush=True)
"""


@contextmanager
def started(base: Path, work_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(base), str(work_s)], stdout=subprocess.PIPE, text=True)
    try:
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def finish(worker: subprocess.Popen[str]) -> None:
    """Let it come to its end by itself."""
    out, _ = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0
    assert out.endswith("end\n")


def no_header(path: Path, size: int) -> Any:
    """These files are no images."""


def put(base: Path, names: Sequence[str]) -> None:
    for name in names:
        path = base / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 20)


def said(base: Path, what: str) -> Counter[str]:
    lines = [line.split(" ", 2) for line in (base / "log").read_text().splitlines()]
    return Counter(name for word, _, name in lines if word == what)


def workers(base: Path) -> int:
    return len({line.split(" ", 2)[1] for line in (base / "log").read_text().splitlines()})


def test_two_processes_with_one_journal_take_every_file_once(tmp_path: Path) -> None:
    names = [f"{i % 7}/m {i:03} ü.mrc" for i in range(200)]
    put(tmp_path, names)
    with started(tmp_path, 0.002) as one, started(tmp_path, 0.002) as other:
        finish(one)
        finish(other)
    assert said(tmp_path, "take") == Counter(names)
    assert said(tmp_path, "done") == Counter(names)
    assert workers(tmp_path) == 2  # or it would prove nothing
    assert report(tmp_path / "out" / "journal.sqlite").counts["done"] == 200


@pytest.mark.parametrize("seed", [0])
def test_a_process_killed_at_any_moments_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    names = [f"m{i:03}.mrc" for i in range(40)]
    put(tmp_path, names[:20])
    journal = tmp_path / "out" / "journal.sqlite"
    for kill in range(4):
        with started(tmp_path, 0.01) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "open\n"
            time.sleep(rng.uniform(0.0, 0.25))
            worker.send_signal(signal.SIGKILL)
            # Not reaped yet: a process that was killed and that nobody has asked about is dead all the same.
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
            mine = [daemon for daemon in report(journal).daemons if daemon.pid == worker.pid]
            assert [daemon.alive for daemon in mine] == [False]
            if kill == 2:
                put(tmp_path, names[20:])
    with started(tmp_path) as last:
        finish(last)  # long before the lease is over: the dead are known to be dead
    found = report(journal, limit=100)
    assert {state: n for state, n in found.counts.items() if n} == {"done": 40}
    assert sorted(file.name for file in found.done) == names
    assert {file.revision for file in found.done} == {0}
    assert max(said(tmp_path, "done").values()) == 1
    # What was said to be done before a kill was never begun again.
    begun_after_done: set[str] = set()
    done: set[str] = set()
    for line in (tmp_path / "log").read_text().splitlines():
        word, _, name = line.split(" ", 2)
        if word == "done":
            done.add(name)
        elif name in done:
            begun_after_done.add(name)
    assert begun_after_done == set()
    assert found.daemons == []


def test_a_file_that_kills_its_daemon_again_and_again_is_set_aside(tmp_path: Path) -> None:
    put(tmp_path, ["deadly.mrc"])
    journal = tmp_path / "out" / "journal.sqlite"
    killer = WORKER.replace("time.sleep(work_s)", "os.kill(os.getpid(), 9)").replace("deaths=50", "deaths=3")
    for death in range(3):
        worker = subprocess.run(
            [sys.executable, "-c", killer, str(tmp_path), "0"], stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False
        )
        assert worker.returncode == -signal.SIGKILL, death
    harmless = subprocess.run(
        [sys.executable, "-c", killer, str(tmp_path), "0"], stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False
    )
    assert harmless.returncode == 0
    (aside,) = report(journal).set_aside
    assert (aside.name, aside.reason, aside.deaths) == ("deadly.mrc", "killed", 3)
    assert "killed 3 times" in json.loads((tmp_path / "out/set_aside/deadly.mrc.json").read_text())["detail"]


def test_events_of_the_file_system_wake_a_source_long_before_its_poll(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    settings = FolderSettings(directory=tmp_path / "in", poll_s=3600, settle_s=0.2)
    source = FolderSource(settings, NoFacts(), journal=tmp_path / "in" / "out" / "j.sqlite", header=no_header)
    source.open()
    try:
        for _ in range(5):
            source.read(0.02)
        (tmp_path / "in" / "sub" / "a.mrc").write_bytes(b"123")
        until = time.monotonic() + PATIENCE_S
        found: list[Raw] = []
        while not found and time.monotonic() < until:
            found = [item for item in source.read(0.1) or () if isinstance(item, Raw)]
        assert [raw.info["name"] for raw in found] == ["sub/a.mrc"]
        source.done([raw.key for raw in found])
        # Its own journal, in a folder below, and its own reading wake nobody.
        looked: list[float] = []
        look = source._look
        source._look = lambda now: looked.append(now) or look(now)  # type: ignore[method-assign, func-returns-value]
        for _ in range(30):
            source.read(0.05)
        assert len(looked) <= 2
    finally:
        source.finish()


def test_what_we_write_and_read_ourselves_rings_no_bell(tmp_path: Path) -> None:
    bell = wake.Wake(NoFacts(), [tmp_path / "out", tmp_path / "journal.sqlite"])

    def rings(event: FileSystemEvent) -> bool:
        bell.on_any_event(event)
        return bell.wait(0)

    ours = ["out", "out/picks.star", "journal.sqlite", "journal.sqlite-wal"]
    assert [name for name in ours if rings(FileModifiedEvent(str(tmp_path / name)))] == []
    theirs = ["a.mrc", "output.mrc", "sub/a.mrc", "journal.mrc"]
    assert [name for name in theirs if rings(FileModifiedEvent(str(tmp_path / name)))] == theirs
    assert rings(FileMovedEvent(str(tmp_path / "out" / "a.tmp"), str(tmp_path / "a.mrc")))
    assert rings(FileClosedEvent(str(tmp_path / "a.mrc")))
    assert not rings(FileOpenedEvent(str(tmp_path / "a.mrc")))
    assert not rings(FileClosedNoWriteEvent(str(tmp_path / "a.mrc")))


def test_without_file_events_it_says_so_and_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class NoWatches:
        def schedule(self, *_: object, **__: object) -> None:
            raise OSError(28, "inotify watch limit reached")

    events: list[str] = []

    class Told(NoFacts):
        def event(self, kind: str, n: int = 1) -> None:
            events.extend([kind] * n)

    monkeypatch.setattr(wake, "Observer", NoWatches)
    (tmp_path / "in").mkdir()
    settings = FolderSettings(directory=tmp_path / "in", poll_s=0.02, settle_s=0.02)
    source = FolderSource(settings, Told(), journal=tmp_path / "j.sqlite", header=no_header)
    source.open()
    try:
        put(tmp_path, ["a.mrc"])
        until = time.monotonic() + PATIENCE_S
        found: list[Raw] = []
        while not found and time.monotonic() < until:
            found = [item for item in source.read(0.05) or () if isinstance(item, Raw)]
        assert len(found) == 1
    finally:
        source.finish()
    assert events == ["no_folder_events"]
    assert "inotify watch limit reached" in caplog.text
    assert str(tmp_path / "in") in caplog.text
