"""The gallery of 2-D classes in a real Chromium, against a real page and server: what it shows, and what it sends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.beamlines.page_picks import PicksPage
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.yields import Yields
from beamsieve.stream.live.changes import Changes
from beamsieve.stream.live.marks import Marks
from beamsieve.stream.live.page import JSON, Blob
from beamsieve.tests.class_gallery import FakeClasses, class_view, projections
from beamsieve.tests.test_live_browser_picks import TOKEN, Window
from beamsieve.tests.test_live_picks import Controls
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

N = 12
MAP = "apoferritin"
# Read from a copy: a canvas that is read loses what the graphics card does for it, and Chromium complains.
GREYS = """
const greys = canvas => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    return [...copy.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 0);
};
"""


class Logged(Controls):
    """Controls with a log."""

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self.changes = changes

    def state(self) -> JSON:
        return {**super().state(), "changes": self.changes.recent()}


class ClassesPage(PicksPage):
    """The real page with classes that tests change; it notes which pictures of them are asked for."""

    def __init__(self, folder: Path) -> None:
        metrics = Metrics("cryoem_picks", yields=Yields())
        changes = Changes(folder, metrics.operation)
        self.levers = FakeClasses(N, MAP)
        self.asked: list[tuple[str, int]] = []
        self.lasting = False
        super().__init__(
            metrics=metrics, controls=Logged(changes), marks=Marks(folder), sink_directory=folder, classes=self.levers,
            changes=changes,
        )  # fmt: skip

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        found = super().blob(kind, name, query)
        self.asked.append((kind, int(name)))
        self.lasting = found is not None and found.lasting
        return found


class Gallery(Window):
    """A browser at the gallery."""

    def __init__(self, folder: Path) -> None:
        (folder / "out").mkdir()
        page: Any = ClassesPage(folder / "out")
        super().__init__(folder / "browser", page, 1400, 1000)
        self.page: Any = page

    @property
    def levers(self) -> FakeClasses:
        found: FakeClasses = self.page.levers
        return found

    def again(self, *, sign_in: bool = True) -> None:
        """Load the page with the classes as they were at first."""
        self.page.levers.__init__(N, MAP)
        self.levers.change(version=time.monotonic_ns())
        if not sign_in:
            self.driver.delete_all_cookies()
        self.driver.get(f"http://127.0.0.1:{self.server.port}/")
        if sign_in and not self.driver.get_cookies():
            self.script(
                "return fetch('login', {method: 'POST', headers: {'Content-Type': 'application/json',"
                " 'X-Beamsieve': '1'}, body: JSON.stringify({token: arguments[0], name: 'Ada'})}).then(r => r.status)",
                TOKEN,
            )
            self.driver.refresh()
        self.until(lambda: len(self.order()) == N, "the tiles")
        self.script("document.querySelector('#panel-classes').scrollIntoView()")
        self.until(lambda: self.painted() == N, "their pictures")
        self.page.asked.clear()
        self.away()

    def order(self) -> list[int]:
        found: list[int] = self.script("return [...document.querySelectorAll('.class-tile')].map(n => +n.dataset.id)")
        return found

    def painted(self) -> int:
        """How many tiles show a picture of many greys."""
        return int(
            self.script(
                f"{GREYS} return [...document.querySelectorAll('.class-tile:not(.empty) .class-open canvas')]"
                ".filter(canvas => new Set(greys(canvas)).size > 20).length"
            )
        )

    def greys(self, css: str) -> list[int]:
        """What a canvas shows, one number for each pixel."""
        found: list[int] = self.script(f"{GREYS} return greys(document.querySelector(arguments[0]))", css)
        return found

    def tile(self, number: int) -> str:
        return f'.class-tile[data-id="{number}"]'

    def mark(self, number: int) -> str:
        return str(self.find(self.tile(number)).get_dom_attribute("data-mark"))

    def focused(self) -> int:
        """The class whose tile has the focus; 0: none."""
        return int(self.script("return +(document.activeElement?.closest('.class-tile')?.dataset.id ?? 0)"))

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def over(self, css: str) -> None:
        ActionChains(self.driver).move_to_element(self.find(css)).perform()

    def away(self) -> None:
        """The mouse to the panel's title."""
        self.over("#panel-classes h2")

    def stop_the_clock(self, ahead_ms: int = 0) -> None:
        """The page's clock stands still from now on, at a time that is so much later."""
        self.script("const at = performance.now() + arguments[0]; performance.now = () => at", ahead_ms)

    def snapshots(self, n: int = 3) -> None:
        """Until the page has heard of the state so many times."""
        seen = self.levers.now.unlabelled
        for i in range(1, n + 1):
            self.levers.change(unlabelled=seen + i)
            self.until(partial(self._waits, seen + i), "the next state")

    def _waits(self, n: int) -> bool:
        return f"{n} particles wait" in self.text(".class-state")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    gallery = Gallery(tmp_path_factory.mktemp("gallery"))
    yield gallery
    gallery.close()


