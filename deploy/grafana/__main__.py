"""``python -m beamsieve.deploy.grafana`` writes the dashboards; ``--check`` says which are not what the code says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from . import cryoem_session, cryoet_session, fleet, one_daemon, xfel_run
from .board import text_of

FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> Mapping[str, str]:
    """The text of each file."""
    boards = {
        "xfel-run": xfel_run.board(),
        "cryoem-session": cryoem_session.board(),
        "cryoet-session": cryoet_session.board(),
        "fleet": fleet.board(),
        "daemon": one_daemon.board(),
    }
    return {f"{name}.json": text_of(board) for name, board in boards.items()}


def stale(folder: Path = FOLDER) -> list[str]:
    """The files in ``folder`` that are not what the code says now."""
    return [
        name
        for name, text in dashboards().items()
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write, or compare; the exit code is 1 where a file differs, or what is asked is not understood."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m beamsieve.deploy.grafana [--check]", file=sys.stderr)  # noqa: T201
        return 2
    old = stale()
    for name in old:
        if arguments:
            print(f"{name} is not what the code says: python -m beamsieve.deploy.grafana", file=sys.stderr)  # noqa: T201
        else:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(dashboards()[name], encoding="utf-8")
    return 1 if arguments and old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
