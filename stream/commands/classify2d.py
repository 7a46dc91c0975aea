"""``beamsieve classify2d``: denoise particles and group them into 2-D classes, without a daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .bars import bars
from .mistakes import user_mistakes
from .run import start_logging, write_json
from .stack_files import StackError

if TYPE_CHECKING:
    from .classify2d_run import Done
    from .particle_stacks import Stacks

SHOWN = 12
#: Files in --out that could be given as a source as well.
IMAGES = ("classes.mrcs", "classes.h5", "denoised.mrcs", "relion/run_it001_classes.mrcs", "cryosparc/templates.mrc")

Sources = Annotated[list[Path], typer.Argument(help=".mrcs stacks, session folders, HDF5 or numpy files of particles")]


def classify2d(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for classes, labels and denoised particles")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=1000, help="of classes")] = 50,
    bundle: Annotated[
        str, typer.Option(help="denoiser: name of a model, or the path of its .pt file")
    ] = "classes2d-general",
    pixel_size: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="Å per pixel of the particles; default: the files'")
    ] = None,
    method: Annotated[Literal["kmeans", "ward"], typer.Option(help="k-means, or Ward's hierarchical clustering")] = (
        "kmeans"
    ),
    align: Annotated[
        bool, typer.Option("--align/--no-align", help="particles lie turned and shifted in the plane")
    ] = True,
    invert: Annotated[bool, typer.Option("--invert", help="particles are black in these files")] = False,
    denoised: Annotated[bool, typer.Option("--denoised/--no-denoised", help="write denoised.mrcs")] = True,
    float16: Annotated[bool, typer.Option("--float16", help="denoised.mrcs in half precision (MRC mode 12)")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of everything random")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="that denoise; default: one per core")] = None,
    dataset: Annotated[str | None, typer.Option(help="path of the HDF5 dataset, or name of the array")] = None,
    project: Annotated[
        Path | None, typer.Option(help="names in STAR and .cs files start in this folder; default: absolute")
    ] = None,
    voltage: Annotated[float | None, typer.Option(min=1, max=2000, help="kV; RELION asks for it")] = None,
    cs: Annotated[float | None, typer.Option("--cs", min=0, max=20, help="spherical aberration in mm, as well")] = None,
    amplitude_contrast: Annotated[float, typer.Option(min=0, max=1, help="for RELION's optics table")] = 0.1,
    force: Annotated[bool, typer.Option("--force", help="write into a folder with other files")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write a summary to this file, too")] = None,
) -> None:
    """Group particles into 2-D classes: denoise them, cluster the denoised images, average the originals.

    Writes into --out: labels.csv (source, index from 1, class from 1 or 0 for none, angle in degrees, shift in pixels
    of the source's images, similarity), classes.mrcs (averages of original particles, 64 × 64 pixels), classes.png,
    classes.h5, denoised.mrcs, and the same classes for RELION (relion/) and cryoSPARC (cryosparc/).

    Particles of several files may differ in size if their boxes are equally large in ångström. Exit code 0: done. 1: a
    file cannot be written. 2: a wrong option, or a source that is no stack of particles.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging(False)
    from .particle_files import SUMMARY
    from .particle_stacks import stacks

    with user_mistakes(), _stack_mistakes():
        found = stacks(sources, pixel_size, dataset)
        _say(found.notes)
        _check_folder(out, force)
        _check_sources(found, out)
        # Not above: torch takes a second, and a mistake needs none.
        from ..formats.relion import Optics
        from ..sinks.picks.files import sweep
        from .classify2d_run import Options, run

        optics = Optics(0.0, voltage, cs, amplitude_contrast)
        options = Options(
            out, number, bundle, method, align, invert, denoised, float16, seed, device, threads, project, optics
        )
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
        with bars() as progress:
            done = run(found, options, progress)
    _say(done.notes)
    _show(done)
    write_json(out / SUMMARY, done.summary)
    if json_file:
        write_json(json_file, done.summary)


@contextmanager
def _stack_mistakes() -> Iterator[None]:
    """Sources that cannot be used are the user's to mend: exit code 2."""
    try:
        yield
    except StackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _check_folder(out: Path, force: bool) -> None:
    """Refuse to write between files of others. An earlier run of this command is replaced."""
    from ..sinks.picks.places import RECORDS
    from .particle_files import SUMMARY

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; name a folder")
    if (out / RECORDS).is_dir():
        raise ValueError(f"--out {out}: is the folder of a session, whose classes.h5 stays; name another folder")
    if force or not out.is_dir() or (out / SUMMARY).exists():
        return
    others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if others:
        raise ValueError(f"--out {out}: holds other files ({', '.join(others[:3])}); name a new folder, or add --force")


def _check_sources(found: Stacks, out: Path) -> None:
    """Refuse to write over what is read."""
    written = {(out / name).resolve() for name in IMAGES}
    for part in found.parts:
        if part.path.resolve() in written:
            raise ValueError(f"--out {out}: {part.path} lies there and would be replaced; name another folder")


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(note, err=True)


def _show(done: Done) -> None:
    """A row per class, the largest first, and the whole."""
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "particles", "share", "resolution", "spread", box=None)
    rows = done.summary["classes"]
    for row in rows[:SHOWN]:
        resolution = "–" if row["resolution"] is None else f"{row['resolution']:.1f} {done.unit}"
        share = f"{100 * row['share']:.1f} %"
        table.add_row(str(row["class"]), str(row["particles"]), share, resolution, f"{row['spread']:.2f}")
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)
    if len(rows) > SHOWN:
        typer.echo(f"… and {len(rows) - SHOWN} smaller ones")
    s = done.summary
    typer.echo(
        f"{s['classified']} particles in {len(rows)} classes, {s['particles'] - s['classified']} left out; "
        f"{s['model']} on {s['device']}, {s['seconds']:.1f} s ({s['per_second']:.0f}/s); {s['directory']}"
    )
