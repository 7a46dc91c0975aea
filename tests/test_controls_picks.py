"""What people change while micrographs are picked: stored ones follow a threshold, files wait, a candidate picks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
from beamsieve.models.bundle import load_bundle
from beamsieve.models.particles.conditions import named
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.simulator import Simulated, simulate
from beamsieve.stream.beamlines.cryoem_picks import CryoemPicks, build
from beamsieve.stream.flow.settings import Where
from beamsieve.stream.live.page import Refused

BY = "Ana"


def until(true: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def field() -> Simulated:
    return simulate(990_002, 0, named("small", snr=0.1), load_map("ribosome"))


def write(path: Path, field: Simulated) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path.with_suffix(".part"), overwrite=True) as out:
        out.set_data(field.image.astype(np.float32))
        out.voxel_size = field.pixel_a
    path.with_suffix(".part").rename(path)


def daemon(folder: Path, **model: Any) -> Any:
    settings = {
        "beamline": "cryoem_picks",
        "source": {"kind": "folder", "directory": "in", "settle_s": 0.0, "poll_s": 0.05},
        "model": {"bundle": "particles-ribosome", "threads": 1, **model},
        "files": {
            "directory": "out",
            "formats": ["csv"],
            "particles": {"size_px": 32},
            "pictures": False,
            "min_free_gb": 0,
        },
        "service": {"port": 0},
    }
    return build(CryoemPicks.model_validate(settings), Where(folder / "x.yaml"))


class Running:
    """A daemon that runs, and what it has done."""

    def __init__(self, folder: Path, field: Simulated, **model: Any) -> None:
        self.folder, self.field = folder, field
        (folder / "in").mkdir(exist_ok=True)
        self.daemon = daemon(folder, **model)
        self.page = self.daemon.page
        self.daemon.pipeline.start()

    def micrograph(self, name: str) -> None:
        before = self.daemon.pipeline.metrics.tally().accepted
        write(self.folder / "in" / f"{name}.mrc", self.field)
        until(lambda: self.daemon.pipeline.metrics.tally().accepted > before, name)

    def stored(self) -> dict[str, tuple[float, int, str]]:
        """Threshold, picks and model's hash of each micrograph on the disk."""
        found = {}
        for path in (self.folder / "out" / "micrographs").glob("*.h5"):
            with h5py.File(path) as file:
                picked = int(file["candidates"]["picked"].sum())
                found[path.name.partition(".")[0]] = (
                    float(file.attrs["threshold"]),
                    picked,
                    str(file.attrs["model_sha256"]),
                )
        return found

    def stop(self) -> None:
        self.daemon.pipeline.stop()
        assert self.daemon.pipeline.wait(20)
        self.daemon.close()


@pytest.fixture
def running(tmp_path: Path, field: Simulated) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(**model: Any) -> Running:
        made.append(Running(tmp_path, field, **model))
        return made[-1]

    yield make
    for each in made:
        each.daemon.pipeline.abort()


def test_a_threshold_moves_what_is_stored_and_what_comes_and_stays(running: Callable[..., Running]) -> None:
    one = running()
    one.micrograph("a")
    (first, many, sha) = one.stored()["a"]
    assert many > 10
    floor = one.page.snapshot()["threshold"]["floor"]
    with pytest.raises(Refused, match="not kept"):
        one.page.act("threshold", {"value": floor / 2}, BY)
    one.page.act("threshold", {"value": 0.8}, BY)
    until(lambda: one.stored()["a"][0] == 0.8, "the stored micrograph at the new threshold")
    few = one.stored()["a"][1]
    assert few < many
    until(lambda: one.page.snapshot()["rethreshold"] is None, "the end of it")
    row = until(lambda: next((r for r in one.page.facts()["rows"] if r["threshold"] == 0.8), None), "its row")
    assert row["picks"] == few
    one.micrograph("b")
    assert one.stored()["b"] == (0.8, few, sha), "the same picture, picked at the threshold in force"
    one.stop()

    again = running()
    state = again.page.snapshot()
    assert state["threshold"]["value"] == 0.8
    assert state["threshold"]["configured"] == pytest.approx(first)
    again.micrograph("c")
    assert again.stored()["c"][:2] == (0.8, few)
    changes = [(change["what"], change["by"], change["new"]) for change in again.page.snapshot()["changes"]]
    assert changes == [("threshold", BY, 0.8)]
    again.stop()
    with h5py.File(again.folder / "out" / "session.h5") as file:
        (line,) = file["changes"].asstr()[()]
        assert json.loads(line)["new"] == 0.8

    edited = running(threshold=0.6)
    assert edited.page.snapshot()["threshold"]["value"] == 0.6, "who edits the configuration means it"
    edited.stop()


