"""As an operator would: the jet is off, the threshold dragged, frames reviewed, a model swapped, all started again.

Real processes: an emulated detector, the daemon, headless Chromium. What a person set is there again after a restart.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()), reason="needs chromium and chromium-driver (Debian)"
    ),
    pytest.mark.timeout(180),
]
NAME = "Dr. Night Shift"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Beam:
    """The detector and the daemon, as processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, endpoint = folder, free_port(), f"tcp://127.0.0.1:{free_port()}"
        self.config = folder / "xfel_hits.yaml"
        settings = {
            "beamline": "xfel_hits",
            "source": {"kind": "dectris", "endpoint": endpoint},
            "model": {"bundle": "hits-resnet10", "threads": 1},
            "keep": {"miss_fraction": 0.2},
            "files": {"directory": "out", "min_free_gb": 0},
            "service": {"port": self.port},
        }
        self.config.write_text(yaml.safe_dump(settings))
        shots = ["--rate", "100", "--hits", "0.3", "--multiples", "0.1", "--pool", "8", "--seconds", "600", "--quiet"]
        self.detector = self.start("emulate", "dectris", "--simulate", "--endpoint", endpoint, *shots)
        self.daemon = self.start("run", str(self.config), "--quiet")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{arguments[0]}.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "beamsieve.stream", *arguments],
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def again(self) -> None:
        """The daemon is stopped, and started again."""
        self.daemon.send_signal(signal.SIGTERM)
        assert self.daemon.wait(30) == 0
        self.daemon = self.start("run", str(self.config), "--quiet")

    def metric(self, name: str) -> float | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except (urllib.error.URLError, ConnectionError):
            return None
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), None)

    def jet(self) -> None:
        """Switch the jet off, or on again."""
        self.detector.send_signal(signal.SIGUSR1)

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / "out" / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def end(self) -> None:
        for process in (self.daemon, self.detector):
            process.kill()
            process.wait()


@pytest.fixture
def beam(tmp_path: Path) -> Iterator[Beam]:
    made = Beam(tmp_path)
    yield made
    made.end()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    flags = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"
    for flag in (
        *flags.split(),
        "disable-component-update",
        "window-size=1600,1000",
        f"user-data-dir={tmp_path / 'c'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


class Operator:
    """A person at the page."""

    def __init__(self, driver: Any, beam: Beam) -> None:
        self.driver, self.beam = driver, beam

    def until(self, what: Callable[[], Any], meaning: str, seconds: float = 30) -> Any:
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, (
                f"{meaning}: not within {seconds} s; the page says: {self.text('body')[:2000]}"
            )
            time.sleep(0.1)
        return found

    def text(self, selector: str) -> str:
        found = self.driver.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)
        return " ".join(str(found).split())

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        node = self.one(selector)
        self.until(node.is_enabled, f"{selector} can be used")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", node)
        node.click()

    def rate(self) -> float | None:
        """The hit rate of the last ten seconds as the page shows it, in per cent."""
        found = re.search(r"([\d.]+) ?%", self.text('.tile[data-key="rate 10 s"]'))
        return float(found[1]) if found else None

    def rate_below(self, limit: float) -> bool:
        rate = self.rate()
        return rate is not None and rate < limit

    def sign_in(self) -> None:
        port = self.beam.port
        asked = [sys.executable, "-m", "beamsieve.stream", "page", str(self.beam.config)]
        link = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        assert f":{port}/#token=" in link
        self.driver.get(link)
        name = self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, "dialog[open] input[name=name]"), "a name")
        name[0].send_keys(NAME, Keys.ENTER)
        self.until(lambda: self.text(".who") == NAME, "signed in")


