"""Panels: time series, single numbers, tables, heat maps and texts, each with what it means and how it is to be read.

Colours are those that people who see red and green alike can tell apart (Okabe and Ito, 2008): blue is well, orange
is not, and beside the colour there is always a number or a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, statetimeline, text, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as m
from grafana_foundation_sdk.models import heatmap as of_heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from .queries import Query

BLUE, SKY, ORANGE, GREEN, PURPLE, YELLOW = "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442"
GREY, PLAIN = "#8E8E8E", "text"
SOURCE = m.DataSourceRef(type_val="prometheus", uid="${datasource}")
Steps = Sequence[tuple[float | None, str]]
"""(From which value on, colour); the first has no value."""
STEADY: Steps = ((None, SKY),)


class Builder(Protocol):
    """What all of the kit's builders of panels have."""

    def build(self) -> m.Panel:
        """The panel."""
        ...


@dataclass(frozen=True)
class Panel:
    """A panel and its size in the grid, which is 24 wide; a unit of height is 30 pixels. ``id``: where links lead."""

    builder: Builder
    w: int
    h: int
    id: int | None = None


def targets(builder: Any, queries: Sequence[Query], kind: str = "time_series") -> None:
    """Give a panel its queries, named A, B, C and so on."""
    for number, query in enumerate(queries):
        one = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number)).datasource(SOURCE)
        one = one.instant() if query.now else one.range()
        one.legend_format(query.legend or "__auto")
        builder.with_target(one.format(PromQueryFormat(kind)))


def named(builder: Any, title: str, text: str, unit: str, decimals: int | None, nothing: str) -> None:
    """What every panel with numbers has: title, description, unit, decimals, and what stands where there is no data."""
    builder.title(title).description(text).datasource(SOURCE).unit(unit).no_value(nothing)
    if decimals is not None:
        builder.decimals(decimals)


def limits(builder: Any, low: float | None, high: float | None) -> None:
    """Where the axis ends, if not where the data do."""
    if low is not None:
        builder.min(low)
    if high is not None:
        builder.max(high)


def steps(values: Steps) -> build.ThresholdsConfig:
    """Colours from given values on."""
    found = [m.Threshold(value=value, color=colour) for value, colour in values]
    return build.ThresholdsConfig().mode(m.ThresholdsMode.ABSOLUTE).steps(found)


def words(meaning: Mapping[str, tuple[str, str]]) -> list[m.ValueMapping]:
    """Values shown as a word in a colour: ``{"1": ("ready", BLUE)}``."""
    options = {
        value: m.ValueMappingResult(text=word, color=colour, index=index)
        for index, (value, (word, colour)) in enumerate(meaning.items())
    }
    return [m.ValueMap(options=options)]


def fixed(colour: str) -> m.DynamicConfigValue:
    """The setting that gives a series its colour."""
    return m.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


def series(
    title: str,
    text: str,
    queries: Sequence[Query],
    *,
    unit: str,
    w: int = 12,
    h: int = 8,
    decimals: int | None = None,
    low: float | None = 0,
    high: float | None = None,
    nothing: str = "no data in this time",
    stacked: bool = False,
    bars: bool = False,
    stepped: bool = False,
    log: bool = False,
    every: str = "",
    band: tuple[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    worry: float | None = None,
) -> Panel:
    """Curves over time. ``band``: names of the lower and the upper series, with the room between them filled.

    ``worry``: a dashed line at the value of which an alert speaks. ``every``: the shortest step; counts of a step then
    hardly overlap those of the next.
    """
    panel = timeseries.Panel().line_width(2).span_nulls(False).show_points(c.VisibilityMode.AUTO)
    named(panel, title, text, unit, decimals, nothing)
    limits(panel, low, high)
    targets(panel, queries)
    panel.legend(_legend()).tooltip(_tooltip()).fill_opacity(70 if bars else 25 if stacked else 0)
    panel.color_scheme(build.FieldColor().mode(m.FieldColorModeId.PALETTE_CLASSIC))
    if bars:
        panel.draw_style(c.GraphDrawStyle.BARS).line_width(1)
    if stepped:
        panel.line_interpolation(c.LineInterpolation.STEP_AFTER)
    if stacked:
        panel.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL).group("A"))
    if every:
        panel.interval(every)
    if log:
        panel.scale_distribution(common.ScaleDistributionConfig().type(c.ScaleDistribution.LOG).log(10))
    values = STEADY if worry is None else ((None, SKY), (worry, ORANGE))
    panel.thresholds(steps(values))
    if worry is not None:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphTresholdsStyleMode.DASHED))
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [fixed(colour)])
    if band is not None:
        _fill_between(panel, *band)
    return Panel(panel, w, h)