@pytest.fixture
def gallery(shared: Gallery) -> Iterator[Gallery]:
    shared.again()
    yield shared
    assert shared.complaints() == []


def test_tiles_show_every_class_the_largest_first(gallery: Gallery) -> None:
    views = gallery.levers.now.classes
    assert gallery.order() == [view.id for view in views]
    facts = gallery.text(f"{gallery.tile(1)} .class-facts").replace("\u202f", " ")
    share = f"{100 * 1507 / gallery.levers.now.particles:.1f} %"
    assert facts == f"11 507{share}+30/min9.09 Åspread 0.12"
    assert "12 classes" in gallery.text("#panel-classes .note")
    assert "12 particles wait for a class · 0 rejected" in gallery.text(".class-state")
    assert "classes2d-general 3fa9c1d2, as it was trained" in gallery.text(".class-state")
    shown = np.array(gallery.greys(f"{gallery.tile(1)} canvas")).reshape(64, 64)
    assert np.corrcoef(shown.ravel(), views[0].average.ravel())[0, 1] > 0.95, "the average, and not turned over"
    label = str(gallery.find(f"{gallery.tile(1)} .class-open").get_dom_attribute("aria-label"))
    assert label.replace("\u202f", " ") == f"Class 1: 1 507 particles, {share}, 9.09 Å. Show its particles"


def test_what_is_under_way_is_said(gallery: Gallery) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    gallery.levers.change(
        pass_=("growth", 413, 1000), tuning=("training", 3, 20, "block 1 of 3"), tuned=True,
        events=((1.8e9, "class 12 split from class 3"), (1.8e9 + 5, hostile)),
    )  # fmt: skip
    gallery.until(lambda: "re-clustering: 41\u202f%" in gallery.text(".class-work"), "the pass")
    assert "fine-tuning: 15\u202f%: block 1 of 3" in gallery.text(".class-work")
    assert "tuned on this session" in gallery.text(".class-state")
    assert [one.text.partition(" ")[2] for one in gallery.all(".class-events li")] == [
        hostile,
        "class 12 split from class 3",
    ]
    gallery.levers.change(pass_=None, tuning=("done", 1, 1, "no better than before"), error="classes.h5: disk full")
    gallery.until(lambda: gallery.text(".class-work") == "fine-tuning: no better than before", "what came of it")
    assert gallery.text(".class-failed") == "▲ classes.h5: disk full"
    gallery.levers.change(state="waiting", have=143, classes=(), pass_=None, tuning=None, error="")
    gallery.until(lambda: gallery.text(".class-work") == "waiting: 143 of 200 particles", "waiting")
    assert gallery.order() == []
    gallery.levers.change(state="failed", error="classes2d-general: no such bundle")
    gallery.until(lambda: "classes2d-general: no such bundle" in gallery.text(".class-failed"), "why there are none")
    assert gallery.find(".class-failed").is_displayed()


def test_marks_by_mouse(gallery: Gallery) -> None:
    gallery.find(f"{gallery.tile(2)} .mark-bad").click()
    gallery.until(lambda: gallery.levers.asked == [(2, "bad", "Ada")], "the mark")
    gallery.find(f"{gallery.tile(4)} .mark-good").click()
    gallery.until(lambda: gallery.levers.asked[1:] == [(4, "good", "Ada")], "the second mark")
    assert [gallery.mark(number) for number in (1, 2, 4)] == ["", "bad", "good"]
    frames = [gallery.find(gallery.tile(number)).value_of_css_property("border-top-color") for number in (2, 4)]
    assert frames == ["rgba(255, 117, 102, 1)", "rgba(79, 201, 140, 1)"]
    dimmed = gallery.find(f"{gallery.tile(2)} canvas").value_of_css_property("opacity")
    assert float(dimmed) < 0.6
    assert gallery.text(f"{gallery.tile(2)} .class-sign") == "✗ bad", "not by colour alone"
    gallery.until(lambda: "1\u202f207 rejected" in gallery.text(".class-state"), "what is rejected")
    gallery.until(lambda: "class 4: unmarked → good" in gallery.text("#panel-changes"), "the log of changes")
    gallery.find(f"{gallery.tile(2)} .mark-bad").click()
    gallery.until(lambda: gallery.levers.now.classes[1].mark == "", "the mark withdrawn by a second click")
    assert gallery.mark(2) == ""


