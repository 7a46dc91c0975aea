"""``beamsieve record`` and ``beamsieve replay``: raw messages to a file, and from it to a socket again."""

from __future__ import annotations

import errno
import threading
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ... import __version__
from ..emulators.replay import Replayed
from ..emulators.replay import replay as send_again
from ..emulators.servers import Server
from ..flow.ports import NoFacts
from ..recording import Reader, Writer
from ..sources.receiver import Receiver
from ..sources.recorder import Recorder
from ..sources.sockets import Pattern, SocketSettings
from .emulate import Pattern as Side
from .run import write_json
from .sending import ProgressLine, explained, patience, stopping

_PATTERNS: dict[str, Pattern] = {"dectris": "pull", "karabo": "req", "raw": "pull"}
_HWM = {"dectris": 200, "karabo": 2, "raw": 200}


class Stream(StrEnum):
    """What is recorded; it chooses the socket, the messages are not looked at."""

    DECTRIS = "dectris"
    KARABO = "karabo"
    RAW = "raw"


class Listen(StrEnum):
    """The receiving side of a socket pair."""

    PULL = "pull"
    SUB = "sub"
    REQ = "req"


def record(
    endpoint: Annotated[str, typer.Option("--endpoint", help="where the messages come from, tcp://detector:9999")],
    out: Annotated[Path, typer.Option("--out", help="the recording, for example run12.bsrec")],
    source: Annotated[Stream, typer.Option("--source", help="dectris, karabo or raw")] = Stream.RAW,
    pattern: Annotated[Listen | None, typer.Option("--pattern", help="socket; karabo: req, others: pull")] = None,
    bind: Annotated[bool, typer.Option("--bind", help="listen at the endpoint instead of connecting to it")] = False,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0, help="stop after this time")] = None,
    messages: Annotated[int | None, typer.Option("--messages", min=1, help="stop after so many messages")] = None,
    roll_gb: Annotated[float, typer.Option("--roll-gb", min=0, help="new file after 10^9 bytes; 0: one file")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="write a summary to this file")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress line and no summary")] = False,
) -> None:
    """Write raw messages with their arrival times to a file, until SIGINT or SIGTERM.

    A recorder on a pull or req socket takes the messages it records away from other receivers; on sub it does not.
    """
    kind: Pattern = _PATTERNS[source.value] if pattern is None else pattern.value
    about = {
        "source": source.value,
        "endpoint": endpoint,
        "pattern": kind,
        "began": datetime.now(UTC).isoformat(),
        "program": f"beamsieve {__version__}",
    }
    settings = SocketSettings(endpoint=endpoint, bind=bind, hwm=_HWM[source.value])
    with explained(), stopping() as stop, ProgressLine(quiet) as line:
        receiver = Receiver(settings, kind, NoFacts())
        receiver.open()
        try:
            writer = Writer(out, about, int(roll_gb * 1e9))
            try:
                try:
                    Recorder(receiver, writer).run(stop, seconds, messages, lambda w: line.show(lambda: _recorded(w)))
                finally:
                    writer.close()
            except OSError as error:
                raise _full(error, writer) from error
        finally:
            receiver.close()
    found = {"messages": writer.messages, "bytes": writer.bytes, "files": [str(path) for path in writer.paths]}
    _tell(found, _recorded(writer), json_file, quiet)


def replay(
    files: Annotated[list[Path], typer.Argument(help="recordings, or .cbors captures, in the order to be sent")],
    endpoint: Annotated[str, typer.Option("--endpoint", help="where to send, such as tcp://*:9999")],
    pattern: Annotated[Side, typer.Option("--pattern", help="push, pub or rep")] = Side.PUSH,
    speed: Annotated[str, typer.Option("--speed", help="1: as recorded, 2: twice as fast, max: no waiting")] = "1",
    rate: Annotated[float | None, typer.Option("--rate", min=1e-3, help="messages per second instead")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="begin again until stopped")] = False,
    connect: Annotated[bool, typer.Option("--connect", help="connect to the endpoint instead of listening")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write a summary to this file")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress line and no summary")] = False,
) -> None:
    """Send recorded messages again with their original timing. A receiver that is slow is waited for.

    What a killed recorder left incomplete at the end of a file is reported, and the rest is sent.
    """
    with explained(), stopping() as stop, ProgressLine(quiet) as line:
        factor = _speed(speed)
        readers = [Reader(path) for path in files]
        server = Server(endpoint, cast(Any, pattern.value), bind=not connect)
        taken = threading.Event()

        def progress(so_far: Replayed) -> None:
            taken.set()
            line.show(lambda: _sent(so_far))

        timer = patience(line, lambda: server.endpoint, taken.is_set)
        timer.start()
        try:
            sent = send_again(readers, server, stop, factor, rate, loop, progress)
        finally:
            timer.cancel()
            server.close()
    for where in sent.truncated:
        typer.echo(f"warning: {where}", err=True)
    if sent.damaged:
        typer.echo(f"warning: {sent.damaged} damaged records were left out", err=True)
    found = {
        "endpoint": server.endpoint,
        "messages": sent.messages,
        "bytes": sent.bytes,
        "seconds": round(sent.seconds, 3),
        "damaged": sent.damaged,
        "truncated": sent.truncated,
    }
    _tell(found, _sent(sent), json_file, quiet)


def _speed(text: str) -> float:
    try:
        speed = 0.0 if text == "max" else float(text)
    except ValueError:
        speed = -1.0
    if speed < 0 or (speed == 0 and text != "max"):
        raise ValueError(f"--speed {text}: write a positive number, or max")
    return speed


def _full(error: OSError, writer: Writer) -> OSError:
    if error.errno != errno.ENOSPC:
        return error
    return OSError(
        errno.ENOSPC,
        f"{writer.paths[-1]}: the disk is full; about {writer.messages} messages before it can be replayed: "
        "make room, or record elsewhere with --out",
    )


def _recorded(writer: Writer) -> str:
    return f"{writer.messages} messages recorded, {writer.bytes / 1e6:.1f} MB, in {writer.paths[-1]}"


def _sent(sent: Replayed) -> str:
    return f"{sent.messages} messages sent, {sent.bytes / 1e6:.1f} MB"


def _tell(found: dict[str, Any], text: str, json_file: Path | None, quiet: bool) -> None:
    if json_file is not None:
        write_json(json_file, found)
    if not quiet:
        typer.echo(text, err=True)
