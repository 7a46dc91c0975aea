"""The daemon of tomograms whole: a folder that fills, clusters, marks, classes; what is damaged is set aside."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.models.tomograms.book import read_clusters
from beamsieve.models.tomograms.bundles import save_segmenter
from beamsieve.models.tomograms.groups_file import read_groups
from beamsieve.models.tomograms.nets import Edss3d
from beamsieve.stream.beamlines.cryoet_mining import CryoetMining, Daemon, build
from beamsieve.stream.flow.settings import ConfigError, Where
from beamsieve.stream.formats.volumes import open_volume
from beamsieve.stream.sinks.tomograms.mined import LabelFiles, MinedTomogram
from beamsieve.stream.sinks.tomograms.record import read
from beamsieve.tests.mining_sessions import EDGE, SHAPE, VOXEL_A, network, settings, write


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("nets"))


def daemon(folder: Path, bundle: Path, **changes: Any) -> Daemon:
    chosen = settings(folder, bundle, **changes)
    return build(CryoetMining.model_validate(chosen), Where(folder / "x.yaml", {}), config="the text")


def run(made: Daemon, until: Callable[[], bool] | None = None) -> Daemon:
    """Until the folder is empty, or ``until`` something is so."""
    made.pipeline.start()
    if until is not None:
        wait_for(until, made)
        made.pipeline.stop()
    assert made.pipeline.wait(50)
    made.close()
    made.pipeline.settle()
    assert made.pipeline.error is None
    return made


def wait_for(so: Callable[[], bool], made: Daemon) -> None:
    end = time.monotonic() + 45
    while not so():
        assert made.pipeline.error is None
        assert time.monotonic() < end, made.live.current()
        time.sleep(0.02)


def records(folder: Path) -> dict[str, MinedTomogram]:
    found = [read(path, kept=True) for path in sorted((folder / "out" / "session").rglob("*.h5"))]
    return {one.name: one for one in found}


def test_tomograms_become_clusters_marks_become_classes_and_a_damaged_one_is_set_aside(
    tmp_path: Path, bundle: Path
) -> None:
    write(tmp_path / "in" / "TS_1.mrc", 1)
    things = write(tmp_path / "in" / "day2" / "TS_2.mrc", 2)
    (tmp_path / "in" / "cut.mrc").write_bytes((tmp_path / "in" / "TS_1.mrc").read_bytes()[:-5000])
    made = run(daemon(tmp_path, bundle))
    tally = made.pipeline.metrics.tally()
    assert (tally.accepted, tally.failed, tally.dropped) == (2, 1, 0)
    assert tally.balanced
    assert tally.failures == {"truncated": 1}
    found = records(tmp_path)
    assert set(found) == {"TS_1.mrc", "day2/TS_2.mrc"}
    one = found["day2/TS_2.mrc"]
    far = np.linalg.norm(one.picked.xyz[:, None] - things[None, :, :3], axis=2).min(0)
    assert (far < 6).mean() > 0.9, "sub-volumes are where things are"
    assert one.mode == "explore"
    assert one.kept is not None
    assert len(one.kept) == 20
    clusters = read_clusters(tmp_path / "out" / "clusters.h5")
    assert clusters is not None
    assert len(clusters) == 4
    for record in found.values():
        # Those that were mined before there were clusters have theirs now.
        np.testing.assert_array_equal(record.picked.cluster, clusters.assign(record.picked.codes)[0])
        assert record.clusters_version == 1
    assert (tmp_path / "out" / "clusters.png").read_bytes()[1:4] == b"PNG"
    mining = made.live.current()
    assert (mining.mode, mining.state, mining.have) == ("explore", "ready", sum(len(r.picked) for r in found.values()))
    assert sum(view.count for view in mining.clusters) == mining.have
    with sqlite3.connect(tmp_path / "out" / "journal.sqlite") as journal:
        text = json.dumps(journal.execute("select * from files").fetchall(), default=str)
    assert "subvolumes" in text
    assert "truncated" in text
    assert_marks_become_classes(tmp_path, bundle, one)


def assert_marks_become_classes(folder: Path, bundle: Path, one: MinedTomogram) -> None:
    """A second daemon goes on; a file that is edited by hand is followed, and what comes then has classes at once."""
    number = int(np.bincount(one.picked.cluster).argmax())
    made = daemon(folder, bundle, source={"end_idle_s": None})
    asked = threading.Event()

    def annotated() -> bool:
        if not asked.is_set() and made.live.current().state == "ready":
            asked.set()
            (folder / "out" / "groups.yaml").write_text(f"groups:\n- {{name: balls, clusters: [{number}]}}\n")
        rows = [entry.row for entry in made.live.keeper.records.entries]
        if made.live.current().mode == "annotate" and not (folder / "in" / "TS_3.mrc").exists():
            write(folder / "in" / "TS_3.mrc", 3)
        return len(rows) == 3 and all(row.by_class.get("balls") for row in rows)

    run(made, annotated)
    assert made.pipeline.metrics.tally().read == 1, "what was mined is not mined again"
    found = records(folder)
    for record in found.values():
        np.testing.assert_array_equal(record.picked.label, record.picked.cluster == number)
        assert record.classes == ("balls",)
    last = found["TS_3.mrc"]
    assert last.mode == "annotate"
    assert last.kept is not None
    marked = int((last.picked.label > 0).sum())
    assert (last.picked.label[last.kept.rows] > 0).sum() == min(20, marked), "those of a class are kept first"
    assert made.pipeline.metrics.mined is not None
    assert made.pipeline.metrics.mined.subvolumes()["balls"] == marked
    assert "TS_3/" in (folder / "out" / "star" / "particles_balls.star").read_text()


def test_the_page_marks_and_a_mistake_in_the_file_is_told(tmp_path: Path, bundle: Path) -> None:
    write(tmp_path / "in" / "TS_1.mrc", 1)
    made = daemon(tmp_path, bundle, source={"end_idle_s": None}, clusters={"first_at": 20})

    def marked() -> bool:
        live = made.live
        if live.current().clusters and not live.current().groups:
            live.new_group("shells", "surface", "me")
            live.mark((live.current().clusters[0].id,), "shells", "me")
            assert live.current().clusters[0].mark == "shells", "before the thread has seen it"
            assert live.current().mode == "annotate"
        rows = [entry.row for entry in live.keeper.records.entries]
        return bool(rows) and bool(rows[0].by_class.get("shells"))

    run(made, marked)
    assert read_groups(tmp_path / "out" / "groups.yaml").names == ("shells",)
    path = tmp_path / "out" / "groups.yaml"
    path.write_text("groups:\n- {name: shells, clusters: [one]}\n")
    again = daemon(tmp_path, bundle, source={"end_idle_s": 0.1})
    again.pipeline.run()
    again.close()
    assert f"{path}:2" in again.live.current().error
    assert path.read_text().endswith("[one]}\n"), "a person's file is left as it is"


def test_a_bug_in_the_background_costs_no_tomogram(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "TS_1.mrc", 1)
    made = daemon(tmp_path, bundle)
    monkeypatch.setattr(made.live.keeper, "step", lambda: 1 / 0)
    run(made)
    assert made.pipeline.metrics.tally().accepted == 1
    assert made.live.current().state == "failed"
    assert "division" in made.live.current().error


def test_what_the_settings_name_and_cannot_be_is_told_at_once(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ConfigError) as caught:
        daemon(
            tmp_path,
            bundle,
            source={"take": "micrographs"},
            model={"bundle": "nothing-of-that-name"},
            files={"directory": str(tmp_path / "in")},
        )
    said = "\n".join(caught.value.mistakes)
    assert "write take: tomograms" in said
    assert "is the watched folder" in said
    assert "nothing-of-that-name" in said
    with pytest.raises(ConfigError, match=r"segment\.bundle.*gives codes, needed is a segmentation"):
        daemon(tmp_path, bundle, segment={"on": True, "bundle": str(bundle)})


def test_a_configured_segmentation_labels_every_voxel_with_classes_of_its_own(tmp_path: Path, bundle: Path) -> None:
    write(tmp_path / "in" / "TS_1.mrc", 1)
    segments = save_segmenter(
        tmp_path, "segments", Edss3d(3, 4), ("background", "wall", "ball"), edge=EDGE, voxel_a=VOXEL_A
    )
    made = run(daemon(tmp_path, bundle, segment={"on": True, "bundle": str(segments)}))
    assert made.pipeline.metrics.tally().accepted == 1
    found = records(tmp_path)["TS_1.mrc"]
    assert found.mode == "explore"
    assert isinstance(found.segmentation, LabelFiles)
    assert found.segmentation.classes == ("wall", "ball")
    with open_volume(found.segmentation.labels) as volume:
        assert volume.shape == SHAPE
        assert volume.voxel_a == pytest.approx(VOXEL_A)
        labels = volume.read((0, 0, 0), volume.shape)
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert set(found.segmentation.probabilities) == {"wall", "ball"}
    assert made.pipeline.metrics.mined is not None
    assert made.pipeline.metrics.mined.seconds()["segment"] > 0
