"""What ``beamsieve mine`` reads and shows: tomograms that are named, and tables of what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..flow.settings import ConfigError
from ..formats.tomogram_names import ENDINGS, NOT_TOMOGRAMS
from ..sources.folder.patterns import compile_globs

if TYPE_CHECKING:
    from ..beamlines.mining_offline import Done

SHOWN = 12
_SUFFIXES = tuple(f".{ending}" for ending in ENDINGS)


def find(named: Sequence[Path], out: Path) -> list[Path]:
    """The files that are named, and the tomograms in folders that are. Raises ``ConfigError``.

    Of a folder, half volumes, masks and what ``out`` holds are left out, as the daemon does.
    """
    beside = compile_globs(NOT_TOMOGRAMS)
    files: list[Path] = []
    mistakes: list[str] = []
    for path in named:
        if path.is_dir():
            inside = [one for one in sorted(path.rglob("*")) if one.suffix.lower() in _SUFFIXES and one.is_file()]
            wanted = [one for one in inside if not beside(one.relative_to(path).as_posix()) and not _is_in(one, out)]
            mistakes += [] if wanted else [_none_in(path, out)]
            files += wanted
        elif path.exists():
            files.append(path)
        else:
            mistakes.append(f"{path}: no such file or folder")
    if mistakes:
        raise ConfigError(mistakes)
    return list(dict.fromkeys(files))


def _none_in(path: Path, out: Path) -> str:
    if _is_in(path, out):
        return f"{path}: no tomograms are taken from --out {out}, where results are written; choose another folder"
    return f"{path}: no tomograms in it ({', '.join(_SUFFIXES)})"


def _is_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def show(done: Done) -> None:
    """Print a row per tomogram, the largest clusters, and the whole."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    wide = console if console.is_terminal else Console(width=160)
    if done.table:
        table = Table("tomogram", "voxels", "Å", "sub-volumes", "classes", "error", "seconds", box=None)
        for row in done.table:
            z, y, x = row["shape"]
            error = "–" if row["error"] is None else f"{row['error']:.3f}"
            numbers = (f"{x}×{y}×{z}", f"{row['voxel_a']:.2f}", str(row["subvolumes"]), classes(row), error)
            table.add_row(row["tomogram"], *numbers, f"{row['seconds']:.1f}")
        wide.print(table)
    for name in done.there:
        typer.echo(f"{name}: was mined before with the same settings; left as it is")
    for row in done.table:
        for flag in row["flags"]:
            typer.echo(f"{row['tomogram']}: {flag}", err=True)
    summary = done.summary
    if summary["clusters"]:
        largest = ", ".join(_cluster(one) for one in summary["clusters"][:SHOWN])
        typer.echo(f"{len(summary['clusters'])} clusters; the largest (cluster: sub-volumes): {largest}")
    for why in summary["hindered"]:
        typer.echo(why, err=True)
    tomograms = len(done.table) + len(done.there)
    typer.echo(
        f"{summary['subvolumes']} sub-volumes of all tomograms in {summary['directory']}; {tomograms} tomograms here, "
        f"{len(done.failures)} failed; model {summary['model']}"
    )
    if summary["sheet"]:
        typer.echo(f"look at {summary['sheet']}, then mark what you know:")
        typer.echo(f'beamsieve cluster tomograms {summary["directory"]} --mark "membrane=3,7" --kind surface')


def classes(row: dict[str, Any]) -> str:
    """Sub-volumes by class, the unmarked last."""
    return ", ".join(f"{n} {name}" for name, n in row["classes"].items() if n) or "–"


def _cluster(one: dict[str, Any]) -> str:
    return f"{one['id']}: {one['count']}" + (f" {one['group']}" if one["group"] else "")
