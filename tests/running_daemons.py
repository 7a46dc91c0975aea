"""Both daemons as processes with data coming in, for tests that look at them from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import yaml
from beamsieve.models.particles.conditions import named
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.simulator import Simulated, simulate
from beamsieve.stream.emulators.dectris import DectrisEmulator, Faults
from beamsieve.stream.emulators.frames import FrameSpec, simulated
from beamsieve.tests.prometheus_server import Target, free_port

RATE_HZ = 40.0
SIDE = 128
EVERY_S = 0.7
ENDLESS = 10**6
SHOTS = 24


@dataclass
class Running:
    """A daemon in a process. ``log``: what it wrote; ``port``: where /metrics is."""

    beamline: str
    config: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> Target:
        """What Prometheus scrapes."""
        return Target(f"127.0.0.1:{self.port}", self.beamline)

    @property
    def log(self) -> Path:
        """The file of its standard error."""
        return self.config.with_suffix(".log")

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "beamsieve.stream", "run", str(self.config)],
                stdout=log,
                stderr=log,
                cwd=self.config.parent,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        deadline = time.monotonic() + 40
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.get("/healthz"):
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.beamline} does not answer:\n{self.log.read_text()[-3000:]}")

    def get(self, path: str) -> str:
        """The body of an answer, whatever its status; the empty string while there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read().decode())
        except OSError:
            return ""

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it with a signal, and wait until it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)


@dataclass(frozen=True)
class Both:
    """The two daemons."""

    hits: Running
    picks: Running

    @property
    def targets(self) -> list[Target]:
        """What Prometheus scrapes."""
        return [self.hits.target, self.picks.target]


@contextmanager
def both_running(folder: Path) -> Iterator[Both]:
    """Both daemons in ``folder``: frames at 40 a second, some numbers missing, and a micrograph every 0.7 s."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    hits = configured(folder, hits_settings(endpoint))
    picks = configured(folder, picks_settings(folder / "microscope"))
    with ExitStack() as leaving:
        leaving.callback(hits.kill)
        leaving.callback(picks.kill)
        starts = [threading.Thread(target=one.start) for one in (hits, picks)]
        for start in starts:
            start.start()
        # Meanwhile, for a process loads torch for seconds.
        sent = shots()
        exposure = simulate(990_002, 0, named("small", snr=0.1), load_map("ribosome"))
        for start in starts:
            start.join()
        for one in (hits, picks):
            assert one.get("/healthz"), one.log.read_text()[-3000:]
        missing = Faults(skip=frozenset(range(100, 100_000, 20)))
        sender = DectrisEmulator(endpoint, sent, rate_hz=RATE_HZ, repeat=SHOTS, images=ENDLESS, faults=missing)
        leaving.enter_context(sender)
        leaving.enter_context(exposing(folder / "microscope", exposure))
        yield Both(hits, picks)


def configured(folder: Path, settings: dict[str, Any]) -> Running:
    """The daemon of these settings, on a free port, not yet started."""
    port = free_port()
    config = folder / f"{settings['beamline']}.yaml"
    config.write_text(yaml.safe_dump({**settings, "service": {"port": port}}))
    return Running(settings["beamline"], config, port)


def hits_settings(endpoint: str) -> dict[str, Any]:
    """A detector's daemon with the network that ships."""
    return {
        "beamline": "xfel_hits",
        "source": {"kind": "dectris", "endpoint": endpoint},
        "model": {"bundle": "hits-resnet10", "batch": 8, "wait_ms": 20},
        "keep": {"miss_fraction": 0.1},
        "files": {"directory": "hits", "min_free_gb": 0},
    }


def picks_settings(directory: Path) -> dict[str, Any]:
    """A microscope's daemon, impatient."""
    directory.mkdir()
    return {
        "beamline": "cryoem_picks",
        "source": {"kind": "folder", "directory": str(directory), "settle_s": 0.0, "poll_s": 0.2, "incomplete_s": 600},
        "model": {"bundle": "particles-ribosome", "threads": 1},
        "files": {"directory": "picks", "formats": ["star"], "pictures": False, "min_free_gb": 0},
    }


def shots() -> list[tuple[np.ndarray[Any, Any], Mapping[str, Any]]]:
    """Simulated shots of 128 x 128 pixels, a third of them with one particle."""
    spec = FrameSpec(hits=0.34, multiples=0.0, size=SIDE, pool=2, seed=7)
    return list(islice(simulated(spec), SHOTS))


@contextmanager
def exposing(directory: Path, exposure: Simulated) -> Iterator[None]:
    """Drop the micrograph into ``directory`` every 0.7 s, shifted, as long as inside; and one that is cut short."""
    over = threading.Event()

    def expose() -> None:
        for number in count():
            image = np.roll(exposure.image.astype(np.float32), 61 * number, axis=1)
            hidden = directory / f".m{number:03}.part"
            with mrcfile.new(hidden) as out:
                out.set_data(image)
                out.voxel_size = exposure.pixel_a
            if number == 0:
                (directory / "cut.mrc").write_bytes(hidden.read_bytes()[:-5000])
            hidden.rename(directory / f"m{number:03}.mrc")
            if over.wait(EVERY_S):
                return

    thread = threading.Thread(target=expose)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
