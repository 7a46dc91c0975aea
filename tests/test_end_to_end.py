"""The main job whole: simulated shots over a socket, the shipped network, hit rates, files; and offline the same."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from beamsieve.models.bundle import load_bundle
from beamsieve.models.hits.infer import CLASSES
from beamsieve.models.hits.simulator import Patterns, Recipe, simulate_block
from beamsieve.models.runner import Runner
from beamsieve.stream.beamlines.xfel_hits import XfelHits, build
from beamsieve.stream.emulators.dectris import DectrisEmulator
from beamsieve.stream.emulators.karabo import KaraboEmulator, Layout
from beamsieve.stream.flow.settings import Where

BUNDLE = "hits-resnet10"


@pytest.fixture(scope="module")
def patterns() -> Patterns:
    """Sixty patterns, twelve of each class, of a particle model that no training has seen (stream ``test``)."""
    labels = np.repeat(np.arange(5, dtype=np.int8), 12)
    made = simulate_block(Recipe(seed=77, stream="test", per_model=60), 3, labels=labels)
    # A DECTRIS detector says 65535 where it has no pixel.
    return replace(made, images=np.minimum(made.images, 65534))


def beamline(folder: Path, source: dict[str, Any], **changes: Any) -> Any:
    settings = XfelHits.model_validate(
        {
            "beamline": "xfel_hits",
            "source": source,
            "model": {"bundle": BUNDLE, "batch": 16, "dtype": "float32", "threads": 1},
            "keep": {"miss_fraction": 1.0, "seed": 1},
            "files": {"directory": str(folder), "min_free_gb": 0},
            **changes,
        }
    )
    return build(settings, Where(folder / "xfel.yaml"), config="text of the configuration")


def written(path: Path) -> tuple[Any, ...]:
    with h5py.File(path) as file:
        result = file["entry_1/result_1"]
        order = np.argsort(result["number"][()], kind="stable")
        data = file["entry_1/data_1/data"][()][order]
        return (
            data,
            result["class_probabilities"][()][order],
            result["number"][()][order],
            result["sampling_weight"][()][order],
        )


def test_a_dectris_stream_becomes_verdicts_and_a_file(tmp_path: Path, patterns: Patterns) -> None:
    shots: list[tuple[Any, dict[str, Any]]] = [(image, {}) for image in patterns.images]
    sender = DectrisEmulator("tcp://127.0.0.1:*", shots)
    with sender:
        daemon = beamline(tmp_path, {"kind": "dectris", "endpoint": sender.endpoint})
        daemon.pipeline.start()
        assert sender.finished.wait(30)
        # The end of the series is the last message: once its file is closed, everything before it was judged.
        while not daemon.files.files and not daemon.pipeline.wait(0.02):
            pass
        daemon.pipeline.stop()
        assert daemon.pipeline.wait(20)
    assert daemon.pipeline.error is None
    tally = daemon.pipeline.metrics.tally()
    assert (tally.read, tally.failed, tally.dropped) == (60, 0, 0)
    assert abs(tally.accepted - 12) <= 1, "twelve single hits were sent"
    (path,) = daemon.files.files
    data, probabilities, numbers, weights = written(path)
    assert (data == patterns.images).all(), "pixels came through bit by bit"
    assert numbers.tolist() == list(range(60))
    assert (weights == 1).all(), "with all misses kept, each stands for itself"
    assert (probabilities.argmax(1) == patterns.labels).mean() >= 0.95
    answers = {label: n for (_, label), n in daemon.pipeline.metrics.verdicts().items()}
    assert answers == {CLASSES[k]: n for k, n in enumerate(np.bincount(probabilities.argmax(1), minlength=5)) if n}
    offline = tmp_path / "scores.csv"
    command = ["classify", str(path), "--bundle", BUNDLE, "--out", str(offline), "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "beamsieve.stream", *command], check=True, capture_output=True)
    with offline.open() as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["file", "index", "p0", "p1", "p2", "p3", "p4", "label"]
    again = np.array([[float(row[f"p{k}"]) for k in range(5)] for row in rows])
    with h5py.File(path) as file:
        result = file["entry_1/result_1"]
        np.testing.assert_allclose(again, result["class_probabilities"][()], atol=0.02)
        assert result["photons"][()].tolist() == data.sum(axis=(1, 2), dtype=np.int64)[result["number"][()]].tolist()
        # The emulated detector takes its images on a schedule of its own, beginning when the series is armed.
        assert np.ptp(result["source_time"][()]) == pytest.approx(59 * result["exposure_time"][0], rel=0.2)


def test_karabo_trains_of_modules_are_assembled_and_judged(tmp_path: Path, patterns: Patterns) -> None:
    """Each 128×128 pattern is sent as a stack of two modules of 64 rows; a geometry puts them together again."""
    (tmp_path / "two.geom").write_text(GEOMETRY)
    shots: list[tuple[Any, dict[str, Any]]] = [(image, {}) for image in patterns.images]
    layout = Layout("SPB/DET/STACK:xtdf", "image.data", 20, "file", 2, False)
    sender = KaraboEmulator("tcp://127.0.0.1:*", iter(shots), layout, "push", "2.2", rate_hz=0, wait=True)
    source = {"kind": "karabo", "pattern": "pull", "source": layout.source, "axes": "file", "endpoint": sender.open()}
    daemon = beamline(tmp_path, source, detector={"geometry": {"file": str(tmp_path / "two.geom")}})
    daemon.pipeline.start()
    sender.run(threading.Event())
    sender.close()
    while daemon.pipeline.metrics.tally().read < 60 and not daemon.pipeline.wait(0.02):
        pass
    daemon.pipeline.stop()
    assert daemon.pipeline.wait(20)
    assert daemon.pipeline.error is None
    tally = daemon.pipeline.metrics.tally()
    assert (tally.read, tally.failed, tally.dropped) == (60, 0, 0), tally
    (path,) = daemon.files.files
    with h5py.File(path) as file:
        assert file["entry_1/data_1/data"].shape == (60, 2, 64, 128)
        found = file["entry_1/result_1/class_probabilities"][()].argmax(1)
        names = [name.decode() for name in file["entry_1/experiment_identifier"][()]]
    assert (found == patterns.labels).mean() >= 0.95
    assert names[1].endswith(":1")
    assert names[21].endswith(":1")


GEOMETRY = """
photon_energy = 1600
clen = 0.5
res = 13333.3
data = /data
dim0 = %
dim2 = ss
dim3 = fs
low/dim1 = 0
low/min_fs = 0
low/max_fs = 127
low/min_ss = 0
low/max_ss = 63
low/fs = +1.0x
low/ss = +1.0y
low/corner_x = -64
low/corner_y = -64
high/dim1 = 1
high/min_fs = 0
high/max_fs = 127
high/min_ss = 0
high/max_ss = 63
high/fs = +1.0x
high/ss = +1.0y
high/corner_x = -64
high/corner_y = 0
"""


def test_the_shipped_network_holds_what_its_card_says() -> None:
    """A small part of ``beamsieve evaluate hits``: four unseen particle models under the paper's conditions."""
    bundle = load_bundle(BUNDLE)
    said = bundle.card.scores["conditions"]["paper's conditions"]
    assert said["accuracy"]["value"] >= 0.99
    assert said["false_positive"]["value"] < 0.005
    blocks = [simulate_block(Recipe(seed=78, stream="test"), block) for block in range(4)]
    images, labels = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("images", "labels"))
    found = Runner(bundle, batch=50, device="cpu", dtype="float32").scores(images)
    assert (found.argmax(1) == labels).mean() >= 0.975
    assert ((found[:, 1] >= bundle.card.threshold) & (labels != 1)).sum() <= 3


def test_the_demo_runs_and_its_numbers_add_up(tmp_path: Path) -> None:
    out = tmp_path / "demo.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "beamsieve.stream",
            "demo",
            "--only",
            "xfel_hits",
            "--seconds",
            "3",
            "--out",
            str(tmp_path),
            "--json",
            str(out),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=58,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["xfel_hits"]
    assert found["read"] == found["accepted"] + found["rejected"] + found["failed"] + found["dropped"] > 200
    assert found["read"] == found["sent"]
    assert abs(found["measured_hits"] - found["true_hits"]) <= 2
    assert "hit rate" in done.stdout
    for name in found["files"]:
        with h5py.File(name) as file:
            assert file["entry_1/data_1/data"].shape[1:] == (128, 128)
