"""Write the reference from the code: ``python -m docs.generate`` (``make docs``); ``--check`` only compares.

``settings-<beamline>.md`` and ``<beamline>.schema.json`` come from the settings' pydantic models, ``metrics.md`` from
``Metrics`` that have seen one of each fact, ``cli.md`` from the command line. The same code gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from beamsieve.stream.commands.run import BEAMLINES, settings_of

from .reference_cli import cli
from .reference_metrics import metrics
from .reference_settings import settings

FOLDER = Path(__file__).parent / "reference"


def schema(beamline: str) -> str:
    """The JSON schema of a beamline's configuration, as ``beamsieve schema`` prints it."""
    return json.dumps(settings_of(beamline).model_json_schema(), indent=2) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    **{f"settings-{name}.md": partial(lambda name: settings(settings_of(name)), name) for name in BEAMLINES},
    "metrics.md": metrics,
    "cli.md": cli,
    **{f"{name}.schema.json": partial(schema, name) for name in BEAMLINES},
}


def stale(folder: Path = FOLDER) -> list[str]:
    """The pages in ``folder`` that are not what the code says now."""
    return [
        name
        for name, make in PAGES.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != make()
    ]


def main(arguments: list[str]) -> int:
    """Write every page, or with ``--check`` say which are out of date; returns the exit code."""
    if "--check" in arguments:
        old = stale()
        for name in old:
            sys.stderr.write(f"{FOLDER / name}: not what the code says; run `make docs`\n")
        return 1 if old else 0
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
