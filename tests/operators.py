"""A person at the page of a real daemon: processes that are started and killed, headless Chromium, what tests ask."""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
needs_a_browser = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()), reason="needs chromium and chromium-driver (Debian)"
)
NAME = "Dr. Night Shift"
FLAGS = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Beam:
    """What feeds the daemon, and the daemon, as processes of their own."""

    def __init__(self, folder: Path, settings: dict[str, Any], source: list[str]) -> None:
        self.folder, self.port = folder, free_port()
        self.config = folder / "daemon.yaml"
        self.config.write_text(yaml.safe_dump({**settings, "service": {"port": self.port}}))
        self.source = self.start(*source)
        self.daemon = self.start("run", str(self.config), "--quiet")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "beamsieve.stream", *arguments],
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def again(self) -> None:
        """The daemon is stopped, and started again."""
        self.stop()
        self.daemon = self.start("run", str(self.config), "--quiet")

    def stop(self) -> None:
        self.daemon.send_signal(signal.SIGTERM)
        assert self.daemon.wait(30) == 0

    def metrics(self) -> list[str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines: list[str] = answer.read().decode().splitlines()
                return lines
        except (urllib.error.URLError, ConnectionError):
            return []

    def metric(self, name: str) -> float | None:
        return next((float(line.rpartition(" ")[2]) for line in self.metrics() if line.startswith(name)), None)

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / "out" / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def end(self) -> None:
        for process in (self.daemon, self.source):
            process.kill()
            process.wait()


def shots_beam(folder: Path) -> Beam:
    """xfel_hits on an emulated detector: 100 shots a second, 30 % hit one particle, 10 % several."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    settings = {
        "beamline": "xfel_hits",
        "source": {"kind": "dectris", "endpoint": endpoint},
        "model": {"bundle": "hits-resnet10", "threads": 1},
        "keep": {"miss_fraction": 0.2},
        "files": {"directory": "out", "min_free_gb": 0},
    }
    sent = ["--rate", "100", "--hits", "0.3", "--multiples", "0.1", "--pool", "8", "--seconds", "600", "--quiet"]
    return Beam(folder, settings, ["emulate", "dectris", "--simulate", "--endpoint", endpoint, *sent])


def chromium(folder: Path) -> Any:
    """A headless browser with a profile of its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS.split(), "disable-component-update", "window-size=1600,1000", f"user-data-dir={folder}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))


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

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def text(self, selector: str) -> str:
        return " ".join(
            str(self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)).split()
        )

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def many(self, selector: str) -> int:
        return len(self.driver.find_elements("css selector", selector))

    def colours(self, selector: str) -> int:
        """How many different colours a canvas shows; 0 where there is none."""
        return int(
            self.js(
                "const c = document.querySelector(arguments[0]); if (!c?.width) return 0;"
                "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
                "return new Set(d).size",
                selector,
            )
        )

    def show(self, selector: str) -> Any:
        node = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", node)
        return node

    def click(self, selector: str) -> None:
        node = self.one(selector)
        self.until(node.is_enabled, f"{selector} can be used")
        self.show(selector).click()

    def number(self, selector: str) -> float | None:
        """The first number of a text, in which narrow spaces part thousands."""
        found = re.search(r"\d[\d.]*", re.sub(r"(?<=\d)[\s\u202f\u2009](?=\d)", "", self.text(selector)))
        return float(found[0]) if found else None

    def sign_in(self) -> None:
        asked = [sys.executable, "-m", "beamsieve.stream", "page", str(self.beam.config)]
        link = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        assert f":{self.beam.port}/#token=" in link
        self.driver.get(link)
        name = self.until(lambda: self.driver.find_elements("css selector", "dialog[open] input[name=name]"), "a name")
        name[0].send_keys(NAME, "\ue007")
        self.until(lambda: self.text(".who") == NAME, "signed in")

    def drag_threshold(self, share: float) -> float:
        """Move the line by this share of the histogram's width; gives where it stands then."""
        from selenium.webdriver.common.action_chains import ActionChains

        handle = self.show(".threshold-handle")
        by = round(self.one(".bars").size["width"] * share)
        ActionChains(self.driver).click_and_hold(handle).move_by_offset(by, 0).pause(0.1).release().perform()
        return float(handle.get_attribute("aria-valuenow"))

    def phone_fits(self) -> bool:
        """Whether nothing of the page is wider than a phone."""
        phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        time.sleep(0.5)
        fits = bool(self.js("return document.documentElement.scrollWidth <= innerWidth"))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        return fits

    def complaints(self) -> list[str]:
        """What the console holds against the page, but for a connection that was lost on purpose."""
        severe = [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]
        return [text for text in severe if not re.search(r"ERR_CONNECTION|ERR_INCOMPLETE|\b401\b", text)]
