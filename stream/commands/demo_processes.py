"""The processes of the demo: a source and a daemon for each beamline, started, watched and ended together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Side:
    """One beamline's half of the demo: what feeds it, the daemon, and how to wait until it has all of it.

    ``source`` and ``daemon`` are arguments of ``beamsieve``. ``drained`` returns once the daemon has read what the
    source left (a folder keeps files; a socket keeps nothing), or its patience is over; it is given what says whether
    the user, or a daemon that ended, makes waiting vain.
    """

    name: str
    feeds: str
    source: list[str]
    daemon: list[str]
    drained: Callable[[Callable[[], bool]], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Ended:
    """Exit codes of both processes of a side (negative: the signal that killed it), and who ended the demo.

    ``by``: ``user``, ``daemon`` (this side's own), ``other`` (another side's), ``source`` (all had sent what they had),
    or ``patience`` where it took far too long.
    """

    daemon: int
    source: int
    by: str


def too_early(ended: Ended, sent_s: float, wanted_s: float, feeds: str = "detector") -> str | None:
    """What to say where it was not the user who ended the demo before ``wanted_s`` seconds of sending, or None."""
    if ended.by == "daemon":
        return f"the daemon ended early: {exit_of(ended.daemon)}"
    if ended.by == "source" and (ended.source or sent_s < wanted_s - 1):
        return f"the {feeds} ended early, before {wanted_s:g} s were over: {exit_of(ended.source)}"
    return f"the demo took too long and was ended, with {sent_s:.0f} s sent" if ended.by == "patience" else None


def exit_of(code: int) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code >= 0 else f"exit code {code}, killed by {signal.Signals(-code).name}"


def play(sides: Sequence[Side], patience_s: float) -> dict[str, Ended]:
    """Run all sides until every source has ended, let the daemons take what is left, then drain them."""
    stop, interrupted = threading.Event(), threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        stop.set()

    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGINT, signal.SIGTERM)]
    daemons = {side.name: start(side.daemon) for side in sides}
    sources = {side.name: start(side.source) for side in sides}
    try:
        for process in daemons.values():
            threading.Thread(target=watch, args=(process, stop), daemon=True).start()
        threading.Thread(target=watch_all, args=(list(sources.values()), stop), daemon=True).start()
        stop.wait(patience_s)
        dead = {name for name, process in daemons.items() if process.poll() is not None}
        sent = any(process.poll() is not None for process in sources.values())
        by = "user" if interrupted.is_set() else "other" if dead else "source" if sent else "patience"
        codes = {name: end(process, 10) for name, process in sources.items()}
        if by == "source":
            for side in sides:
                side.drained(lambda: interrupted.is_set() or any(one.poll() is not None for one in daemons.values()))
        for process in daemons.values():
            if process.poll() is None:
                process.terminate()
        return {
            name: Ended(gone(process, 60), codes[name], "daemon" if name in dead and by == "other" else by)
            for name, process in daemons.items()
        }
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        for process in (*daemons.values(), *sources.values()):
            if process.poll() is None:
                process.kill()
                process.wait()


def watch_all(processes: list[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """Set ``over`` when all processes have ended, or one of them badly."""
    for process in processes:
        if process.wait():
            break
    over.set()


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start ``beamsieve`` with these arguments, out of reach of the terminal's Ctrl-C: the demo decides who stops."""
    environment = {**os.environ, "BEAMSIEVE_LOG": os.environ.get("BEAMSIEVE_LOG", "WARNING")}
    return subprocess.Popen(
        [sys.executable, "-m", "beamsieve.stream", *arguments], start_new_session=True, env=environment
    )


def watch(process: subprocess.Popen[bytes], over: threading.Event) -> None:
    """Set ``over`` when the process has ended."""
    process.wait()
    over.set()


def end(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask a process to end with SIGTERM and wait; returns its exit code."""
    if process.poll() is None:
        process.terminate()
    return gone(process, grace_s)


def gone(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Wait for a process that was asked to end, and kill it where it does not; returns its exit code."""
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def read(path: Path) -> dict[str, Any]:
    """What a process wrote, or nothing."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
