"""``beamsieve marks``: what reviewers said, by run and by person, and what it tells of purity and recall."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ..flow.frame import BadData
from ..flow.settings import ConfigError
from ..formats.marks import FILE, Mark, pixels_path, read_marks
from ..live.estimates import Estimate, Totals, purity, recall
from .mistakes import user_mistakes
from .run import config_errors

EXTRA = ("key", "group", "micrograph", "x", "y")
COLUMNS = (
    *("id", "kind", "truth", "verdict", "by", "time", "score", "accepted", "weight", "threshold", "model", "run"),
    *EXTRA,
    "pixels",
)


def marks(
    path: Annotated[Path, typer.Argument(help=f"a {FILE}, or the folder that holds it")],
    accepted: Annotated[
        int | None, typer.Option(min=0, help="frames accepted in all, of which the marks are a sample")
    ] = None,
    rejected: Annotated[int | None, typer.Option(min=0, help="frames rejected in all; with --accepted: recall")] = None,
    run: Annotated[str | None, typer.Option(help="of this run only")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="write one line per mark to this file")] = None,
) -> None:
    """Show the marks of a review: how many verdicts were right, by run and by reviewer, with purity and recall.

    Purity is of the frames (or picks) that were accepted. Recall needs to know how many frames were accepted and
    rejected in all (beamsieve_frames_total), and marked random misses. Intervals are at 95 %; marks of what somebody
    went looking for do not count in either.
    Exit code 0: shown. 1: the file cannot be read or written. 2: a wrong option, or no marks.
    """
    with user_mistakes(), config_errors():
        if (accepted is None) != (rejected is None):
            raise ConfigError(["--accepted and --rejected: give both, or neither"])
        found = _read(path, run)
        if csv_file is not None:
            _write(csv_file, path, found)
        totals = None if accepted is None or rejected is None else Totals(accepted, rejected)
        show(found, totals)


def _read(path: Path, run: str | None) -> list[Mark]:
    file = path / FILE if path.is_dir() else path
    if not file.exists():
        raise ConfigError([f"{file}: no such file; name the {FILE} of a daemon, or the folder that holds it"])
    found = [mark for mark in read_marks(file).values() if run is None or mark.run == run]
    if not found:
        runs = ", ".join(dict.fromkeys(mark.run or "-" for mark in read_marks(file).values()))
        of = f" of run {run} (there are: {runs})" if run is not None and runs else ""
        raise ConfigError([f"{file}: holds no marks{of}"])
    return found


def show(found: Sequence[Mark], totals: Totals | None) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("", "right", "wrong", "true", "purity", "recall", box=None)
    groups: list[tuple[str, list[Mark]]] = [("all", list(found))]
    groups += [(f"run {name or '-'}", part) for name, part in _by(found, lambda mark: mark.run)]
    groups += [(f"by {name or '-'}", part) for name, part in _by(found, lambda mark: mark.by)]
    for name, part in groups:
        right = sum(bool(mark.right) for mark in part)
        true = sum(bool(mark.truth) for mark in part)
        # What was judged in all is known of all together, not of a part.
        of_all = totals if name == "all" else None
        numbers = (str(right), str(len(part) - right), str(true))
        table.add_row(name, *numbers, *(_shown(one) for one in estimates(part, of_all)))
    console.print(table)
    if totals is None:
        console.print("recall needs --accepted and --rejected: how many frames were judged in all", style="dim")


def estimates(part: Sequence[Mark], totals: Totals | None) -> tuple[Estimate | None, Estimate | None]:
    """Purity and recall at the threshold in force last; of picks, whose misses nobody draws, the purity alone."""
    known = [mark for mark in part if math.isfinite(mark.threshold)]
    threshold = max(known, key=lambda mark: mark.time).threshold if known else 0.0
    return purity(part, threshold, totals), recall(part, threshold, totals)


def _by(found: Iterable[Mark], what: Callable[[Mark], str]) -> list[tuple[str, list[Mark]]]:
    groups: dict[str, list[Mark]] = {}
    for mark in found:
        groups.setdefault(what(mark), []).append(mark)
    return list(groups.items())


def _shown(one: Estimate | None) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" if one else "-"


def _write(file: Path, path: Path, found: Sequence[Mark]) -> None:
    folder = path if path.is_dir() else path.parent
    try:
        with file.open("w", newline="", encoding="utf-8") as out:
            rows = csv.writer(out)
            rows.writerow(COLUMNS)
            rows.writerows(_row(mark, folder) for mark in found)
    except OSError as error:
        raise BadData("csv", f"{file}: cannot be written: {error.strerror or error}; give another --csv") from None
    sys.stderr.write(f"{file}: {len(found)} marks\n")


def _row(mark: Mark, folder: Path) -> list[object]:
    pixels = pixels_path(folder, mark.id)
    plain = mark.to_json()
    told = {
        **{name: plain[name] for name in COLUMNS if name in plain},
        **{name: mark.extra.get(name, "") for name in EXTRA},
        "verdict": "right" if mark.right else "wrong",
        "time": datetime.fromtimestamp(mark.time, UTC).isoformat(timespec="seconds"),
        "pixels": str(pixels) if pixels.exists() else "",
    }
    return ["" if told[name] is None else told[name] for name in COLUMNS]
