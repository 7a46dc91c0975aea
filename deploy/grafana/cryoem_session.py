"""The dashboard of a cryo-EM session, which says whether a grid is worth the night and the picking keeps up."""

from __future__ import annotations

from . import classes
from .board import Board, Row
from .micrographs import contrasts, failures, levels, oldest, outside, seconds, shares, waiting
from .panels import GREEN, ORANGE, SKY, Panel, heat, number, series
from .queries import Query, buckets, chosen, mean, of
from .xfel_run import READY


def board() -> Board:
    """The dashboard."""
    rows_of = [
        Row("Now", now()),
        Row("Particles", [yields(), ratio(), per_hour(), pick_counts()]),
        Row("Micrographs", [shares(), contrasts(), levels(), outside()]),
        Row("Picking", [scores(), threshold()]),
        Row("2-D classes", classes.row()),
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
