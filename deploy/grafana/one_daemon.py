"""The dashboard of one daemon's inside: its stages, what is lost where, what people did, and a candidate model."""

from __future__ import annotations

from .board import Board, Row
from .frames import books, read, reasons, source_events
from .panels import GREEN, ORANGE, SKY, Panel, heat, number, series
from .people import agreement, changes, clients, marks, shadow_rates, shadow_table
from .queries import Query, buckets, chosen, of
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
            ("Cryo-ET session", "/d/beamsieve-cryoet?${datasource:queryparam}&${instrument:queryparam}"),
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
