"""The demo's tomograms: clusters marked by the truth of their members, and what is said of the tomograms after that."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from beamsieve.models.tomograms.groups_file import read_groups
from beamsieve.stream.beamlines.cryoet_mining import CryoetMining
from beamsieve.stream.commands import demo_mining, demo_truth
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.sinks.picks.files import write_whole
from beamsieve.stream.sinks.tomograms.mined import LabelFiles, MinedTomogram, Picked
from beamsieve.stream.sinks.tomograms.places import Places
from beamsieve.stream.sinks.tomograms.record import encode

SHAPE = (16, 32, 48)
CLASSES = ("background", "membrane", "ribosome", "globule", "carbon", "gold")


def volume(path: Path, data: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with MrcWriter(path, data.shape, 0, 14.2) as writer:
        writer.write(data.astype(np.int8))


def truth(folder: Path, stem: str) -> npt.NDArray[np.uint8]:
    """A membrane at x < 8, a ribosome about x = 24, and at x > 40 a membrane that no tilt shows."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :, :8] = labels[:, :, 40:] = 1
    labels[4:12, 12:20, 20:28] = 2
    hidden = np.zeros(SHAPE, np.uint8)
    hidden[:, :, 40:] = 1
    volume(folder / f"{stem}_labels.mrc", labels)
    volume(folder / f"{stem}_hidden.mrc", hidden)
    (folder / "classes.json").write_text(json.dumps(dict(enumerate(CLASSES))))
    with (folder / f"{stem}_particles.csv").open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("x", "y", "z", "class", "map", "diameter_a"))
        rows.writerow((23.5, 15.5, 7.5, "ribosome", "70S", 113.6))
    return labels


def record(mined: Path, name: str, places: list[tuple[int, int]], labels: Path | None = None) -> None:
    """A record of sub-volumes at (x, 16, 8) in a cluster each; marked as the groups of the file are, if there are."""
    groups = read_groups(mined / "groups.yaml")
    cluster = np.array([number for _, number in places], np.int32)
    found = MinedTomogram(
        name=name,
        path=Path(name),
        shape=SHAPE,
        voxel_a=14.2,
        working_voxel_a=14.2,
        picked=Picked.of(
            np.array([(x, 16, 8) for x, _ in places], np.float32),
            np.ones(len(places), np.float32),
            np.zeros((len(places), 32), np.float32),
            cluster=cluster,
            label=groups.values(cluster),
        ),
        network="net",
        network_sha256="0" * 64,
        threshold=3.0,
        clusters_version=1,
        classes=groups.names,
        segmentation=None if labels is None else LabelFiles(labels, groups.names),
    )
    path = Places(mined).record(name)
    write_whole(path, encode(found, stem=name.removesuffix(".mrc"), path=path))


def test_clusters_are_marked_by_most_of_their_members_and_hidden_membranes_count_as_nothing(tmp_path: Path) -> None:
    mined = tmp_path / "mined"
    truth(tmp_path / "truth", "TS_1")
    #              membrane                 ribosome                    nothing                     hidden        few
    places = [(4, 1), (5, 1), (24, 1), (23, 2), (24, 2), (25, 2), (34, 3), (34, 3), (24, 3), (44, 4), (45, 4), (46, 4)]
    record(mined, "TS_1.mrc", [*places, (4, 5)])
    told = demo_truth.mark(mined, tmp_path / "truth")
    assert [(one["name"], one["clusters"]) for one in told] == [("membrane", [1]), ("globule", [2])]
    groups = read_groups(mined / "groups.yaml")
    assert groups.marks() == {1: "membrane", 2: "globule"}
    assert [group.kind for group in groups.groups] == ["surface", "globule"]


def test_what_came_after_is_compared_with_its_truth(tmp_path: Path) -> None:
    mined, after = tmp_path / "mined", tmp_path / "truth" / "after"
    truth(tmp_path / "truth", "TS_1")
    labels = truth(after, "TS_1")
    record(mined, "TS_1.mrc", [(4, 1), (5, 1), (6, 1), (23, 2), (24, 2), (25, 2)])
    demo_truth.mark(mined, tmp_path / "truth")
    said = np.where(labels == 2, np.uint8(2), np.uint8(0))
    said[:, :, :4] = 1  # half of the membrane that shows, and nothing else
    volume(tmp_path / "said.mrc", said)
    record(mined, "after/TS_1.mrc", [(4, 1), (24, 1), (34, 2), (24, 2)], tmp_path / "said.mrc")
    found = demo_truth.compare(mined, after)
    assert found["membrane"] == {"dice": pytest.approx(2 / 3), "counted": 2, "right": 1, "true": 0, "found": 0}
    assert found["globule"] == {"dice": 1.0, "counted": 2, "right": 1, "true": 1, "found": 1}


def test_the_configuration_is_one_and_the_summary_is_told(tmp_path: Path) -> None:
    side = demo_mining.side(tmp_path, tmp_path, 1234, seed=3)
    given = yaml.safe_load((tmp_path / "cryoet_mining.yaml").read_text())
    assert CryoetMining.model_validate(given).service.port == 1234
    assert side.source[:2] == ["emulate", "tomograms"]
    found: dict[str, Any] = {
        **dict.fromkeys(("read", "accepted"), 6),
        **dict.fromkeys(("rejected", "failed", "dropped"), 0),
        "subvolumes": {"unmarked": 300, "membrane": 40},
        "clusters": {"unmarked": 20, "membrane": 4},
        "seconds_per_tomogram": {"pick": 1.5, "assign": 0.0},
        "directory": str(tmp_path / "mined"),
    }
    places = demo_mining.Places(tmp_path)
    early = demo_mining.describe(demo_mining.summarise(found, tmp_path, places))
    assert "none was marked" in early
    assert "ended before the segmentation was trained" in early
    summary = demo_mining.summarise(found, tmp_path, places) | {
        "marked": [{"name": "membrane", "clusters": [1, 2]}],
        "classes": {"membrane": {"dice": 0.812, "counted": 9, "right": 8, "true": 0, "found": 0}},
        "pictures": ["x.png"],
    }
    told = demo_mining.describe(summary)
    assert "marked 2 as membrane" in told
    assert "Dice 0.81" in told
    assert "9 sub-volumes counted, 8 of them right\n" in told
    assert "x.png" in told


def test_waiting_ends_when_it_is_so_or_the_demo_is_over_or_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(demo_mining, "time", clock)
    assert demo_mining.wait(lambda: now[0] > 20, lambda: False)
    assert now[0] < 21
    assert not demo_mining.wait(lambda: False, lambda: now[0] > 40)
    assert now[0] < 41
    assert not demo_mining.wait(lambda: False, lambda: False)
    assert now[0] > demo_mining.PATIENCE_S
