"""Grafana's dashboards: the files are what the code says, and every query of theirs is answered by a real Prometheus.

Grafana itself is not here. Instead of its schema the JSON goes through the models of Grafana's own kit and must come
back as it was, which finds keys that Grafana does not know, or knows elsewhere; not a wrong word in a right place.
"""

from __future__ import annotations

import json
import math
import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.mined import Mined, MinedTomogram
from beamsieve.stream.live.access import Access
from beamsieve.stream.live.server import LiveServer
from beamsieve.tests.prometheus_server import Prometheus, Sample, Target, scraping
from beamsieve.tests.rule_files import OWN, REFERENCE, alerts, names_in, new_metrics, product_metrics, records
from beamsieve.tests.running_daemons import Both, Running, both_running

pytest.importorskip("grafana_foundation_sdk", reason="needs grafana-foundation-sdk")

from beamsieve.deploy.grafana.__main__ import FOLDER, dashboards, main, stale
from beamsieve.deploy.grafana.asking import Question, Server, filled, panels, questions, values_for
from beamsieve.deploy.grafana.board import RUNBOOKS_ID
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

XFEL, CRYO, FLEET, DAEMON = "beamsieve-xfel", "beamsieve-cryoem", "beamsieve-fleet", "beamsieve-daemon"
TOMO = "beamsieve-cryoet"
NAMES = {
    "xfel-run.json": XFEL,
    "cryoem-session.json": CRYO,
    "cryoet-session.json": TOMO,
    "fleet.json": FLEET,
    "daemon.json": DAEMON,
}
# Okabe and Ito's colours, grey, and the theme's own colour of text.
PALETTE = {"#0072B2", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#8E8E8E", "text"}
# What the editor writes and the kit's model of an annotation lacks.
NOT_IN_THE_KIT = {"titleFormat", "textFormat", "step"}

# Queries without an answer in the tests, and why that is right.
NOTHING_FAILED = "no frame fails, and none is dropped"
NO_CLASSES = "classes come when there is time, with two hundred particles"
EMPTY = {
    (XFEL, "Losses by cause", "A"): NOTHING_FAILED,
    (XFEL, "Losses by cause", "B"): NOTHING_FAILED,
    (DAEMON, "Failures and drops by reason", "A"): NOTHING_FAILED,
    (DAEMON, "Failures and drops by reason", "B"): NOTHING_FAILED,
    (CRYO, "Failures by reason", "A"): "the micrograph that is cut short waits for its end for ten minutes",
    (CRYO, "Outside their ranges", "A"): "the ranges suit these micrographs",
    (CRYO, "Best class average", "A"): NO_CLASSES,
    (CRYO, "In bad classes", "A"): NO_CLASSES,
    (CRYO, "Pick to class", "A"): NO_CLASSES,
    (CRYO, "Denoiser", "A"): NO_CLASSES,
    (CRYO, "Resolution of class averages", "A"): NO_CLASSES,
    (CRYO, "Seconds from pick to class", "A"): NO_CLASSES,
    (CRYO, "Seconds from pick to class", "B"): NO_CLASSES,
    (FLEET, "Daemons", "C"): "no alert fires",
    (FLEET, "Alerts", "A"): "no alert fires",
    (XFEL, "Alert", ""): "no alert fires",
    (XFEL, "Writing paused", ""): "nobody pauses",
    (XFEL, "Restart", ""): "nobody restarts it",
}
# The machine's own disk and speed may raise an alert, the ranges may come to be passed, and classes may come in time.
MAY_ANSWER = {"no alert fires", "the ranges suit these micrographs", NO_CLASSES}


@cache
def told(name: str) -> dict[str, Any]:
    """A dashboard's file."""
    found: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return found


EACH = pytest.mark.parametrize("name", NAMES)


# --- the files ---------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_code_says(tmp_path: Path) -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(NAMES) == sorted(dashboards())
    assert stale() == []
    assert main(["--check"]) == 0
    assert main(["--all"]) == 2
    (tmp_path / "fleet.json").write_text(dashboards()["fleet.json"].replace("Daemons up", "Daemons Up"))
    assert stale(tmp_path) == list(dashboards())


@EACH
def test_the_kit_reads_a_file_and_writes_the_same(name: str) -> None:
    register_default_plugins()
    whole = told(name)
    for one in whole["annotations"]["list"]:
        assert set(one) >= NOT_IN_THE_KIT
    known = whole | {
        "annotations": {
            "list": [
                {key: value for key, value in one.items() if key not in NOT_IN_THE_KIT}
                for one in whole["annotations"]["list"]
            ]
        }
    }
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(known))) == known


