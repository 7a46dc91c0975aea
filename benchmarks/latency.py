"""Latency: from a shot's arrival at the socket to its verdict, of the whole daemon, at a steady rate.

Batches are closed by time: at 120 Hz hardly any is full. The numbers are the daemon's own, of its last 4096 verdicts;
each shot's clock starts when the source takes it from ZeroMQ.
"""

from __future__ import annotations

from pathlib import Path

from .report import Report, Target
from .shots import Shots
from .throughput import Case, Stream, run_daemon, settings

COLUMNS = {
    "what": "s", "rate Hz": ".0f", "frames": "d", "median ms": ".2f", "p99 ms": ".2f", "CPU of one core": ".0%",
}  # fmt: skip
TARGET_MS = 25.0
HITS = 0.05


def measure(folder: Path, shots: Shots, *, bundle: str, threads: int, quick: bool, device: str = "cpu") -> Report:
    """Three rows: the network on every frame at 120 Hz, screened at 120 Hz, and screened at 1000 Hz."""
    report = Report("latency", "From arrival to verdict, 128² uint16, 5 % hits", COLUMNS)
    seconds = 6 if quick else 30
    for what, rate, screen in (
        ("network on every frame", 120.0, False),
        ("screen + network", 120.0, True),
        ("screen + network", 1000.0, True),
    ):
        images = round(rate * seconds)
        case = Case(what, 128, HITS, screen, images)
        file, _ = shots.file(128, HITS)
        found, sent, cpu = run_daemon(
            folder, Stream(file), images, settings(shots, case, bundle, threads, device), rate
        )
        median, p99 = 1e3 * found["latency_median_s"], 1e3 * found["latency_p99_s"]
        report.rows.append(
            {
                "what": what,
                "rate Hz": sent["rate_hz"],
                "frames": images,
                "median ms": median,
                "p99 ms": p99,
                "CPU of one core": cpu / found["active_s"],
            }
        )
        report.targets.append(Target(f"99th percentile, {what} at {rate:.0f} Hz", TARGET_MS, p99, "ms", at_least=False))
    return report
