"""Throughput of the whole daemon: receive, decode, calibrate, screen, classify, write; the sender beside it.

``bare receive``: a process that only receives the same messages from the same sender. ``+ decode``: one that also reads
and decompresses them. ``bare forward``: the TorchScript module as it was loaded, with the same bundle, batch size and
threads, alone on the machine. ``daemon``: shots per second from the first one read to the last one written or rejected.
``ceiling``: what the machine could do if all that the daemon adds cost nothing: receive, decode, and the runner's
forward pass for the shots that reach the network, one after the other. Nothing is lost: a full queue holds up the
sender, and a run in which a shot is missing does not count.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .daemon import Broken, Daemon, collect, complete, free_port, spawn
from .report import Report, Target
from .shots import ADU_THRESHOLD, Shots

COLUMNS = {
    "what": "s", "hits": ".0%", "frames": "d", "bare receive /s": ",.0f", "+ decode /s": ",.0f",
    "bare forward /s": ",.0f", "daemon /s": ",.0f", "of receive": ".2f", "of decode": ".2f", "of forward": ".2f",
    "ceiling /s": ",.0f", "of ceiling": ".2f", "to network": ".0%", "CPU µs": ".0f", "bottleneck": "s",
}  # fmt: skip
BATCH = 32


class Stream(NamedTuple):
    """What is sent: a file of frames, and how they are compressed on the wire."""

    file: Path
    compression: str = "none"


@dataclass(frozen=True)
class Case:
    """One row: ``size`` pixels along each side, share of ``hits``, with or without ``screen`` before the network."""

    what: str
    size: int
    hits: float
    screen: bool
    images: int
    compression: str = "none"


def cases(quick: bool) -> Iterator[Case]:
    """All rows, with so many images that each takes a few seconds."""
    shrink = 4 if quick else 1
    for name, size, many, few, compression in (
        ("128² uint16", 128, 120_000, 8_000, "none"),
        ("128² bslz4", 128, 120_000, 8_000, "bslz4"),
        ("1 Mpx bslz4", 1024, 8_000, 4_000, "bslz4"),
    ):
        for screen in (True, False):
            for hits in (0.05,) if quick else (0.0, 0.05, 1.0):
                images = many if screen and hits < 1 else few
                what = f"{name}, {'screen + ' if screen else ''}network"
                yield Case(what, size, hits, screen, images // shrink, compression)


def measure(
    folder: Path, shots: Shots, *, bundle: str, threads: int, quick: bool, repeats: int, only: str = ""
) -> Report:
    """All rows; each number is the median of ``repeats`` runs, in which daemon and bare loops take turns."""
    report = Report("throughput", f"Whole daemon, {threads} threads per forward pass, batches of {BATCH}", COLUMNS)
    bare = _forward(folder, bundle, threads, quick)
    report.notes.append(f"runner alone {bare['runner']:,.0f} frames/s ({bare['how']})")
    for case in cases(quick):
        if only not in case.what:
            continue
        rows = [_row(folder, shots, case, bundle, threads, bare, turn) for turn in range(repeats)]
        row = middle(rows)
        report.rows.append(row)
        if case.hits != 0.05 or case.what.startswith("128² bslz4"):
            continue
        if case.screen:
            report.targets.append(Target(f"{case.what}, 5 % hits, of the bare receive rate", 0.5, row["of receive"]))
        else:
            report.targets.append(Target(f"{case.what}, of the bare forward rate", 0.8, row["of forward"]))
    return report


def measure_device(
    folder: Path, shots: Shots, *, bundle: str, threads: int, device: str, quick: bool, repeats: int
) -> Report:
    """On another device than the CPU: the network on every frame, in batches of several sizes."""
    report = Report("throughput", f"Whole daemon on {device}, the network on every frame", COLUMNS)
    for batch in (128,) if quick else (32, 128, 512):
        bare = _forward(folder, bundle, threads, quick, device, batch)
        report.notes.append(f"batches of {batch}: runner alone {bare['runner']:,.0f} frames/s ({bare['how']})")
        case = Case(f"128² uint16, batches of {batch}", 128, 0.05, False, 20_000 if quick else 100_000)
        rows = [_row(folder, shots, case, bundle, threads, bare, turn, device, batch) for turn in range(repeats)]
        report.rows.append(middle(rows))
        report.targets.append(Target(f"{case.what}, of the bare forward rate", 0.8, report.rows[-1]["of forward"]))
    return report


def middle(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of every number."""
    first = rows[0]
    return {k: median([row[k] for row in rows]) if isinstance(first[k], float) else first[k] for k in first}


