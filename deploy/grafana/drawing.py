"""How the kinds of panel are drawn, for pictures in the docs. Boxes are (left, bottom, width, height) of the figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .asking import of_panel
from .canvas import INK, Box, Sheet, axes_in, coloured, frame, legend, limits, nothing, overrides, settings, spelt

PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#BBBBBB")


def heading(figure: Any, box: Box, panel: Mapping[str, Any], _: Sheet) -> None:
    """The title of a row."""
    figure.text(box[0] + 0.005, box[1] + box[3] / 2, panel["title"], fontsize=9.5, va="center", color="#9FA7B3")


def stat(figure: Any, box: Box, panel: Mapping[str, Any], sheet: Sheet) -> None:
    """A large number, or a name."""
    room, own = frame(figure, box, panel), settings(panel)
    found = [pair for question in of_panel("", panel) for pair in sheet.curves(question)]
    found = [(name, curve) for name, curve in found if math.isfinite(curve.values[-1])]
    if not found:
        return nothing(figure, room, panel)
    name, curve = found[0]
    word, colour = coloured(curve.values[-1], own["thresholds"], own.get("mappings"))
    text = word or spelt(curve.values[-1], own["unit"], own.get("decimals"))
    if panel["options"]["textMode"] == "name":
        text, colour = textwrap.fill(name, 20), INK
    if panel["options"]["graphMode"] == "area" and len(curve.values) > 1:
        axes = figure.add_axes((room[0], room[1], room[2], room[3] * 0.4))
        axes.axis("off")
        axes.fill_between(range(len(curve.values)), curve.values, color=colour, alpha=0.3, lw=0)
    size = 17 if len(text) < 10 else 11 if len(text) < 18 else 9
    figure.text(
        room[0] + room[2] / 2, room[1] + room[3] * 0.55, text, ha="center", va="center", color=colour, fontsize=size
    )
    return None


def curves(figure: Any, box: Box, panel: Mapping[str, Any], sheet: Sheet) -> None:
    """Time series."""
    room, own = frame(figure, box, panel), settings(panel)
    custom = own.get("custom", {})
    own_sheet = sheet.at(panel)
    found = [(name, np.array(c.values)) for q in of_panel("", panel) for name, c in own_sheet.curves(q)]
    found = [(name, values) for name, values in found if np.isfinite(values).any()]
    if not found:
        return nothing(figure, room, panel)
    axes = axes_in(figure, room, sheet, 0.2)
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
    names = {}
    times = own_sheet.times
    base = np.zeros(len(times))
    for place, (name, values) in enumerate(found):
        look = overrides(panel, name)
        colour = look.get("color", {}).get("fixedColor", PALETTE[place % len(PALETTE)])
        names[name] = colour
        if "custom.fillBelowTo" in look:
            lower = next(other for title, other in found if title == look["custom.fillBelowTo"])
            axes.fill_between(times, lower, values, color=colour, alpha=0.25, lw=0)
        elif look.get("custom.lineWidth") != 0:
            base = _one(axes, times, values, base, custom, colour)
    limits(axes, own)
    axes.yaxis.set_major_formatter(lambda value, _: spelt(value, own["unit"], own.get("decimals")))
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        worry = own["thresholds"]["steps"][-1]
        axes.axhline(worry["value"], color=worry["color"], lw=0.8, ls="--")
    legend(figure, room, names)
    return None


def _one(axes: Any, times: list[float], values: Any, base: Any, custom: Mapping[str, Any], colour: str) -> Any:
    """One curve, on top of ``base`` where curves are stacked; returns what the next one stands on."""
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    top = base + np.nan_to_num(values) if stacked else values
    step = "post" if custom.get("lineInterpolation") == "stepAfter" else None
    if custom.get("drawStyle") == "bars":
        axes.bar(times, top - base, width=0.9 * (times[1] - times[0]), bottom=base, color=colour, alpha=0.8, lw=0)
        return top if stacked else base
    if stacked:
        axes.fill_between(times, base, top, color=colour, alpha=0.25, lw=0, step=step)
    axes.plot(
        times,
        np.where(np.isfinite(values), top, np.nan),
        color=colour,
        lw=1.3,
        drawstyle="steps-post" if step else "default",
    )
    return top if stacked else base


def heat(figure: Any, box: Box, panel: Mapping[str, Any], sheet: Sheet) -> None:
    """A heat map of a histogram: what is between two upper bounds is the difference of their counts."""
    room = frame(figure, box, panel)
    (question,) = of_panel("", panel)
    found = {float(curve.labels["le"]): np.array(curve.values) for _, curve in sheet.curves(question)}
    bounds = sorted(found)
    if len(bounds) < 2 or not np.isfinite(found[bounds[-1]]).any():
        return nothing(figure, room, panel)
    counts = np.clip(np.diff([np.nan_to_num(found[bound]) for bound in bounds], axis=0, prepend=0), 0, None)
    axes = axes_in(figure, room, sheet, 0.0)
    axes.grid(visible=False)
    used = np.ma.masked_less_equal(counts, 0.01)
    half = (sheet.times[1] - sheet.times[0]) / 2
    edges = [*(time - half for time in sheet.times), sheet.times[-1] + half]
    axes.pcolormesh(edges, range(len(bounds) + 1), np.sqrt(used), cmap="viridis", rasterized=True)
    every = max(1, len(bounds) // 6)
    unit = panel["options"]["yAxis"]["unit"]
    names = ["inf" if math.isinf(bound) else spelt(bound, unit) for bound in bounds]
    axes.set_yticks(range(1, len(bounds) + 1, every), names[::every])
    axes.set_ylabel(panel["options"]["yAxis"]["axisLabel"], fontsize=7)
    return None


def table(figure: Any, box: Box, panel: Mapping[str, Any], sheet: Sheet) -> None:
    """A table: rows of all queries merged where their labels agree."""
    room = frame(figure, box, panel)
    merged = _merged(panel, sheet)
    if not merged:
        return nothing(figure, room, panel)
    order = panel["transformations"][-1]["options"]
    columns = sorted(order["indexByName"], key=lambda name: order["indexByName"][name])
    columns = [name for name in columns if not order["excludeByName"].get(name)]
    _, high = figure.get_size_inches()
    places = _places(columns, merged, order["renameByName"], room)
    for line, row in enumerate([None, *merged]):
        y = room[1] + room[3] - (0.15 + 0.25 * line) / high
        if y < room[1]:
            break
        for name, x in zip(columns, places, strict=True):
            title = order["renameByName"][name]
            if row is None:
                figure.text(x, y, title, fontsize=7.5, weight="bold", va="center", color="#9FA7B3")
                continue
            text, colour = _cell(panel, title, row.get(name))
            figure.text(x, y, text, fontsize=7.5, va="center", color=colour)
    return None


def _places(columns: list[str], rows: list[dict[str, Any]], titles: Mapping[str, str], room: Box) -> list[float]:
    lengths = [
        max(len(titles[c]), *(len(str(r.get(c, ""))) if isinstance(r.get(c), str) else 6 for r in rows)) + 2
        for c in columns
    ]
    ends = np.cumsum([0, *lengths])
    return [room[0] + 0.005 + float(end / ends[-1]) * (room[2] - 0.01) for end in ends[:-1]]


def _merged(panel: Mapping[str, Any], sheet: Sheet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    asked = of_panel("", panel)
    for question in asked:
        value = "Value" if len(asked) == 1 else f"Value #{question.ref}"
        for _, curve in sheet.curves(question):
            row = {name: text for name, text in curve.labels.items() if text}
            same = [one for one in found if all(one.get(name, text) == text for name, text in row.items())]
            if not same:
                found.append(row)
                same = [row]
            for line in same:
                line.update(row, **{value: curve.values[-1]})
    by = panel["options"].get("sortBy") or [{"displayName": ""}]
    key = {title: name for name, title in panel["transformations"][-1]["options"]["renameByName"].items()}
    title = key.get(by[0]["displayName"], "")
    return sorted(found, key=lambda row: (isinstance(row.get(title), str), row.get(title, 0.0)))


def _cell(panel: Mapping[str, Any], title: str, value: Any) -> tuple[str, str]:
    if value is None or isinstance(value, str):
        return value or "", INK
    look = overrides(panel, title)
    word, colour = coloured(value, look.get("thresholds"), look.get("mappings"))
    return word or spelt(value, look.get("unit", "none"), look.get("decimals")), colour


def states(figure: Any, box: Box, panel: Mapping[str, Any], sheet: Sheet) -> None:
    """A bar over time for each series."""
    room, own = frame(figure, box, panel), settings(panel)
    (question,) = of_panel("", panel)
    found = sheet.curves(question)
    wide, _ = figure.get_size_inches()
    left = max(0.0, max((len(name) for name, _ in found), default=0) * 0.058 - 0.4) / wide
    axes = axes_in(figure, (room[0] + left, room[1], room[2] - left, room[3]), sheet, 0.2)
    axes.grid(visible=False)
    names: dict[str, str] = {}
    step = sheet.times[1] - sheet.times[0]
    for place, (_, curve) in enumerate(found):
        for when, value in zip(sheet.times, curve.values, strict=True):
            if math.isfinite(value):
                word, colour = coloured(value, None, own["mappings"])
                names[word or ""] = colour
                axes.barh(place, step * 1.05, left=when, height=0.7, color=colour, lw=0)
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    legend(figure, room, names)


def text(figure: Any, box: Box, panel: Mapping[str, Any], _: Sheet) -> None:
    """The beginning of a text."""
    room = frame(figure, box, panel)
    _, high = figure.get_size_inches()
    lines = [
        part
        for line in panel["options"]["content"].splitlines()
        if not line.startswith("```")
        for part in (textwrap.wrap(line.replace("**", "").replace("`", ""), 220) or [""])
    ]
    for number, line in enumerate(lines):
        y = room[1] + room[3] - (0.12 + 0.17 * number) / high
        if y < room[1] + 0.1 / high:
            return
        bold = "bold" if line.startswith("#") else "normal"
        figure.text(room[0] + 0.008, y, line.lstrip("# ").replace("$", r"\$"), fontsize=7.5, va="center", weight=bold)


DRAWN: Mapping[str, Callable[[Any, Box, Mapping[str, Any], Sheet], None]] = {
    "row": heading,
    "stat": stat,
    "timeseries": curves,
    "heatmap": heat,
    "table": table,
    "state-timeline": states,
    "text": text,
}
