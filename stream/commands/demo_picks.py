"""The demo's electron-microscopy half: a folder that fills as a microscope's does, and how its yield was found."""

from __future__ import annotations

import csv
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import yaml
from prometheus_client.parser import text_string_to_metric_families

from . import demo_classes
from .demo_processes import Side

BUNDLE = "particles-ribosome"
MATCH = 0.2
VIEWS = 4
SETTLE_S = 1.0
GIVE_UP_S = 8.0
DRAIN_S = 40.0


def side(folder: Path, scratch: Path, port: int, seconds: float, every: float, snr: float, seed: int) -> Side:
    """Write the configuration into ``folder``; the processes leave what they found in ``scratch``."""
    watched = folder / "microscope"
    watched.mkdir()
    config = folder / "cryoem_picks.yaml"
    config.write_text(yaml.safe_dump(settings(port), sort_keys=False), encoding="utf-8")
    count = max(3, round(seconds / every))
    source = ["emulate", "micrographs", "--out", str(watched), "--count", str(count), "--every", str(every)]
    source += ["--layout", "epu", "--snr", str(snr), "--seed", str(seed), "--hostile", "truncated,changed"]
    source += ["--views", str(VIEWS), "--truth", str(folder / "truth.csv")]
    source += ["--quiet", "--json", str(scratch / "micrographs.json")]
    daemon = ["run", str(config), "--no-summary", "--json", str(scratch / "picks.json")]
    return Side("cryoem_picks", "microscope", source, daemon, lambda over: drained(port, over))


def settings(port: int) -> dict[str, Any]:
    """The daemon's configuration in the demo: impatient, because the demo lasts a minute."""
    return {
        "beamline": "cryoem_picks",
        "source": {
            "kind": "folder",
            "directory": "microscope",
            "layout": "epu",
            "session": "demo",
            "poll_s": 0.5,
            "settle_s": SETTLE_S,
            "incomplete_s": GIVE_UP_S,
            "companion_timeout_s": 3,
            "attempts": 1,
        },
        "model": {"bundle": BUNDLE, "threads": 1},
        "files": {"directory": "picks", "formats": ["star", "box", "csv"], "pictures": True},
        "classes": demo_classes.settings(),
        "service": {"port": port},
    }


def drained(port: int, over: Callable[[], bool]) -> None:
    """Wait until the daemon has taken every file it will ever take, and has classified what it picked.

    It gives up on the file that is cut short in a while. ``over``: whether waiting is in vain.
    """
    until = time.monotonic() + DRAIN_S
    quiet = 0
    while time.monotonic() < until and quiet < 4 and not over():
        time.sleep(0.5)
        quiet = quiet + 1 if sum_of(port, "beamsieve_waiting_files", "beamsieve_frames_in_flight") == 0 else 0
    while time.monotonic() < until and not over() and not classified(port):
        time.sleep(0.5)


def classified(port: int) -> bool:
    """Whether no particle waits for a class that it may get; of too few none are made."""
    picked, waiting = sum_of(port, "beamsieve_particles"), sum_of(port, "beamsieve_class_waiting_particles")
    return not waiting or picked is None or picked < demo_classes.FIRST


def sum_of(port: int, *names: str, **labels: str) -> float | None:
    """The sum of these metrics of the daemon, over all their labels but those given; None when it does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            text = answer.read().decode()
    except (URLError, OSError):
        return None
    families = text_string_to_metric_families(text)
    samples = [sample for family in families if family.name in names for sample in family.samples]
    return float(sum(one.value for one in samples if labels.items() <= one.labels.items()))


def summarise(found: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """The daemon's summary beside the true positions of the particles."""
    from ...models.particles.matching import match

    directory, true = Path(found["directory"]), positions(Path(truth["truth"]))
    diameter_px = float(truth["diameter_px"])
    picked = positions(directory / "picks.csv")
    right = 0
    for name in picked:
        if name in true:
            (x, y), (true_x, true_y) = picked[name].T, true[name].T
            right += len(match(x, y, true_x, true_y, MATCH * diameter_px))
    classes = demo_classes.compare(directory, Path(truth["truth"]), MATCH * diameter_px)
    n_true = sum(len(true[name]) for name in picked if name in true)
    n_found = sum(map(len, picked.values()))
    return {
        **found,
        "written": truth["written"],
        "truncated": truth["truncated"],
        "changed": truth["changed"],
        "picks_in_files": n_found,
        "true_particles": n_true,
        "matched_particles": right,
        "precision": right / n_found if n_found else None,
        "recall": right / n_true if n_true else None,
        "classes": {**(found["classes"] or {}), **classes},
    }


def positions(path: Path) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """Centres (n, 2; x, y) by the micrograph's name without folders, from a CSV of micrograph, x, y."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            found[Path(row["micrograph"]).name].append((float(row["x"]), float(row["y"])))
    return {name: np.array(rows, np.float32) for name, rows in found.items()}


def describe(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    where = os.path.relpath(summary["directory"])
    lines = [
        "",
        f"micrographs {summary['read']} read = {summary['accepted']} accepted + {summary['rejected']} rejected"
        f" + {summary['failed']} failed + {summary['dropped']} dropped ({summary['written']} written, "
        f"{len(summary['truncated'])} cut short, {len(summary['changed'])} changed later)",
    ]
    if summary["picks_median"] is not None:
        lines.append(
            f"yield       {summary['picks_in_files']} particles, {summary['picks_median']:g} per micrograph (median)"
        )
    if summary["recall"] is not None and summary["precision"] is not None:
        lines.append(
            f"truth       {summary['matched_particles']} of {summary['true_particles']} true particles found "
            f"({100 * summary['recall']:.1f} %), {100 * summary['precision']:.1f} % of the picks are particles "
            f"(within {MATCH:g} diameters)"
        )
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in summary["seconds_per_micrograph"].items())
    if summary["latency_median_s"] is not None:
        lines.append(f"latency     {summary['latency_median_s']:.1f} s from complete file to picks ({stages})")
    lines += demo_classes.describe(summary["classes"])
    lines += [f"picks       {where}", f"look        {where}/pictures", f"            beamsieve status {where}"]
    return "\n".join(lines)
