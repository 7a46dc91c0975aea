"""``beamsieve finetune classes2d``: a denoiser learns from the particles of a session, or of any stacks."""

from __future__ import annotations

import io
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from ..flow.settings import ConfigError
from .mistakes import user_mistakes
from .run import config_errors, write_json
from .sending import stopping

if TYPE_CHECKING:
    from ...models.classes2d.finetune import Tuned, TuneOptions

app = typer.Typer(help="Fine-tune a model that ships on a session's own data.", no_args_is_help=True)

IMAGES = "images.npy"
STOPPED = 143
"""Exit code after a signal, as shells give it for SIGTERM."""

Progress = Callable[[str, int, int], None]


class _Stopped(Exception):
    """A signal came while particles were read."""


@app.callback()
def _group() -> None:
    """Fine-tune a model that ships on a session's own data."""


@app.command()
def classes2d(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="stacks (.mrcs, .h5), or a session's folder")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for checkpoint, pictures and bundle")],
    start: Annotated[str, typer.Option("--from", help="bundle to go on from: a name, or its .pt file")] = (
        "classes2d-general"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="of each of the three blocks")] = 20,
    most: Annotated[int, typer.Option(min=200, max=100_000, help="particles, drawn evenly from all")] = 4000,
    k: Annotated[int, typer.Option("--k", min=2, max=1000, help="similar particles in each mean")] = 30,
    target: Annotated[
        str, typer.Option(help="what is averaged over them: raw images, or the block's outputs (as published)")
    ] = "images",
    aligned: Annotated[
        bool, typer.Option("--aligned/--no-aligned", help="turn particles onto each other before they are averaged")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="of everything random")] = 1,
    name: Annotated[str, typer.Option(help="of the new bundle. Default: the old one's with -tuned")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="default: all cores")] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(min=0.01, max=1000, help="ångström per pixel, where files of several sizes say none"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in --out")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="write the bundle also where it is not better")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write what came of it to this file")] = None,
) -> None:
    """Fine-tune a denoiser (CDAE) on particles as they come, without knowing what they look like without noise.

    Block by block, the target of a particle is the mean of the 30 particles that the block makes most like it. They are
    averaged raw; as published (--target outputs), what the block makes of them is averaged, which took sharpness from
    models that were good already. A fifth of the particles is held out; the new bundle is kept only if it explains more
    of the differences between them. The bundle it starts from is never changed. SIGTERM and Ctrl-C stop it at the next
    batch; go on with --resume, which uses the particles that were drawn at first.

    Exit code 0: the new bundle is in --out. 1: it is no better and was not written, or a file cannot be written. 2: a
    wrong option, or particles that cannot be used. 143: stopped by a signal.
    """
    given = locals()
    with stopping() as stop, user_mistakes(), config_errors(), _unreadable():
        tuned, told = _run(given, stop)
    if json_file is not None:
        write_json(json_file, told)
    if tuned is None:
        kept = f"{out} keeps what was done: go on with --resume"
        # While particles are read nothing is kept, and there may not be a folder.
        typer.echo(f"stopped; {kept if (out / IMAGES).exists() else 'nothing was done yet: begin anew'}", err=True)
        raise typer.Exit(STOPPED)
    typer.echo(
        f"share of the differences between {tuned.held_out} held-out particles that is explained: "
        f"{tuned.before:.4f} before, {tuned.after:.4f} after, standard error of the change {tuned.error:.4f}"
    )
    if tuned.path is None:
        typer.echo(
            "no bundle was written: it is not better by more than the standard error; --anyway writes it", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"{tuned.path}: use it with --bundle {tuned.path}; pictures and tuning.json lie beside it")


