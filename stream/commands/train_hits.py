"""``beamsieve train hits --from BUNDLE --add marks.jsonl``: go on from frames that were marked on the live page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from ..flow.frame import BadData
from ..flow.settings import ConfigError
from ..formats.marks import FILE, Mark, pixels_path, read_marks, read_pixels
from .mistakes import user_mistakes
from .run import config_errors

if TYPE_CHECKING:
    from ...models.hits.marked import Marked
    from ...models.hits.marked_report import Outcome
    from ...models.hits.recipes import Progress

APPLICABLE = ("epochs", "seed", "device", "name", "batch", "rate", "patterns", "workers", "cache")


def from_marks(start: str | None, add: Sequence[Path], out: Path, anyway: bool, given: Mapping[str, Any]) -> None:
    """Train and say what came of it. ``given``: the other options of ``train hits``, those not given None or False.

    Exit code 0: the bundle is in ``out``. 1: it is not better, and was not written; or a file cannot be read or
    written. 2: a wrong option, or marks that cannot be trained from.
    """
    from .bars import bars

    with user_mistakes(), config_errors():
        outcome = _train(start, add, out, anyway, given, bars)
    for line in table(outcome):
        typer.echo(line)
    if outcome.path is None:
        typer.echo(f"no bundle was written: {outcome.why}; --anyway writes it", err=True)
        raise typer.Exit(1)
    typer.echo(f"{outcome.why}")
    typer.echo(f"{outcome.path}: use it with --bundle {outcome.path}, or try it as the candidate on the live page")


def _train(
    start: str | None, add: Sequence[Path], out: Path, anyway: bool, given: Mapping[str, Any], bars: Any
) -> Outcome:
    said = {name: value for name, value in given.items() if value is not None and value is not False}
    mistakes = [
        f"--{name.strip('_').replace('_', '-')}: does not go with --add" for name in said if name not in APPLICABLE
    ]
    if start is None:
        mistakes.append("--add belongs to a bundle to go on from: give --from hits-resnet10")
    if not add:
        mistakes.append("--from: belongs to marks to learn from; give --add marks.jsonl")
    if mistakes or start is None:
        raise ConfigError(mistakes)
    from ...models.bundle import load_bundle
    from ...models.hits.marked import MarkedOptions
    from ...models.hits.marked_report import train_marked
    from ...models.progress import Lines

    shape = load_bundle(start).expect(task="hits").card.input.shape
    marked = read_marked(add, (shape[-2], shape[-1]))
    command = shlex.join(["beamsieve", *sys.argv[1:]])
    options = replace(MarkedOptions(out, start, anyway=anyway, command=command), **said)
    with bars() as shown:
        progress: Progress = shown or Lines()
        return train_marked(options, marked, progress)


def read_marked(paths: Sequence[Path], shape: tuple[int, int]) -> Marked:
    """The marked frames of some ``marks.jsonl`` (or folders that hold one), with their pixels of this ``shape``.

    An id that is in several files counts once for each, as they come from different daemons. Raises ``ConfigError`` for
    files without marked frames, marks without pixels, and pixels of another shape; ``BadData`` and ``OSError`` as
    ``read_marks``.
    """
    from ...models.hits.marked import Marked

    images, marks = [], []
    for path in dict.fromkeys(one.resolve() for one in paths):
        for mark, image in _frames(path, shape):
            marks.append((path, mark))
            images.append(image)
    single = np.array([bool(mark.truth) for _, mark in marks])
    times = np.array([mark.time for _, mark in marks], np.float64)
    # Two daemons may both have called their run "1".
    runs = tuple(f"{path.parent.name}/{mark.run}" if len(paths) > 1 else mark.run for path, mark in marks)
    return Marked(np.stack(images).astype(np.float32), single, times, runs)


def _frames(path: Path, shape: tuple[int, int]) -> list[tuple[Mark, np.ndarray[Any, Any]]]:
    frames = [mark for mark in read_marks(path).values() if mark.kind == "frame"]
    if not frames:
        raise ConfigError([f"--add {path}: holds no marks of frames; name the {FILE} of an xfel_hits daemon"])
    found, missing = [], []
    for mark in frames:
        pixels = pixels_path(path if path.is_dir() else path.parent, mark.id)
        if not pixels.exists():
            missing.append(mark.id)
            continue
        image = read_pixels(pixels)
        if image.shape != shape:
            raise ConfigError(
                [
                    f"--add {path}: the pixels of {mark.id} are {' × '.join(map(str, image.shape))}, the network takes "
                    f"{shape[0]} × {shape[1]}; were they marked with another model? name a bundle of that input"
                ]
            )
        if not np.isfinite(image).all():
            raise BadData("marks", f"{pixels}: holds pixels that are no numbers; remove it, and its mark with it")
        found.append((mark, image))
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        typer.echo(f"{path}: {len(missing)} of {len(frames)} marks have no pixels and are left out: {shown}", err=True)
    if not found:
        raise ConfigError([f"--add {path}: no mark has its pixels; copy the folder marks/ that lay beside it too"])
    return found


def table(outcome: Outcome) -> list[str]:
    """The old and the new network side by side, as lines."""
    rows = [("", "before", "after"), *outcome.table()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
