"""``beamsieve status|retry``: what became of the files of a watched folder, and trying again those that failed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ..flow.settings import read_yaml
from ..sources.folder.database import JournalError, recognise
from ..sources.folder.patterns import Test, compile_globs
from ..sources.folder.report import File, Report, put_back, report
from .run import SHIPPED, config_errors, find, write_json

T = TypeVar("T")
NAME = "journal.sqlite"
_YAML = {".yaml", ".yml"}
_ORDER = ("done", "claimed", "waiting", "failed", "set_aside", "ignored")
_WORDS = {
    "done": "done",
    "claimed": "in work",
    "waiting": "given back",
    "failed": "to be tried again",
    "set_aside": "set aside",
    "ignored": "ignored (there before)",
}

Where = Annotated[str, typer.Argument(help="a journal, the folder it lies in, or the configuration of its daemon")]


def status(
    where: Where,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write it as JSON to this file; - for standard output")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="most files to list of each kind")] = 10,
) -> None:
    """Say what became of the files of a watched folder: done, in work, waiting and why, set aside and why.

    Reads the journal beside a running daemon and changes nothing. Exit code 1 where it cannot be read.
    """
    found = _or_exit(lambda: report(journal_of(where), limit))
    if json_file == Path("-"):
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    if json_file is not None:
        write_json(json_file, dataclasses.asdict(found))
        return
    _print(Console(highlight=False), found)


def retry(
    where: Where,
    names: Annotated[list[str] | None, typer.Argument(help="files to try again, or patterns such as '*_0012*'")] = None,
    every: Annotated[bool, typer.Option("--all", help="all that were set aside or failed")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="only those that failed for this reason")] = None,
) -> None:
    """Put back files that were set aside or failed, to be tried again as if they were new.

    A running daemon takes them in its next look, another at its next start. Exit code 2 where no file is meant.
    """
    if not names and not every and reason is None:
        typer.echo("retry: name the files, or a --reason, or give --all; beamsieve status lists them", err=True)
        raise typer.Exit(2)
    path = _or_exit(lambda: journal_of(where))
    wanted = _test(names) if names else None
    back = _or_exit(lambda: put_back(path, wanted, reason))
    for name in back:
        typer.echo(_printable(name))
    if not back and (names or reason):
        typer.echo(f"{path}: no file of that name or reason is set aside or failed; see beamsieve status", err=True)
        raise typer.Exit(2)
    typer.echo(f"{len(back)} files are tried again", err=True)


def _test(names: Sequence[str]) -> Test:
    """Whether a file is meant: by its whole name, its last part, or a pattern of either."""
    exact, globs = set(names), []
    for name in names:
        try:
            compile_globs((name, f"**/{name}"))
        except ValueError:
            continue  # no pattern, but perhaps a name: they may hold anything
        globs += [name, f"**/{name}"]
    matches = compile_globs(globs)
    return lambda name: name in exact or name.rpartition("/")[2] in exact or matches(name)


def journal_of(where: str) -> Path:
    """The journal that is meant: a file, one in or right below a folder, or that of a configuration.

    Raises ``JournalError`` where there is none, or more than one.
    """
    path = Path(where)
    if path.suffix in _YAML or where in SHIPPED:
        return _of_config(where)
    if not path.exists():
        raise JournalError(f"{path}: no such file; name a journal, the folder it lies in, or a configuration")
    if path.is_file():
        recognise(path)
        return path
    found = (
        [path / NAME] if (path / NAME).is_file() else sorted(path.glob("*.sqlite")) or sorted(path.glob(f"*/{NAME}"))
    )
    if len(found) == 1:
        return found[0]
    several = f"several journals, {', '.join(file.name for file in found[:5])}" if found else "no journal in it"
    raise JournalError(f"{path}: {several}; name the file, such as {NAME} where the daemon writes its files")


def _of_config(where: str) -> Path:
    with config_errors():
        config = find(where)
        data, _ = read_yaml(config)
    base = config.parent if Path(where).exists() else Path.cwd()
    blocks = data if isinstance(data, dict) else {}

    def named(block: str, field: str) -> Path | None:
        inner = blocks.get(block)
        value = inner.get(field) if isinstance(inner, dict) else None
        return base / value if isinstance(value, str) else None

    files = named("files", "directory")
    path = named("source", "journal") or (files and files / NAME)
    if path is None:
        raise JournalError(f"{config}: names no journal (source.journal) and no files.directory; name the journal")
    if not path.is_file():
        raise JournalError(f"{path}: no journal there yet; has the daemon of {config} been started?")
    return path


def _or_exit(work: Callable[[], T]) -> T:
    try:
        return work()
    except JournalError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


# --- printing ----------------------------------------------------------------------------------------------------


def _print(console: Console, found: Report) -> None:
    about = found.about
    console.print(Text(f"{about.get('session', '?')}: {about.get('directory', '?')}  (journal {found.path})"))
    console.print(
        ", ".join(f"{found.counts[state]} {_WORDS[state]}" for state in _ORDER if found.counts[state]) or "no file yet"
    )
    for daemon in found.daemons:
        alive = {True: "runs", False: "is gone: its files are taken over", None: "is on another host"}[daemon.alive]
        beat = f"gave a sign of life {_time(daemon.beat_s)} ago" if daemon.alive is not False else ""
        console.print(
            Text(f"process {daemon.pid} on {daemon.host} {alive}, {daemon.in_work} files in work; {beat}".rstrip("; "))
        )
    if not found.daemons:
        console.print("no daemon works on it now")
    total = sum(found.waits.values())
    why = ", ".join(f"{n} {reason}" for reason, n in sorted(found.waits.items(), key=lambda item: -item[1]))
    _table(console, f"{total} not complete yet: {why}", found.waiting, ("why", "for", "detail"), _why)
    _table(console, "in work", found.in_work, ("for", "by"), lambda file: (_time(file.for_s), file.who))
    _table(console, "failed, tried again", found.to_retry, ("why", "for", "detail"), _why)
    _table(console, "set aside (beamsieve retry puts them back)", found.set_aside, ("why", "for", "detail"), _why)
    _table(console, "done last", found.done, ("ago", "numbers", "accepted in doubt"), _result)


def _table(
    console: Console,
    title: str,
    files: Sequence[File],
    columns: Sequence[str],
    cells: Callable[[File], Sequence[str]],
) -> None:
    if not files:
        return
    # Names are folded, never cut: EPU's differ at their end, and retry takes the whole.
    table = Table(
        Column("file", overflow="fold"), *columns, title=title, title_justify="left", box=None, pad_edge=False
    )
    for file in files:
        name = f"{file.name} (revision {file.revision})" if file.revision else file.name
        table.add_row(*(Text(_printable(cell)) for cell in (name, *cells(file))))
    console.print()
    console.print(table)


def _why(file: File) -> Sequence[str]:
    tried = f" ({file.attempts} attempts)" if file.attempts else ""
    return (file.reason + tried, _time(file.for_s), file.detail)


def _result(file: File) -> Sequence[str]:
    return (_time(file.for_s), _numbers(file.numbers), " ".join(file.flags))


def _numbers(numbers: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )


def _time(seconds: float) -> str:
    """A duration in its largest unit but one: ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    left = max(0, round(seconds))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        n, left = divmod(left, size)
        if n or parts:
            parts.append(f"{n} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _printable(text: str) -> str:
    """A name as it may be printed: what would move the cursor or hide text is shown as its code."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
