"""The live page of cryoem_picks: rows, pictures, tiles, thresholds, reviews and restarts, with real micrographs."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.particles.candidates import Candidates
from beamsieve.stream.beamlines.page_picks import PicksPage
from beamsieve.stream.beamlines.picks_stored import row_id
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result, RunEnd, RunStart
from beamsieve.stream.flow.metrics import MICROGRAPH_LATENCY_S, Metrics
from beamsieve.stream.flow.yields import Yields
from beamsieve.stream.live import drawing as drawing_module
from beamsieve.stream.live import sampling
from beamsieve.stream.live.latest import Latest
from beamsieve.stream.live.maps import place_of
from beamsieve.stream.live.marks import Marks
from beamsieve.stream.live.micrographs import above
from beamsieve.stream.live.overview import binned, factor_for, grey, levels, view_of
from beamsieve.stream.live.page import JSON, Blob, Refused
from beamsieve.stream.live.sampling import offer
from beamsieve.stream.live.schema import COMMON, CONTROLS, MAYBE, NUMBER, TEXT, problems_of
from beamsieve.stream.live.shelf import Shelf
from beamsieve.stream.live.strips import Strips
from beamsieve.stream.sinks.picks import again
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.settings import PickSettings
from beamsieve.stream.sinks.picks.sink import PickSink
from beamsieve.stream.sources.folder.settings import FolderSettings
from beamsieve.stream.sources.folder.source import FolderSource

SHAPE = (200, 320)
BAND = (0.5, 2.0)
DIAMETER_PX = 12.0
MODEL = "ab" * 32
ROW: Mapping[str, Any] = {
    "id": str,
    "name": str,
    "time": NUMBER,
    "picks": int,
    "candidates": int,
    "threshold": NUMBER,
    "seconds": MAYBE,
    "warnings": [str],
    "skipped": [str],
    "square": TEXT,
    "hole": TEXT,
    "stage": (None, [NUMBER]),
    "full": bool,
}
PICKS: Mapping[str, Any] = {
    "scores": {"edges": [NUMBER], "counts": [int], "run": [int], "seconds": NUMBER},
    "what_if": {
        "threshold": [NUMBER],
        "picks": [int],
        "median": [NUMBER],
        "purity": [(None, [NUMBER])],
        "recall": [(None, [NUMBER])],
    },
    "yield": {
        "micrographs": int,
        "particles": int,
        **dict.fromkeys(("last", "recent", "median", "ratio", "per_hour"), MAYBE),
    },
    "waiting": {"oldest_s": NUMBER, "files": [{"name": str, "reason": str, "seconds": NUMBER}]},
    "rows": [ROW],
    "rows_version": int,
    "rethreshold": (None, {"done": int, "of": int}),
}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Controls:
    """What a person changes, as far as the page asks: the threshold."""

    def __init__(self) -> None:
        self.value = 0.5
        self.asked: list[tuple[str, Mapping[str, Any], str]] = []

    def state(self) -> JSON:
        return {
            "threshold": {"value": self.value, "configured": 0.5, "card": 0.5, "floor": 0.1},
            "writing": {"paused": False, "file": None},
            "run": {"name": "session", "title": "", "since": time.time()},
            "model": {},
            "models": [],
            "candidate": None,
            "changes": [],
        }

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        self.asked.append((action, body, by))
        if action == "threshold":
            self.value = body["value"]
        return self.state()


class Wall:
    """A clock that tests move on. Records know the real time, so it begins there, for each test anew."""

    def __init__(self) -> None:
        self.start = self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Session:
    """A session's folder with a page on it, and what writes into it."""

    def __init__(self, base: Path, **words: Any) -> None:
        self.base = base
        self.wall = Wall()
        self.controls = Controls()
        self.metrics = Metrics("cryoem_picks", yields=Yields(), latency_s=MICROGRAPH_LATENCY_S)
        self.settings = PickSettings.model_validate(
            {"directory": base / "out", "formats": (), "pictures": False, "min_free_gb": 0}
        )
        self.sink = PickSink(self.settings)
        self.sink.open()
        self.page = self.again(**words)

    def again(self, **words: Any) -> PicksPage:
        """The page of a daemon that was started anew."""
        return PicksPage(
            metrics=self.metrics,
            controls=self.controls,
            marks=Marks(self.base / "out"),
            sink_directory=self.base / "out",
            wall=self.wall,
            **{"draw_s": 0.0, **words},
        )

    def write(self, found: PickedMicrograph, image: npt.NDArray[Any], page: PicksPage | None = None) -> str:
        """One micrograph through the sinks; gives its row's id."""
        frame = Frame(Key("session", 0), image, 0.0, self.wall.now)
        outcome = Outcome.REJECTED if found.skipped else Outcome.ACCEPTED
        seconds = {"score": 0.5, "read": 0.25}
        result = Result(frame, outcome, 1.0, "picker", 1.0, {"micrograph": found, "seconds": seconds})
        assert self.sink.write([result]) == []
        assert (page or self.page).watch.write([result]) == ()
        self.wall.now += 30.0
        return row_id(found)

    def close(self) -> None:
        self.page.close()
        self.sink.close()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    found = Session(tmp_path)
    yield found
    found.close()


