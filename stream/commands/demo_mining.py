"""The demo's tomography half: tomograms that arrive, clusters marked by what is known of them, and what comes then.

A person would look at ``clusters.png`` and mark what shows the same. The demo marks by the truth of the simulation: a
cluster of which at least half of the members are of one class. It does so in ``groups.yaml``, as a person may, and the
daemon finds it there.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import demo_truth as true
from .demo_picks import sum_of
from .demo_processes import Side, start

BEAMLINE = "cryoet_mining"
#: Tomograms that are explored, and those that come once clusters are marked.
EXPLORED, ANNOTATED = 4, 2
SHAPE = "48x160x160"
CLASSES = "membrane, ribosome, globule"
SNR = 0.2
EVERY_S = 3.0
#: How long the daemon may take over each step.
PATIENCE_S = 300.0
POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo's files are. ``later``: tomograms that wait until clusters are marked."""

    folder: Path

    @property
    def watched(self) -> Path:
        """The folder that the daemon watches."""
        return self.folder / "tomograms"

    @property
    def later(self) -> Path:
        """What is simulated for after the marking."""
        return self.folder / "later"

    @property
    def truth(self) -> Path:
        """The truth of the first ones; of the later ones in ``after`` below it."""
        return self.folder / "truth"

    @property
    def mined(self) -> Path:
        """The daemon's files."""
        return self.folder / "mined"


def side(folder: Path, scratch: Path, port: int, seed: int) -> Side:
    """Write the configuration into ``folder``; the processes leave what they found in ``scratch``."""
    places = Places(folder)
    places.watched.mkdir()
    config = folder / f"{BEAMLINE}.yaml"
    config.write_text(yaml.safe_dump(settings(port), sort_keys=False), encoding="utf-8")
    source = emulated(places.watched, places.truth, EXPLORED, EVERY_S, seed, scratch / "tomograms.json")
    daemon = ["run", str(config), "--no-summary", "--json", str(scratch / "mining.json")]
    return Side(BEAMLINE, "reconstruction", source, daemon, lambda over: annotate(places, port, seed, scratch, over))


def emulated(out: Path, truth: Path, count: int, every: float, seed: int, told: Path) -> list[str]:
    """Arguments of the program that drops tomograms."""
    line = ["emulate", "tomograms", "--out", str(out), "--truth", str(truth), "--count", str(count)]
    line += ["--every", str(every), "--shape", SHAPE, "--classes", CLASSES, "--snr", str(SNR), "--seed", str(seed)]
    return [*line, "--quiet", "--json", str(told)]


def settings(port: int) -> dict[str, Any]:
    """The daemon's configuration in the demo: what a session does in a night has to be seen in minutes."""
    return {
        "beamline": BEAMLINE,
        "source": {
            "kind": "folder",
            "directory": "tomograms",
            "take": "tomograms",
            "session": "demo",
            "poll_s": 0.5,
            "settle_s": 1.0,
            "attempts": 1,
        },
        "model": {"bundle": "tomograms-posed", "threshold": 2.0},
        "clusters": {"number": 24, "first_at": 100, "growth": 1.5, "retrain": False},
        "segment": {"train_most": 64, "epochs": 40, "minutes": 1.7, "threads": 2},
        "files": {"directory": "mined", "pictures": True, "tables_every_s": 1.0},
        "service": {"port": port},
    }


