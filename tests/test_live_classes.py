"""2-D classes on the live page, without a browser: numbers, pictures, marks that are written down, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.beamlines.page_classes import ClassPanel, classes_json, stretched
from beamsieve.stream.beamlines.page_picks import PicksPage
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.yields import Yields
from beamsieve.stream.live.changes import Changes
from beamsieve.stream.live.marks import Marks
from beamsieve.stream.live.page import Blob, Refused
from beamsieve.stream.live.schema import CLASSES, problems_of
from beamsieve.tests.class_gallery import EDGE, FakeClasses
from beamsieve.tests.test_live_picks import Controls


class Gallery:
    """The panel with its stand-in behind it and the log beside it."""

    def __init__(self, folder: Path, n: int = 4) -> None:
        self.levers = FakeClasses(n, "apoferritin")
        self.metrics = Metrics("cryoem_picks", yields=Yields())
        self.changes = Changes(folder, self.metrics.operation, wall=lambda: 5.0)
        self.panel = ClassPanel(self.levers, self.changes)

    def log(self) -> list[tuple[Any, ...]]:
        return [tuple(line[name] for name in ("what", "by", "old", "new")) for line in self.changes.recent()]


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(tmp_path)


def page_of(folder: Path, **words: Any) -> PicksPage:
    return PicksPage(
        metrics=Metrics("cryoem_picks", yields=Yields()), controls=Controls(), marks=Marks(folder),
        sink_directory=folder, **words,
    )  # fmt: skip


def pixels(found: Blob | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    assert found is not None
    assert found.head["dtype"] == "u1"
    return np.frombuffer(found.body, np.uint8).reshape(found.head["shape"])


# Numbers


def test_the_field_has_the_shape_that_browsers_expect_and_only_finite_numbers(gallery: Gallery) -> None:
    nothing_known = {"growth_per_min": math.nan, "spread": math.inf, "resolution_a": math.nan}
    gallery.levers.change_class(2, **nothing_known)
    gallery.levers.change(
        pass_=("growth", 41, 100), tuning=("training", 3, 20, "block 1 of 3"), events=((1.0, "a"), (2.0, "b"))
    )
    said = gallery.panel.state()
    assert list(problems_of(said, CLASSES, "classes")) == []
    json.dumps(said, allow_nan=False)
    assert said["pass"] == {"why": "growth", "done": 41, "of": 100}
    assert said["tuning"] == {"state": "training", "done": 3, "of": 20, "text": "block 1 of 3"}
    assert said["events"] == [{"time": 1.0, "text": "a"}, {"time": 2.0, "text": "b"}]
    assert {name: said["list"][1][name] for name in nothing_known} == dict.fromkeys(nothing_known)
    assert [one["count"] for one in said["list"]] == [view.count for view in gallery.levers.now.classes]
    assert sum(one["share"] for one in said["list"]) == pytest.approx(1)
    gallery.levers.change(state="waiting", particles=0, classes=(), pass_=None, tuning=None)
    assert list(problems_of(gallery.panel.state(), CLASSES, "classes")) == []


def test_it_is_made_anew_only_for_another_version(gallery: Gallery) -> None:
    first = gallery.panel.state()
    assert gallery.panel.state() is first
    gallery.levers.change(unlabelled=99)
    assert gallery.panel.state() is not first
    assert gallery.panel.state()["unlabelled"] == 99
    assert gallery.panel.state()["life"] == first["life"]


def test_what_goes_to_every_browser_each_second_is_bounded(gallery: Gallery) -> None:
    view = gallery.levers.now.classes[0]
    gallery.levers.change(
        classes=(view,) * 300, events=((1.0, "x" * 10_000),) * 50, error="y" * 10_000, state="failed",
        tuning=("done", 0, 0, "z" * 10_000),
    )  # fmt: skip
    said = classes_json(gallery.levers.now)
    assert (len(said["list"]), len(said["events"])) == (200, 20)
    assert len(json.dumps(said)) < 50_000


# Pictures


def test_contrast_is_that_of_the_circle_inside() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(5.0, 2.0, (EDGE, EDGE))
    y, x = np.mgrid[:EDGE, :EDGE] - (EDGE - 1) / 2
    inside = np.hypot(x, y) <= EDGE / 2
    low, high = np.percentile(image[inside], (1, 99.5))
    plain = stretched(image)
    assert plain[inside].min() == 0
    assert plain[inside].max() == 255
    assert np.abs(plain - np.clip((image - low) / (high - low), 0, 1) * 255).max() <= 0.5
    with_carbon = np.where(inside, image, 1e6)
    assert np.array_equal(stretched(with_carbon)[inside], plain[inside])
    assert (stretched(with_carbon)[~inside] == 255).all()


def test_contrast_of_what_has_none() -> None:
    assert (stretched(np.full((EDGE, EDGE), 3.0)) == 128).all()
    nothing = np.full((EDGE, EDGE), np.nan, np.float32)
    assert (stretched(nothing) == 0).all()
    nothing[20:40, 20:40] = np.arange(400).reshape(20, 20)
    nothing[30, 30] = np.inf
    found = stretched(nothing)
    assert (found[0, 0], found[30, 30]) == (0, 0)
    assert found.max() == 255


def test_pictures_of_a_class(gallery: Gallery) -> None:
    view = gallery.levers.now.classes[2]
    name = str(view.id)
    average = gallery.panel.blob("class", name, {})
    assert average is not None
    assert dict(average.head) == {"shape": [64, 64], "dtype": "u1", "id": view.id, "version": 1}
    assert np.array_equal(pixels(average), stretched(view.average))
    assert view.denoised_average is not None
    assert np.array_equal(pixels(gallery.panel.blob("class-denoised", name, {})), stretched(view.denoised_average))
    members = pixels(gallery.panel.blob("class-members", name, {}))
    assert members.shape == (16, 2, 64, 64)
    assert all(
        np.array_equal(members[i, k], stretched(view.members[i, k])) for i, k in ((0, 0), (0, 1), (15, 0), (15, 1))
    )
    gallery.levers.change_class(view.id, denoised_average=None, members=np.zeros((0, 2, 64, 64), np.float32))
    assert gallery.panel.blob("class-denoised", name, {}) is None
    assert pixels(gallery.panel.blob("class-members", name, {})).shape == (0, 2, 64, 64)


def test_an_address_lasts_only_where_it_names_version_and_life(gallery: Gallery, tmp_path: Path) -> None:
    def lasting(**query: str) -> bool:
        found = gallery.panel.blob("class", "1", query)
        assert found is not None
        return found.lasting

    life = gallery.panel.life
    assert lasting(v="1", life=life)
    assert not lasting(v="2", life=life)
    assert not lasting(v="1")
    assert not lasting()
    gallery.levers.change_class(1, version=2)
    assert lasting(v="2", life=life)
    # Another daemon's class 1 in its version 2 is another picture.
    assert Gallery(tmp_path / "other").panel.life != life
    assert not lasting(v="2", life=Gallery(tmp_path / "other").panel.life)


@pytest.mark.parametrize("name", ["0", "5", "-1", "01x", "1.0", "²", "1" * 30, "one", ""])
def test_no_picture_of_what_is_no_class(gallery: Gallery, name: str) -> None:
    assert gallery.panel.blob("class", name, {"v": "1"}) is None


# Marks


def test_a_mark_is_made_and_written_down(gallery: Gallery) -> None:
    answer = gallery.panel.act({"id": 2, "mark": "bad"}, "Ada")
    assert gallery.levers.asked == [(2, "bad", "Ada")]
    assert {one["id"]: one["mark"] for one in answer["classes"]["list"]} == {1: "", 2: "bad", 3: "", 4: ""}
    assert answer["classes"]["rejected"] == gallery.levers.now.classes[1].count
    gallery.panel.act({"id": 2, "mark": "bad"}, "Ada")
    gallery.panel.act({"id": 2, "mark": "none"}, "")
    assert gallery.log() == [
        ("class", "Ada", {"id": 2, "mark": ""}, {"id": 2, "mark": "bad"}),
        ("class", "somebody", {"id": 2, "mark": "bad"}, {"id": 2, "mark": ""}),
    ], "what changes nothing is no change"
    assert len(gallery.levers.asked) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "id: give the number"),
        ({"id": "2", "mark": "bad"}, "id: give the number"),
        ({"id": True, "mark": "bad"}, "id: give the number"),
        ({"id": 2.0, "mark": "bad"}, "id: give the number"),
        ({"id": 9, "mark": "bad"}, "there is no class 9"),
        ({"id": -2, "mark": "bad"}, "there is no class -2"),
        ({"id": 2}, "mark: is not one of good, bad, none"),
        ({"id": 2, "mark": ""}, "mark: is not one of good, bad, none"),
        ({"id": 2, "mark": ["bad"]}, "mark: is not one of good, bad, none"),
    ],
)
def test_what_cannot_be_marked_is_refused_and_nothing_changed(gallery: Gallery, body: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        gallery.panel.act(body, "Ada")
    assert gallery.log() == []
    assert gallery.levers.asked == []


def test_a_mark_that_was_not_made_is_taken_back_in_the_log(gallery: Gallery) -> None:
    gallery.levers.refuse = "class 2 was merged into class 1"
    with pytest.raises(Refused, match="merged"):
        gallery.panel.act({"id": 2, "mark": "good"}, "Ada")
    assert [new["mark"] for _, _, _, new in gallery.log()] == ["good", ""]


def test_a_mark_that_cannot_be_written_down_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    gallery = Gallery(tmp_path / "file")
    with pytest.raises(Refused, match="nothing was changed"):
        gallery.panel.act({"id": 2, "mark": "good"}, "Ada")
    assert gallery.levers.asked == []


# On the page


def test_the_page_has_classes_where_there_are_any(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    page = page_of(tmp_path, classes=gallery.levers, changes=gallery.changes)
    assert list(problems_of(page.snapshot()["classes"], CLASSES, "classes")) == []
    assert pixels(page.blob("class", "1", {})).shape == (64, 64)
    assert page.act("class", {"id": 1, "mark": "good"}, "Ada")["classes"]["list"][0]["mark"] == "good"
    assert [line["what"] for line in gallery.changes.recent()] == ["class"]


def test_a_page_without_classes_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert page.snapshot()["classes"] is None
    assert page.blob("class", "1", {}) is None
    page.act("class", {"id": 1, "mark": "good"}, "Ada")
    assert isinstance(page.controls, Controls)
    assert [action for action, _, _ in page.controls.asked] == ["class"], "the controls know no such action"
    with pytest.raises(TypeError, match="need changes"):
        page_of(tmp_path, classes=FakeClasses(2, "apoferritin"))