def image(seed: int, dtype: Any = np.float32, shape: tuple[int, int] = SHAPE) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).normal(1000, 50, shape).astype(dtype)


def micrograph(seed: int, base: Path = Path("/data"), **changes: Any) -> PickedMicrograph:
    """One with candidates on a grid, far enough apart that places name one of them; 40 of them."""
    rng = np.random.default_rng(seed)
    y, x = (axis.ravel().astype(np.float32) for axis in np.mgrid[20:181:40, 20:301:40])
    score = np.sort(rng.uniform(0.1, 1, len(x)).astype(np.float32))[::-1].copy()
    sd = rng.uniform(0.3, 2.3, len(x)).astype(np.float32)
    candidates = Candidates(x, y, score, sd)
    name = changes.pop("name", f"g/{seed:03d}.mrc")
    threshold = changes.get("threshold", 0.5)
    plain = PickedMicrograph(
        name,
        base / name,
        SHAPE,
        1.5,
        candidates,
        candidates.picked(threshold, BAND),
        threshold,
        "tiny",
        MODEL,
        diameter_a=DIAMETER_PX * 1.5,
        box_px=20,
        quality={"mean": 10.0, "ice_fraction": 0.25},
        info={"grid_square": "7"},
        sd_range=BAND,
        floor=0.1,
    )
    found = replace(plain, **{"threshold": threshold, **changes})
    return replace(found, picked=np.zeros_like(found.picked)) if found.skipped else found


