"""The daemon as a process: it starts, says when it is ready, drains on SIGTERM, survives what people do to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
import yaml
from beamsieve.stream.emulators.dectris import DectrisEmulator, Faults
from beamsieve.stream.recording import Reader

BRIGHT = np.full((64, 64), 5, np.uint16)
DARK = np.zeros((64, 64), np.uint16)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.02)  # polling another process: there is nothing to wait on
    raise AssertionError(f"waited {seconds} s for {what}")


class Daemon:
    """A daemon in a process, on a configuration that finds hits by lit pixels."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.port = free_port()
        settings: dict[str, Any] = {
            "beamline": "xfel_hits",
            "source": {"kind": "dectris", "endpoint": self.endpoint},
            "model": None,
            "screen": {"adu_threshold": 1, "hitscore_threshold": 100},
            "keep": {"miss_fraction": 0},
            "files": {"directory": "files", "min_free_gb": 0, "flush_s": 0.1},
            "service": {"port": self.port, "grace_s": 8, "silent_s": 1000},
        }
        for path, value in changes.items():
            block, _, name = path.partition("__")
            settings[block] = {**(settings.get(block) or {}), name: value} if name else value
        self.config = folder / "xfel.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.summary = folder / "summary.json"
        self.log = folder / "log.txt"

    def start(self) -> Daemon:
        arguments = ["run", str(self.config), "--json", str(self.summary)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "beamsieve.stream", *arguments],
                stderr=log,
                stdout=log,
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        until(lambda: self.get("/healthz") or self.process.poll() is not None, "the daemon to answer")
        return self

    def get(self, path: str) -> tuple[int, str] | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def ready(self) -> bool:
        return (self.get("/readyz") or (0, ""))[0] == 200

    def metric(self, name: str) -> float:
        answer = self.get("/metrics")
        lines = answer[1].splitlines() if answer else []
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        self.process.send_signal(how)
        return self.process.wait(seconds)

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.summary.read_text())["xfel_hits"]
        return found

    def files(self, pattern: str = "*") -> list[Path]:
        return sorted((self.folder / "files").glob(pattern))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(**changes: Any) -> Daemon:
        made.append(Daemon(tmp_path, **changes))
        return made[-1]

    yield make
    for each in made:
        if hasattr(each, "process") and each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def shots(n: int, hits_every: int = 4) -> list[tuple[np.ndarray[Any, Any], dict[str, Any]]]:
    return [(BRIGHT if i % hits_every == 0 else DARK, {}) for i in range(n)]


def emulate(at: Daemon, n: int, **options: Any) -> DectrisEmulator:
    return DectrisEmulator(at.endpoint, shots(n), images=n, **options)