@contextmanager
def _unreadable() -> Iterator[None]:
    """One line and exit code 2 for particles that cannot be read."""
    from .stack_files import StackError

    try:
        yield
    except StackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _run(given: dict[str, Any], stop: threading.Event) -> tuple[Tuned | None, dict[str, Any]]:
    """Read, tune, and tell: what came of it, and the same for ``--json``."""
    from ...models.bundle import load_bundle
    from ...models.classes2d.finetune import finetune
    from ...models.lanes import open_lane
    from ...models.progress import Lines
    from .bars import bars

    # What is wrong with the options is said before a night's particles are read.
    _check_folder(given["out"], given["resume"])
    bundle = load_bundle(given["start"]).expect(task="classes2d")
    open_lane(given["device"])
    options = _options(given)
    told: dict[str, Any] = {"outcome": "stopped", "out": str(given["out"])}
    with bars() as shown:
        progress: Progress = shown or Lines()
        try:
            images, facts = _particles(given, progress, stop)
        except _Stopped:
            return None, told
        told |= facts
        source = f"{', '.join(map(str, given['sources']))}: {facts['particles']} particles, {facts['left_out']} bad"
        tuned = finetune(bundle, images, replace(options, source=source), progress, stop.is_set)
    if tuned is None:
        return None, told
    # It would only be needed to go on, and is the largest file.
    (given["out"] / IMAGES).unlink(missing_ok=True)
    return tuned, {**told, **tuned.to_json(), "outcome": "better" if tuned.better else "not better"}


def _check_folder(out: Path, resume: bool) -> None:
    from ...models.classes2d.finetune import CHECKPOINT, REPORT

    if (out / REPORT).exists():
        raise ConfigError([f"--out {out}: holds a fine-tuning that is finished; name another folder"])
    if not resume and ((out / CHECKPOINT).exists() or (out / IMAGES).exists()):
        raise ConfigError([f"--out {out}: holds a fine-tuning; go on with --resume, or name another folder"])


def _options(given: dict[str, Any]) -> TuneOptions:
    from ...models.classes2d.finetune import TuneOptions

    same = ("out", "name", "k", "target", "epochs", "aligned", "seed", "device", "threads", "resume", "anyway")
    return TuneOptions(**{n: given[n] for n in same}, command=shlex.join(["beamsieve", *sys.argv[1:]]))


def _particles(
    given: dict[str, Any], progress: Progress, stop: threading.Event
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Working images to tune on, and facts about them: those of the run that is gone on with, or drawn now."""
    kept = given["out"] / IMAGES
    if given["resume"] and kept.exists():
        return _kept(kept)
    from ...models.classes2d.finetune import LEAST
    from .particle_sample import draw
    from .particle_stacks import stacks

    def each(done: int, of: int) -> None:
        if stop.is_set():
            raise _Stopped
        progress("read particles", done, of)

    found = stacks(given["sources"], given["pixel_size"])
    sample = draw(found, given["most"], given["seed"], each)
    for note in (*found.notes, *([f"{sample.bad} particles are constant or hold NaN: left out"] * bool(sample.bad))):
        typer.echo(note, err=True)
    if len(sample.images) < LEAST:
        raise ConfigError(
            [
                f"{', '.join(map(str, given['sources']))}: {len(sample.images)} usable particles ({sample.bad} of "
                f"{sample.seen} are constant or hold NaN); {LEAST} or more are needed, to find those alike: "
                "name more stacks, or pick more micrographs"
            ]
        )
    facts = {"particles": sample.seen, "left_out": sample.bad}
    _keep(kept, sample.images, facts)
    return sample.images, facts


def _keep(path: Path, images: npt.NDArray[np.float32], facts: dict[str, int]) -> None:
    """Write what was drawn beside its name and rename it: a session grows, but a run that goes on must not change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, images)
    np.save(buffer, np.array([facts["particles"], facts["left_out"]]))
    partial = path.with_name(path.name + ".inprogress")
    partial.write_bytes(buffer.getbuffer())
    partial.replace(path)


def _kept(path: Path) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            images = np.load(stream, allow_pickle=False)
            particles, left_out = np.load(stream, allow_pickle=False).tolist()
    except (ValueError, EOFError) as error:
        raise ConfigError([f"{path}: is damaged ({error}); name another --out to begin anew"]) from None
    return images, {"particles": particles, "left_out": left_out}