def stored_image(folder: Path, name: str, data: npt.NDArray[Any]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
    return path


def pictures(page: PicksPage, group: str = "") -> list[JSON]:
    found = [json.loads(picture.encoded) for picture in page.pictures(0)]
    return [picture for picture in found if group in ("", picture["group"])]


def drawn(page: PicksPage) -> None:
    assert page.drawn.idle(20)


def blob(page: PicksPage, kind: str, name: str, **query: Any) -> Blob:
    found = page.blob(kind, name, {word: str(value) for word, value in query.items()})
    assert found is not None
    json.dumps(dict(found.head), allow_nan=False).encode("ascii")
    return found


def array(found: Blob) -> npt.NDArray[np.uint8]:
    assert found.head["dtype"] == "u1"
    return np.frombuffer(found.body, np.uint8).reshape(found.head["shape"])


def estimate_free(snapshot: JSON) -> JSON:
    return {name: snapshot[name] for name in ("scores", "what_if", "yield")}


# Snapshot and rows


def test_snapshot_of_a_session_has_the_shape_that_browsers_expect(session: Session) -> None:
    page = session.page
    assert list(problems_of(page.snapshot(), {**COMMON, **CONTROLS, **PICKS})) == []
    page.watch.start(RunStart("session"))
    found = micrograph(1, quality={"mean": float("nan"), "contrast": float("inf")}, info={"stage_x_um": 3.0})
    session.write(found, image(1))
    session.write(micrograph(2, skipped=("contrast",), warnings=("contrast",)), image(2))
    for said in (page.snapshot(), page.facts()):
        json.dumps(said, allow_nan=False)
    snapshot, facts = page.snapshot(), page.facts()
    assert list(problems_of(snapshot, {**COMMON, **CONTROLS, **PICKS})) == []
    assert facts["rows"] == snapshot["rows"]
    assert facts["rows_version"] == snapshot["rows_version"]
    first, second = snapshot["rows"]
    assert first["picks"] == int(found.picked.sum()) > 0
    assert (first["candidates"], first["seconds"], first["threshold"]) == (40, 0.75, 0.5)
    assert first["quality"] == {"mean": None, "contrast": None}
    assert first["stage"] is None
    assert (second["picks"], second["skipped"], second["square"]) == (0, ["contrast"], "7")
    assert set(second["quality"]) <= set(facts["numbers"])
    assert snapshot["what_if"]["threshold"][0] == 0.1
    assert snapshot["what_if"]["threshold"][-1] == 1.0
    assert len(snapshot["scores"]["counts"]) == len(snapshot["scores"]["edges"]) - 1 == 200


def test_what_if_is_what_picking_again_would_give(session: Session) -> None:
    found = [micrograph(seed, skipped=("ice",) if seed == 3 else ()) for seed in range(7)]
    for one in found:
        session.write(one, image(0))
    what_if = session.page.snapshot()["what_if"]
    in_force = session.page.snapshot()["threshold"]["value"]
    assert in_force in what_if["threshold"], "what is in force needs no interpolation"
    assert len(what_if["threshold"]) in {101, 102}
    assert what_if["threshold"] == sorted(set(what_if["threshold"]))
    for at, threshold in enumerate(what_if["threshold"]):
        counts = [0 if one.skipped else int(one.candidates.picked(threshold, one.sd_range).sum()) for one in found]
        assert what_if["picks"][at] == sum(counts)
        assert what_if["median"][at] == np.median(counts)
    usable = [one.candidates.score[(one.candidates.sd >= 0.5) & (one.candidates.sd <= 2.0)] for one in found]
    scores = np.concatenate([one for at, one in enumerate(usable) if at != 3])
    told = session.page.snapshot()["scores"]
    assert told["counts"] == np.histogram(scores, np.array(told["edges"], np.float32))[0].tolist()
    trend = session.page.snapshot()["yield"]
    picks = [int(one.picked.sum()) for one in found]
    assert (trend["micrographs"], trend["particles"], trend["last"]) == (7, sum(picks), picks[-1])
    assert trend["median"] == np.median(picks)
    assert trend["per_hour"] == pytest.approx(6 / (7 * 30.0 / 3600))


def test_a_score_at_the_threshold_is_a_pick() -> None:
    scores = np.array([0.1, 0.35, 0.35, 0.7], np.float32)
    candidates = Candidates(scores, scores, scores, scores)
    for threshold in (0.1, 0.35, 0.7, 0.71):
        assert above(scores, [threshold])[0] == candidates.picked(threshold).sum()
    assert above(scores, [0.1, 0.35, 0.7, 0.71]).tolist() == [4, 3, 1, 0]


def test_run_counts_begin_anew_with_a_run(session: Session) -> None:
    page = session.page
    page.watch.start(RunStart("session"))
    session.write(micrograph(1), image(1))
    before = page.snapshot()["scores"]
    assert before["run"] == before["counts"] != [0] * 200
    page.watch.end(RunEnd("session", "operator"))
    page.watch.start(RunStart("session", {"title": "another grid"}))
    assert page.snapshot()["scores"]["run"] == [0] * 200
    session.write(micrograph(2), image(2))
    after = page.snapshot()["scores"]
    assert [a - b for a, b in zip(after["counts"], before["counts"], strict=True)] == after["run"]


def test_a_new_revision_replaces_its_row(session: Session) -> None:
    old = session.write(micrograph(1), image(1))
    version = session.page.snapshot()["rows_version"]
    new = session.write(micrograph(1, revision=1, threshold=0.8), image(2))
    assert old != new
    snapshot = session.page.snapshot()
    assert [row["id"] for row in snapshot["rows"]] == [new]
    assert snapshot["rows_version"] > version
    assert snapshot["yield"]["micrographs"] == 1
    assert session.page.blob("picks", old, {}) is None


def test_rows_are_bounded_and_those_that_leave_stay_in_the_totals(tmp_path: Path) -> None:
    session = Session(tmp_path, most_rows=4)
    found = [micrograph(seed) for seed in range(9)]
    for one in found:
        session.write(one, image(0))
    snapshot = session.page.snapshot()
    assert [row["name"] for row in session.page.facts()["rows"]] == [one.name for one in found[-4:]]
    assert snapshot["yield"]["micrographs"] == 9
    assert snapshot["yield"]["particles"] == sum(int(one.picked.sum()) for one in found)
    at = snapshot["what_if"]["threshold"].index(0.505)
    assert snapshot["what_if"]["picks"][at] == sum(int(one.candidates.picked(0.505, BAND).sum()) for one in found)
    # Those that left are not read back in, only to leave and be counted once more.
    session.page.stored.scan()
    assert session.page.snapshot()["yield"] == snapshot["yield"]
    session.page.refreshed(0.505)
    assert session.page.snapshot()["yield"]["particles"] == snapshot["what_if"]["picks"][at]
    session.close()


def test_another_model_has_scores_of_its_own(session: Session) -> None:
    old = micrograph(1)
    session.write(old, image(1))
    new = micrograph(2, model_sha256="cd" * 32, threshold=0.7)
    session.write(new, image(2))
    session.page.refreshed(0.9)
    rows = session.page.snapshot()["rows"]
    assert [row["picks"] for row in rows] == [int(old.picked.sum()), int(new.candidates.picked(0.9, BAND).sum())]
    what_if = session.page.snapshot()["what_if"]
    kept = int(old.picked.sum())
    assert what_if["picks"][-1] == kept
    assert what_if["picks"][0] == kept + int(new.candidates.picked(0.1, BAND).sum())


# Restart and thresholds


def test_after_a_restart_everything_is_as_before(session: Session) -> None:
    page = session.page
    page.watch.start(RunStart("session"))
    for seed in range(6):
        found = micrograph(seed, session.base, skipped=("ice",) if seed == 2 else (), quality={"ice": float("nan")})
        stored_image(session.base, found.name, image(seed))
        session.write(found, image(seed))
    drawn(page)
    before, table = page.snapshot(), page.facts()
    page.close()
    session.page = again = session.again()
    again.open()
    assert again.stored.loaded.wait(20)
    # The records know the second; the test's own clock is not theirs.
    times = {row["name"]: row["time"] for row in table["rows"]}
    rows = {row["name"]: row for row in again.facts()["rows"]}
    assert list(rows) == list(times)
    for row in table["rows"]:
        assert {**rows[row["name"]], "time": 0, "full": True} == {**row, "time": 0, "full": True}
    after = again.snapshot()
    assert after["what_if"] == before["what_if"]
    assert after["scores"]["counts"] == before["scores"]["counts"]
    for name in ("micrographs", "particles", "last", "recent", "median", "ratio"):
        assert after["yield"][name] == before["yield"][name]
    assert after["rows_version"] > 0
    # The last micrographs are shown again, from their files.
    for _ in range(200):
        if again.drawn.done == 3:
            break
        threading.Event().wait(0.05)
    shown = pictures(again, "micrograph")
    assert [picture["name"] for picture in shown] == [f"g/{seed:03d}.mrc" for seed in (3, 4, 5)]
    assert pictures(again, "particle")[-1]["pixels"] == pictures(page, "particle")[-1]["pixels"]


def test_threshold_moved_on_the_page_holds_at_once_and_after_the_records_follow(session: Session) -> None:
    page = session.page
    found = [micrograph(seed) for seed in range(4)]
    for one in found:
        session.write(one, image(0))
    version = page.snapshot()["rows_version"]
    page.act("threshold", {"value": 0.8}, "ada")
    wanted = [int(one.candidates.picked(0.8, BAND).sum()) for one in found]

    def picks() -> list[int]:
        return [row["picks"] for row in page.snapshot()["rows"]]

    assert picks() == wanted
    assert page.snapshot()["rows_version"] > version
    assert session.controls.asked == [("threshold", {"value": 0.8}, "ada")]
    # Records that are still to be picked again do not undo it.
    assert page.stored.scan() == 4
    assert picks() == wanted
    again.rethreshold(session.base / "out", session.settings, 0.8, None, lambda *_: None)
    page.stored.scan()
    assert picks() == wanted
    shown = json.loads(blob(page, "picks", row_id(found[0])).body)
    assert sum(shown["picked"]) == wanted[0]
    assert shown["threshold"] == 0.8


def test_threshold_moved_by_the_command_line_reaches_the_page(session: Session) -> None:
    found = [micrograph(seed) for seed in range(3)]
    for one in found:
        session.write(one, image(0))
    again.rethreshold(session.base / "out", session.settings, 0.7, (0.9, 1.6), lambda *_: None)
    version = session.page.table.version
    assert session.page.stored.scan() == 3
    rows = session.page.snapshot()["rows"]
    assert [row["picks"] for row in rows] == [int(one.candidates.picked(0.7, (0.9, 1.6)).sum()) for one in found]
    assert session.page.table.version > version
    assert session.page.stored.scan() == 0


def test_a_damaged_record_costs_its_row_alone(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(3):
        session.write(micrograph(seed), image(0))
    (session.base / "out" / "micrographs" / "g" / "001.mrc.h5").write_bytes(b"no record")
    again_page = session.again()
    with caplog.at_level(logging.INFO):
        again_page.stored.scan()
    assert [row["name"] for row in again_page.facts()["rows"]] == ["g/000.mrc", "g/002.mrc"]
    assert "001.mrc.h5" in caplog.text


# Pixels


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int16, np.uint32])
@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_binning_takes_means(dtype: Any, factor: int) -> None:
    data = image(5, dtype, (101, 64))
    ny, nx = 101 // factor, 64 // factor
    wanted = data[: ny * factor, : nx * factor].astype(float).reshape(ny, factor, nx, factor).mean((1, 3))
    np.testing.assert_allclose(binned(data, factor), wanted, rtol=1e-5)
    np.testing.assert_allclose(binned(data[:2], 3), data[:2, :63].astype(float).reshape(2, 21, 3).mean((0, 2))[None])
    assert factor_for((4096, 4095), 2048) == 2
    assert factor_for((4097, 10), 2048) == 3


