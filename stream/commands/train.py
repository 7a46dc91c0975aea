"""``beamsieve train``: train, choose the threshold, evaluate, write the bundle."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from .bars import bars
from .train_classes import classes2d
from .train_particles import particles
from .train_segments import train_segments
from .train_tomograms import train_tomograms

app = typer.Typer(help="Train the models that ship, from a seed.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Train the models that ship, from a seed."""


@app.command()
def hits(
    out: Annotated[Path, typer.Option(help="folder for checkpoint, log, pictures and bundle")],
    recipe: Annotated[
        str, typer.Option(help="paper: as published; tuned: paper's patterns, longer; robust: real detectors too")
    ] = "paper",
    patterns: Annotated[int | None, typer.Option(min=300, help="simulated patterns; default: the recipe's")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over them; default: the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="of everything random")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in --out")] = False,
    name: Annotated[str | None, typer.Option(help="of the bundle; default: the recipe's")] = None,
    mix: Annotated[str | None, typer.Option(help="conditions and shares, as paper:0.5,mixed:0.5")] = None,
    input_: Annotated[str | None, typer.Option("--input", help="linear, sqrt or log of the photons")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="patterns per step")] = None,
    rate: Annotated[float | None, typer.Option(help="learning rate")] = None,
    l2: Annotated[float | None, typer.Option(min=0, help="λ of the penalty λ‖W‖² on convolution kernels")] = None,
    decay: Annotated[float | None, typer.Option(min=0, help="decoupled weight decay instead of the penalty")] = None,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.9, help="probability")] = None,
    test_patterns: Annotated[int | None, typer.Option(min=0, help="per row of the final evaluation; 0: none")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes that simulate; default: all cores")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder that keeps simulated blocks")] = None,
    start: Annotated[str | None, typer.Option("--from", help="bundle to go on from, with --add")] = None,
    add: Annotated[list[Path] | None, typer.Option(help="marks.jsonl of reviewed frames; repeatable")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="with --add: keep it also where it is not better")] = False,
) -> None:
    """Train ResNet-10 to tell how many particles a pulse hit: 0, 1, 2, 3, or 4 and more.

    Or go on from a bundle with frames that were marked right or wrong on the live page: beamsieve train hits --from
    hits-resnet10 --add marks.jsonl --out NEW. It rehearses simulated patterns beside them; about 30 % of the marks are
    held back, in whole runs or stretches of time, and the bundle is written only if it does better on them.

    Exit code 0: the bundle is in --out. 1: a file or folder cannot be written, or --add made it no better. 2: a wrong
    option.
    """
    if start is not None or add or anyway:
        from .train_hits import from_marks

        given = {k: v for k, v in locals().items() if k not in {"out", "start", "add", "anyway", "from_marks"}}
        given |= {"recipe": None if recipe == "paper" else recipe, "device": None if device == "auto" else device}
        from_marks(start, add or [], out, anyway, given)
        return
    from ...models.hits.recipes import make_options, parse_mix
    from ...models.hits.train import train, unwritable

    try:
        options = make_options(
            out,
            recipe,
            patterns=patterns,
            epochs=epochs,
            seed=seed,
            device=device,
            resume=resume,
            name=name,
            mix=parse_mix(mix),
            input=input_,
            batch=batch,
            rate=rate,
            l2=l2,
            decay=decay,
            dropout=dropout,
            test_patterns=test_patterns,
            workers=workers,
            cache=cache,
            command=shlex.join(["beamsieve", *sys.argv[1:]]),
        )
        with bars() as progress:
            made = train(options, progress)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(unwritable(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{made}: use it with --bundle {made}; pictures and scores.json lie beside it")


app.command()(particles)
app.command()(classes2d)
app.command("tomograms")(train_tomograms)
app.command("segments")(train_segments)
