"""``beamsieve train tomograms``: train the autoencoder that sub-volumes are encoded by."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .mistakes import user_mistakes
from .run import start_logging
from .sending import stopping

Progress = Callable[[str, int, int], None]
Stop = Callable[[], bool]

STOPPED = 143
"""Exit code after a signal, as shells give it for SIGTERM."""


def train_tomograms(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[TOMOGRAM|DIR]...", help="tomograms to pick in, or folders of sessions (--session)"),
    ] = None,
    *,
    session: Annotated[
        list[Path] | None, typer.Option(help="folder of a mined session, whose kept sub-volumes count; repeatable")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for checkpoint, log, pictures and bundle")],
    simulated: Annotated[int, typer.Option(min=0, max=1000, help="tomograms to simulate and train on")] = 0,
    first: Annotated[int, typer.Option(min=1000, max=1999, help="seed of the first of them")] = 1000,
    snr: Annotated[str, typer.Option(help="of the simulated: 0.1, or a range as 0.05,0.3")] = "0.05,0.3",
    check: Annotated[int, typer.Option(min=0, max=100, help="more simulated ones, to tell the scores of")] = 0,
    posed: Annotated[
        bool | None, typer.Option("--posed/--not-posed", help="turn sub-volumes into their poses. Default: not")
    ] = None,
    recipe: Annotated[str, typer.Option(help="general, or paper: as published")] = "general",
    start: Annotated[str | None, typer.Option("--from", help="bundle to go on from; default: a new network")] = None,
    most: Annotated[int, typer.Option(min=16, help="sub-volumes to use, at most")] = 20_000,
    edge: Annotated[int | None, typer.Option(min=8, max=128, help="voxels, a multiple of 4. Default: 32")] = None,
    voxel: Annotated[float | None, typer.Option(help="ångström per voxel to work at. Default: 14.2")] = None,
    bright: Annotated[bool, typer.Option("--bright", help="density is bright in the tomograms")] = False,
    threshold: Annotated[float | None, typer.Option(help="of the picks, in standard deviations")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="at most. Default: the recipe's")] = None,
    patience: Annotated[int | None, typer.Option(min=1, help="epochs without a better one. Default: 20")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="sub-volumes per step. Default: 8")] = None,
    rate: Annotated[float | None, typer.Option(help="learning rate of Adam. Default: 0.001")] = None,
    sparsity: Annotated[float | None, typer.Option(help="λ of the L1 penalty on the code")] = None,
    smooth: Annotated[float | None, typer.Option(help="Gaussian, voxels. Default: the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="of everything random. Default: 1")] = None,
    name: Annotated[str | None, typer.Option(help="of the bundle; default: the recipe's")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="default: all cores")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in --out")] = False,
) -> None:
    """Train Autoencoder3D on sub-volumes of tomograms, of mined sessions (those they kept), or of simulated tomograms.

    Recipe paper: as published, on the sub-volumes as they are. Recipe general: smoothed ones, errors against the
    sub-volume without noise where it is simulated, and a code whose numbers do not die out.
    Use the bundle with --bundle OUT/NAME.pt. An interrupted training goes on with --resume and the same options.

    Exit code 0: the bundle is in --out. 1: a file is damaged, or cannot be written. 2: a wrong option. 143: stopped by
    a signal; a checkpoint is left once the first epoch is over.
    """
    given = {
        "posed": posed, "voxel_a": voxel, "start": start, "epochs": epochs, "patience": patience, "batch": batch,
        "rate": rate, "sparsity": sparsity, "smooth": smooth, "seed": seed, "name": name, "threads": threads,
    }  # fmt: skip
    start_logging(False)
    with stopping() as stop, user_mistakes():
        if name is not None and (not name or Path(name).name != name):
            raise ValueError(f"--name {name}: is no name; leave folders to --out")
        paths = [*(paths or []), *(session or [])]
        if bool(paths) == bool(simulated):
            raise ValueError("name tomograms or folders of sessions, or give --simulated; one of them, not both")
        picking = {"edge": edge, "voxel_a": voxel, "most": most, "threshold": threshold, "snr": _range(snr)}
        made = _trained(
            paths, (simulated, first, check), given, picking, (out, recipe, device), bright, resume, stop.is_set
        )
    if made is None:
        typer.echo("stopped; go on with --resume and the same options", err=True)
        raise typer.Exit(STOPPED)
    typer.echo(f"{made}: use it with --bundle {made}; pictures and scores.json lie beside it")


def _trained(
    paths: list[Path],
    simulated: tuple[int, int, int],
    given: dict[str, Any],
    picking: dict[str, Any],
    where: tuple[Path, str, str],
    bright: bool,
    resume: bool,
    stop: Stop,
) -> Path | None:
    """Gather sub-volumes, then train. None where it was stopped."""
    from ...models.progress import Lines
    from ...models.tomograms.told import Stopped
    from ...models.tomograms.train import checkpoint_in, make_options, train
    from .bars import bars
    from .tomogram_samples import gathered

    out, recipe, device = where
    told = {"device": device, "command": shlex.join(["beamsieve", *sys.argv[1:]])}
    given, picking = _of_bundle(given, picking)
    options = make_options(out, recipe, **given, **told)
    checkpoint_in(options, resume)
    with bars() as shown:
        progress = shown or Lines()
        try:
            found = gathered(paths, simulated, options, picking, bright, progress, stop)
        except Stopped:
            return None
        return train(found.sample, found.options, progress, stop, resume=resume, check=found.check)


def _of_bundle(given: dict[str, Any], picking: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given; with --from, the bundle's voxel, poses, edge, smoothing and widths hold where nothing is said."""
    if not given["start"]:
        return given, picking
    from ...models.bundle import load_bundle
    from ...models.tomograms.bundles import codec_network, codec_shape

    bundle = load_bundle(given["start"])
    edge, channels, codes, smooth = codec_shape(codec_network(bundle).state_dict())
    posed, voxel_a = bool(bundle.card.training.get("posed")), bundle.card.input.pixel_a
    for key, value, asked in (
        ("posed", posed, given["posed"]),
        ("voxel_a", voxel_a, given["voxel_a"]),
        ("edge", edge, picking["edge"]),
    ):
        if None not in (value, asked) and value != asked:
            raise ValueError(f"--from {given['start']}: it was trained with {key} {value}, given is {asked}")
    known = {"posed": posed, "voxel_a": voxel_a, "channels": channels, "codes": codes, "smooth": smooth}
    return {**given, **known}, {**picking, "edge": edge}


def _range(text: str) -> tuple[float, float]:
    try:
        ends = [float(word) for word in text.split(",")]
    except ValueError:
        ends = []
    if len(ends) not in {1, 2} or not all(0 < end < 1e4 for end in ends) or ends[0] > ends[-1]:
        raise ValueError(f"--snr {text}: not a positive number, or two with a comma between them, the lower first")
    return ends[0], ends[-1]
