"""``beamsieve inspect``: what is in CXI files, whether they obey the format, and a look at their first hits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from ..errors import plain
from ..flow.frame import BadData
from ..sinks.check_cxi import FILE_RULE, FILE_TEXT, RULES, Finding, check
from ..sinks.cxi_summary import HitRate, Summary, first_hits, summarise
from .run import write_json

SHEET = 16
_COLUMNS = 4


def inspect(
    files: Annotated[list[Path], typer.Argument(help="CXI files; also those that are being written")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write what is found to this file")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="draw the first accepted frames of the first file")] = None,
    every: Annotated[bool, typer.Option("--every", help="list every place of every rule, not only what fails")] = False,
) -> None:
    """Say what is in CXI files: frames, hits, the hit rate they stand for, and which rules of CXI 1.6 they keep.

    Exit code 1 if a file breaks a rule or cannot be read, 2 if one is not there.
    """
    console = Console()
    reports: list[dict[str, Any]] = []
    opened: set[Path] = set()
    for path in files:
        if not path.is_file():
            typer.echo(f"{path}: no such file; name a CXI file", err=True)
            continue
        findings = check(path)
        closed = _cannot_be_opened(findings)
        if closed:
            typer.echo(closed, err=True)
            reports.append(_report(path, findings, None))
            continue
        opened.add(path)
        summary: Summary | None = None
        try:
            summary = summarise(path)
        except (BadData, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            console.print(f"[red]{path}: nothing to count: {plain(error)}[/red]", highlight=False)
        if summary is not None:
            _print_summary(console, summary)
        _print_rules(console, path, findings, every)
        reports.append(_report(path, findings, summary))
    if json_file is not None:
        write_json(json_file, reports)
    if png is not None and files[0] in opened:
        _draw(png, files[0])
        console.print(f"first accepted frames: {png}", highlight=False)
    if any(not report["ok"] for report in reports):
        raise typer.Exit(1)
    if not all(path.is_file() for path in files):
        raise typer.Exit(2)


def _cannot_be_opened(findings: Sequence[Finding]) -> str | None:
    """Why a file cannot even be opened, or None."""
    only = findings[0]
    return only.detail if len(findings) == 1 and only.rule == FILE_RULE and not only.ok else None


def _report(path: Path, findings: Sequence[Finding], summary: Summary | None) -> dict[str, Any]:
    return {
        "file": str(path),
        "ok": all(finding.ok for finding in findings),
        "summary": None if summary is None else dataclasses.asdict(summary),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def _print_summary(console: Console, summary: Summary) -> None:
    table = Table(title=summary.path, title_justify="left", show_header=False, box=None)
    shape = " x ".join(map(str, summary.shape))
    table.add_row("frames", f"{summary.frames} of {shape}, {summary.dtype}")
    if summary.hits is not None:
        table.add_row("hits", str(summary.hits))
        table.add_row("random misses", f"{summary.random_misses}")
        table.add_row("stand for", f"{summary.stand_for:.10g} frames")
        table.add_row("hit rate", _rate(summary.hit_rate))
        table.add_row("labels", ", ".join(f"{label}: {count}" for label, count in summary.labels.items()))
        table.add_row("threshold", ", ".join(f"{value:.4g}" for value in summary.thresholds) or "unknown")
        table.add_row("model", ", ".join(summary.models) or "none")
    for name, word in summary.words.items():
        table.add_row(name, word)
    for name, value in summary.facts.items():
        table.add_row(name, f"{value:.6g}")
    console.print(table, highlight=False)


def _rate(rate: HitRate | None) -> str:
    if rate is None:
        return "unknown: no random misses were kept (keep.miss_fraction)"
    return f"{100 * rate.rate:.3g} % (95 %: {100 * rate.low:.3g} to {100 * rate.high:.3g} %)"


def _print_rules(console: Console, path: Path, findings: Sequence[Finding], every: bool) -> None:
    broken = [finding for finding in findings if not finding.ok]
    table = Table("rule", "", "what it asks", title=f"{path.name}: CXI 1.6", title_justify="left", box=None)
    for name, words in [(FILE_RULE, FILE_TEXT), *((name, words) for name, (words, _) in RULES.items())]:
        mine = [finding for finding in findings if finding.rule == name]
        mark = "-" if not mine else ("[green]ok[/green]" if all(finding.ok for finding in mine) else "[red]NO[/red]")
        table.add_row(name, mark, words)
    console.print(table, highlight=False)
    for finding in findings if every else broken:
        colour = "green" if finding.ok else "red"
        console.print(f"[{colour}]{finding.rule}[/{colour}] {finding.where} {finding.detail}", highlight=False)
    console.print(f"{len(findings)} checks, {len(broken) or 'none'} failed\n", highlight=False)


def _draw(png: Path, path: Path) -> None:
    """A contact sheet, colours by log(1 + value)."""
    from matplotlib.figure import Figure

    frames = first_hits(path, SHEET)
    rows = max(1, -(-len(frames) // _COLUMNS))
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.6 * rows), layout="constrained")
    for at, (title, image) in enumerate(frames, 1):
        axes = figure.add_subplot(rows, _COLUMNS, at)
        axes.imshow(_log(image), cmap="magma", interpolation="nearest")
        axes.set_title(title, fontsize=7)
        axes.set_axis_off()
    if not frames:
        figure.text(0.5, 0.5, "no accepted frame", ha="center")
    figure.savefig(png, dpi=120)


def _log(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log1p(np.clip(np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0), 0.0, None))