def test_dashboards_are_told_apart_and_belong_together() -> None:
    assert {name: told(name)["uid"] for name in NAMES} == NAMES
    assert len({told(name)["title"] for name in NAMES}) == len(NAMES)
    for name in NAMES:
        text = json.dumps(told(name))
        links = set(re.findall(r"/d/([\w-]+)", text))
        assert links <= set(NAMES.values())
        assert len(links) >= 2
        assert set(re.findall(r"viewPanel=(\d+)", text)) == {str(RUNBOOKS_ID)}
        assert [variable["name"] for variable in told(name)["templating"]["list"]] == [
            "datasource",
            "instrument",
            "daemon",
            "run",
            "model",
        ]
        passed = set(re.findall(r"\$\{(\w+):queryparam\}", text)) | set(re.findall(r"[?&]var-(\w+)=", text))
        assert passed <= {"datasource", "instrument", "daemon", "run", "model"}
    (page,) = (panel for panel in told("fleet.json")["panels"] if panel["id"] == RUNBOOKS_ID)
    assert all(f"### {rule.name}\n" in page["options"]["content"] for rule in alerts())
    assert "](#" not in page["options"]["content"]


@EACH
def test_a_panel_says_what_it_is(name: str) -> None:
    titles = [panel["title"] for panel in panels(told(name))]
    assert len(titles) == len(set(titles))
    alert_names = {rule.name for rule in alerts()}
    for panel in panels(told(name)):
        where = f"{name}: {panel['title']}"
        assert panel["title"], where
        assert len(panel["description"]) > 20, where
        assert panel["description"].endswith("."), where
        assert set(re.findall(r"Beamsieve\w+", panel["description"])) <= alert_names, where
        assert panel["options"], where
        if panel["type"] == "text":
            continue
        own = panel["fieldConfig"]["defaults"]
        assert own["unit"], where
        assert own["noValue"], where
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, where
        colours = {step["color"] for step in own["thresholds"]["steps"]}
        colours |= set(re.findall(r'"(?:color|fixedColor)": "([^"]+)"', json.dumps(panel["fieldConfig"])))
        assert colours <= PALETTE, where
        refs = [one["refId"] for one in panel["targets"]]
        assert len(refs) == len(set(refs)), where
    assert any(
        "worry" in panel["description"].lower() or "alert" in panel["description"] for panel in panels(told(name))
    )


@EACH
def test_panels_lie_side_by_side(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    numbers = [panel["id"] for panel in told(name)["panels"]]
    assert len(numbers) == len(set(numbers))
    for panel in told(name)["panels"]:
        at = panel["gridPos"]
        assert at["w"] > 0
        assert at["h"] > 0
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken.get(cell)}"
            taken[cell] = panel["title"]


@EACH
def test_every_metric_exists(name: str) -> None:
    known = product_metrics() | new_metrics() | {rule.name for rule in records()} | OWN
    for question in questions(told(name)):
        found = set(re.findall(r"\b([a-zA-Z_:][\w:]*)\s*\{", re.sub(r'"[^"]*"', '""', question.expr)))
        assert found | names_in(question.expr) <= known | {"ALERTS"}, question
        assert found, question


@EACH
def test_a_column_or_curve_that_is_set_is_there(name: str) -> None:
    for panel in panels(told(name)):
        looks = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
        if panel["type"] == "table":
            order = panel["transformations"][-1]["options"]
            assert looks <= set(order["renameByName"].values()), panel["title"]
            assert set(order["indexByName"]) == set(order["renameByName"]), panel["title"]
        legends = [one["legendFormat"] for one in panel.get("targets", ())]
        if panel["type"] == "timeseries":
            # The words that labels have are in the reference.
            words = set(re.findall(r"\w+", REFERENCE.read_text())) if any("{{" in one for one in legends) else set()
            assert looks <= set(legends) | words, panel["title"]


def test_variables_are_filled_in_as_grafana_does() -> None:
    assert filled('up{a="$daemon"}[$__rate_interval] ${run:regex}', values_for("h:1")) == 'up{a="h:1"}[20s] .*'
    with pytest.raises(KeyError, match="deamon"):
        filled("up{a='$deamon'}", values_for())


# --- a real Prometheus, real daemons -----------------------------------------------------------------------------


