"""Clusters, marks and networks of a session, in the background: made, followed, trained, and gone on with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.models.tomograms.book import read_clusters
from beamsieve.models.tomograms.bundles import save_segmenter
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.nets import Edss3d
from beamsieve.stream.beamlines.mining_keeper import Keeper
from beamsieve.stream.beamlines.mining_networks import SETTLED_S
from beamsieve.stream.sinks.tomograms.mined import MinedTomogram
from beamsieve.stream.sinks.tomograms.record import read
from beamsieve.tests.mining_sessions import EDGE, VOXEL_A, Clock, network, session, settle, write_record

# Takes the place of ``beamsieve train``: copies a bundle that is there already.
FAKE = """
import json, os, shutil, signal, sys, time
from pathlib import Path
nets, how, what, args = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
out = Path(args[args.index("--out") + 1])
(out / "began").open("a").write(f"{os.getpid()} {os.getpriority(os.PRIO_PROCESS, 0)} {args}\\n")
print("12:00:00  train: epoch 2  3/18", file=sys.stderr, flush=True)
if how == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (out / "waits").touch()
    time.sleep(60)
if how == "broken":
    sys.exit("session: nothing in it")
name = "segments" if what == "segments" else "further"
for ending in (".pt", ".json"):
    shutil.copy(nets / f"{name}{ending}", out / f"{name}{ending}")
if what == "tomograms":
    report = {"before": 0.5, "after": 0.4 if how == "better" else 0.6, "path": "further.pt"}
    (out / "report.json").write_text(json.dumps(report))
"""
CALM: dict[str, Any] = {"clusters": {"number": 3, "first_at": 60, "keep_per_tomogram": 20}}
LOOSE: dict[str, Any] = {**CALM, "segment": {"on": True}}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny``, which is configured, ``further``, another one, and ``segments`` for one group called blob."""
    folder = tmp_path_factory.mktemp("nets")
    network(folder)
    network(folder, seed=1, name="further")
    save_segmenter(folder, "segments", Edss3d(2, 4), ("background", "blob"), edge=EDGE, voxel_a=VOXEL_A)
    return folder


@pytest.fixture(scope="module")
def codec(nets: Path) -> Codec:
    return Codec(nets / "tiny.pt", device="cpu", threads=1)


def fill(folder: Path, codec: Codec, *numbers: int) -> None:
    for number in numbers:
        write_record(folder / "out", f"t{number}.mrc", codec, 40, number)


def fake(nets: Path, how: str) -> tuple[str, ...]:
    return ("-c", FAKE, str(nets), how)


def records(folder: Path) -> list[MinedTomogram]:
    return [read(path, kept=True) for path in sorted((folder / "out" / "session").glob("*.h5"))]


def mark(keeper: Keeper, name: str = "blob", clusters: int = 1) -> None:
    assert keeper.benches.now.clusters is not None
    if name not in keeper.marks.groups.names:
        keeper.marks.new_group(name, "globule")
    keeper.marks.mark(tuple(keeper.benches.now.clusters.ids[:clusters].tolist()), name)


def until(so: Callable[[], Any], keeper: Keeper, clock: Clock) -> None:
    """Work on while a process of the session works; the clock stands nearly still."""
    end = time.monotonic() + 30
    while not so():
        assert time.monotonic() < end, keeper.events
        keeper.step()
        clock.now += 0.01
        time.sleep(0.01)


def test_clusters_are_made_grow_and_keep_their_numbers(tmp_path: Path, nets: Path, codec: Codec) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1)
    keeper = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    settle(keeper, clock)
    assert keeper.benches.now.clusters is None, "40 sub-volumes are too few"
    fill(tmp_path, codec, 2)
    settle(keeper, clock)
    first = keeper.benches.now.clusters
    assert first is not None
    before = {one.name: one.picked.cluster for one in records(tmp_path)}
    assert all((numbers > 0).all() for numbers in before.values())
    mark(keeper)
    marked = int(first.ids[0])
    fill(tmp_path, codec, 3, 4)
    settle(keeper, clock)
    second = keeper.benches.now.clusters
    assert second is not None
    assert (second.version, keeper.idle) == (2, True)
    after = {one.name: one.picked.cluster for one in records(tmp_path)}
    assert np.mean([(after[name] == before[name]).mean() for name in before]) > 0.9, "numbers follow"
    assert marked in second.ids
    assert keeper.marks.groups.marks().get(marked) == "blob"
    assert all((one.picked.label == (one.picked.cluster == marked)).all() for one in records(tmp_path))
    assert keeper.facts.trainings() == {("clusters", "done"): 2}
    again = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    assert again.idle, "a restart finds nothing to do"
    assert again.clustered_at == keeper.clustered_at


