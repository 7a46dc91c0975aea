"""``beamsieve pick``: picks the particles of micrographs, exactly as the daemon does, without one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..errors import plain
from ..flow.settings import ConfigError, Settings, Where
from ..flow.settings import check as check_data
from ..sinks.picks.settings import FORMATS
from .bars import bars
from .run import Changed, apply_change, config_errors, parse_change, places, start_logging, write_json

if TYPE_CHECKING:
    from ..beamlines.offline import Done, PickFiles

T = TypeVar("T", bound=Settings)
ENDINGS = (".mrc", ".mrcs", ".map", ".tif", ".tiff", ".eer", ".png")


def pick(
    micrographs: Annotated[list[Path], typer.Argument(help="files, or folders of them (.mrc .tif .eer .png …)")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for picks, tables and particles")],
    bundle: Annotated[str, typer.Option(help="name of a model, or the path of its .pt file")] = "particles-general",
    format_: Annotated[
        list[str] | None, typer.Option("--format", help=f"beside csv: {', '.join(FORMATS)}; repeatable")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="default: the card's")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="ångström per pixel, where the files do not say")] = None,
    diameter: Annotated[float | None, typer.Option(help="of the particle in ångström; default: the card's")] = None,
    gain: Annotated[Path | None, typer.Option(help="gain reference of movies")] = None,
    box: Annotated[int | None, typer.Option(help="edge of a particle's box in pixels; default: 1.5 diameters")] = None,
    particles: Annotated[bool, typer.Option("--particles/--no-particles", help="cut them out into HDF5")] = False,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="a PNG per micrograph")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="any other setting: model.min_distance=0.9; repeatable")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write a summary to this file")] = None,
) -> None:
    """Pick particles in micrographs, as the daemon cryoem_picks does.

    Writes --out/picks.csv (micrograph, x, y, score: centres in pixels, row 0 at y = 0), and the formats asked for
    beside it.
    Exit code 0: all were picked. 1: some could not be read or written (they are named). 2: a wrong option.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging(False)
    from ...models.bundle import bundle_at

    with config_errors():
        files = find(micrographs)
        network = str(bundle_at(bundle, Path.cwd()))
        options = {
            "decode": {"pixel_a": pixel_size, "gain": str(gain.resolve()) if gain else None},
            "model": {
                "bundle": network,
                "threshold": threshold,
                "diameter_a": diameter,
                "device": device,
            },
            "files": {
                "directory": str(out.resolve()),
                "formats": tuple(dict.fromkeys(["csv", *(format_ or ())])),
                "box_px": box,
                "particles": {"keep": particles},
                "pictures": pictures,
            },
        }
        settings, where = read_options(options, set_ or [])
        from ...models.progress import Lines
        from ..beamlines.offline import pick_files

        try:
            with bars() as progress:
                done = pick_files(settings, files, where, progress or Lines())
        except OSError as error:
            typer.echo(plain(error), err=True)
            raise typer.Exit(1) from None
    show(done)
    if json_file:
        write_json(json_file, done.summary)
    if done.failures:
        raise typer.Exit(1)


OPTIONS = {
    "decode.pixel_a": "--pixel-size",
    "decode.gain": "--gain",
    "model.bundle": "--bundle",
    "model.threshold": "--threshold",
    "model.diameter_a": "--diameter",
    "model.device": "--device",
    "files.directory": "--out",
    "files.formats": "--format",
    "files.box_px": "--box",
}


class Options(Changed):
    """Where settings stand that were given as options: mistakes name the option."""

    options: Mapping[str, str] = OPTIONS

    def blame(self, mistake: str) -> str:
        """The mistake with the option in place of the file."""
        found = super().blame(mistake)
        if found != mistake:
            return found
        _, _, rest = mistake.partition(": ")
        field = rest.partition(":")[0]
        for name, option in self.options.items():
            if field == name or field.startswith(f"{name}."):
                return f"{option}: {rest.partition(': ')[2]}"
        return rest


def read_options(options: dict[str, Any], changes: list[str]) -> tuple[PickFiles, Where]:
    """Settings from options that were given and ``--set`` changes. Raises ``ConfigError``."""
    from ..beamlines.offline import PickFiles

    return checked(options, changes, PickFiles, "pick", Options)


def checked(
    options: dict[str, Any], changes: list[str], model: type[T], command: str, kind: type[Options]
) -> tuple[T, Where]:
    """Settings of ``command`` from options that were given and ``--set`` changes. Raises ``ConfigError``."""
    data: dict[str, Any] = {
        block: {name: value for name, value in fields.items() if value is not None} for block, fields in options.items()
    }
    lines: dict[tuple[str | int, ...], int] = {}
    for number, change in enumerate(changes):
        names, value = parse_change(change)
        apply_change(data, names, value, change)
        lines.update(dict.fromkeys(places(names, value), number - len(changes)))
    where = kind(Path(command), lines, Path.cwd(), changes)
    try:
        return check_data(data, model, command, lines), where
    except ConfigError as error:
        raise ConfigError([where.blame(mistake) for mistake in error.mistakes]) from None


def find(micrographs: Sequence[Path]) -> list[Path]:
    """The files that are named, and those in the folders that are. Raises ``ConfigError``."""
    files: list[Path] = []
    mistakes: list[str] = []
    for path in micrographs:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
            mistakes += [] if inside else [f"{path}: no micrographs in it ({', '.join(ENDINGS)})"]
            files += inside
        elif path.exists():
            files.append(path)
        else:
            mistakes.append(f"{path}: no such file or folder")
    if mistakes:
        raise ConfigError(mistakes)
    return list(dict.fromkeys(files))


def show(done: Done) -> None:
    """Print a row per micrograph, and the whole."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("micrograph", "picks", "candidates", "quality", "seconds", box=None)
    for row in done.table:
        said = [*(f"{name}: skipped" for name in row["skipped"]), *row["warnings"]]
        numbers = (str(row["picks"]), str(row["candidates"]), ", ".join(said) or "good", f"{row['seconds']:.2f}")
        table.add_row(row["micrograph"], *numbers)
    (console if console.is_terminal else Console(width=200)).print(table)
    summary = done.summary
    typer.echo(
        f"{summary['particles']} particles in {len(done.table)} micrographs, {len(done.failures)} failed; "
        f"model {summary['model']}, threshold {summary['threshold']:.3f}; {summary['directory']}"
    )
