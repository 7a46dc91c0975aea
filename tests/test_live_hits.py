"""The page of ``xfel_hits`` from verdicts to JSON: everything a browser is told, and what people say of frames."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.hits.infer import CLASSES, to_input
from beamsieve.stream.beamlines.looks import Looks
from beamsieve.stream.beamlines.page_hits import HitsPage
from beamsieve.stream.decode.frames import DetectorSettings
from beamsieve.stream.decode.geometry import Assembler, GeometrySettings
from beamsieve.stream.flow.frame import Encoded, Frame, Key, Outcome, Result, RunStart
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.live.hits_watch import stored_bytes
from beamsieve.stream.live.marks import Marks
from beamsieve.stream.live.page import JSON, Blob, Page, Picture, Refused
from beamsieve.stream.live.schema import PICTURE, hits_problems, problems_of

MODEL = "5e" * 32
TWO_MODULES = """
clen = 0.1
res = 10000
data = /data
dim0 = %
dim2 = ss
dim3 = fs
""" + "\n".join(
    f"m{i}/dim1 = {i}\nm{i}/min_fs = 0\nm{i}/max_fs = 3\nm{i}/min_ss = 0\nm{i}/max_ss = 2\n"
    f"m{i}/fs = x\nm{i}/ss = y\nm{i}/corner_x = {5 * i - 2}\nm{i}/corner_y = -1"
    for i in (0, 1)
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1.7e9


class FakeControls:
    def __init__(self, threshold: float | None = 0.9) -> None:
        self.threshold = threshold
        self.heard: list[tuple[str, Mapping[str, Any], str]] = []

    def state(self) -> JSON:
        return {
            "threshold": {"value": self.threshold, "configured": 0.9, "card": None, "floor": 0.0},
            "writing": {"paused": False, "file": None},
            "run": {"name": "r", "title": "", "since": None},
            "model": {},
            "models": [],
            "candidate": None,
            "changes": [],
        }

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        self.heard.append((action, body, by))
        return self.state()


class Bench:
    """A page with a clock in hand, without a model where ``lit``."""

    def __init__(self, directory: Path, *, lit: bool = False, looks: Looks | None = None, **extra: Any) -> None:
        self.clock, self.controls, self.directory = Clock(), FakeControls(None if lit else 0.9), directory
        self.metrics = Metrics("xfel_hits", CLASSES)
        self.marks = Marks(directory)
        self.page = HitsPage(
            metrics=self.metrics,
            controls=self.controls,
            marks=self.marks,
            directory=directory,
            to_input=None if lit else lambda frame: to_input(frame.data[np.newaxis], frame.mask, size=16)[0],
            looks=looks,
            clock=self.clock,
            wall=self.clock.wall,
            **extra,
        )

    def write(self, *results: Result) -> None:
        self.metrics.read(len(results), 100 * len(results))
        self.metrics.judged(results)
        self.page.watch.write(results)
        self.metrics.ended(results)

    def snapshot(self) -> JSON:
        found: JSON = json.loads(json.dumps(self.page.snapshot(), allow_nan=False))
        assert hits_problems(found) == []
        return found

    def pictures(self) -> dict[str, JSON]:
        """By key."""
        found = [json.loads(picture.encoded) for picture in self.page.pictures(0)]
        assert [list(problems_of(one, PICTURE)) for one in found if list(problems_of(one, PICTURE))] == []
        return {one["key"]: one for one in found}

    def mark(self, *marks: tuple[str, str], by: str = "Ada") -> JSON:
        return self.page.act("mark", {"marks": [{"id": name, "verdict": word} for name, word in marks]}, by)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def frame(number: int, data: npt.NDArray[Any] | None = None, **extra: Any) -> Frame:
    array = np.full((20, 24), number, np.uint16) if data is None else data
    return Frame(Key("r", number), array, 0.0, 1.7e9 + number, **extra)


def judged(number: int, score: float, *, weight: float | None = None, model: str = MODEL, **extra: Any) -> Result:
    hit = score >= 0.9
    row = np.array([0.1, score, 0, 0, 0], np.float32)
    found = {"label": 1 if hit else 0, "probabilities": row, "model": model, "threshold": 0.9, "photons": 7.0}
    weight = float(hit) if weight is None else weight
    outcome = Outcome.ACCEPTED if hit else Outcome.REJECTED
    return Result(frame(number, **extra), outcome, score, "model", weight, found)


def screened(number: int, lit: int, *, hit: bool = False, weight: float = 0.0) -> Result:
    outcome = Outcome.ACCEPTED if hit else Outcome.REJECTED
    found = {"lit": lit, "photons": None}
    return Result(frame(number), outcome, float(lit), "prescreen", weight, found)


def array(blob: Blob | None) -> npt.NDArray[Any]:
    assert blob is not None
    head = json.dumps(blob.head, allow_nan=False)
    assert head.isascii()
    assert len(head) < 4000
    return np.frombuffer(blob.body, blob.head["dtype"]).reshape(blob.head["shape"])


def test_a_page_without_any_frame_says_so_without_inventing_numbers(bench: Bench) -> None:
    page: Page = bench.page
    found = bench.snapshot()
    assert found["hits"]["windows"][0]["rate"] is None
    assert found["what_if"]["purity"] == [None] * 200
    assert found["review"] == {"right": 0, "wrong": 0, "waiting": 0, "purity": None, "recall": None}
    assert page.pictures(0) == []
    assert [page.blob(kind, "x", {}) for kind in ("frame", "powder", "file")] == [None] * 3
    assert page.blob("powder", "hits-sum", {}) is None
    assert json.dumps(page.facts(), allow_nan=False)
    assert page.facts()["labels"] == list(CLASSES)


def test_a_snapshot_tells_what_was_judged(bench: Bench) -> None:
    bench.page.watch.start(RunStart("r"))
    for _ in range(3):
        bench.write(judged(1, 0.95), judged(2, 0.2), judged(3, 0.1, weight=100.0), judged(4, math.nan))
        bench.clock.now += 1.0
        bench.page.watch.flush()
    bench.metrics.problems = lambda: ["no shots"]
    found = bench.snapshot()
    windows = {window["name"]: window for window in found["hits"]["windows"]}
    assert (windows["10 s"]["hits"], windows["run"]["shots"]) == (3, 12)
    assert (sum(found["scores"]["accepted"]), sum(found["scores"]["rejected"])) == (3, 6)
    assert found["what_if"]["kept_per_s"][0] == pytest.approx(9 / 3)
    assert found["what_if"]["bytes_per_s"][180] == pytest.approx(20 * 24 * 2)
    assert found["classes"][1] == {"label": "1", "count": 3, "per_s": pytest.approx(1.0)}
    assert [point["frames_per_s"] for point in found["points"]] == [4, 4, 4]
    assert found["powder"]["of_hits"] == 3
    assert found["problems"] == ["no shots"]
    assert found["counts"]["accepted"] == 3
    assert found["speed"]["bytes_per_s"] == pytest.approx(400)
    assert bench.page.facts()["points"] == found["points"]


def test_a_run_begins_with_new_windows_of_its_own(bench: Bench) -> None:
    bench.write(judged(1, 0.95))
    bench.page.watch.start(RunStart("next"))
    found = bench.snapshot()
    assert found["hits"]["windows"][-1]["shots"] == 0
    assert found["hits"]["windows"][0]["shots"] == 1
    assert sum(found["scores"]["run"]["accepted"]) == 0
    assert found["powder"] == {**found["powder"], "run": "next", "of_hits": 0}


def test_lit_pixels_stay_out_of_the_models_histogram(bench: Bench) -> None:
    bench.write(screened(1, 3), judged(2, 0.95), screened(3, 150, weight=50.0))
    found = bench.snapshot()
    assert (sum(found["scores"]["accepted"]), sum(found["scores"]["rejected"])) == (1, 0)
    assert found["hits"]["windows"][0]["shots"] == 3
    bench.write(screened(4, 2))
    assert sum(bench.snapshot()["scores"]["rejected"]) == 0


def test_where_lit_pixels_decide_alone_they_are_the_histogram(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lit=True)
    bench.write(screened(1, 3), screened(2, 950, hit=True, weight=1.0))
    found = bench.snapshot()
    assert found["scores"]["edges"][-1] == 1600
    assert (sum(found["scores"]["accepted"]), sum(found["scores"]["rejected"])) == (1, 1)
    pictures = bench.pictures()
    assert (pictures["r:2"]["label"], pictures["r:2"]["score"]) == (None, 950.0)
    assert (pictures["r:2"]["w"], pictures["r:2"]["h"]) == (24, 20), "the whole detector, where no model sees a part"
    bench.mark((pictures["r:2"]["id"], "wrong"))
    (mark,) = bench.marks.latest().values()
    assert (mark.truth, mark.model) == (False, "")
    assert math.isnan(mark.threshold)


def test_another_models_scores_begin_anew(bench: Bench) -> None:
    bench.write(judged(1, 0.95), judged(2, 0.91))
    bench.write(judged(3, 0.97), judged(4, 0.5, model="other"), judged(5, 0.6, model="other"))
    found = bench.snapshot()
    assert (sum(found["scores"]["accepted"]), sum(found["scores"]["rejected"])) == (0, 2)
    assert found["hits"]["windows"][0]["shots"] == 5


def test_bytes_are_those_that_came_or_the_arrays() -> None:
    chunk = Encoded(b"123", (20, 24), np.dtype("u2"), "bslz4")
    assert stored_bytes([judged(1, 0.5), judged(2, 0.5, chunk=chunk)]) == [960, 3]
    assert stored_bytes([judged(1, 0.5)]) == [960]


def test_pictures_show_what_the_model_saw(bench: Bench) -> None:
    data = np.zeros((20, 24), np.uint16)
    data[2, 4] = 50  # the model's 16 × 16 pixels begin here
    data[0, 0] = 60_000
    bench.write(judged(1, 0.95, data=data), judged(2, 0.3), judged(3, 0.1, weight=1000.0))
    found = bench.pictures()
    assert [(one["group"], one["review"], one["weight"]) for one in found.values()] == [
        ("random_miss", True, 1000.0), ("accepted", True, 1.0), ("rejected", False, 0.0),
    ]  # fmt: skip
    hit = found["r:1"]
    pixels = np.frombuffer(base64.b64decode(hit["pixels"]), np.uint8).reshape(hit["h"], hit["w"])
    assert pixels.shape == (16, 16)
    assert pixels[0, 0] == 255
    assert pixels.sum() == 255
    assert (hit["score"], hit["label"], hit["by"]) == (0.95, "1", "model")
    assert bench.snapshot()["review"]["waiting"] == 2
    (last,) = bench.page.pictures(2)
    assert isinstance(last, Picture)


@pytest.mark.parametrize(
    ("dtype", "sent"), [("u1", "<u2"), (">u2", "<u2"), ("i2", "<i4"), ("i4", "<i4"), ("u4", "<i4"), ("f8", "<f4")]
)
def test_a_whole_frame_is_sent_as_it_is_stored(bench: Bench, dtype: str, sent: str) -> None:
    data = np.arange(480).reshape(20, 24).astype(dtype) // 2
    info = {"exposure": math.nan} | {f"name{i}": "x" * 200 for i in range(200)}
    bench.write(judged(7, 0.95, data=data, info=info))
    blob = bench.page.blob("frame", bench.pictures()["r:7"]["id"], {})
    np.testing.assert_array_equal(array(blob), data)
    assert blob is not None
    head = blob.head
    assert (head["dtype"], head["factor"], head["part"], blob.lasting) == (sent, 1, "whole", True)
    assert (head["score"], head["key"], head["model"], head["threshold"]) == (0.95, "r:7", MODEL, 0.9)
    assert head["probabilities"] == pytest.approx([0.1, 0.95, 0, 0, 0], abs=1e-6)
    assert (head["run"], head["number"], head["pulse"], head["label"]) == ("r", 7, None, "1")


def test_large_counts_and_large_frames_are_sent_smaller(bench: Bench) -> None:
    data = np.zeros((20, 4100), np.uint32)
    data[:2] = 1 << 31
    bench.write(judged(1, 0.95, data=data), judged(2, 0.95, data=data[:, :24]))
    small = array(bench.page.blob("frame", bench.pictures()["r:2"]["id"], {}))
    assert (small.dtype, small[0, 0]) == (np.dtype("f4"), 1 << 31), "no int32 holds it"
    blob = bench.page.blob("frame", bench.pictures()["r:1"]["id"], {})
    sent = array(blob)
    assert blob is not None
    assert (blob.head["factor"], sent.shape, sent.dtype) == (3, (7, 1367), np.dtype("f4"))
    assert sent[0, 0] == pytest.approx((1 << 31) * 2 / 3)


def test_masked_pixels_of_a_calibrated_frame_are_no_numbers(bench: Bench) -> None:
    mask = np.zeros((20, 24), np.uint32)
    mask[5, 5] = 0x80
    bench.write(judged(1, 0.95, data=np.ones((20, 24), np.float32), mask=mask))
    sent = array(bench.page.blob("frame", bench.pictures()["r:1"]["id"], {}))
    assert np.argwhere(np.isnan(sent)).tolist() == [[5, 5]]


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4"])
def test_masked_pixels_of_whole_numbers_are_no_numbers_either(bench: Bench, dtype: str) -> None:
    data = np.arange(480).reshape(20, 24).astype(dtype) // 4
    mask = np.zeros((20, 24), np.uint32)
    mask[5, 5] = 0x80
    data[5, 5] = np.iinfo(dtype).max  # as detectors mark it; it must not hide the rest
    large = np.full((20, 24), (1 << 24) + 1, np.int32)
    bench.write(judged(1, 0.95, data=data, mask=mask), judged(2, 0.95, data=large, mask=mask))
    sent = array(bench.page.blob("frame", bench.pictures()["r:1"]["id"], {}))
    np.testing.assert_array_equal(sent, np.where(mask, np.nan, data))
    kept = array(bench.page.blob("frame", bench.pictures()["r:2"]["id"], {}))
    np.testing.assert_array_equal(kept, large, "float32 does not hold these counts")


def test_a_frame_whose_room_was_needed_is_shown_as_the_model_saw_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget=20_000)
    bench.write(judged(1, 0.95))
    name = bench.pictures()["r:1"]["id"]
    for number in range(2, 20):
        bench.clock.now += 1
        bench.write(judged(number, 0.95))
    blob = bench.page.blob("frame", name, {})
    assert array(blob).shape == (16, 16)
    assert blob is not None
    assert (blob.head["part"], blob.lasting) == ("view", False)


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    (tmp_path / "two.geom").write_text(TWO_MODULES)
    mask = np.zeros((2, 3, 4), np.uint32)
    mask[1, 2, 3] = 0x80
    settings = DetectorSettings(geometry=GeometrySettings(file=Path("two.geom")))
    return Looks(settings, tmp_path, lambda run: mask if run == "r" else None)


def test_powders_and_frames_of_modules_are_assembled(tmp_path: Path, looks: Looks) -> None:
    bench = Bench(tmp_path, looks=looks)
    data = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    bench.page.watch.start(RunStart("r"))
    modules = [judged(number, 0.95, data=data) for number in (1, 2)]
    bench.page._views._to_input = lambda frame: frame.data.reshape(6, 4)
    bench.write(*modules)
    bench.page._powder.settle()
    picture = Assembler(tmp_path / "two.geom", data.shape).assemble(data[np.newaxis])[0][0]
    assert picture.shape == (3, 9)
    blob = bench.page.blob("powder", "hits-sum", {})
    sent = array(blob)
    assert blob is not None
    assert (blob.head["frames"], blob.head["origin"]) == (2, "lower")
    gap_and_bad = np.zeros((3, 9), bool)
    gap_and_bad[:, 4] = gap_and_bad[2, 8] = True
    np.testing.assert_array_equal(sent, np.where(gap_and_bad, np.nan, 2.0 * picture))
    small = bench.pictures()["r:2"]
    pixels = np.frombuffer(base64.b64decode(small["pixels"]), np.uint8).reshape(small["h"], small["w"])
    assert pixels[0].max() == pixels.max() > pixels[-1].max(), (
        "the last module is above, as in the frame and the powder"
    )
    frame = array(bench.page.blob("frame", bench.pictures()["r:2"]["id"], {}))
    np.testing.assert_array_equal(frame, np.where(gap_and_bad, np.nan, picture))
    assert looks(np.zeros((5, 4)), None, "r")[0].shape == (5, 4), "what does not fit the geometry is shown as it is"


def test_a_powder_is_the_same_for_all_until_its_version_changes(bench: Bench) -> None:
    bench.write(judged(1, 0.95))
    bench.page._powder.settle()
    bench.snapshot()
    first = bench.page.blob("powder", "hits-max", {})
    bench.clock.now += 1
    bench.write(judged(2, 0.95))
    bench.page._powder.settle()
    assert bench.page.blob("powder", "hits-max", {}) is first
    assert bench.snapshot()["powder"]["version"] == 2
    assert array(bench.page.blob("powder", "hits-max", {})).max() == 2
    assert bench.page.blob("powder", "../etc/passwd", {}) is None


@pytest.mark.parametrize(
    ("number", "word", "truth", "group", "weight"),
    [
        (1, "right", True, "accepted", 1.0),
        (1, "wrong", False, "accepted", 1.0),
        (2, "right", False, "by_hand", 1.0),
        (2, "wrong", True, "by_hand", 1.0),
        (3, "right", False, "random_miss", 250.0),
        (3, "wrong", True, "random_miss", 250.0),
    ],
)
def test_a_mark_judges_the_verdict_that_was_shown(
    bench: Bench, number: int, word: str, truth: bool, group: str, weight: float
) -> None:
    bench.write(judged(1, 0.95), judged(2, 0.3), judged(3, 0.1, weight=250.0))
    name = bench.pictures()[f"r:{number}"]["id"]
    answer = bench.mark((name, word))
    mark = bench.marks.latest()[name]
    assert (mark.truth, mark.weight, mark.by, mark.time) == (truth, weight, "Ada", bench.clock.wall())
    assert mark.extra == {"group": group, "key": f"r:{number}", "by": "model"}
    assert (mark.kind, mark.model, mark.run, mark.threshold) == ("frame", MODEL, "r", 0.9)
    assert (answer["review"]["right"], answer["review"]["wrong"]) == ((1, 0) if word == "right" else (0, 1))
    assert answer["review"]["waiting"] == (2 if number == 2 else 1)
    (pixels,) = (bench.directory / "marks").glob("*.npy")
    np.testing.assert_array_equal(np.load(pixels), np.full((16, 16), number))


def test_a_miss_that_the_model_never_saw_counts_for_the_model_in_force(bench: Bench) -> None:
    bench.write(judged(1, 0.95), screened(2, 3, weight=100.0))
    bench.mark((bench.pictures()["r:2"]["id"], "right"))
    (mark,) = bench.marks.latest().values()
    assert (mark.model, mark.extra["by"], mark.extra["group"]) == (MODEL, "prescreen", "random_miss")


def test_marks_give_purity_and_recall_at_once_and_at_every_threshold(bench: Bench) -> None:
    scores = [0.99, 0.97, 0.93, 0.91]
    bench.write(*[judged(i, score) for i, score in enumerate(scores)], *[judged(9, 0.1, weight=10.0)] * 2)
    assert bench.snapshot()["review"]["purity"] is None
    names = {key: one["id"] for key, one in bench.pictures().items()}
    bench.mark(*[(names[f"r:{i}"], "right" if i < 3 else "wrong") for i in range(4)], (names["r:9"], "right"))
    found = bench.snapshot()
    assert found["review"]["purity"]["value"] == pytest.approx(0.75)
    assert found["review"]["recall"]["value"] == pytest.approx(1.0)
    assert found["what_if"]["purity"][184][0] == pytest.approx(1.0), "from 0.92 on, all are true"
    assert found["what_if"]["recall"][192][0] == pytest.approx(2 / 3)
    assert found["what_if"]["purity"][199] is None
    bench.write(judged(50, 0.95, model="other"))
    assert bench.snapshot()["review"]["purity"] is None, "of another model nothing is known"


def test_a_mark_can_be_withdrawn_also_when_the_frame_is_forgotten(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(judged(1, 0.95))
    name = bench.pictures()["r:1"]["id"]
    bench.mark((name, "wrong"))
    later = Bench(tmp_path)
    assert later.page._shots.get(name) is None
    assert later.snapshot()["review"]["wrong"] == 1
    later.mark((name, "right"), by="Bo")
    assert (later.marks.latest()[name].truth, later.marks.latest()[name].by) == (True, "Bo")
    assert later.mark((name, "none"))["review"]["right"] == 0
    assert name not in Marks(tmp_path).latest()


def test_marks_are_refused_as_a_whole_and_say_why(bench: Bench) -> None:
    bench.write(judged(1, 0.95))
    name = bench.pictures()["r:1"]["id"]
    bodies: Sequence[tuple[Any, str]] = [
        ({}, "marks"),
        ({"marks": []}, "marks"),
        ({"marks": [{"id": name, "verdict": "right"}] * 501}, "marks"),
        ({"marks": [{"id": name, "verdict": "maybe"}]}, r"marks\[0\]"),
        ({"marks": [{"id": name, "verdict": "right"}, "x"]}, r"marks\[1\]"),
        ({"marks": [{"id": 7, "verdict": "right"}]}, r"marks\[0\]"),
        ({"marks": [{"id": name, "verdict": "right"}, {"id": "../x", "verdict": "wrong"}]}, "not remembered"),
    ]
    for body, why in bodies:
        with pytest.raises(Refused, match=why):
            bench.page.act("mark", body, "Eve")
    assert not (bench.directory / "marks.jsonl").exists()
    (bench.directory / "marks.jsonl").mkdir()
    with pytest.raises(Refused, match="marks"):
        bench.mark((name, "right"))


def test_everything_else_is_for_the_controls(bench: Bench) -> None:
    bench.page.act("threshold", {"value": 0.5}, "Ada")
    assert bench.controls.heard == [("threshold", {"value": 0.5}, "Ada")]


def test_marks_are_counted_by_verdict(bench: Bench) -> None:
    bench.write(judged(1, 0.95), judged(2, 0.93))
    names = [one["id"] for one in bench.pictures().values()]
    bench.mark((names[0], "right"), (names[1], "wrong"))
    bench.mark((names[0], "none"))
    text = {tuple(s.labels.values()): s.value for f in bench.metrics.collect() for s in f.samples if "marks" in s.name}
    assert text == {("right",): 1.0, ("wrong",): 1.0}


def test_ids_are_others_after_a_restart(tmp_path: Path) -> None:
    first, second = Bench(tmp_path), Bench(tmp_path)
    second.clock.now += 3600
    again = HitsPage(
        metrics=second.metrics, controls=second.controls, marks=second.marks, directory=tmp_path, to_input=None,
        clock=second.clock, wall=second.clock.wall,
    )  # fmt: skip
    first.write(judged(1, 0.95))
    again.watch.write([judged(1, 0.95)])
    assert first.pictures()["r:1"]["id"] != json.loads(again.pictures(0)[0].encoded)["id"]


def test_the_schema_finds_what_is_wrong(bench: Bench) -> None:
    bench.write(judged(1, 0.95))
    good = bench.snapshot()
    wrong: list[tuple[JSON, str]] = [
        ({**good, "time": math.nan}, "snapshot.time"),
        ({**good, "ready": 1}, "snapshot.ready"),
        ({**good, "scores": {**good["scores"], "accepted": [1]}}, "scores.accepted"),
        ({**good, "review": {**good["review"], "purity": {"value": 1.0, "low": 0, "high": 1}}}, "review.purity.n"),
        ({**good, "points": [{"t": 1}]}, "points[0].rate"),
        ({name: value for name, value in good.items() if name != "powder"}, "snapshot.powder"),
    ]
    for snapshot, place in wrong:
        assert any(place in line for line in hits_problems(snapshot)), place


@pytest.mark.parametrize("shape", [(128, 128), (512, 1024)])
def test_speed_of_the_watch(tmp_path: Path, benchmark: Any, shape: tuple[int, int]) -> None:
    bench = Bench(tmp_path)
    base = np.zeros((32, *shape), np.uint16)
    results = [judged(i, 0.95 if i % 10 == 0 else 0.01, data=base[i % 32]) for i in range(256)]

    def write() -> None:
        bench.clock.now += 0.05
        bench.page.watch.write(results)

    benchmark(write)
    bench.page.watch.close()
    assert bench.page.snapshot()["hits"]["windows"][-1]["shots"] % 256 == 0
