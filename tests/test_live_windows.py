"""Rates over windows of time and histograms of scores, against counting by brute force."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from beamsieve.models.hits.infer import verdicts
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.rates import wilson
from beamsieve.stream.live.common import Common
from beamsieve.stream.live.scores import BINS, PART_S, PARTS, Scores
from beamsieve.stream.live.window import HOUR, Window
from hypothesis import example, given, settings
from hypothesis import strategies as st

STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.4, 1.0, 7.3, 61.0, 640.0, 4000.0]), st.integers(0, 9), st.integers(0, 9)),
    max_size=40,
)
SCORES = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans(), st.integers(0, 9000)), min_size=1, max_size=60)


def by_name(windows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {window["name"]: window for window in windows}


@settings(deadline=None)
@given(STEPS, st.floats(0, 5000), st.floats(0, 20))
def test_every_window_and_the_points_add_up_to_what_was_counted(
    steps: list[tuple[float, int, int]], began: float, later: float
) -> None:
    window = Window(began)
    times = [began + t for t in accumulate(dt for dt, _, _ in steps)]
    for now, (_, hits, misses) in zip(times, steps, strict=True):
        window.add(now, hits, hits + misses)
    now = (times[-1] if times else began) + later

    def counted(seconds: float) -> tuple[int, int]:
        chosen = [step for at, step in zip(times, steps, strict=True) if int(at) > int(now) - seconds]
        return sum(h for _, h, _ in chosen), sum(h + m for _, h, m in chosen)

    found = by_name(window.windows(now))
    for name, seconds in (("10 s", 10), ("1 min", 60), ("10 min", 600), ("run", math.inf)):
        assert (found[name]["hits"], found[name]["shots"]) == counted(seconds), name
        assert found[name]["seconds"] <= seconds
    points = window.points(now)
    over = [(at, step) for at, step in zip(times, steps, strict=True) if int(now) - HOUR < int(at) < int(now)]
    assert sum(point["frames_per_s"] for point in points) == sum(h + m for _, (_, h, m) in over)
    assert sum(round((p["rate"] or 0) * p["frames_per_s"]) for p in points) == sum(h for _, (_, h, _) in over)


def test_a_window_covers_no_time_before_the_first_shot_and_has_wilson_interval() -> None:
    window = Window(100.0, offset=1_700_000_000)
    empty = by_name(window.windows(130.0))
    assert empty["1 min"] == {
        "name": "1 min", "seconds": 0.0, "hits": 0, "shots": 0, "rate": None, "low": None, "high": None,
    }  # fmt: skip
    assert window.points(130.0) == []
    window.add(130.25, 3, 40)
    found = by_name(window.windows(132.25))
    assert found["10 min"]["seconds"] == 2.0
    assert (found["10 min"]["low"], found["10 min"]["high"]) == wilson(3, 40)
    assert found["run"]["seconds"] == 32.25


def test_points_are_whole_seconds_of_unix_time_with_gaps_and_keep_their_names() -> None:
    window = Window(0.0, offset=1000)
    window.add(5.9, 1, 2)
    window.add(8.1, 0, 4)
    points = window.points(9.5)
    assert [(p["t"], p["rate"], p["frames_per_s"]) for p in points] == [
        (1005, 0.5, 2), (1006, None, 0), (1007, None, 0), (1008, 0.0, 4),
    ]  # fmt: skip
    assert window.points(9.99, 2) == points[2:]
    assert window.points(8.5) == points[:3], "a second that is not over is not there"


def test_a_new_run_empties_the_window_of_the_run_only() -> None:
    window = Window(0.0)
    window.add(1.0, 1, 1)
    window.new_run(3.0)
    window.add(4.0, 0, 5)
    found = by_name(window.windows(5.0))
    assert (found["run"]["hits"], found["run"]["shots"], found["run"]["seconds"]) == (0, 5, 2.0)
    assert (found["10 s"]["hits"], found["10 s"]["shots"]) == (1, 6)


def test_the_ring_forgets_an_hour_ago() -> None:
    window = Window(0.0)
    window.add(0.5, 1, 1)
    window.add(0.5 + HOUR, 0, 1)
    found = window.points(1.5 + HOUR)
    assert len(found) == HOUR - 1
    assert sum(point["frames_per_s"] for point in found) == 1
    assert by_name(window.windows(1.5 + HOUR))["run"]["shots"] == 2


@settings(deadline=None)
@given(SCORES, st.floats(1, 20))
def test_what_if_is_what_the_verdicts_would_be(frames: list[tuple[float, bool, int]], seconds: float) -> None:
    scores = Scores()
    values, accepted, nbytes = (list(column) for column in zip(*frames, strict=True))
    half = len(values) // 2
    for part in (slice(0, half), slice(half, None)):
        scores.add(2.0, values[part], accepted[part], nbytes[part])
    curve, shown = scores.what_if(2.0 + seconds), scores.histogram(2.0 + seconds)
    probabilities = np.array([[0, value] for value in values], np.float32)
    for threshold, kept, size in zip(curve["threshold"], curve["kept_per_s"], curve["bytes_per_s"], strict=True):
        passes = verdicts(probabilities, threshold).accepted
        assert kept == pytest.approx(passes.sum() / seconds, rel=1e-5)
        assert size == pytest.approx(np.array(nbytes)[passes].sum() / seconds, rel=1e-5)
    assert sum(shown["accepted"]) == sum(accepted)
    assert sum(shown["rejected"]) == len(accepted) - sum(accepted)
    assert len(shown["edges"]) == BINS + 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
@example([200, 3, 400])
def test_bins_of_lit_pixels_grow_and_lose_nothing(lit: list[int]) -> None:
    scores = Scores(lit=True)
    for n in lit:
        scores.add(1.0, [float(n)], [n >= 200], [10])
    curve, shown = scores.what_if(2.0), scores.histogram(2.0)
    assert shown["edges"][0] == 0
    assert shown["edges"][-1] > max(lit)
    assert shown["edges"][-1] <= max(BINS, 2 * max(lit)), "no wider than it must be"
    kept = [sum(n >= threshold for n in lit) for threshold in curve["threshold"]]
    assert curve["kept_per_s"] == kept
    assert curve["bytes_per_s"] == [10 * n for n in kept]
    assert (sum(shown["accepted"]), sum(shown["rejected"])) == (sum(n >= 200 for n in lit), sum(n < 200 for n in lit))


def test_the_histogram_looks_back_ten_minutes_and_the_run_further() -> None:
    scores = Scores()
    for at in range(0, 3000, 10):
        scores.add(float(at), [0.5], [False], [1])
    shown = scores.histogram(2999.0)
    assert shown["seconds"] == pytest.approx(PARTS * PART_S - 1)
    assert sum(shown["rejected"]) == PARTS * PART_S / 10
    assert sum(shown["run"]["rejected"]) == 300
    scores.new_run()
    shown = scores.histogram(2999.0)
    assert (sum(shown["run"]["rejected"]), sum(shown["rejected"])) == (0, PARTS * PART_S / 10)
    assert sum(scores.histogram(9000.0)["rejected"]) == 0, "what is old goes also while nothing comes"


def test_time_without_any_frame_does_not_thin_out_the_rates() -> None:
    scores = Scores()
    for at in (10.0, 20.0, 320.0, 330.0):
        scores.add(at, [0.9] * 5, [True] * 5, [100] * 5)
    # 10..30 s, 300..330 s and the part that began at 330 s.
    assert scores.histogram(340.0)["seconds"] == pytest.approx(20 + 30 + 10)
    assert scores.what_if(340.0)["kept_per_s"][0] == pytest.approx(20 / 60, rel=1e-5)


def test_scores_that_are_no_numbers_are_left_out_and_nothing_is_known_before_the_first() -> None:
    scores = Scores()
    assert scores.what_if(1.0)["kept_per_s"] == [None] * BINS
    scores.add(1.0, [math.nan, 1.0, math.inf], [False, True, False], [1, 2, 4])
    assert scores.what_if(2.0)["kept_per_s"] == [1.0] * BINS
    assert scores.what_if(2.0)["bytes_per_s"] == [2.0] * BINS


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_shares_of_stages_and_speed_are_of_the_last_ten_seconds() -> None:
    clock, metrics = Clock(), Metrics("xfel_hits", ("0", "1"))
    stage = metrics.stage("model")
    stage.starved(500.0)
    metrics.read(1000, 1 << 20)
    common = Common(metrics, clock=clock, wall=lambda: 5.0)
    for clock.now in np.arange(1.0, 31.0).tolist():
        metrics.read(20, 4000)
        stage._add("busy", 0.75)
        stage.blocked(0.25)
        common.tick()
    found = common.snapshot()
    assert found["speed"] == {"frames_per_s": pytest.approx(20), "bytes_per_s": pytest.approx(4000)}
    assert found["stages"] == [{"name": "model", "busy": 0.75, "starved": 0.0, "blocked": 0.25}]
    assert (found["bottleneck"], found["uptime_s"], found["time"]) == ("model", 30.0, 5.0)
    assert found["counts"]["in_flight"] == found["counts"]["read"] == 1600
    assert found["latency_s"] == {"median": None, "p99": None}


def test_a_long_time_in_which_nobody_looked_is_not_mixed_in() -> None:
    clock, metrics = Clock(), Metrics("xfel_hits")
    common = Common(metrics, clock=clock)
    for clock.now in (3600.0, 3601.0, 3602.0):
        metrics.read(20, 0)
        common.tick()
    assert common.snapshot()["speed"]["frames_per_s"] == pytest.approx(20)


def test_a_stage_of_which_nothing_is_heard_is_starved_only_when_nothing_waits() -> None:
    class Full:
        name, depth, size = "model", 7, 8

    clock, metrics = Clock(), Metrics("xfel_hits")
    metrics.stage("sinks")
    common = Common(metrics, clock=clock)
    clock.now = 10.0
    assert common.snapshot()["stages"] == [{"name": "sinks", "busy": 0.0, "starved": 1.0, "blocked": 0.0}]
    metrics.channel(Full())  # type: ignore[arg-type]
    clock.now = 20.0
    found = common.snapshot()
    assert found["stages"] == [{"name": "sinks", "busy": 0.0, "starved": 0.0, "blocked": 0.0}], "a disk that hangs"
    assert found["queues"] == [{"name": "model", "depth": 7, "size": 8}]
    assert found["bottleneck"] == ""
