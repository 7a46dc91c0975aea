"""``beamsieve demo``: an emulated detector and a folder that fills, and a real daemon on each, for a minute."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..emulators.jet import pause
from ..live.access import token_in
from . import demo_hits, demo_mining, demo_picks
from .demo_processes import Ended, Side, free_port, play, read, too_early
from .page import page_link
from .run import write_json

RATE_HZ = 120.0
HITS = 0.05
MULTIPLES = 0.03
EVERY_S = 4.0
PATIENCE_S = 120.0

Only = Literal["both", "xfel_hits", "cryoem_picks", "cryoet_mining"]


def demo(
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="how long detector and microscope send")] = 60,
    only: Annotated[
        Only, typer.Option("--only", "--beamline", help="one beamline, or xfel_hits and cryoem_picks side by side")
    ] = "both",
    rate: Annotated[float, typer.Option("--rate", min=1, help="shots per second")] = RATE_HZ,
    hits: Annotated[float, typer.Option("--hits", min=0, max=1, help="share of shots that hit one particle")] = HITS,
    multiples: Annotated[float, typer.Option("--multiples", min=0, max=1, help="share that hit several")] = MULTIPLES,
    every: Annotated[float, typer.Option("--every", min=0.5, help="seconds from micrograph to micrograph")] = EVERY_S,
    snr: Annotated[float, typer.Option("--snr", min=0.001, max=10, help="signal to noise of the micrographs")] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="of what is simulated")] = 1,
    jet_off: Annotated[
        list[str] | None, typer.Option("--jet-off", help="no particles from second FROM:TO on, as 20:40; repeatable")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the files")] = Path("out"),
    json_file: Annotated[Path | None, typer.Option("--json", help="write the summary to this file")] = None,
) -> None:
    """Watch both daemons work: xfel_hits on a simulated DECTRIS detector, cryoem_picks on a folder that fills.

    --only cryoet_mining watches a third: tomograms arrive and are explored, clusters are marked by what is known of
    them, and further tomograms come with a class for every voxel. That takes about three minutes, whatever --seconds.

    Ctrl-C ends it cleanly at any time. Needs no GPU, no configuration and no network. --jet-off shows what a hit rate
    does when the injector stops.
    """
    for span in jet_off or []:
        try:
            pause(span)
        except ValueError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from None
    folder = out.resolve() / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sides: list[Side] = []
        if only in {"both", "xfel_hits"}:
            shots = demo_hits.Shots(rate, hits, multiples, seed, tuple(jet_off or ()))
            port = free_port()
            sides.append(demo_hits.side(folder, scratch, port, free_port(), seconds, shots))
            typer.echo(
                f"xfel_hits: a detector sends {rate:g} shots/s, {100 * hits:g} % hit one particle, "
                f"{100 * multiples:g} % hit several.\n  the daemon: beamsieve run {folder / 'xfel_hits.yaml'}\n"
                f"  watch it: {link(port, folder)}"
            )
        if only == "cryoet_mining":
            port = free_port()
            sides.append(demo_mining.side(folder, scratch, port, seed))
            typer.echo(
                f"cryoet_mining: tomograms of {demo_mining.CLASSES} come into a folder.\n"
                f"  the daemon: beamsieve run {folder / 'cryoet_mining.yaml'}\n"
                f"  watch it: {link(port, folder / 'mined')}"
            )
        if only in {"both", "cryoem_picks"}:
            port = free_port()
            sides.append(demo_picks.side(folder, scratch, port, seconds, every, snr, seed))
            typer.echo(
                f"cryoem_picks: a microscope writes a micrograph every {every:g} s, slowly and in pieces, one of them "
                f"cut short, one changed later.\n  the daemon: beamsieve run {folder / 'cryoem_picks.yaml'}\n"
                f"  watch it: {link(port, folder / 'picks')}"
            )
        typer.echo("\nsimulating, and warming up the models …")
        ended = play(sides, PATIENCE_S + seconds)
        early = [text for side in sides if (text := complaint(side, ended[side.name], scratch, seconds))]
        found = {side.name: result(side, scratch, folder) for side in sides}
    for text in early:
        typer.echo(text, err=True)
    whole = {name: summary for name, summary in found.items() if summary is not None}
    code = next((one.daemon for one in ended.values() if one.daemon), 0) or int(bool(early))
    if json_file:
        write_json(json_file, whole)
    for name, summary in whole.items():
        typer.echo(DESCRIBED[name](summary))
    if len(whole) < len(sides):
        typer.echo("the demo did not come to its end; what the processes said is above", err=True)
        code = code or 1
    raise typer.Exit(code)


TRUTH = {"xfel_hits": "shots.json", "cryoem_picks": "micrographs.json", "cryoet_mining": "tomograms.json"}
FOUND = {"xfel_hits": "hits.json", "cryoem_picks": "picks.json", "cryoet_mining": "mining.json"}
DESCRIBED = {
    "xfel_hits": demo_hits.describe,
    "cryoem_picks": demo_picks.describe,
    "cryoet_mining": demo_mining.describe,
}


def link(port: int, directory: Path) -> str:
    """Where a browser sees a daemon of the demo, with what lets it change things."""
    directory.mkdir(exist_ok=True)
    return page_link("127.0.0.1", port, token_in(directory / "page.token"))


def complaint(side: Side, ended: Ended, scratch: Path, seconds: float) -> str | None:
    """What to say of a side that ended too early, or None."""
    # The microscope writes so many micrographs; the last one is there before its time is over.
    sent = read(scratch / TRUTH[side.name]).get("seconds", seconds) if side.name == "xfel_hits" else seconds
    text = too_early(ended, sent, seconds, side.feeds)
    return f"{side.name}: {text}" if text else None


def result(side: Side, scratch: Path, folder: Path) -> dict[str, Any] | None:
    """A side's summary beside the truth, or None where its processes left none."""
    truth, found = read(scratch / TRUTH[side.name]), read(scratch / FOUND[side.name]).get(side.name)
    if found is None or not truth:
        return None
    if side.name == "cryoet_mining":
        return demo_mining.summarise(found, scratch, demo_mining.Places(folder))
    return demo_hits.summarise(found, truth) if side.name == "xfel_hits" else demo_picks.summarise(found, truth)
