"""The live page of cryoem_picks in a real Chromium, against a real server: what it shows, and what it sends."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.yields import Yields
from beamsieve.stream.live.access import Access
from beamsieve.stream.live.limits import Limits
from beamsieve.stream.live.page import JSON, Blob, Picture, Refused
from beamsieve.stream.live.server import LiveServer

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

TOKEN = "a-token-for-tests-0123456789"
NX, NY, FACTOR, DIAMETER = 2560, 2200, 2, 90.0
# The one white square of the picture, which no candidate marks: a particle that was missed. Upper left corner, edge.
WHITE_X, WHITE_Y, WHITE = 1620, 570, 60
# Every other pixel of this square is white: the overview, of every other pixel, shows nothing of it.
FINE_X, FINE_Y, FINE = 700, 1500, 60
Bytes = npt.NDArray[np.uint8]


def discs() -> tuple[Bytes, npt.NDArray[np.float64]]:
    """Noise with dark discs on a grid, and the white square; and the discs' centres (n, 2)."""
    rng = np.random.default_rng(4)
    image = rng.normal(150, 18, (NY // 4, NX // 4)).repeat(4, 0).repeat(4, 1)
    at = np.array([(x, y) for y in range(150, NY - 100, 210) for x in range(150, NX - 100, 230)], float)
    at += rng.uniform(-40, 40, (1, 2))
    for x, y in ((WHITE_X, WHITE_Y), (FINE_X, FINE_Y)):
        at = at[np.hypot(at[:, 0] - x - 30, at[:, 1] - y - 30) > 160]
    y, x = np.mgrid[-45:46, -45:46]
    disc = np.where(np.hypot(x, y) < 45, 60, 0)
    for cx, cy in at.astype(int):
        image[cy - 45 : cy + 46, cx - 45 : cx + 46] -= disc
    image = np.clip(image, 0, 200)
    image[WHITE_Y : WHITE_Y + WHITE, WHITE_X : WHITE_X + WHITE] = 255
    image[FINE_Y : FINE_Y + FINE, FINE_X : FINE_X + FINE] = 100
    image[FINE_Y + 1 : FINE_Y + FINE : 2, FINE_X + 1 : FINE_X + FINE : 2] = 255
    return image.astype(np.uint8), at


class Session:
    """A page with made-up micrographs of one picture: it answers as the contract says, and notes what it is asked."""

    beamline = "cryoem_picks"

    def __init__(self, rows: int = 40, *, places: bool = True) -> None:
        self.image, at = discs()
        self.small = (
            self.image[: NY // 20 * 20, : NX // 20 * 20]
            .reshape(NY // 20, 20, NX // 20, 20)
            .mean((1, 3))
            .astype(np.uint8)
        )
        rng = np.random.default_rng(5)
        self.scores = np.sort(rng.beta(4, 2, len(at)))[::-1]
        self.x, self.y = at[:, 0], at[:, 1]
        self.threshold, self.version, self.places = 0.5, 1, places
        self.rethreshold: JSON | None = None
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.acts: list[tuple[str, JSON, str]] = []
        self.told: list[Picture] = []
        self.rows: list[JSON] = []
        for i in range(rows):
            self.add(pictures=i >= rows - 60)

    def add(self, pictures: bool = True) -> JSON:
        """One more micrograph, with its pictures."""
        i = len(self.rows)
        rng = np.random.default_rng(i)
        square, hole = i // 12, i // 2
        stage = [120.0 * (square % 3) + 3.0 * (hole % 6 % 3), -110.0 * (square // 3) + 3.0 * (hole % 6 // 3)]
        quality = {
            "mean": 150 + i,
            "sd": 18.5,
            "carbon_fraction": 0.02 * (i % 20),
            "ice_fraction": 0.001,
            "contrast": 2.1,
        }
        row = {
            "id": f"{i:016x}", "name": f"GridSquare_{100 + square}/FoilHole_{7000 + hole}_Data_1_{i:04d}.mrc",
            "time": 1.8e9 + 40 * i, "picks": int(rng.poisson(60 if i % 20 < 15 else 12)), "candidates": 80,
            "threshold": self.threshold, "seconds": 1.5, "quality": quality, "full": True, "skipped": [],
            "warnings": ["carbon_fraction"] if i % 20 > 15 else [],
            "square": str(100 + square) if self.places else None, "hole": str(7000 + hole) if self.places else None,
            "stage": stage if self.places else None,
        }  # fmt: skip
        self.rows.append(row)
        if pictures:
            self._tell({"group": "micrograph", "id": row["id"], "name": row["name"], "nx": NX, "ny": NY,
                        "picks": row["picks"]}, self.small)  # fmt: skip
            for k in (0, 3, 60 + i % 5):
                group = "particle" if self.scores[k] >= self.threshold else "random_miss"
                x, y = int(self.x[k]), int(self.y[k])
                cut = self.image[y - 64 : y + 64 : 2, x - 64 : x + 64 : 2]
                self._tell({"group": group, "id": f"{row['id']}/{k}", "row": row["id"], "score": float(self.scores[k]),
                            "x": float(self.x[k]), "y": float(self.y[k]), "review": k != 3}, cut)  # fmt: skip
        return row

    def _tell(self, fields: JSON, pixels: Bytes) -> None:
        h, w = pixels.shape
        text = base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()
        encoded = json.dumps({**fields, "w": w, "h": h, "pixels": text}).encode()
        self.told.append(Picture(len(self.told) + 1, encoded))

    def facts(self) -> JSON:
        numbers = {"carbon_fraction": {"text": "fraction of the picture with carbon's texture", "unit": ""}}
        return {"beamline": self.beamline, "version": "0", "labels": [], "rows": self.rows[-5000:], "numbers": numbers,
                "rows_version": self.version}  # fmt: skip

    def snapshot(self) -> JSON:
        picks = [row["picks"] for row in self.rows]
        recent, median = float(np.median(picks[-10:])), float(np.median(picks))
        edges = np.linspace(0, 1, 51)
        grid = np.linspace(0.1, 1, 46)
        counts = np.histogram(self.scores, edges)[0] * len(self.rows)
        above = [int((self.scores >= t).sum()) for t in grid]
        return {
            "time": 1.8e9, "beamline": self.beamline, "ready": True, "problems": [], "uptime_s": 3600.0,
            "counts": {"read": len(picks), "accepted": len(picks), "rejected": 0, "failed": 0, "dropped": 0,
                       "in_flight": 0},
            "losses": [], "speed": {"frames_per_s": 0.03, "bytes_per_s": 2e6}, "latency_s": {"median": 3.0, "p99": 5.0},
            "stages": [{"name": "picker", "busy": 0.6, "starved": 0.4, "blocked": 0.0}], "bottleneck": "picker",
            "queues": [],
            "scores": {"edges": edges.tolist(), "counts": counts.tolist(), "seconds": 3600.0},
            "what_if": {"threshold": grid.tolist(), "picks": [n * len(picks) for n in above], "median": above,
                        "purity": [[0.9, 0.8, 0.95]] * 46, "recall": [None] * 46},
            "review": {"right": 4, "wrong": 1, "waiting": 0, "purity": None, "recall": None},
            "threshold": {"value": self.threshold, "configured": 0.5, "card": 0.5, "floor": 0.1},
            "writing": {"paused": False, "file": None}, "run": {"name": "grid5", "title": "", "since": 1.8e9},
            "model": {"name": "particles-general", "version": "1", "hash": "0123", "device": "cpu", "dtype": "float32"},
            "models": [], "candidate": None, "changes": [],
            "yield": {"micrographs": len(picks), "particles": sum(picks), "last": picks[-1], "recent": recent,
                      "median": median, "ratio": recent / median, "per_hour": 90.0},
            "waiting": {"reasons": {"settling": 2, "companion": 1}, "oldest_s": 75.0,
                        "files": [{"name": "a/FoilHole_9.mrc", "reason": "companion", "seconds": 75.0}]},
            "rows": self.rows[-20:], "rows_version": self.version, "rethreshold": self.rethreshold,
        }  # fmt: skip

    def pictures(self, after: int) -> Sequence[Picture]:
        return [picture for picture in self.told if picture.seq > after][-200:]

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        self.asked.append((kind, name, dict(query)))
        if not any(row["id"] == name for row in self.rows):
            return None
        if kind == "picks":
            picked = (self.scores >= self.threshold).astype(int).tolist()
            found = {"x": self.x.tolist(), "y": self.y.tolist(), "score": self.scores.tolist(), "picked": picked,
                     "diameter_px": DIAMETER, "box_px": 136, "threshold": self.threshold, "ny": NY, "nx": NX,
                     "pixel_a": 1.5, **self.truth(name)}  # fmt: skip
            return Blob(json.dumps(found).encode(), "application/json")
        if kind == "micrograph":
            return _array(self.image[: NY // 2 * 2, : NX // 2 * 2][::FACTOR, ::FACTOR], factor=FACTOR)
        x, y, size = (int(query[name]) for name in ("x", "y", "size"))
        return _array(self.image[y : y + size, x : x + size], x=x, y=y)

    def truth(self, name: str) -> JSON:
        """What is marked on a micrograph, as the real page tells it."""
        truth: list[bool | None] = [None] * len(self.x)
        places = []
        for mark in (mark for action, body, _ in self.acts if action == "mark" for mark in body["marks"]):
            row, _, number = mark["id"].partition("/")
            if row == name and number:
                truth[int(number)] = {"right": True, "wrong": False}.get(mark["verdict"])
            elif row == name:
                places.append({"id": mark["id"], "x": mark["x"], "y": mark["y"], "truth": mark["verdict"] == "right"})
        return {"truth": truth, "marked": places}

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        self.acts.append((action, dict(body), by))
        if action == "threshold":
            self.threshold = body["value"]
            for row in self.rows:
                row["threshold"] = self.threshold
            self.version += 1
            self.rethreshold = {"done": 12, "of": len(self.rows)}
        elif action != "mark":
            raise Refused(f"{action}: not here")
        return {"review": {"right": 5, "wrong": 1, "waiting": 0, "purity": None, "recall": None}}


def _array(pixels: Bytes, **head: Any) -> Blob:
    return Blob(np.ascontiguousarray(pixels).tobytes(), head={"shape": list(pixels.shape), "dtype": "u1", **head})


def serve(page: Session) -> LiveServer:
    """A real server with this page, ten times as quick as usual."""
    return LiveServer(
        host="127.0.0.1", port=0, metrics=Metrics("cryoem_picks", yields=Yields()), problems=list, page=page,
        access=Access(host="127.0.0.1", token=TOKEN), limits=Limits(tick_s=0.1),
    )  # fmt: skip


def browser(folder: Path, width: int = 1600, height: int = 1000) -> Any:
    """A headless Chromium of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += f"--disable-component-update --disable-sync --hide-scrollbars --window-size={width},{height}"
    for flag in [*flags.split(), f"--user-data-dir={folder}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))


class Window:
    """A browser on a page, with what the tests do again and again."""

    def __init__(self, folder: Path, page: Session, width: int = 1600, height: int = 1000) -> None:
        self.page, self.server = page, serve(page)
        self.driver = browser(folder, width, height)
        self.driver.set_script_timeout(10)

    def close(self) -> None:
        self.driver.quit()
        self.server.close()

    def open(self, *, sign_in: bool = True) -> None:
        """Load the page; wait until the newest micrograph is drawn with its picks."""
        self.driver.get(f"http://127.0.0.1:{self.server.port}/")
        if sign_in:
            self.script(
                "return fetch('login', {method: 'POST', headers: {'Content-Type': 'application/json',"
                " 'X-Beamsieve': '1'}, body: JSON.stringify({token: arguments[0], name: 'Ada'})}).then(r => r.status)",
                TOKEN,
            )
            self.driver.refresh()
        self.until(lambda: "picks at" in self.text(".count"), "the newest micrograph's picks")

    def script(self, code: str, *given: Any) -> Any:
        return self.driver.execute_script(code, *given)

    def find(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements(By.CSS_SELECTOR, css)
        return found

    def text(self, css: str) -> str:
        found = self.all(css)
        return str(found[0].get_property("textContent")) if found else ""

    def until(self, true: Callable[[], Any], what: str, seconds: float = 8.0) -> Any:
        """Wait for the browser, which draws when it likes."""
        until = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < until, f"waited {seconds} s for {what}"
            time.sleep(0.03)
        return found

    def keys(self, css: str, keys: str) -> None:
        """Press keys while this has the focus."""
        self.script(
            "arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus({preventScroll: true})", self.find(css)
        )
        ActionChains(self.driver).send_keys(keys).perform()

    def click(self, css: str, x: float, y: float, *, shift: bool = False) -> None:
        """Click at CSS pixels from the upper left corner of an element."""
        element = self.find(css)
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        size = element.size
        chain = ActionChains(self.driver)
        if shift:
            chain.key_down(Keys.SHIFT)
        chain.move_to_element_with_offset(element, x - size["width"] / 2, y - size["height"] / 2).click()
        if shift:
            chain.key_up(Keys.SHIFT)
        chain.perform()

    def wheel(self, x: float, y: float, turns: int) -> None:
        """Zoom the micrograph in at CSS pixels from the canvas' upper left corner."""
        self.script(
            """
            const canvas = document.querySelector("canvas.field"), box = canvas.getBoundingClientRect();
            for (let i = 0; i < arguments[2]; i++) canvas.dispatchEvent(new WheelEvent("wheel", {deltaY: -180,
                bubbles: true, cancelable: true, clientX: box.left + arguments[0], clientY: box.top + arguments[1]}))
            """,
            x,
            y,
            turns,
        )

    def white(self) -> tuple[float, float, int] | None:
        """Middle of the white square as it is drawn (CSS pixels), and how many pixels it has; None: it is not there."""
        found = self.script("""
            const canvas = document.querySelector("canvas.field"), dense = canvas.width / canvas.clientWidth;
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
            copy.drawImage(canvas, 0, 0);
            const {data, width, height} = copy.getImageData(0, 0, canvas.width, canvas.height - 60);
            let [n, sx, sy] = [0, 0, 0];
            for (let i = 0; i < data.length; i += 4) {
                if (data[i] < 235 || data[i + 1] < 235 || data[i + 2] < 235) continue;
                n += 1; sx += i / 4 % width + 0.5; sy += Math.floor(i / 4 / width) + 0.5;
            }
            return n > 20 ? [sx / n / dense, sy / n / dense, n] : null;
        """)
        return None if found is None else (found[0], found[1], found[2])

    def marks(self) -> list[JSON]:
        return [mark for action, body, _ in self.page.acts if action == "mark" for mark in body["marks"]]

    def complaints(self) -> list[str]:
        """What the browser's console holds against the page."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] in {"SEVERE", "WARNING"}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """One browser for most tests; each loads the page anew."""
    window = Window(tmp_path_factory.mktemp("browser"), Session())
    yield window
    window.close()


@pytest.fixture
def window(shared: Window) -> Iterator[Window]:
    shared.page.acts.clear()
    shared.page.asked.clear()
    shared.open()
    yield shared
    assert shared.complaints() == []


def test_every_panel_shows_data(window: Window) -> None:
    panels = {panel.get_dom_attribute("data-area") for panel in window.all(".picks .panel")}
    assert panels >= {"micrograph", "particles", "yield", "scores", "review", "waiting", "maps", "table", "control"}
    assert window.text(".count") == f"{int((window.page.scores >= 0.5).sum())} picks at 0.50"
    window.until(lambda: len(window.all(".mg-thumb")) == 12, "twelve thumbnails")
    assert window.find(".mg-thumb").get_dom_attribute("aria-pressed") == "true", "the newest is shown"
    window.until(lambda: len(window.all(".particle")) == 60, "sixty particles, as many as are kept")
    recent = np.median([row["picks"] for row in window.page.rows[-10:]])
    window.until(
        lambda: window.text('[data-key="recent"] .value') == str(int(recent + 0.5)), "the median of the last ten"
    )
    assert "poor" in window.text(".compared") or "usual" in window.text(".compared")
    assert "its XML or mdoc is missing" in window.text(".reasons")
    assert "1\u202fmin 15" in window.text("#panel-waiting")
    assert window.text(".table-rows tbody:nth-of-type(2) tr:first-child .name") == "FoilHole_7019_Data_1_0039"
    assert "! 38.0 (outside its usual range)" in window.text(".table-rows td.warn")
    drawn = window.script(
        "const context = document.querySelector('#panel-yield canvas').getContext('2d');"
        "return context.getImageData(0, 0, 400, 200).data.some(x => x)"
    )
    assert drawn, "the trend"
    assert "busy 60\u202f%" in window.text("#panel-stages")
    assert "Is this a particle?" in window.text("#panel-review")


def test_the_table_sorts_filters_and_chooses(window: Window) -> None:
    def column(name: str) -> list[str]:
        at = [cell.get_dom_attribute("data-name") for cell in window.all(".table-rows thead th")].index(name) + 1
        return [
            str(cell.get_property("textContent"))
            for cell in window.all(f".table-rows tbody:nth-of-type(2) tr > :nth-child({at})")
        ]

    head = window.find('.table-rows th[data-name="picks"]')
    assert head.get_dom_attribute("aria-sort") == "none"
    window.keys('.table-rows th[data-name="picks"] button', Keys.ENTER)
    assert head.get_dom_attribute("aria-sort") == "descending"
    wanted = sorted((row["picks"] for row in window.page.rows), reverse=True)
    shown = [int(text) for text in column("picks")]
    assert shown == wanted[: len(shown)]
    assert len(shown) > 8
    window.keys('.table-rows th[data-name="picks"] button', Keys.ENTER)
    assert head.get_dom_attribute("aria-sort") == "ascending"
    assert [int(text) for text in column("picks")] == wanted[::-1][: len(shown)]
    window.script("document.querySelector('input[name=warnings]').click()")
    with_warnings = sum(bool(row["warnings"]) for row in window.page.rows)
    assert window.text("#panel-table .note") == f"{with_warnings} of 40"
    window.find("input[name=filter]").send_keys("_0019")
    assert list(column("name")) == ["FoilHole_7009_Data_1_0019warning"]
    window.keys(".table-rows", Keys.ARROW_DOWN)
    window.until(lambda: window.text("#panel-micrograph .note") == "FoilHole_7009_Data_1_0019", "the chosen micrograph")
    assert not window.find("input[name=follow]").is_selected(), "who chose one is not taken away from it"


def test_maps_are_recoloured_and_tell_values(window: Window) -> None:
    def fills() -> set[int]:
        """Colours of the squares: those that many pixels have; the most frequent one is the ground."""
        data: list[list[int]] = window.script("""
            const canvas = document.querySelector("canvas.map");
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
            copy.drawImage(canvas, 0, 0);
            const counts = new Map();
            for (const word of new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer))
                counts.set(word, (counts.get(word) ?? 0) + 1);
            return [...counts].filter(([, n]) => n > 300).sort((a, b) => b[1] - a[1]);
        """)
        return {word for word, _ in data[1:]}

    window.script("document.querySelector('canvas.map').scrollIntoView({block: 'center'})")
    window.until(lambda: "µm" in window.text("#panel-maps figcaption"), "the map")
    before = fills()
    assert len(before) >= 3, "four squares of different yields"
    Select(window.find("select[name=number]")).select_by_value("carbon_fraction")
    after = fills()
    assert len(after) >= 3
    assert after != before
    medians = [
        np.median([100 * row["quality"]["carbon_fraction"] for row in window.page.rows[i : i + 12]])
        for i in (0, 12, 24)
    ]
    assert max(medians) > 10
    assert window.text("#panel-maps .colours") == "11.037.0"
    window.keys("canvas.map", Keys.ARROW_RIGHT)
    first = [row["quality"]["carbon_fraction"] for row in window.page.rows[:12]]
    assert (
        window.text("#panel-maps .value")
        == f"Grid square 100 (12 micrographs): median carbon (%) {100 * np.median(first):.1f}"
    )
    window.keys("canvas.map", Keys.ENTER)
    window.until(lambda: window.find("select[name=square]").get_property("value") == "100", "its foil holes")
    holes = window.all("canvas.map")[1]
    assert str(holes.get_dom_attribute("aria-label")).startswith("Map of 6 places")


def test_the_threshold_is_dragged_and_applied(window: Window) -> None:
    page, handle = window.page, window.find(".threshold-handle")
    window.script("arguments[0].scrollIntoView({block: 'center'})", handle)
    ActionChains(window.driver).click_and_hold(handle).move_by_offset(60, 0).release().perform()
    proposed = window.until(
        lambda: (at := float(str(handle.get_dom_attribute("aria-valuenow")))) > 0.6 and at, "the line"
    )
    above = int((page.scores >= proposed).sum())
    window.until(lambda: window.text(".count").startswith(f"{above} picks at"), "circles that follow the line")
    assert [action for action, _, _ in page.acts] == [], "nothing is changed before it is applied"
    window.script("document.querySelector('button.apply').click()")
    window.until(lambda: page.acts, "the new threshold")
    assert page.acts == [("threshold", {"value": proposed}, "Ada")]
    window.until(lambda: "12 of 40 micrographs" in window.text(".again"), "how far the stored picks are")
    fetched: tuple[str, str, dict[str, str]] = ("picks", page.rows[-1]["id"], {})
    window.until(lambda: page.asked.count(fetched) > 1, "the picks at the new threshold")
    page.threshold, page.rethreshold = 0.5, None
    for row in page.rows:
        row["threshold"] = 0.5


def test_a_pick_is_marked_right_and_wrong_by_key(window: Window) -> None:
    window.keys("canvas.field", "j")
    best = window.page.scores[0]
    window.until(lambda: f"score {best:.3f}" in window.text(".what"), "the best pick selected")
    window.keys("canvas.field", "y")
    row = window.page.rows[-1]["id"]
    window.until(lambda: "marked right" in window.text(".what"), "the verdict")
    assert window.marks() == [{"id": f"{row}/0", "verdict": "right"}]
    window.keys("canvas.field", "jn")
    window.until(lambda: len(window.marks()) == 2, "the second verdict")
    assert window.marks()[1] == {"id": f"{row}/1", "verdict": "wrong"}
    assert {by for _, _, by in window.page.acts} == {"Ada"}
    assert window.find(".buttons button[data-verdict=right]").is_enabled()


def test_keys_zoom_at_the_selected_pick(window: Window) -> None:
    window.keys("canvas.field", "jj")
    window.until(lambda: f"score {window.page.scores[1]:.3f}" in window.text(".what"), "the second pick")
    size = window.find("canvas.field").size
    scale = min(size["width"] / NX, size["height"] / NY)
    x = size["width"] / 2 + (window.page.x[1] + 0.5 - NX / 2) * scale
    y = size["height"] / 2 + (window.page.y[1] + 0.5 - NY / 2) * scale
    window.keys("canvas.field", "+" * 6)
    window.click("canvas.field", 5, 5)
    window.until(lambda: "Click a pick" in window.text(".what"), "nothing selected in the corner")
    window.click("canvas.field", x, y)
    window.until(lambda: f"score {window.page.scores[1]:.3f}" in window.text(".what"), "the pick where it was")


def test_a_missed_particle_is_marked_where_it_is_also_when_zoomed(window: Window) -> None:
    window.script("document.querySelector('input[name=circles]').click()")
    centre = (WHITE_X + WHITE / 2 - 0.5, WHITE_Y + WHITE / 2 - 0.5)
    x, y, small = window.until(window.white, "the white square")
    window.click("canvas.field", x, y, shift=True)
    window.until(window.marks, "the mark")
    scale = (small / WHITE**2) ** 0.5
    assert window.marks()[0]["verdict"] == "right"
    assert window.marks()[0]["id"] == window.page.rows[-1]["id"]
    assert np.hypot(window.marks()[0]["x"] - centre[0], window.marks()[0]["y"] - centre[1]) < 1.5 / scale
    # The mark is drawn over the square from now on; a click beside it is another one.
    element = window.find("canvas.field")
    window.wheel(x + 20, y + 10, 5)
    large = window.until(lambda: (found := window.white()) and found[2] > 45 * small and found, "the square, larger")
    tiles = window.until(lambda: [query for kind, _, query in window.page.asked if kind == "tile"], "tiles")
    assert all(query["size"] == "512" for query in tiles)
    scale = (large[2] / WHITE**2) ** 0.5
    assert scale > 1.4
    ActionChains(window.driver).drag_and_drop_by_offset(element, 25, 35).perform()
    moved = window.white()
    assert moved is not None
    assert abs(moved[0] - large[0] - 25) < 2
    assert abs(moved[1] - large[1] - 35) < 2
    away = (-150, 90)
    window.click("canvas.field", moved[0] + away[0], moved[1] + away[1], shift=True)
    window.until(lambda: len(window.marks()) == 2, "the second mark")
    wanted = (centre[0] + away[0] / scale, centre[1] + away[1] / scale)
    second = window.marks()[1]
    assert np.hypot(second["x"] - wanted[0], second["y"] - wanted[1]) < 1.0
    window.click("canvas.field", moved[0] + away[0], moved[1] + away[1], shift=True)
    window.until(lambda: len(window.marks()) == 3, "the mark withdrawn")
    assert window.marks()[2]["verdict"] == "none"
    ActionChains(window.driver).double_click(element).perform()
    window.until(
        lambda: (found := window.white()) and abs(found[2] - small) < 0.2 * small, "the whole micrograph again"
    )


def test_two_fingers_zoom_and_one_moves(window: Window) -> None:
    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(fingers)]
        window.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    window.script("document.querySelector('input[name=circles]').click()")
    box = window.script(
        "const field = document.querySelector('canvas.field'); field.scrollIntoView({block: 'center'});"
        "return field.getBoundingClientRect().toJSON()"
    )
    x, y, small = window.until(window.white, "the white square")
    cx, cy = box["x"] + x, box["y"] + y
    touch("touchStart", (cx - 40, cy), (cx + 40, cy))
    for by in (50, 60, 70, 80):
        touch("touchMove", (cx - by, cy), (cx + by, cy))
    touch("touchEnd")
    found = window.until(lambda: (now := window.white()) and now[2] > 3 * small and now, "the square, larger")
    assert found[2] == pytest.approx(4 * small, rel=0.15)
    assert abs(found[0] - x) < 3
    assert abs(found[1] - y) < 3
    touch("touchStart", (cx, cy))
    for by in (20, 40, 60):
        touch("touchMove", (cx + by, cy + by))
    touch("touchEnd")
    moved = window.until(lambda: (now := window.white()) and now[0] > found[0] + 50 and now, "the square moved")
    assert abs(moved[0] - found[0] - 60) < 3


def _many(white: tuple[float, float, int] | None) -> tuple[float, float, int] | None:
    return white if white is not None and white[2] > 2000 else None


def test_full_resolution_of_the_part_in_sight_only(window: Window) -> None:
    window.script("document.querySelector('input[name=circles]').click()")
    size = window.find("canvas.field").size
    scale = min(size["width"] / NX, size["height"] / NY)
    x = size["width"] / 2 + (FINE_X + FINE / 2 - NX / 2) * scale
    y = size["height"] / 2 + (FINE_Y + FINE / 2 - NY / 2) * scale
    window.wheel(x, y, 8)
    # A tile may be drawn before the zoom has come to rest.
    window.until(lambda: _many(window.white()), "white pixels that the overview does not have")
    tiles = [(int(query["x"]), int(query["y"])) for kind, _, query in window.page.asked if kind == "tile"]
    assert (FINE_X // 512 * 512, FINE_Y // 512 * 512) in tiles
    assert all(abs(x + 256 - FINE_X) < 1000 and abs(y + 256 - FINE_Y) < 800 for x, y in tiles)
    window.keys("canvas.field", "-+-+")
    window.until(window.white, "the same again")
    again = [(int(query["x"]), int(query["y"])) for kind, _, query in window.page.asked if kind == "tile"]
    assert len(again) == len(set(again)), "a tile that is here was asked for again"


def test_a_particle_leads_to_its_micrograph(window: Window) -> None:
    window.until(lambda: len(window.all(".particle")) == 60, "particles")
    tile = window.all(".particle")[-1]
    row, number = str(tile.get_dom_attribute("data-id")).split("/")
    tile.click()
    window.until(lambda: f"score {window.page.scores[int(number)]:.3f}" in window.text(".what"), "the particle")
    assert window.page.asked[-1][1] == row or ("micrograph", row, {}) in window.page.asked
    assert not window.find("input[name=follow]").is_selected()


def test_review_marks_picks_and_random_misses(window: Window) -> None:
    window.until(lambda: "60 waiting" in window.text("#panel-review .note"), "what is offered")
    first = window.text(".question")
    ActionChains(window.driver).send_keys("r").send_keys("y").perform()
    window.until(window.marks, "the mark")
    assert window.marks()[0]["verdict"] == "right"
    assert "/" in window.marks()[0]["id"]
    assert window.text(".question") != first


def test_it_stays_small_and_quick_over_300_micrographs_and_5000_rows(tmp_path: Path) -> None:
    page = Session(4700, places=False)
    page.told.clear()
    window = Window(tmp_path, page)
    try:
        window.open(sign_in=False)
        window.script("document.querySelector('#panel-maps').scrollIntoView()")
        window.until(lambda: "tell neither grid square" in window.text("#panel-maps"), "why there is no map")
        for _ in range(300):
            page.add()
        del page.told[:-400]
        window.until(lambda: window.text("#panel-micrograph .note").endswith("_4999"), "the newest, followed")
        window.until(lambda: "5\u202f000" in window.text("#panel-table .note"), "all rows")
        assert window.script("return document.querySelectorAll('*').length") < 1500
        began = window.script(
            "const began = performance.now(); document.querySelector('th[data-name=picks] button').click();"
            "return performance.now() - began"
        )
        assert began < 250, f"sorting 5000 rows took {began:.0f} ms"
        assert window.complaints() == []
    finally:
        window.close()


def test_a_phone_has_no_horizontal_scroll(window: Window) -> None:
    for width in (360, 768):
        phone = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        window.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        window.until(partial(window.script, "return innerWidth === arguments[0]", width), "the small window")
        time.sleep(0.2)
        assert window.script("return document.documentElement.scrollWidth") == width
    window.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
