"""What ``cryoet_mining`` says while it runs and at its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..flow.mined import Mined
from ..terminal import MiningLine
from .reports import books, ledger, reasons

if TYPE_CHECKING:
    from ..beamlines.cryoet_mining import Daemon


class MiningReport:
    """Reports ``cryoet_mining``: sub-volumes by class, clusters, networks, seconds by stage, files."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def line(self) -> MiningLine:
        """What it does now."""
        return MiningLine(self._daemon.pipeline.metrics, self._daemon.work.working)

    def summary(self, seconds: float) -> dict[str, Any]:
        """The ledger, and what tomograms gave."""
        metrics = self._daemon.pipeline.metrics
        assert metrics.mined is not None, "a beamline of tomograms counts what they give"
        return {
            **ledger(metrics),
            **gave(metrics.mined),
            "model": self._daemon.model,
            "seconds": seconds,
            "directory": str(self._daemon.directory),
            "journal": str(self._daemon.journal),
        }

    def describe(self, found: dict[str, Any]) -> str:
        """The summary in a few lines for a person."""
        lines = [books(found, "tomograms"), *in_words(found), *reasons(found)]
        return "\n".join([*lines, f"session {found['directory']}", f"journal {found['journal']}"])


def gave(mined: Mined) -> dict[str, Any]:
    """What tomograms gave, as plain values."""
    drift, waiting = mined.drift(), mined.waiting()
    return {
        "mode": mined.mode_now,
        "subvolumes": dict(mined.subvolumes()),
        "clusters": dict(mined.clusters_now()),
        "error": number(drift.last),
        "error_ratio": number(drift.ratio),
        "seconds_per_tomogram": dict(mined.seconds()),
        "trainings": {f"{what}: {outcome}": n for (what, outcome), n in mined.trainings().items()},
        "waiting": dict(waiting.reasons),
        "waiting_oldest_s": waiting.oldest_s,
    }


def in_words(found: dict[str, Any]) -> list[str]:
    """The same in lines."""
    classes = ", ".join(f"{n} {name}" for name, n in found["subvolumes"].items())
    lines = [f"{found['mode']}: {sum(found['subvolumes'].values())} sub-volumes" + (f" ({classes})" if classes else "")]
    if found["clusters"]:
        marked = ", ".join(f"{n} {name}" for name, n in found["clusters"].items())
        lines.append(f"{sum(found['clusters'].values())} clusters ({marked}); model {found['model']}")
    if found["error"] is not None:
        lines.append(f"error of reconstruction {found['error']:.3f}, {found['error_ratio'] or 1:.2f} x the session's")
    if found["trainings"]:
        lines.append("in the background " + ", ".join(f"{what} {n}" for what, n in found["trainings"].items()))
    if found["waiting"]:
        why = ", ".join(f"{reason} {n}" for reason, n in found["waiting"].items())
        lines.append(f"waiting: {why}; the oldest for {found['waiting_oldest_s']:.0f} s")
    return lines


def number(value: float) -> float | None:
    """The number, None where it is none."""
    return value if math.isfinite(value) else None
