"""As an operator would: the jet is off, the threshold dragged, frames reviewed, a model swapped, all started again.

Real processes: an emulated detector or microscope, the daemon, headless Chromium. Every panel shows what the daemon
does, and what a person set is there again after a restart.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
from beamsieve.tests.operators import NAME, Beam, Operator, chromium, needs_a_browser, shots_beam

pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select

pytestmark = [needs_a_browser, pytest.mark.timeout(180)]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    driver = chromium(tmp_path / "chromium")
    yield driver
    driver.quit()


@pytest.fixture
def shots(tmp_path: Path) -> Iterator[Beam]:
    made = shots_beam(tmp_path)
    yield made
    made.end()


@pytest.fixture
def micrographs(tmp_path: Path) -> Iterator[Beam]:
    settings = {
        "beamline": "cryoem_picks",
        "source": {"kind": "folder", "directory": "in", "layout": "epu", "settle_s": 0.2, "poll_s": 0.2},
        "model": {"bundle": "particles-ribosome", "threads": 1},
        "files": {"directory": "out", "min_free_gb": 0, "pictures": False, "formats": ["csv"]},
    }
    (tmp_path / "in").mkdir()
    written = ["--out", str(tmp_path / "in"), "--count", "6", "--every", "1", "--layout", "epu", "--snr", "0.1"]
    made = Beam(tmp_path, settings, ["emulate", "micrographs", *written, "--seed", "5", "--quiet"])
    yield made
    made.end()


def test_a_night_at_the_detector(shots: Beam, browser: Any) -> None:
    one = Operator(browser, shots)
    one.until(lambda: (shots.metric("beamsieve_frames_read_total") or 0) > 300, "shots", 60)
    one.sign_in()
    rate = '.tile[data-key="rate 10 s"]'
    one.until(lambda: (_rate(one) or 0) > 15, "a hit rate")
    _every_panel_of_shots(one)
    assert one.phone_fits()

    shots.source.send_signal(signal.SIGUSR1)
    one.until(lambda: _rate_below(one, 5), f"the hit rate falls without a jet: {one.text(rate)}", 25)
    shots.source.send_signal(signal.SIGUSR1)
    one.until(lambda: (_rate(one) or 0) > 10, "the hit rate comes back")

    value = one.drag_threshold(0.2)
    assert value > 0.6
    assert shots.metric("beamsieve_threshold") == 0.5, "what if is a question"
    assert re.search(r"kept frames/s ?\d", one.text(".what-if"))
    one.click("button.apply")
    one.until(lambda: shots.metric("beamsieve_threshold") == pytest.approx(value, abs=1e-6), "the threshold in force")
    _review(one, 10)
    assert shots.metric('beamsieve_review_marks_total{verdict="right"}') == 10
    _swap_the_model(one)

    one.one("input.run-title").send_keys("jet 2, after the break")
    one.click("button.run")
    one.until(lambda: "jet 2, after the break" in one.text("#top"), "the run's title")
    model, threshold = _model(shots), shots.metric("beamsieve_threshold")
    changes = [(line["what"], line["by"]) for line in shots.lines("changes.jsonl")]
    assert changes == [(what, NAME) for what in ("threshold", "candidate", "model", "run")]

    shots.again()
    one.until(lambda: shots.metric("beamsieve_threshold") is not None, "the daemon is back", 60)
    assert shots.metric("beamsieve_threshold") == threshold
    assert _model(shots) == model
    one.until(lambda: "hits-resnet10-paper" in one.text('[data-area="control"]'), "the page is back by itself")
    one.until(lambda: "10" in one.text('[data-area="review"] .facts'), "the marks are still there")
    one.until(lambda: one.text(".changes").count(NAME) >= 4, "the log of changes")
    one.until(lambda: "jet 2, after the break" in one.text("#top"), "the title")
    assert one.complaints() == []

    shots.stop()
    files = sorted((shots.folder / "out").glob("*.cxi"))
    with h5py.File(max(files, key=lambda path: path.stat().st_mtime)) as file:
        assert file["entry_1/title"][()].decode() == "jet 2, after the break"
        noted = [json.loads(line) for line in file["entry_1/result_1/process_1/changes"][()] if line]
        assert {change["by"] for change in noted} == {NAME}


def test_a_night_at_the_microscope(micrographs: Beam, browser: Any) -> None:
    one = Operator(browser, micrographs)
    one.until(lambda: (micrographs.metric('beamsieve_frames_total{outcome="accepted"}') or 0) >= 6, "micrographs", 90)
    one.sign_in()
    _every_panel_of_micrographs(one)
    assert one.phone_fits()

    picked = one.number(".count")
    value = one.drag_threshold(0.25)
    assert value > 0.6
    one.click("button.apply")
    one.until(lambda: micrographs.metric("beamsieve_threshold") == pytest.approx(value, abs=1e-6), "in force")
    one.until(lambda: _stored(micrographs) == [pytest.approx(value)], "what is stored is picked again")
    one.until(lambda: (one.number(".count") or 0) < (picked or 0), "fewer circles")
    _review(one, 10)
    fewer = one.number(".count")

    micrographs.again()
    one.until(lambda: micrographs.metric("beamsieve_threshold") is not None, "the daemon is back", 60)
    assert micrographs.metric("beamsieve_threshold") == pytest.approx(value, abs=1e-6)
    one.driver.refresh()
    one.until(lambda: one.many(".table-rows tbody tr") >= 6, "the table as it was")
    one.until(lambda: one.number(".count") == fewer, "the picks as they were")
    one.until(lambda: "10" in one.text("#panel-review"), "the marks are still there")
    assert one.complaints() == []


def _rate(one: Operator) -> float | None:
    """The hit rate of the last ten seconds as the page shows it, in per cent."""
    found = re.search(r"([\d.]+) ?%", one.text('.tile[data-key="rate 10 s"]'))
    return float(found[1]) if found else None


def _rate_below(one: Operator, limit: float) -> bool:
    rate = _rate(one)
    return rate is not None and rate < limit


def _every_panel_of_shots(one: Operator) -> None:
    for key in ("state", "rate 1 min", "rate 10 min", "rate run", "speed", "lost"):
        one.until(partial(_says, one, f'.tile[data-key="{key}"]', r"● ready" if key == "state" else r"\d"), key)
    for group in ("accepted", "rejected", "random_miss"):
        one.show('[data-area="strips"]')
        one.until(partial(_colours, one, f'.strip-block[data-group="{group}"] canvas', 3), f"frames: {group}")
    one.show('[data-area="powder"]')
    for n in (1, 2, 3, 4):
        one.until(partial(_colours, one, f".powder figure:nth-child({n}) canvas", 5), f"powder {n}")
    for canvas in (".bars", '[data-area="curve"] canvas'):
        one.show(canvas)
        one.until(partial(_colours, one, canvas, 2), canvas)
    words = {
        '[data-area="classes"]': r"4\+.*\d",
        '[data-area="ledger"]': r"accounted for",
        ".stages": r"model\.run.*\d+\s?% busy",
        ".queues": r"of 4096",
        '[data-area="review"]': r"Right\?",
        '[data-area="control"]': r"\.cxi\.inprogress.*hits-resnet10",
        "#foot": r"beamsieve \d",
    }
    for area, said in words.items():
        one.until(partial(_says, one, area, said), f"{area} says {said}")


def _every_panel_of_micrographs(one: Operator) -> None:
    one.until(lambda: one.many(".mg-thumb") >= 2, "thumbnails")
    one.until(lambda: (one.number(".count") or 0) > 5, "circles")
    one.until(lambda: one.many(".particle") >= 20, "the gallery")
    one.until(lambda: one.many(".table-rows tbody tr") >= 6, "the table")
    for canvas in ("canvas.field", ".bars", "#panel-yield canvas", ".particle canvas"):
        one.show(canvas)
        one.until(partial(_colours, one, canvas, 2), canvas)
    words = {
        '[data-key="recent"]': r"\d",
        "#panel-waiting": r"\w",
        "#panel-maps": r"picks: median",
        "#panel-review": r"Is this a particle\?",
        "#panel-control": r"particles-ribosome",
        "#panel-stages": r"pick\.run",
    }
    for area, said in words.items():
        one.show(area)
        one.until(partial(_says, one, area, said), f"{area} says {said}")


def _colours(one: Operator, canvas: str, least: int) -> bool:
    return one.colours(canvas) >= least


def _says(one: Operator, area: str, words: str) -> bool:
    return re.search(words, one.text(area)) is not None


def _review(one: Operator, many: int) -> None:
    one.until(lambda: one.text(".question"), "something to review")
    one.js("document.activeElement.blur()")
    ActionChains(one.driver).send_keys("r").perform()
    for n in range(1, many + 1):
        ActionChains(one.driver).send_keys("y").perform()
        one.until(partial(_marked, one, n), f"mark {n}", 15)
    assert {mark["by"] for mark in one.beam.lines("marks.jsonl")} == {NAME}


def _marked(one: Operator, n: int) -> bool:
    return len({line["id"] for line in one.beam.lines("marks.jsonl")}) >= n


def _swap_the_model(one: Operator) -> None:
    Select(one.one("select.candidate")).select_by_visible_text("hits-resnet10-paper")
    one.click("button.shadow")
    one.until(lambda: _judged(one.beam) > 30, "both models judge", 40)
    one.click("button.promote")
    one.click("button.yes")
    one.until(lambda: "hits-resnet10-paper" in _model(one.beam), "the other model answers")


def _judged(beam: Beam) -> float:
    lines = [line for line in beam.metrics() if line.startswith("beamsieve_shadow_frames_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _model(beam: Beam) -> str:
    return next((line for line in beam.metrics() if line.startswith("beamsieve_model_info")), "")


def _stored(beam: Beam) -> list[float]:
    """Thresholds of all records."""
    found = set()
    for path in (beam.folder / "out" / "micrographs").rglob("*.h5"):
        with h5py.File(path) as file:
            found.add(float(file.attrs["threshold"]))
    return sorted(found)
