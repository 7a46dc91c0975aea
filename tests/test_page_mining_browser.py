"""The page of tomograms in a real Chromium, against a real page and server: what it shows, and what it sends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from beamsieve.stream.beamlines.page_mining import MiningPage
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.mined import Mined
from beamsieve.stream.flow.yields import Waiting
from beamsieve.stream.live.changes import Changes
from beamsieve.stream.live.page import JSON
from beamsieve.tests.mining_gallery import SINCE, FakeMining, tomogram
from beamsieve.tests.test_live_browser_picks import TOKEN, Window
from beamsieve.tests.test_live_picks import Controls
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

N = 24
HOSTILE = "<img src=x onerror=alert(1)>"


class Logged(Controls):
    """Controls with a log."""

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self.changes = changes

    def state(self) -> JSON:
        work = {"text": "grid2/Position_04.mrc: encode", "done": 3, "of": 4}
        return {**super().state(), "changes": self.changes.recent(), "work": work}


class Mined24(MiningPage):
    """The real page with clusters that tests change, and three tomograms, the last of them with labels."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fake = folder, FakeMining(N)
        metrics = Metrics("cryoet_mining")
        metrics.mined = Mined()
        metrics.mined.wait(Waiting({"truncated": 1}, 75.0))
        changes = Changes(folder, metrics.operation)
        super().__init__(
            metrics=metrics, controls=Logged(changes), levers=self.fake, changes=changes, describe=lambda _: None,
            waiting=lambda: [("grid2/Position_31.rec", "truncated", 75.0)], wall=lambda: SINCE + 1000,
        )  # fmt: skip
        for i in (1, 2):
            self.add(tomogram(folder, i, N))
        self.add(tomogram(folder, 3, N, names=("membrane",), error=0.9))


class Sheet(Window):
    """A browser at the contact sheet."""

    def __init__(self, folder: Path) -> None:
        (folder / "out").mkdir()
        page: Any = Mined24(folder / "out")
        super().__init__(folder / "browser", page, 1400, 1000)
        self.page: Any = page

    @property
    def fake(self) -> FakeMining:
        found: FakeMining = self.page.fake
        return found

    def again(self, *, sign_in: bool = True) -> None:
        """Load the page with the clusters as they were at first."""
        self.fake.__init__(N)  # type: ignore[misc]
        self.fake.change(version=time.monotonic_ns())
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
        self.until(lambda: len(self.all(".mine-tile:not(.empty)")) == N, "the tiles with their pictures")

    def order(self) -> list[int]:
        found: list[int] = self.script("return [...document.querySelectorAll('.mine-tile')].map(n => +n.dataset.id)")
        return found

    def selected(self) -> list[int]:
        return [int(node.get_dom_attribute("data-id")) for node in self.all('.mine-tile[aria-selected="true"]')]

    def marks(self) -> dict[int, str]:  # type: ignore[override]
        tiles = self.all('.mine-tile:not([data-mark=""])')
        return {int(tile.get_dom_attribute("data-id")): str(tile.get_dom_attribute("data-mark")) for tile in tiles}

    def tile(self, number: int) -> str:
        return f'.mine-tile[data-id="{number}"]'

    def choose(self, *numbers: int, shift: bool = False) -> None:
        for number in numbers:
            self.click(self.tile(number), 20, 20, shift=shift)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def new_group(self, name: str, kind: str) -> None:
        self.script("document.querySelector('select[name=kind]').value = arguments[0]", kind)
        self.find("input[name=group]").send_keys(name, Keys.ENTER)

    def told(self, text: str) -> None:
        self.until(lambda: text in self.text(".toast"), text)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sheet]:
    sheet = Sheet(tmp_path_factory.mktemp("mining"))
    yield sheet
    sheet.close()


@pytest.fixture
def sheet(shared: Sheet) -> Iterator[Sheet]:
    shared.again()
    yield shared
    assert shared.complaints() == []


def test_every_panel_shows_data(sheet: Sheet) -> None:
    assert sheet.order() == list(range(1, N + 1)), "the largest first"
    assert "No cluster is in a group yet" in sheet.text(".mine-mode")
    assert "tomograms-general 3fa9c1d2, as it was shipped" in sheet.text("#panel-clusters")
    assert sheet.text('[data-key="tomograms"] .value') == "3"
    assert sheet.text('[data-key="mode"] .value') == "Exploring"
    assert "drifted" in sheet.text('[data-key="error"] .note')
    assert "drifted. The last tomogram's error is 0.90, the session's median 0.5" in sheet.text(".compared")
    assert "shorter than its header promises" in sheet.text("#panel-waiting")
    rows = [node.get_property("textContent") for node in sheet.all(".table-rows tr[data-id] .name")]
    assert rows == ["Position_03", "Position_02", "Position_01"]
    sheet.until(lambda: "100" not in sheet.text("#panel-tomogram .class-line"), "facts")
    assert "220 × 200 × 60 voxels of 7.10" in sheet.text("#panel-tomogram .class-line")
    assert sheet.text(".mine-now") == "in work: grid2/Position_04.mrc: encode"
    assert "141 sub-volumes" in sheet.text("#panel-tomogram .class-line")


