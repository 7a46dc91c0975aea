"""The page of settings: every block and field of a configuration, from its pydantic models."""

from __future__ import annotations

import builtins
import enum
import json
import types
import typing
from collections import abc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

UNITS = {
    "ms": "ms",
    "s": "s",
    "mb": "MB (10⁶ bytes)",
    "gb": "GB (10⁹ bytes)",
    "px": "pixels",
    "a": "Å",
    "photons": "photons",
    "adu_per_photon": "ADU/photon",
    "adu_per_kev": "ADU/keV",
    "adu": "ADU",
    "kev": "keV",
    "sigmas": "standard deviations",
}
_WORDS: Mapping[Any, str] = {
    types.NoneType: "null",
    int: "int",
    float: "float",
    str: "text",
    bool: "true or false",
    Path: "path",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}
_HEAD = """# Settings of `{title}`

*Written from the code by `make docs`; do not edit.*

A configuration is a YAML file of the blocks below. A word that is not here is refused, with the line it stands on.
Units are in the names. Relative names of constants, geometries, keys, recordings, the files' directory and a bundle
given by its path start at the folder of the configuration. `beamsieve check FILE` tells all mistakes at once,
`beamsieve run FILE --set block.field=value` changes a setting for one run, and
[`{title}.schema.json`]({title}.schema.json) lets an editor complete and check while you type.
"""


def settings(model: type[BaseModel]) -> str:
    """The whole page for a beamline's settings."""
    title = typing.get_args(model.model_fields["beamline"].annotation)[0]
    parts = [_HEAD.format(title=title), *_sections(model, "", f"The blocks of `{title}`", set())]
    return "\n".join(parts)


def _sections(model: type[BaseModel], path: str, title: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    """One section per block, outermost first; a block that several kinds share is described once."""
    if (path, model.__name__) in seen:
        return
    seen.add((path, model.__name__))
    yield _section(model, path, title)
    for name, field in model.model_fields.items():
        inner = f"{path}.{name}" if path else name
        blocks = blocks_in(field.annotation)
        twins = [other for other, its in model.model_fields.items() if blocks and blocks_in(its.annotation) == blocks]
        if name in twins[1:]:
            continue  # described with the first of them
        for block in blocks:
            kind = kind_of(block) if len(blocks) > 1 else None
            if path and kind is not None and {base.__name__ for base in block.__mro__} & {known for _, known in seen}:
                continue  # a replay's stream is a source, which has its section
            alike = ", ".join(f"`{path}.{twin}`" for twin in twins) if len(twins) > 1 else f"`{inner}`"
            heading = f"`{inner}` with `kind: {kind}`" if kind else alike
            yield from _sections(block, inner, heading, seen)


def _section(model: type[BaseModel], path: str, title: str) -> str:
    lines = [f"## {title}\n", f"{code_to_markdown(model.__doc__ or '')}\n"]
    lines += ["| field | type | default | unit | what it is |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        row = (f"`{name}`", typed(field, f"{path}.{name}" if path else name), default(field), unit(name), said(field))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def code_to_markdown(docstring: str) -> str:
    """A docstring's first paragraph, with Markdown's marks for code."""
    return " ".join(docstring.strip().split("\n\n")[0].split()).replace("``", "`")


def said(field: FieldInfo) -> str:
    """A field's description, such that Markdown shows it as it is."""
    return (field.description or "").strip().removesuffix(".").replace("*", "\\*").replace("<", "&lt;")


def unit(name: str) -> str:
    """The unit a field's name ends in, or nothing."""
    return next((word for end, word in UNITS.items() if name == end or name.endswith(f"_{end}")), "")


def default(field: FieldInfo) -> str:
    """What holds where a configuration says nothing, as YAML would have it."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        # A block may be given other defaults here than its kind has elsewhere.
        other = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{json.dumps(other, ensure_ascii=False)}`" if other else "as below"
    plain = json.dumps(value, ensure_ascii=False, default=lambda other: getattr(other, "value", str(other)))
    return f"`{plain}`"


def typed(field: FieldInfo, path: str) -> str:
    """A field's type in words, with its limits."""
    blocks = blocks_in(field.annotation)
    if blocks:
        kinds = [kind for block in blocks if (kind := kind_of(block)) is not None] if len(blocks) > 1 else []
        found = f"block `{path}`" + (f", by `kind`: {', '.join(kinds)}" if kinds else "")
        return found + (" or null" if types.NoneType in typing.get_args(field.annotation) else "")
    limits = [
        f"{sign} {getattr(rule, word):g}"
        for rule in field.metadata
        for word, sign in _SIGNS.items()
        if getattr(rule, word, None) is not None
    ]
    return ", ".join([in_words(field.annotation), *limits])


def in_words(annotation: Any) -> str:
    """A type annotation for people who write YAML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        origin, arguments = typing.Literal, tuple(choice.value for choice in annotation)
    match origin:
        case typing.Literal:
            return ", ".join(f"`{choice}`" for choice in arguments)
        case typing.Union | types.UnionType:
            return " or ".join(map(in_words, arguments))
        case builtins.tuple if arguments[1:] == (...,):
            return f"list of {in_words(arguments[0])}"
        case builtins.tuple:
            return f"[{', '.join(map(in_words, arguments))}]"
        case abc.Mapping:
            return f"mapping of {in_words(arguments[0])} to {in_words(arguments[1])}"
    return _WORDS.get(annotation, str(annotation))


def blocks_in(annotation: Any) -> list[type[BaseModel]]:
    """The blocks of settings that a field can hold."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [block for part in typing.get_args(annotation) for block in blocks_in(part)]


def kind_of(block: type[BaseModel]) -> str | None:
    """The word that chooses this block among several, if it is one of several."""
    field = block.model_fields.get("kind")
    chosen = None if field is None else field.get_default()
    return None if chosen is PydanticUndefined or chosen is None else str(chosen)
