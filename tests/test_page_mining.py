"""The live page of cryoet_mining: rows, counts by group, marks of clusters, slices, labels and sub-volumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.tomograms.groups import LONGEST
from beamsieve.stream.beamlines import mining_blobs
from beamsieve.stream.beamlines.mining_blobs import MiningBlobs
from beamsieve.stream.beamlines.page_mining import MiningPage
from beamsieve.stream.beamlines.page_mining_panel import mining_json
from beamsieve.stream.beamlines.page_mining_rows import TomogramRows, names_of, per_hour
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.mined import Mined
from beamsieve.stream.flow.yields import Waiting
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.live.changes import Changes
from beamsieve.stream.live.mining_view import Group, Tomogram
from beamsieve.stream.live.page import Blob, Refused
from beamsieve.stream.live.schema import COMMON, MAYBE, NUMBER, problems_of
from beamsieve.stream.sinks.tomograms import record
from beamsieve.stream.sinks.tomograms.labels import label_plane
from beamsieve.stream.sinks.tomograms.mined import MinedTomogram
from beamsieve.tests.mining_gallery import EDGE, NETWORK, SHAPE, SINCE, FakeMining, tomogram
from beamsieve.tests.test_live_picks import Controls

ROW: Mapping[str, Any] = {
    **dict.fromkeys(("id", "name", "mode", "network"), str),
    "time": NUMBER,
    "shape": [int],
    **dict.fromkeys(("voxel_a", "error", "seconds"), MAYBE),
    **dict.fromkeys(("picks", "revision"), int),
    "labels": bool,
    "warnings": [str],
}
MINING: Mapping[str, Any] = {
    **dict.fromkeys(("version", "have", "need"), int),
    **dict.fromkeys(("life", "mode", "state", "error"), str),
    "pixel_a": MAYBE,
    "network": {"name": str, "sha256": str, "trained": bool},
    "job": (None, {"what": str, "done": int, "of": int, "text": str}),
    "events": [{"time": NUMBER, "text": str}],
    "groups": [{"name": str, "kind": str, "colour": str, "clusters": [int]}],
    "list": [{"id": int, "count": int, "share": NUMBER, "mark": str, "error": MAYBE, "version": int}],
}
SNAPSHOT: Mapping[str, Any] = {
    **{name: shape for name, shape in COMMON.items() if name != "review"},
    "mining": MINING,
    "totals": {
        "tomograms": int,
        "subvolumes": int,
        "by_class": [{"name": str, "count": int}],
        "error": {"last": MAYBE, "median": MAYBE, "ratio": MAYBE},
        "per_hour": MAYBE,
    },
    "waiting": {"oldest_s": NUMBER, "files": [{"name": str, "reason": str, "seconds": NUMBER}]},
    "rows": [ROW],
    "rows_version": int,
}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Session:
    """A page over made-up clusters."""

    def __init__(self, folder: Path, n: int = 6, **words: Any) -> None:
        self.metrics = Metrics("cryoet_mining")
        self.metrics.mined = Mined()
        self.changes = Changes(folder, self.metrics.operation)
        self.levers, self.controls = FakeMining(n), Controls()
        given: dict[str, Any] = {"describe": lambda result: result.found.get("row"), "wall": lambda: SINCE + 4000}
        self.page = MiningPage(
            metrics=self.metrics, controls=self.controls, levers=self.levers, changes=self.changes, **(given | words)
        )

    def group(self, **body: Any) -> Any:
        return self.page.act("group", body, "Ada")["mining"]

    def log(self) -> list[tuple[Any, ...]]:
        return [tuple(line[name] for name in ("what", "by", "old", "new")) for line in self.changes.recent()]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def row(number: int, **changes: Any) -> Tomogram:
    """A row without files."""
    plain = Tomogram(
        id=f"t{number}", name=f"{number}.mrc", time=SINCE + 300.0 * number, shape=SHAPE, voxel_a=7.1, picks=100,
        by_class={}, error=0.5, seconds=40.0, mode="explore", by_cluster={1: 60, 2: 30, 9: 10}, network=NETWORK,
    )  # fmt: skip
    return replace(plain, **changes)


def array(blob: Blob | None) -> npt.NDArray[np.uint8]:
    assert blob is not None
    assert blob.head["dtype"] == "u1"
    return np.frombuffer(blob.body, np.uint8).reshape(blob.head["shape"])


def said(blob: Blob | None) -> Any:
    assert blob is not None
    return json.loads(blob.body)


# What is told


def test_a_snapshot_and_facts_have_what_browsers_read(session: Session) -> None:
    session.page.add(row(1))
    session.page.add(row(2, error=float("nan"), voxel_a=float("nan")))
    session.levers.change(job=("codes", 3, 20, "epoch 3"), events=((SINCE, "first clusters"),))
    snapshot = session.page.snapshot()
    assert list(problems_of(snapshot, SNAPSHOT)) == []
    assert json.loads(json.dumps(snapshot, allow_nan=False))["beamline"] == "cryoet_mining"
    facts = session.page.facts()
    assert list(problems_of(facts["rows"], [ROW], "rows")) == []
    assert [one["name"] for one in facts["rows"]] == ["1.mrc", "2.mrc"]
    assert facts["rows_version"] == snapshot["rows_version"]
    assert session.page.pictures(0) == ()


def test_rows_come_from_the_pipeline(session: Session) -> None:
    session.page.add(row(1))
    session.page.add(row(2, picks=7))
    frame = Frame(Key("session", 0), np.zeros((1, 1), np.float32), 0.0, 0.0)
    result = Result(frame, Outcome.ACCEPTED, 1.0, "mining", 1.0, {"row": row(2, picks=200)})
    assert session.page.watch.write([result, replace(result, found={})]) == ()
    session.page.watch.flush()
    assert [(one.name, one.picks) for one in session.page.rows.all()] == [("1.mrc", 100), ("2.mrc", 200)], "newer stays"


def test_files_that_wait_are_told(tmp_path: Path) -> None:
    session = Session(tmp_path, waiting=lambda: [("a.rec", "settling", 3.0)])
    assert session.metrics.mined is not None
    session.metrics.mined.wait(Waiting({"settling": 1}, 3.0))
    waits = session.page.snapshot()["waiting"]
    assert waits == {
        "reasons": {"settling": 1},
        "oldest_s": 3.0,
        "files": [{"name": "a.rec", "reason": "settling", "seconds": 3.0}],
    }


# Counts


def test_a_mark_changes_the_counts_of_all_rows(session: Session) -> None:
    session.page.add(row(1))
    session.page.add(row(2))
    before = session.page.snapshot()["rows_version"]
    session.group(clusters=[1], group="membrane", kind="surface")
    session.group(clusters=[2], group="ribosome-like", kind="globule")
    snapshot = session.page.snapshot()
    assert snapshot["rows_version"] > before
    assert snapshot["rows"][0]["by_class"] == {"membrane": 60, "ribosome-like": 30, "": 10}
    assert snapshot["totals"]["by_class"] == [
        {"name": "membrane", "count": 120},
        {"name": "ribosome-like", "count": 60},
        {"name": "", "count": 20},
    ]
    assert session.page.snapshot()["rows_version"] == snapshot["rows_version"], "nothing has changed"


def test_rows_without_clusters_keep_the_classes_they_came_with() -> None:
    rows = TomogramRows()
    rows.put(row(1, by_cluster={}, by_class={"membrane": 3, "": 5}))
    assert rows.totals([Group("carbon", "surface", "#ffffff", (1,))], SINCE)["by_class"] == [
        {"name": "carbon", "count": 0},
        {"name": "", "count": 5},
        {"name": "membrane", "count": 3},
    ]


def test_drift_is_told_of_one_network() -> None:
    rows = TomogramRows()
    for i, error in enumerate((9.0, 9.0, 9.0)):
        rows.put(row(i, error=error, network="old"))
    assert rows.totals([], SINCE)["error"] == {"last": 9.0, "median": 9.0, "ratio": 1.0}
    for i, error in enumerate((0.4, 0.5, 0.5, float("nan"), 1.0), 3):
        rows.put(row(i, error=error))
    assert rows.totals([], SINCE)["error"] == {"last": 1.0, "median": 0.5, "ratio": 2.0}
    assert TomogramRows().totals([], SINCE)["error"] == dict.fromkeys(("last", "median", "ratio"))


def test_rows_are_bounded_and_totals_are_not() -> None:
    rows = TomogramRows(most=3)
    several = [row(i) for i in range(5)]
    for one in [*several, *several, row(0)]:
        rows.put(one)
    assert [one.id for one in rows.all()] == ["t2", "t3", "t4"]
    totals = rows.totals([], SINCE)
    assert (totals["tomograms"], totals["subvolumes"]) == (5, 500)
    version = rows.version
    rows.put(row(3, picks=50))
    assert rows.version == version + 1, "a row that browsers have is another one"
    assert (rows.get("t3") or row(0)).picks == 50
    assert rows.get("t0") is None


def test_rows_from_before_the_start_are_fetched_and_the_same_rows_are_not() -> None:
    rows = TomogramRows()
    several = [row(i) for i in range(3)]
    rows.put(several[2])
    version = rows.version
    rows.put(several[0])
    assert rows.version > version, "older than what browsers have: nobody tells them else"
    version = rows.version
    for one in several:
        rows.put(one)
    rows.put(row(3))
    assert rows.version == version + 1, "one was new, and not the newest"


def test_tomograms_per_hour() -> None:
    assert per_hour([], 0.0) is None
    assert per_hour([SINCE], SINCE) is None
    assert per_hour([SINCE - 9000, SINCE - 600, SINCE - 300, SINCE], SINCE) == 12.0


# Marks


def test_clusters_are_put_into_groups_and_it_is_written_down(session: Session) -> None:
    answer = session.group(clusters=[3, 1], group=" membrane ", kind="surface")
    assert answer["mode"] == "annotate"
    assert [one["mark"] for one in answer["list"]] == ["membrane", "", "membrane", "", "", ""]
    assert answer["groups"][0]["clusters"] == [1, 3]
    session.group(clusters=[3, 4], group="carbon", kind="surface")
    session.group(clusters=[1, 3, 4], group="")
    assert session.levers.asked == [
        ("new", "membrane", "surface", "Ada"),
        ("mark", (3, 1), "membrane", "Ada"),
        ("new", "carbon", "surface", "Ada"),
        ("mark", (3, 4), "carbon", "Ada"),
        ("unmark", (1, 3, 4), "Ada"),
    ]
    assert session.log() == [
        ("group", "Ada", None, {"name": "membrane", "kind": "surface"}),
        ("clusters", "Ada", {"": [3, 1]}, {"membrane": [3, 1]}),
        ("group", "Ada", None, {"name": "carbon", "kind": "surface"}),
        ("clusters", "Ada", {"membrane": [3], "": [4]}, {"carbon": [3, 4]}),
        ("clusters", "Ada", {"membrane": [1], "carbon": [3, 4]}, {"": [1, 3, 4]}),
    ]
    assert session.page.snapshot()["mining"]["mode"] == "explore"
    assert len(session.group(clusters=[1], group="")["groups"]) == 2, "a group that is empty stays"
    assert len(session.log()) == 5, "what changes nothing is no change"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "clusters: give the numbers"),
        ({"clusters": [], "group": "carbon", "kind": "other"}, "clusters: give the numbers"),
        ({"clusters": "1", "group": ""}, "clusters: give the numbers"),
        ({"clusters": [True], "group": ""}, "clusters: give the numbers"),
        ({"clusters": [1.0], "group": ""}, "clusters: give the numbers"),
        ({"clusters": [1] * 401, "group": ""}, "clusters: give the numbers"),
        ({"clusters": [1, 7, 8], "group": ""}, "no cluster 7, 8"),
        ({"clusters": [1]}, "group: give a name"),
        ({"clusters": [1], "group": ["membrane"]}, "group: give a name"),
        ({"clusters": [1], "group": "x" * 2000, "kind": "other"}, "group: give a name"),
        ({"clusters": [1], "group": "carbon"}, "no group carbon; there are: none yet. Give a kind"),
        ({"clusters": [1], "group": "carbon", "kind": "edge"}, "kind: is not one of surface, globule, other"),
        ({"clusters": [1], "group": "carbon", "kind": 3}, "kind: is not one of"),
        ({"clusters": [1], "group": "unmarked", "kind": "other"}, "meaning of its own"),
        ({"clusters": [1], "group": "a/b", "kind": "other"}, "makes no file name"),
        ({"clusters": [1], "group": "<b>", "kind": "other"}, "makes no file name"),
        ({"clusters": [1], "group": "x" * (LONGEST + 1), "kind": "other"}, "makes no file name"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_changed(session: Session, body: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        session.page.act("group", body, "Ada")
    assert session.log() == []
    assert session.levers.asked == []


def test_what_was_not_made_is_taken_back_in_the_log(session: Session) -> None:
    session.group(clusters=[1], group="carbon", kind="other")
    session.levers.refuse = "groups.yaml: disk full"
    with pytest.raises(Refused, match="disk full"):
        session.group(clusters=[2], group="carbon")
    with pytest.raises(Refused, match="disk full"):
        session.group(clusters=[2], group="ice", kind="other")
    assert [(what, new) for what, _, _, new in session.log()[2:]] == [
        ("clusters", {"carbon": [2]}),
        ("clusters", {"": [2]}),
        ("group", {"name": "ice", "kind": "other"}),
        ("group", None),
    ]
    assert session.page.snapshot()["mining"]["list"][1]["mark"] == ""


def test_other_actions_are_the_controls(session: Session) -> None:
    session.page.act("pause", {"paused": True}, "Ada")
    assert session.controls.asked == [("pause", {"paused": True}, "Ada")]


def test_what_is_told_each_second_is_bounded(session: Session) -> None:
    view = session.levers.now.clusters[0]
    session.levers.change(
        clusters=(view,) * 1000, events=((1.0, "x" * 9000),) * 90, error="y" * 9000, job=("codes", 0, 0, "z" * 9000)
    )
    told = mining_json(session.levers.now)
    assert (len(told["list"]), len(told["events"])) == (400, 20)
    assert len(json.dumps(told)) < 60_000


# Pictures


def test_pictures_of_a_cluster(session: Session) -> None:
    view = session.levers.now.clusters[2]
    found = array(session.page.blob("cluster", "3", {}))
    assert found.shape == (4, EDGE, EDGE)
    assert np.array_equal(found[0], view.projection)
    assert np.array_equal(found[1:], view.slices)
    life = session.page.panel.life
    for query, lasts in (({"v": "0", "life": life}, True), ({"v": "1", "life": life}, False), ({"v": "0"}, False)):
        blob = session.page.blob("cluster", "3", query)
        assert blob is not None
        assert blob.lasting is lasts
    for name in ("0", "7", "-1", "03x", "1.0", "²", "1" * 30, ""):
        assert session.page.blob("cluster", name, {}) is None


def test_slices_labels_and_sub_volumes_of_a_tomogram(session: Session, tmp_path: Path) -> None:
    found = tomogram(tmp_path, 1, names=("membrane",))
    session.page.add(found)
    assert found.record is not None
    stored = record.read(found.record)
    assert stored.slices is not None
    labels = {}
    for plane in ("xy", "xz", "yz"):
        slice_ = array(session.page.blob("slice", found.id, {"axis": plane}))
        assert np.array_equal(slice_, getattr(stored.slices, plane))
        labels[plane] = array(session.page.blob("labels", found.id, {"axis": plane}))
        assert labels[plane].shape == slice_.shape
        # The made-up membrane is dark in the picture where it is 1 in the labels.
        assert slice_[labels[plane] == 1].mean() < slice_[labels[plane] == 0].mean() - 30
    picks = said(session.page.blob("picks", found.id, {"v": "0"}))
    assert np.allclose(np.stack([picks[axis] for axis in "xyz"], 1), stored.picked.xyz, atol=0.06)
    assert picks["cluster"] == stored.picked.cluster.tolist()
    assert picks["of"] == found.picks
    assert picks["classes"] == ["", "membrane"]
    assert picks["box"] == pytest.approx(32 * 14.2 / 7.1)
    # Groups that came before it meanwhile do not change what the values in the label volume mean.
    label = np.where(stored.picked.label > 0, 2, 0)
    record.relabel(found.record, stored.picked.cluster, label, classes=("ice", "membrane"), clusters_version=2)
    assert said(session.page.blob("picks", found.id, {"v": "0"}))["classes"] == ["", "membrane"]


def test_only_what_a_row_names_is_read(session: Session, tmp_path: Path) -> None:
    found = tomogram(tmp_path, 1)
    session.page.add(found)
    assert session.page.blob("labels", found.id, {"axis": "xy"}) is None, "it has none"
    for kind, name, query in (
        ("slice", found.id, {}),
        ("slice", found.id, {"axis": "zz"}),
        ("slice", found.id, {"axis": "__class__"}),
        ("slice", "t999", {"axis": "xy"}),
        ("slice", "../1", {"axis": "xy"}),
        ("else", found.id, {"axis": "xy"}),
    ):
        assert session.page.blob(kind, name, query) is None
    assert found.record is not None
    found.record.write_bytes(b"no record")
    assert session.page.blob("slice", found.id, {"axis": "xy"}) is None, "damaged"
    found.record.unlink()
    assert session.page.blob("picks", found.id, {}) is None, "gone"
    session.page.add(row(7))
    assert session.page.blob("picks", "t7", {}) is None, "without a record"


def test_a_record_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    found = tomogram(tmp_path, 1)
    reads: list[Path] = []
    rows = {found.id: found}
    blobs = MiningBlobs(rows.get)
    with pytest.MonkeyPatch.context() as patch:

        def counted(path: Path, **words: Any) -> MinedTomogram:
            reads.append(path)
            return record.read(path, **words)

        patch.setattr(mining_blobs, "read", counted)
        first = said(blobs.blob("picks", found.id, {}))
        assert said(blobs.blob("picks", found.id, {})) == first
        assert len(reads) == 1, "kept in memory"
        assert found.record is not None
        old = record.read(found.record).picked
        record.relabel(found.record, old.cluster + 1, old.label, classes=(), clusters_version=2)
        assert said(blobs.blob("picks", found.id, {}))["cluster"] == [n + 1 for n in first["cluster"]]
    assert len(reads) == 2


def test_of_too_many_sub_volumes_the_best_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tomogram(tmp_path, 1)
    monkeypatch.setattr(mining_blobs, "MOST_PICKS", 10)
    monkeypatch.setattr(mining_blobs, "LARGEST_PX", 50)
    blobs = MiningBlobs({found.id: found}.get)
    picks = said(blobs.blob("picks", found.id, {}))
    assert found.record is not None
    score, xyz = record.read(found.record).picked.score, record.read(found.record).picked.xyz
    best = np.sort(np.argsort(-score)[:10])
    assert np.allclose(picks["x"], xyz[best, 0], atol=0.06)
    assert (len(picks["cluster"]), picks["of"]) == (10, found.picks)
    assert array(blobs.blob("slice", found.id, {"axis": "xy"})).shape == (34, 37), "every third of 100 × 110"


def test_planes_of_a_label_volume(tmp_path: Path) -> None:
    volume = np.arange(4 * 5 * 6, dtype=np.int8).reshape(4, 5, 6)
    path = tmp_path / "labels.mrc"
    with MrcWriter(path, volume.shape, 0, 1.0) as writer:
        writer.write(volume)
    at = (3, 2, 1)
    assert np.array_equal(label_plane(path, 0, at, 1, (4, 5, 6)), volume[1])
    assert np.array_equal(label_plane(path, 1, at, 1, (4, 5, 6)), volume[:, 2])
    assert np.array_equal(label_plane(path, 2, at, 1, (4, 5, 6)), volume[:, :, 3])
    assert np.array_equal(label_plane(path, 0, at, 2, (4, 5, 6)), volume[1, 1::2, 1::2])
    # As slices are binned: the last two of five rows are no block of three.
    assert np.array_equal(label_plane(path, 0, at, 3, (4, 5, 6)), volume[1, 1:2, 1::3])
    with pytest.raises(ValueError, match="the tomogram"):
        label_plane(path, 0, at, 1, (4, 5, 7))


def test_labels_of_another_shape_are_not_shown(session: Session, tmp_path: Path) -> None:
    found = tomogram(tmp_path, 1, names=("membrane",))
    assert found.labels is not None
    with MrcWriter(found.labels, (4, 5, 6), 0, 5.0) as writer:
        writer.write(np.zeros((4, 5, 6), np.int8))
    session.page.add(found)
    assert session.page.blob("labels", found.id, {"axis": "xy"}) is None


def test_names_of_clusters() -> None:
    assert names_of([Group("a", "other", "#000000", (1, 3)), Group("b", "other", "#000000", (2,))]) == {
        1: "a",
        3: "a",
        2: "b",
    }
