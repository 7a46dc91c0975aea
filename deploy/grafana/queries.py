"""PromQL of the dashboards: which daemon is asked, and for which runs and models."""

from __future__ import annotations

from dataclasses import dataclass

ONE = 'instrument=~"$instrument", instance="$daemon"'
"""Labels of the one daemon that is chosen."""
MANY = 'instrument=~"$instrument", instance=~"$daemon"'
"""Labels of all daemons that are chosen."""
_OTHERS = (
    'unless on (job, instance) beamsieve_run_info{run!~"$run"} '
    'unless on (job, instance) beamsieve_model_info{name!~"$model"}'
)


@dataclass(frozen=True)
class Query:
    """An expression and the name of its series, with ``{{label}}`` filled in. ``now``: only the last value is asked."""

    expr: str
    legend: str = ""
    now: bool = False


def of(name: str, more: str = "", who: str = ONE) -> str:
    """The selector of a metric: of the daemon that is chosen, with ``more`` labels."""
    return f"{name}{{{who}{', ' if more else ''}{more}}}"


def chosen(expr: str) -> str:
    """``expr`` without the times of other runs and models than those chosen; it must keep the labels job and instance.

    Taken away rather than joined: a daemon without a run, or without a model, then stays as it is.
    """
    return f"({expr}) {_OTHERS}"


def rate(name: str, more: str = "", who: str = ONE) -> str:
    """Per second, of the runs and models that are chosen; one series for each set of labels."""
    return chosen(f"rate({of(name, more, who)}[$__rate_interval])")


def grown(name: str, more: str = "", who: str = ONE, over: str = "$__interval") -> str:
    """How many were counted within ``over``: one step of the curve, if nothing else. Whole numbers, each counted once.

    A counter that was not there before, or began again, has grown by what it is. ``increase`` leaves a counter's first
    value out, and with it the only failure of the night, and guesses what was between scrapes.
    """
    one = of(name, more, who)
    return chosen(f"{one} - {one} offset {over} >= 0 or {one} + 0")


def buckets(name: str, more: str = "", who: str = ONE) -> str:
    """What was counted in each bucket of a histogram, for a heat map."""
    counted = chosen(f"increase({of(f'{name}_bucket', more, who)}[$__rate_interval])")
    return f"sum by (le) ({counted})"


def mean(name: str, over: str, more: str = "", who: str = ONE) -> str:
    """The mean of what a histogram counted within ``over``; nothing where nothing was counted."""
    total, count = (f"increase({of(f'{name}_{part}', more, who)}[{over}])" for part in ("sum", "count"))
    return chosen(f"{total} / ({count} > 0)")


def either(*exprs: str) -> str:
    """All series of several expressions."""
    return " or ".join(exprs)


def labelled(expr: str, label: str, value: str) -> str:
    """``expr`` with one more label."""
    return f'label_replace({expr}, "{label}", "{value}", "", "")'
