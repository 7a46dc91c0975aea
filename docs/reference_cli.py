"""The page of commands: every command, argument and option, from the functions behind the command line.

It reads the functions' signatures and what ``typer.Option`` and ``typer.Argument`` say in them, not what typer makes
of these, because that changes from one version of typer to the next.
"""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from beamsieve.stream.__main__ import app
from typer.models import ArgumentInfo, OptionInfo

_HEAD = """# Commands

*Written from the code by `make docs`; do not edit.*

`beamsieve --help` and `beamsieve COMMAND --help` say the same. Exit codes of the daemon: 0 drained, 1 a bug or a
resource that is not there, 2 a wrong configuration; see [Operate](../howto/operate.md).
"""
_WORDS = {str: "text", int: "int", float: "float", Path: "path"}


def cli() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(names, function) for names, function in commands(app, ("beamsieve",)))])


def commands(group: typer.Typer, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Every command below ``group``: its words, and the function behind it."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        yield (*names, name), command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, (*names, str(inner.name)))


def _section(names: Sequence[str], function: Callable[..., Any]) -> str:
    hints = typing.get_type_hints(function, include_extras=True)
    rows, arguments = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = typing.get_args(hints[name])
        if isinstance(info, ArgumentInfo):
            word = name.upper() + ("..." if _items(kind) else "")
            arguments.append(word if parameter.default is parameter.empty else f"[{word}]")
            rows.append(_row(word, kind, info, parameter.default))
        else:
            rows.append(_row(", ".join(f"`{word}`" for word in _words(name, info)), kind, info, parameter.default))
    usage = " ".join([*names, *arguments, "[OPTIONS]"])
    lines = [f"## `{' '.join(names)}`\n", f"```\n{usage}\n```\n", *_paragraphs(function.__doc__ or "")]
    return "\n".join([*lines, "| option | value | default | what it is |", "|---|---|---|---|", *rows, ""])


def _words(name: str, info: OptionInfo) -> Sequence[str]:
    """How an option is written. Within ``Annotated`` the first word given to ``typer.Option`` is its ``default``."""
    first = [info.default] if isinstance(info.default, str) else []
    return [*first, *(info.param_decls or ())] or [f"--{name.replace('_', '-')}"]


def _paragraphs(text: str) -> Iterator[str]:
    for part in inspect.cleandoc(text).split("\n\n"):
        yield " ".join(part.split()).replace("``", "`") + "\n"


def _row(name: str, kind: Any, info: OptionInfo | ArgumentInfo, default: Any) -> str:
    several = _items(kind) and isinstance(info, OptionInfo)
    limits = [f"{sign} {limit}" for sign, limit in (("≥", info.min), ("≤", info.max)) if limit is not None]
    value = ", ".join([_in_words(kind), *limits, *(["repeatable"] if several else [])])
    cells = (name, value, _default(default), (info.help or "").strip())
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _items(kind: Any) -> Any:
    """The type of each value where several may be given, else None."""
    for part in (kind, *typing.get_args(kind)):
        if typing.get_origin(part) is list:
            return typing.get_args(part)[0]
    return None


def _in_words(kind: Any) -> str:
    kind = _items(kind) or kind
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        return " or ".join(_in_words(part) for part in typing.get_args(kind) if part is not types.NoneType)
    if kind is bool:
        return "flag"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f"`{choice.value}`" for choice in kind)
    return _WORDS.get(kind, str(kind))


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "**required**"
    if value is None or value is False or value == "":
        return ""
    plain = value.value if isinstance(value, enum.Enum) else value.as_posix() if isinstance(value, Path) else value
    return f"`{plain:g}`" if isinstance(plain, float) else f"`{plain}`"
