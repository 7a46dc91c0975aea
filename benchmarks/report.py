"""What a benchmark found: rows for a table, targets with their verdicts, and the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass
class Target:
    """A number that was asked for, beside the one that was measured."""

    what: str
    wanted: float
    measured: float
    unit: str = ""
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "pass" if self.met else "FELL SHORT"
        return f"{verdict}: {self.what}: {self.measured:.3g} {self.unit} (target {sign} {self.wanted:g} {self.unit})"


@dataclass
class Report:
    """One benchmark's table. ``rows`` hold plain values; ``columns`` says which are shown, and how they are written."""

    name: str
    title: str
    columns: Mapping[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        targets = [
            {"what": t.what, "wanted": t.wanted, "measured": t.measured, "unit": t.unit, "met": t.met}
            for t in self.targets
        ]
        return {"title": self.title, "rows": self.rows, "targets": targets, "notes": self.notes}

    def show(self) -> None:
        """Print the table, the targets and the notes."""
        heads = list(self.columns)
        cells = [[_written(row.get(name), how) for name, how in self.columns.items()] for row in self.rows]
        try:
            _rich(self.title, heads, cells)
        except ImportError:
            _plain(self.title, heads, cells)
        for note in self.notes:
            print(f"  {note}")
        for target in self.targets:
            print(f"  {target}")
        print(flush=True)


def _written(value: Any, how: str) -> str:
    if value is None:
        return ""
    return format(value, how) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _rich(title: str, heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i == 0 else "right")
    for row in cells:
        table.add_row(*row)
    console = Console()
    # Into a pipe or a file a table has no width of its own; a cut column would hide what was measured.
    (console if console.is_terminal else Console(width=190)).print(table)


def _plain(title: str, heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    print(title)
    for row in (heads, *cells):
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


def machine(device: str) -> dict[str, Any]:
    """Where it was measured, with what, and how busy the machine was with other things."""
    import torch

    found: dict[str, Any] = {
        "device": device,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "when": f"{datetime.now():%Y-%m-%d %H:%M}",
        "load": round(os.getloadavg()[0], 2),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    try:
        asked = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return asked.stdout.strip()


def save(path: Path, where: Mapping[str, Any], reports: Sequence[Report]) -> None:
    """Write all of it to a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": dict(where), "benchmarks": {report.name: report.to_json() for report in reports}}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
