"""Panels of what people do to a daemon: changes, reviewed verdicts, and a candidate model in shadow."""

from __future__ import annotations

from .panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    YELLOW,
    Panel,
    series,
)
from .queries import Query, chosen, either, grown, labelled, of
from .tables import Column, rows


def changes() -> Panel:
    """What people changed."""
    return series(
        "Changes on the page",
        "What people changed, per minute. Who, when, and from what to what stands in the log of changes "
        "beside the files, and on the page.",
        [Query(grown("beamsieve_changes_total"), "{{what}}")],
        unit="none",
        every="1m",
        w=8,
        decimals=0,
        bars=True,
        stacked=True,
        colours={"threshold": ORANGE, "pause": YELLOW, "run": SKY, "model": PURPLE, "candidate": GREEN, "class": BLUE},
    )


def marks() -> Panel:
    """What people reviewed."""
    return series(
        "Reviewed verdicts, 1 h",
        "Verdicts that people called right or wrong within the hour. Purity and recall on the page rest on them; a "
        "few hundred make a narrow interval. Many wrong ones: move the threshold, or train with them.",
        [Query(of("beamsieve:review_marks:increase_1h"), "{{verdict}}")],
        unit="none",
        w=8,
        decimals=0,
        stacked=True,
        colours={"right": SKY, "wrong": ORANGE},
    )


def clients() -> Panel:
    """Who watches."""
    return series(
        "Browsers that watch",
        "The most within ten minutes.",
        [Query(of("beamsieve:page_clients:max_10m"), "browsers")],
        unit="none",
        w=8,
        decimals=0,
        stepped=True,
        colours={"browsers": SKY},
    )


def agreement() -> Panel:
    """How often a candidate agrees."""
    return series(
        "Agreement",
        "Share of the frames of ten minutes on which both models say the same, and what it is at most (upper end of "
        "the 95 % interval). If even that stays below 90 %, look at frames on which they differ before promoting.",
        [
            Query(chosen(of("beamsieve:shadow_agreement:ratio_10m")), "agreement"),
            Query(chosen(of("beamsieve:shadow_agreement_high:ratio_10m")), "at most"),
        ],
        unit="percentunit",
        w=8,
        low=None,
        high=1,
        colours={"agreement": SKY, "at most": GREY},
        nothing="no candidate runs",
    )


def shadow_rates() -> Panel:
    """Hit rates of both models."""
    # Not the recorded hit rate, which counts frames from before the candidate ran.
    hits = of("beamsieve_shadow_frames_total", 'current="hit"')
    ours = f"sum without (current, candidate) (increase({hits}[10m])) / {of('beamsieve:shadow_frames:increase_10m')}"
    return series(
        "Hit rate of both",
        "Of the model in force and of the candidate, on the same frames. A candidate with a lower rate may be purer, "
        "or worse; only reviewed frames tell.",
        [
            Query(chosen(ours), "in force"),
            Query(chosen(of("beamsieve:shadow_hit_rate:ratio_10m")), "candidate"),
        ],
        unit="percentunit",
        w=8,
        colours={"in force": SKY, "candidate": ORANGE},
        nothing="no candidate runs",
    )


def shadow_table() -> Panel:
    """What both models said."""
    parts = []
    for current, candidate, title in (
        ("hit", "hit", "both: hit"),
        ("hit", "miss", "only the model in force: hit"),
        ("miss", "hit", "only the candidate: hit"),
        ("miss", "miss", "both: miss"),
    ):
        one = grown("beamsieve_shadow_frames_total", f'current="{current}", candidate="{candidate}"', over="$__range")
        parts.append(labelled(one, "said", title))
    return rows(
        "Frames by what both said",
        "In the time that is shown. The two rows in the middle are where they differ.",
        [
            Column("Verdicts", label="said"),
            Column("Frames", f"max by (said) ({either(*parts)})", unit="short", decimals=0),
        ],
        w=8,
        nothing="no candidate runs",
    )
