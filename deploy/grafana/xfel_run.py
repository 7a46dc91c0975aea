"""The dashboard of a run at an X-ray laser, which says whether the injector works and what is kept."""

from __future__ import annotations

from .board import Board, Row
from .frames import flow, kept, losses, missing
from .panels import GREEN, ORANGE, PLAIN, SKY, Panel, heat, number, series
from .queries import Query, buckets, chosen, either, labelled, of
from .tables import Column, rows

WINDOWS = ("1m", "10m", "1h")
SPELT = {"1m": "1 min", "10m": "10 min", "1h": "1 h"}
READY = {"1": ("ready", SKY), "0": ("not ready", ORANGE)}
WRITING = {"1": ("writing", SKY), "0": ("paused", ORANGE)}


def board() -> Board:
    """The dashboard."""
    rows_of = [
        Row("Now", now()),
        Row("Hits", [hit_rate(), windows(), classes(), scores()]),
        Row("Frames", [flow(), losses(), kept(), missing()]),
        Row("Verdicts", [threshold(), latency()]),
    ]
    return Board(
        uid="beamsieve-xfel",
        title="beamsieve: XFEL run",
        about="Hit rate, losses and speed of one detector's daemon.",
        rows=rows_of,
        beamline="xfel_hits",
        links=(
            ("Fleet of daemons", "/d/beamsieve-fleet?${datasource:queryparam}"),
            (
                "This daemon's internals",
                "/d/beamsieve-daemon?${datasource:queryparam}&${instrument:queryparam}&${daemon:queryparam}",
            ),
        ),
    )


def now() -> list[Panel]:
    """Single numbers of this moment."""
    rate_text = "Share of the judged frames that were hits. Compare it with the rate of ten minutes: a fall by half is "
    return [
        number(
            "Hit rate, 1 min",
            rate_text + "an alert (BeamsieveHitRateFell); look at the injector.",
            Query(chosen(of("beamsieve:hit_rate:ratio_1m"))),
            unit="percentunit",
            decimals=1,
            low=0,
            nothing="nothing judged",
        ),
        number(
            "Hit rate, 10 min",
            rate_text + "an alert. This one moves slowly, and is what the last minute is compared with.",
            Query(chosen(of("beamsieve:hit_rate:ratio_10m"))),
            unit="percentunit",
            decimals=1,
            low=0,
            nothing="nothing judged",
        ),
        number(
            "Frames per second",
            "Read from the detector in the last minute. It should be the rate of the detector; 0 between runs.",
            Query(chosen(of("beamsieve:frames_read:rate_1m"))),
            unit="suffix: /s",
            decimals=1,
            low=0,
        ),
        number(
            "Lost, 10 min",
            "Share of the frames that failed or were dropped. Anything above 1 % is an alert (BeamsieveLosses).",
            Query(chosen(of("beamsieve:loss:ratio_10m"))),
            unit="percentunit",
            decimals=2,
            low=0,
            nothing="no frames",
            colours=((None, SKY), (0.01, ORANGE)),
        ),
        number(
            "Threshold",
            "The score from which on a frame is a hit. Rates before and after a change cannot be compared.",
            Query(chosen(of("beamsieve_threshold"))),
            unit="none",
            decimals=3,
            nothing="no model",
            colours=((None, PLAIN),),
            curve=False,
        ),
        number(
            "Run",
            "The run's title and the name its source gave it.",
            Query(chosen(of("beamsieve_run_info")), "{{title}} ({{run}})", now=True),
            unit="none",
            nothing="no run yet",
            name=True,
        ),
        number(
            "Model",
            "Which model judges, its version and where it runs.",
            Query(chosen(of("beamsieve_model_info")), "{{name}} {{version}}, {{device}}", now=True),
            unit="none",
            nothing="none, pre-screen only",
            name=True,
        ),
        number(
            "Writing",
            "Whether hits are kept in files. Paused: a person said so on the page, and nothing is kept.",
            Query(chosen(of("beamsieve_writing"))),
            unit="none",
            decimals=0,
            meaning=WRITING,
            curve=False,
        ),
    ]