def test_grey_is_a_straight_line_between_the_levels() -> None:
    data = np.array([[0.0, 10.0, 15.0, 20.0, 30.0, np.nan, np.inf, -np.inf]], np.float32)
    assert grey(data, 10.0, 20.0).tolist() == [[0, 0, 127, 255, 255, 0, 255, 0]]
    assert grey(np.full((3, 3), 7, np.uint16), 7.0, 7.0).tolist() == [[0] * 3] * 3
    assert levels(np.full((4, 4), np.nan)) == (0.0, 1.0)
    low, high = levels(image(1, shape=(600, 700)))
    assert (low, high) == pytest.approx(tuple(np.percentile(image(1, shape=(600, 700)), (0.5, 99.5))), rel=1e-3)


def test_tiles_are_the_pixels_of_the_image(session: Session) -> None:
    data = image(9, np.uint16, (700, 900))
    session.page.open()
    row = session.write(micrograph(1, shape=(700, 900)), data)
    drawn(session.page)
    low, high = levels(data)
    wanted = np.clip((data.astype(np.float64) - low) * 255 / (high - low), 0, 255)
    tile = blob(session.page, "tile", row, x=640, y=512, size=256)
    assert (tile.head["shape"], tile.head["x"], tile.head["y"], tile.lasting) == ([188, 256], 640, 512, True)
    assert np.abs(array(tile) - wanted[512:700, 640:896]).max() <= 1
    wrongs = [("x", "900"), ("y", "700"), ("size", "0"), ("size", "1025"), ("x", "-1"), ("x", "1e2"), ("x", "٣")]
    for word, wrong in wrongs:
        assert session.page.blob("tile", row, {"x": "0", "y": "0", "size": "64", word: wrong}) is None
    assert session.page.blob("tile", "../../etc/passwd", {"x": "0", "y": "0", "size": "64"}) is None
    assert session.page.blob("tile", row, {}) is None
    assert session.page.blob("else", row, {}) is None
    overview = blob(session.page, "micrograph", row)
    assert overview.head["factor"] == 1
    assert np.array_equal(array(overview), view_of(data).large)
    (picture,) = pictures(session.page, "micrograph")
    assert (picture["id"], picture["ny"], picture["nx"], picture["factor"]) == (row, 700, 900, 2)
    pixels = np.frombuffer(base64.b64decode(picture["pixels"]), np.uint8).reshape(picture["h"], picture["w"])
    assert np.array_equal(pixels, view_of(data).small)


