"""A real Prometheus against real daemons: every rule and alert is evaluated, and has data where it should."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.emulators.dectris import DectrisEmulator
from beamsieve.stream.flow.rates import wilson
from beamsieve.tests.prometheus_server import Prometheus, QueryError, free_port, scraping
from beamsieve.tests.rule_files import alerts, records, selectors_in
from beamsieve.tests.running_daemons import ENDLESS, Both, both_running, configured

# Only while a candidate model runs in shadow.
CANDIDATE = ("beamsieve:shadow_", "beamsieve_shadow_")
# Alerts that depend on the machine the test runs on: its disk, and how fast it is.
MACHINE = {"BeamsieveDiskLow", "BeamsieveDiskFilling", "BeamsieveLatency"}
HITS, PICKS = "xfel_hits", "cryoem_picks"


def value(prometheus: Prometheus, expr: str) -> float:
    (sample,) = prometheus.query(expr)
    return sample.value


def light(endpoint: str) -> dict[str, Any]:
    """A detector's daemon without a network, which starts in a second: it counts lit pixels."""
    return {
        "beamline": HITS,
        "source": {"kind": "dectris", "endpoint": endpoint},
        "model": None,
        "screen": {"adu_threshold": 1, "hitscore_threshold": 100},
        "keep": {"miss_fraction": 0},
        "files": {"directory": "files", "min_free_gb": 0, "flush_s": 0.1},
    }