def test_marks_by_key(gallery: Gallery) -> None:
    gallery.press("c")
    assert gallery.focused() == 1
    columns = len({box["x"] for box in (tile.rect for tile in gallery.all(".class-tile"))})
    gallery.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, "b", Keys.ARROW_LEFT, "g", Keys.ARROW_DOWN)
    assert gallery.focused() == 2 + columns
    gallery.press(Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert gallery.focused() == 1, "the keys end where the tiles do"
    gallery.press(Keys.END)
    assert gallery.focused() == N
    gallery.press(Keys.HOME, Keys.ARROW_RIGHT, "u")
    gallery.until(lambda: len(gallery.levers.asked) == 3, "three marks")
    assert gallery.levers.asked == [(3, "bad", "Ada"), (2, "good", "Ada"), (2, "", "Ada")]
    ring = gallery.find(gallery.tile(2)).value_of_css_property("outline-style")
    assert ring == "solid", "who uses keys sees where they are"
    reached = gallery.script("return document.querySelectorAll('.class-open[tabindex=\"0\"]').length")
    assert reached == 1, "Tab comes to one tile, and goes on behind them"


def test_a_refused_mark_is_told_and_taken_back(gallery: Gallery) -> None:
    gallery.levers.refuse = "class 3 was merged into class 1"
    gallery.find(f"{gallery.tile(3)} .mark-good").click()
    gallery.until(lambda: "Class 3 was not marked: class 3 was merged" in gallery.text(".toast"), "why not")
    assert gallery.mark(3) == ""
    assert [line for line in gallery.complaints() if "409" not in line] == []


def test_the_order_holds_under_the_mouse(gallery: Gallery) -> None:
    before = gallery.order()
    gallery.over(gallery.tile(5))
    where = gallery.find(gallery.tile(5)).rect
    gallery.levers.change_class(5, count=5000)
    gallery.levers.change(classes=(*(view for view in gallery.levers.now.classes if view.id != 2), _fresh(20)))
    gallery.until(lambda: "5\u202f000" in gallery.text(f"{gallery.tile(5)} .class-count"), "the new count")
    assert gallery.order() == [*before, 20], "nothing moves, what is new comes last"
    assert gallery.find(gallery.tile(5)).rect == where
    assert "gone" in str(gallery.find(gallery.tile(2)).get_dom_attribute("class"))
    gallery.away()
    gallery.until(lambda: gallery.order() == [5, 1, 3, 4, *range(6, N + 1), 20], "the new order")


def test_the_order_holds_for_a_mark_on_its_way_and_the_focus_stays(gallery: Gallery) -> None:
    gallery.stop_the_clock()
    gallery.press("c", Keys.ARROW_RIGHT)
    gallery.levers.change_class(2, count=9000)
    gallery.snapshots(2)
    assert gallery.order()[0] == 1, "keys were pressed a moment ago"
    gallery.press("g")
    gallery.until(lambda: gallery.levers.asked, "the mark")
    gallery.stop_the_clock(6000)
    gallery.until(lambda: gallery.order()[0] == 2, "the new order")
    assert gallery.focused() == 2, "the same class, wherever it stands now"


def test_only_new_pictures_are_fetched(gallery: Gallery) -> None:
    gallery.snapshots()
    assert gallery.page.asked == [], "no class has another version"
    before = gallery.greys(f"{gallery.tile(3)} canvas")
    turned = np.ascontiguousarray(np.rot90(gallery.levers.now.classes[2].average))
    gallery.levers.change_class(3, average=turned, version=2)
    gallery.until(lambda: gallery.greys(f"{gallery.tile(3)} canvas") != before, "the new average")
    assert gallery.page.asked == [("class", 3)]
    assert gallery.page.lasting, "by an address that names its version"
    gallery.script("document.querySelector('button.kind[data-kind=class-denoised]').click()")
    gallery.until(lambda: len(gallery.page.asked) == 1 + N, "the denoised averages")
    assert {kind for kind, _ in gallery.page.asked[1:]} == {"class-denoised"}
    gallery.until(lambda: gallery.painted() == N, "drawn")
    gallery.script("document.querySelector('button.kind[data-kind=class]').click()")
    gallery.snapshots()
    assert len(gallery.page.asked) == 1 + N, "what is here is not asked for again"


def test_pictures_that_change_all_the_time_are_fetched_a_few_a_second(gallery: Gallery) -> None:
    gallery.stop_the_clock()
    for version in range(2, 12):
        for number in range(1, N + 1):
            gallery.levers.change_class(number, version=version)
        gallery.snapshots(1)
    fetched = len(gallery.page.asked)
    assert N < fetched <= 48, "as many at once as fill a gallery, and no more"
    gallery.stop_the_clock(1000)
    gallery.until(lambda: len(gallery.page.asked) == fetched + 5, "five in the next second")
    gallery.snapshots()
    assert len(gallery.page.asked) == fetched + 5


def test_members_as_recorded_and_denoised(gallery: Gallery) -> None:
    gallery.press("c", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    gallery.until(lambda: len(gallery.all(".class-members li")) == 16, "sixteen members")
    assert gallery.script("return document.activeElement.textContent") == "Close", "Enter once more marks nothing"
    assert gallery.text(".class-dialog h2") == "Class 3"
    assert "967 particles" in gallery.text(".class-dialog header")
    newest = gallery.levers.now.classes[2].members[-1]
    for which, canvas in enumerate(("canvas:first-child", "canvas:last-child")):
        shown = np.array(gallery.greys(f".class-members li:first-child {canvas}")).reshape(64, 64)
        assert np.corrcoef(shown.ravel(), newest[which].ravel())[0, 1] > 0.9, canvas
    gallery.until(lambda: len(set(gallery.greys(".class-averages figure:last-child canvas"))) > 20, "the averages")
    gallery.press("b")
    gallery.until(lambda: gallery.levers.asked == [(3, "bad", "Ada")], "a mark within")
    gallery.until(lambda: gallery.text(".class-dialog h2") == "Class 3: bad", "the mark in the title")
    gallery.press(Keys.ARROW_RIGHT)
    gallery.until(lambda: gallery.text(".class-dialog h2") == "Class 4", "the next class")
    # A picture of a class that has gone is an error to the browser's console.
    pictures = {(kind, 4) for kind in ("class-denoised", "class-members")}
    gallery.until(lambda: pictures <= set(gallery.page.asked), "its pictures")
    gallery.levers.change(classes=tuple(view for view in gallery.levers.now.classes if view.id != 4))
    gallery.until(lambda: gallery.text(".class-dialog h2") == "Class 4 (no longer there)", "it is gone")
    gallery.press(Keys.ESCAPE)
    gallery.until(lambda: not gallery.find(".class-dialog").is_displayed(), "closed")
    assert gallery.focused() == 3
    gallery.find(f"{gallery.tile(6)} .class-open").click()
    gallery.until(lambda: gallery.text(".class-dialog h2") == "Class 6", "by mouse")


def test_who_is_not_signed_in_looks_only(shared: Gallery) -> None:
    shared.again(sign_in=False)
    assert shared.text("#panel-classes .why") == "Sign in to mark classes good or bad."
    assert not shared.find(f"{shared.tile(1)} .mark-bad").is_displayed()
    shared.press("c", "b")
    shared.until(lambda: "Sign in" in shared.text(".toast"), "why not")
    assert shared.levers.asked == []
    assert shared.mark(1) == ""
    assert shared.complaints() == []


def test_two_hundred_classes_and_a_phone(gallery: Gallery) -> None:
    view = gallery.levers.now.classes[-1]
    gallery.levers.change(classes=tuple(replace(view, id=i + 1, count=400 - i) for i in range(200)))
    gallery.until(lambda: len(gallery.order()) == 200, "two hundred")
    seen = gallery.script(
        "const {bottom} = document.querySelector('.classes-grid').getBoundingClientRect();"
        "return [...document.querySelectorAll('.class-tile')].filter("
        "tile => tile.getBoundingClientRect().top < Math.min(innerHeight, bottom)).map(tile => +tile.dataset.id)"
    )
    assert N < len(seen) < 80
    gallery.stop_the_clock(20_000)
    gallery.until(lambda: {number for _, number in gallery.page.asked} >= set(seen[N:]), "pictures of those in sight")
    gallery.snapshots()
    assert {number for _, number in gallery.page.asked} <= set(seen), "what nobody sees is not fetched"
    for width in (360, 800):
        phone = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        gallery.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        gallery.until(partial(gallery.script, "return innerWidth === arguments[0]", width), "the small window")
        gallery.until(
            partial(gallery.script, "return document.documentElement.scrollWidth === arguments[0]", width),
            "nothing wider than the window",
        )
        inside = gallery.script("return document.querySelector('.class-tile').getBoundingClientRect().width")
        assert 100 < inside < 200
    gallery.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_classes_there_is_no_panel(gallery: Gallery) -> None:
    assert gallery.find("#panel-classes").is_displayed()
    panel, gallery.page._classes = gallery.page._classes, None
    try:
        gallery.until(lambda: not gallery.find("#panel-classes").is_displayed(), "no panel")
    finally:
        gallery.page._classes = panel


def _fresh(number: int) -> Any:
    return class_view(number, 30, projections(N, MAP)[0])
