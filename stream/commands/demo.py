"""``beamsieve demo``: an emulated detector and the real daemon on it, over a real socket, for a minute."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ..flow.rates import wilson
from .run import write_json

RATE_HZ = 120.0
HITS = 0.05
MULTIPLES = 0.03
PATIENCE_S = 60.0


def demo(
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="how long the detector sends")] = 60,
    rate: Annotated[float, typer.Option("--rate", min=1, help="shots per second")] = RATE_HZ,
    hits: Annotated[float, typer.Option("--hits", min=0, max=1, help="share of shots that hit one particle")] = HITS,
    multiples: Annotated[float, typer.Option("--multiples", min=0, max=1, help="share that hit several")] = MULTIPLES,
    seed: Annotated[int, typer.Option("--seed", help="of the simulated shots")] = 1,
    out: Annotated[Path, typer.Option("--out", help="folder for the files")] = Path("out"),
    json_file: Annotated[Path | None, typer.Option("--json", help="write the summary to this file")] = None,
) -> None:
    """Watch the main job run: a simulated DECTRIS detector sends shots, the xfel_hits daemon sieves them.

    Ctrl-C ends it cleanly at any time. Needs no GPU, no configuration and no network.
    """
    folder = out.resolve() / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    endpoint, port = f"tcp://127.0.0.1:{free_port()}", free_port()
    config = folder / "xfel_hits.yaml"
    config.write_text(yaml.safe_dump(settings(endpoint, port, seed), sort_keys=False), encoding="utf-8")
    typer.echo(
        f"A detector is simulated at {endpoint}: {rate:g} shots/s, {100 * hits:g} % hit one particle, "
        f"{100 * multiples:g} % hit several.\nThe daemon: beamsieve run {config}\n"
        f"Metrics while it runs: http://127.0.0.1:{port}/metrics\n\nsimulating the shots, and warming up the model …"
    )
    with tempfile.TemporaryDirectory() as scratch:
        truth_file, found_file = Path(scratch, "truth.json"), Path(scratch, "found.json")
        source = ["emulate", "dectris", "--simulate", "--endpoint", endpoint, "--rate", str(rate), "--hits", str(hits)]
        source += ["--multiples", str(multiples), "--seconds", str(seconds), "--seed", str(seed), "--quiet"]
        ended = play(
            [*source, "--json", str(truth_file)],
            ["run", str(config), "--no-summary", "--json", str(found_file)],
            PATIENCE_S + seconds,
        )
        truth, found = read(truth_file), read(found_file).get("xfel_hits")
    code = ended.daemon
    if early := too_early(ended, truth.get("seconds", 0.0), seconds):
        typer.echo(early, err=True)
        code = code or 1
    if found is None or not truth:
        typer.echo("the demo did not come to its end; what the processes said is above", err=True)
        raise typer.Exit(code or 1)
    summary = summarise(found, truth)
    if json_file:
        write_json(json_file, {"xfel_hits": summary})
    typer.echo(describe(summary))
    raise typer.Exit(code)


def settings(endpoint: str, port: int, seed: int) -> dict[str, Any]:
    """The daemon's configuration in the demo."""
    return {
        "beamline": "xfel_hits",
        "source": {"kind": "dectris", "endpoint": endpoint},
        "model": {"bundle": "hits-resnet10", "batch": 16, "wait_ms": 4},
        "keep": {"miss_fraction": 0.01, "seed": seed},
        "files": {"directory": ".", "instrument": "simulated", "sample": "simulated polyhedra"},
        "service": {"port": port},
    }


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start ``beamsieve`` with these arguments, out of reach of the terminal's Ctrl-C: the demo decides who stops."""
    environment = {**os.environ, "BEAMSIEVE_LOG": os.environ.get("BEAMSIEVE_LOG", "WARNING")}
    return subprocess.Popen(
        [sys.executable, "-m", "beamsieve.stream", *arguments], start_new_session=True, env=environment
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """Exit codes of both processes (negative: the signal that killed it), and who ended the demo.

    ``by``: ``user``, ``daemon``, ``detector``, or ``patience`` where it took far too long.
    """

    daemon: int
    detector: int
    by: str


def too_early(ended: Ended, sent_s: float, wanted_s: float) -> str | None:
    """What to say where it was not the user who ended the demo before ``wanted_s`` seconds of sending, or None."""
    if ended.by == "daemon":
        return f"the daemon ended early: {exit_of(ended.daemon)}"
    if ended.by == "detector" and (ended.detector or sent_s < wanted_s - 1):
        return f"the detector ended early, before {wanted_s:g} s were over: {exit_of(ended.detector)}"
    return f"the demo took too long and was ended, with {sent_s:.0f} s sent" if ended.by == "patience" else None


def exit_of(code: int) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code >= 0 else f"exit code {code}, killed by {signal.Signals(-code).name}"


def play(source: list[str], daemon: list[str], patience_s: float) -> Ended:
    """Run detector and daemon to the end of the one, then drain the other."""
    stop, interrupted = threading.Event(), threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        stop.set()

    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGINT, signal.SIGTERM)]
    running = {"daemon": start(daemon), "detector": start(source)}
    try:
        for process in running.values():
            threading.Thread(target=watch, args=(process, stop), daemon=True).start()
        stop.wait(patience_s)
        first = [name for name, process in running.items() if process.poll() is not None]
        by = "user" if interrupted.is_set() else first[0] if first else "patience"
        detector = end(running["detector"], 10)
        return Ended(end(running["daemon"], 30), detector, by)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def watch(process: subprocess.Popen[bytes], over: threading.Event) -> None:
    """Set ``over`` when the process has ended."""
    process.wait()
    over.set()


def end(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask a process to end with SIGTERM and wait; returns its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def read(path: Path) -> dict[str, Any]:
    """What a process wrote, or nothing."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def summarise(found: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """The daemon's summary beside what the detector sent."""
    sent = truth["sent"]
    return {
        **found,
        "sent": sent,
        "true_hits": truth["true_hits"],
        "true_hit_rate": truth["true_hits"] / sent if sent else None,
    }


def hit_rate(summary: dict[str, Any]) -> str:
    """The measured hit rate with its interval beside the true one."""
    true = summary["true_hit_rate"]
    known = "" if true is None else f", {100 * true:.2f} % true"
    if not summary["judged"]:
        return f"unknown: no shot was judged{known}"
    low, high = wilson(summary["measured_hits"], summary["judged"])
    return f"{100 * summary['measured_hit_rate']:.2f} % measured [{100 * low:.2f}, {100 * high:.2f}]{known}"


def describe(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [
        "",
        f"shots     {summary['read']} read = {summary['accepted']} accepted + {summary['rejected']} rejected"
        f" + {summary['failed']} failed + {summary['dropped']} dropped ({summary['sent']} sent)",
        f"hit rate  {hit_rate(summary)}",
    ]
    if summary["latency_median_s"] is not None:
        median, p99 = 1000 * summary["latency_median_s"], 1000 * summary["latency_p99_s"]
        lines.append(f"latency   {median:.1f} ms median, {p99:.1f} ms 99th percentile, from arrival to verdict")
    for path in summary["files"]:
        name = os.path.relpath(path)
        lines += [f"file      {name}", f"look      beamsieve inspect {name} --png hits.png"]
    return "\n".join(lines)
