"""The dashboard of one daemon's inside: its stages, what is lost where, what people did, and a candidate model."""

from __future__ import annotations

from .board import Board, Row
from .panels import GREEN, GREY, ORANGE, PURPLE, SKY, YELLOW, Panel, heat, number, series
from .queries import Query, buckets, chosen, either, grown, labelled, of, rate
from .tables import Column, rows
from .xfel_run import READY


def board() -> Board:
    """The dashboard."""
    rows_of = [
        Row("Now", now()),
        Row("Stages", [share("busy"), share("starved"), share("blocked"), bottleneck(), depths(), fill()]),
        Row("Speed", [latency_map(), latency()]),
        Row("Source and losses", [read(), source_events(), reasons(), books()]),
        Row("People", [changes(), marks(), clients()]),
        Row("Candidate model in shadow", [agreement(), shadow_rates(), shadow_table()]),
        Row("Disk", [disk()]),
    ]
    return Board(
        uid="beamsieve-daemon",
        title="beamsieve: one daemon",
        about="Stages, queues, latency, losses, changes and a candidate model of one daemon.",
        rows=rows_of,
        links=(
            ("Fleet of daemons", "/d/beamsieve-fleet?${datasource:queryparam}"),
            ("XFEL run", "/d/beamsieve-xfel?${datasource:queryparam}&${instrument:queryparam}"),
            ("Cryo-EM session", "/d/beamsieve-cryoem?${datasource:queryparam}&${instrument:queryparam}"),
        ),
    )


def now() -> list[Panel]:
    """Single numbers of this moment."""
    return [
        number(
            "Ready",
            "Whether the daemon says that it can be relied on; if not, its address with /readyz says why.",
            Query(of("beamsieve_ready")),
            unit="none",
            decimals=0,
            nothing="no answer",
            meaning=READY,
            curve=False,
        ),
        number(
            "Time since the start",
            "Short without anybody having started it: the service manager did, and the log says why it ended.",
            Query(f"time() - {of('beamsieve_started_timestamp_seconds')}"),
            unit="dtdurations",
            decimals=0,
            nothing="no answer",
            curve=False,
        ),
        number(
            "Bottleneck",
            "The stage that was busy for the largest share of the last minute: the first to be made faster, if "
            "anything must.",
            Query(chosen(of("beamsieve:bottleneck:ratio_1m")), "{{stage}}", now=True),
            unit="percentunit",
            name=True,
            nothing="none was busy",
        ),
        number(
            "Bottleneck, share",
            "That stage's share. Above 90 % it has no room left: more frames will wait, then be dropped.",
            Query(chosen(of("beamsieve:bottleneck:ratio_1m")), "{{stage}}", now=True),
            unit="percentunit",
            decimals=0,
            low=0,
            high=1,
            nothing="none was busy",
            colours=((None, SKY), (0.9, ORANGE)),
        ),
        number(
            "In flight",
            "Frames read that have not ended. It goes up and down; if it stands still above 0, the daemon is stuck "
            "(BeamsieveStuck).",
            Query(of("beamsieve_frames_in_flight")),
            unit="short",
            decimals=0,
            low=0,
        ),
        number(
            "Silence",
            "How long ago the source gave the last frame. Long between runs.",
            Query(of("beamsieve_source_silent_seconds")),
            unit="s",
            decimals=0,
            low=0,
        ),
        number(
            "Browsers",
            "Browsers that watch the page. They cost the analysis next to nothing, however many they are.",
            Query(of("beamsieve_page_clients")),
            unit="none",
            decimals=0,
            low=0,
        ),
        number(
            "Model",
            "Which model answers, its version and where it runs.",
            Query(of("beamsieve_model_info"), "{{name}} {{version}}, {{device}}", now=True),
            unit="none",
            nothing="none, pre-screen only",
            name=True,
        ),
    ]


MEANS = {
    "busy": "works. The stage with the largest share is the bottleneck; near 100 % it cannot go faster.",
    "starved": "waits for input. All stages near 100 %: the source gives nothing, and the daemon idles.",
    "blocked": "waits because the queue behind it is full. The stage after the last one that is blocked is too slow.",
}


def share(state: str) -> Panel:
    """What the stages do with their time."""
    return series(
        state.capitalize(),
        f"Share of the last minute in which a stage {MEANS[state]}",
        [Query(chosen(of("beamsieve:stage_share:ratio_1m", f'state="{state}"')), "{{stage}}")],
        unit="percentunit",
        w=8,
        decimals=0,
        high=1,
        nothing="no stage ran",
    )


def bottleneck() -> Panel:
    """The bottleneck over time."""
    return series(
        "Busiest stage",
        "Which stage was the busiest, and how busy. When it changes often, no stage is much slower than the others.",
        [Query(chosen(of("beamsieve:bottleneck:ratio_1m")), "{{stage}}")],
        unit="percentunit",
        w=8,
        decimals=0,
        high=1,
        nothing="no stage ran",
    )


def depths() -> Panel:
    """Frames that wait in queues."""
    return series(
        "Queues",
        "Frames that wait in front of each stage. The last queue that is full stands before the stage that is too "
        "slow, or hangs.",
        [Query(of("beamsieve_queue_depth"), "{{queue}}")],
        unit="short",
        w=8,
        decimals=0,
    )


def fill() -> Panel:
    """How full queues are."""
    return series(
        "Queues, of their capacity",
        "A first queue (`source`) at 100 % drops the oldest frame for each new one, where frames come from a network; "
        "above 90 % is an alert (BeamsieveQueueFull). Where files come from a folder it is full on purpose.",
        [Query(of("beamsieve:queue_fill:ratio"), "{{queue}}")],
        unit="percentunit",
        w=8,
        decimals=0,
        high=1,
        worry=0.9,
    )


def latency_map() -> Panel:
    """How latency is spread."""
    return heat(
        "Latency",
        "How many frames waited how long from arrival to verdict. A second band above the first is a stage that "
        "stalls from time to time: files being closed, or a device that is shared.",
        Query(buckets("beamsieve_latency_seconds"), "{{le}}"),
        unit="s",
        axis="latency",
        nothing="no verdicts in this time",
    )


def latency() -> Panel:
    """Quantiles of the latency."""
    quantiles = ("p50", "p90", "p99")
    return series(
        "Latency, 10 min",
        "From arrival to verdict: half, nine in ten, and 99 of a hundred frames were faster.",
        [Query(chosen(of(f"beamsieve:latency_seconds:{name}_10m")), name) for name in quantiles],
        unit="s",
        low=None,
        log=True,
        colours=dict(zip(quantiles, (SKY, GREEN, ORANGE), strict=True)),
        nothing="no verdicts in this time",
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
        colours={"threshold": ORANGE, "pause": YELLOW, "run": SKY, "model": PURPLE, "candidate": GREEN},
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


def disk() -> Panel:
    """Free disk, and where it leads."""
    return series(
        "Disk free, and in four hours",
        "Room left where files go, and what will be left in four hours if the last hour goes on. Below 0 is an alert "
        "(BeamsieveDiskFilling). Below `files.min_free_gb` nothing is kept.",
        [
            Query(of("beamsieve_disk_free_bytes"), "now"),
            Query(of("beamsieve:disk_free_bytes:predicted_4h"), "in 4 h"),
        ],
        unit="decbytes",
        w=24,
        decimals=0,
        low=None,
        colours={"now": SKY, "in 4 h": ORANGE},
    )
