"""Scores of pickers as a table on the terminal, and as pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ...models.particles.study import Row


def show(title: str, rows: list[Row]) -> None:
    """Print a table: a line per row and picker."""
    from rich.console import Console
    from rich.table import Table

    from ...models.particles.scores import scores_of

    # A line of a table that is broken in the middle of a number is of no use; a terminal can scroll or be widened.
    console = Console(width=max(Console().width, 180))
    near = f"{0.2:g} D"
    table = Table(title=title)
    for heading in ("", "picker", f"AP {near}", "AP 0.5 D", f"F1 {near}", f"F2 {near}", "from", "precision", "recall"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in {"", "picker"} else "right")
    for heading in ("centre error", "picks/true", "on carbon", "s each"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        s = scores_of(row["scores"])
        at, far = s.at[0.2], s.at[0.5]
        table.add_row(
            row["row"],
            row["picker"],
            str(at.average_precision),
            f"{far.average_precision.value:.3f}",
            f"{at.best_f1.f:.3f}" if at.best_f1 else "-",
            f"{at.best_f2.f:.3f}" if at.best_f2 else "-",
            f"{s.threshold:.3f}",
            f"{at.precision.value:.3f}",
            f"{at.recall.value:.3f}",
            f"{at.error_rms:.3f} D = {at.error_rms_px:.1f} px",
            f"{sum(s.picks)}/{sum(s.targets)}",
            "-" if s.carbon_share != s.carbon_share else f"{100 * s.on_carbon:.1f} % of {100 * s.carbon_share:.0f} %",
            f"{s.seconds:.2f}",
        )
    console.print(table)
    typer.echo(
        "AP: average precision, all particles counted. F1, F2: the highest on the curve. Precision and recall at 0.2 D "
        "of the picks that score at least what stands under 'from'. On carbon: share of picks, of the area."
    )


def draw(tables: dict[str, list[Row]], folder: Path) -> None:
    """Draw a precision-recall curve per row, and average precision by ratio or size. Raises ``OSError``."""
    from ...models.particles.report import draw_curves, draw_series
    from ...models.particles.scores import scores_of

    folder.mkdir(parents=True, exist_ok=True)
    for title, rows in tables.items():
        by_row: dict[str, dict[str, Any]] = {}
        lines: dict[str, list[tuple[float, float, float, float]]] = {}
        for row in rows:
            scores = scores_of(row["scores"])
            by_row.setdefault(row["row"], {})[row["picker"]] = scores
            ap = scores.at[0.2].average_precision
            lines.setdefault(row["picker"], []).append(
                (float(row.get("snr") or row.get("size") or 0), ap.value, ap.low, ap.high)
            )
        for name, scores_by_picker in by_row.items():
            slug = re.sub(r"[^A-Za-z0-9.]+", "-", name)
            draw_curves(folder / f"curve-{slug}.png", scores_by_picker, f"{title}\n{name}, 0.2 D", 0.2)
        for key, label in (("snr", "signal-to-noise ratio"), ("size", "training particles")):
            if key in rows[0] and len(by_row) > 1:
                draw_series(folder / f"by-{key}.png", lines, label, title)
