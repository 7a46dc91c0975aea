"""``beamsieve emulate dectris|karabo|micrographs``: a detector or microscope that is not there."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from ..emulators.dectris import DectrisEmulator
from ..emulators.frames import FrameSpec, Shot, frames_from
from ..emulators.jet import Jet, pause
from ..emulators.karabo import KaraboEmulator, Layout
from ..emulators.tally import Tally
from .emulate_micrographs import micrographs
from .emulate_tomograms import emulate_tomograms
from .run import write_json
from .sending import ProgressLine, explained, patience, stopping

app = typer.Typer(help="Emulate a detector or a microscope: from files, or simulated.", no_args_is_help=True)
app.command()(micrographs)
app.command("tomograms")(emulate_tomograms)

Endpoint = Annotated[str, typer.Option("--endpoint", help="where to listen, such as tcp://*:9999")]
Connect = Annotated[bool, typer.Option("--connect", help="connect to the endpoint instead of listening there")]
Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0, help="stop so long after a receiver took the first shot")
]
Count = Annotated[int | None, typer.Option("--frames", min=1, help="stop after so many shots")]
File = Annotated[Path | None, typer.Option("--from", help="HDF5, CXI, NPZ or NPY file with the frames")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="dataset or array in the file")]
Once = Annotated[bool, typer.Option("--once", help="play the file once instead of again and again")]
Simulate = Annotated[bool, typer.Option("--simulate", help="simulated shots (the default without --from)")]
Hits = Annotated[float, typer.Option("--hits", min=0, max=1, help="simulated: share of shots with one particle")]
Multiples = Annotated[float, typer.Option("--multiples", min=0, max=1, help="simulated: share with several particles")]
Size = Annotated[int, typer.Option("--size", min=16, max=4096, help="simulated: pixels along each side")]
Pool = Annotated[int, typer.Option("--pool", min=1, help="simulated: different patterns per class; more take longer")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="simulated: the same seed gives the same shots")]
JetOff = Annotated[
    list[str] | None,
    typer.Option("--jet-off", help="simulated: no particles from second FROM:TO on; repeatable. SIGUSR1 switches too"),
]
Json = Annotated[Path | None, typer.Option("--json", help="write what was sent to this file")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress line and no summary")]


class Compression(StrEnum):
    """How pixels are compressed on the wire."""

    BSLZ4 = "bslz4"
    LZ4 = "lz4"
    BSZSTD = "bszstd"
    NONE = "none"


class WhenFull(StrEnum):
    """What to do with an image that nobody takes."""

    BLOCK = "block"
    DROP = "drop"


class Pattern(StrEnum):
    """The sending side of a socket pair."""

    REP = "rep"
    PUB = "pub"
    PUSH = "push"


class Version(StrEnum):
    """Version of the karabo-bridge protocol."""

    V1_0 = "1.0"
    V2_0 = "2.0"
    V2_1 = "2.1"
    V2_2 = "2.2"


class Order(StrEnum):
    """Order of a train's axes."""

    ONLINE = "online"
    FILE = "file"