def _fill_between(panel: timeseries.Panel, lower: str, upper: str) -> None:
    thin = m.DynamicConfigValue(id_val="custom.lineWidth", value=0)
    fill = m.DynamicConfigValue(id_val="custom.fillOpacity", value=20)
    panel.override_by_name(upper, [thin, fill, m.DynamicConfigValue(id_val="custom.fillBelowTo", value=lower)])
    panel.override_by_name(lower, [thin])


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().display_mode(c.LegendDisplayMode.LIST).placement(c.LegendPlacement.BOTTOM)
    return legend.show_legend(True).calcs([])


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING)


def number(
    title: str,
    text: str,
    query: Query,
    *,
    unit: str,
    w: int = 3,
    decimals: int | None = None,
    low: float | None = None,
    high: float | None = None,
    nothing: str = "no data",
    colours: Steps = STEADY,
    meaning: Mapping[str, tuple[str, str]] | None = None,
    name: bool = False,
    curve: bool = True,
) -> Panel:
    """One number, large. ``name``: the series' name instead of its value; ``curve``: its course behind it."""
    panel = stat.Panel().orientation(c.VizOrientation.AUTO).justify_mode(c.BigValueJustifyMode.AUTO)
    named(panel, title, text, unit, decimals, nothing)
    limits(panel, low, high)
    targets(panel, [query])
    panel.text_mode(c.BigValueTextMode.NAME if name else c.BigValueTextMode.VALUE)
    panel.color_mode(c.BigValueColorMode.NONE if name else c.BigValueColorMode.VALUE)
    panel.graph_mode(c.BigValueGraphMode.AREA if curve and not query.now else c.BigValueGraphMode.NONE)
    # The last value, even if it is none: a number from before the daemon went down is not the number now.
    panel.reduce_options(common.ReduceDataOptions().calcs(["last"]).values(False).fields(""))
    panel.color_scheme(build.FieldColor().mode(m.FieldColorModeId.THRESHOLDS)).thresholds(steps(colours))
    if meaning:
        panel.mappings(words(meaning))
    return Panel(panel, w, 4)


def heat(
    title: str, text: str, query: Query, *, unit: str, axis: str, w: int = 12, h: int = 8, nothing: str = "no data"
) -> Panel:
    """A heat map: counts by bucket (``unit``, of the values on the axis named ``axis``) and time."""
    panel = heatmap.Panel().calculate(False).cell_gap(1).show_legend().show_tooltip().show_value(c.VisibilityMode.NEVER)
    named(panel, title, text, unit, None, nothing)
    targets(panel, [query], "heatmap")
    panel.thresholds(steps(STEADY))
    panel.scale_distribution(common.ScaleDistributionConfig().type(c.ScaleDistribution.LINEAR))
    panel.y_axis(_y_axis(unit, axis)).cell_values(heatmap.CellValues().unit("short").decimals(0))
    scheme = heatmap.HeatmapColorOptions().mode(of_heat.HeatmapColorMode.SCHEME).scheme("Viridis").steps(64)
    panel.color(scheme.scale(of_heat.HeatmapColorScale.EXPONENTIAL).exponent(0.5).fill(BLUE).reverse(False).min(0))
    panel.filter_values(heatmap.FilterValueRange().le(1e-9))
    return Panel(panel, w, h)


def _y_axis(unit: str, axis: str) -> heatmap.YAxisConfig:
    return heatmap.YAxisConfig().unit(unit).axis_label(axis).axis_placement(c.AxisPlacement.LEFT).reverse(False)


def states(
    title: str, text: str, query: Query, meaning: Mapping[str, tuple[str, str]], *, w: int = 24, h: int = 6
) -> Panel:
    """A bar over time for each series, in words and colours."""
    panel = statetimeline.Panel().show_value(c.VisibilityMode.AUTO).merge_values(True).row_height(0.8)
    named(panel, title, text, "none", 0, "no data")
    targets(panel, [query])
    panel.mappings(words(meaning)).legend(_legend()).tooltip(_tooltip()).thresholds(steps(STEADY))
    panel.color_scheme(build.FieldColor().mode(m.FieldColorModeId.THRESHOLDS)).fill_opacity(80)
    return Panel(panel, w, h)


def page(title: str, about: str, content: str, *, w: int = 24, h: int = 12) -> Panel:
    """A text, in Markdown."""
    panel = text.Panel().title(title).description(about).mode(TextMode.MARKDOWN).content(content)
    return Panel(panel, w, h)
