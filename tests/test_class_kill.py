"""A real daemon that picks and classifies: stopped, and killed at any moment, it goes on without losing a particle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import yaml
from beamsieve.models.particles.conditions import named
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.simulator import Simulated, simulate
from beamsieve.stream.sinks.picks.classes_file import ClassTables, read_classes
from beamsieve.tests.class_sessions import blur_bundle, particles, write_record
from beamsieve.tests.prometheus_server import free_port

PATIENCE_S = 50.0


@pytest.fixture(scope="module")
def field() -> Simulated:
    return simulate(990_003, 0, named("small", snr=0.1), load_map("ribosome"))


class Daemon:
    """``beamsieve run`` in ``folder``, in a process, again and again."""

    def __init__(self, folder: Path, field: Simulated) -> None:
        self.folder, self.field, self.port = folder, field, free_port()
        blur_bundle(folder)
        settings = {
            "beamline": "cryoem_picks",
            "source": {"kind": "folder", "directory": "in", "settle_s": 0.0, "poll_s": 0.05},
            "model": {"bundle": "particles-ribosome", "threads": 1},
            "files": {
                "directory": "out",
                "formats": ["csv", "star"],
                "particles": {"size_px": 64},
                "pictures": False,
                "min_free_gb": 0,
                "tables_every_s": 0.2,
            },
            "classes": {"bundle": "./blur.pt", "first_at": 50, "per_class": 15, "number": 4, "finetune": False},
            "service": {"port": self.port, "page": True},
        }
        (folder / "x.yaml").write_text(yaml.safe_dump(settings))
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

    def expose(self, name: str) -> None:
        """A micrograph, mirrored so that none is like another."""
        image = self.field.image.astype(np.float32)
        with mrcfile.new(self.folder / f"{name}.part") as out:
            out.set_data(np.ascontiguousarray(np.roll(image, 7 * sum(map(ord, name)) % 50, axis=1)))
            out.voxel_size = self.field.pixel_a
        (self.folder / f"{name}.part").rename(self.folder / "in" / f"{name}.mrc")

    def classes(self) -> ClassTables | None:
        try:
            return read_classes(self.folder / "out" / "classes.h5")
        except FileNotFoundError:
            return None

    def act(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        """What a signed-in person asks of the page."""
        token = (self.folder / "out" / "page.token").read_text().strip()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        found: dict[str, Any] = {}
        for path, sent in (("login", {"token": token, "name": "Ana"}), (f"live/act/{action}", body)):
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}/{path}",
                json.dumps(sent).encode(),
                {"Content-Type": "application/json", "X-Beamsieve": "1"},
            )
            with opener.open(request, timeout=10) as answer:
                found = json.loads(answer.read())
        return found

    def until(self, true: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE_S
        while not (found := true()):
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, f"{what}\n{self.log()}"
            time.sleep(0.05)
        return found

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]


def every_particle_once(directory: Path, found: ClassTables) -> None:
    """Labels, averages and records say the same."""
    counts = zip(found.micrographs["file"].tolist(), found.micrographs["count"].tolist(), strict=True)
    assert dict(counts) == recorded(directory)
    assert (found.particles["class"] > 0).all()
    numbers, members = np.unique(found.particles["class"], return_counts=True)
    listed = zip(found.classes["id"].tolist(), found.classes["count"].tolist(), strict=True)
    assert dict(listed) == dict(zip(numbers.tolist(), members.tolist(), strict=True))
    assert int(found.state["averages_counts"].sum()) == len(found.particles) + found.facts["went"]


def recorded(directory: Path) -> dict[str, int]:
    """Particles with an image, by record."""
    found = {}
    for path in (directory / "micrographs").glob("*.h5"):
        with h5py.File(path) as file:
            found[path.name] = len(file["particles/images"])
    return found


@pytest.fixture
def daemon(tmp_path: Path, field: Simulated) -> Iterator[Daemon]:
    made = Daemon(tmp_path, field)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_killed_and_stopped_it_goes_on_with_labels_classes_and_marks(daemon: Daemon) -> None:
    for name in "abc":
        daemon.expose(name)
    daemon.start()

    def all_labelled() -> ClassTables | None:
        found = daemon.classes()
        return found if found is not None and len(found.micrographs) == 3 else None

    found = daemon.until(all_labelled, "three micrographs' labels")
    number = int(found.classes["id"][0])
    answer = daemon.act("class", {"id": number, "mark": "bad"})
    assert [row["mark"] for row in answer["classes"]["list"] if row["id"] == number] == ["bad"]
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL

    daemon.expose("d")
    daemon.start()
    daemon.until(lambda: (t := daemon.classes()) and len(t.micrographs) == 4, "the fourth micrograph's labels")
    daemon.expose("e")
    daemon.until(lambda: "e.mrc.h5" in recorded(daemon.folder / "out"), "the fifth micrograph's record")
    assert daemon.end(signal.SIGTERM) == 0, daemon.log()
    stored = read_classes(daemon.folder / "out" / "classes.h5")
    every_particle_once(daemon.folder / "out", stored)
    assert len(stored.micrographs) == 5
    marks = dict(zip(stored.classes["id"].tolist(), stored.classes["mark"].tolist(), strict=True))
    assert marks[number] == b"bad", "made a moment before the kill"
    assert int(stored.particles["rejected"].sum()) == int((stored.particles["class"] == number).sum()) > 0
    with h5py.File(daemon.folder / "out" / "session.h5") as file:
        assert file["particles/class"][()].tolist() == stored.particles["class"].tolist(), "the last ones, too"
        assert file["particles/rejected"][()].tolist() == stored.particles["rejected"].tolist()
    assert (daemon.folder / "out" / "classes.png").exists()
    summary = json.loads((daemon.folder / "summary.json").read_text())["cryoem_picks"]
    assert summary["classes"]["classified"] == len(stored.particles)
    assert summary["classes"]["unlabelled"] == 0


WORKER = """
import sys
from pathlib import Path
from beamsieve.stream.beamlines.class_settings import ClassSettings
from beamsieve.stream.beamlines.class_worker import LiveClasses
from beamsieve.tests.class_sessions import Session
import time
directory = Path(sys.argv[1])
settings = ClassSettings(number=4, first_at=50, per_class=10, growth=1.3)
session = Session(directory, settings, clock=time.monotonic, wall=time.time, every_s=0.02)
classes = LiveClasses(session.work, session.keeping)
classes.open()
print("open", flush=True)
if sys.argv[2] == "end":
    classes.finish(60.0)
    classes.close()
else:
    time.sleep(60)
"""


def test_killed_at_any_moments_no_particle_is_lost_or_counted_twice(tmp_path: Path) -> None:
    """Only the classes, in a process of their own, since a whole daemon takes seconds to start."""
    random = np.random.default_rng(5)
    count = 0
    for at in range(2):
        for record in range(4):
            write_record(tmp_path, f"{at}-{record}.mrc", particles(20, count)[0])
            count += 20
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), "wait"], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        with worker.stdout as said:
            assert said.readline() == b"open\n"
            time.sleep(float(random.uniform(0.05, 1.0)))
            worker.kill()
        worker.wait()
    write_record(tmp_path, "0-0.mrc", particles(20, 0)[0][:5])
    subprocess.run([sys.executable, "-c", WORKER, str(tmp_path), "end"], check=True, timeout=PATIENCE_S)
    found = read_classes(tmp_path / "classes.h5")
    every_particle_once(tmp_path, found)
    assert len(found.particles) == count - 15
