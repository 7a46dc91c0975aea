"""``beamsieve train classes2d``: pre-train a denoiser of particle images on simulated pairs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..flow.settings import ConfigError
from .mistakes import user_mistakes
from .run import config_errors

if TYPE_CHECKING:
    from ...models.particles.maps import Volume


def classes2d(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for checkpoint, log, pictures and bundle")],
    recipe: Annotated[str, typer.Option(help="general, or paper: as published")] = "general",
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="to train on: built-in map or file, with @ÅNGSTRÖM per voxel; repeatable"),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option("--validation", help="maps to measure on, never trained on; repeatable")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="clean images of each map")] = None,
    orientations: Annotated[int | None, typer.Option(min=0, help="views that they share; 0: one for each")] = None,
    snr: Annotated[str | None, typer.Option(help="at the start: 0.1, or a range as 0.02,0.5")] = None,
    ctf: Annotated[float | None, typer.Option(help="share of images with a transfer function, 0 to 1")] = None,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--one-by-one", help="blocks apart from each other, or each on what those before leave"
        ),
    ] = None,
    targets: Annotated[str | None, typer.Option(help="noisy: of the next SNR; clean: for all blocks")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="of each block. Default: 20")] = None,
    joint: Annotated[int | None, typer.Option(min=0, help="then, of all blocks at once. Default: the recipe's")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="images per step")] = None,
    rate: Annotated[float | None, typer.Option(help="learning rate of RMSprop")] = None,
    dropout: Annotated[float | None, typer.Option(help="share, 0 to 0.95. Default: the recipe's")] = None,
    held: Annotated[int | None, typer.Option(min=1, help="validation images of each map and condition")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="of everything random. Default: 1")] = None,
    name: Annotated[str | None, typer.Option(help="of the bundle; default: the recipe's")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="default: all cores")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in --out")] = False,
) -> None:
    """Pre-train the cascade of denoising autoencoders (CDAE) on simulated particle images.

    Recipe paper: four views of one protein, 1000 images each at SNR 0.1, 0.4 and 0.6.
    Recipe general: many views of many proteins, with and without a transfer function, SNR 0.02 to 0.5.
    Use the bundle with --bundle OUT/NAME.pt. An interrupted training goes on with --resume.

    Exit code 1: a file cannot be read or written. 2: a wrong option.
    """
    given = {k: v for k, v in locals().items() if k not in {"map_", "validation", "snr", "out", "recipe"}}
    from ...models.classes2d.train import make_options, train
    from ...models.progress import Lines
    from .bars import bars

    with user_mistakes(), config_errors():
        if name is not None and not Path(name).name == name:
            raise ConfigError([f"--name {name}: is no name; leave folders to --out"])
        given |= {"maps": _named(map_), "validation": _named(validation), "snr": _range(snr)}
        options = make_options(out, recipe, **given, command=shlex.join(["beamsieve", *sys.argv[1:]]))
        volumes = _volumes(map_ or options.maps)
        with bars() as shown:
            made = train(options, volumes, _volumes(validation or ()), shown or Lines())
    typer.echo(f"{made}: use it with --bundle {made}; pictures and scores.json lie beside it")


def _named(maps: list[str] | None) -> tuple[str, ...] | None:
    """Maps as the card names them: without the folders of this machine."""
    return tuple(text.rpartition("/")[2] for text in maps) if maps else None


def _volumes(maps: Any) -> list[Volume]:
    from .training_set import volume

    return [volume(text) for text in maps]


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        ends = [float(word) for word in text.split(",")]
    except ValueError:
        ends = []
    if len(ends) not in {1, 2}:
        raise ConfigError([f"--snr {text}: not a number, or two with a comma between them"])
    return ends[0], ends[-1]
