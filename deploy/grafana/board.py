"""A dashboard put together: panels placed in rows, variables, annotations, links, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as m

from .panels import ORANGE, PURPLE, SKY, SOURCE, YELLOW, Panel
from .queries import MANY, ONE, of

WIDTH = 24
RUNBOOKS_ID = 100
"""The panel with docs/alerts.md in it; other panels are numbered from 1."""
RUNBOOKS = f"/d/beamsieve-fleet?viewPanel={RUNBOOKS_ID}&${{datasource:queryparam}}"


@dataclass(frozen=True)
class Row:
    """Panels side by side, in as many lines as they need, under a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Event:
    """An annotation: at every moment at which ``expr`` is above 0. ``text`` may name labels as ``{{label}}``."""

    name: str
    expr: str
    text: str
    colour: str
    shown: bool = True


@dataclass(frozen=True)
class Board:
    """What a dashboard is. ``beamline``: of which daemons, "" for all. ``many``: several may be chosen at once."""

    uid: str
    title: str
    about: str
    rows: Sequence[Row]
    beamline: str = ""
    many: bool = False
    since: str = "now-1h"
    links: Sequence[tuple[str, str]] = field(default=())


def events(who: str) -> list[Event]:
    """What happened to the daemons, to be seen on every curve."""
    threshold, model, run = (of(f"beamsieve_{name}", "", who) for name in ("threshold", "model_info", "run_info"))
    started, writing = of("beamsieve_started_timestamp_seconds", "", who), of("beamsieve_writing", "", who)
    alerts = of("ALERTS", 'alertname=~"Beamsieve.*", alertstate="firing"', who)
    back = "offset $__rate_interval"
    counted = f'count_values without () ("threshold", {threshold})'
    moved = f"changes({threshold}[$__rate_interval]) > 0"
    return [
        Event("Threshold", f"{counted} and on (job, instance) ({moved})", "Threshold is now {{threshold}}", ORANGE),
        Event("Model", f"{model} unless {model} {back}", "{{name}} {{version}} ({{hash}}) answers from here", PURPLE),
        Event("Run", f"{run} unless {run} {back}", "Run {{run}} {{title}}", SKY),
        Event("Writing paused", f"1 - {writing} > 0", "Nothing is kept", YELLOW),
        Event("Restart", f"changes({started}[$__rate_interval]) > 0", "The daemon was started again", YELLOW),
        Event("Alert", alerts, "{{alertname}} ({{severity}})", ORANGE, shown=False),
    ]


def variables(board: Board) -> list[Any]:
    """Data source, instrument, daemon, run and model; runs and models filter by time, the others by label."""
    up = 'up{job="beamsieve"' + (f', beamline="{board.beamline}"' if board.beamline else "")
    who = MANY if board.many else ONE
    return [
        build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        _asked("instrument", "Instrument", f"label_values({up}}}, instrument)", many=True),
        _asked("daemon", "Daemon", f'label_values({up}, instrument=~"$instrument"}}, instance)', many=board.many),
        _asked("run", "Run", f"label_values({of('beamsieve_run_info', '', who)}, run)", many=True),
        _asked("model", "Model", f"label_values({of('beamsieve_model_info', '', who)}, name)", many=True),
    ]


def _asked(name: str, label: str, query: str, *, many: bool) -> build.QueryVariable:
    one = build.QueryVariable(name).label(label).query(query).datasource(SOURCE).multi(many)
    one.refresh(m.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(m.VariableSort.NUMERICAL_DESC)
    if many:
        everything = m.VariableOption(selected=True, text=["All"], value=["$__all"])
        one.include_all(True).all_value(".*").current(everything)
    return one


def place(board: Board) -> list[m.Panel | m.RowPanel]:
    """Panels and rows with their places in the grid and their numbers, from left to right and down."""
    found: list[m.Panel | m.RowPanel] = []
    y = 0
    for row in board.rows:
        heading = build.Row(row.title).id(len(found) + 1).grid_pos(m.GridPos(h=1, w=WIDTH, x=0, y=y)).build()
        found.append(heading)
        x, y, deepest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.w > WIDTH:
                x, y, deepest = 0, y + deepest, 0
            one = panel.builder.build()
            one.id_val, one.grid_pos = panel.id or len(found) + 1, m.GridPos(h=panel.h, w=panel.w, x=x, y=y)
            found.append(one)
            x, deepest = x + panel.w, max(deepest, panel.h)
        y += deepest
    return found


def dashboard(board: Board) -> m.Dashboard:
    """As the kit has it."""
    made = build.Dashboard(board.title).uid(board.uid).description(board.about).tags(["beamsieve"])
    made.timezone("browser").readonly().refresh("10s").time(board.since, "now")
    made.tooltip(m.DashboardCursorSync.CROSSHAIR)
    for variable in variables(board):
        made.with_variable(variable)
    for event in events(MANY if board.many else ONE):
        made.annotation(_annotation(event))
    for title, url in (*board.links, ("What alerts mean", RUNBOOKS)):
        made.link(build.DashboardLink(title).type(m.DashboardLinkType.LINK).url(url).keep_time(True).icon("dashboard"))
    whole = made.build()
    whole.panels = place(board)
    return whole


def _annotation(event: Event) -> build.AnnotationQuery:
    one = build.AnnotationQuery().name(event.name).datasource(SOURCE).expr(event.expr).icon_color(event.colour)
    return one.enable(event.shown).hide(False)


def text_of(board: Board) -> str:
    """The JSON that Grafana reads; the same code gives the same bytes.

    What an annotation says is not in the kit's model of one, and is put in here, as the editor in Grafana writes it.
    """
    whole = json.loads(JSONEncoder().encode(dashboard(board)))
    told = {event.name: event.text for event in events(ONE)}
    for one in whole["annotations"]["list"]:
        one |= {"titleFormat": one["name"], "textFormat": told[one["name"]], "step": "15s"}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
