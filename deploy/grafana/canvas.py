"""The surface, axes, units and colours that pictures of panels share.

Boxes are (left, bottom, width, height), of the figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .asking import Curve, Question, Server, filled, named, seconds

PAPER, SURFACE, INK, FAINT = "#111217", "#181B1F", "#D5D7DB", "#3A3F47"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sheet:
    """Where data come from, at which times, with which values of the variables, and the marks of annotations."""

    server: Server
    times: list[float]
    values: Mapping[str, str]
    marks: list[tuple[float, str]]

    def at(self, panel: Mapping[str, Any]) -> Sheet:
        """The same with the step that the panel takes at least: times are whole multiples of it, as Grafana's are."""
        if "interval" not in panel:
            return self
        step = seconds(panel["interval"])
        first = step * math.floor(self.times[0] / step)
        times = [*np.arange(first, self.times[-1] + step, step, dtype=float)]
        return replace(self, times=times, values={**self.values, "__interval": f"{step}s"})

    def curves(self, question: Question) -> list[tuple[str, Curve]]:
        """Each series over the time, by name; a query of the present has one value at the end."""
        if not question.now:
            found = self.server.over(filled(question.expr, self.values), self.times)
            return [(named(question.legend, curve.labels), curve) for curve in found]
        now = self.server.now(filled(question.expr, self.values), self.times[-1])
        return [(named(question.legend, labels), Curve(labels, [value])) for labels, value in now]


def spelt(value: float, unit: str, decimals: float | None = None) -> str:
    """A number in its unit, as Grafana's unit of that name reads."""
    if not math.isfinite(value):
        return ""
    places = None if decimals is None else int(decimals)
    if unit == "percentunit":
        return f"{100 * value:.{1 if places is None else places}f} %"
    if unit in ("s", "dtdurations"):
        return _duration(value)
    if unit in ("decbytes", "Bps"):
        return _scaled(value) + ("B/s" if unit == "Bps" else "B")
    if unit == "short" and abs(value) >= 1000:
        return _scaled(value).rstrip()
    value = 0.0 if abs(value) < 0.5 * 10 ** -(9 if places is None else places) else value  # no "-0"
    text = f"{value:.3g}" if places is None and abs(value) < 1000 else f"{value:.{places or 0}f}"
    return text + (unit.removeprefix("suffix:") if unit.startswith("suffix:") else "")


def _scaled(value: float) -> str:
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value:.3g} "


def _duration(value: float) -> str:
    for size, name in ((3600, "h"), (60, "min"), (1, "s")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{1000 * value:.3g} ms"


def settings(panel: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a panel's fields."""
    found: dict[str, Any] = panel["fieldConfig"]["defaults"]
    return found


def overrides(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What is set for the series or column of that name."""
    found: dict[str, Any] = {}
    for one in panel["fieldConfig"]["overrides"]:
        if one["matcher"]["options"] == name:
            found |= {item["id"]: item["value"] for item in one["properties"]}
    return found


def coloured(value: float, steps: Mapping[str, Any] | None, mappings: Any) -> tuple[str | None, str]:
    """(the word for a value, if it has one; its colour)."""
    for mapping in mappings or ():
        if (found := mapping["options"].get(f"{value:g}")) is not None:
            return found["text"], found["color"]
    colour = INK
    for step in (steps or {}).get("steps", ()):
        if step["value"] is None or value >= step["value"]:
            colour = INK if step["color"] == "text" else step["color"]
    return None, colour


def frame(figure: Any, box: Box, panel: Mapping[str, Any]) -> Box:
    """The panel's surface and title; returns the room inside (left, bottom, width, height)."""
    wide, high = figure.get_size_inches()
    x, y, w, h = box[0] + 0.04 / wide, box[1] + 0.04 / high, box[2] - 0.08 / wide, box[3] - 0.08 / high
    figure.patches.append(_rectangle(figure, (x, y, w, h)))
    figure.text(x + 0.08 / wide, y + h - 0.13 / high, panel["title"], fontsize=8.5, weight="bold", va="center")
    return x, y, w, h - 0.26 / high


def _rectangle(figure: Any, box: Box) -> Any:
    return Rectangle(
        box[:2], *box[2:], transform=figure.transFigure, facecolor=SURFACE, edgecolor=FAINT, lw=0.6, zorder=-1
    )


def nothing(figure: Any, room: Box, panel: Mapping[str, Any]) -> None:
    """What stands where there is no data."""
    x, y = room[0] + room[2] / 2, room[1] + room[3] / 2
    figure.text(x, y, settings(panel)["noValue"], ha="center", va="center", color="#9FA7B3", fontsize=9)


def axes_in(figure: Any, room: Box, sheet: Sheet, legend: float) -> Any:
    """Axes over time, with the marks of annotations. ``legend``: room below, in inches."""
    wide, high = figure.get_size_inches()
    left, below = 0.62 / wide, (0.24 + legend) / high
    axes = figure.add_axes(
        (room[0] + left, room[1] + below, room[2] - left - 0.12 / wide, room[3] - below - 0.05 / high)
    )
    for side in axes.spines.values():
        side.set_color(FAINT)
    axes.tick_params(colors="#9FA7B3", labelsize=7, length=2, color=FAINT)
    axes.grid(color=FAINT, lw=0.4)
    start, end = sheet.times[0], sheet.times[-1]
    ticks = np.linspace(start, end, 7 if room[2] > 0.4 else 5)[1:-1]
    axes.set_xticks(ticks, [f"{datetime.fromtimestamp(tick):%H:%M:%S}" for tick in ticks])
    axes.set_xlim(start, end)
    for when, colour in sheet.marks:
        axes.axvline(when, color=colour, lw=0.9, ls=":")
    return axes


def limits(axes: Any, own: Mapping[str, Any]) -> None:
    """Where the axis of the values begins and ends."""
    low, high = own.get("min"), own.get("max")
    if axes.get_yscale() == "log":
        return
    if low is not None:
        axes.set_ylim(bottom=low)
    if high is not None:
        axes.set_ylim(top=high)
    bottom, top = axes.get_ylim()
    room = 0.1 * max(1.0, abs(top)) if top - bottom < 1e-9 + 0.01 * abs(top) else 0.04 * (top - bottom)
    if own.get("decimals") == 0 and own["unit"] in ("none", "short"):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        room = max(room, 1.1 - (top - bottom))
    axes.set_ylim(bottom, top + room)


def legend(figure: Any, room: Box, names: Mapping[str, str]) -> None:
    """Names and colours of series, in one line."""
    wide, high = figure.get_size_inches()
    x, end = room[0] + 0.15 / wide, room[0] + room[2]
    for name, colour in names.items():
        if x + (len(name) * 0.058 + 0.2) / wide > end:
            figure.text(x, room[1] + 0.12 / high, "…", fontsize=7, va="center")
            return
        figure.text(x, room[1] + 0.12 / high, "—", color=colour, fontsize=9, weight="bold", va="center")
        figure.text(x + 0.13 / wide, room[1] + 0.12 / high, name, fontsize=7, va="center")
        x += (len(name) * 0.058 + 0.3) / wide
