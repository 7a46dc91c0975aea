"""Rates and their intervals, and the line that shows them."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.rates import Rate, Window, wilson
from beamsieve.stream.terminal import LiveLine
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest


@given(shots=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_is_scipys(shots: int, share: float) -> None:
    hits = round(share * shots)
    theirs = binomtest(hits, shots).proportion_ci(0.95, "wilson")
    assert wilson(hits, shots) == pytest.approx((theirs.low, theirs.high), abs=2e-5)


def test_no_shots_means_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Rate(0, 0, 1).fraction)


def test_a_window_is_right_from_the_first_shot_on() -> None:
    window = Window(10, 0.0)
    assert window.rate(100.0, 0, 0).shots == 0
    first = window.rate(101.0, 5, 50)
    assert (first.hits, first.shots, first.seconds) == (5, 50, 1.0), "waiting for beam must not count"
    assert first.per_second == 50
    for second in range(2, 30):
        last = window.rate(100.0 + second, 5 * second, 50 * second)
    assert (last.hits, last.shots, last.seconds) == (50, 500, 10.0)


def test_the_live_line_says_it_all() -> None:
    metrics = Metrics("t", labels=("0", "1"))
    out = io.StringIO()
    line = LiveLine(metrics, out)
    assert "no shots now" in line.text(metrics.started + 5)
    frame = Frame(Key("r", 1), np.zeros((2, 2)), 0.0, 0.0)
    metrics.read(40, 100)
    metrics.judged(
        [
            Result(frame, Outcome.ACCEPTED if i < 10 else Outcome.REJECTED, 0.5, found={"label": i < 10})
            for i in range(40)
        ]
    )
    metrics.dropped("full", 3)
    text = line.text(metrics.started + 6, ["source silent for 3 s"])
    for part in (
        "40.0 shots/s",
        "hits 25.00 % [14.19, 40.19]",
        "0:30 1:10",
        "dropped 3 failed 0",
        "NOT READY: source silent",
    ):
        assert part in text, text
