"""The demo's X-ray half: a simulated DECTRIS detector, and how its hit rate was found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..flow.rates import wilson
from .demo_processes import Side


@dataclass(frozen=True, slots=True)
class Shots:
    """What the simulated detector sends: shots per second, shares that hit one particle or several, the seed.

    ``jet_off``: seconds FROM:TO without particles.
    """

    rate: float
    hits: float
    multiples: float
    seed: int
    jet_off: tuple[str, ...] = ()


def side(folder: Path, scratch: Path, port: int, detector: int, seconds: float, shots: Shots) -> Side:
    """Write the configuration into ``folder``; the processes leave what they found in ``scratch``."""
    endpoint = f"tcp://127.0.0.1:{detector}"
    config = folder / "xfel_hits.yaml"
    config.write_text(yaml.safe_dump(settings(endpoint, port, shots.seed), sort_keys=False), encoding="utf-8")
    source = ["emulate", "dectris", "--simulate", "--endpoint", endpoint, "--rate", str(shots.rate)]
    source += ["--hits", str(shots.hits), "--multiples", str(shots.multiples), "--seconds", str(seconds)]
    source += ["--seed", str(shots.seed), "--quiet", "--json", str(scratch / "shots.json")]
    for pause in shots.jet_off:
        source += ["--jet-off", pause]
    daemon = ["run", str(config), "--no-summary", "--json", str(scratch / "hits.json")]
    return Side("xfel_hits", "detector", source, daemon)


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