def annotate(places: Places, port: int, seed: int, scratch: Path, over: Callable[[], bool]) -> None:
    """Mark clusters once all is explored, wait for the segmentation, let the other tomograms come.

    ``over``: whether the demo is to end. What does not come about in time is missing in the summary.
    """
    # Simulated meanwhile, into a folder that nobody watches.
    source = start(emulated(places.later, places.truth / "after", ANNOTATED, 0.0, seed + 500, scratch / "later.json"))
    try:
        if not wait(lambda: explored(places, port), over):
            return
        told = true.mark(places.mined, places.truth)
        (scratch / "marked.json").write_text(json.dumps(told), encoding="utf-8")
        if not told or not wait(lambda: trained(port), over) or not wait(lambda: source.poll() is not None, over):
            return
        after = places.watched / "after"
        after.mkdir()
        for path in sorted(places.later.glob("*.mrc")):
            path.rename(after / path.name)
        wait(lambda: len(list((places.mined / "session" / "after").glob("*.h5"))) == ANNOTATED, over)
    finally:
        finish(source)


def finish(process: subprocess.Popen[bytes]) -> None:
    """End a process that nobody waits for any more."""
    if process.poll() is None:
        process.terminate()
        process.wait()


def wait(so: Callable[[], bool], over: Callable[[], bool]) -> bool:
    """Until it is so; False when the demo is over before, or it takes too long."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and not over():
        if so():
            return True
        time.sleep(POLL_S)
    return False


def explored(places: Places, port: int) -> bool:
    """Whether all that came is mined, and has its cluster."""
    if sum_of(port, "beamsieve_waiting_files", "beamsieve_frames_in_flight") != 0:
        return False
    found = true.records(places.mined)
    return len(found) >= EXPLORED and all(one.clusters_version for one in found)


def trained(port: int) -> bool:
    """Whether the segmentation is trained."""
    return bool(sum_of(port, "beamsieve_tomogram_trainings", what="voxels", outcome="done"))


def summarise(found: dict[str, Any], scratch: Path, places: Places) -> dict[str, Any]:
    """The daemon's summary beside the truth of the tomograms that came after the marking."""
    marked = scratch / "marked.json"
    marks = json.loads(marked.read_text(encoding="utf-8")) if marked.exists() else []
    sheet = places.mined / "clusters.png"
    pictures = sorted((places.mined / "pictures" / "after").glob("*.png"))
    return {
        **found,
        "marked": marks,
        "explored": len([one for one in true.records(places.mined) if not one.name.startswith("after/")]),
        "classes": true.compare(places.mined, places.truth / "after") if marks else {},
        "sheet": str(sheet) if sheet.exists() else None,
        "pictures": [str(path) for path in pictures],
    }


def describe(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    where = os.path.relpath(summary["directory"])
    n = sum(summary["subvolumes"].values())
    lines = [
        "",
        f"tomograms   {summary['read']} read = {summary['accepted']} accepted + {summary['rejected']} rejected"
        f" + {summary['failed']} failed + {summary['dropped']} dropped; {n} sub-volumes, no template",
        f"explored    {summary['explored']} tomograms, {sum(summary['clusters'].values())} clusters; by the truth of "
        f"their members {_marks(summary['marked'])}",
    ]
    if not summary["classes"]:
        lines.append("annotated   none: the demo ended before the segmentation was trained")
    for name, one in summary["classes"].items():
        dice = "not segmented" if one["dice"] is None else f"Dice {one['dice']:.2f} with the true voxels"
        lines.append(
            f"{name:<11} {dice}; {one['counted']} sub-volumes counted, {one['right']} of them right"
            + (f"; {one['found']} of {one['true']} true particles found" if one["true"] else "")
        )
    stages = ", ".join(f"{s} {t:.1f}" for s, t in summary["seconds_per_tomogram"].items() if t >= 0.05)
    lines.append(f"seconds     {stages} per tomogram")
    if summary["sheet"]:
        lines.append(f"clusters    {os.path.relpath(summary['sheet'])}")
    lines += [f"overlay     {os.path.relpath(path)}" for path in summary["pictures"]]
    return "\n".join([*lines, f"session     {where}", f"            beamsieve status {where}"])


def _marks(marked: list[dict[str, Any]]) -> str:
    if not marked:
        return "none was marked"
    return "marked " + ", ".join(f"{len(one['clusters'])} as {one['name']}" for one in marked)
