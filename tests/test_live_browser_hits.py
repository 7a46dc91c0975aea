"""The live page of the XFEL beamline in a real Chromium, against the real server and a page with simulated frames."""

from __future__ import annotations

import base64
import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from beamsieve.models.hits.simulator import pool
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.live.access import Access
from beamsieve.stream.live.limits import Limits
from beamsieve.stream.live.page import JSON, Blob, Picture, Refused
from beamsieve.stream.live.server import LiveServer
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Debian's chromium and chromium-driver (apt-get install both)"
)
TOKEN = "a-token-of-this-test-only"
LABELS = ["0", "1", "2", "3", "4+"]
BASE = 1_760_000_000.0
VIOLATIONS = (
    "window.violations = []; addEventListener('securitypolicyviolation',"
    " (event) => violations.push(event.violatedDirective + ' ' + event.blockedURI));"
)
GRID = np.linspace(0, 1, 41)


class FakeHits:
    """A page as the contract asks, with simulated diffraction. Each snapshot is a second later."""

    beamline = "xfel_hits"

    def __init__(self) -> None:
        made = pool(6, seed=3, size=96)
        background = np.random.default_rng(4).poisson(0.08, made.images.shape)
        self.frames = np.minimum(made.images + background, 4000).astype("<u2")
        self.labels = made.labels
        self.acts: list[tuple[str, JSON, str]] = []
        self.refuse = ""
        self.problems: list[str] = []
        self.threshold = 0.5
        self.paused = False
        self.blind = False
        self.no_misses = False
        self.candidate: JSON | None = None
        self.changes: list[JSON] = []
        self.tick = 0
        self.fetched: list[str] = []
        self.lock = threading.Lock()

    def point(self, i: int) -> JSON:
        rate = 0.12 + 0.05 * math.sin(i / 90) - (0.09 if 300 < i % 900 < 380 else 0)
        speed = 118 + 3 * math.sin(i / 7)
        return {"t": BASE + i, "rate": rate, "low": rate - 0.018, "high": rate + 0.021, "frames_per_s": speed}

    def facts(self) -> JSON:
        points = [self.point(i) for i in range(self.tick - 1800, self.tick)]
        return {
            "beamline": self.beamline,
            "instrument": "SPB/SFX",
            "version": "1.2.3",
            "labels": LABELS,
            "points": points,
        }

    def scores(self) -> JSON:
        edges = np.linspace(0, 1, 51)
        middle = (edges[1:] + edges[:-1]) / 2
        counts = np.rint(6000 * np.exp(-middle / 0.06) + 700 * np.exp(-(((middle - 0.93) / 0.07) ** 2)) + 4).astype(int)
        accepted = np.where(middle >= self.threshold, counts, 0)
        return {"edges": edges, "accepted": accepted, "rejected": counts - accepted, "seconds": 600}

    def what_if(self) -> JSON:
        kept = 30 * (1 - GRID) ** 0.5
        purity = [[p, max(0.0, p - 0.06), min(1.0, p + 0.04)] for p in 0.55 + 0.43 * GRID]
        recall = [None if t > 0.97 else [r, r - 0.08, r + 0.02] for t, r in zip(GRID, 1 - GRID**3, strict=True)]
        return {
            "threshold": GRID,
            "kept_per_s": kept,
            "bytes_per_s": kept * 2.1e6,
            "purity": purity,
            "recall": recall,
        }

    def snapshot(self) -> JSON:
        self.tick += 1
        i = self.tick
        read = 216_000 + 118 * i
        accepted, failed, dropped, working = int(read * 0.121), 12, 431, 6
        rate = self.point(i)
        windows = [
            {
                "name": name,
                "seconds": s,
                "hits": int(s * 118 * rate["rate"]),
                "shots": s * 118,
                "rate": rate["rate"] + shift,
                "low": rate["rate"] + shift - width,
                "high": rate["rate"] + shift + width,
            }
            for name, s, width, shift in [
                ("10 s", 10, 0.019, 0),
                ("1 min", 60, 0.008, 0.004),
                ("10 min", 600, 0.0024, 0.01),
                ("run", 7200, 0.0007, 0.001),
            ]
        ]
        return {
            "time": BASE + i,
            "beamline": self.beamline,
            "ready": not self.problems,
            "problems": self.problems,
            "uptime_s": 7200 + i,
            "counts": {
                "read": read,
                "accepted": accepted,
                "rejected": read - accepted - failed - dropped - working,
                "failed": failed,
                "dropped": dropped,
                "in_flight": working,
            },
            "losses": [
                {"kind": "dropped", "reason": "full", "count": 431},
                {"kind": "failed", "reason": "cannot decompress", "count": 12},
            ],
            "speed": {"frames_per_s": rate["frames_per_s"], "bytes_per_s": 2.47e8},
            "latency_s": {"median": 0.0143, "p99": 0.071},
            "stages": [
                {"name": "source", "busy": 0.31, "starved": 0.52, "blocked": 0.17},
                {"name": "decode", "busy": 0.44, "starved": 0.26, "blocked": 0.3},
                {"name": "model", "busy": 0.96, "starved": 0.04, "blocked": 0.0},
                {"name": "decide", "busy": 0.03, "starved": 0.97, "blocked": 0.0},
                {"name": "sinks", "busy": 0.22, "starved": 0.78, "blocked": 0.0},
            ],
            "bottleneck": "model",
            "queues": [
                {"name": "decoded", "depth": 41, "size": 64},
                {"name": "batches", "depth": 1, "size": 1},
                {"name": "results", "depth": 3, "size": 256},
            ],
            "scores": self.scores(),
            "what_if": self.what_if(),
            "review": {
                "right": 31,
                "wrong": 4,
                "waiting": 17,
                "purity": {"value": 0.92, "low": 0.81, "high": 0.97, "n": 25},
                "recall": None,
            },
            "threshold": {
                "value": None if self.blind else self.threshold,
                "configured": 0.5,
                "card": 0.42,
                "floor": 0.0,
            },
            "writing": {"paused": self.paused, "file": None if self.paused else "r0042_00003.h5"},
            "run": {"name": "42", "title": "lysozyme, 3 bar", "since": BASE - 1800},
            "model": {
                "name": "hits-resnet10",
                "version": "3",
                "hash": "9f3c5a771be0c2",
                "device": "cpu",
                "dtype": "float32",
            },
            "models": ["hits-litpixel", "hits-resnet10-aggregates"],
            "candidate": self.candidate,
            "changes": self.changes,
            "hits": {"windows": windows},
            "classes": [
                {"label": label, "count": int(read * share), "per_s": 118 * share}
                for label, share in zip(LABELS, [0.879, 0.093, 0.019, 0.006, 0.003], strict=True)
            ],
            "points": [self.point(j) for j in range(i - 9, i + 1)],
            "powder": {
                "version": i,
                "hits": 800 + i,
                "misses": 0 if self.no_misses else 2000 + i,
                "of_hits": accepted,
                "of_misses": read - accepted,
            },
        }

    def picture(self, seq: int) -> Picture:
        group = ("accepted", "rejected", "random_miss")[seq % 3]
        wanted = [n for n, label in enumerate(self.labels) if (label > 0) == (group == "accepted")]
        n = wanted[(seq // 3) % len(wanted)]
        frame = self.frames[n].astype(float)
        high = float(max(np.quantile(frame, 0.999), 1))
        pixels = np.minimum(255 * np.log1p(frame) / math.log1p(high), 255).astype(np.uint8)
        score = 0.9 + 0.09 * math.sin(seq) if group == "accepted" else 0.04 + 0.03 * math.sin(seq)
        fields = {
            "id": f"{n}.{seq}",
            "group": group,
            "w": 96,
            "h": 96,
            "pixels": base64.b64encode(pixels).decode(),
            "high": high,
            "score": score,
            "label": LABELS[self.labels[n]],
            "key": f"42:{seq}",
            "time": BASE + seq,
            "weight": 50 if group == "random_miss" else 1,
            "review": group == "random_miss" or seq % 4 == 0,
        }
        return Picture(seq, json.dumps(fields).encode())

    def pictures(self, after: int) -> Sequence[Picture]:
        last = 36 + self.tick
        return [self.picture(seq) for seq in range(max(after + 1, last - 40), last + 1)]

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        self.fetched.append(f"{kind}/{name}")
        if kind == "frame":
            frame = self.frames[int(name.partition(".")[0])]
            head = {
                "shape": frame.shape,
                "dtype": "u2",
                "score": 0.9321,
                "probabilities": [0.05, 0.9, 0.03, 0.01, 0.01],
                "label": "1",
                "key": "42:77",
                "info": {"pulse_id": 8123, "train_id": 1002003},
                "origin": "lower",
                "threshold": self.threshold,
                "model": "hits-resnet10",
            }
            return Blob(frame.tobytes(), head=head, lasting=True)
        if kind == "powder" and name in ("hits-sum", "hits-max", "misses-sum", "misses-max"):
            some = self.frames[(self.labels > 0) == name.startswith("hits")]
            array = (some.sum(0) if name.endswith("sum") else some.max(0)).astype("<f4")
            return Blob(array.tobytes(), head={"shape": array.shape, "dtype": "f4", "frames": len(some)})
        return None

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        if self.refuse:
            raise Refused(self.refuse)
        self.acts.append((action, dict(body), by))
        if action == "threshold":
            self.changes.append(
                {"time": BASE + self.tick, "by": by, "what": action, "old": self.threshold, "new": body["value"]}
            )
            self.threshold = body["value"]
        if action == "pause":
            self.paused = body["paused"]
        if action == "candidate":
            rate = {"value": 0.131, "low": 0.125, "high": 0.138}
            self.candidate = {
                "bundle": body["bundle"],
                "state": "shadow",
                "error": "",
                "threshold": 0.44,
                "frames": 4711,
                "share": 0.25,
                "rate": rate,
                "agree": {"value": 0.987, "low": 0.983, "high": 0.99},
                "current_rate": rate,
                "table": [[560, 21], [40, 4090]],
            }
        if action in ("promote", "dismiss"):
            self.candidate = None
        return (
            {"review": {"right": 32, "wrong": 4, "waiting": 16, "purity": None, "recall": None}}
            if action == "mark"
            else {}
        )


class Daemon:
    """The server and its fake page, which can be restarted on the same port."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.page = FakeHits()
        self.host = host
        self.port = 0
        self.start(0.2)

    def start(self, tick_s: float) -> None:
        access = Access(host=self.host, token=TOKEN)  # it listens on loopback in any case
        self.server = LiveServer(
            host="127.0.0.1",
            port=self.port,
            metrics=Metrics("xfel_hits", Path(__file__).stem),
            problems=lambda: [],
            page=self.page,
            access=access,
            limits=Limits(tick_s=tick_s),
        )
        self.port = self.server.port

    def done(self, action: str) -> list[JSON]:
        return [body for name, body, _ in self.page.acts if name == action]


class Eyes:
    """The browser, and the few questions the tests ask it."""

    def __init__(self, driver: webdriver.Chrome, daemon: Daemon) -> None:
        self.driver = driver
        self.daemon = daemon
        self.base = f"http://127.0.0.1:{daemon.port}/"
        self.others: set[str] = set()  # further daemons that a test has opened itself

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return list(self.driver.get_log(kind))  # type: ignore[no-untyped-call]

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return " ".join(
            str(self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)).split()
        )

    def says(self, selector: str, words: str) -> bool:
        return words in self.text(selector)

    def until(self, what: Callable[[], Any], seconds: float = 20.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, f"waited {seconds} s in vain; the page says: {self.text('body')[:3000]}"
            time.sleep(0.03)
        return found

    def show(self, selector: str) -> WebElement:
        node = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", node)
        return node

    def click(self, selector: str) -> None:
        self.until(lambda: self.one(selector).is_enabled())
        self.show(selector).click()

    def colours(self, selector: str) -> int:
        """How many different colours a canvas shows."""
        return int(
            self.js(
                "const c = document.querySelector(arguments[0]); if (!c?.width) return 0;"
                "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
                "return new Set(d).size",
                selector,
            )
        )

    def open(self, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.base + fragment)
        self.until(lambda: "ready" in self.text('.tile[data-key="state"]'))


def started(folder: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1600,1000",
        f"user-data-dir={folder}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {"source": VIOLATIONS},
    )
    return driver


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eyes]:
    daemon = Daemon()
    driver = started(tmp_path_factory.mktemp("chromium"))
    try:
        yield Eyes(driver, daemon)
    finally:
        driver.quit()
        daemon.server.close()


def locked(node: WebElement) -> bool:
    return not node.is_enabled()


def test_an_unsigned_visitor_sees_everything_and_can_change_nothing(eyes: Eyes) -> None:
    eyes.open()
    for selector in ("button.apply", "button.pause", "button.run", "button.shadow", "button.right", "input.run-title"):
        node = eyes.one(selector)
        eyes.until(partial(locked, node))
        assert "Sign in" in str(node.get_attribute("title")), selector
    for panel in ("scores", "review", "control"):
        assert "Sign in to change anything." in eyes.text(f"#panel-{panel} .why")
    eyes.show('[data-area="review"]')
    ActionChains(eyes.driver).send_keys("r", "y").perform()
    eyes.show(".threshold-handle").send_keys(Keys.ARROW_RIGHT, Keys.ENTER)
    time.sleep(0.3)
    assert eyes.daemon.page.acts == []
    assert "what if 0.51" in eyes.text(".what-if"), "looking is free"
    eyes.one(".threshold-handle").send_keys(Keys.ESCAPE)


def test_every_panel_shows_its_data(eyes: Eyes) -> None:
    eyes.show('[data-area="strips"]')
    eyes.until(lambda: eyes.text('.strip-block[data-group="random_miss"] .caption'))
    said = {
        '.tile[data-key="rate 10 s"]': "%",
        '.tile[data-key="rate run"]': "of 849",
        '.tile[data-key="speed"]': "MB/s",
        '.tile[data-key="lost"]': "431 dropped",
        "#top": "lysozyme, 3 bar",
        '[data-area="classes"]': "4+",
        '[data-area="ledger"]': "cannot decompress",
        ".balance": "accounted for",
        ".bottleneck": "model, busy 96",
        ".stages": "30 % blocked",
        ".queues": "41 of 64",
        '[data-area="review"] .facts': "31 right, 4 wrong",
        ".what-if": "76.5",
        '[data-area="control"]': "r0042_00003.h5",
        "select.candidate": "hits-litpixel",
        '[data-area="changes"]': "Nothing has been changed",
        "#foot": "1.2.3",
    }
    for selector, words in said.items():
        eyes.until(partial(eyes.says, selector, words))
    assert eyes.driver.title.startswith("1")
    assert "beamsieve" in eyes.driver.title
    for canvas in (
        '.strip-block[data-group="accepted"] canvas',
        '[data-area="review"] canvas',
        ".bars",
        ".u-over ~ canvas, .u-wrap canvas",
    ):
        assert eyes.colours(canvas) > 2, canvas
    eyes.show('[data-area="powder"]')
    eyes.until(lambda: all(eyes.colours(f".powder figure:nth-child({n}) canvas") > 2 for n in (1, 2, 3, 4)))
    assert {name for name in eyes.daemon.page.fetched if name.startswith("powder")} == {
        "powder/hits-sum",
        "powder/hits-max",
        "powder/misses-sum",
        "powder/misses-max",
    }


def test_the_powder_is_not_fetched_more_than_once_in_two_seconds(eyes: Eyes) -> None:
    eyes.show('[data-area="powder"]')
    fetched = eyes.daemon.page.fetched
    before = len(fetched)
    eyes.until(lambda: len(fetched) >= before + 4, 20)  # five snapshots a second, each with a new version
    since = len(fetched)
    time.sleep(1.5)
    assert len(fetched) - since <= 4


def test_the_powder_of_another_run_is_not_left_there(eyes: Eyes) -> None:
    larger = ".powder figure:nth-child({}) button".format
    assert eyes.one(larger(3)).is_enabled()
    eyes.daemon.page.no_misses = True
    eyes.until(lambda: not eyes.one(larger(3)).is_enabled() and not eyes.one(larger(4)).is_enabled())
    assert (eyes.colours(".powder figure:nth-child(3) canvas"), eyes.one(larger(1)).is_enabled()) == (1, True)
    eyes.daemon.page.no_misses = False
    eyes.until(lambda: eyes.one(larger(3)).is_enabled())


def test_signing_in_by_the_address_asks_the_name_and_hides_the_token(eyes: Eyes) -> None:
    eyes.open(f"#token={TOKEN}")
    name = eyes.until(lambda: eyes.one("dialog.sign-in[open] input[name=name]"))
    assert TOKEN not in eyes.driver.current_url
    name.send_keys("A. Scientist", Keys.ENTER)
    eyes.until(lambda: eyes.text(".who") == "A. Scientist")
    eyes.until(lambda: not eyes.driver.find_elements(By.CSS_SELECTOR, "dialog[open]"))
    assert (
        eyes.js("return JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.cookie").find(TOKEN)
        < 0
    )


def test_a_wrong_token_is_refused_in_words(eyes: Eyes) -> None:
    eyes.click("button.account")
    eyes.until(lambda: eyes.text(".who") == "looking only")
    eyes.click("button.account")
    eyes.one("input[name=token]").send_keys("not-the-right-token", Keys.ENTER)
    assert "wrong" in eyes.until(lambda: eyes.text(".sign-in .said"))
    eyes.one("input[name=token]").clear()
    eyes.one("input[name=token]").send_keys(TOKEN, Keys.ENTER)
    eyes.until(lambda: eyes.text(".who") == "A. Scientist")


def test_a_tab_hears_of_what_happens_in_another(eyes: Eyes) -> None:
    first = eyes.driver.current_window_handle
    eyes.driver.switch_to.new_window("tab")
    eyes.open()
    assert eyes.text(".who") == "A. Scientist"
    eyes.click("button.account")
    eyes.until(lambda: eyes.text(".who") == "looking only")
    assert not eyes.one(".banner.ended").is_displayed(), "who signs out knows it"
    eyes.driver.switch_to.window(first)
    eyes.until(lambda: eyes.text(".who") == "looking only" and eyes.one(".banner.ended").is_displayed())
    eyes.click(".banner.ended button")
    eyes.one("input[name=token]").send_keys(TOKEN, Keys.ENTER)
    eyes.until(lambda: eyes.text(".who") == "A. Scientist" and not eyes.one(".banner.ended").is_displayed())
    eyes.driver.switch_to.window(next(one for one in eyes.driver.window_handles if one != first))
    eyes.until(lambda: eyes.text(".who") == "A. Scientist")
    eyes.driver.close()
    eyes.driver.switch_to.window(first)


def test_where_looking_needs_the_token_nothing_is_shown_before_or_after(eyes: Eyes) -> None:
    closed = Daemon("0.0.0.0")
    eyes.others.add(f"127.0.0.1:{closed.port}")
    first = eyes.driver.current_window_handle
    eyes.driver.switch_to.new_window("tab")
    try:
        eyes.driver.get(f"http://127.0.0.1:{closed.port}/")
        asked = partial(eyes.js, "return document.querySelector('dialog.sign-in')?.open ?? false")
        eyes.until(asked)
        for _ in range(3):
            ActionChains(eyes.driver).send_keys(Keys.ESCAPE).perform()
        eyes.until(asked)
        assert eyes.text(".who") == "not signed in"
        assert (eyes.text("#glance"), eyes.text("#grid"), closed.page.tick) == ("", "Waiting for the daemon…", 0)
        eyes.one("input[name=token]").send_keys(TOKEN)
        eyes.one("input[name=name]").send_keys("B", Keys.ENTER)
        eyes.until(lambda: "ready" in eyes.text("#glance"))
        eyes.click("button.account")
        eyes.until(lambda: eyes.text("#glance") == "" and asked())
        assert eyes.text("#grid") == "Waiting for the daemon…"
    finally:
        eyes.driver.close()
        eyes.driver.switch_to.window(first)
        closed.server.close()


def test_between_two_thresholds_the_numbers_are_between(eyes: Eyes) -> None:
    script = (
        "const done = arguments[0]; import('/static/whatif.js').then(({interpolated: at, difference}) => {"
        " const w = {threshold: [0, 0.5, 1], n: [10, 20, 0], p: [[0.5, 0.4, 0.6], [0.9, 0.8, 1], null]};"
        " done([at(w, 'n', 0.1), at(w, 'n', 0.5), at(w, 'n', 2), at(w, 'p', 0.125), at(w, 'p', 0.9), at(w, 'x', 0.1),"
        " difference(10, 12), difference(10, 5), difference(7, 7), difference([0.5], [0.6]), difference(null, 1)]); })"
    )
    found = eyes.driver.execute_async_script(script)
    assert found[:3] == [12, 20, 0]
    assert found[3] == pytest.approx([0.6, 0.5, 0.7])
    assert found[4:6] == [None, None], "unknown stays unknown"
    assert found[6:] == ["+20.0\u202f%", "−50.0\u202f%", "same", "+10.0 points", ""]


def score_at(eyes: Eyes, x: float) -> float:
    """The score at x CSS pixels from the histogram's left edge."""
    script = (
        "const done = arguments[0]; const bars = document.querySelector('.bars'); import('/static/bars.js')"
        ".then(({positionOf}) => done([positionOf(bars, [0, 1], 0), positionOf(bars, [0, 1], 1)]))"
    )
    left, right = eyes.driver.execute_async_script(script)
    return float((x - left) / (right - left))


def test_the_threshold_is_dragged_looked_at_and_applied(eyes: Eyes) -> None:
    handle = eyes.show(".threshold-handle")
    start = eyes.js("return arguments[0].offsetLeft + arguments[0].offsetWidth / 2", handle)
    width = eyes.one(".bars").size["width"]
    ActionChains(eyes.driver).click_and_hold(handle).move_by_offset(width // 4, 0).pause(0.1).move_by_offset(
        1, 0
    ).release().perform()
    value = float(str(handle.get_attribute("aria-valuenow")))
    assert value == pytest.approx(score_at(eyes, start + width // 4 + 1), abs=0.02)
    assert value > 0.7
    assert eyes.daemon.done("threshold") == [], "nothing changes before Apply"
    kept = 30 * math.sqrt(1 - value)
    row = eyes.text(".what-if tbody tr:nth-child(1)")
    assert f"{kept:.1f}" in row
    assert "−" in row
    assert f"{100 * (0.55 + 0.43 * value):.1f}" in eyes.text(".what-if tbody tr:nth-child(3)")
    assert "points" in eyes.text(".what-if tbody tr:nth-child(4)")
    eyes.click("button.apply")
    eyes.until(lambda: eyes.daemon.done("threshold") == [{"value": value}])
    eyes.until(lambda: "Applied" in eyes.text("#panel-scores .said") and "threshold: 0.5" in eyes.text(".changes"))


def test_the_threshold_by_keys_by_number_and_by_finger(eyes: Eyes) -> None:
    eyes.daemon.page.acts.clear()
    handle = eyes.show(".threshold-handle")
    before = float(str(handle.get_attribute("aria-valuenow")))
    handle.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.PAGE_DOWN, Keys.ESCAPE)
    assert float(str(handle.get_attribute("aria-valuenow"))) == pytest.approx(before)
    handle.send_keys(Keys.PAGE_DOWN, Keys.ARROW_LEFT, Keys.SHIFT, Keys.ARROW_RIGHT, Keys.SHIFT, Keys.ENTER)
    wanted = pytest.approx(before - 0.11 + 0.001, abs=2e-4)
    assert eyes.until(lambda: eyes.daemon.done("threshold")) == [{"value": wanted}]
    field = eyes.one(".threshold-value")
    field.send_keys(Keys.CONTROL, "a", Keys.CONTROL, "0.")
    time.sleep(0.5)  # snapshots come, and must not write into the field
    field.send_keys("35", Keys.ENTER)
    eyes.until(lambda: len(eyes.daemon.done("threshold")) == 2)
    assert eyes.daemon.done("threshold")[1] == {"value": 0.35}
    eyes.until(lambda: "0.35" in eyes.text(".what-if"))
    eyes.daemon.page.refuse = "threshold: the disk is full"
    box = eyes.js(
        "const b = document.querySelector('.threshold-handle').getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2]"
    )
    for kind, x in (("touchStart", 0), ("touchMove", 40), ("touchMove", 80), ("touchEnd", None)):
        points = [] if x is None else [{"x": box[0] + x, "y": box[1]}]
        eyes.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    eyes.until(lambda: float(str(handle.get_attribute("aria-valuenow"))) > 0.4)
    eyes.click("button.apply")
    eyes.until(lambda: "the disk is full" in eyes.text("#panel-scores .said"))
    eyes.daemon.page.refuse = ""
    eyes.click("button.cancel")
    assert float(str(handle.get_attribute("aria-valuenow"))) == 0.35


def test_without_a_model_there_is_no_threshold(eyes: Eyes) -> None:
    eyes.daemon.page.blind = True
    eyes.until(lambda: "no threshold" in eyes.text("#panel-scores .why"))
    assert "screen.hitscore_threshold" in eyes.text("#panel-scores .why")
    assert not eyes.one("button.apply").is_enabled()
    for gone in (".threshold-handle", "button.apply", "input.threshold-value", ".what-if", "#panel-scores .hint"):
        assert not eyes.one(gone).is_displayed(), gone
    assert not eyes.one("table.classes").is_displayed(), "zeros would look as if no particle came"
    assert eyes.one('[data-area="classes"] .why').is_displayed()
    eyes.daemon.page.blind = False
    eyes.until(lambda: eyes.text("#panel-scores .why") == "" and eyes.one(".threshold-handle").is_displayed())


def test_review_by_keys(eyes: Eyes) -> None:
    eyes.one("body").send_keys("r")
    assert eyes.js("return document.activeElement.id") == "panel-review"
    asked = []
    for key in ("y", "n", "j", "y"):
        asked.append(eyes.js("return document.querySelector('.question').textContent"))
        ActionChains(eyes.driver).send_keys(key).perform()
    ActionChains(eyes.driver).send_keys("k").pause(0.3).send_keys("u").perform()
    eyes.until(lambda: sum(len(body["marks"]) for body in eyes.daemon.done("mark")) == 4)
    marks = [mark for body in eyes.daemon.done("mark") for mark in body["marks"]]
    assert [mark["verdict"] for mark in marks] == ["right", "wrong", "right", "none"]
    keys = [text.partition("shot 42:")[2].partition(".")[0] for text in asked]
    assert [mark["id"].partition(".")[2] for mark in marks] == [keys[0], keys[1], keys[3], keys[3]]
    assert len(set(keys)) == 4
    eyes.until(lambda: "31 right" in eyes.text('[data-area="review"] .facts'))


def test_a_mark_that_does_not_arrive_is_not_shown_as_kept(eyes: Eyes) -> None:
    eyes.daemon.page.refuse = "mark: no longer known"
    eyes.one("#panel-review").send_keys("y")
    eyes.until(lambda: "Not kept: mark: no longer known" in eyes.text(".review-state"))
    eyes.daemon.page.refuse = ""
    eyes.one("#panel-review").send_keys("k")
    assert "marked" not in eyes.text(".question")


def test_a_strip_stands_still_under_the_mouse(eyes: Eyes) -> None:
    eyes.show('[data-area="strips"]')
    first = '.strip-block[data-group="rejected"] .thumb'
    ActionChains(eyes.driver).move_to_element(eyes.one(first)).perform()
    eyes.until(lambda: "held" in eyes.text('.strip-block[data-group="rejected"] .note'))
    before = eyes.one(first).get_attribute("aria-label")
    time.sleep(1.3)
    assert eyes.one(first).get_attribute("aria-label") == before
    ActionChains(eyes.driver).move_to_element(eyes.one('[data-area="strips"] h2')).perform()
    eyes.until(lambda: eyes.one(first).get_attribute("aria-label") != before)


def pixel(eyes: Eyes) -> tuple[int, int, int]:
    """Row, column and value that the viewer tells of what is under the mouse."""
    told = str(eyes.until(lambda: eyes.text(".viewer .under")))
    row, column, value = (
        told.replace("row", "").replace("photons", "").replace("column", "").replace(":", ",").split(",")
    )
    return int(row), int(column), int(value.replace(" ", ""))


def test_a_frame_is_enlarged_with_values_and_identifiers(eyes: Eyes) -> None:
    thumb = eyes.show('.strip-block[data-group="accepted"] .thumb')
    thumb.send_keys(Keys.ENTER)
    eyes.until(lambda: "probability of 1" in eyes.text("dialog.viewer .facts"))
    facts = eyes.text("dialog.viewer .facts")
    for words in ("pulse_id8123", "96 × 96 u2", "0.9321"):
        assert words in facts
    assert eyes.colours(".viewer .stage") > 20
    stage = eyes.one(".viewer .stage")
    ActionChains(eyes.driver).move_to_element_with_offset(stage, 2, 3).perform()
    row, column, value = pixel(eyes)
    frame = next(name for name in reversed(eyes.daemon.page.fetched) if name.startswith("frame/"))
    shown = eyes.daemon.page.frames[int(frame[6:].partition(".")[0])]
    assert value == shown[row, column]
    ActionChains(eyes.driver).move_by_offset(0, -150).perform()
    above = pixel(eyes)
    assert (above[1], above[2]) == (column, shown[above[0], column])
    assert above[0] > row + 10, "its rows are counted from below"
    before = eyes.colours(".viewer .stage")
    stage.send_keys("+", "+", "l", "c", Keys.ARROW_LEFT)
    assert eyes.one(".viewer select").get_attribute("value") == "viridis"
    assert eyes.colours(".viewer .stage") != before
    stage.send_keys(Keys.ESCAPE)
    eyes.until(lambda: not eyes.driver.find_elements(By.CSS_SELECTOR, "dialog.viewer"))


def test_control_posts_what_is_asked(eyes: Eyes) -> None:
    page = eyes.daemon.page
    eyes.click("button.pause")
    assert eyes.daemon.done("pause") == [], "asks once more"
    eyes.click(".sure .no")
    eyes.click("button.pause")
    eyes.click(".sure .yes")
    eyes.until(lambda: eyes.daemon.done("pause") == [{"paused": True}])
    eyes.until(lambda: "paused" in eyes.text("#banners") and eyes.text("button.pause") == "Resume writing")
    eyes.until(lambda: "writing paused" in eyes.text('.tile[data-key="state"]'))
    eyes.click("button.pause")
    eyes.until(lambda: eyes.daemon.done("pause")[-1] == {"paused": False})
    eyes.show("input.run-title").send_keys("nozzle 7")
    eyes.click("button.run")
    eyes.until(lambda: eyes.daemon.done("run") == [{"title": "nozzle 7"}])
    eyes.until(lambda: eyes.one("input.run-title").get_attribute("value") == "")
    eyes.one("select.candidate").send_keys("hits-litpixel")
    eyes.click("button.shadow")
    eyes.until(lambda: eyes.daemon.done("candidate") == [{"bundle": "hits-litpixel"}])
    eyes.until(lambda: "98.7" in eyes.text(".candidate-state") and "4 090" in eyes.text(".candidate-state"))
    eyes.click("button.dismiss")
    eyes.until(lambda: eyes.daemon.done("dismiss") == [{}] and not eyes.one(".candidate-state").is_displayed())
    eyes.click("button.shadow")
    eyes.until(lambda: len(eyes.daemon.done("candidate")) == 2)
    eyes.click("button.promote")
    eyes.click(".sure .yes")
    eyes.until(lambda: eyes.daemon.done("promote") == [{}])
    assert {by for _, _, by in page.acts} == {"A. Scientist"}


def test_problems_are_told_with_words(eyes: Eyes) -> None:
    eyes.daemon.page.problems = ["more than 5 % of the frames failed: cannot decompress"]
    eyes.until(lambda: "5 % of the frames failed" in eyes.text(".problems"))
    assert "not ready" in eyes.text('.tile[data-key="state"]')
    assert eyes.driver.title.startswith("▲")
    eyes.daemon.page.problems = []
    eyes.until(lambda: not eyes.one(".problems").is_displayed())


@pytest.mark.parametrize("size", [(360, 740), (1600, 1000), (3840, 2160)])
def test_no_horizontal_scroll(eyes: Eyes, size: tuple[int, int]) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    eyes.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        time.sleep(0.4)
        assert eyes.js("return [document.documentElement.scrollWidth <= innerWidth, innerWidth]") == [True, size[0]]
        cut = (
            "return [...document.querySelectorAll('main *, header *')].filter((n) => n.checkVisibility() &&"
            " !n.closest('.strip, .uplot, option') && n.getBoundingClientRect().right > innerWidth + 1)"
            ".map((n) => n.className)"
        )
        assert eyes.js(cut) == []
    finally:
        eyes.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_accessible_names_and_contrast(eyes: Eyes) -> None:
    nameless = (
        "return [...document.querySelectorAll('button, input, select, canvas[role], [role=slider]')]"
        ".filter((n) => n.checkVisibility())"
        ".filter((n) => !(n.textContent.trim() || n.getAttribute('aria-label') || n.labels?.length))"
        ".map((n) => n.outerHTML.slice(0, 99))"
    )
    assert eyes.js(nameless) == []
    contrast = """
      const lum = (c) => c.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
      const ground = (n) => { for (; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor);
        if (c.length < 4 || c[3] > 0.99) return c.slice(0, 3); } return [0, 0, 0]; };
      return [...document.querySelectorAll('body *')].filter((n) => n.checkVisibility() && !n.disabled &&
        [...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim())).map((n) => {
          const [a, b] = [lum(rgb(getComputedStyle(n).color).slice(0, 3)), lum(ground(n))];
          return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), n.tagName + '.' + n.className];
        }).filter(([ratio]) => ratio < 4.5);
    """
    assert eyes.js(contrast) == []


def test_nothing_went_wrong_and_nobody_else_was_asked(eyes: Eyes) -> None:
    assert eyes.js("return window.violations") == []
    bad = [entry for entry in eyes.log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    # The wrong token and the refused acts of the tests above, and the tests' own reading of canvases.
    refused = ("status of 403", "status of 409", "getImageData")
    assert [entry for entry in bad if not any(word in entry["message"] for word in refused)] == []
    hosts: set[tuple[str, str]] = set()
    for entry in eyes.log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            parts = urlsplit(message["params"]["request"]["url"])
            hosts.add((parts.scheme, parts.netloc))
    asked = {
        netloc for scheme, netloc in hosts if scheme not in ("chrome", "about", "data")
    }  # the browser's own first tab
    assert asked <= {urlsplit(eyes.base).netloc, *eyes.others}, asked


def counted(eyes: Eyes) -> dict[str, int]:
    eyes.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    found = eyes.driver.execute_cdp_cmd("Memory.getDOMCounters", {})
    elements = int(eyes.js("return document.querySelectorAll('*').length"))
    return {"nodes": found["nodes"], "listeners": found["jsEventListeners"], "elements": elements}


def test_a_tab_that_slept_does_not_pass_for_new_until_it_has_a_connection(eyes: Eyes) -> None:
    hidden = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    turn = hidden + "document.dispatchEvent(new Event('visibilitychange'))"
    eyes.js(turn, True)
    eyes.until(lambda: eyes.driver.title.endswith("(asleep in a hidden tab)"))
    assert "stale" in str(eyes.one("body").get_attribute("class"))
    eyes.until(lambda: eyes.daemon.server.clients == 0)
    eyes.js(turn, False)
    eyes.until(lambda: "stale" not in str(eyes.one("body").get_attribute("class")))
    assert "asleep" not in eyes.driver.title


def test_the_connection_comes_back_and_the_page_does_not_grow(eyes: Eyes) -> None:
    eyes.daemon.server.close()
    eyes.until(lambda: "stale" in str(eyes.one("body").get_attribute("class")))
    eyes.until(lambda: "Connection lost since" in eyes.text("#banners"))
    assert not eyes.one("button.pause").is_enabled()
    assert "No connection" in eyes.text("#panel-control .why")
    eyes.daemon.start(0.02)
    eyes.until(lambda: "stale" not in str(eyes.one("body").get_attribute("class")))
    assert not eyes.driver.find_elements(By.CSS_SELECTOR, ".banner.warn:not([hidden])")
    eyes.until(lambda: eyes.text(".who") == "looking only")  # the daemon's next life knows no session
    assert eyes.one(".banner.ended").is_displayed()
    first = eyes.daemon.page.tick
    eyes.until(lambda: eyes.daemon.page.tick > first + 40)
    before = counted(eyes)
    first = eyes.daemon.page.tick
    eyes.until(lambda: eyes.daemon.page.tick > first + 200)
    after = counted(eyes)
    assert after["elements"] == before["elements"], (before, after)
    assert after["listeners"] <= before["listeners"], (before, after)
    # Texts that were replaced wait for the collector, which may not take them the first time.
    eyes.until(lambda: counted(eyes)["nodes"] < before["nodes"] + 500, 5)
