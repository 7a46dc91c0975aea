"""Panels of 2-D classes: how many, how good, how many particles are in bad ones, and whether they come in time."""

from __future__ import annotations

from .panels import BLUE, GREEN, ORANGE, PURPLE, SKY, Panel, number, series
from .queries import Query, chosen, grown, of

MARKED = {"good": BLUE, "unmarked": SKY, "bad": ORANGE}
NONE = "no particles were classified in this time"


def row() -> list[Panel]:
    """All of them."""
    return [*now(), classes(), particles(), resolution(), seconds(), waiting(), work()]


def now() -> list[Panel]:
    """Single numbers of this moment."""
    return [
        number(
            "2-D classes",
            "Classes of particles now. None until enough particles were picked (classes.first_at), or where "
            "particles are not kept.",
            Query(chosen(f"sum without (mark) ({of('beamsieve_classes')})")),
            unit="none",
            w=4,
            decimals=0,
            low=0,
            nothing="not classified",
        ),
        number(
            "Best class average",
            "Resolution of the best class average, by the Fourier ring correlation of its two halves. It cannot be "
            "finer than two pixels of the 64-pixel averages. Worse than 40 Å for long is an alert "
            "(BeamsieveClassesBlurred).",
            Query(chosen(of("beamsieve_class_resolution_angstrom", 'which="best"'))),
            unit="suffix: Å",
            w=4,
            decimals=1,
            low=0,
            nothing="not known yet",
            colours=((None, SKY), (40, ORANGE)),
        ),
        number(
            "In bad classes",
            "Share of the classified particles that are in classes marked bad, and so are rejected in exports.",
            Query(chosen(of("beamsieve:class_bad:ratio"))),
            unit="percentunit",
            w=4,
            decimals=1,
            low=0,
            nothing="not classified",
            colours=((None, SKY), (0.3, ORANGE)),
        ),
        number(
            "Waiting for a class",
            "Particles that were picked and are not classified yet. Before the first classes all of them wait.",
            Query(chosen(of("beamsieve_class_waiting_particles"))),
            unit="short",
            w=4,
            decimals=0,
            low=0,
            nothing="not classified",
        ),
        number(
            "Pick to class",
            "Median seconds from a pick to its class, of the particles of the last ten minutes.",
            Query(chosen(of("beamsieve:pick_to_class_seconds:p50_10m"))),
            unit="s",
            w=4,
            decimals=1,
            low=0,
            nothing="nothing classified",
        ),
        number(
            "Denoiser",
            "Which network denoises particles before they are compared, and whether it was trained on this session's "
            "own (tuned: true).",
            Query(chosen(of("beamsieve_class_model_info")), "{{name}}, tuned: {{tuned}}", now=True),
            unit="none",
            w=4,
            nothing="none",
            name=True,
        ),
    ]


def classes() -> Panel:
    """Classes by mark."""
    return series(
        "Classes by mark",
        "How many classes there are, by the mark that a person gave them. A step is a pass over all particles that "
        "made classes anew.",
        [Query(chosen(of("beamsieve_classes")), "{{mark}}")],
        unit="none",
        decimals=0,
        stacked=True,
        stepped=True,
        colours=MARKED,
        nothing=NONE,
    )


def particles() -> Panel:
    """Particles by the mark of their class."""
    return series(
        "Particles by mark of their class",
        "How many particles are in good, bad and unmarked classes. Worry when bad ones grow faster than the others: "
        "that is an alert when it lasts (BeamsieveBadParticles).",
        [Query(chosen(of("beamsieve_class_particles")), "{{mark}}")],
        unit="short",
        stacked=True,
        colours=MARKED,
        nothing=NONE,
    )


def resolution() -> Panel:
    """Resolutions of class averages."""
    return series(
        "Resolution of class averages",
        "Of the best class and of the one in the middle: where the Fourier ring correlation of two half sets falls to "
        "0.143. Lower is finer. They fall as classes grow; a jump up is a new pass, or other particles.",
        [Query(chosen(of("beamsieve_class_resolution_angstrom")), "{{which}}")],
        unit="suffix: Å",
        decimals=1,
        worry=40,
        colours={"best": GREEN, "median": PURPLE},
        nothing=NONE,
    )


def seconds() -> Panel:
    """From pick to class."""
    return series(
        "Seconds from pick to class",
        "Half of the particles of the last ten minutes, and nine in ten, had a class so long after they were picked. "
        "Classes have the lowest priority. 10 minutes are an alert (BeamsieveClassesLate).",
        [
            Query(chosen(of("beamsieve:pick_to_class_seconds:p50_10m")), "half"),
            Query(chosen(of("beamsieve:pick_to_class_seconds:p90_10m")), "nine in ten"),
        ],
        unit="s",
        decimals=1,
        colours={"half": SKY, "nine in ten": ORANGE},
        nothing=NONE,
    )


def waiting() -> Panel:
    """Particles without a class, and the pace."""
    return series(
        "Classified per hour, and waiting",
        "Particles that got a class, per hour at the pace of the last ten minutes, and those that wait for one. More "
        "and more that wait: the machine is too slow or busy.",
        [
            Query(chosen(of("beamsieve:classified:per_hour_10m")), "classified per hour"),
            Query(chosen(of("beamsieve_class_waiting_particles")), "waiting"),
        ],
        unit="short",
        colours={"classified per hour": GREEN, "waiting": ORANGE},
        nothing=NONE,
    )


def work() -> Panel:
    """Passes and failures."""
    return series(
        "Passes and failures of classes",
        "Passes over all particles, by why, and what went wrong, by reason (docs/reference/metrics.md), per five "
        "minutes. Failures other than of images and training are an alert (BeamsieveClassesFail).",
        [
            Query(grown("beamsieve_class_passes_total"), "pass: {{why}}"),
            Query(grown("beamsieve_class_failures_total"), "failed: {{reason}}"),
        ],
        unit="none",
        decimals=0,
        every="5m",
        bars=True,
        stacked=True,
        nothing=NONE,
    )