@pytest.mark.parametrize(("how", "version"), [(signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_a_series_is_read_judged_written_and_drained(
    daemon: Callable[..., Daemon], how: signal.Signals, version: int
) -> None:
    running = daemon().start()
    with emulate(running, 400, version=version):
        until(lambda: running.metric("beamsieve_frames_read_total") >= 400, "400 shots")
        assert running.ready()
        assert running.stop(how) == 0
    found = running.result()
    assert found["read"] == 400
    assert found["accepted"] == 100
    assert found["rejected"] == 300
    assert found["failed"] == found["dropped"] == 0
    (path,) = running.files("*.cxi*")
    assert str(path) in found["files"]
    with h5py.File(path) as file:
        data = file["entry_1/instrument_1/detector_1/data"]
        assert data.shape == (100, 64, 64)
        assert (data[()] == 5).all()
        assert file["entry_1/result_1/number"][()].tolist() == list(range(0, 400, 4))


def test_sigterm_in_mid_stream_drains_what_was_read(daemon: Callable[..., Daemon]) -> None:
    running = daemon().start()
    with emulate(running, 10**6, rate_hz=2000, repeat=8):
        until(lambda: running.metric("beamsieve_frames_read_total") >= 500, "500 shots")
        running.process.send_signal(signal.SIGTERM)
        assert running.stop() == 0, "the second SIGTERM, as timeout(1) sends it, must not cut the draining short"
    found = running.result()
    assert found["read"] == found["accepted"] + found["rejected"] > 500
    (path,) = running.files("*.cxi")
    with h5py.File(path) as file:
        assert len(file["entry_1/data_1/data"]) == found["accepted"]


def test_no_sigterm_kills_a_daemon_that_is_on_its_way_out(daemon: Callable[..., Daemon]) -> None:
    running = daemon().start()
    with emulate(running, 50):
        until(lambda: running.metric("beamsieve_frames_read_total") >= 50, "50 shots")
    while running.process.poll() is None:
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert running.process.returncode == 0
    assert running.result()["read"] == 50


def test_sigkill_leaves_files_that_open_and_can_be_finished(daemon: Callable[..., Daemon]) -> None:
    running = daemon().start()
    with emulate(running, 10**6, rate_hz=2000, repeat=4):
        until(lambda: running.metric('beamsieve_written_total{what="hit"}') >= 200, "200 hits")
        until(lambda: running.files("*.inprogress"), "a file")
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    (path,) = running.files("*.cxi*")
    done = run("recover", str(path), cwd=running.folder)
    assert done.returncode == 0, done.stderr
    (path,) = running.files("*.cxi")
    with h5py.File(path) as file:
        data = file["entry_1/data_1/data"]
        assert len(data) >= 100
        assert (data[-1] == 5).all()


def test_bad_messages_lose_nothing_else_and_make_it_unready(daemon: Callable[..., Daemon]) -> None:
    running = daemon(service__failure_limit=0.01).start()
    with emulate(running, 200, faults=Faults(corrupt=frozenset(range(50, 60)), skip=frozenset({70, 71}))) as sender:
        until(lambda: running.metric("beamsieve_frames_read_total") >= 198, "198 shots")
        assert sender.finished.wait(10)

        def unready() -> bool:
            # The last of them are read, and may still be on their way to their end.
            code, body = running.get("/readyz") or (0, "")
            return code == 503 and "of the last 198 frames failed" in body

        until(unready, "not ready for what failed")
        assert running.metric('beamsieve_source_events_total{kind="missing"}') == 2
        assert running.stop() == 0
    found = running.result()
    assert found["failed"] == 10
    assert found["accepted"] + found["rejected"] == 188
    said, recording = map(Path, found["failed_messages"])
    assert [json.loads(line)["key"] for line in said.read_text().splitlines()] == [f"1:{n}" for n in range(50, 60)]
    assert len(list(Reader(recording))) == 10


def test_a_killed_sender_makes_it_unready_until_another_comes(daemon: Callable[..., Daemon]) -> None:
    running = daemon(service__silent_s=1.0).start()
    with emulate(running, 30, faults=Faults(no_end=True)):
        until(lambda: running.metric("beamsieve_frames_read_total") >= 30, "30 shots")
    assert "source silent" in until(lambda: (a := running.get("/readyz")) and a[0] == 503 and a[1], "silence")
    with emulate(running, 10**6, rate_hz=200, repeat=4, series=2):
        until(running.ready, "readiness")
        assert running.stop() == 0
    assert running.result()["events"]["no_end"] == 1


def test_a_daemon_that_hears_nothing_stops_at_once(daemon: Callable[..., Daemon]) -> None:
    running = daemon().start()
    until(running.ready, "readiness")
    assert running.stop(seconds=5) == 0
    assert f"listening to {running.endpoint} (dectris)" in running.log.read_text()
    assert running.result()["read"] == 0
    assert not running.files("*.cxi")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beamsieve.stream", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=50,
        check=False,
    )


def test_a_wrong_configuration_is_exit_2_with_every_mistake(daemon: Callable[..., Daemon]) -> None:
    wrong = daemon(source__endpont="x", model={"bundle": "hits-resnet10"}, flow={"burst": 0}, colour="red")
    done = run("run", str(wrong.config), cwd=wrong.folder)
    assert done.returncode == 2
    said = done.stderr.replace(str(wrong.config), "xfel.yaml")
    assert "source.endpont: unknown; did you mean endpoint?" in said
    assert "flow.burst: input should be greater than or equal to 1 (given 0)" in said
    assert "colour: unknown; known here: beamline, calibrate, detector" in said
    assert len(said.strip().splitlines()) == 3
    assert "Traceback" not in said


def test_what_the_configuration_names_is_checked_before_anything_runs(daemon: Callable[..., Daemon]) -> None:
    wrong = daemon(
        model={"bundle": "no-such-net"},
        calibrate={"kind": "standard", "dark": "nowhere.h5:/dark"},
        detector={"geometry": {"file": "nowhere.geom"}},
    )
    done = run("check", str(wrong.config), cwd=wrong.folder)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert any("model.bundle: " in line and "no-such-net" in line for line in lines)
    assert any("calibrate" in line and "nowhere.h5" in line for line in lines)
    assert any("detector.geometry.file: " in line and "nowhere.geom" in line for line in lines)
    assert all(line.startswith(f"{wrong.config}:") for line in lines)


def test_a_good_configuration_is_said_to_be_good(daemon: Callable[..., Daemon]) -> None:
    good = daemon()
    done = run("check", str(good.config), "--set", "flow.burst=8", cwd=good.folder)
    assert done.returncode == 0, done.stderr
    assert "good: xfel_hits from dectris, model lit pixels" in done.stdout


@pytest.mark.parametrize("what", ["port", "endpoint", "folder"])
def test_what_is_not_there_is_exit_1_with_a_remedy(daemon: Callable[..., Daemon], what: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        changes: dict[str, Any] = {
            "port": {"service__port": port},
            "endpoint": {"source__endpoint": f"tcp://127.0.0.1:{port}", "source__bind": True},
            "folder": {"files__directory": "/proc/nowhere"},
        }[what]
        at = daemon(**changes)
        done = run("run", str(at.config), cwd=at.folder)
    assert done.returncode == 1
    assert {"port": "service.port", "endpoint": str(port), "folder": "/proc/nowhere"}[what] in done.stderr
    assert "Traceback" not in done.stderr
