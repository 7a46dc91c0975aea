"""What the live page costs: the daemon's throughput without it, with it, with ten browsers, with hung ones besides.

Shots come as fast as the daemon takes them, the network sees each, and none may be lost; micrographs lie in a folder
that is full when the daemon starts. Browsers are emulated by one process that reads what a page reads (see
``browsers.py``); on the machine of the benchmark they take processor time that they would not take at a beamline, where
they are elsewhere: it is shown. The ways take turns.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from . import micrographs
from .daemon import Broken, spawn, tail
from .report import Report, Target
from .shots import Shots
from .throughput import Case, Stream, run_daemon, settings

COLUMNS = {
    "what": "s", "daemon /s": ",.2f", "of no page": ".3f", "CPU µs": ".1f", "p99 ms": ".1f", "events": "d",
    "fetched": "d", "browsers' CPU s": ".2f",
}  # fmt: skip
PICKER = "particles-general"
WAYS = {
    "no page": None,
    "page, nobody watches": (0, 0),
    "page, ten browsers": (10, 0),
    "page, ten browsers, five hung": (10, 5),
}


def measure(folder: Path, shots: Shots, *, bundle: str, threads: int, quick: bool, repeats: int) -> Report:
    """All ways in turns; each number is the median of its turns, the ratio the median of ratios within a turn."""
    case = Case("128² uint16", 128, 0.05, False, 10_000 if quick else 40_000)
    report = Report(
        "page", f"The live page's cost, {case.images} shots of 128² pixels, each through the network", COLUMNS
    )
    turns = [
        {what: _row(folder, shots, case, bundle, threads, how) for what, how in WAYS.items()} for _ in range(repeats)
    ]
    for what in WAYS:
        row: dict[str, Any] = {"what": what}
        for name in next(iter(turns))[what]:
            row[name] = median(turn[what][name] for turn in turns)
        row["of no page"] = median(turn[what]["daemon /s"] / turn["no page"]["daemon /s"] for turn in turns)
        report.rows.append(row)
    watched = median(
        turn["page, ten browsers"]["daemon /s"] / turn["page, nobody watches"]["daemon /s"] for turn in turns
    )
    report.targets.append(Target("ten browsers, of the same page with nobody watching", 0.95, watched))
    report.targets.append(Target("ten browsers, of no page at all", 0.95, report.rows[2]["of no page"]))
    _micrographs(folder, report, threads, quick, repeats)
    return report


def _micrographs(folder: Path, report: Report, threads: int, quick: bool, repeats: int) -> None:
    """The same of ``cryoem_picks``, with 4096² float32 files."""
    place, files = folder / "page", 6 if quick else 24
    micrographs.fill(place / "in", files, (4096, 4096), 1.0, "f4", 1)
    ways = {"micrographs, no page": None, "micrographs, ten browsers": (10, 0)}
    turns: list[dict[str, dict[str, float]]] = []
    for _ in range(repeats):
        turn: dict[str, dict[str, float]] = {}
        for what, how in ways.items():
            seen: dict[str, float] = {"events": 0, "fetched": 0, "cpu_s": 0.0}
            watch = _watching(folder, how, seen, "--micrographs")
            found, _ = micrographs.run(place, PICKER, threads, page=how is not None, watch=watch)
            shutil.rmtree(place / "picks")
            turn[what] = {
                "daemon /s": files / found["active_s"],
                "events": seen["events"],
                "fetched": seen["fetched"],
                "browsers' CPU s": seen["cpu_s"],
            }
        turns.append(turn)
    plain, watched = ways
    for what in ways:
        row: dict[str, Any] = {"what": what}
        row |= {name: median(turn[what][name] for turn in turns) for name in turns[0][what]}
        row["of no page"] = median(turn[what]["daemon /s"] / turn[plain]["daemon /s"] for turn in turns)
        report.rows.append(row)
    report.targets.append(Target(f"{watched}, of no page at all", 0.95, report.rows[-1]["of no page"]))


def _row(
    folder: Path, shots: Shots, case: Case, bundle: str, threads: int, how: tuple[int, int] | None
) -> dict[str, float]:
    seen: dict[str, float] = {"events": 0, "fetched": 0, "cpu_s": 0.0}
    changes = settings(shots, case, bundle, threads)
    changes["service"] = {"page": how is not None}
    stream = Stream(shots.file(case.size, case.hits)[0], case.compression)
    watch = _watching(folder, how, seen)
    found, _, cpu = run_daemon(folder, stream, case.images, changes, watch=lambda daemon: watch(daemon.port))
    return {
        "daemon /s": case.images / found["active_s"],
        "CPU µs": 1e6 * cpu / case.images,
        "p99 ms": 1e3 * found["latency_p99_s"],
        "events": seen["events"],
        "fetched": seen["fetched"],
        "browsers' CPU s": seen["cpu_s"],
    }


def _watching(
    folder: Path, how: tuple[int, int] | None, seen: dict[str, float], *more: str
) -> Callable[[int], AbstractContextManager[None]]:
    @contextmanager
    def watch(port: int) -> Iterator[None]:
        if how is None or not any(how):
            yield
            return
        path = folder / "browsers.json"
        path.unlink(missing_ok=True)
        asked = ["--port", str(port), *more, "--watching", str(how[0]), "--hung", str(how[1]), "--json", str(path)]
        process = spawn(["-m", "benchmarks.browsers", *asked], folder / "browsers.log")
        try:
            yield
        finally:
            _end(process)
        if not path.exists():
            raise Broken(f"the browsers: {tail(folder / 'browsers.log')}")
        told: Mapping[str, float] = json.loads(path.read_text())
        if not told["events"] or not told["fetched"]:
            raise Broken(f"the browsers saw nothing: {told}")
        seen.update(told)

    return watch


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(20)
