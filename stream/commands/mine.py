"""``beamsieve mine``: sub-volumes of tomograms picked, encoded and put into clusters, without a daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import plain
from ..flow.settings import ConfigError
from ..sinks.tomograms.settings import FORMATS
from .bars import bars
from .mined_files import find, show
from .pick import Options, checked
from .run import config_errors, start_logging, write_json
from .sending import stopping

STOPPED = 143
"""Exit code after a signal, as shells give it for SIGTERM."""
FIRST = 10


def mine(
    tomograms: Annotated[list[Path], typer.Argument(help="files, or folders of them (.mrc .rec .map .hdf)")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the session; one that is there is gone on with")],
    bundle: Annotated[
        str, typer.Option(help="network that encodes: name of a model, or the path of its .pt file")
    ] = "tomograms-posed",
    posed: Annotated[
        bool | None, typer.Option("--posed/--not-posed", help="turn sub-volumes to their axes; default: the card's")
    ] = None,
    voxel_a: Annotated[
        float | None, typer.Option("--voxel-a", help="ångström per voxel, where the files do not say")
    ] = None,
    bright: Annotated[bool, typer.Option("--bright", help="density is bright in these files")] = False,
    flip: Annotated[Literal["none", "x", "y", "z"], typer.Option(help="mirror this axis as files are read")] = "none",
    stacks: Annotated[bool, typer.Option("--stacks", help="take files whose header says stack of images")] = False,
    threshold: Annotated[float | None, typer.Option(help="of the picker, in standard deviations; default: 2.5")] = None,
    k: Annotated[int | None, typer.Option("--k", help="clusters; default: 100")] = None,
    cluster: Annotated[bool, typer.Option("--cluster/--no-cluster", help="make clusters afterwards")] = True,
    bundle_segments: Annotated[
        str | None, typer.Option("--segments", help="a segmentation: a label for every voxel, too")
    ] = None,
    format_: Annotated[
        list[str] | None, typer.Option("--format", help=f"{', '.join(FORMATS)}; default: all but csv; repeatable")
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="a PNG per tomogram")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(help="default: one per core")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="any other setting: model.distance=8; repeatable")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write a summary to this file")] = None,
) -> None:
    """Find what tomograms hold, without a template: sub-volumes in clusters, on one sheet to mark groups from.

    Does what the daemon cryoet_mining does, on files that are named. Writes --out/session/NAME.h5 (positions, codes,
    clusters), clusters.h5, clusters.png, coordinates for RELION 5, EMAN2 and copick. Run again with more tomograms, it
    goes on: clusters keep their numbers, and what is marked in --out/groups.yaml gives what is mined a class.

    Exit code 0: all were mined. 1: some could not be read or written (they are named). 2: a wrong option. 143: stopped
    by a signal; the same command goes on.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    start_logging(False)
    from ...models.bundle import bundle_at

    options: dict[str, dict[str, Any]] = {
        "decode": {"voxel_a": voxel_a, "bright": bright, "flip": flip, "stacks": "take" if stacks else "refuse"},
        "model": {
            "bundle": str(bundle_at(bundle, Path.cwd())),
            "posed": posed,
            "threshold": threshold,
            "device": device,
            "threads": threads,
        },
        "clusters": {"number": k, "first_at": FIRST, "retrain": False},
        "segment": {"bundle": None if bundle_segments is None else str(bundle_at(bundle_segments, Path.cwd()))},
        "files": {
            "directory": str(out.resolve()),
            "formats": tuple(dict.fromkeys(format_)) if format_ else None,
            "pictures": pictures,
        },
    }
    with stopping() as stop, config_errors():
        from ...models.progress import Lines
        from ..beamlines.mining_offline import MineFiles, mine_files

        files = find(tomograms, out)
        _apart(files, out)
        settings, where = checked(options, set_ or [], MineFiles, "mine", MiningOptions)
        try:
            with bars() as shown:
                done = mine_files(settings, files, where, shown or Lines(), stop=stop, cluster=cluster)
        except OSError as error:
            typer.echo(plain(error), err=True)
            raise typer.Exit(1) from None
    show(done)
    if json_file:
        write_json(json_file, done.summary)
    if done.stopped:
        typer.echo("stopped; the same command goes on", err=True)
        raise typer.Exit(STOPPED)
    if done.failures:
        raise typer.Exit(1)


OPTIONS = {
    "decode.voxel_a": "--voxel-a",
    "model.bundle": "--bundle",
    "model.threshold": "--threshold",
    "model.device": "--device",
    "model.threads": "--threads",
    "clusters.number": "--k",
    "segment.bundle": "--segments",
    "files.directory": "--out",
    "files.formats": "--format",
}


class MiningOptions(Options):
    """Where settings stand that were given as options of this command."""

    options = OPTIONS


def _apart(files: list[Path], out: Path) -> None:
    """Label volumes would be taken for tomograms, and tomograms be overwritten. Raises ``ConfigError``."""
    inside = [path for path in files if path.resolve().is_relative_to(out.resolve())]
    if inside:
        raise ConfigError([f"{inside[0]}: lies in --out, where results are written; choose another folder"])
