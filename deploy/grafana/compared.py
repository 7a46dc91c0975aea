"""Panels in which all daemons are compared, a curve each."""

from __future__ import annotations

from .panels import (
    Panel,
    series,
)
from .queries import MANY, Query, chosen, of

WHERE = "{{instrument}} {{instance}}"


def hit_rates() -> Panel:
    """Hit rates side by side."""
    return series(
        "Hit rate, 10 min",
        "Of the daemons at detectors. All of them fall at once: the beam. One alone: its sample or its detector.",
        [Query(chosen(of("beamsieve:hit_rate:ratio_10m", 'beamline!~"cryo.+"', MANY)), WHERE)],
        unit="percentunit",
        nothing="no detector in this time",
    )


def yields() -> Panel:
    """Yields side by side."""
    return series(
        "Last ten micrographs against the session",
        "Of the daemons at microscopes: the median yield of the last ten micrographs over that of the session. Below "
        "50 % is an alert (BeamsieveYieldLow).",
        [Query(chosen(of("beamsieve_yield_ratio", "", MANY)), WHERE)],
        unit="percentunit",
        decimals=0,
        worry=0.5,
        nothing="no microscope in this time",
    )


def speeds() -> Panel:
    """Frames per second side by side."""
    return series(
        "Frames per second, each",
        "Shots or micrographs read in the last minute, on a logarithmic axis. A curve that ends is a source that is "
        "silent.",
        [Query(f"{chosen(of('beamsieve:frames_read:rate_1m', '', MANY))} > 0", WHERE)],
        unit="suffix: /s",
        low=None,
        log=True,
        nothing="nothing was read in this time",
    )


def losses() -> Panel:
    """Losses side by side."""
    return series(
        "Lost, 1 min",
        "Share of the frames that failed or were dropped. At detectors, above 1 % (the dashed line) somebody is "
        "told, above 10 % somebody is woken; of few micrographs one may fail.",
        [Query(of("beamsieve:loss:ratio_1m", "", MANY), WHERE)],
        unit="percentunit",
        worry=0.01,
        nothing="no frames in this time",
    )


def disks() -> Panel:
    """Disks side by side."""
    return series(
        "Disk free",
        "Room left where files go. A line that leads to 0 within four hours is an alert (BeamsieveDiskFilling).",
        [Query(of("beamsieve_disk_free_bytes", "", MANY), WHERE)],
        unit="decbytes",
        decimals=0,
    )


def uptimes() -> Panel:
    """How long they run."""
    return series(
        "Time since the start",
        "A saw is a daemon that ends and is started again, which loses what came meanwhile (BeamsieveRestarting).",
        [Query(f"time() - {of('beamsieve_started_timestamp_seconds', '', MANY)}", WHERE)],
        unit="s",
    )