def test_one_that_is_pointed_at_is_shown_large(sheet: Sheet) -> None:
    ActionChains(sheet.driver).move_to_element(sheet.find(sheet.tile(5))).perform()
    sheet.until(lambda: sheet.text(".mine-peek h3") == "Cluster 5", "the cluster below the mouse")
    assert "5.0" in sheet.text(".mine-peek .facts") or "678" in sheet.text(".mine-peek .facts")
    assert "45\u202fnm" in sheet.text(".mine-peek .facts")
    greys = sheet.script(
        "return [...document.querySelectorAll('.mine-four canvas')].map(canvas => {"
        " const copy = new OffscreenCanvas(32, 32).getContext('2d', {willReadFrequently: true});"
        " copy.drawImage(canvas, 0, 0);"
        " return [...copy.getImageData(0, 0, 32, 32).data].filter((_, i) => i % 4 === 0)})"
    )
    view = sheet.fake.now.clusters[4]
    assert greys == [view.projection.ravel().tolist(), *(one.ravel().tolist() for one in view.slices)]
    sheet.keys(sheet.tile(5), Keys.ARROW_RIGHT)
    assert sheet.text(".mine-peek h3") == "Cluster 6", "and the one that has the focus"
    # What a browser says when another tile is scrolled below a mouse that lies still.
    still = "new PointerEvent('pointerover', {bubbles: true, pointerType: 'mouse'})"
    sheet.script(f"document.querySelectorAll('.mine-tile')[9].dispatchEvent({still})")
    assert sheet.text(".mine-peek h3") == "Cluster 6", "where it lay before"


def test_clusters_are_selected_by_clicks_and_marked_as_a_new_group(sheet: Sheet) -> None:
    assert sheet.find(".mine-new").is_displayed() is False
    sheet.choose(2, 5)
    sheet.choose(5, 4)
    sheet.choose(7, shift=True)
    assert sheet.selected() == [2, 4, 5, 6, 7]
    assert sheet.text(".mine-selected").startswith("5 selected (2, 4, 5, 6, 7): ")
    sheet.new_group("ribosome-like", "globule")
    sheet.until(lambda: sheet.fake.asked[1:] == [("mark", (2, 4, 5, 6, 7), "ribosome-like", "Ada")], "the daemon")
    assert sheet.fake.asked[0] == ("new", "ribosome-like", "globule", "Ada")
    sheet.until(lambda: sheet.marks() == dict.fromkeys((2, 4, 5, 6, 7), "ribosome-like"), "the tiles")
    assert sheet.selected() == []
    sheet.until(lambda: sheet.text('[data-key="class-0"] h2') == "ribosome-like", "a tile of its own")
    assert "5 of 24 clusters are in 1 group" in sheet.text(".mine-mode")
    sheet.until(
        lambda: "clusters: 2, 4, 5, 6, 7 unmarked → 2, 4, 5, 6, 7 ribosome-like" in sheet.text(".changes"), "log"
    )
    sheet.until(lambda: sheet.text('.table-rows th[data-name="class:ribosome-like"]') == "ribosome-like", "a column")
    counted = sum(row.by_cluster.get(n, 0) for row in sheet.page.rows.all() for n in (2, 4, 5, 6, 7))
    sheet.until(lambda: sheet.text('[data-key="class-0"] .value') == str(counted), "counts")
    assert sheet.text(".mine-classes li b") == str(counted)


