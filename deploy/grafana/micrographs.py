"""Panels of micrographs: their quality, those that wait, the work on them, and those that failed."""

from __future__ import annotations

from .panels import (
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    YELLOW,
    Panel,
    series,
)
from .queries import Query, chosen, grown, mean, of

SHARES = "saturated_fraction|missing_fraction|carbon_fraction|ice_fraction"
LEVELS = "mean|sd"


def shares() -> Panel:
    """Fractions of the area that are no good."""
    return series(
        "Bad area",
        "Share of the last micrograph that is carbon, crystalline ice, saturated or missing. What lies outside the "
        "ranges of the configuration is warned of, or skipped.",
        [Query(chosen(of("beamsieve_micrograph_quality", f'number=~"{SHARES}"')), "{{number}}")],
        unit="percentunit",
        decimals=1,
        colours={
            "carbon_fraction": ORANGE,
            "ice_fraction": SKY,
            "saturated_fraction": YELLOW,
            "missing_fraction": GREEN,
        },
        nothing="no micrographs in this time",
    )


def contrasts() -> Panel:
    """Contrast, gradient and fall-off."""
    return series(
        "Contrast, gradient, fall-off",
        "Of the last micrograph, without unit: how much stands out from the noise, how uneven the light is, how fast "
        "its spectrum falls off. A contrast that sinks with the same dose is thick ice or a bad focus.",
        [
            Query(
                chosen(of("beamsieve_micrograph_quality", f'number!~"{SHARES}|{LEVELS}"')),
                "{{number}}",
            )
        ],
        unit="none",
        decimals=2,
        low=None,
        colours={"contrast": SKY, "gradient": ORANGE, "falloff": GREEN},
        nothing="no micrographs in this time",
    )


def levels() -> Panel:
    """Mean and standard deviation."""
    return series(
        "Mean and standard deviation",
        "Of the last micrograph's pixels, in its own unit. They follow dose and thickness; a jump without a change at "
        "the microscope is another gain reference, or a beam that moved.",
        [Query(chosen(of("beamsieve_micrograph_quality", f'number=~"{LEVELS}"')), "{{number}}")],
        unit="none",
        low=None,
        colours={"mean": SKY, "sd": ORANGE},
        nothing="no micrographs in this time",
    )


def outside() -> Panel:
    """Micrographs outside the ranges."""
    return series(
        "Outside their ranges",
        "Micrographs per five minutes with a quality number outside its range in the configuration: `warn` are picked "
        "all the same, `skip` are not. More than one in ten: change the square, or the ranges.",
        [Query(grown("beamsieve_micrographs_outside_total"), "{{range}}: {{number}}")],
        unit="none",
        decimals=0,
        every="5m",
        bars=True,
        stacked=True,
        nothing="none in this time",
    )


def waiting() -> Panel:
    """Files that wait."""
    return series(
        "Files waiting, by reason",
        "`settling` and `changing` are being written; `queued` are complete and wait for their turn: if they become "
        "more, picking is too slow. The other words (docs/reference/metrics.md) are files that cannot be read.",
        [Query(chosen(of("beamsieve_waiting_files")), "{{reason}}")],
        unit="none",
        decimals=0,
        stacked=True,
        stepped=True,
        colours={"queued": ORANGE, "settling": SKY, "changing": BLUE, "in_work": GREEN},
        nothing="no file waits",
    )


def oldest(quiet: str = "30 minutes", alert: str = "BeamsieveFolderQuiet") -> Panel:
    """The oldest file, and the silence, which is an alert after ``quiet``."""
    return series(
        "Oldest file, and silence",
        "How long the oldest file has waited, and how long ago the last one was read. 15 minutes of the first, or "
        f"{quiet} of the second, are alerts (BeamsieveFilesWaiting, {alert}).",
        [
            Query(chosen(of("beamsieve_waiting_oldest_seconds")), "oldest waits"),
            Query(chosen(of("beamsieve_source_silent_seconds")), "since the last file"),
        ],
        unit="s",
        decimals=0,
        colours={"oldest waits": ORANGE, "since the last file": SKY},
    )


def seconds() -> Panel:
    """Work by stage."""
    return series(
        "Seconds per micrograph, by stage",
        "The mean work on one micrograph: reading, quality, preparing, scoring, finding peaks, cutting out. The sum, "
        "divided by the number of workers, must be less than the microscope takes for one exposure.",
        [Query(mean("beamsieve_micrograph_seconds", "$__rate_interval"), "{{stage}}")],
        unit="s",
        stacked=True,
        nothing="no micrographs in this time",
    )


def failures() -> Panel:
    """Micrographs that failed."""
    return series(
        "Failures by reason",
        "Micrographs per five minutes that could not be used, by why (docs/reference/metrics.md). More than 10 % "
        "within an hour is an alert (BeamsieveFilesFailing): read the log, and try `beamsieve infer` on one of them.",
        [Query(grown("beamsieve_frames_failed_total"), "{{reason}}")],
        unit="none",
        decimals=0,
        every="5m",
        bars=True,
        stacked=True,
        nothing="none failed",
    )