def test_groups_that_cannot_be_read_at_a_start_take_no_class_from_records(
    tmp_path: Path, nets: Path, codec: Codec
) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2)
    keeper = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    settle(keeper, clock)
    mark(keeper)
    settle(keeper, clock)
    before = [one.counts for one in records(tmp_path)]
    file = tmp_path / "out" / "groups.yaml"
    good = file.read_text()
    file.write_text(good.replace("name:", "nmae:"))
    fill(tmp_path, codec, 3, 4, 5)
    again = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    settle(again, clock)
    assert "did you mean name?" in again.errors["groups"]
    assert [one.counts for one in records(tmp_path)][:2] == before
    file.write_text(good)
    settle(again, clock)
    assert (again.errors, again.idle) == ({}, True)
    assert all(one.counts["blob"] for one in records(tmp_path))


def test_a_kill_between_clusters_and_records_is_mended_at_the_next_start(
    tmp_path: Path, nets: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2)
    keeper = session(tmp_path, nets / "tiny.pt", clock, **CALM)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> bool:
        raise Killed

    monkeypatch.setattr(keeper.records, "relabel", killed)
    with pytest.raises(Killed):
        settle(keeper, clock)
    assert not any(one.picked.cluster.any() for one in records(tmp_path))
    again = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    assert not again.idle
    settle(again, clock)
    clusters = read_clusters(tmp_path / "out" / "clusters.h5")
    assert clusters is not None
    assert clusters.version == 1
    for one in records(tmp_path):
        np.testing.assert_array_equal(one.picked.cluster, clusters.assign(one.picked.codes)[0])


def test_a_segmentation_is_trained_on_marks_and_taken_up_after_a_restart(
    tmp_path: Path, nets: Path, codec: Codec
) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2)
    keeper = session(tmp_path, nets / "tiny.pt", clock, fake(nets, "good"), **LOOSE)
    settle(keeper, clock)
    assert keeper.networks.job() is None, "nothing is marked"
    mark(keeper)
    settle(keeper, clock, SETTLED_S - 2)
    assert keeper.networks.job() is None, "a person marks one after the other"
    settle(keeper, clock, 4)
    job = keeper.networks.job()
    assert job is not None
    assert job[0] == "segments"
    until(lambda: keeper.networks.job() is None, keeper, clock)
    bench = keeper.benches.now
    found = bench.segments(keeper.marks.groups)
    assert found is not None
    assert tuple(found.classes) == ("background", "blob")
    assert keeper.facts.trainings()[("voxels", "done")] == 1
    again = session(tmp_path, nets / "tiny.pt", clock, fake(nets, "good"), **LOOSE)
    settle(again, clock, 20)
    assert again.networks.job() is None, "it is not trained again"
    assert again.benches.now.segments(again.marks.groups) is not None
    mark(again, "another")
    assert again.benches.now.segments(again.marks.groups) is None, "its label values are others than the groups'"


def test_marks_that_change_begin_a_training_anew_and_a_stopped_one_is_gone_on_with(
    tmp_path: Path, nets: Path, codec: Codec
) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2)
    keeper = session(tmp_path, nets / "tiny.pt", clock, fake(nets, "wait"), **LOOSE)
    settle(keeper, clock)
    mark(keeper)
    settle(keeper, clock, SETTLED_S + 3)
    models = tmp_path / "out" / "models"
    until((models / "segments-1" / "waits").exists, keeper, clock)
    assert keeper.networks.job() == ("segments", 3, 18, "train: epoch 2")
    began = (models / "segments-1" / "began").read_text()
    assert began.split()[1] == "19", "it gives way to everything else"
    mark(keeper, clusters=2)
    settle(keeper, clock, SETTLED_S + 3)
    until((models / "segments-2" / "waits").exists, keeper, clock)
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.split()[0]), 0)
    keeper.networks.close()
    again = session(tmp_path, nets / "tiny.pt", clock, fake(nets, "good"), **LOOSE)
    settle(again, clock, SETTLED_S + 3)
    until(lambda: again.networks.job() is None, again, clock)
    assert len((models / "segments-2" / "began").read_text().splitlines()) == 2
    assert again.benches.now.segmenter is not None


