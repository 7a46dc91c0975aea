"""Panels of frames: what was read, how it ended, what was lost, kept, or never came, and whether the books balance."""

from __future__ import annotations

from .panels import BLUE, GREY, ORANGE, PURPLE, SKY, YELLOW, Panel, series
from .queries import Query, chosen, grown, of, rate


def flow() -> Panel:
    """Frames per second by how they ended."""
    return series(
        "Frames per second, by outcome",
        "Read from the detector, and by how they ended. `accepted` and `rejected` together should be all that is "
        "read. Where `dropped` or `failed` shows, look at the losses.",
        [
            Query(chosen(of("beamsieve:frames_read:rate_1m")), "read"),
            Query(chosen(of("beamsieve:frames_ended:rate_1m")), "{{outcome}}"),
        ],
        unit="suffix: /s",
        colours={"read": GREY, "accepted": SKY, "rejected": BLUE, "failed": PURPLE, "dropped": ORANGE},
    )


def losses() -> Panel:
    """Lost frames by cause."""
    return series(
        "Losses by cause",
        "Frames that failed (their data or the files) or were dropped (no room), by why, per minute. The words are in "
        "docs/reference/metrics.md. `full` means that the analysis is too slow: look at the stages of this daemon. "
        "Nothing at all is good.",
        [
            Query(grown("beamsieve_frames_failed_total"), "failed: {{reason}}"),
            Query(grown("beamsieve_frames_dropped_total"), "dropped: {{reason}}"),
        ],
        unit="short",
        every="1m",
        stacked=True,
        bars=True,
        nothing="nothing was lost",
    )


def kept() -> Panel:
    """What is written."""
    return series(
        "Kept in files",
        "Frames per second that are written: hits, and a few misses chosen at random, by which the recall is measured. "
        "None while hits come: writing is paused, or the disk is full.",
        [Query(rate("beamsieve_written_total"), "{{what}}")],
        unit="suffix: /s",
        stacked=True,
        colours={"hit": SKY, "random_miss": YELLOW},
        nothing="nothing was kept",
    )


def missing() -> Panel:
    """Numbers that never came."""
    return series(
        "Missing before they came",
        "Share of the numbers that were skipped before they reached this daemon: the network, or the sender's queue. "
        "With several receivers on one socket the others have them.",
        [Query(chosen(of("beamsieve:missing:ratio_10m")), "missing")],
        unit="percentunit",
        colours={"missing": ORANGE},
        nothing="no number was ever skipped",
    )


def read() -> Panel:
    """What is read."""
    return series(
        "Read",
        "Bytes of images per second, as they came. Frames of another size, or another compression, show here.",
        [Query(rate("beamsieve_read_bytes_total"), "read")],
        unit="Bps",
        colours={"read": SKY},
    )


def source_events() -> Panel:
    """What happened at the source."""
    return series(
        "Events at the source",
        "What the source noticed, per minute: numbers that are missing, senders that began again, folders that went "
        "away. The words are in docs/reference/metrics.md.",
        [Query(grown("beamsieve_source_events_total"), "{{kind}}")],
        unit="short",
        every="1m",
        bars=True,
        stacked=True,
        nothing="nothing happened",
    )


def reasons() -> Panel:
    """Why frames were lost."""
    return series(
        "Failures and drops by reason",
        "Frames that could not be used, and frames that were left out, per minute; the words are in "
        "docs/reference/metrics.md. Nothing at all is good.",
        [
            Query(grown("beamsieve_frames_failed_total"), "failed: {{reason}}"),
            Query(grown("beamsieve_frames_dropped_total"), "dropped: {{reason}}"),
        ],
        unit="short",
        every="1m",
        bars=True,
        stacked=True,
        nothing="nothing was lost",
    )


def books() -> Panel:
    """Whether every frame is accounted for."""
    return series(
        "Books",
        "Frames read, less those that ended or are in flight. Anything but 0 is a mistake in beamsieve "
        "(BeamsieveBooksDoNotBalance): keep the log.",
        [Query(of("beamsieve:books:difference"), "difference")],
        unit="none",
        decimals=0,
        low=None,
        worry=1,
        colours={"difference": SKY},
    )
