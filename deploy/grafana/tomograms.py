"""Panels of tomograms: what is in them, whether they still look the same, clusters, and the work in the background."""

from __future__ import annotations

from .panels import GREEN, ORANGE, PURPLE, SKY, Panel, number, series
from .queries import Query, chosen, grown, mean, of

DRIFT = 1.5
NONE = "no tomogram was mined in this time"


def now() -> list[Panel]:
    """Single numbers of this moment."""
    return [
        number(
            "Tomograms",
            "Tomograms that were mined since the daemon started.",
            Query(chosen(of("beamsieve_frames_total", 'outcome="accepted"'))),
            unit="none",
            decimals=0,
            low=0,
        ),
        number(
            "Sub-volumes",
            "Sub-volumes that were picked in them since the daemon started, of all classes and of none.",
            Query(chosen(f"sum without (class) ({of('beamsieve_tomogram_subvolumes_total')})")),
            unit="short",
            decimals=1,
            low=0,
        ),
        number(
            "Mode",
            "Exploring: no cluster is in a group yet. Annotating: every further tomogram is labelled by the groups.",
            Query(chosen(f"{of('beamsieve_tomogram_mode')} == 1"), "{{mode}}", now=True),
            unit="none",
            name=True,
        ),
        number(
            "Clusters in groups",
            "Clusters that a person has put into a group. The others count as unmarked.",
            Query(
                chosen(
                    f"sum without (mark) ({of('beamsieve_tomogram_clusters')}) "
                    f"- ignoring (mark) {of('beamsieve_tomogram_clusters', _UNMARKED)}"
                )
            ),
            unit="none",
            decimals=0,
            low=0,
        ),
        number(
            "Error against the session",
            "Mean squared error of the last tomogram's sub-volumes, as the network reconstructs them, over the "
            "session's median. Above 1.5 is an alert (BeamsieveTomogramsDrift): sample, microscope or reconstruction "
            "changed.",
            Query(chosen(f"{of(_RATIO)} >= 0")),
            unit="none",
            decimals=2,
            low=0,
            nothing="no tomogram yet",
            colours=((None, SKY), (DRIFT, ORANGE)),
        ),
        number(
            "Files waiting",
            "Files in the folder that are not read yet. Some always wait until they have settled; others wait while a "
            "tomogram is in work. Worry when they cannot be read (BeamsieveFilesWaiting).",
            Query(chosen(of("beamsieve:waiting_files:sum"))),
            unit="none",
            decimals=0,
            low=0,
            colours=((None, SKY), (20, ORANGE)),
        ),
        number(
            "Silent for",
            "Time since the last file came. Two hours are an alert (BeamsieveNoTomograms).",
            Query(chosen(of("beamsieve_source_silent_seconds"))),
            unit="s",
            decimals=0,
            low=0,
            colours=((None, SKY), (7200, ORANGE)),
        ),
        number(
            "Network",
            "Which network encodes sub-volumes, and whether it was trained on this session's own (trained: true).",
            Query(chosen(of("beamsieve_tomogram_model_info")), "{{name}}, trained: {{trained}}", now=True),
            unit="none",
            nothing="none",
            name=True,
        ),
    ]


def subvolumes() -> Panel:
    """Sub-volumes by class."""
    return series(
        "Sub-volumes by class",
        "Sub-volumes that were found since the daemon started, by the group of their cluster when they were found. A "
        "group that stands still while the others grow is no longer found.",
        [Query(chosen(of("beamsieve_tomogram_subvolumes_total")), "{{class}}")],
        unit="short",
        stacked=True,
        nothing=NONE,
    )


def voxels() -> Panel:
    """Voxels by class."""
    return series(
        "Labelled voxels of the last tomogram",
        "Share of the voxels of the last tomogram that was segmented, by class, without the background. A jump is "
        "another place on the grid, or labels that have gone wrong: look at the slices on the page.",
        [Query(chosen(of("beamsieve_tomogram_voxels_fraction", 'class!="background"')), "{{class}}")],
        unit="percentunit",
        decimals=2,
        nothing="no tomogram was segmented in this time",
    )


def error() -> Panel:
    """The error of reconstruction."""
    return series(
        "Error of the reconstruction against the session",
        "The last tomogram's mean squared error over the session's median: 1 is as usual. Above 1.5 (the dashed line) "
        "the network sees what it has not learned, which is an alert (BeamsieveTomogramsDrift). Another network begins "
        "anew at 1.",
        [Query(chosen(f"{of(_RATIO)} >= 0"), "last / session")],
        unit="none",
        decimals=2,
        worry=DRIFT,
        colours={"last / session": SKY},
        nothing=NONE,
    )


def clusters() -> Panel:
    """Clusters by mark."""
    return series(
        "Clusters by group",
        "How many clusters are in each group, and in none (unmarked). A step is a new clustering, or a person's mark.",
        [Query(chosen(of("beamsieve_tomogram_clusters")), "{{mark}}")],
        unit="none",
        decimals=0,
        stacked=True,
        stepped=True,
        nothing="no clusters in this time",
    )


def seconds() -> Panel:
    """Work on a tomogram."""
    return series(
        "Seconds per tomogram by stage",
        "Mean time of the work on the tomograms just mined, by stage. Worry when their sum is longer than a tomogram "
        "takes to come.",
        [Query(mean("beamsieve_tomogram_stage_seconds", "$__rate_interval"), "{{stage}}")],
        unit="s",
        decimals=1,
        stacked=True,
        nothing=NONE,
    )


def outcomes() -> Panel:
    """Tomograms by outcome."""
    return series(
        "Tomograms by outcome",
        "Tomograms by how they ended, per half hour. Failed ones are set aside, and counted by reason in the daemon's "
        "internals. Worry when more than one in ten fails (BeamsieveTomogramsFail).",
        [Query(grown("beamsieve_frames_total"), "{{outcome}}")],
        unit="none",
        decimals=0,
        every="30m",
        bars=True,
        stacked=True,
        colours={"accepted": SKY, "rejected": PURPLE, "failed": ORANGE, "dropped": GREEN},
        nothing=NONE,
    )


def background() -> Panel:
    """Work in the background."""
    return series(
        "Made in the background",
        "Clusterings, trainings of the autoencoder (codes) and of the network of labels (voxels), by how they ended, "
        "per half hour. A failed one is an alert (BeamsieveTrainingFailed); worse ones were not adopted.",
        [Query(grown("beamsieve_tomogram_trainings_total"), "{{what}}: {{outcome}}")],
        unit="none",
        decimals=0,
        every="30m",
        bars=True,
        stacked=True,
        nothing="nothing was made in this time",
    )


_UNMARKED = 'mark="unmarked"'
_RATIO = "beamsieve_tomogram_reconstruction_error_ratio"
