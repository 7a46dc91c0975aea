"""The daemon ``cryoem_picks`` on a folder full of micrographs: sustained micrographs per hour, end to end.

Files are complete before it starts, so that the daemon alone sets the pace: read, judge, rescale, score, pick, cut out,
write. Beside it stands the same work in a plain loop, one file after the other, in this process: what the pipeline's
threads gain. Peak memory is that of the daemon's process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from beamsieve.models.bundle import load_bundle
from beamsieve.models.particles.conditions import named
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.pick import Picker
from beamsieve.models.particles.simulator import simulate
from beamsieve.stream.formats.image import read_image

from .daemon import Broken, free_port, spawn, tail
from .report import Report, Target

COLUMNS = {
    "what": "s", "files": "d", "per hour": ",.0f", "s each": ".2f", "loop s each": ".2f", "× loop": ".2f",
    "read": ".2f", "quality": ".2f", "prepare": ".2f", "score": ".2f", "peaks": ".2f", "extract": ".2f",
    "picks each": ".0f", "MB peak": ",.0f",
}  # fmt: skip
CAMERAS = {
    "4096 × 4096 float32, 1 Å": ((4096, 4096), 1.0, "f4", 1),
    "4096 × 4096 uint16, 1 Å": ((4096, 4096), 1.0, "u2", 1),
    "K3 4092 × 5760 float32, 0.85 Å": ((4092, 5760), 0.85, "f4", 1),
    "movie 16 × 4096 × 4096 uint8, 1 Å": ((4096, 4096), 1.0, "u1", 16),
}
PER_HOUR = 1200.0
PATIENCE_S = 600.0


def measure(folder: Path, *, picker: str, threads: int, quick: bool) -> Report:
    """A row per camera."""
    report = Report("micrographs", f"cryoem_picks on a folder, {picker}, {threads} threads", COLUMNS)
    for name, (shape, pixel_a, dtype, frames) in list(CAMERAS.items())[: 1 if quick else None]:
        files = (6 if quick else 24) // (1 if frames == 1 else 2)
        place = folder / f"{shape[0]}-{shape[1]}-{dtype}-{frames}"
        fill(place / "in", files, shape, pixel_a, dtype, frames)
        found, peak = run(place, picker, threads)
        each = found["active_s"] / files
        alone = loop(place / "in", picker, threads, files if quick else files // 2)
        report.rows.append(
            {
                "what": name,
                "files": files,
                "per hour": 3600 / each,
                "s each": each,
                "loop s each": alone,
                "× loop": alone / each,
                "picks each": found["particles"] / files,
                "MB peak": peak / 1e6,
                **found["seconds_per_micrograph"],
            }
        )
        if "4096 × 4096" in name and frames == 1:
            report.targets.append(Target(f"sustained, {name}", PER_HOUR, 3600 / each, "micrographs/h"))
        shutil.rmtree(place)
    report.notes.append("read … extract: mean seconds of work per micrograph in each stage; they overlap")
    report.notes.append("loop: read and pick only, without quality, particles and files")
    return report


def fill(folder: Path, files: int, shape: tuple[int, int], pixel_a: float, dtype: str, frames: int) -> None:
    """Simulated micrographs of one camera, copies of two."""
    import mrcfile

    folder.mkdir(parents=True)
    conditions = replace(named("clean"), shape=shape, pixel_a=pixel_a, snr=0.05, particles=(250, 300))
    volume = load_map("ribosome")
    for at in range(2):
        image = simulate(7, at, conditions, volume).image
        scaled = (image - image.mean()) / image.std()
        data: np.ndarray[Any, Any] = scaled.astype(np.float32)
        if dtype == "u2":
            data = np.clip(2000 + 200 * scaled, 0, 65535).astype(np.uint16)
        if frames > 1:
            data = np.clip(np.random.default_rng(at).poisson(8 + scaled.clip(-6, 6), (frames, *shape)), 0, 127)
            data = data.astype(np.int8)
        first = folder / f"m{at:04d}.mrc"
        with mrcfile.new(first) as out:
            out.set_data(data)
            out.voxel_size = pixel_a
    for at in range(2, files):
        shutil.copyfile(folder / f"m{at % 2:04d}.mrc", folder / f"m{at:04d}.mrc")


def run(
    place: Path,
    picker: str,
    threads: int,
    *,
    page: bool = True,
    watch: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> tuple[dict[str, Any], float]:
    """Run the daemon until the folder is done; its summary, and its peak memory in bytes.

    ``page``: whether it serves the live page; ``watch`` is given its port, and left when the daemon has ended.
    """
    port = free_port()
    settings = {
        "beamline": "cryoem_picks",
        "source": {"kind": "folder", "directory": "in", "settle_s": 0, "poll_s": 0.2, "end_idle_s": 2},
        "model": {"bundle": picker, "threads": threads},
        "files": {"directory": "picks", "formats": ["star", "box", "csv"], "particles": {"keep": True}},
        "service": {"port": port, "page": page},
    }
    config = place / "cryoem_picks.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = ["-m", "beamsieve.stream", "run", str(config), "--quiet", "--json", str(place / "summary.json")]
    process = spawn(command, log=place / "daemon.log")
    peak = Peak(process)
    with watch(port):
        code = process.wait(PATIENCE_S)
    files = len(list((place / "in").iterdir()))
    if code != 0 or not (place / "summary.json").exists():
        raise Broken(f"the daemon ended with {code}: {tail(place / 'daemon.log')}")
    found: dict[str, Any] = json.loads((place / "summary.json").read_text())["cryoem_picks"]
    if found["accepted"] + found["rejected"] != files:
        raise Broken(f"{files} files; the daemon found {found}")
    return found, peak.bytes


class Peak:
    """Watches the largest resident memory of a process until it ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.bytes = 0.0
        self._process = process
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while self._process.poll() is None:
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            self.bytes = max([self.bytes, *(1024.0 * int(one.split()[1]) for one in lines if one.startswith("VmHWM:"))])
            time.sleep(0.2)


def loop(folder: Path, picker: str, threads: int, files: int) -> float:
    """Seconds per micrograph of reading and picking in a plain loop."""
    work = Picker(load_bundle(picker), threads=threads)
    work.warm_up()
    began = time.perf_counter()
    for path in sorted(folder.iterdir())[:files]:
        image = read_image(path)
        work.pick(image.data, image.pixel_a)
    return (time.perf_counter() - began) / files
