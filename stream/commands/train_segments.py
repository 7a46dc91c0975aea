"""``beamsieve train segments``: train the segmentation of a session on its marked clusters."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bars import bars
from .mistakes import user_mistakes
from .run import start_logging, write_json
from .sending import stopping

if TYPE_CHECKING:
    from .segment_session import MarkedSession

STOPPED = 143
"""Exit code after a signal, as shells give it for SIGTERM."""
FOLDER, PREFIX = "models", "segments"
MOST, EPOCHS, MINUTES = 1000, 60, 10.0


@dataclass(frozen=True, slots=True)
class Training:
    """How to train; see the command's options."""

    most: int = MOST
    epochs: int = EPOCHS
    minutes: float = MINUTES
    batch: int = 0
    start: str = ""
    seed: int = 1
    device: str = "auto"
    threads: int | None = None
    name: str = PREFIX


def train_segments(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="folder of a session: files.directory of the daemon, --out of mine")
    ],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder for bundle and pictures; default: DIR/models/segments-N")
    ] = None,
    most: Annotated[int, typer.Option(min=4, max=100_000, help="windows to train on, at most")] = MOST,
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="passes over them, at most: it stops early")] = EPOCHS,
    minutes: Annotated[float, typer.Option(min=0, help="after which it ends with the best so far; 0: none")] = MINUTES,
    batch: Annotated[int, typer.Option(min=0, max=1024, help="windows per step; 0: up to 128, fewer where few")] = 0,
    start: Annotated[
        str | None, typer.Option("--from", help="bundle to begin with; none: random weights, as published")
    ] = None,
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

    Exit code 0: done. 1: a file is damaged, or cannot be written. 2: a wrong option, or nothing is marked. 143: stopped
    by a signal; a checkpoint is left.
    """
    start_logging(False)
    with stopping() as stop, user_mistakes():
        if not name or Path(name).name != name:
            raise ValueError(f"--name {name}: is no name; leave folders to --out")
        from .segment_session import marked_session

        training = Training(most, epochs, minutes, batch, start or "", seed, device, threads, name)
        session = marked_session(directory, device=device, threads=threads)
        with bars() as shown:
            made = trained(session, training, out, resume=resume, stop=stop.is_set, progress=shown)
    for note in session.notes:
        typer.echo(note, err=True)
    if made is None:
        typer.echo("stopped; go on with --resume and the same --out", err=True)
        raise typer.Exit(STOPPED)
    summary = told(made)
    if json_file is not None:
        write_json(json_file, summary)
    scores = ", ".join(f"{name} {value:.2f}" for name, value in summary["dice against weak labels"].items())
    typer.echo(f"{made}: Dice against weak labels of validation windows: {scores}; pictures lie beside it")


def trained(
    session: MarkedSession,
    training: Training,
    out: Path | None,
    *,
    resume: bool,
    stop: Callable[[], bool],
    progress: Callable[[str, int, int], None] | None,
) -> Path | None:
    """Train, and give the ``.pt`` file; None if stopped. ``out``: None for the session's next ``models/segments-N``.

    Raises ``ValueError`` for what cannot be trained on, ``BadData`` and ``OSError`` for files, ``BundleError``.
    """
    from ...models.progress import Lines
    from ...models.tomograms.segment_set import SetOptions, examples
    from ...models.tomograms.segment_train import CHECKPOINT, Options
    from ...models.tomograms.segment_train import train_segments as train
    from ...models.tomograms.told import Stopped
    from ..beamlines.background import Series
    from .segment_session import marked_in, records_to_use

    series, told_to = Series(session.directory / FOLDER, PREFIX), progress or Lines()
    out = out or series.after(series.latest())
    if (out / CHECKPOINT).exists() and not resume:
        raise ValueError(f"{out}: holds a training that was stopped; go on with --resume, or name another folder")
    paths = records_to_use(session)
    codec = session.codec
    try:
        data = examples(
            marked_in(session, paths),
            len(paths),
            codec,
            SetOptions(most=training.most, seed=training.seed),
            progress=told_to,
            stop=stop,
        )
    except Stopped:
        return None
    options = Options(
        out,
        name=training.name,
        epochs=training.epochs,
        minutes=training.minutes,
        batch=training.batch,
        start=training.start,
        voxel_a=codec.voxel_a,
        edge=codec.edge,
        seed=training.seed,
        device=training.device,
        threads=training.threads or 0,
        resume=resume,
        training=_said(session),
    )
    return train(data, session.groups.classes, options, progress=told_to, stop=stop)


def _said(session: MarkedSession) -> dict[str, Any]:
    """What the card tells of the session: enough to see whether a network is for these marks."""
    groups = {group.name: list(group.clusters) for group in session.groups.groups}
    return {
        "codec": session.clusters.network,
        "codec name": session.clusters.name,
        "clusters version": session.clusters.version,
        "groups": groups,
        "command": shlex.join(["beamsieve", *(os.path.basename(word) for word in sys.argv[1:])]),
    }


def told(made: Path) -> dict[str, Any]:
    """Plain values of a trained segmentation, from its card."""
    from ...models.bundle import read_card

    card = read_card(made)
    keys = ("windows", "tomograms", "epochs", "best epoch")
    return {
        "bundle": str(made),
        "sha256": card.sha256,
        "classes": list(card.output.classes),
        **card.scores,
        **{f"training {key}": card.training[key] for key in keys},
    }