def test_a_night_shift(beam: Beam, browser: Any) -> None:
    one = Operator(browser, beam)
    one.until(lambda: (beam.metric("beamsieve_frames_read_total") or 0) > 300, "shots", 60)
    one.sign_in()
    one.until(lambda: (one.rate() or 0) > 15, "a hit rate")

    beam.jet()
    one.until(lambda: one.rate_below(5), "the hit rate falls without a jet", 25)
    beam.jet()
    one.until(lambda: (one.rate() or 0) > 10, "the hit rate comes back")

    _drag_the_threshold(one)
    _review_ten(one)
    _swap_the_model(one)

    one.one("input.run-title").send_keys("jet 2, after the break")
    one.click("button.run")
    one.until(lambda: "jet 2, after the break" in one.text("#top"), "the run's title")
    model, threshold = _model(one), beam.metric("beamsieve_threshold")
    changes = [(line["what"], line["by"]) for line in beam.lines("changes.jsonl")]
    assert changes == [(what, NAME) for what in ("threshold", "candidate", "model", "run")]

    beam.again()
    one.until(lambda: beam.metric("beamsieve_threshold") is not None, "the daemon is back", 60)
    assert beam.metric("beamsieve_threshold") == threshold
    assert _model(one) == model
    one.until(
        lambda: "hits-resnet10-paper" in one.text('[data-area="control"]'), "the page is back by itself, and says so"
    )
    one.until(lambda: "10" in one.text('[data-area="review"] .facts'), "the marks are still there")
    one.until(lambda: one.text(".changes").count(NAME) >= 4, "the log of changes")
    one.until(lambda: "jet 2, after the break" in one.text("#top"), "the title")
    severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    # Losing the connection while the daemon restarts is told by Chromium itself.
    assert all(
        "ERR_CONNECTION" in line["message"] or "ERR_INCOMPLETE" in line["message"] or "401" in line["message"]
        for line in severe
    ), severe

    beam.daemon.send_signal(signal.SIGTERM)
    assert beam.daemon.wait(30) == 0
    files = sorted((beam.folder / "out").glob("*.cxi"))
    with h5py.File(max(files, key=lambda path: path.stat().st_mtime)) as file:
        assert file["entry_1/title"][()].decode() == "jet 2, after the break"
        noted = [json.loads(line) for line in file["entry_1/result_1/process_1/changes"][()] if line]
        assert {change["by"] for change in noted} == {NAME}


def _drag_the_threshold(one: Operator) -> None:
    handle = one.one(".threshold-handle")
    one.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    width = one.one(".bars").size["width"]
    ActionChains(one.driver).click_and_hold(handle).move_by_offset(width // 5, 0).pause(0.1).release().perform()
    value = float(handle.get_attribute("aria-valuenow"))
    assert value > 0.6
    assert one.beam.metric("beamsieve_threshold") == 0.5, "what if is a question"
    assert re.search(r"kept frames/s ?\d", one.text(".what-if"))
    one.click("button.apply")
    one.until(
        lambda: one.beam.metric("beamsieve_threshold") == pytest.approx(value, abs=1e-6), "the threshold in force"
    )


def _review_ten(one: Operator) -> None:
    one.until(lambda: one.text(".question"), "something to review")
    one.driver.execute_script("document.activeElement.blur()")
    ActionChains(one.driver).send_keys("r").perform()
    for n in range(1, 11):
        ActionChains(one.driver).send_keys("y").perform()
        one.until(partial(_marked, one, n), f"mark {n}", 15)
    marks = one.beam.lines("marks.jsonl")
    assert {mark["by"] for mark in marks} == {NAME}
    assert one.beam.metric('beamsieve_review_marks_total{verdict="right"}') == 10


def _marked(one: Operator, n: int) -> bool:
    return len({line["id"] for line in one.beam.lines("marks.jsonl")}) >= n


def _swap_the_model(one: Operator) -> None:
    Select(one.one("select.candidate")).select_by_visible_text("hits-resnet10-paper")
    one.click("button.shadow")
    one.until(
        lambda: re.search(r"\d", one.text('[data-area="control"]')) and _judged(one) > 30, "both models judge", 40
    )
    one.click("button.promote")
    one.click("button.yes")
    one.until(lambda: "hits-resnet10-paper" in _model(one), "the other model answers")


def _judged(one: Operator) -> float:
    names = ("hit", "miss")
    asked = [f'beamsieve_shadow_frames_total{{candidate="{b}",current="{a}"}}' for a in names for b in names]
    other = [f'beamsieve_shadow_frames_total{{current="{a}",candidate="{b}"}}' for a in names for b in names]
    return sum(one.beam.metric(name) or 0 for name in (*asked, *other))


def _model(one: Operator) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{one.beam.port}/metrics", timeout=5) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    return next(line for line in lines if line.startswith("beamsieve_model_info"))
