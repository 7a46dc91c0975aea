"""``beamsieve emulate tomograms``: a reconstruction program that is not there, dropping tomograms into a folder."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .run import write_json
from .sending import ProgressLine, explained, stopping

if TYPE_CHECKING:
    from ...models.tomograms.scene import SceneOptions

_ALL = "membrane, ribosome, globule, carbon, gold"


class Suffix(StrEnum):
    """What the files' names end in; both are MRC."""

    MRC = "mrc"
    REC = "rec"


class Stored(StrEnum):
    """The voxels' type in the file."""

    FLOAT32 = "float32"
    INT16 = "int16"
    INT8 = "int8"


def emulate_tomograms(
    out: Annotated[Path, typer.Option("--out", help="folder the tomograms are dropped into; made if missing")],
    count: Annotated[int, typer.Option("--count", min=0, help="how many, 0: until stopped")] = 10,
    every: Annotated[float, typer.Option("--every", min=0, help="seconds from one to the next; 0: at once")] = 10.0,
    suffix: Annotated[Suffix, typer.Option("--format", help="ending of the names")] = Suffix.MRC,
    stored: Annotated[Stored, typer.Option("--stored", help="type of the voxels in the file")] = Stored.FLOAT32,
    shape: Annotated[str, typer.Option("--shape", help="sections, rows and columns")] = "64x192x192",
    voxel_a: Annotated[float, typer.Option("--voxel-a", help="ångström per voxel")] = 14.2,
    snr: Annotated[
        float, typer.Option("--snr", help="of a tilt image: variance of signal over noise; 0: without noise")
    ] = 0.1,
    classes: Annotated[str, typer.Option("--classes", help=f"what is in them, of {_ALL}")] = _ALL,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", help="instead of the built-in ones: CLASS=MAP, class ribosome or globule; repeatable"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="the same seed gives the same tomograms")] = 0,
    renamed: Annotated[bool, typer.Option("--renamed", help="write all under .tmp and rename at the end")] = False,
    hostile: Annotated[
        str, typer.Option("--hostile", help="one tomogram each: changed, truncated, preallocated, renamed, or all")
    ] = "",
    change_after: Annotated[
        float, typer.Option("--change-after", min=0, help="seconds until the changed one is overwritten")
    ] = 20.0,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="folder for labels (MRC) and particles (CSV) of each")
    ] = None,
    clean: Annotated[bool, typer.Option("--clean", help="volumes without noise into --truth, too")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write what was written to this file")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no line per tomogram and no summary")] = False,
) -> None:
    """Drop simulated tomograms into a folder as a reconstruction program does: slowly, in pieces, some broken.

    SIGINT and SIGTERM end it after the file in work; exit code 0.
    """
    from ..emulators.tomograms import MANNERS, Session, TomogramWriter

    with explained(), stopping() as stop, ProgressLine(quiet) as line:
        if clean and truth is None:
            raise ValueError("--clean: needs --truth, the folder it goes to")
        kinds = _kinds(hostile, tuple(MANNERS))
        manner: Literal["plain", "renamed"] = "renamed" if renamed else "plain"
        session = Session(
            out, count, every, kinds, manner, change_after, truth, clean, f".{suffix.value}", stored.value
        )
        options = _options(shape, voxel_a, snr, classes, maps or [])
        began = time.monotonic()
        writer = TomogramWriter(session, _simulator(options, seed), tell=line.say)
        writer.run(stop)
        found = {"out": str(out), **writer.dropped.report(), "seed": seed, "voxel_a": options.voxel_a}
        found |= {"shape": list(options.shape), "snr": options.snr, "truth": None if truth is None else str(truth)}
        found["seconds"] = round(time.monotonic() - began, 3)
    if json_file is not None:
        with explained():
            write_json(json_file, found)
    if not quiet:
        total = sum(found["particles"].values())
        typer.echo(f"{found['written']} tomograms with {total} particles written to {out}", err=True)


def _simulator(options: SceneOptions, seed: int) -> Any:
    """Makes tomogram ``number`` of the seed."""
    from ...models.tomograms.simulator import simulate

    return lambda number: simulate(seed + number, options)


def _options(shape: str, voxel_a: float, snr: float, classes: str, maps: list[str]) -> SceneOptions:
    """The scene that is asked for; maps are loaded now, so that a mistake is told at once."""
    from ...models.tomograms.assemble import checked
    from ...models.tomograms.scene import CLASSES, Kind, SceneOptions

    wanted = [name for name in re.split(r"[\s,]+", classes) if name]
    unknown = [name for name in wanted if name not in CLASSES[1:]]
    if unknown or not wanted:
        raise ValueError(f"--classes {', '.join(unknown) or 'none'}: name some of {_ALL}")
    options = SceneOptions(_shape(shape), voxel_a, snr or None)
    kinds = [kind for kind in options.kinds if not maps]
    for text in maps:
        label, _, name = text.partition("=")
        if label not in ("ribosome", "globule") or not name:
            raise ValueError(f"--map {text}: write CLASS=MAP, as ribosome=70S.mrc; classes are ribosome and globule")
        kinds.append(Kind(name, label))
    options = replace(options, kinds=tuple(kind for kind in kinds if kind.label in wanted))
    absent: dict[str, dict[str, Any]] = {
        "membrane": {"vesicles": (0, 0), "sheets": (0, 0)},
        "carbon": {"carbon": 0.0},
        "gold": {"gold": (0, 0)},
    }
    for name, change in absent.items():
        options = options if name in wanted else replace(options, **change)
    return checked(options)


def _shape(text: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d{1,5})\s*[x×,]\s*(\d{1,5})\s*[x×,]\s*(\d{1,5})", text.strip())
    if found is None:
        raise ValueError(f"--shape {text}: write sections, rows and columns, as 64x192x192")
    return int(found[1]), int(found[2]), int(found[3])


def _kinds(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    kinds = tuple(kind for kind in re.split(r"[\s,]+", text) if kind)
    if kinds == ("all",):
        return known
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"--hostile {text}: name each once")
    return kinds
