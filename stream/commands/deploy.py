"""``beamsieve deploy``: units, containers, rules, dashboards and batch files for a site, from the installed package."""

from __future__ import annotations

import difflib
import os
import pwd
import re
import shlex
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..flow.settings import ConfigError
from .deploy_configs import daemons
from .deploy_files import NEEDS, PARTS, files
from .deploy_site import IN_CONTAINER, File, Site
from .deploy_steps import notes, steps
from .run import BEAMLINES, SHIPPED, config_errors

PLAIN = re.compile(r"[\w./+=,-]+")
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
MOST_NAMED = 5

Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config", help=f"YAML file, or one that ships ({', '.join(SHIPPED)}); default: {', '.join(BEAMLINES)}"
    ),
]


def deploy(
    directory: Annotated[Path, typer.Argument(help="folder to write to; made if it is missing")],
    config: Config = None,
    port: Annotated[
        list[int] | None, typer.Option("--port", min=1, max=65535, help="service.port, one for each --config")
    ] = None,
    user: Annotated[str, typer.Option("--user", help="whom the daemons run as")] = "beamsieve",
    data: Annotated[
        Path, typer.Option("--data", help="what configurations write to a relative folder goes below it")
    ] = Path("/var/lib/beamsieve"),
    config_dir: Annotated[Path, typer.Option("--config-dir", help="where units look for configurations")] = Path(
        "/etc/beamsieve"
    ),
    beamsieve: Annotated[
        Path | None, typer.Option("--beamsieve", help="the command that units and jobs start; default: this one")
    ] = None,
    instrument: Annotated[
        str | None,
        typer.Option("--instrument", help="label in Prometheus where files.instrument says none; default: the host"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help=f"parts to write, with commas or repeated: {', '.join(PARTS)}")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there; tokens and passwords stay")] = False,
) -> None:
    """Write what an installation needs around the daemons: units, containers, rules, dashboards, batch files.

    Everything goes into DIRECTORY with your paths filled in; nothing is installed or started. The commands to type next
    are printed, and kept in its README.md. Exit code 2: a wrong configuration or option, or files in the way.
    """
    with config_errors():
        parts = parts_of(only)
        command, python = executable(beamsieve)
        site = Site(
            folder=directory.absolute(),
            data=plain("--data", data),
            configs=plain("--config-dir", config_dir),
            beamsieve=command,
            python=python,
            user=user_name(user),
            group=_group(user),
            owner=_owner(user),
            instrument=instrument or socket.gethostname(),
            below_home=False,
            daemons=tuple(daemons(config or BEAMLINES, port or (), plain("--data", data))),
        )
        site = site.with_homes(HOMES)
        made = files(site, parts)
        made["README.md"] = File(_readme(site, parts))
        kept = _refuse(site.folder, made, force)
    written = _write(site.folder, {name: file for name, file in made.items() if name not in kept}, site.owner)
    _tell(site, parts, written, kept)


def parts_of(only: Sequence[str] | None) -> list[str]:
    """The parts that are meant, in their order; raises ``ConfigError``."""
    wanted = [word.strip() for words in only or () for word in words.split(",") if word.strip()]
    for word in wanted:
        if word not in PARTS:
            close = difflib.get_close_matches(word, PARTS, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError([f"--only {word}: unknown; {hint}known: {', '.join(PARTS)}"])
    return [part for part in PARTS if not wanted or part in wanted]


def plain(option: str, path: Path) -> Path:
    """The path, absolute, if units, shells and YAML take it as it is; raises ``ConfigError``."""
    found = Path(os.path.abspath(path))
    if not PLAIN.fullmatch(str(found)):
        raise ConfigError([f"{option} {found}: use letters, digits and . _ + = , - only, for units and scripts"])
    return found


def user_name(user: str) -> str:
    """The name if it can be one; raises ``ConfigError``."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", user):
        raise ConfigError([f"--user {user}: no name of a user; use a-z, 0-9, _ and -, and start with a letter"])
    return user


def executable(given: Path | None) -> tuple[str, str]:
    """The words that start beamsieve, and the interpreter; raises ``ConfigError`` where it cannot be started."""
    if given is None:
        python = Path(sys.executable)
        script = python.with_name("beamsieve")
        if os.access(script, os.X_OK):
            return str(plain("--beamsieve", script)), str(python)
        return f"{plain('--beamsieve', python)} -m beamsieve.stream", str(python)
    script = plain("--beamsieve", given)
    if not os.access(script, os.X_OK) or script.is_dir():
        raise ConfigError([f"--beamsieve {script}: is no program; name the beamsieve command of an installation"])
    beside = script.with_name("python")
    return str(script), str(beside) if beside.exists() else "/usr/bin/python3"


def _account(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def _group(user: str) -> str:
    import grp

    account = _account(user)
    try:
        return grp.getgrgid(account.pw_gid).gr_name if account else user
    except KeyError:
        return user


def _owner(user: str) -> tuple[int, int]:
    """Who owns what containers write: who deploys, because only root can give a secret to somebody else."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    account = _account(user)
    return (account.pw_uid, account.pw_gid) if account else (IN_CONTAINER, IN_CONTAINER)


# --- writing -----------------------------------------------------------------------------------------------------


def _refuse(folder: Path, made: Mapping[str, File], force: bool) -> set[str]:
    """The files that stay as they are; raises ``ConfigError`` for those in the way, unless ``force``."""
    kept, there = set(), []
    for name, file in made.items():
        path = folder / name
        if not path.exists():
            continue
        if file.secret or _same(path, file.text):
            kept.add(name)
        elif not force:
            there.append(name)
    if there:
        more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
        found = ", ".join(there[:MOST_NAMED]) + more
        raise ConfigError([f"{folder}: there already, and different: {found}; give --force, or another folder"])
    return kept


def _same(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _write(folder: Path, made: Mapping[str, File], owner: tuple[int, int]) -> list[str]:
    """Write each file beside its place and rename it there; where that is impossible, say so and exit with 1."""
    for name, file in made.items():
        path = folder / name
        beside = path.with_name(path.name + ".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o600 if file.secret else 0o755 if file.program else 0o644
            beside.unlink(missing_ok=True)
            # Made with its mode: a secret that anybody can read for a moment is none.
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
                os.fchmod(out.fileno(), mode)
                if file.secret and os.geteuid() == 0:
                    os.fchown(out.fileno(), *owner)
                out.write(file.text)
            beside.replace(path)
        except OSError as error:
            typer.echo(f"{path}: cannot be written: {error.strerror}; name another folder", err=True)
            raise typer.Exit(1) from None
    return list(made)


# --- telling -----------------------------------------------------------------------------------------------------


def _tell(site: Site, parts: Sequence[str], written: Iterable[str], kept: Iterable[str]) -> None:
    for name in sorted(written):
        typer.echo(site.folder / name)
    if kept:
        typer.echo(f"{len(set(kept))} files stay as they were", err=True)
    for note in notes(site, _all(parts)):
        typer.echo(f"note: {note}", err=True)
    for title, lines in steps(site, parts):
        typer.echo(f"\n{title}:")
        for line in lines:
            typer.echo(f"  {line}")


def _all(parts: Sequence[str]) -> list[str]:
    return [part for part in PARTS if part in parts or any(part in NEEDS.get(other, ()) for other in parts)]


def _readme(site: Site, parts: Sequence[str]) -> str:
    command = " ".join(["beamsieve deploy", shlex.quote(str(site.folder))])
    lines = [
        "# A deployment of beamsieve\n",
        f"Written by `{command} …`. Nothing is installed or started by that; these are the commands that do:\n",
    ]
    for title, commands in steps(site, parts):
        lines += [f"## {title}\n", "```sh", *commands, "```\n"]
    lines += ["## To look at first\n", *(f"- {note}" for note in notes(site, _all(parts)))]
    return "\n".join(lines) + "\n"
