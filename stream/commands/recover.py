"""``beamsieve recover``: finish the files that a killed daemon left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..flow.frame import BadData
from ..sinks.cxi_recover import recover as finish


def recover(
    files: Annotated[list[Path], typer.Argument(help="files *.inprogress that a killed daemon left")],
    keep: Annotated[bool, typer.Option("--keep", help="leave the unfinished file where it is")] = False,
) -> None:
    """Turn files in progress of a killed daemon into proper CXI files with everything up to their last flush.

    Each is copied to its final name and then removed; a file that is still being written is left alone. Exit code 1 if
    one could not be recovered.
    """
    failed = False
    for path in files:
        if not path.is_file():
            typer.echo(f"{path}: no such file; name files that end in .inprogress", err=True)
            failed = True
            continue
        try:
            done = finish(path, keep=keep)
        except BadData as error:
            typer.echo(error.detail, err=True)
            failed = True
            continue
        typer.echo(f"{done.path}: {done.frames} frames")
        if done.frames < done.flushed:
            lost = done.flushed - done.frames
            typer.echo(f"{path}: {lost} more frames were flushed but its index is damaged; {path} is kept", err=True)
            failed = True
    if failed:
        raise typer.Exit(1)