def test_pixels_stay_within_their_budget_and_come_back_on_demand(tmp_path: Path) -> None:
    budget = 4 * SHAPE[0] * SHAPE[1]
    session = Session(tmp_path, budget=budget)
    session.page.open()
    rows = []
    for seed in range(8):
        found = micrograph(seed, tmp_path)
        stored_image(tmp_path, found.name, image(seed))
        rows.append(session.write(found, image(seed)))
        drawn(session.page)
        assert session.page.views.nbytes <= budget
    kept = [row["full"] for row in session.page.facts()["rows"]]
    assert kept == [False] * 5 + [True] * 3
    tile = blob(session.page, "tile", rows[0], x=0, y=0, size=512)
    assert np.array_equal(array(tile), view_of(image(0)).full)
    assert np.array_equal(array(blob(session.page, "micrograph", rows[1])), view_of(image(1)).large)
    assert session.page.views.nbytes <= budget
    assert [row["full"] for row in session.page.facts()["rows"]] == [True, True, *[False] * 5, True]
    # A movie, another image in its place, a file that is gone: no picture, and no error.
    stored_image(tmp_path, "g/002.mrc", np.stack([image(2), image(2)]))
    stored_image(tmp_path, "g/003.mrc", image(3, shape=(30, 30)))
    (tmp_path / "g/004.mrc").unlink()
    assert [session.page.blob("micrograph", row, {}) for row in rows[2:5]] == [None] * 3
    session.close()


def test_an_image_that_is_gone_is_not_asked_for_again_and_again(tmp_path: Path) -> None:
    asked: list[Path] = []

    def load(path: Path, _: tuple[int, int]) -> None:
        asked.append(path)

    session = Session(tmp_path, load=load)
    row = session.write(micrograph(1), image(1))
    for _ in range(5):
        assert session.page.blob("micrograph", row, {}) is None
    assert asked == [Path("/data/g/001.mrc")]
    session.close()