def test_files_wait_while_writing_is_paused_and_none_is_lost(running: Callable[..., Running]) -> None:
    one = running()
    one.micrograph("a")
    one.page.act("pause", {"paused": True}, BY)
    write(one.folder / "in" / "b.mrc", one.field)
    until(lambda: any(file["name"] == "b.mrc" for file in one.page.snapshot()["waiting"]["files"]), "it waits")
    assert one.daemon.pipeline.metrics.tally().accepted == 1
    assert one.page.snapshot()["writing"]["paused"] is True
    one.page.act("pause", {"paused": False}, BY)
    until(lambda: one.daemon.pipeline.metrics.tally().accepted == 2, "it is picked")
    one.stop()


def test_a_candidate_picks_beside_the_model_in_force_and_takes_over(running: Callable[..., Running]) -> None:
    one = running(threshold=0.6)
    one.micrograph("a")
    with pytest.raises(Refused, match="choose one of"):
        one.page.act("candidate", {"bundle": "hits-resnet10"}, BY)
    one.page.act("candidate", {"bundle": "particles-general"}, BY)
    for name in "bcdefg":
        one.micrograph(name)
        if one.page.snapshot()["candidate"]["frames"]:
            break
    candidate = one.page.snapshot()["candidate"]
    assert candidate["unit"] == "picks"
    (both, old), (new, neither) = candidate["table"]
    assert neither == 0
    assert both > old + new, "both find most of the particles"
    assert candidate["rate"]["value"] == pytest.approx((both + new) / candidate["frames"])
    one.page.act("promote", {}, BY)
    one.micrograph("z")
    general = load_bundle("particles-general").card
    threshold, _, sha = one.stored()["z"]
    assert sha == general.sha256
    assert threshold == pytest.approx(general.threshold), "a threshold belongs to its model"

    before = one.stored()
    one.page.act("threshold", {"value": 0.9}, BY)
    until(lambda: one.stored()["z"][0] == 0.9, "its own micrograph follows")
    until(lambda: one.page.snapshot()["rethreshold"] is None, "the end of it")
    after = one.stored()
    assert {name: row for name, row in after.items() if name != "z"} == {n: r for n, r in before.items() if n != "z"}
    one.stop()

    again = running(threshold=0.6)
    assert again.page.snapshot()["model"]["name"] == "particles-general"
    assert again.page.snapshot()["threshold"]["value"] == 0.9
    again.stop()


def test_a_bug_of_the_page_leaves_the_picking_at_work(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = running()
    monkeypatch.setattr(one.page.watch, "write", lambda results: 1 / 0)
    one.micrograph("a")
    one.micrograph("b")
    assert one.daemon.pipeline.metrics.events()["page_bug"] == 1
    assert set(one.stored()) == {"a", "b"}
    one.stop()
    assert one.daemon.pipeline.error is None


def test_a_title_reaches_the_page_and_no_thread_is_left(running: Callable[..., Running]) -> None:
    one = running()
    one.micrograph("a")
    one.page.act("run", {"title": "grid 3"}, BY)
    until(lambda: one.page.snapshot()["run"]["title"] == "grid 3", "the title")
    one.stop()
    until(lambda: not [t for t in threading.enumerate() if t.name in {"rethreshold", "pick.run", "sinks"}], "no thread")