def test_a_killed_daemon_is_noticed_and_its_restart_jumps_nowhere(tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    daemon = configured(tmp_path, light(endpoint))
    bright, dark = np.full((64, 64), 5, np.uint16), np.zeros((64, 64), np.uint16)
    shots: list[tuple[Any, dict[str, Any]]] = [(bright, {}), (dark, {}), (dark, {}), (dark, {})]
    sender = DectrisEmulator(endpoint, shots, rate_hz=100, repeat=4, images=ENDLESS)
    with sender, scraping([daemon.target]) as prometheus:
        try:
            daemon.start()
            prometheus.wait("beamsieve:judged:increase_1m > 100")
            assert value(prometheus, "beamsieve:hit_rate:ratio_1m") == pytest.approx(0.25, abs=0.02)
            daemon.kill()
            prometheus.wait('ALERTS{alertname="BeamsieveDown", alertstate="pending"}')
            assert value(prometheus, "up") == 0
            assert prometheus.query("beamsieve_ready") == []
            before = value(prometheus, "max_over_time(beamsieve:judged:increase_1h[1m])")
            daemon.start()
            prometheus.wait("resets(beamsieve_frames_read_total[5m]) == 1")
            prometheus.wait(f"beamsieve:judged:increase_1h > {before + 100}")
        finally:
            daemon.kill()
        # The counters began again: rates are neither negative nor absurd, the books balance, no change is reported.
        assert value(prometheus, "max_over_time(beamsieve:hit_rate:ratio_1m[1m])") == pytest.approx(0.25, abs=0.02)
        assert value(prometheus, "max_over_time(beamsieve:loss:ratio_1m[1m])") == 0
        assert value(prometheus, "max_over_time(beamsieve:frames_read:rate_1m[1m])") < 110
        assert value(prometheus, "max_over_time(abs(beamsieve:books:difference)[1m:1s])") == 0
        assert value(prometheus, "changes(beamsieve_started_timestamp_seconds[5m])") == 1
        fired = {sample.labels["alertname"] for sample in prometheus.query("count_over_time(ALERTS[5m])")}
        # Before its first scrape Prometheus knows of no daemon.
        assert fired - MACHINE - {"BeamsieveAbsent"} == {"BeamsieveDown"}


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with both_running(tmp_path_factory.mktemp("daemons")) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(daemons: Both) -> Iterator[Prometheus]:
    with scraping(daemons.targets) as server:
        server.wait("rate(beamsieve_picks_per_micrograph_count[1m]) > 0")
        server.wait("rate(beamsieve_score_count[1m]) > 0")
        server.wait('rate(beamsieve_source_events_total{kind="missing"}[1m]) > 0')
        server.wait_for_scrapes(4)
        yield server


def test_prometheus_takes_every_rule_and_finds_none_that_fails(prometheus: Prometheus) -> None:
    told = prometheus.rules()
    assert set(told) == {rule.name for rule in (*records(), *alerts())}
    assert {name: rule["lastError"] for name, rule in told.items() if rule["health"] != "ok"} == {}
    with pytest.raises(QueryError, match="parse error"):
        prometheus.query("beamsieve:hit_rate:ratio_1m{")


def test_every_recorded_name_has_data_of_a_running_daemon(prometheus: Prometheus) -> None:
    empty, without_labels, not_numbers = [], [], []
    for rule in records():
        found = prometheus.query(rule.name)
        again = prometheus.query(rule.expr)
        if rule.name.startswith(CANDIDATE):
            assert not found, "no candidate runs"
            continue
        empty += [rule.name] * (not found or not again)
        without_labels += [
            rule.name for s in found if not {"instrument", "beamline", "job", "instance"} <= set(s.labels)
        ]
        not_numbers += [rule.name for s in found if not math.isfinite(s.value)]
    assert (empty, without_labels, not_numbers) == ([], [], [])


def test_what_an_alert_asks_for_is_there(prometheus: Prometheus) -> None:
    empty = []
    for rule in alerts():
        prometheus.query(rule.expr)
        for selector in selectors_in(rule.expr):
            if selector.startswith(CANDIDATE) or 'reason="queued"' in selector:
                continue
            # No daemon of tomograms runs here: test_rules knows its metrics, test_dashboards asks for them.
            if "tomogram" in selector or "cryoet_mining" in selector:
                continue
            empty += [f"{rule.name}: {selector}"] * (not prometheus.query(selector))
    assert empty == []


def test_no_alert_of_a_daemon_that_is_well(prometheus: Prometheus) -> None:
    told = prometheus.rules()
    noisy = {rule.name: told[rule.name]["alerts"] for rule in alerts() if told[rule.name]["state"] != "inactive"}
    assert {name: why for name, why in noisy.items() if name not in MACHINE} == {}


def test_the_interval_is_the_daemons_own(prometheus: Prometheus) -> None:
    for beamline in (HITS, PICKS):
        where = f'{{beamline="{beamline}"}}'
        # Of one evaluation: the last one may be under way.
        names = "judged:increase|hits:increase|hit_rate:ratio|hit_rate_low:ratio|hit_rate_high:ratio"
        found = prometheus.query(f'{{__name__=~"beamsieve:({names})_1h", beamline="{beamline}"}} offset 2s')
        judged, hits, rate, low, high = (
            next(s.value for s in found if s.labels["__name__"].startswith(f"beamsieve:{name}:"))
            for name in ("judged", "hits", "hit_rate", "hit_rate_low", "hit_rate_high")
        )
        p = hits / judged
        assert rate == pytest.approx(p)
        assert low - 1e-9 <= rate <= high + 1e-9, where
        # wilson() counts whole frames; what Prometheus extrapolates is not whole.
        below, above = wilson(round(1000 * hits), round(1000 * judged), 1.96 * math.sqrt(1000))
        assert low == pytest.approx(below, abs=1e-4)
        assert high == pytest.approx(above, abs=1e-4)
    assert 0.05 < value(prometheus, f'beamsieve:hit_rate:ratio_1h{{beamline="{HITS}"}}') < 0.8


def test_the_numbers_fit_what_was_sent(prometheus: Prometheus) -> None:
    assert value(prometheus, "beamsieve:missing:ratio_10m") == pytest.approx(0.05, abs=0.03)
    assert value(prometheus, "beamsieve:picks_per_micrograph:mean_1h") == pytest.approx(42, rel=0.4)
    assert value(prometheus, "beamsieve:waiting_files:sum") >= 1, "the one that was cut short"
    assert all(sample.value == 0 for sample in prometheus.query("beamsieve:books:difference"))
    for sample in prometheus.query("sum without (state) (beamsieve:stage_share:ratio_1m)"):
        assert sample.value == pytest.approx(1.0)
    stages = {sample.labels["stage"] for sample in prometheus.query("beamsieve:bottleneck:ratio_1m")}
    busiest = {s.labels["stage"] for s in prometheus.query("topk without (stage) (1, beamsieve:stage_busy:ratio_1m)")}
    assert len(stages) == len(busiest) == 2
