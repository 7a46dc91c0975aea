"""What a daemon says while it runs and at its end: a line, a summary of plain values, and that in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from ..flow.classed import Classed
from ..flow.metrics import Metrics
from ..flow.rates import Rate
from ..terminal import Line, LiveLine, YieldLine, percent

if TYPE_CHECKING:
    from ..beamlines.cryoem_picks import Daemon as PicksDaemon
    from ..beamlines.xfel_hits import Daemon as HitsDaemon


class Report(Protocol):
    """How one beamline reports."""

    def line(self) -> Line:
        """The live line."""

    def summary(self, seconds: float) -> dict[str, Any]:
        """What the daemon did in ``seconds``, as plain values."""

    def describe(self, found: dict[str, Any]) -> str:
        """A summary in a few lines for a person."""


def ledger(metrics: Metrics) -> dict[str, Any]:
    """The ledger, events and latency, which every beamline has."""
    tally = metrics.tally()
    hits, judged = metrics.hits()
    median, p99 = metrics.latency(0.5, 0.99)
    return {
        "read": tally.read,
        "accepted": tally.accepted,
        "rejected": tally.rejected,
        "failed": tally.failed,
        "dropped": tally.dropped,
        "failures": tally.failures,
        "drops": tally.drops,
        "judged": judged,
        "measured_hits": hits,
        "events": dict(metrics.events()),
        "latency_median_s": None if judged == 0 else median,
        "latency_p99_s": None if judged == 0 else p99,
        "bottleneck": metrics.bottleneck(),
        "active_s": metrics.active_s(),
    }


def books(found: dict[str, Any], items: str) -> str:
    """How the ledger adds up, in a line."""
    return (
        f"{found['read']} {items} read = {found['accepted']} accepted + {found['rejected']} rejected"
        f" + {found['failed']} failed + {found['dropped']} dropped"
    )


def reasons(found: dict[str, Any]) -> list[str]:
    """Failures, drops and events by kind, a line each, where there are any."""
    return [
        f"{name}: " + ", ".join(f"{key} {n}" for key, n in found[name].items())
        for name in ("failures", "drops", "events")
        if found[name]
    ]


def classes(classed: Classed | None) -> dict[str, Any] | None:
    """What became of the particles' 2-D classes; None where none are made."""
    if classed is None:
        return None
    now, median = classed.counts(), classed.pick_to_class_s()
    return {
        "classes": sum(now.classes.values()),
        "classified": sum(now.particles.values()),
        "rejected": now.particles.get("bad", 0),
        "unlabelled": now.unlabelled,
        "pick_to_class_median_s": None if math.isnan(median) else median,
        "best_resolution_a": None if math.isnan(now.best_a) else now.best_a,
        "passes": {why: n for why, n in classed.passes().items() if n},
        "failures": dict(classed.failures()),
    }


def in_classes(found: dict[str, Any]) -> str:
    """The same in a line."""
    if not found["classes"]:
        return f"no 2-D classes: {found['unlabelled']} particles are too few, or could not be classified"
    line = f"{found['classified']} particles in {found['classes']} 2-D classes"
    line += f", {found['rejected']} of them in bad ones" * bool(found["rejected"])
    line += f", {found['unlabelled']} without a class" * bool(found["unlabelled"])
    if found["pick_to_class_median_s"] is not None:
        line += f", {found['pick_to_class_median_s']:.1f} s from pick to class (median)"
    if found["best_resolution_a"] is not None:
        line += f", the best average resolved to {found['best_resolution_a']:.0f} Å"
    return line


class HitReport:
    """Reports ``xfel_hits``: hit rate with its interval, answers, losses, files."""

    def __init__(self, daemon: HitsDaemon) -> None:
        self._daemon = daemon

    def line(self) -> LiveLine:
        """Rates over ten seconds and over all."""
        return LiveLine(self._daemon.pipeline.metrics)

    def summary(self, seconds: float) -> dict[str, Any]:
        """The ledger, hits, answers, latency, losses, files."""
        metrics = self._daemon.pipeline.metrics
        found = ledger(metrics)
        answers: dict[str, int] = dict.fromkeys(metrics.labels, 0)
        for (_, label), n in metrics.verdicts().items():
            answers[label] = answers.get(label, 0) + n
        judged = found["judged"]
        return {
            **found,
            "measured_hit_rate": found["measured_hits"] / judged if judged else None,
            "answers": answers,
            "model": self._daemon.model,
            "seconds": seconds,
            "written": dict(metrics.written()),
            "files": [str(path) for path in self._daemon.files.files],
            "failed_messages": [str(path) for path in self._daemon.failures.paths],
        }

    def describe(self, found: dict[str, Any]) -> str:
        """The summary in a few lines for a person."""
        rate = percent(Rate(found["measured_hits"], found["judged"], found["seconds"]))
        lines = [
            books(found, "shots"),
            f"hit rate {rate if found['judged'] else 'unknown: no shot was judged'}, model {found['model']}",
            *reasons(found),
        ]
        lines += [f"file {path}" for path in found["files"] + found["failed_messages"]]
        return "\n".join(lines)


class YieldReport:
    """Reports ``cryoem_picks``: particles, picks per micrograph, what waits and why, where the picks are."""

    def __init__(self, daemon: PicksDaemon) -> None:
        self._daemon = daemon

    def line(self) -> YieldLine:
        """Micrographs per hour, the yield and its trend."""
        return YieldLine(self._daemon.pipeline.metrics)

    def summary(self, seconds: float) -> dict[str, Any]:
        """The ledger, particles, the yield and its trend, quality warnings, what waits, seconds by stage, files."""
        metrics = self._daemon.pipeline.metrics
        yields = self._daemon.yields
        trend, waiting = yields.trend(), yields.waiting()
        return {
            **ledger(metrics),
            "particles": trend.particles,
            "picks_median": None if not trend.micrographs else trend.median,
            "picks_median_last_10": None if not trend.micrographs else trend.recent,
            "outside": {f"{number} ({range_})": n for (number, range_), n in yields.warnings().items()},
            "waiting": dict(waiting.reasons),
            "waiting_oldest_s": waiting.oldest_s,
            "seconds_per_micrograph": dict(yields.seconds()),
            "model": self._daemon.model,
            "threshold": self._daemon.threshold,
            "classes": classes(metrics.classed),
            "seconds": seconds,
            "directory": str(self._daemon.picks.directory),
            "journal": str(self._daemon.journal),
        }

    def describe(self, found: dict[str, Any]) -> str:
        """The summary in a few lines for a person."""
        lines = [books(found, "micrographs")]
        if found["picks_median"] is None:
            lines.append("yield unknown: no micrograph was picked")
        else:
            lines.append(
                f"yield {found['particles']} particles, {found['picks_median']:g} picks per micrograph (median), "
                f"{found['picks_median_last_10']:g} in the last ten; model {found['model']}, "
                f"threshold {found['threshold']:.3f}"
            )
        if found["classes"] is not None:
            lines.append(in_classes(found["classes"]))
        if found["outside"]:
            lines.append("quality outside its range: " + ", ".join(f"{k} {n}" for k, n in found["outside"].items()))
        if found["waiting"]:
            why = ", ".join(f"{reason} {n}" for reason, n in found["waiting"].items())
            lines.append(f"waiting: {why}; the oldest for {found['waiting_oldest_s']:.0f} s")
        return "\n".join([*lines, *reasons(found), f"picks {found['directory']}", f"journal {found['journal']}"])
