"""``beamsieve classify``: score the frames of files with what the daemon runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .run import write_json

if TYPE_CHECKING:
    from ...models.bundle import Bundle
    from .scoring import View

Files = Annotated[list[Path], typer.Argument(help="HDF5, CXI, NPZ or NPY files with frames (n, y, x)")]
Name = Annotated[str, typer.Option(help="name of a model, or the path of its .pt file")]
Out = Annotated[Path, typer.Option(help="table to write: file,index,p0,p1,p2,p3,p4,label")]
Dataset = Annotated[str | None, typer.Option(help="path of the dataset, or name of the array; default: the usual ones")]
Mask = Annotated[
    str | None,
    typer.Option(
        help="bad pixels (not 0): file.h5:/path, file.npz:name, file.npy; default: the mask beside CXI frames"
    ),
]
NoMask = Annotated[bool, typer.Option("--no-mask", help="ignore the mask beside the frames")]
Centre = Annotated[str | None, typer.Option(help="the beam's y,x in pixels; default: the geometry's, or the middle")]
Bin = Annotated[int, typer.Option("--bin", min=1, max=64, help="pixels summed along each side")]
Geometry = Annotated[Path | None, typer.Option(help="CrystFEL .geom file, for frames (n, module, y, x)")]
Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="of the summary's hits; default: the card's")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Size = Annotated[int, typer.Option(min=1, max=4096, help="frames in a batch")]
Json = Annotated[Path | None, typer.Option("--json", help="write the summary to this file")]


def classify(
    files: Files,
    out: Out,
    bundle: Name = "hits-resnet10",
    dataset: Dataset = None,
    mask: Mask = None,
    no_mask: NoMask = False,
    centre: Centre = None,
    bin_: Bin = 1,
    geometry: Geometry = None,
    threshold: Threshold = None,
    device: Device = "auto",
    batch: Size = 64,
    json_file: Json = None,
) -> None:
    """Score every frame of files: the probabilities of 0, 1, 2, 3, and 4 or more particles, by what the daemon runs.

    Exit code 0: all frames were scored. 2: something was not (each file is listed with the reason); the rest was.
    """
    from ...models.bundle import BundleError
    from ...models.runner import Runner
    from .scoring import Tally, score_files

    try:
        model = _model(bundle)
        view = _view(model, bin_, centre, mask, no_mask, geometry)
        runner = Runner(model, batch=batch, device=device)
        report = runner.warm_up()
    except (BundleError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    card = model.card
    typer.echo(f"{card.name} {card.version} on {report}", err=True)
    tally = Tally(card.threshold if threshold is None else threshold)
    began = time.monotonic()
    try:
        with _progress() as watch:
            reports = score_files(files, dataset, view, runner, out, tally, watch)
    except OSError as error:
        typer.echo(f"{out}: cannot be written: {error.strerror or error}; give another --out", err=True)
        raise typer.Exit(2) from None
    seconds = time.monotonic() - began
    mistakes = [error for found in reports for error in found.errors]
    if json_file:
        summary = {
            "bundle": card.name,
            "version": card.version,
            "sha256": card.sha256,
            "threshold": tally.threshold,
            **tally.to_json(seconds),
            "failed": sum(found.failed for found in reports),
            "files": [asdict(found) for found in reports],
            "out": str(out),
            "runner": report.to_json(),
        }
        write_json(json_file, summary)
    typer.echo(f"{tally.describe(seconds)}; table {out}", err=True)
    for mistake in mistakes:
        typer.echo(mistake, err=True)
    raise typer.Exit(2 if mistakes else 0)


def _model(name: str) -> Bundle:
    from ...models.bundle import load_bundle
    from ...models.hits.infer import CLASSES

    return load_bundle(name).expect(task="hits", classes=CLASSES)


def _view(model: Bundle, bin_: int, centre: str | None, mask: str | None, no_mask: bool, geometry: Path | None) -> View:
    from ..decode.constants import read_dataset
    from ..decode.masks import from_flags
    from .scoring import View

    return View(
        size=model.card.input.shape[-1],
        bin=bin_,
        centre=None if centre is None else _pair(centre),
        mask=None if mask is None else from_flags(read_dataset(mask), "bad"),
        own_mask=mask is None and not no_mask,
        geometry=geometry,
    )


def _pair(text: str) -> tuple[float, float]:
    try:
        y, x = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"--centre {text}: write the beam's y and x in pixels, as 64,64.5") from None
    return y, x


@contextmanager
def _progress() -> Iterator[Callable[[Path, int, int], None]]:
    """A bar per file, on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        tasks: dict[Path, TaskID] = {}

        def watch(path: Path, done: int, total: int) -> None:
            if path not in tasks:
                tasks[path] = bars.add_task(path.name, total=total)
            bars.update(tasks[path], completed=done)

        yield watch
