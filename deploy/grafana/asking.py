"""What a dashboard asks Prometheus: every query of its panels, variables and annotations, filled in as Grafana does."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_VALUES_OF = re.compile(r"label_values\((.*), (\w+)\)", re.DOTALL)
NAN = float("nan")


@dataclass(frozen=True)
class Question:
    """A query of a panel, variable or annotation: ``what``. ``title``: its name; ``ref``: its letter or label."""

    dashboard: str
    what: str
    title: str
    ref: str
    expr: str
    legend: str = ""
    now: bool = False


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard's JSON, without the headings of rows."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def of_panel(uid: str, panel: Mapping[str, Any]) -> list[Question]:
    """The queries of a panel, in their order."""
    return [
        Question(uid, "panel", panel["title"], one["refId"], one["expr"], one["legendFormat"], bool(one.get("instant")))
        for one in panel.get("targets", ())
    ]


def questions(dashboard: Mapping[str, Any]) -> list[Question]:
    """All queries of a dashboard's JSON. ``label_values(selector, label)`` asks for the selector."""
    uid = dashboard["uid"]
    found = [question for panel in panels(dashboard) for question in of_panel(uid, panel)]
    for one in dashboard["templating"]["list"]:
        if one["type"] == "query":
            match = _VALUES_OF.fullmatch(one["query"])
            if match is None:
                raise ValueError(f"{uid}: the variable {one['name']} is not label_values(…): {one['query']}")
            found.append(Question(uid, "variable", one["name"], match[2], match[1]))
    told = dashboard["annotations"]["list"]
    return found + [Question(uid, "annotation", one["name"], "", one["expr"], one["textFormat"]) for one in told]


def filled(text: str, values: Mapping[str, str]) -> str:
    """``text`` with ``$name`` and ``${name}`` replaced; raises ``KeyError`` for a variable that has no value."""
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], text)


def values_for(daemon: str = ".*", instrument: str = ".*", run: str = ".*", model: str = ".*") -> dict[str, str]:
    """Variables as Grafana fills them in; ``.*`` where All is chosen. Intervals: for a step of 5 s."""
    own = {"__interval": "5s", "__rate_interval": "20s", "__range": "5m"}
    return own | {"daemon": daemon, "instrument": instrument, "run": run, "model": model, "datasource": "prometheus"}


def seconds(text: str) -> int:
    """Seconds of a duration such as 10m."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def named(legend: str, labels: Mapping[str, str]) -> str:
    """The name of a series: the legend with ``{{label}}`` filled in."""
    if legend == "__auto":
        return ", ".join(f"{name}={value}" for name, value in labels.items() if not name.startswith("__")) or "value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


@dataclass(frozen=True)
class Curve:
    """A series: its labels, and its values at each time that was asked for (NaN where it has none)."""

    labels: Mapping[str, str]
    values: list[float]


class Server:
    """A Prometheus at ``url``; raises ``OSError`` where it does not answer or does not understand."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def now(self, expr: str, when: float) -> list[tuple[Mapping[str, str], float]]:
        """The series of an expression at ``when`` (Unix seconds)."""
        found = self._get("query", query=expr, time=when)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def over(self, expr: str, times: list[float]) -> list[Curve]:
        """The series of an expression at equally spaced ``times``."""
        step = times[1] - times[0]
        found = self._get("query_range", query=expr, start=times[0], end=times[-1], step=step)["result"]
        curves = []
        for one in found:
            known = {round((when - times[0]) / step): float(value) for when, value in one["values"]}
            curves.append(Curve(one["metric"], [known.get(place, NAN) for place in range(len(times))]))
        return curves

    def _get(self, path: str, **parameters: Any) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 (the address is the caller's own)
            return json.load(answer)["data"]