def _row(
    folder: Path,
    shots: Shots,
    case: Case,
    bundle: str,
    threads: int,
    forward: Mapping[str, Any],
    turn: int,
    device: str = "cpu",
    batch: int = BATCH,
) -> dict[str, Any]:
    stream = Stream(shots.file(case.size, case.hits)[0], case.compression)
    receive, decode = loops(folder, stream, case.size, turn)
    found, sent, cpu = run_daemon(folder, stream, case.images, settings(shots, case, bundle, threads, device, batch))
    rate = case.images / found["active_s"]
    share = sum(n for name, n in found["answers"].items() if name != "none") / case.images
    ceiling = 1 / (1 / decode + share / forward["runner"])
    return {
        "what": case.what,
        "hits": case.hits,
        "frames": case.images,
        "bare receive /s": receive,
        "+ decode /s": decode,
        "bare forward /s": forward["bare"],
        "daemon /s": rate,
        "of receive": rate / receive,
        "of decode": rate / decode,
        "of forward": rate / forward["bare"],
        "ceiling /s": ceiling,
        "of ceiling": rate / ceiling,
        "to network": share,
        "CPU µs": 1e6 * cpu / case.images,
        "sender CPU µs": 1e6 * sent["cpu_s"] / case.images,
        "bottleneck": found["bottleneck"],
    }


def loops(folder: Path, stream: Stream, size: int, turn: int) -> tuple[float, float]:
    """Rates of the two bare loops on these frames, measured once in each turn."""
    if (stream, turn) not in _loops:
        # They are over sooner than the daemon, and are given more to receive.
        many = 100_000 if size == 128 else 10_000
        decode = receive_only(folder, stream, many // 2, "--decode")["rate"]
        _loops[stream, turn] = receive_only(folder, stream, many)["rate"], decode
    return _loops[stream, turn]


_loops: dict[tuple[Stream, int], tuple[float, float]] = {}


def settings(
    shots: Shots, case: Case, bundle: str, threads: int, device: str = "cpu", batch: int = BATCH
) -> dict[str, Any]:
    """What differs from the defaults of the daemon."""
    screen = {"adu_threshold": ADU_THRESHOLD, "hitscore_threshold": shots.threshold(case.size)}
    return {
        "model": {"bundle": bundle, "batch": batch, "threads": threads, "device": device},
        # One megapixel is binned to what the model sees.
        "detector": {"bin": case.size // 128},
        "screen": screen if case.screen else None,
    }


def _forward(
    folder: Path, bundle: str, threads: int, quick: bool, device: str = "cpu", batch: int = BATCH
) -> dict[str, Any]:
    seconds = "1" if quick else "3"
    asked = ["--bundle", bundle, "--batch", str(batch), "--threads", str(threads), "--seconds", seconds]
    asked += ["--device", device]
    # OpenMP's threads may spin while they wait, as is usual, or sleep, as in the daemon; which is faster depends on
    # what else the machine does. The daemon is compared with the faster one.
    found = [
        complete(["-m", "benchmarks.forward", *asked], folder, "forward", policy=policy) for policy in ("", "passive")
    ]
    runner = max(found, key=lambda one: float(one["runner"]))
    return {**runner, "bare": max(one["bare"] for one in found)}


def receive_only(folder: Path, frames: Stream, images: int, *more: str) -> dict[str, Any]:
    """The bare loop, with the sender beside it."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    asked = ["-m", "benchmarks.receive", "--endpoint", endpoint, "--images", str(images), *more]
    process = spawn([*asked, "--json", str(folder / "receive.json")], folder / "receive.log")
    try:
        send(folder, frames, images, endpoint, process)
        return collect(process, folder / "receive.json", folder / "receive.log")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def send(
    folder: Path, frames: Stream, images: int, endpoint: str, to: subprocess.Popen[bytes], rate: float = 0.0
) -> dict[str, Any]:
    """Send so many images ``to`` a process, over and over those of the file; gives what was sent."""
    asked = ["--frames", str(frames.file), "--compression", frames.compression, "--images", str(images)]
    asked += ["--endpoint", endpoint, "--rate", str(rate)]
    return complete(["-m", "benchmarks.sender", *asked], folder, "sender", to)


def run_daemon(
    folder: Path,
    frames: Stream,
    images: int,
    changes: Mapping[str, Any],
    rate: float = 0.0,
    watch: Callable[[Daemon], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """The daemon with the sender beside it: its summary, the sender's, and the daemon's CPU seconds while it worked.

    ``watch`` is entered when the daemon is ready, and left when all that was sent has come out.
    """
    place = folder / "daemon"
    place.mkdir()
    try:
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        with Daemon(place, endpoint, changes) as daemon:
            before = cpu_seconds(daemon.process.pid)
            with watch(daemon):
                sent = send(folder, frames, images, endpoint, daemon.process, rate)
                if sent["sent"] != images:
                    raise Broken(f"the sender sent {sent['sent']} of {images} images")
                daemon.drained(images)
            used = cpu_seconds(daemon.process.pid) - before
            return daemon.finish(images), sent, used
    finally:
        shutil.rmtree(place)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
