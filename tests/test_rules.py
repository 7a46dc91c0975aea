"""Recording rules, alerts and their runbooks: checked by Prometheus' own tools, and against the product."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from beamsieve.stream.flow.rates import wilson
from beamsieve.tests.rule_files import (
    OWN,
    PROMETHEUS,
    ROOT,
    TESTS,
    Rule,
    alerts,
    cases,
    names_in,
    new_metrics,
    product_metrics,
)
from beamsieve.tests.rule_files import records as recording_rules

RUNBOOKS = ROOT / "docs" / "alerts.md"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
SEVERITIES = {"page", "warn", "info"}
BLOCKS = ("source", "decode", "flow", "files", "service", "model", "keep", "detector", "calibrate", "quality")
STAGES = {"model.run"}


def tool(*arguments: str, package: str = "prometheus", cwd: Path = PROMETHEUS) -> str:
    """What Prometheus' own tool says; the test is skipped without it, and fails when it finds fault."""
    if shutil.which(arguments[0]) is None:
        pytest.skip(f"{arguments[0]} is not installed (Debian: {package})")
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ids(rule: Rule) -> str:
    return rule.name


# --- Prometheus' own tools ------------------------------------------------------------------------------------------


def test_promtool_finds_no_fault_with_rules_and_configuration() -> None:
    said = tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", "rules/beamsieve.yml", "rules/alerts.yml")
    found = sum(map(int, re.findall(r"(\d+) rules found", said)))
    assert found == len(recording_rules()) + len(alerts())
    assert "2 rule files found" in tool("promtool", "check", "config", "prometheus.yml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_promtool_finds_what_is_expected(path: Path) -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", path.name, cwd=path.parent)


def test_amtool_finds_no_fault_and_routes_by_severity() -> None:
    said = tool("amtool", "check-config", str(ALERTMANAGER), package="prometheus-alertmanager")
    assert "3 receivers" in said
    for severity, receivers in (("page", "on-call,control-room"), ("warn", "control-room"), ("info", "logbook")):
        said = tool("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}")
        assert said.splitlines()[-1 if said.startswith("Warn") else 0] == receivers


# --- without any tool -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", alerts(), ids=ids)
def test_an_alert_says_how_bad_it_is_what_happens_and_what_to_do(rule: Rule) -> None:
    assert rule.said["labels"]["severity"] in SEVERITIES
    notes = rule.said["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert 10 < len(notes["summary"]) < 100
    assert len(notes["description"]) > 30
    assert notes["runbook_url"] == f"docs/alerts.md#{rule.name.lower()}"
    if rule.name != "BeamsieveAbsent":
        assert "$labels.instrument" in notes["summary"], "whose alert it is"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL))
    by_name = {rule.name: rule for rule in alerts()}
    assert set(sections) == set(by_name)
    for name, text in sections.items():
        severity = by_name[name].said["labels"]["severity"]
        assert text.strip().startswith(f"*{severity}*"), f"{name} begins with its severity, {severity}"
        for part in ("**Look:**", "**Do:**", "**Ignore:**"):
            assert part in text, f"{name} lacks {part}"
        assert len(text.split()) > 60, f"{name} says little"


def test_a_runbook_names_only_what_there_is() -> None:
    text = RUNBOOKS.read_text()
    known = product_metrics() | new_metrics() | {rule.name for rule in recording_rules()} | OWN
    named = set(re.findall(r"`(beamsieve[_:][a-z0-9_:]+)", text))
    assert named - known == set()
    named = set(re.findall(rf"`((?:{'|'.join(BLOCKS)})\.[a-z_]+)", text))
    assert named, "no setting at all?"
    assert named - documented_settings() - STAGES == set()
    for mentioned in set(re.findall(r"\bBeamsieve[A-Z]\w+", text)):
        assert mentioned in {rule.name for rule in alerts()}


