"""``beamsieve emulate micrographs``: a microscope's computer that is not there, dropping files into a folder."""

from __future__ import annotations

import re
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .run import write_json
from .sending import ProgressLine, explained, stopping


class LayoutName(StrEnum):
    """How files are named, and what is written beside them."""

    FLAT = "flat"
    EPU = "epu"
    SERIALEM = "serialem"


class FormatName(StrEnum):
    """The files' format."""

    MRC = "mrc"
    TIFF = "tiff"


def micrographs(
    out: Annotated[Path, typer.Option("--out", help="folder the micrographs are dropped into; made if missing")],
    count: Annotated[
        int | None, typer.Option("--count", min=0, help="how many, 0: until stopped; default: 10, or as many as --from")
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0, help="seconds from one to the next; 0: at once")] = 2.0,
    layout: Annotated[LayoutName, typer.Option("--layout", help="names and companion files")] = LayoutName.FLAT,
    file_format: Annotated[FormatName, typer.Option("--format", help="of simulated ones")] = FormatName.MRC,
    particle: Annotated[str, typer.Option("--map", help="a built-in map, or a density map or model file")] = "ribosome",
    conditions: Annotated[
        str, typer.Option("--conditions", help="of the simulation, such as small or paper")
    ] = "small",
    snr: Annotated[float | None, typer.Option("--snr", help="signal-to-noise ratio of a pixel")] = None,
    shape: Annotated[str | None, typer.Option("--shape", help="rows and columns, as 1024x960")] = None,
    pixel_a: Annotated[float | None, typer.Option("--pixel-a", help="ångström per pixel")] = None,
    views: Annotated[
        int, typer.Option("--views", min=0, max=200, help="few orientations, each turned in the plane; 0: any")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="the same seed gives the same micrographs")] = 0,
    files: Annotated[
        list[Path] | None, typer.Option("--from", help="copy this file instead of simulating; may be repeated")
    ] = None,
    hostile: Annotated[
        str,
        typer.Option(
            "--hostile",
            help="one micrograph each: changed, truncated, preallocated, renamed, late, empty, carbon, or all",
        ),
    ] = "",
    change_after: Annotated[
        float, typer.Option("--change-after", min=0, help="seconds until the changed one is overwritten")
    ] = 6.0,
    late: Annotated[float, typer.Option("--late", min=0, help="seconds a late companion comes after its image")] = 2.0,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="CSV of the particles' centres and views; others go to NAME-others.csv"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write what was written to this file")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no line per micrograph and no summary")] = False,
) -> None:
    """Drop micrographs into a folder as a microscope's computer does: slowly, in pieces, some of them broken.

    SIGINT and SIGTERM end it after the file in work; exit code 0.
    """
    from ..emulators.cameras import CopyingCamera, SimulatedCamera
    from ..emulators.dropped import MANNERS
    from ..emulators.micrographs import SIMULATED, MicrographWriter, Session

    with explained(), stopping() as stop, ProgressLine(quiet) as line:
        kinds = _kinds(hostile, tuple(MANNERS), layout, SIMULATED if files else ())
        camera: CopyingCamera | SimulatedCamera
        if files:
            camera = CopyingCamera(files)
        else:
            camera = SimulatedCamera(
                particle,
                conditions,
                seed=seed,
                snr=snr,
                shape=_shape(shape),
                pixel_a=pixel_a,
                views=views,
                file_format=file_format.value,
            )
        number = count if count is not None else len(files) if files else 10
        session = Session(out, layout.value, number, every, kinds, change_after, late, truth)
        began = time.monotonic()
        writer = MicrographWriter(session, camera, tell=line.say)
        _alone(writer, stop)
        found = {"out": str(out), "layout": layout.value, **writer.dropped.report(), "seed": seed}
        found |= {"truth": None if truth is None else str(truth), "seconds": round(time.monotonic() - began, 3)}
        if isinstance(camera, SimulatedCamera):
            found |= _facts(camera)
    if json_file is not None:
        write_json(json_file, found)
    if not quiet:
        typer.echo(f"{found['written']} micrographs with {found['particles']} particles written to {out}", err=True)


def _alone(writer: Any, stop: threading.Event) -> None:
    """Run with one thread of torch's, so that what is tested has the rest of the machine."""
    try:
        import torch

        torch.set_num_threads(1)
    finally:
        writer.run(stop)


def _facts(camera: Any) -> dict[str, Any]:
    pixel_a = camera.conditions.pixel_a
    return {
        "map": camera.volume.name,
        "pixel_a": pixel_a,
        "diameter_a": round(camera.diameter_a, 2),
        "diameter_px": round(camera.diameter_a / pixel_a, 3),
        "snr": camera.conditions.snr,
        "views": camera.conditions.views,
    }


def _kinds(text: str, known: tuple[str, ...], layout: LayoutName, impossible: tuple[str, ...]) -> tuple[str, ...]:
    kinds = tuple(kind for kind in re.split(r"[\s,]+", text) if kind)
    if kinds == ("all",):
        left_out = {*impossible, *(("late",) if layout is LayoutName.FLAT else ())}
        return tuple(kind for kind in known if kind not in left_out)
    if bad := [kind for kind in kinds if kind in impossible]:
        raise ValueError(f"--hostile {', '.join(bad)}: cannot be made of files; simulate, or leave it out")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"--hostile {text}: name each once")
    return kinds


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})\s*[x×,]\s*(\d{1,6})", text.strip())
    if found is None:
        raise ValueError(f"--shape {text}: write rows and columns, as 1024x960")
    return int(found[1]), int(found[2])
