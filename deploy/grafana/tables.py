"""Tables: queries of the present, merged into one row for each set of labels that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.models import dashboard as m

from .panels import STEADY, Panel, Steps, named, steps, targets
from .queries import Query

SKIPPED = ("Time", "__name__", "job")


@dataclass(frozen=True)
class Column:
    """A column: of a ``query``'s values, or of its label ``name``. ``unit`` and ``decimals`` are of the values.

    ``colours``: from which value on a cell has which background. ``link``: where a click leads, (text, address).
    """

    title: str
    expr: str = ""
    label: str = ""
    unit: str = "none"
    decimals: int | None = None
    colours: Steps = ()
    meaning: Any = None
    link: tuple[str, str] | None = None
    width: int | None = None


def rows(
    title: str,
    text: str,
    columns: Sequence[Column],
    *,
    w: int = 24,
    h: int = 8,
    sort: str = "",
    down: bool = False,
    nothing: str = "nothing",
    hidden: Sequence[str] = (),
) -> Panel:
    """A table in which every column with an expression is a query. ``hidden``: titles of columns that are only rows."""
    panel = table.Panel().show_header(True)
    named(panel, title, text, "none", None, nothing)
    asked = [column for column in columns if column.expr]
    targets(panel, [Query(column.expr, column.title, now=True) for column in asked], "table")
    panel.thresholds(steps(STEADY))
    names = _names(columns, asked)
    panel.with_transformation(m.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(m.DataTransformerConfig(id_val="organize", options=_order(columns, names, hidden)))
    for column in columns:
        if found := _look(column):
            panel.override_by_name(column.title, found)
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(down)])
    return Panel(panel, w, h)


def _names(columns: Sequence[Column], asked: Sequence[Column]) -> dict[str, str]:
    """What Grafana calls a column, by its title: the label, or ``Value #A`` of the query A, or ``Value`` alone."""
    values = ["Value"] if len(asked) == 1 else [f"Value #{chr(ord('A') + n)}" for n in range(len(asked))]
    return dict(zip((column.title for column in asked), values, strict=True)) | {
        column.title: column.label for column in columns if column.label
    }


def _order(columns: Sequence[Column], names: dict[str, str], hidden: Sequence[str]) -> dict[str, Any]:
    return {
        "excludeByName": dict.fromkeys((*SKIPPED, *(names[title] for title in hidden)), True),
        "indexByName": {names[column.title]: place for place, column in enumerate(columns)},
        "renameByName": {name: title for title, name in names.items()},
    }


def _look(column: Column) -> list[m.DynamicConfigValue]:
    found = []
    if column.unit != "none":
        found.append(m.DynamicConfigValue(id_val="unit", value=column.unit))
    if column.decimals is not None:
        found.append(m.DynamicConfigValue(id_val="decimals", value=column.decimals))
    if column.meaning:
        found.append(m.DynamicConfigValue(id_val="mappings", value=column.meaning))
    if column.colours:
        found.append(m.DynamicConfigValue(id_val="thresholds", value=steps(column.colours).build()))
        found.append(m.DynamicConfigValue(id_val="color", value={"mode": "thresholds"}))
    if column.colours or column.meaning:
        found.append(m.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
    if column.link:
        title, url = column.link
        found.append(m.DynamicConfigValue(id_val="links", value=[{"title": title, "url": url}]))
    if column.width:
        found.append(m.DynamicConfigValue(id_val="custom.width", value=column.width))
    return found
