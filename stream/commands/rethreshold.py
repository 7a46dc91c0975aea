"""``beamsieve rethreshold``: moves the threshold of a session of picks, without picking again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..errors import plain
from ..flow.frame import BadData
from .bars import bars
from .run import write_json

if TYPE_CHECKING:
    from ..sinks.picks.again import Recount
    from ..sinks.picks.record import Record
    from ..sinks.picks.settings import PickSettings

STEPS = tuple(round(0.05 * step, 2) for step in range(1, 20))
SHOWN = 40
Band = tuple[float, float]


def rethreshold(
    directory: Annotated[
        Path, typer.Argument(help="folder of a session: files.directory of the daemon, --out of pick")
    ],
    threshold: Annotated[float, typer.Option("--threshold", "-t", min=0, max=1, help="picks score at least this")],
    sd: Annotated[
        tuple[float, float] | None,
        typer.Option("--sd", help="band of the pixels' standard deviation that picks lie in; default: as it is"),
    ] = None,
    format_: Annotated[
        list[str] | None, typer.Option("--format", help="a further format to write, as in pick; repeatable")
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option(
            "--pictures/--no-pictures", help="draw pictures again, which reads the micrographs; default: as was"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing; show what thresholds would give")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the counts to this file")] = None,
) -> None:
    """Move the threshold of a session: pick again from the candidates that were kept, and write all files anew.

    Also while a daemon writes into the folder: from its next micrograph on it uses this threshold, too. Particles that
    become picks are cut out of their micrographs where these still lie where they were. Exit code 0: done. 1: a file
    could not be read or written. 2: a wrong option.
    """
    band = _band(sd)
    settings = _settings(directory, format_ or [], pictures)
    from ..sinks.picks import again

    try:
        records = again.records_in(directory)
        if not records:
            _stop(f"{directory}: holds no micrographs; name the folder of a session", 2)
        _above_floor(records, threshold)
        if dry_run:
            counts = again.preview(records, threshold, band)
        else:
            with bars() as progress:
                counts = again.rethreshold(directory, settings, threshold, band, progress or _silent)
    except BadData as error:
        _stop(error.detail, 1)
    except OSError as error:
        _stop(f"{plain(error)}; what was written is whole: do it again when that is mended", 1)
    except ValueError as error:
        _stop(str(error), 1)
    steps = sorted({*(step for step in STEPS if step >= _floor(records)), threshold})
    curve = again.curve(records, steps, band) if dry_run else []
    _show(records, counts, threshold, dry_run)
    if dry_run:
        _show_curve(curve, threshold, records)
    if json_file is not None:
        write_json(json_file, _report(counts, curve, threshold, band, dry_run))


def _silent(what: str, done: int, of: int) -> None:
    """No progress."""


def _stop(text: str, code: int) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(code)


def _band(sd: Band | None) -> Band | None:
    if sd is not None and not (0 <= sd[0] < sd[1] and not math.isnan(sd[1])):
        _stop(f"--sd {sd[0]:g} {sd[1]:g}: give the lower limit first, from 0 on", 2)
    return sd


def _settings(directory: Path, more: Sequence[str], pictures: bool | None) -> PickSettings:
    from pydantic import ValidationError

    from ..sinks.picks.again import formats_of
    from ..sinks.picks.settings import FORMATS, noted_settings

    wrong = [name for name in more if name not in FORMATS]
    if wrong:
        _stop(f"--format {wrong[0]}: is not one of {', '.join(FORMATS)}", 2)
    if not directory.is_dir():
        _stop(f"{directory}: no such folder; name the folder of a session", 2)
    try:
        settings = noted_settings(directory) or _by_files(directory)
        formats = formats_of(directory, settings, [name for name in FORMATS if name in more])
        shown = settings.pictures if pictures is None else pictures
        return type(settings).model_validate({**settings.model_dump(), "formats": formats, "pictures": shown})
    except (ValidationError, ValueError) as error:
        _stop(str(error), 1)


def _by_files(directory: Path) -> PickSettings:
    """Settings by what lies in the folder, where they were not noted."""
    from ..sinks.picks.settings import ParticleSettings, PickSettings

    mrcs = next(directory.rglob("*.mrcs"), None) is not None
    return PickSettings(directory=directory, formats=(), pictures=False, particles=ParticleSettings(mrcs=mrcs))


def _floor(records: Sequence[Record]) -> float:
    """The lowest threshold that all micrographs have the candidates for."""
    return max(record.micrograph.floor for record in records)


def _above_floor(records: Sequence[Record], threshold: float) -> None:
    if threshold < _floor(records):
        _stop(
            f"--threshold {threshold:g}: candidates below {_floor(records):g} were not kept; set model.floor lower, "
            "and pick again",
            2,
        )


def _show(records: Sequence[Record], counts: Sequence[Recount], threshold: float, dry_run: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("micrograph", "candidates", "before", "after", box=None)
    for count in counts[:SHOWN]:
        table.add_row(count.name, str(count.candidates), str(count.before), str(count.after))
    if len(counts) > SHOWN:
        table.add_row(f"… {len(counts) - SHOWN} more", "", "", "")
    (console if console.is_terminal else Console(width=160)).print(table, highlight=False)
    before, after = sum(c.before for c in counts), sum(c.after for c in counts)
    was = sorted({record.micrograph.threshold for record in records})
    verb = "would give" if dry_run else "gives"
    typer.echo(
        f"{len(counts)} micrographs: threshold {threshold:g} {verb} {after} picks; "
        f"{', '.join(f'{t:g}' for t in was)} gave {before}"
    )
    missing = [count for count in counts if count.without_image]
    if missing:
        total = sum(count.without_image for count in missing)
        typer.echo(
            f"{total} picks in {len(missing)} micrographs have no image: the micrographs are gone, changed, or "
            f"movies ({missing[0].name} …); pick these again to have them"
        )
    if not dry_run and any(not count.drawn for count in counts):
        typer.echo("pictures that could not be drawn again were removed: they showed the old picks")


def _show_curve(curve: Sequence[tuple[float, int, float]], threshold: float, records: Sequence[Record]) -> None:
    most = max((picks for _, picks, _ in curve), default=0) or 1
    in_force = {record.micrograph.threshold for record in records}
    typer.echo("threshold    picks  median per micrograph")
    for step, picks, median in curve:
        mark = " ← asked for" if step == threshold else " ← now" if step in in_force else ""
        typer.echo(f"{step:9.2f} {picks:8d} {median:8.1f}  {'█' * round(40 * picks / most)}{mark}")


def _report(
    counts: Sequence[Recount], curve: Any, threshold: float, band: Band | None, dry_run: bool
) -> dict[str, Any]:
    return {
        "threshold": threshold,
        "sd_range": band,
        "dry_run": dry_run,
        "before": sum(count.before for count in counts),
        "after": sum(count.after for count in counts),
        "without_image": sum(count.without_image for count in counts),
        "micrographs": [asdict(count) for count in counts],
        "curve": [{"threshold": t, "picks": picks, "median": median} for t, picks, median in curve],
    }