def test_a_training_that_fails_is_told_of_and_not_tried_again(tmp_path: Path, nets: Path, codec: Codec) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2)
    keeper = session(tmp_path, nets / "tiny.pt", clock, fake(nets, "broken"), **LOOSE)
    settle(keeper, clock)
    mark(keeper)
    settle(keeper, clock, SETTLED_S + 3)
    until(lambda: keeper.networks.job() is None, keeper, clock)
    assert "exit code 1: session: nothing in it" in keeper.events[-1][1]
    assert keeper.facts.trainings()[("voxels", "failed")] == 1
    settle(keeper, clock, 2 * SETTLED_S)
    assert keeper.networks.job() is None


@pytest.mark.parametrize("how", ["better", "worse"])
def test_a_network_trained_further_takes_over_only_if_it_is_better(
    tmp_path: Path, nets: Path, codec: Codec, how: str
) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2, 3)
    loose = {**LOOSE, "clusters": {**LOOSE["clusters"], "retrain": True, "retrain_at": 60}}
    keeper = session(tmp_path, nets / "tiny.pt", clock, fake(nets, how), **loose)
    keeper.step()
    settle(keeper, clock, 3)
    mark(keeper, clusters=1)
    before = {one.name: one.picked.cluster for one in records(tmp_path)}
    until(lambda: keeper.facts.trainings().keys() & {("codes", "done"), ("codes", "worse")}, keeper, clock)
    keeper.networks.close()
    settle(keeper, clock, 3)
    new = Codec(nets / "further.pt", device="cpu").sha256
    clusters = keeper.benches.now.clusters
    assert clusters is not None
    if how == "worse":
        assert (clusters.network, clusters.version) == (codec.sha256, 1)
        assert "no better" in " ".join(text for _, text in keeper.events)
        return
    assert (clusters.network, clusters.version) == (new, 2)
    assert (keeper.benches.now.codec.sha256, keeper.benches.now.trained) == (new, True)
    for one in records(tmp_path):
        assert one.network_sha256 == codec.sha256, "its codes are of that one, and it says so"
        kept = np.isin(before[one.name], clusters.ids)
        np.testing.assert_array_equal(one.picked.cluster, np.where(kept, before[one.name], 0))
    assert keeper.marks.groups.marks(), "marks follow the numbers"
    again = session(tmp_path, nets / "tiny.pt", clock, fake(nets, how), **loose)
    assert (again.benches.now.codec.sha256, again.benches.now.trained) == (new, True)
    assert again.idle


def test_sub_volumes_that_are_turned_otherwise_than_the_network_learned_teach_it_nothing(
    tmp_path: Path, nets: Path, codec: Codec
) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2, 3)
    loose = {**LOOSE, "clusters": {**LOOSE["clusters"], "retrain": True, "retrain_at": 60}, "model": {"posed": True}}
    keeper = session(tmp_path, nets / "tiny.pt", clock, fake(nets, "better"), **loose)
    settle(keeper, clock, 3)
    assert keeper.benches.now.assigns is not None
    assert keeper.networks.job() is None
    assert not (tmp_path / "out" / "models").exists()


def test_another_process_that_makes_the_clusters_is_followed(tmp_path: Path, nets: Path, codec: Codec) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2)
    passive = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    active = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    settle(active, clock)
    passive.follow_files()
    assert passive.benches.now.assigns is not None
    assert passive.benches.now.assigns.version == 1


def test_a_damaged_record_and_damaged_clusters_stop_nothing(tmp_path: Path, nets: Path, codec: Codec) -> None:
    clock = Clock()
    (tmp_path / "out").mkdir()
    fill(tmp_path, codec, 1, 2)
    bad = tmp_path / "out" / "session" / "bad.mrc.h5"
    bad.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "out" / "clusters.h5").write_text("no clusters")
    keeper = session(tmp_path, nets / "tiny.pt", clock, **CALM)
    settle(keeper, clock)
    assert len(keeper.records.entries) == 2
    assert keeper.benches.now.clusters is not None
    assert (tmp_path / "out" / "clusters.h5.unusable").read_text() == "no clusters"
    assert not keeper.errors
