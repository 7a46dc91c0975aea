"""The page in Firefox, driven by WebDriver BiDi, which Firefox speaks itself: Debian has no driver for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from beamsieve.tests.operators import NAME, Beam, free_port, shots_beam

websocket = pytest.importorskip("websocket", reason="needs websocket-client, which selenium brings")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
pytestmark = [
    pytest.mark.skipif(FIREFOX is None, reason="needs firefox-esr (Debian)"),
    pytest.mark.timeout(120),
]


class Firefox:
    """A headless Firefox, and the few commands of BiDi that the test needs (w3.org/TR/webdriver-bidi)."""

    def __init__(self, folder: Path) -> None:
        assert FIREFOX is not None
        self.port = free_port()
        self.events: list[dict[str, Any]] = []
        command = [FIREFOX, "--headless", "--no-remote", "--profile", str(folder)]
        command += ["--remote-debugging-port", str(self.port), "--width", "1600", "--height", "1000", "about:blank"]
        folder.mkdir()
        # Nothing is asked of other hosts: a first start would.
        (folder / "user.js").write_text(
            'user_pref("browser.shell.checkDefaultBrowser", false);\n'
            'user_pref("datareporting.policy.dataSubmissionEnabled", false);\n'
            'user_pref("network.captive-portal-service.enabled", false);\n'
            'user_pref("network.connectivity-service.enabled", false);\n'
        )
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "HOME": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.ids = count(1)
        self.line = self._connect()
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded"])
        self.context = self.send("browsingContext.getTree")["contexts"][0]["context"]

    def _connect(self) -> Any:
        until = time.monotonic() + 40
        while True:
            try:
                return websocket.create_connection(
                    f"ws://127.0.0.1:{self.port}/session", timeout=30, suppress_origin=True
                )
            except (OSError, websocket.WebSocketException):
                assert time.monotonic() < until, "Firefox does not answer"
                time.sleep(0.2)

    def send(self, method: str, **parameters: Any) -> Any:
        number = next(self.ids)
        self.line.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self.line.recv())
            if said.get("id") == number:
                assert said["type"] == "success", said
                return said["result"]
            self.events.append(said)

    def open(self, url: str) -> None:
        self.send("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def js(self, expression: str) -> Any:
        target = {"context": self.context}
        found = self.send("script.evaluate", expression=expression, target=target, awaitPromise=True)
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        said = self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")
        return " ".join(str(said).split())

    def keys(self, *keys: str) -> None:
        pressed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": pressed})

    def drag(self, x: float, y: float, by: int) -> None:
        moves = [{"type": "pointerMove", "x": round(x), "y": round(y)}, {"type": "pointerDown", "button": 0}]
        moves += [{"type": "pointerMove", "x": round(x) + step, "y": round(y)} for step in range(0, by + 1, by // 4)]
        self._act({"type": "pointer", "id": "mouse", "actions": [*moves, {"type": "pointerUp", "button": 0}]})

    def _act(self, source: dict[str, Any]) -> None:
        self.send("input.performActions", context=self.context, actions=[source])

    def close(self) -> None:
        self.line.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Firefox]:
    made = Firefox(tmp_path / "firefox")
    yield made
    made.close()


@pytest.fixture
def beam(tmp_path: Path) -> Iterator[Beam]:
    made = shots_beam(tmp_path)
    yield made
    made.end()


def until(what: Callable[[], Any], meaning: str, seconds: float = 40) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"{meaning}: not within {seconds} s"
        time.sleep(0.1)
    return found


def _marked(beam: Beam, n: int) -> bool:
    return len(beam.lines("marks.jsonl")) >= n


def test_firefox_watches_drags_applies_and_reviews(firefox: Firefox, beam: Beam) -> None:
    until(lambda: (beam.metric("beamsieve_frames_read_total") or 0) > 200, "shots")
    token = (beam.folder / "out" / "page.token").read_text().strip()
    firefox.open(f"http://127.0.0.1:{beam.port}/#token={token}")
    until(lambda: firefox.js("!!document.querySelector('dialog[open] input[name=name]')"), "the dialogue")
    firefox.js("document.querySelector('dialog[open] input[name=name]').focus()")
    firefox.keys(*NAME, "\ue007")
    until(lambda: firefox.text(".who") == NAME, "signed in")
    until(lambda: re.search(r"\d", firefox.text('.tile[data-key="rate 10 s"]')), "a hit rate")
    assert firefox.js("document.documentElement.scrollWidth <= innerWidth")

    firefox.js("document.querySelector('.threshold-handle').scrollIntoView({block: 'center'})")
    box = json.loads(
        str(firefox.js("JSON.stringify(document.querySelector('.threshold-handle').getBoundingClientRect())"))
    )
    firefox.drag(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, 60)
    value = float(str(firefox.js("document.querySelector('.threshold-handle').getAttribute('aria-valuenow')")))
    assert value > 0.55
    firefox.js("document.querySelector('button.apply').click()")
    until(lambda: beam.metric("beamsieve_threshold") == pytest.approx(value, abs=1e-6), "in force")

    until(lambda: firefox.text(".question"), "something to review")
    firefox.js("document.activeElement.blur()")
    firefox.keys("r")
    for n in (1, 2, 3):
        firefox.keys("y")
        until(partial(_marked, beam, n), f"mark {n}")
    errors = [event["params"] for event in firefox.events if event.get("params", {}).get("level") == "error"]
    assert errors == []