def test_pictures_may_be_dropped_and_rows_never(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()
    real = view_of

    def slow(data: npt.NDArray[Any]) -> Any:
        began.set()
        assert go_on.wait(20)
        return real(data)

    monkeypatch.setattr(drawing_module, "view_of", slow)
    session.page.open()
    rows = [session.write(micrograph(0), image(0))]
    assert began.wait(20)
    rows += [session.write(micrograph(seed), image(seed)) for seed in range(1, 12)]
    assert [row["id"] for row in session.page.facts()["rows"]] == rows
    assert session.page.drawn.dropped == 9
    go_on.set()
    drawn(session.page)
    assert [picture["id"] for picture in pictures(session.page, "micrograph")] == [rows[0], *rows[-2:]]


def test_every_browser_gets_what_it_has_not_had(session: Session) -> None:
    session.page.open()
    session.write(micrograph(1), image(1))
    drawn(session.page)
    first = session.page.pictures(0)
    assert [picture.seq for picture in first] == sorted({picture.seq for picture in first})
    assert session.page.pictures(first[-1].seq) == []
    session.write(micrograph(2), image(2))
    drawn(session.page)
    later = session.page.pictures(first[-1].seq)
    assert {json.loads(picture.encoded)["group"] for picture in later} >= {"micrograph", "particle"}
    for _ in range(12):
        session.write(micrograph(3 + _), image(3 + _))
        drawn(session.page)
    assert len(pictures(session.page, "micrograph")) == 4
    assert len(pictures(session.page, "particle")) == 60
    for picture in pictures(session.page):
        assert len(base64.b64decode(picture["pixels"])) == picture["w"] * picture["h"]


def test_a_picture_that_comes_again_takes_its_place() -> None:
    strips = Strips({"particle": 3})
    for name, grey_level in (("a", 1), ("b", 2), ("a", 3)):
        strips.add("particle", np.full((2, 3), grey_level, np.uint8), {"id": name})
    assert strips.ids("particle") == ["b", "a"]
    found = [json.loads(picture.encoded) for picture in strips.after(0)]
    assert [(one["id"], one["w"], one["h"], base64.b64decode(one["pixels"])) for one in found] == [
        ("b", 3, 2, bytes([2] * 6)),
        ("a", 3, 2, bytes([3] * 6)),
    ]


def test_picks_of_another_revision_are_not_shown(session: Session) -> None:
    row = session.write(micrograph(1), image(1))
    later = session.again()
    later.stored.scan()
    elsewhere = session.again()
    session.write(micrograph(1, revision=1), image(2), elsewhere)
    assert later.table.get(row) is not None
    assert later.blob("picks", row, {}) is None
    with pytest.raises(Refused, match="not stored"):
        later.act("mark", {"marks": [{"id": f"{row}/1", "verdict": "right"}]}, "ada")


def test_particles_are_shown_as_dark_as_in_the_micrograph(session: Session) -> None:
    data = image(1)
    found = micrograph(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for px, py in zip(found.candidates.x, found.candidates.y, strict=True):
        data[np.hypot(x - px, y - py) <= DIAMETER_PX / 2] -= 150
    session.page.open()
    session.write(found, data)
    drawn(session.page)
    shown = pictures(session.page, "particle")
    assert len(shown) == 12
    for picture in shown:
        pixels = np.frombuffer(base64.b64decode(picture["pixels"]), np.uint8).reshape(picture["h"], picture["w"])
        middle, edge = pixels.shape[0] // 2, pixels[:2].mean()
        assert pixels[middle - 2 : middle + 2, middle - 2 : middle + 2].mean() < edge - 60
        number = int(picture["id"].split("/")[1])
        assert (picture["x"], picture["y"]) == (found.candidates.x[number], found.candidates.y[number])
        assert found.picked[number]


# Reviews


def test_each_pick_and_each_miss_has_its_stated_chance_to_be_offered() -> None:
    picked = np.arange(130) < 70
    hits = np.zeros(130)
    for trial in range(4000):
        found = offer(f"{trial:016x}", picked)
        assert (found.pick_weight, found.miss_weight) == (20.0, 50.0)
        hits[found.picks] += 1
        hits[found.misses] += 1
        assert set(found.picks) <= set(found.shown)
        assert len(found.shown) == 12
        assert picked[found.shown].all()
    assert hits[:70] / 4000 == pytest.approx(np.full(70, 1 / 20), abs=0.017)
    assert hits[70:] / 4000 == pytest.approx(np.full(60, 1 / 50), abs=0.011)
    assert hits[:70].sum() / 4000 == pytest.approx(70 / 20, rel=0.03)
    many = offer("a", np.arange(2000) < 1000)
    assert (len(many.picks), many.pick_weight, len(many.misses), many.miss_weight) == (12, 1000 / 12, 4, 250.0)
    again_found = offer("a", np.arange(2000) < 1000)
    assert np.array_equal(again_found.picks, many.picks)
    none = offer("a", np.zeros(50, bool), skipped=True)
    assert len(none.misses) == len(none.picks) == len(none.shown) == 0


@pytest.fixture
def everything_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SHARE_PICKS", 1.0)
    monkeypatch.setattr(sampling, "SHARE_MISSES", 1.0)
    monkeypatch.setattr(sampling, "MOST_PICKS", 5)
    monkeypatch.setattr(sampling, "MOST_MISSES", 5)


@pytest.mark.usefixtures("everything_offered")
def test_marks_of_offered_pictures_are_a_sample_and_others_by_hand(session: Session) -> None:
    session.page.open()
    found = micrograph(1)
    row = session.write(found, image(1))
    drawn(session.page)
    offered = [picture for picture in pictures(session.page) if picture.get("review")]
    assert sorted(picture["group"] for picture in offered) == ["particle"] * 5 + ["random_miss"] * 5
    picks = int(found.picked.sum())
    assert {(p["group"], p["weight"]) for p in offered} == {
        ("particle", picks / 5),
        ("random_miss", (40 - picks) / 5),
    }
    assert session.page.snapshot()["review"]["waiting"] == 10
    assert [picture["review"] for picture in pictures(session.page, "particle")][-5:] == [True] * 5
    verdicts = [{"id": picture["id"], "verdict": "right"} for picture in offered]
    volunteered = next(p["id"] for p in pictures(session.page, "particle") if not p["review"])
    done = session.page.act("mark", {"marks": [*verdicts, {"id": volunteered, "verdict": "wrong"}]}, "ada")
    assert (done["review"]["right"], done["review"]["wrong"], done["review"]["waiting"]) == (10, 1, 0)
    marks = Marks(session.base / "out").latest()
    for picture in offered:
        mark = marks[picture["id"]]
        number = int(picture["id"].split("/")[1])
        assert mark.accepted == found.picked[number] == (picture["group"] == "particle")
        assert (mark.kind, mark.truth, mark.by, mark.weight) == ("pick", True, "ada", picture["weight"])
        assert (mark.extra["x"], mark.extra["y"]) == (found.candidates.x[number], found.candidates.y[number])
        assert (mark.extra["micrograph"], mark.extra["name"]) == ("/data/g/001.mrc", "g/001.mrc")
        assert mark.extra["pixel_a"] == 1.5
        within = BAND[0] <= found.candidates.sd[number] <= BAND[1]
        assert mark.score == (pytest.approx(float(found.candidates.score[number])) if within else 0.0)
        assert mark.extra["group"] == ("accepted" if picture["group"] == "particle" else "random_miss")
    assert (marks[volunteered].extra["group"], marks[volunteered].truth) == ("by_hand", False)
    # All that were sampled are true, so that recall is the share of candidates that were picked.
    assert done["review"]["purity"]["value"] == 1.0
    assert done["review"]["recall"]["value"] == pytest.approx(picks / 40)
    what_if = session.page.snapshot()["what_if"]
    assert list(problems_of(session.page.snapshot(), {**COMMON, **CONTROLS, **PICKS})) == []
    assert what_if["recall"][50][0] < what_if["recall"][10][0] <= 1
    assert session.page.snapshot()["rows"][0]["id"] == row


@pytest.mark.usefixtures("everything_offered")
def test_estimates_follow_a_threshold_that_is_moved(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_PICKS", "MOST_MISSES"):
        monkeypatch.setattr(sampling, name, 40)
    session.page.open()
    found = micrograph(1)
    row = session.write(found, image(1))
    drawn(session.page)
    # Every candidate is marked, the first of each ten as wrong: what is estimated must be so.
    truth = np.arange(40) % 10 != 0
    marks = [{"id": f"{row}/{n}", "verdict": "right" if truth[n] else "wrong"} for n in range(40)]
    session.page.act("mark", {"marks": marks}, "ada")
    # Someone who goes looking for bad ones must not make the estimates worse.
    session.page.act("mark", {"marks": [{"id": row, "verdict": "wrong", "x": 40, "y": 40}]}, "ada")
    for threshold in (0.5, 0.8, 0.3):
        session.page.act("threshold", {"value": threshold}, "ada")
        picked = found.candidates.picked(threshold, BAND)
        review = session.page.snapshot()["review"]
        assert review["purity"]["value"] == pytest.approx((picked & truth).sum() / picked.sum())
        assert review["recall"]["value"] == pytest.approx((picked & truth).sum() / truth.sum())
        what_if = session.page.snapshot()["what_if"]
        assert what_if["recall"][0][0] == pytest.approx(
            (found.candidates.picked(0.1, BAND) & truth).sum() / truth.sum()
        )


def test_places_name_the_nearest_candidate_or_themselves(session: Session) -> None:
    found = micrograph(1)
    row = session.write(found, image(1))
    page = session.page
    number = 9
    x, y = float(found.candidates.x[number]), float(found.candidates.y[number])

    def mark(verdict: str, x: float, y: float, name: str = row) -> None:
        page.act("mark", {"marks": [{"id": name, "verdict": verdict, "x": x, "y": y}]}, "ada")

    def truths() -> dict[str, bool | None]:
        return {name: mark.truth for name, mark in Marks(session.base / "out").latest().items()}

    mark("wrong", x + 4, y - 4)
    assert truths() == {f"{row}/{number}": False}
    mark("right", x + 20, y)
    mark("right", x + 22, y + 1)
    free = f"{row}/{x + 20:.0f},{y:.0f}"
    assert truths() == {f"{row}/{number}": False, free: True}
    mark("wrong", x + 20, y + 20)
    shown = json.loads(blob(page, "picks", row).body)
    assert shown["truth"] == [False if at == number else None for at in range(40)]
    assert [(one["x"], one["y"], one["truth"]) for one in shown["marked"]] == [
        (x + 20, y, True),
        (x + 20, y + 20, False),
    ]
    mark("none", x + 19, y)
    mark("none", x + 3, y)
    mark("none", x + 20, y - 18)
    assert len((session.base / "out" / "marks.jsonl").read_text().splitlines()) == 6
    assert truths() == {f"{row}/{x + 20:.0f},{y + 20:.0f}": False}
    missed = Marks(session.base / "out").latest()[f"{row}/{x + 20:.0f},{y + 20:.0f}"]
    assert (missed.extra["group"], missed.accepted, np.isnan(missed.score)) == ("by_hand", False, True)
    # They are there after a restart, and the metrics have counted them.
    later = session.again()
    later.stored.scan()
    assert json.loads(blob(later, "picks", row).body)["marked"] == [
        {"id": f"{row}/{x + 20:.0f},{y + 20:.0f}", "x": x + 20, "y": y + 20, "truth": False}
    ]
    families = {family.name: family for family in session.metrics.operation.collect()}
    counted = {tuple(s.labels.values()): s.value for s in families["beamsieve_review_marks"].samples}
    assert counted[("right",)] == 2


WRONG: list[Any] = [
    {},
    {"marks": []},
    {"marks": "right"},
    {"marks": [{}] * 501},
    {"marks": ["x"]},
    {"marks": [{"id": 3, "verdict": "right"}]},
    {"marks": [{"id": "nobody/1", "verdict": "right"}]},
    {"marks": [{"id": "ROW/1", "verdict": "perhaps"}]},
    {"marks": [{"id": "ROW/1", "verdict": ["right"]}]},
    {"marks": [{"id": "ROW/40", "verdict": "right"}]},
    {"marks": [{"id": "ROW/²", "verdict": "right"}]},
    {"marks": [{"id": "ROW/" + "9" * 400, "verdict": "right"}]},
    {"marks": [{"id": "ROW", "verdict": "right"}]},
    {"marks": [{"id": "ROW", "verdict": "right", "x": 5}]},
    {"marks": [{"id": "ROW", "verdict": "right", "x": 5, "y": 200}]},
    {"marks": [{"id": "ROW", "verdict": "right", "x": float("nan"), "y": 5}]},
    {"marks": [{"id": "ROW", "verdict": "right", "x": True, "y": 5}]},
    {"marks": [{"id": "ROW/0", "verdict": "right"}, {"id": "ROW/1", "verdict": "no"}]},
]


@pytest.mark.parametrize("body", WRONG)
def test_marks_that_make_no_sense_are_refused_and_change_nothing(session: Session, body: Any) -> None:
    row = session.write(micrograph(1), image(1))
    body = json.loads(json.dumps(body).replace("ROW", row))
    with pytest.raises(Refused, match=r"."):
        session.page.act("mark", body, "ada")
    assert session.page.snapshot()["review"]["right"] == 0
    assert not (session.base / "out" / "marks.jsonl").exists()


# Parts


def test_place_on_the_grid_is_what_somebody_said(session: Session) -> None:
    assert place_of({}).stage is None
    assert place_of({"stage_x_um": 1.0}, {"stage_x_um": 2, "stage_y_um": 3.5}).stage == (2.0, 3.5)
    assert place_of({"stage_x_um": float("nan"), "stage_y_um": 3.5}).stage is None
    assert place_of({"grid_square": ""}, {"grid_square": 5}).square == "5"
    name = "Images-Disc1/GridSquare_111/Data/FoilHole_222_Data_333_444_20261120_101112.mrc"
    session.write(micrograph(1, name=name, info={"stage_x_um": -10.5, "stage_y_um": 2.0}), image(1))
    session.write(micrograph(2, name="26nov20a_00001gr_00004sq_00002hl_00003en.mrc", info={}), image(2))
    rows = session.page.snapshot()["rows"]
    assert [(row["square"], row["hole"], row["stage"]) for row in rows] == [
        ("111", "222", [-10.5, 2.0]),
        ("00004", "00002", None),
    ]


def test_waiting_files_say_why(tmp_path: Path, session: Session) -> None:
    class Still:
        """A bell that never rings."""

        def ring(self) -> None: ...
        def stop(self) -> None: ...
        def wait(self, timeout: float) -> bool:
            return False

        def start(self, root: Path, recursive: bool, every_s: float) -> bool:
            return True

    now = [100.0]
    folder = tmp_path / "in"
    for n in range(60):
        stored_image(folder, f"{n:02d}.mrc", np.zeros((8, 8), np.float32))
    settings = FolderSettings(directory=folder, session="s", settle_s=100.0)
    source = FolderSource(
        settings, session.metrics, journal=tmp_path / "journal.sqlite", bell=Still(), clock=lambda: now[0]
    )
    assert source.waiting_files() == []
    source.open()
    source.read(0.1)
    assert source.read(0.1) == []
    now[0] += 7.0
    source.read(0.1)
    files = source.waiting_files()
    assert files == [(f"{n:02d}.mrc", "settling", 7.0) for n in range(50)]
    assert len(source.waiting_files(60)) == 60
    page = session.again(waiting=source.waiting_files)
    waiting = page.snapshot()["waiting"]
    assert waiting["files"][0] == {"name": "00.mrc", "reason": "settling", "seconds": 7.0}
    assert waiting["reasons"] == {"settling": 60}
    source.finish()


def test_the_newest_work_is_done_and_a_bug_in_it_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def do(job: int) -> None:
        if job == 2:
            raise ValueError("broken")
        done.append(job)

    worker: Latest[int] = Latest("test pictures", do)
    for job in range(5):
        worker.put(job)
    assert worker.dropped == 3
    worker.start()
    assert worker.idle(10)
    assert done == [3, 4]
    for job in (2, 7):
        worker.put(job)
        assert worker.idle(10)
    assert done == [3, 4, 7]
    assert "a bug" in caplog.text
    worker.close()
    worker.put(8)
    assert worker.closed
    assert done == [3, 4, 7]


def test_a_shelf_keeps_what_was_asked_for_last() -> None:
    shelf: Shelf[npt.NDArray[np.uint8]] = Shelf(30)
    for name in "abc":
        shelf.put(name, np.zeros(10, np.uint8))
    assert shelf.get("a") is not None
    shelf.put("d", np.zeros(10, np.uint8))
    assert [name in shelf for name in "abcd"] == [True, False, True, True]
    shelf.put("e", np.zeros(31, np.uint8))
    assert [name in shelf for name in "abcde"] == [True, False, True, True, False]
    shelf.put("a", np.zeros(25, np.uint8))
    assert [name in shelf for name in "abcd"] == [True, False, False, False]
    assert shelf.nbytes == 25
