"""``beamsieve segment``: a class for every voxel of tomograms, without a daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .bars import bars
from .mistakes import user_mistakes
from .run import start_logging, write_json
from .segment_training import EPOCHS, FOLDER, MINUTES, MOST, PREFIX, Training, trained
from .sending import stopping

if TYPE_CHECKING:
    from ...models.tomograms.segment import Segmenter
    from .segment_run import Segmented
    from .segment_session import MarkedSession

STOPPED = 143
"""Exit code after a signal, as shells give it for SIGTERM."""


def segment(
    tomograms: Annotated[list[Path], typer.Argument(help="tomograms: .mrc, .rec, .map, .hdf")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for labels, pictures and counts")],
    session: Annotated[
        Path | None,
        typer.Option(help="folder of a session whose clusters are marked; its network is trained if need be"),
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="or a segmentation: name of a model, or its .pt file")] = None,
    near: Annotated[
        bool, typer.Option("--near/--everywhere", help="only around sub-volumes of marked clusters, as published")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities/--no-probabilities", help="write a volume per class, MRC mode 12")
    ] = True,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="write overlays of central slices")] = True,
    voxel_a: Annotated[
        float | None, typer.Option("--voxel-a", min=0.1, max=999, help="ångström per voxel; default: the header's")
    ] = None,
    bright: Annotated[bool, typer.Option("--bright", help="density is bright in these files")] = False,
    flip: Annotated[Literal["none", "x", "y", "z"], typer.Option(help="mirror this axis as files are read")] = "none",
    stacks: Annotated[bool, typer.Option("--stacks", help="take files whose header says stack of images")] = False,
    most: Annotated[int, typer.Option(min=4, help="training: windows, at most")] = MOST,
    epochs: Annotated[int, typer.Option(min=1, help="training: passes over them, at most")] = EPOCHS,
    minutes: Annotated[float, typer.Option(min=0, help="training: after which it ends; 0: no limit")] = MINUTES,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="default: one per core")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write a summary to this file, too")] = None,
) -> None:
    """Give every voxel of tomograms a class, as the daemon does once clusters are marked.

    With --session, sub-volumes are mined and counted as well; where the session has no segmentation for its present
    marks, one is trained first. With --bundle there are voxels only. Writes into --out: labels/NAME_labels.mrc (mode 0;
    0 background, then the groups in their order), labels/NAME_CLASS.mrc (mode 12, probability), pictures/NAME.png,
    counts.csv.

    Exit code 0: done. 1: a tomogram cannot be used (the others are done), or a file cannot be written. 2: a wrong
    option. 143: stopped by a signal; tomograms that were finished are there.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging(False)
    with stopping() as stop, user_mistakes(), bars() as shown:
        from ...models.progress import Lines
        from ...models.tomograms.told import Stopped
        from ..decode.tomograms import TomogramSettings
        from .segment_run import Options

        if (session is None) == (bundle is None):
            raise ValueError("--session or --bundle: give one of them")
        if near and session is None:
            raise ValueError("--near: needs --session, whose clusters say where to look")
        decode = TomogramSettings(voxel_a=voxel_a, bright=bright, flip=flip, stacks="take" if stacks else "refuse")
        options = Options(out, decode, near, probabilities, pictures, threads)
        training = Training(most, epochs, minutes, device=device, threads=threads)
        tell = shown or Lines()
        try:
            segmenter, marks = _network(session, bundle, training, tell, stop.is_set)
            done, failed = _all(tomograms, segmenter, marks, options, tell, stop.is_set)
        except Stopped:
            typer.echo("stopped; tomograms that were finished are in --out", err=True)
            raise typer.Exit(STOPPED) from None
    if json_file is not None:
        write_json(json_file, _summary(segmenter, done, failed))
    _show(done, options)
    if failed:
        raise typer.Exit(1)


def _network(
    directory: Path | None,
    bundle: str | None,
    training: Training,
    tell: Callable[[str, int, int], None],
    stop: Callable[[], bool],
) -> tuple[Segmenter, MarkedSession | None]:
    """The segmentation, trained if it has to be, and the session."""
    from ...models.bundle import bundle_at
    from ...models.tomograms.segment import Segmenter
    from ...models.tomograms.told import Stopped
    from .segment_session import marked_session

    if directory is None:
        assert bundle is not None
        found = Segmenter(bundle_at(bundle, Path.cwd()), device=training.device, threads=training.threads)
        return found, None
    marks = marked_session(directory, device=training.device, threads=training.threads)
    path = fitting(marks) or trained(marks, training, None, resume=False, stop=stop, progress=tell)
    for note in marks.notes:
        typer.echo(note, err=True)
    if path is None:
        raise Stopped
    return Segmenter(path, device=training.device, threads=training.threads), marks


def fitting(session: MarkedSession) -> Path | None:
    """The newest segmentation of the session that was trained for its present marks and clusters' network."""
    from ...models.bundle import BundleError, read_card
    from ..beamlines.background import Series

    wanted = {group.name: list(group.clusters) for group in session.groups.groups}
    for folder in reversed(Series(session.directory / FOLDER, PREFIX).all()):
        for path in sorted(folder.glob("*.pt")):
            try:
                card = read_card(path)
            except BundleError:
                continue
            said = card.training
            same = card.output.classes == session.groups.classes and said.get("groups") == wanted
            if card.output.kind == "voxels" and same and said.get("codec") == session.clusters.network:
                return path
    return None


def _all(
    tomograms: list[Path],
    segmenter: Segmenter,
    marks: MarkedSession | None,
    options: Any,
    tell: Callable[[str, int, int], None],
    stop: Callable[[], bool],
) -> tuple[list[Segmented], list[str]]:
    """What was done, and of which tomograms nothing could be made."""
    from ..errors import plain
    from ..flow.frame import BadData
    from ..sinks.picks.files import write_whole
    from .segment_run import TABLE, Work, table

    typer.echo(segmenter.warm_up(), err=True)
    work, done, failed = Work(segmenter, marks, options), [], []
    for path in tomograms:
        try:
            done.append(work.segment(path, tell, stop))
        except BadData as error:
            typer.echo(plain(error), err=True)
            failed.append(str(path))
            continue
        write_whole(options.out / TABLE, table(done))
    return done, failed


def _summary(segmenter: Segmenter, done: list[Segmented], failed: list[str]) -> dict[str, Any]:
    from .segment_run import told

    return {
        "model": segmenter.name,
        "sha256": segmenter.sha256,
        "classes": list(segmenter.classes),
        "tomograms": [told(one) for one in done],
        "failed": failed,
    }


def _show(done: list[Segmented], options: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("tomogram", "class", "sub-volumes", "pieces", "voxels", box=None)
    for one in done:
        for name, count in one.counts.items():
            picks = str(one.found.counts[name]) if len(one.found.picked) else "–"
            shown.add_row(one.found.name, name, picks, str(count.pieces), f"{100 * count.fraction:.2f} %")
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(shown)
    seconds = sum(sum(one.seconds.values()) for one in done)
    typer.echo(f"{len(done)} tomograms in {seconds:.0f} s; labels, pictures and counts.csv in {options.out}")
