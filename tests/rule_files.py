"""The rules, alerts and their promtool tests as Python sees them, and the metrics that expressions name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from beamsieve.stream.flow.classed import Classed
from beamsieve.stream.flow.mined import Mined, MinedTomogram
from beamsieve.stream.flow.operation import Operation

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules"
TESTS = tuple(sorted((PROMETHEUS / "tests").glob("*.yml")))
REFERENCE = ROOT / "docs" / "reference" / "metrics.md"
# What Prometheus itself says of a target.
OWN = frozenset({"up"})

_STRING = re.compile(r'"[^"]*"|\'[^\']*\'')
_NAME = re.compile(r"\b(?:beamsieve[_:][a-z0-9_:]+|up\b)")
_SELECTOR = re.compile(r"\b((?:beamsieve[_:][a-z0-9_:]+|up)\b(?:\{[^}]*\})?)")


@dataclass(frozen=True)
class Rule:
    """A recording rule (``record``) or an alert: its name, group, expression, and all that the file says of it."""

    name: str
    group: str
    expr: str
    record: bool
    said: Mapping[str, Any]


@cache
def rules(name: str) -> tuple[Rule, ...]:
    """The rules of a file in deploy/prometheus/rules."""
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return tuple(
        Rule(rule.get("record") or rule["alert"], group["name"], rule["expr"], "record" in rule, rule)
        for group in groups
        for rule in group["rules"]
    )


def records() -> tuple[Rule, ...]:
    """The recording rules."""
    return rules("beamsieve.yml")


def alerts() -> tuple[Rule, ...]:
    """The alerts."""
    return rules("alerts.yml")


def names_in(expr: str) -> set[str]:
    """Metrics and recorded names that an expression reads; words within quotes do not count."""
    return set(_NAME.findall(_STRING.sub('""', expr)))


def selectors_in(expr: str) -> set[str]:
    """Instant selectors of an expression: each name with the labels it asks for."""
    return set(_SELECTOR.findall(expr))


@cache
def product_metrics() -> frozenset[str]:
    """Every metric that the reference documents, with the series that a histogram has."""
    found: set[str] = set()
    for line in REFERENCE.read_text().splitlines():
        if match := re.match(r"\| `(beamsieve_[a-z_]+)`( \+ `_bucket`)?", line):
            name, histogram = match.groups()
            found |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")} if histogram else {name}
    return frozenset(found)


@cache
def new_metrics() -> frozenset[str]:
    """Metrics of operation, 2-D classes and tomograms, as the code gives them, should the reference come later."""
    operation = Operation()
    operation.threshold, operation.free_bytes = lambda: 0.5, lambda: 1.0
    operation.run("a", "b")
    operation.shadowed([(True, True)])
    classed, mined = Classed(), Mined()
    classed.model("classes2d-general", "0123456789ab", tuned=False)
    mined.model("tomograms-general", "0123456789ab", trained=False)
    mined.add(MinedTomogram({"membrane": 1}, 0.5, {"pick": 1.0}, voxels={"membrane": 0.1}))
    families = (*operation.collect(), *classed.collect(), *mined.collect())
    return frozenset(sample.name for family in families for sample in family.samples)


@dataclass(frozen=True)
class Case:
    """One check of a promtool test: of an expression (``expr``) or an alert; ``expected`` is empty for silence."""

    what: str
    at: str
    expected: tuple[Mapping[str, Any], ...]
    alert: bool
    group: str


@cache
def cases() -> tuple[Case, ...]:
    """Every check in deploy/prometheus/tests."""
    found: list[Case] = []
    for path in TESTS:
        for group in yaml.safe_load(path.read_text())["tests"]:
            where = f"{path.name}: {group['name']}"
            found += [
                Case(one["expr"], one["eval_time"], tuple(one.get("exp_samples", ())), False, where)
                for one in group.get("promql_expr_test", ())
            ]
            found += [
                Case(one["alertname"], one["eval_time"], tuple(one.get("exp_alerts", ())), True, where)
                for one in group.get("alert_rule_test", ())
            ]
    return tuple(found)
