"""``beamsieve train segments``: train the segmentation of a session on its marked clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .bars import bars
from .mistakes import user_mistakes
from .run import start_logging, write_json
from .segment_training import AUTO, EPOCHS, MINUTES, MOST, PREFIX, Training, practised, told, trained
from .sending import stopping

STOPPED = 143
"""Exit code after a signal, as shells give it for SIGTERM."""


def train_segments(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="folder of a session: files.directory of the daemon, --out of mine"),
    ] = None,
    *,
    simulated: Annotated[
        int, typer.Option(min=0, help="instead of a session: so many simulated tomograms, with their true labels")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder for bundle and pictures; default: DIR/models/segments-N")
    ] = None,
    most: Annotated[int, typer.Option(min=4, max=100_000, help="windows to train on, at most")] = MOST,
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="passes over them, at most: it stops early")] = EPOCHS,
    minutes: Annotated[float, typer.Option(min=0, help="after which it ends with the best so far; 0: none")] = MINUTES,
    batch: Annotated[int, typer.Option(min=0, max=1024, help="windows per step; 0: up to 128, fewer where few")] = 0,
    start: Annotated[
        str,
        typer.Option(
            "--from", help="bundle to begin with; none: random weights, as published; auto: the one that ships"
        ),
    ] = AUTO,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="of everything random")] = 1,
    name: Annotated[str, typer.Option(help="of the bundle")] = PREFIX,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="default: one per core")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in --out")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write a summary to this file, too")] = None,
) -> None:
    """Train the segmentation network of a session: every voxel of the next tomograms gets a class.

    Labels are the decoded volumes of sub-volumes in marked clusters (groups.yaml); nobody paints voxels. Windows are
    read from the tomograms, or, where those are gone, from the sub-volumes that were kept. Use the bundle with
    beamsieve segment; a daemon on this session trains its own. An interrupted training goes on with --resume.

    Training starts from hidden layers that were learned on simulated tomograms, so that minutes suffice; --from none
    starts from random weights. With --simulated such layers are learned: beamsieve train segments --simulated 12
    --minutes 0 --name tomograms-segments --out FOLDER.

    Exit code 0: done. 1: a file is damaged, or cannot be written. 2: a wrong option, or nothing is marked. 143: stopped
    by a signal; a checkpoint is left.
    """
    start_logging(False)
    with stopping() as stop, user_mistakes():
        if not name or Path(name).name != name:
            raise ValueError(f"--name {name}: is no name; leave folders to --out")
        if (directory is None) == (simulated == 0):
            raise ValueError("name the folder of a session, or --simulated with a number of tomograms")
        training = Training(most, epochs, minutes, batch, start, seed, device, threads, name)
        with bars() as shown:
            made, notes = _made(directory, simulated, training, out, resume, stop.is_set, shown)
    for note in notes:
        typer.echo(note, err=True)
    if made is None:
        typer.echo("stopped; go on with --resume and the same --out", err=True)
        raise typer.Exit(STOPPED)
    summary = told(made)
    if json_file is not None:
        write_json(json_file, summary)
    scores = ", ".join(f"{name} {value:.2f}" for name, value in summary["dice against weak labels"].items())
    typer.echo(f"{made}: Dice against weak labels of validation windows: {scores}; pictures lie beside it")


def _made(
    directory: Path | None,
    simulated: int,
    training: Training,
    out: Path | None,
    resume: bool,
    stop: Callable[[], bool],
    progress: Callable[[str, int, int], None] | None,
) -> tuple[Path | None, list[str]]:
    """The bundle, None if stopped, and what people should know."""
    from .segment_session import marked_session

    if directory is None:
        if out is None:
            raise ValueError("--simulated: needs --out, the folder for the bundle")
        return practised(simulated, training, out, resume=resume, stop=stop, progress=progress), []
    session = marked_session(directory, device=training.device, threads=training.threads)
    return trained(session, training, out, resume=resume, stop=stop, progress=progress), session.notes
