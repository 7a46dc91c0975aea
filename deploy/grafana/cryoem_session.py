"""The dashboard of a cryo-EM session, which says whether a grid is worth the night and the picking keeps up."""

from __future__ import annotations

from .board import Board, Row
from .panels import BLUE, GREEN, ORANGE, SKY, YELLOW, Panel, heat, number, series
from .queries import Query, buckets, chosen, grown, mean, of
from .xfel_run import READY

SHARES = "saturated_fraction|missing_fraction|carbon_fraction|ice_fraction"
LEVELS = "mean|sd"


def board() -> Board:
    """The dashboard."""
    rows_of = [
        Row("Now", now()),
        Row("Particles", [yields(), ratio(), per_hour(), pick_counts()]),
        Row("Micrographs", [shares(), contrasts(), levels(), outside()]),
        Row("Picking", [scores(), threshold()]),
        Row("Files and work", [waiting(), oldest(), seconds(), failures()]),
    ]
    return Board(
        uid="beamsieve-cryoem",
        title="beamsieve: cryo-EM session",
        about="Yield, quality of the micrographs, waiting files and speed of one microscope's daemon.",
        rows=rows_of,
        beamline="cryoem_picks",
        since="now-6h",
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
    return [
        number(
            "Last ten micrographs",
            "Median number of particles picked in each of the last ten micrographs. Compare it with the session's.",
            Query(chosen(of("beamsieve_yield_median", 'over="last_10"'))),
            unit="none",
            decimals=0,
            low=0,
            nothing="no micrograph yet",
        ),
        number(
            "Session",
            "Median number of particles per micrograph since the daemon started.",
            Query(chosen(of("beamsieve_yield_median", 'over="session"'))),
            unit="none",
            decimals=0,
            low=0,
            nothing="no micrograph yet",
        ),
        number(
            "Last ten against session",
            "Below 50 % is an alert (BeamsieveYieldLow): the square is empty or thick, the focus is off, or the model "
            "no longer fits. Look at the last micrographs on the page.",
            Query(chosen(of("beamsieve_yield_ratio"))),
            unit="percentunit",
            decimals=0,
            low=0,
            nothing="too few micrographs",
            colours=((None, ORANGE), (0.5, SKY)),
        ),
        number(
            "Particles",
            "Picked since the daemon started. A reconstruction wants some tens of thousands to some hundreds of "
            "thousands.",
            Query(chosen(of("beamsieve_particles_total"))),
            unit="short",
            decimals=1,
            low=0,
        ),
        number(
            "Particles per hour",
            "At the pace of the last ten minutes. Too low in the first ten minutes of a daemon.",
            Query(chosen(of("beamsieve:particles:per_hour_10m"))),
            unit="short",
            decimals=1,
            low=0,
        ),
        number(
            "Files waiting",
            "Files in the folder that are not read yet. Some always wait until they have settled. Many, or more and "
            "more: picking is slower than the microscope (BeamsieveBehind), or they cannot be read "
            "(BeamsieveFilesWaiting).",
            Query(chosen(of("beamsieve:waiting_files:sum"))),
            unit="none",
            decimals=0,
            low=0,
            colours=((None, SKY), (20, ORANGE)),
        ),
        number(
            "Ready",
            "Whether the daemon says that it can be relied on; if not, its address with /readyz says why.",
            Query(chosen(of("beamsieve_ready"))),
            unit="none",
            decimals=0,
            nothing="no answer",
            meaning=READY,
            curve=False,
        ),
        number(
            "Model",
            "Which model picks, its version and where it runs.",
            Query(chosen(of("beamsieve_model_info")), "{{name}} {{version}}, {{device}}", now=True),
            unit="none",
            nothing="none",
            name=True,
        ),
    ]


def yields() -> Panel:
    """Particles per micrograph."""
    return series(
        "Yield per micrograph",
        "Particles per micrograph: the mean of those just picked, the median of the last ten, and the session's. The "
        "mean jumps from square to square; worry when the median of ten stays away from the session's.",
        [
            Query(mean("beamsieve_picks_per_micrograph", "$__rate_interval"), "just picked"),
            Query(chosen(of("beamsieve_yield_median", 'over="last_10"')), "last ten"),
            Query(chosen(of("beamsieve_yield_median", 'over="session"')), "session"),
        ],
        unit="none",
        decimals=0,
        colours={"just picked": SKY, "last ten": ORANGE, "session": GREEN},
        nothing="no micrographs in this time",
    )


def ratio() -> Panel:
    """The yield against the session's."""
    return series(
        "Last ten against the session",
        "Median of the last ten micrographs over that of the session. 100 % is as usual; below 50 % (the dashed line) "
        "is an alert after twenty micrographs: go to another square, or look at focus, ice and dose.",
        [Query(chosen(of("beamsieve_yield_ratio")), "last ten / session")],
        unit="percentunit",
        decimals=0,
        worry=0.5,
        colours={"last ten / session": SKY},
        nothing="too few micrographs",
    )


def per_hour() -> Panel:
    """How fast the data set grows."""
    names = {"particles": "particles", "micrographs": "micrographs"}
    return series(
        "Per hour",
        "Particles and micrographs per hour at the pace of the last ten minutes, on a logarithmic axis. Both fall: the "
        "microscope waits. Particles alone: the yield fell.",
        [Query(chosen(f"{of(f'beamsieve:{name}:per_hour_10m')} > 0"), title) for name, title in names.items()],
        unit="short",
        low=None,
        log=True,
        colours={"particles": ORANGE, "micrographs": SKY},
        nothing="no micrographs in this time",
    )


def pick_counts() -> Panel:
    """How the picks are spread over micrographs."""
    return heat(
        "Picks per micrograph",
        "How many micrographs had how many picks. Two bands are two kinds of squares, or holes with and without ice; "
        "a band at 0 is carbon or empty holes.",
        Query(buckets("beamsieve_picks_per_micrograph"), "{{le}}"),
        unit="none",
        axis="picks",
        nothing="no micrographs in this time",
    )


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


def scores() -> Panel:
    """The distribution of scores."""
    return heat(
        "Scores of candidates",
        "How many candidates above the floor had which score; those above the threshold are picks. Good data have a "
        "gap between two bands. No gap: the threshold decides much, so look at picks near it on the page.",
        Query(buckets("beamsieve_pick_score"), "{{le}}"),
        unit="none",
        axis="score",
        nothing="no candidates in this time",
    )


def threshold() -> Panel:
    """The threshold and the mean score."""
    return series(
        "Threshold and mean score",
        "The threshold in force, and the mean score of the candidates of ten minutes. A change of the threshold on "
        "the page applies to what is stored too.",
        [
            Query(chosen(of("beamsieve_threshold")), "threshold"),
            Query(chosen(of("beamsieve:pick_score:mean_10m")), "mean score"),
        ],
        unit="none",
        decimals=3,
        high=1,
        stepped=True,
        colours={"threshold": ORANGE, "mean score": GREEN},
        nothing="no model picked in this time",
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


def oldest() -> Panel:
    """The oldest file, and the silence."""
    return series(
        "Oldest file, and silence",
        "How long the oldest file has waited, and how long ago the last one was read. 15 minutes of the first, or 30 "
        "of the second, are alerts (BeamsieveFilesWaiting, BeamsieveFolderQuiet).",
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