def acts(daemon: Running, folder: Path) -> None:
    """Sign in as a person does, give the run a title, change the threshold, and let a candidate judge beside."""
    base = f"http://127.0.0.1:{daemon.port}"
    headers = {"Content-Type": "application/json", "X-Beamsieve": "1", "Origin": base}

    def post(path: str, body: dict[str, Any]) -> Any:
        asked = urllib.request.Request(base + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.headers

    token = (folder / "page.token").read_text().strip()
    headers["Cookie"] = post("/login", {"token": token, "name": "tester"})["Set-Cookie"].split(";")[0]
    post("/live/act/run", {"title": "lysozyme, jet 2"})
    post("/live/act/threshold", {"value": 0.4})
    post("/live/act/candidate", {"bundle": "hits-resnet10"})


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with both_running(tmp_path_factory.mktemp("daemons")) as running:
        yield running


@contextmanager
def mining(every_s: float = 0.5) -> Iterator[Target]:
    """The metrics of a daemon of tomograms, told by hand: a tomogram every half second, and one training."""
    metrics, mined, over = Metrics("cryoet_mining"), Mined(), threading.Event()
    metrics.mined = mined
    metrics.model(name="tomograms-general", version="1", hash="0123456789ab", device="cpu", dtype="float32")
    metrics.operation.run("session", "")
    mined.model("tomograms-general", "0123456789ab", trained=False)
    mined.clusters({"": 90, "membrane": 6, "ribosome-like": 4})
    mined.mode("annotate")
    mined.training("codes", "done")

    def tell() -> None:
        frame = Frame(Key("session", 0), np.zeros((1, 1), np.float32), 0.0, 0.0)
        classes, seconds = {"membrane": 5, "ribosome-like": 3, "": 40}, {"pick": 3.0, "encode": 2.0, "segment": 9.0}
        while not over.wait(every_s):
            metrics.read(1, 1_000_000)
            metrics.waiting({"settling": 1, "queued": 2}, 30.0)
            mined.add(MinedTomogram(classes, 0.5, seconds, "0123456789ab", {"background": 0.9, "membrane": 0.1}))
            metrics.ended([Result(frame, Outcome.ACCEPTED, 1.0, "mining", 1.0, {})])

    server = LiveServer(
        host="127.0.0.1", port=0, metrics=metrics, problems=list, page=None, access=Access(host="127.0.0.1", token="")
    )
    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield Target(f"127.0.0.1:{server.port}", "cryoet_mining")
    finally:
        over.set()
        thread.join()
        server.close()


@pytest.fixture(scope="module")
def tomograms() -> Iterator[str]:
    """The address of its metrics."""
    with mining() as target:
        yield target.address


@pytest.fixture(scope="module")
def prometheus(daemons: Both, tomograms: str) -> Iterator[Prometheus]:
    with scraping([*daemons.targets, Target(tomograms, "cryoet_mining")]) as server:
        server.wait("rate(beamsieve_score_count[1m]) > 0")
        acts(daemons.hits, daemons.hits.config.parent / "hits")
        server.wait("rate(beamsieve_picks_per_micrograph_count[1m]) > 0")
        server.wait("changes(beamsieve_threshold[1m]) > 0")
        server.wait('rate(beamsieve_source_events_total{kind="missing"}[1m]) > 0')
        server.wait("rate(beamsieve_shadow_frames_total[1m]) > 0")
        server.wait_for_scrapes(4)
        yield server


def chosen(uid: str, daemons: Both, tomograms: str) -> dict[str, str]:
    """The variables as a person sets them first."""
    hits, picks = daemons.hits.target.address, daemons.picks.target.address
    return values_for({XFEL: hits, CRYO: picks, DAEMON: hits, TOMO: tomograms}.get(uid, ".*"))


def answered(prometheus: Prometheus, question: Question, values: dict[str, str]) -> list[Sample]:
    """The series with a finite value: now, or for annotations at any time of the last minutes."""
    expr = filled(question.expr, values)
    if question.what == "annotation":
        now = prometheus.query("time()")[0].value
        found = [Sample(labels, max(numbers)) for labels, numbers in prometheus.over(expr, now - 120, now, 1)]
        return [sample for sample in found if sample.value > 0]
    return [sample for sample in prometheus.query(expr) if math.isfinite(sample.value)]


@EACH
def test_every_query_is_answered(name: str, prometheus: Prometheus, daemons: Both, tomograms: str) -> None:
    values, wrong = chosen(told(name)["uid"], daemons, tomograms), []
    for question in questions(told(name)):
        found = answered(prometheus, question, values)
        if question.what == "annotation" and question.title == "Threshold" and question.dashboard in (CRYO, TOMO):
            continue  # nobody changes the microscopes'
        where = XFEL if question.what == "annotation" else question.dashboard
        why = EMPTY.get((where, question.title, question.ref))
        if why is None and not found:
            wrong.append((question, "no data"))
        if why is not None and why not in MAY_ANSWER and found:
            wrong.append((question, f"has data, although {why}"))
        for label in re.findall(r"\{\{(\w+)\}\}", question.legend):
            # A run without a title has no label of that name: Prometheus drops what is empty.
            missing = [sample for sample in found if label not in sample.labels and label != "title"]
            wrong += [(question, f"no label {label}")] * bool(missing)
    assert wrong == []


def test_what_is_not_answered_is_asked() -> None:
    asked = {(q.dashboard, q.title, q.ref) for name in NAMES for q in questions(told(name))}
    assert set(EMPTY) <= asked


def test_variables_offer_what_there_is(prometheus: Prometheus, daemons: Both, tomograms: str) -> None:
    offered: dict[tuple[str, str], set[str]] = {}
    for name, uid in NAMES.items():
        for question in questions(told(name)):
            if question.what == "variable":
                found = answered(prometheus, question, chosen(uid, daemons, tomograms))
                offered[uid, question.title] = {sample.labels[question.ref] for sample in found}
    hits, picks = daemons.hits.target.address, daemons.picks.target.address
    assert offered[XFEL, "daemon"] == {hits}
    assert offered[CRYO, "daemon"] == {picks}
    assert offered[TOMO, "daemon"] == {tomograms}
    assert offered[FLEET, "daemon"] == offered[DAEMON, "daemon"] == {hits, picks, tomograms}
    assert offered[FLEET, "model"] == {"hits-resnet10", "particles-ribosome", "tomograms-general"}
    assert offered[XFEL, "model"] == {"hits-resnet10"}
    assert all(offered[uid, "instrument"] == {"test"} for uid in NAMES.values())
    assert len(offered[XFEL, "run"]) == 1


def test_runs_and_models_can_be_chosen(prometheus: Prometheus, daemons: Both, tomograms: str) -> None:
    address = daemons.hits.target.address
    (run,) = {sample.labels["run"] for sample in prometheus.query(f'beamsieve_run_info{{instance="{address}"}}')}
    asked = next(q for q in questions(told("xfel-run.json")) if q.title == "Hit rate, 1 min")
    assert answered(prometheus, asked, values_for(address, run=f"({run}|another)", model="hits-resnet10"))
    assert not answered(prometheus, asked, values_for(address, run="another"))
    assert not answered(prometheus, asked, values_for(address, model="another"))
    assert not answered(prometheus, asked, values_for(address, instrument="another"))
    # What is not of a run stays, whatever runs are chosen: who is up.
    asked = next(q for q in questions(told("fleet.json")) if q.title == "Daemons up")
    assert answered(prometheus, asked, values_for(run="another"))[0].value == 3


def test_events_say_what_happened(prometheus: Prometheus, daemons: Both, tomograms: str) -> None:
    values = chosen(XFEL, daemons, tomograms)
    happened = {
        q.title: answered(prometheus, q, values) for q in questions(told("xfel-run.json")) if q.what == "annotation"
    }
    assert {sample.labels["threshold"] for sample in happened["Threshold"]} == {"0.4"}
    assert "lysozyme, jet 2" in {sample.labels.get("title") for sample in happened["Run"]}
    assert {sample.labels["name"] for sample in happened["Model"]} == {"hits-resnet10"}


def test_what_is_counted_within_a_step_is_counted_once(prometheus: Prometheus, daemons: Both, tomograms: str) -> None:
    (asked,) = (q for q in questions(told("daemon.json")) if q.title == "Changes on the page")
    values = chosen(DAEMON, daemons, tomograms)

    def changed(step: str) -> dict[str, float]:
        found = prometheus.query(filled(asked.expr, values | {"__interval": step}))
        return {sample.labels["what"]: sample.value for sample in found}

    # The counters were not there ten minutes ago: `increase` would say 0, or a fraction.
    assert changed("10m") == {
        "threshold": 1,
        "run": 1,
        "candidate": 1,
        "pause": 0,
        "model": 0,
        "class": 0,
        "group": 0,
        "clusters": 0,
    }
    prometheus.wait(f'beamsieve_changes_total{{what="candidate", instance="{values["daemon"]}"}} offset 1s == 1')
    assert set(changed("1s").values()) == {0}


def test_the_pictures_are_drawn_from_the_queries(prometheus: Prometheus, tmp_path: Path) -> None:
    picture = pytest.importorskip("beamsieve.deploy.grafana.picture", reason="needs matplotlib")
    image = pytest.importorskip("PIL.Image")
    end = prometheus.query("time()")[0].value
    out = tmp_path / "xfel.png"
    picture.draw(Server(prometheus.url), told("xfel-run.json"), out, end=end, seconds=30)
    with image.open(out) as drawn:
        assert drawn.size[0] == 1600
        # Sky blue, the colour of the hit rate's curve.
        near = [
            count
            for count, rgb in drawn.convert("RGB").getcolors(2**24)
            if max(abs(a - b) for a, b in zip(rgb, (86, 180, 233), strict=True)) < 30
        ]
    assert sum(near) > 500
    assert out.stat().st_size < 200_000