def hit_rate() -> Panel:
    """The course of the hit rate with its interval."""
    return series(
        "Hit rate with its 95 % interval",
        "Of the last minute, and of the last ten. The band says how far chance alone may have moved the rate of one "
        "minute (Wilson's interval at 95 %): a change within it means nothing yet. Worry when the whole band falls "
        "below half of the slower curve; first look at the jet, then at the threshold and the model (marks in the "
        "picture).",
        [
            Query(chosen(of("beamsieve:hit_rate_low:ratio_1m")), "low"),
            Query(chosen(of("beamsieve:hit_rate_high:ratio_1m")), "high"),
            Query(chosen(of("beamsieve:hit_rate:ratio_1m")), "1 min"),
            Query(chosen(of("beamsieve:hit_rate:ratio_10m")), "10 min"),
        ],
        unit="percentunit",
        w=16,
        h=9,
        nothing="nothing judged in this time",
        band=("low", "high"),
        colours={"low": SKY, "high": SKY, "1 min": SKY, "10 min": ORANGE},
    )


def _window_column(title: str, name: str, **look: object) -> Column:
    parts = (labelled(chosen(of(f"beamsieve:{name}_{window}")), "window", SPELT[window]) for window in WINDOWS)
    return Column(title, f"max by (window) ({either(*parts)})", **look)  # type: ignore[arg-type]


def windows() -> Panel:
    """The hit rate over several windows."""
    share = {"unit": "percentunit", "decimals": 1}
    return rows(
        "Hit rate over several windows",
        "The rate with the ends of its 95 % interval, and what it rests on. With few hits the interval is wide: wait "
        "before you change anything.",
        [
            Column("Window", label="window"),
            _window_column("Rate", "hit_rate:ratio", **share),
            _window_column("From", "hit_rate_low:ratio", **share),
            _window_column("To", "hit_rate_high:ratio", **share),
            _window_column("Hits", "hits:increase", unit="short", decimals=0),
            _window_column("Frames", "judged:increase", unit="short", decimals=0),
        ],
        w=8,
        h=9,
        sort="Frames",
        nothing="nothing judged",
    )


def classes() -> Panel:
    """Answers of the model."""
    return series(
        "Classes",
        "How many frames per second got which answer: the number of particles in the beam, or `none` where no model "
        "was asked. Many with several particles mean that the sample is too dense.",
        [Query(chosen(of("beamsieve:answers:rate_1m")), "{{label}}")],
        unit="suffix: /s",
        stacked=True,
        nothing="nothing judged in this time",
    )


def scores() -> Panel:
    """The distribution of scores."""
    return heat(
        "Scores of the model",
        "How many frames had which score. Two bands, near 0 and near 1, are a model that knows; a broad middle, or a "
        "band that wanders, is one that meets something it was not trained on. Review some frames on the page then.",
        Query(buckets("beamsieve_score"), "{{le}}"),
        unit="none",
        axis="score",
        nothing="no scores in this time",
    )


def threshold() -> Panel:
    """The threshold and the mean score."""
    return series(
        "Threshold and mean score",
        "The threshold in force, and the mean score of the last minute. A mean that wanders while the threshold "
        "stands is a change of the sample, of the beam or of the detector.",
        [
            Query(chosen(of("beamsieve_threshold")), "threshold"),
            Query(chosen(of("beamsieve:score:mean_1m")), "mean score"),
        ],
        unit="none",
        decimals=3,
        high=1,
        stepped=True,
        colours={"threshold": ORANGE, "mean score": GREEN},
        nothing="no model judged in this time",
    )


def latency() -> Panel:
    """How late verdicts are."""
    quantiles = ("p50", "p90", "p99")
    return series(
        "Latency",
        "From a frame's arrival to its verdict: half, nine in ten, and 99 of a hundred frames were faster than this. "
        "Above 1 s (p99) is an alert (BeamsieveLatency): frames pile up, and are dropped next.",
        [Query(chosen(of(f"beamsieve:latency_seconds:{name}_1m")), name) for name in quantiles],
        unit="s",
        log=True,
        low=None,
        worry=1,
        colours=dict(zip(quantiles, (SKY, GREEN, ORANGE), strict=True)),
        nothing="no verdicts in this time",
    )
