"""The dashboard of a session on tomograms: what is found, whether it still looks the same, and the work on it."""

from __future__ import annotations

from . import tomograms
from .board import Board, Row
from .micrographs import oldest, waiting


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="beamsieve-cryoet",
        title="beamsieve: cryo-ET session",
        about="Sub-volumes by class, drift, clusters, waiting files and speed of one microscope's daemon.",
        rows=[
            Row("Now", tomograms.now()),
            Row("Tomograms", [tomograms.subvolumes(), tomograms.voxels(), tomograms.error(), tomograms.clusters()]),
            Row(
                "Files and work",
                [
                    tomograms.outcomes(),
                    tomograms.seconds(),
                    tomograms.background(),
                    waiting(),
                    oldest("2 hours", "BeamsieveNoTomograms"),
                ],
            ),
        ],
        beamline="cryoet_mining",
        since="now-12h",
        links=(
            ("Fleet of daemons", "/d/beamsieve-fleet?${datasource:queryparam}"),
            (
                "This daemon's internals",
                "/d/beamsieve-daemon?${datasource:queryparam}&${instrument:queryparam}&${daemon:queryparam}",
            ),
        ),
    )
