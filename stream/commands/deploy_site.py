"""What every part of a deployment is made from: the site, the templates, and how they are filled in.

Templates say ``@NAME@`` where something is filled in: ``${NAME}`` belongs to the shell, to compose and to Grafana.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ... import __version__
from .deploy_configs import Daemon, dns

TEMPLATES = resources.files("beamsieve.deploy")
BLANK = re.compile(r"@([A-Z][A-Z_]*)@")
MARGIN_S = 10
IN_CONTAINER = 10001


@dataclass(frozen=True, slots=True)
class Site:
    """Where and as whom the daemons run. ``beamsieve`` is the command's words, quoted; ``python`` its interpreter.

    ``below_home``: something the daemons need lies below /home or /root. ``owner`` is the (user, group) of what
    containers write, as numbers.
    """

    folder: Path
    data: Path
    configs: Path
    beamsieve: str
    python: str
    user: str
    group: str
    owner: tuple[int, int]
    instrument: str
    below_home: bool
    daemons: tuple[Daemon, ...]

    def written(self, one: Daemon) -> list[Path]:
        """The folders a daemon writes in: the site's, and what its configuration names outside of that."""
        return [self.data, *(path for path in one.writes if not path.is_relative_to(self.data))]

    def only_read(self, one: Daemon) -> list[Path]:
        """The folders a daemon reads in and does not write in."""
        found = self.written(one)
        first = len(found)
        for path in sorted(one.reads):  # a folder comes before those in it
            if not any(path.is_relative_to(folder) for folder in found):
                found.append(path)
        return found[first:]

    def with_homes(self, homes: Sequence[Path]) -> Site:
        """The same, knowing whether anything the daemons need lies in a folder that a unit may hide."""
        program = Path(shlex.split(self.beamsieve)[0])
        needed = [program, program.resolve(), self.data, self.configs]
        needed += [path for one in self.daemons for path in (*one.writes, *one.reads)]
        if program.parent == Path(sys.executable).parent:  # this installation: where its interpreter and its code are
            needed += [Path(sys.base_prefix), Path(__file__)]
        return replace(self, below_home=any(path.is_relative_to(home) for path in needed for home in homes))


@dataclass(frozen=True, slots=True)
class File:
    """One file to write. ``secret``: only its owner reads it, and one that is there already is kept."""

    text: str
    secret: bool = False
    program: bool = False


def fill(template: str, names: Mapping[str, Any]) -> str:
    """The template with its blanks filled in; raises ``KeyError`` for one that nothing is known for."""
    return BLANK.sub(lambda found: str(names[found[1]]), template)


def template(name: str) -> str:
    """The text of a template."""
    return TEMPLATES.joinpath(name).read_text(encoding="utf-8")


def copied(part: str) -> Iterator[tuple[str, File]]:
    """Everything that ships below a folder, as it is, but for code."""
    for name, entry in _walk(TEMPLATES.joinpath(part), part):
        if not name.endswith((".py", ".pyc")):
            yield name, File(entry.read_text(encoding="utf-8"))


def _walk(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{name}/{entry.name}")
        else:
            yield f"{name}/{entry.name}", entry


def stop_s(one: Daemon) -> int:
    """Seconds a manager should wait for a daemon that was told to stop."""
    return int(one.grace_s) + 1 + MARGIN_S


def names(site: Site) -> dict[str, Any]:
    """What is filled in everywhere."""
    return {
        "BEAMSIEVE": site.beamsieve,
        "PYTHON": site.python,
        "CONFIG_DIR": site.configs,
        "DATA": site.data,
        "USER": site.user,
        "GROUP": site.group,
        "INSTRUMENT": site.instrument,
        "VERSION": __version__,
    }


def own(one: Daemon) -> dict[str, Any]:
    """What is filled in for one daemon."""
    return {
        "NAME": one.name,
        "SERVICE": dns(one.name),
        "BEAMLINE": one.beamline,
        "PORT": one.port,
        "STOP_S": stop_s(one),
    } | ({"INSTRUMENT": one.instrument} if one.instrument else {})
