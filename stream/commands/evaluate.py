"""``beamsieve evaluate hits``: the table of scores under ever harder conditions."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ..errors import plain
from .bars import bars
from .evaluate_classes import classes2d
from .evaluate_particles import particles
from .evaluate_tomograms import evaluate_tomograms
from .run import write_json

if TYPE_CHECKING:
    from ...models.hits.evaluate import Scores

app = typer.Typer(help="Score a model on fresh test data.", no_args_is_help=True)
app.command()(particles)
app.command()(classes2d)
app.command("tomograms")(evaluate_tomograms)
REAL = Path("spi-pr772") / "labelled27.npz"


@app.callback()
def _group() -> None:
    """Score a model on fresh test data."""


@app.command()
def hits(
    bundle: Annotated[str, typer.Option(help="name of a model, or the path of its .pt file")] = "hits-resnet10",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of the test patterns, which no training sees")] = 2,
    patterns: Annotated[int, typer.Option(min=1, help="per row of the table")] = 2000,
    real: Annotated[
        Path | None, typer.Option(help="labelled real patterns (.npz: patterns, single, mask_bad)", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="processes that simulate; default: all cores")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder that keeps simulated blocks")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the scores to this file")] = None,
) -> None:
    """Five-class accuracy and single-hit scores on particle models never seen in training, row by row.

    Intervals are 95 %, by bootstrap over particle models. Exit code 2: no such model, device or file, or not a hit
    classifier.
    """
    from ...models.bundle import BundleError, load_bundle
    from ...models.hits.evaluate import evaluate, real_patterns, runner
    from ...models.hits.simulator import CLASSES
    from ...models.hits.training_data import choose_device
    from ...models.progress import Lines

    file = real or _shared()
    try:
        model = load_bundle(bundle).expect(task="hits", shape=(128, 128), classes=len(CLASSES))
        run = runner(model.module, choose_device(device))
        if file:
            check_real(file)
    except (BundleError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    try:
        with bars() as progress:
            table = evaluate(run, model.card.threshold, patterns, seed, progress or Lines(), workers, cache)
    except OSError as error:
        typer.echo(f"{plain(error)}; give another --cache", err=True)
        raise typer.Exit(1) from None
    show(table, model.card.name, model.card.threshold)
    found = real_patterns(run, file) if file else None
    if found:
        typer.echo(f"{found['patterns']} real patterns ({file}), {found['single']} single: AUC {found['auc']:.3f}")
    if json_file:
        summary: dict[str, Any] = {
            "bundle": model.card.name,
            "version": model.card.version,
            "sha256": model.card.sha256,
            "threshold": model.card.threshold,
            "seed": seed,
            "patterns": patterns,
            "conditions": {title: scores.to_json() for title, scores in table.items()},
            "real": found,
        }
        write_json(json_file, summary)


def _shared() -> Path | None:
    """The labelled real patterns of the shared data set, where it is mounted."""
    folder = os.environ.get("BEAMSIEVE_DATA")
    path = Path(folder) / REAL if folder else None
    return path if path and path.exists() else None


def check_real(path: Path) -> None:
    """Make sure that a file has labelled patterns. Raises ``ValueError`` naming file, array and remedy."""
    needed = {"patterns", "single", "mask_bad"}
    try:
        with np.load(path, allow_pickle=False) as kept:
            names = set(kept.files) if isinstance(kept, np.lib.npyio.NpzFile) else set()
            shapes = {name: kept[name].shape for name in needed & names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a plain .npz file"
        raise ValueError(f"--real {path}: {why}; name an .npz with {', '.join(sorted(needed))}") from None
    if needed - names:
        raise ValueError(f"--real {path}: has no {', '.join(sorted(needed - names))}; there are {sorted(names)}")
    n = shapes["patterns"][:1]
    fits = shapes["patterns"] == (*n, 128, 128) and shapes["single"] == n
    if not fits or shapes["mask_bad"] not in ((128, 128), (*n, 128, 128)):
        raise ValueError(f"--real {path}: {shapes}; needed are patterns (n, 128, 128), single (n,), mask_bad as these")


def show(table: dict[str, Scores], name: str, threshold: float) -> None:
    """Print the scores in per cent, and the confusion under the first row's conditions."""
    from rich.console import Console
    from rich.table import Table

    from ...models.hits.simulator import CLASSES

    console = Console(width=None if Console().is_terminal else 150)
    shown = Table(title=f"{name}: scores in % with 95 % intervals, single hits from a probability of {threshold:.3f}")
    for heading in ("conditions", "five classes right", "precision", "recall", "false positives"):
        shown.add_column(heading, justify="left" if heading == "conditions" else "right", no_wrap=True)
    for title, s in table.items():
        shown.add_row(title, str(s.accuracy), str(s.precision), str(s.recall), str(s.false_positive))
    console.print(shown)
    title, first = next(iter(table.items()))
    counts = Table(title=f"{title}: particles in the beam (rows), found (columns)")
    counts.add_column("")
    for heading in CLASSES:
        counts.add_column(heading, justify="right")
    for heading, row in zip(CLASSES, first.confusion.tolist(), strict=True):
        counts.add_row(heading, *map(str, row))
    console.print(counts)
