"""Memory over a million frames: resident memory of the daemon beside the frames it has read, and the slope of it.

The slope is that of a straight line through the second half of the run, when queues, pools and caches have found their
size. Less than ``TARGET`` bytes per frame is called flat: the smallest Python object has 16, so that nothing can have
been kept of every frame. One frame in a hundred is a hit and is written, and one in a thousand of the misses; files
roll over every 2000 frames.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .daemon import Daemon
from .report import Report, Target
from .shots import Shots
from .throughput import Case, Stream, run_daemon, settings

COLUMNS = {
    "what": "s", "frames": "d", "files": "d", "frames /s": ",.0f", "start MB": ".1f", "half MB": ".1f", "end MB": ".1f",
    "slope B/frame": ".2f", "± B/frame": ".2f",
}  # fmt: skip
TARGET = 16.0
EVERY_S = 0.5


def measure(folder: Path, shots: Shots, *, bundle: str, threads: int, frames: int) -> Report:
    """One row."""
    report = Report("memory", f"Resident memory over {frames:,} frames, 128² uint16, screen + network", COLUMNS)
    case = Case("screen + network", 128, 0.01, True, frames)
    changes = settings(shots, case, bundle, threads)
    changes["files"] = {"directory": "files", "max_frames": 2000}
    changes["keep"] = {"miss_fraction": 0.001, "seed": 1}
    file, _ = shots.file(128, case.hits)
    seen: list[tuple[float, float]] = []
    found, _, _ = run_daemon(folder, Stream(file), frames, changes, watch=lambda daemon: sampled(daemon, seen))
    read, resident = np.array([row for row in seen if row[0] > 0]).T
    late = read >= frames / 2
    slope, error = line(read[late], resident[late])
    at_half = float(np.interp(frames / 2, read, resident))
    report.rows.append(
        {
            "what": case.what,
            "frames": frames,
            "files": len(found["files"]),
            "frames /s": frames / found["active_s"],
            "start MB": resident[0] / 1e6,
            "half MB": at_half / 1e6,
            "end MB": resident[-1] / 1e6,
            "slope B/frame": slope,
            "± B/frame": error,
            "samples": [[int(n), int(size)] for n, size in zip(read, resident, strict=True)],
        }
    )
    report.notes.append(f"{found['written']}; {int(late.sum())} samples in the second half, ± is the standard error")
    report.targets.append(Target("slope over the second half", TARGET, slope, "B/frame", at_least=False))
    return report


@contextmanager
def sampled(daemon: Daemon, seen: list[tuple[float, float]]) -> Iterator[None]:
    """While inside, note (frames read, resident bytes) twice a second."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_S):
            seen.append((daemon.counts()["beamsieve_frames_read_total"], resident_bytes(daemon.process.pid)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the straight line through the points, and its standard error; NaN with fewer than three."""
    if len(x) < 3:
        return float("nan"), float("nan")
    slope, offset = np.polyfit(x, y, 1)
    left = y - (slope * x + offset)
    spread = float(np.sqrt(left @ left / (len(x) - 2) / ((x - x.mean()) ** 2).sum()))
    return float(slope), spread