def test_the_keyboard_does_all_of_it(sheet: Sheet) -> None:
    sheet.fake.new_group("membrane", "surface", "Ada")
    sheet.fake.new_group("carbon edge", "surface", "Ada")
    sheet.until(lambda: len(sheet.all("button.into")) == 2, "the groups")
    sheet.press("c")
    sheet.press(Keys.ARROW_RIGHT, Keys.SPACE)
    ActionChains(sheet.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).key_up(
        Keys.SHIFT
    ).perform()
    assert sheet.selected() == [2, 3, 4]
    sheet.press("2")
    sheet.until(lambda: sheet.marks() == dict.fromkeys((2, 3, 4), "carbon edge"), "the second group")
    sheet.press(Keys.HOME, Keys.SPACE, Keys.ARROW_RIGHT, Keys.ENTER, "1")
    sheet.until(
        lambda: sheet.marks() == {1: "membrane", 2: "membrane", 3: "carbon edge", 4: "carbon edge"}, "the first"
    )
    sheet.press("z")
    sheet.until(lambda: sheet.marks() == dict.fromkeys((2, 3, 4), "carbon edge"), "as it was: two groups at once")
    sheet.press("z")
    sheet.until(lambda: sheet.marks() == {}, "as it was at first")
    sheet.told("Undone")
    sheet.press("z")
    sheet.told("Nothing to undo")
    ActionChains(sheet.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    assert len(sheet.selected()) == N
    sheet.press(Keys.ESCAPE)
    assert sheet.selected() == []
    sheet.press("1")
    sheet.told("Select clusters first")


def test_what_the_daemon_refuses_is_said_and_taken_back(sheet: Sheet) -> None:
    sheet.choose(3)
    sheet.new_group("unmarked", "other")
    sheet.told("Nothing was marked: 'unmarked' is a word with a meaning of its own")
    assert sheet.marks() == {}
    sheet.fake.refuse = "groups.yaml: disk full"
    sheet.choose(3)
    sheet.find("input[name=group]").clear()
    sheet.new_group("ice", "other")
    sheet.told("groups.yaml: disk full")
    assert sheet.marks() == {}
    said = sheet.complaints()
    assert len(said) == 2, "the browser tells of what the daemon refused"
    assert all("409" in line for line in said)


def test_clusters_are_filtered_and_sorted(sheet: Sheet) -> None:
    sheet.fake.new_group("membrane", "surface", "Ada")
    sheet.fake.mark((9, 12), "membrane", "Ada")
    sheet.until(lambda: sheet.marks() == {9: "membrane", 12: "membrane"}, "marks of somebody else")

    def pick(name: str, value: str) -> list[int]:
        sheet.script(
            "const node = document.querySelector(`select[name=${arguments[0]}]`); node.value = arguments[1];"
            "node.dispatchEvent(new Event('change'))",
            name,
            value,
        )
        return sheet.order()

    assert pick("order", "mark")[:4] == [9, 12, 1, 2]
    errors = {view.id: view.error for view in sheet.fake.now.clusters}
    assert [errors[n] for n in pick("order", "error")] == sorted(errors.values(), reverse=True)
    assert sorted(pick("show", "=membrane")) == [9, 12]
    assert len(pick("show", "none")) == N - 2
    assert len(pick("show", "all")) == N


def test_tiles_stay_while_some_are_selected(sheet: Sheet) -> None:
    def leave() -> None:
        sheet.script("document.activeElement.blur()")
        ActionChains(sheet.driver).move_to_element(sheet.find("#panel-clusters h2")).perform()

    sheet.choose(1)
    leave()
    views = sheet.fake.now.clusters
    sheet.fake.change(clusters=(views[-1], *views[:-1]), events=((SINCE, "clusters made anew"),))
    sheet.until(lambda: "clusters made anew" in sheet.text(".mine-events"), "the newest state")
    assert sheet.order()[0] == 1
    sheet.script("document.querySelector('button.clear').click()")
    leave()
    sheet.fake.change(events=())
    sheet.until(lambda: sheet.order()[0] == N, "the order of sizes")


def test_the_tomogram_shows_labels_and_sub_volumes(sheet: Sheet) -> None:
    sheet.fake.new_group("membrane", "surface", "Ada")
    sheet.fake.mark((1,), "membrane", "Ada")
    script = """
        const canvas = document.querySelector(".mine-slices");
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
        let n = 0;
        for (let i = 0; i < data.length; i += 4) n += data[i] > data[i + 2] + 40 ? 1 : 0;
        return n;
    """
    both = sheet.until(lambda: (n := sheet.script(script)) > 5000 and n, "a yellow ring")
    sheet.script("document.querySelector('input[name=labels]').click()")
    dots = sheet.until(lambda: (n := sheet.script(script)) < both / 3 and n, "without labels")
    assert dots > 100, "sub-volumes of the group"
    sheet.script("document.querySelector('input[name=picks]').click()")
    sheet.until(lambda: sheet.script(script) == 0, "the slices alone")
    for name in ("labels", "picks"):
        sheet.script(f"document.querySelector('input[name={name}]').click()")
    sheet.until(lambda: abs(sheet.script(script) - both) < 100, "both again")
    sheet.script("document.querySelector('.mine-toggles input[data-name=membrane]').click()")
    sheet.until(lambda: sheet.script(script) == 0, "the group is hidden")


def test_a_sub_volume_leads_to_its_cluster(sheet: Sheet) -> None:
    sheet.script("document.querySelector('.mine-slices').scrollIntoView({block: 'center'})")
    sheet.until(lambda: "Point at" in sheet.text("#panel-tomogram .what"), "the hint")
    picks = sheet.script("return fetch('live/blob/picks/t003').then(answer => answer.json())")
    near = [i for i, z in enumerate(picks["z"]) if abs(z - 30) < picks["box"] / 2]
    alone = max(
        near,
        key=lambda i: min(
            abs(picks["x"][i] - picks["x"][j]) + abs(picks["y"][i] - picks["y"][j]) for j in near if j != i
        ),
    )
    width = sheet.find(".mine-slices").size["width"]
    gap = 0.5 * float(sheet.script("return parseFloat(getComputedStyle(document.documentElement).fontSize)"))
    room = 0.86 * float(sheet.script("return innerHeight"))
    scale = min((width - gap) / 280, (room - gap) / 260)
    left = max(0.0, (width - gap - 280 * scale) / 2)
    at = [left + (picks["x"][alone] + 0.5) * scale, (picks["y"][alone] + 0.5) * scale]
    canvas = sheet.find(".mine-slices")
    middle = (canvas.size["width"] / 2, canvas.size["height"] / 2)
    ActionChains(sheet.driver).move_to_element_with_offset(canvas, at[0] - middle[0], at[1] - middle[1]).perform()
    number = picks["cluster"][alone]
    sheet.until(lambda: f"cluster {number}, unmarked" in sheet.text("#panel-tomogram .what"), "what is below")
    sheet.click(".mine-slices", *at)
    sheet.until(lambda: sheet.selected() == [number], "its cluster, selected")


def test_another_tomogram_is_chosen_in_the_table(sheet: Sheet) -> None:
    sheet.keys(".table-rows", Keys.ARROW_DOWN)
    sheet.until(lambda: sheet.text("#panel-tomogram .note") == "Position_02", "the one below")
    assert not sheet.find("input[name=follow]").is_selected()
    assert sheet.find("input[name=labels]").get_property("disabled"), "it has none"
    sheet.page.add(tomogram(sheet.page.folder, 4, N))
    sheet.until(lambda: sheet.text('[data-key="tomograms"] .value') == "4", "one more")
    assert sheet.text("#panel-tomogram .note") == "Position_02", "who chose one is not taken away from it"
    sheet.script("document.querySelector('input[name=follow]').click()")
    sheet.until(lambda: sheet.text("#panel-tomogram .note") == "Position_04", "the newest")


def test_texts_of_the_daemon_are_no_html(sheet: Sheet) -> None:
    sheet.fake.change(events=((SINCE, HOSTILE),), error=HOSTILE, job=("training", 3, 20, HOSTILE))
    sheet.until(lambda: HOSTILE in sheet.text(".mine-events"), "the event")
    assert HOSTILE in sheet.text(".mine-failed")
    assert f"training the autoencoder on this session: 15\u202f%, {HOSTILE}" in sheet.text(".mine-work")
    assert sheet.all("img") == []


def test_before_there_are_clusters_it_says_what_is_missing(sheet: Sheet) -> None:
    sheet.fake.change(clusters=(), state="waiting", have=412, need=500)
    sheet.until(lambda: sheet.text(".mine-need") == "88 more sub-volumes until the first clusters", "what is missing")
    assert sheet.find(".mine-grid").is_displayed() is False
    assert "412 of 500" in sheet.text(".mine-empty")
    sheet.fake.change(state="failed", error="tomograms-general: no such bundle")
    sheet.until(lambda: sheet.text(".mine-failed").endswith("tomograms-general: no such bundle"), "why")
    assert sheet.find(".mine-empty").is_displayed() is False


def test_who_only_looks_can_change_nothing(shared: Sheet) -> None:
    shared.again(sign_in=False)
    shared.choose(3)
    assert shared.text(".mine-marking .why") == "Sign in to change anything."
    assert shared.find("button.make").is_enabled() is False
    shared.press("u")
    shared.told("Sign in to change anything.")
    assert shared.fake.asked == []


def test_nothing_is_wider_than_the_window(sheet: Sheet) -> None:
    name = "a ribosome-like thing with a long name"
    sheet.fake.new_group(name, "globule", "Ada")
    sheet.fake.mark((1, 2), name, "Ada")
    sheet.until(lambda: len(sheet.marks()) == 2, "the marks")
    sheet.choose(3)
    try:
        for width in (1400, 800, 360):
            screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            sheet.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            assert sheet.script("return document.documentElement.scrollWidth <= innerWidth"), width
    finally:
        sheet.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
