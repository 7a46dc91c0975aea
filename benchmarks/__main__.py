"""Benchmarks: each prints a table in which the peer or the naive way was measured beside it, in the same run.

    python -m benchmarks [NAME …] [--quick] [--device cpu|cuda] [--json FILE] [--save]

Run it in the repository's root, on a machine that does nothing else. ``decode``: cost of each step before the network.
``runner``: the network alone; needs torch and numpy only. ``throughput``, ``latency``, ``memory``: the whole daemon, as
a process of its own, with an emulated detector in another. ``picking``: DeepEM's scan of whole micrographs beside the
naive one; ``micrographs``: the daemon that picks, on a full folder. ``page``: what the live page costs, with ten
browsers. ``classes2d``: particles denoised and assigned to classes, memory of a long session. ``compared``: what
classes are found by. ``tomograms_networks``, ``tomograms_mining``, ``tomograms_segment``: the networks of tomograms
alone, a tomogram picked and encoded, one segmented. What is not installed is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from .report import Report, machine, save

NAMES = (
    "decode",
    "runner",
    "throughput",
    "latency",
    "memory",
    "page",
    "picking",
    "micrographs",
    "classes2d",
    "compared",
    "tomograms_networks",
    "tomograms_mining",
    "tomograms_segment",
)
ON_A_GPU = ("runner", "throughput", "latency", "picking", "classes2d", "tomograms_networks", "tomograms_segment")


def main() -> int:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(NAMES)} (default: all)")
    options.add_argument("--quick", action="store_true", help="fewer rows and shots: two minutes instead of fifteen")
    options.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options.add_argument("--bundle", default="hits-resnet10", help="name or path of the model")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of one forward pass")
    options.add_argument("--repeats", type=int, help="runs of each throughput, whose median counts (default: 3, 1)")
    options.add_argument("--frames", type=int, help="shots of the memory benchmark (default: a million, quick 100 000)")
    options.add_argument("--only", default="", help="throughput: only rows whose name has this in it")
    options.add_argument("--picker", default="particles-general", help="picking: name or path of the model")
    options.add_argument("--denoiser", default="classes2d-general", help="classes2d: name or path of the model")
    options.add_argument("--codec", default="tomograms-posed", help="tomograms: name or path of the autoencoder")
    options.add_argument("--full", action="store_true", help="picking: run the naive scan once in full, too")
    options.add_argument("--json", type=Path, help="write all numbers to this file")
    options.add_argument("--save", action="store_true", help="write them to benchmarks/results/DEVICE-DATE.json")
    asked = options.parse_args()
    wrong = [name for name in asked.names if name not in NAMES]
    if wrong:
        options.error(f"unknown: {', '.join(wrong)}; known: {', '.join(NAMES)}")
    reports: list[Report] = []
    missing = 0
    where = machine(asked.device)
    print(" · ".join(f"{key} {value}" for key, value in where.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="beamsieve-bench-") as folder:
        for name in asked.names or (NAMES if asked.device == "cpu" else ON_A_GPU):
            began = time.monotonic()
            try:
                report = run(name, Path(folder), asked)
            except ImportError as error:
                print(f"{name}: skipped, {error}", flush=True)
                missing += 1
                continue
            report.show()
            print(f"  ({name}: {time.monotonic() - began:.0f} s)\n", flush=True)
            reports.append(report)
    if asked.json:
        save(asked.json, where, reports)
    if asked.save:
        kind = where.get("gpu", where["device"]).replace(" ", "-")
        save(Path(__file__).parent / "results" / f"{kind}-{date.today().isoformat()}.json", where, reports)
    return 1 if missing and not reports else 0


def run(name: str, folder: Path, asked: argparse.Namespace) -> Report:  # noqa: PLR0911, PLR0912
    """One benchmark, with what it needs imported only now. Raises ``ImportError`` where that is not installed."""
    if name == "runner":  # needs neither zmq nor h5py
        from . import runner

        return runner.measure(asked.bundle, device=asked.device, threads=asked.threads, quick=asked.quick)
    if name == "picking":
        from . import picking

        return picking.measure(
            folder, picker=asked.picker, device=asked.device, threads=asked.threads, quick=asked.quick, full=asked.full
        )
    if name == "micrographs":
        from . import micrographs

        return micrographs.measure(folder, picker=asked.picker, threads=asked.threads, quick=asked.quick)
    if name == "classes2d":
        from . import classes2d

        return classes2d.measure(
            folder, denoiser=asked.denoiser, device=asked.device, threads=asked.threads, quick=asked.quick
        )
    if name == "compared":
        from . import compared

        return compared.measure(denoiser=asked.denoiser, device=asked.device, threads=asked.threads)
    if name == "tomograms_networks":
        from . import tomograms_networks

        return tomograms_networks.measure(
            codec=asked.codec, device=asked.device, threads=asked.threads, quick=asked.quick
        )
    if name == "tomograms_mining":
        from . import tomograms_mining

        return tomograms_mining.measure(folder, codec=asked.codec, threads=asked.threads, quick=asked.quick)
    if name == "tomograms_segment":
        from . import tomograms_segment

        return tomograms_segment.measure(folder, device=asked.device, threads=asked.threads, quick=asked.quick)
    from . import decode, latency, memory, throughput
    from .shots import Shots

    shots = Shots(folder, asked.quick)
    network = {"bundle": asked.bundle, "threads": asked.threads}
    if name == "decode":
        return decode.measure(shots, quick=asked.quick)
    if name == "latency":
        return latency.measure(folder, shots, quick=asked.quick, device=asked.device, **network)
    if name == "memory":
        frames = asked.frames or (100_000 if asked.quick else 1_000_000)
        return memory.measure(folder, shots, frames=frames, **network)
    repeats = asked.repeats or (1 if asked.quick else 3)
    if name == "page":
        from . import page

        return page.measure(folder, shots, quick=asked.quick, repeats=repeats, **network)
    if asked.device != "cpu":
        return throughput.measure_device(
            folder, shots, device=asked.device, quick=asked.quick, repeats=repeats, **network
        )
    return throughput.measure(folder, shots, quick=asked.quick, repeats=repeats, only=asked.only, **network)


if __name__ == "__main__":
    sys.exit(main())
