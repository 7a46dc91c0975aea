"""Settings: pydantic models read from YAML, all mistakes at once, each with its file, line, field and remedy."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

Place = tuple[str | int, ...]
MAX_DEPTH = 20
_BOOL, _TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"


class Settings(BaseModel):
    """The base of every block of settings: unknown words are mistakes, and settings never change while running."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


class ConfigError(Exception):
    """A configuration that cannot be used. ``mistakes`` holds one line each: file, line, field, what, remedy."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = list(mistakes)


class Where:
    """Where each setting stands, for mistakes found after the settings were read: ``file:line: field: ``."""

    def __init__(self, path: Path, lines: Mapping[Place, int] | None = None) -> None:
        self.path = path
        self._lines = lines or {}

    @property
    def base(self) -> Path:
        """The file's folder, which relative names in it start at."""
        return self.path.parent

    def __call__(self, *place: str | int) -> str:
        """The start of a message about the setting at ``place``."""
        at: Place = place
        while at and at not in self._lines:
            at = at[:-1]
        return f"{self.path}:{self._lines.get(at, 1)}: {'.'.join(map(str, place))}: "


def load(path: Path, model: type[S]) -> tuple[S, Where]:
    """Read a YAML file into ``model``; raises ``ConfigError`` with every mistake in it."""
    data, lines = read_yaml(path)
    return check(data, model, str(path), lines), Where(path, lines)


def read_yaml(path: Path) -> tuple[Any, dict[Place, int]]:
    """The file's plain data and the line each field stands on (1-based). Raises ``ConfigError``."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; name an existing YAML file"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text (byte {error.start}); name a YAML file"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError([f"{path}:{line}: not YAML: {error.problem or error.context}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: not YAML: {error}"]) from None
    lines: dict[Place, int] = {}
    mistakes = list(_walk(node, (), lines, str(path))) if node else []
    if mistakes:
        raise ConfigError(mistakes)
    return (yaml.SafeLoader.construct_document(_Quiet(), node) if node else {}), lines


class _Quiet(yaml.SafeLoader):
    def __init__(self) -> None:
        super().__init__("")


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int], file: str) -> Iterator[str]:
    lines.setdefault(place, node.start_mark.line + 1)
    if len(place) > MAX_DEPTH:
        yield f"{file}:{node.start_mark.line + 1}: nested more than {MAX_DEPTH} deep; does an anchor hold itself?"
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if key.tag == _BOOL:
                # YAML 1.1 takes on, off, yes and no for truth values, also where they are the name of a setting.
                key.tag = _TEXT
            if name in seen:
                where = ".".join(map(str, (*place, name)))
                yield f"{file}:{line}: {where}: said twice, first in line {seen[name]}; keep one"
            seen[name] = line
            lines[(*place, name)] = line
            yield from _walk(value, (*place, name), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _walk(value, (*place, i), lines, file)


def check(data: Any, model: type[S], file: str, lines: Mapping[Place, int] | None = None) -> S:
    """Validate plain data; raises ``ConfigError`` with every mistake, in the order of the file's lines."""
    if not isinstance(data, dict):
        raise ConfigError([f"{file}:1: a list of settings is expected, name: value; this is {type(data).__name__}"])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = [_explain(mistake, model, file, lines or {}) for mistake in error.errors()]
        raise ConfigError([text for _, text in sorted(found)]) from None


def _explain(mistake: Any, model: type[Settings], file: str, lines: Mapping[Place, int]) -> tuple[int, str]:
    place = tuple(mistake["loc"])
    # A discriminated union puts the chosen kind into the location: it is no field of the file.
    known = set(lines)
    shown = place if place in known else _without_tags(place, known, model)
    at = shown
    while at and at not in known:
        at = at[:-1]
    line = lines.get(at, 1)
    field = ".".join(map(str, shown)) or "the file"
    kind = mistake["type"]
    if kind == "extra_forbidden":
        names = _fields_at(model, place[:-1])
        close = difflib.get_close_matches(str(place[-1]), names, 1, 0.6)
        what = f"unknown; did you mean {close[0]}?" if close else f"unknown; known here: {', '.join(sorted(names))}"
    elif kind == "missing":
        what = f"missing; add it{_describe(model, place)}"
    elif kind in {"union_tag_invalid", "union_tag_not_found"}:
        given = mistake["ctx"].get("tag")
        wanted = ", ".join(_tags_at(model, place))
        close = difflib.get_close_matches(str(given), wanted.split(", "), 1, 0.6)
        field = f"{field}.kind"
        line = lines.get((*shown, "kind"), line)
        what = f"missing; one of {wanted}" if given is None else f"{given!r} is not one of {wanted}"
        what += f"; did you mean {close[0]}?" if close else ""
    else:
        text = str(mistake["msg"])
        text = text[len("Value error, ") :] if text.startswith("Value error, ") else text[0].lower() + text[1:]
        given = mistake.get("input")
        short = f" (given {given!r})" if isinstance(given, str | int | float | bool) else ""
        what = f"{text}{short}{_describe(model, place)}"
    return line, f"{file}:{line}: {field}: {what}"


def _without_tags(place: Place, known: set[Place], model: type[BaseModel]) -> Place:
    shown: Place = ()
    for part in place:
        if (*shown, part) in known or part not in _tags_at(model, shown):
            shown = (*shown, part)
    return shown


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType, typing.Annotated, list, tuple, dict}:
        return [found for part in typing.get_args(annotation) for found in _models_in(part)]
    return []


def _candidates(model: type[BaseModel], place: Place) -> list[type[BaseModel]]:
    models: list[type[BaseModel]] = [model]
    for part in place:
        inner = [
            found
            for each in models
            if part in each.model_fields
            for found in _models_in(each.model_fields[str(part)].annotation)
        ]
        # A part that is no field is the tag of a discriminated union: keep the model whose ``kind`` it is.
        tagged = [
            m for m in models if "kind" in m.model_fields and part in typing.get_args(m.model_fields["kind"].annotation)
        ]
        models = inner or tagged or models
    return models


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    return sorted({name for found in _candidates(model, place) for name in found.model_fields})


def _tags_at(model: type[BaseModel], place: Place) -> list[str]:
    tags: list[str] = []
    for found in _candidates(model, place):
        if "kind" in found.model_fields:
            tags += map(str, typing.get_args(found.model_fields["kind"].annotation))
    return tags


def _describe(model: type[BaseModel], place: Place) -> str:
    for found in _candidates(model, place[:-1]):
        field = found.model_fields.get(str(place[-1])) if place else None
        if field is not None and field.description:
            return f": {field.description}"
    return ""