def documented_settings() -> set[str]:
    """``block.name`` of every setting in the reference of either daemon."""
    found: set[str] = set()
    for path in (ROOT / "docs" / "reference").glob("settings-*.md"):
        for heading, text in re.findall(r"^## `([a-z.]+)`(.*?)(?=^## |\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
            found |= {f"{heading}.{name}" for name in re.findall(r"^\| `([a-z_0-9]+)` \|", text, re.MULTILINE)}
    return found


@pytest.mark.parametrize("rule", [*recording_rules(), *alerts()], ids=ids)
def test_a_rule_reads_only_what_the_product_has(rule: Rule) -> None:
    read = names_in(rule.expr)
    assert read, "an expression of no metric"
    recorded = [other.name for other in recording_rules()]
    before = recorded[: recorded.index(rule.name)] if rule.record else recorded
    assert read - product_metrics() - new_metrics() - OWN - set(before) == set()


@pytest.mark.parametrize("rule", recording_rules(), ids=ids)
def test_a_recorded_name_says_what_was_done_and_loses_no_label(rule: Rule) -> None:
    assert re.fullmatch(
        r"beamsieve:[a-z_]+:(ratio|rate|increase|mean|max|p50|p90|p99|per_hour|predicted|difference|sum)"
        r"(_1m|_10m|_1h|_4h)?",
        rule.name,
    )
    assert not re.search(r"\b(by|on)\s*\(", rule.expr), "`without` and `ignoring` keep the labels that sites add"
    window = rule.name.rpartition("_")[2]
    if window in {"1m", "10m", "1h"}:
        windows = set(re.findall(r"\[(\w+)\]", rule.expr)) | {
            name.rpartition("_")[2] for name in names_in(rule.expr) if ":" in name
        }
        assert windows == {window}


def test_names_are_given_once() -> None:
    for rules in (recording_rules(), alerts()):
        names = [rule.name for rule in rules]
        assert len(set(names)) == len(names)
    groups = {rule.group for rule in recording_rules()} & {rule.group for rule in alerts()}
    assert not groups, "promtool's order of groups goes by their names"


def missing(names: Iterable[str], seen: set[str]) -> set[str]:
    return set(names) - seen


def test_every_rule_and_alert_is_tested_both_ways() -> None:
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for case in cases():
        found[bool(case.expected)] |= {case.what} if case.alert else names_in(case.what)
    names = [rule.name for rule in (*recording_rules(), *alerts())]
    assert missing(names, found[True]) == set(), "never seen with a value, or firing"
    assert missing(names, found[False]) == set(), "never seen without a value, or silent"


def test_every_promtool_test_evaluates_all_groups_in_order() -> None:
    groups = list(dict.fromkeys(rule.group for rule in (*recording_rules(), *alerts())))
    for path in TESTS:
        text = yaml.safe_load(path.read_text())
        assert text["group_eval_order"] == groups, path.name
        for group in text["tests"]:
            for series in group["input_series"]:
                name = series["series"].partition("{")[0]
                assert name in product_metrics() | new_metrics() | OWN, f"{path.name} invents {name}"


def test_the_expected_intervals_are_those_of_the_daemon() -> None:
    numbers: dict[tuple[str, str, str], float] = {}
    for case in cases():
        if match := re.fullmatch(
            r"round\(beamsieve:(judged|hits|hit_rate_low|hit_rate_high):\w+_(1m|10m|1h), 0\.000001\)", case.what
        ):
            what, window = match.groups()
            for sample in case.expected:
                numbers[what, window, sample["labels"]] = float(sample["value"])
    compared = 0
    for (what, window, labels), value in numbers.items():
        if what.startswith("hit_rate_"):
            hits, judged = (round(numbers[name, window, labels]) for name in ("hits", "judged"))
            low_high = wilson(hits, judged)
            assert value == pytest.approx(low_high[what == "hit_rate_high"], abs=1e-6), (window, labels)
            compared += 1
    assert compared >= 30


def test_the_example_gives_every_target_the_labels_that_rules_go_by() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "beamsieve"
    beamlines = ("xfel_hits", "cryoem_picks", "cryoet_mining")
    assert [set(each["labels"]) for each in job["static_configs"]] == [{"instrument", "beamline"}] * 3
    assert [each["labels"]["beamline"] for each in job["static_configs"]] == [*beamlines]
    ports = [target for each in job["static_configs"] for target in each["targets"]]
    configs = [yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) for name in beamlines]
    assert ports == [f"localhost:{config['service']['port']}" for config in configs]


def test_alertmanager_holds_back_only_what_there_is_and_of_the_same_daemon() -> None:
    text = yaml.safe_load(ALERTMANAGER.read_text())
    names = {rule.name for rule in alerts()}
    assert text["route"]["group_by"] == ["instrument"]
    down = text["inhibit_rules"][0]
    assert down["source_matchers"] == ['alertname="BeamsieveDown"']
    for rule in text["inhibit_rules"]:
        assert rule["equal"] == ["instrument", "beamline", "instance"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            operator, value = re.fullmatch(r'alertname(!?=~?)"(.*)"', matcher).groups()  # type: ignore[union-attr]
            assert any(re.fullmatch(value, name) for name in names), matcher
            if operator == "=~" and "+" not in value:
                assert set(value.split("|")) <= names, matcher
        if rule is not down:
            source = rule["source_matchers"][0].split('"')[1]
            assert not any(re.fullmatch(m.split('"')[1], source) for m in rule["target_matchers"]), "inhibits itself"