@app.command()
def dectris(
    endpoint: Endpoint = "tcp://127.0.0.1:9999",
    connect: Connect = False,
    rate: Annotated[float, typer.Option("--rate", min=0, help="images per second; 0: as fast as possible")] = 120.0,
    seconds: Seconds = None,
    frames: Count = None,
    file: File = None,
    dataset: Dataset = None,
    once: Once = False,
    simulate: Simulate = False,
    hits: Hits = 0.05,
    multiples: Multiples = 0.02,
    size: Size = 128,
    pool: Pool = 20,
    seed: Seed = 0,
    jet_off: JetOff = None,
    version: Annotated[int, typer.Option("--version", min=1, max=2, help="stream version")] = 2,
    compression: Annotated[
        Compression, typer.Option("--compression", help="of the pixels on the wire; bszstd: stream 2 only")
    ] = Compression.BSLZ4,
    when_full: Annotated[WhenFull, typer.Option("--when-full", help="wait for the receiver, or drop")] = WhenFull.BLOCK,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Send one series of images as a DECTRIS detector does.

    Waits for a receiver. SIGINT and SIGTERM end the series with its end message; exit code 0.
    """
    with explained(), stopping() as stop, ProgressLine(quiet) as line:
        shots = _shots(
            file, simulate, FrameSpec(file, dataset, once, hits, multiples, size, pool, seed, _jet(jet_off, file)), line
        )
        tally = Tally()
        emulator = DectrisEmulator(
            endpoint,
            _timed(shots, seconds, tally, line, lambda: emulator.endpoint),
            version=cast(Literal[1, 2], version),
            compression=compression.value,
            rate_hz=rate,
            images=frames or 0,
            when_full=when_full.value,
            bind=not connect,
            send_user_data=False,
            tally=tally,
        )
        _send(emulator, stop)
    _report(emulator.endpoint, tally, json_file, quiet)


@app.command()
def karabo(
    endpoint: Endpoint = "tcp://127.0.0.1:45000",
    connect: Connect = False,
    rate: Annotated[float, typer.Option("--rate", min=0, help="trains per second; 0: as fast as possible")] = 10.0,
    seconds: Seconds = None,
    frames: Count = None,
    file: File = None,
    dataset: Dataset = None,
    once: Once = False,
    simulate: Simulate = False,
    hits: Hits = 0.05,
    multiples: Multiples = 0.02,
    size: Size = 128,
    pool: Pool = 20,
    seed: Seed = 0,
    jet_off: JetOff = None,
    pattern: Annotated[Pattern, typer.Option("--pattern", help="rep answers requests, pub, push")] = Pattern.REP,
    protocol: Annotated[Version, typer.Option("--protocol", help="karabo-bridge protocol")] = Version.V2_2,
    source: Annotated[str, typer.Option("--source", help="source name; * stands for the module with --split")] = "",
    image_key: Annotated[str, typer.Option("--image-key", help="property with the pixels")] = "image.data",
    pulses: Annotated[int, typer.Option("--pulses", min=0, help="shots per train; 0: a camera, one image")] = 64,
    order: Annotated[Order, typer.Option("--order", help="axes: online or file order")] = Order.ONLINE,
    modules: Annotated[int, typer.Option("--modules", min=1, help="cut images into so many modules")] = 1,
    split: Annotated[bool, typer.Option("--split", help="one source per module")] = False,
    when_full: Annotated[WhenFull, typer.Option("--when-full", help="wait for the receiver, or drop")] = WhenFull.DROP,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Send trains of shots as a karabo-bridge does.

    SIGINT and SIGTERM end it cleanly; exit code 0. The bridge has no message that ends a run.
    """
    with explained(), stopping() as stop, ProgressLine(quiet) as line:
        default = "SPB_DET_AGIPD1M-1/DET/*CH0:xtdf" if split else Layout().source
        if split and "*" not in (source or default):
            raise ValueError(f"--source {source}: --split needs a * where the module's number goes")
        layout = Layout(source or default, image_key, pulses, cast(Any, order.value), modules, split)
        shots = _shots(
            file, simulate, FrameSpec(file, dataset, once, hits, multiples, size, pool, seed, _jet(jet_off, file)), line
        )
        tally = Tally()
        emulator = KaraboEmulator(
            endpoint,
            _timed(shots, seconds, tally, line, lambda: emulator.endpoint, frames),
            layout,
            cast(Any, pattern.value),
            cast(Any, protocol.value),
            rate_hz=rate,
            wait=when_full is WhenFull.BLOCK,
            bind=not connect,
            tally=tally,
        )
        _send(emulator, stop)
    _report(emulator.endpoint, tally, json_file, quiet)


def _shots(file: Path | None, simulate: bool, spec: FrameSpec, line: ProgressLine) -> Iterator[Shot]:
    if file is not None and simulate:
        raise ValueError("--from and --simulate exclude each other: choose one")
    if file is None:
        line.show(lambda: f"simulating {5 * spec.pool} patterns of {spec.size} × {spec.size} pixels …")
    return frames_from(spec)


def _jet(pauses: list[str] | None, file: Path | None) -> Jet:
    """The jet of simulated shots, which SIGUSR1 switches off and on."""
    if pauses and file is not None:
        raise ValueError("--jet-off is for simulated shots: leave --from out")
    jet = Jet([pause(text) for text in pauses or []])
    signal.signal(signal.SIGUSR1, jet.toggle)
    return jet


def _timed(
    shots: Iterator[Shot],
    seconds: float | None,
    tally: Tally,
    line: ProgressLine,
    endpoint: Callable[[], str],
    most: int | None = None,
) -> Iterator[Shot]:
    """Shots until the time is over, which begins to run when the first one has been taken by somebody.

    Says once where it waits, if nobody takes any.
    """
    timer = patience(line, endpoint, lambda: bool(tally.messages))
    deadline: float | None = None
    try:
        for number, shot in enumerate(shots):
            if number == 0:
                timer.start()
            if number == most or (deadline is not None and time.monotonic() >= deadline):
                return
            yield shot
            if deadline is None and seconds is not None and tally.messages:
                deadline = time.monotonic() + seconds
            line.show(lambda: f"{tally.sent} shots sent, {tally.dropped} dropped, {_rate(tally):.0f} shots/s")
    finally:
        timer.cancel()


def _rate(tally: Tally) -> float:
    return tally.sent / tally.seconds if tally.seconds > 0 else 0.0


def _send(emulator: DectrisEmulator | KaraboEmulator, stop: threading.Event) -> None:
    emulator.endpoint = emulator.open()
    try:
        emulator.run(stop)
    finally:
        emulator.close()


def _report(endpoint: str, tally: Tally, json_file: Path | None, quiet: bool) -> None:
    found = {"endpoint": endpoint, **tally.report()}
    if json_file is not None:
        write_json(json_file, found)
    if not quiet:
        classes = ", ".join(f"{n} of class {k}" for k, n in found["true_classes"].items())
        text = f"{found['sent']} shots sent in {found['seconds']} s, {found['rate_hz']}/s, {found['dropped']} dropped"
        typer.echo(f"{text}; {classes}" if classes else text, err=True)
