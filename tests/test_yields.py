"""Yields: what micrographs give, as trend, line and metrics."""

from __future__ import annotations

import io
import math
from pathlib import Path

from beamsieve.stream.flow.frame import Failure, Incoming, Raw, RunStart
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.yields import Trend, Yield, Yields
from beamsieve.stream.sources.files import FileList
from beamsieve.stream.terminal import YieldLine
from prometheus_client import generate_latest


def told(*picks: int) -> Metrics:
    metrics = Metrics("cryoem_picks", yields=Yields())
    for n in picks:
        metrics.micrograph(Yield(n, [0.9] * n + [0.1], {"sd": 1.5}, {"score": 0.5}))
    return metrics


def test_the_trend_is_the_last_one_beside_medians() -> None:
    metrics = told(*range(100, 130), 0)
    assert metrics.yields is not None
    trend = metrics.yields.trend()
    assert (trend.micrographs, trend.particles, trend.last) == (31, sum(range(100, 130)), 0)
    assert trend.median == 114  # the middle of 0, 100 … 129
    assert trend.recent == 124.5  # of 121 … 129 and 0
    assert math.isclose(trend.ratio, 124.5 / 114)


def test_before_the_first_micrograph_nothing_is_claimed() -> None:
    trend = Yields().trend()
    assert trend.micrographs == 0
    assert math.isnan(trend.median)
    assert math.isnan(trend.ratio)
    assert math.isnan(Trend(1, 0, 0, 0, 0).ratio), "nothing over nothing is no trend"


def test_metrics_show_particles_quality_and_what_waits() -> None:
    metrics = told(3, 5)
    found = Yield(0, [], {"sd": 9.0}, {"score": 2.0}, warnings=("sd",), skipped=("sd", "ice"))
    metrics.micrograph(found)
    metrics.waiting({"settling": 2, "truncated": 1}, 40.5)
    text = generate_latest(metrics.registry()).decode()
    for line in (
        "beamsieve_particles_total 8.0",
        'beamsieve_picks_per_micrograph_bucket{le="3.0"} 2.0',
        "beamsieve_picks_per_micrograph_count 3.0",
        "beamsieve_pick_score_count 10.0",
        'beamsieve_micrograph_seconds_count{stage="score"} 3.0',
        'beamsieve_micrograph_seconds_sum{stage="score"} 3.0',
        'beamsieve_micrograph_quality{number="sd"} 9.0',
        'beamsieve_micrographs_outside_total{number="sd",range="skip"} 1.0',
        'beamsieve_micrographs_outside_total{number="ice",range="skip"} 1.0',
        'beamsieve_micrographs_outside_total{number="sd",range="warn"} 1.0',
        'beamsieve_waiting_files{reason="settling"} 2.0',
        "beamsieve_waiting_oldest_seconds 40.5",
        'beamsieve_yield_median{over="session"} 3.0',
    ):
        assert line in text, line
    metrics.waiting({}, 0.0)
    assert "beamsieve_waiting_files{" not in generate_latest(metrics.registry()).decode(), "nothing waits any more"


def test_a_beamline_of_shots_has_no_yields() -> None:
    metrics = Metrics("xfel_hits")
    metrics.micrograph(Yield(1, [], {}, {}))
    metrics.waiting({"settling": 1}, 1.0)
    assert "beamsieve_particles" not in generate_latest(metrics.registry()).decode()


def test_the_line_says_yield_trend_and_why_files_wait() -> None:
    metrics = told(100, 120, 140)
    metrics.waiting({"truncated": 1}, 90)
    line = YieldLine(metrics, io.StringIO())
    text = line.text(0.0, ["disk full"])
    assert "picks 140 (last 10: 120, session: 120)" in text
    assert "360 particles in 3 micrographs" in text
    assert "waiting: truncated 1, oldest 90 s" in text
    assert text.endswith("NOT READY: disk full")
    assert "picks" not in YieldLine(Metrics("cryoem_picks", yields=Yields())).text(0.0)


def test_files_named_one_by_one(tmp_path: Path) -> None:
    there = tmp_path / "sub" / "a.mrc"
    there.parent.mkdir()
    there.write_bytes(b"12345")
    there.with_name("a.mrc.mdoc").write_text("")
    there.with_suffix(".xml").write_text("")
    source = FileList([there, tmp_path / "gone.mrc"], base=tmp_path)
    source.open()
    items: list[Incoming] = []
    while (found := source.read(0.0)) is not None:
        items += found
    start, raw, failure = items
    assert isinstance(start, RunStart)
    assert isinstance(raw, Raw)
    assert (raw.nbytes, raw.info["name"]) == (5, "sub/a.mrc")
    assert set(raw.info["companions"]) == {"xml", "mdoc"}
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.key.number) == ("vanished", 2)
    assert "gone.mrc" in failure.detail
