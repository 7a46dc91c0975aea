"""``groups.yaml``: which clusters a person marked. Meant to be edited by hand, and by commands and the page as well."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .groups import KINDS, MOST, Group, Groups, GroupsError, mistakes_in
from .whole import write_whole

NAME = "groups.yaml"
Place: TypeAlias = tuple[str | int, ...]

FIELDS = ("name", "kind", "clusters", "colour")
_HEADER = f"""\
# Groups of clusters, as a person named them: look at clusters.png, and write the numbers of those that show the same.
# A tomogram's label volume has 0 where nothing is, 1 for the first group here, 2 for the second, and so on.
#
#   groups:
#     - {{name: membrane, kind: surface, clusters: [3, 7], colour: "#e6c229"}}
#     - {{name: ribosome-like, kind: globule, clusters: [12]}}
#
# name: up to 40 letters, digits, spaces and . + - _; it becomes part of file names. kind: {", ".join(KINDS)}.
# A cluster is in one group at most; at most {MOST} groups. Numbers of clusters stay when they are made anew.
# A daemon takes what is saved here within seconds. The page and `beamsieve cluster tomograms --mark` write the file
# anew, with this text, and then comments of your own are gone.
"""


def read_groups(path: Path) -> Groups:
    """The groups of a file; none where there is no file.

    Raises ``GroupsError`` with every mistake, each with file, line and remedy, and ``OSError``.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Groups()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise GroupsError([f"{path}:{line}: not UTF-8 text; save it as UTF-8"]) from None
    return parse_groups(text, str(path))


def write_groups(path: Path, groups: Groups) -> None:
    """Write the file as a whole, with a header that explains it. Raises ``OSError``."""
    write_whole(path, groups_text(groups).encode())


def groups_text(groups: Groups) -> str:
    """The contents of ``groups.yaml``."""
    if not groups.groups:
        return _HEADER + "groups: []\n"
    rows = [
        f"  - {{name: {_scalar(g.name)}, kind: {g.kind}, clusters: {list(g.clusters)}, "
        f"colour: {json.dumps(g.colour)}}}\n"
        for g in groups.groups
    ]
    return _HEADER + "groups:\n" + "".join(rows)


def _scalar(name: str) -> str:
    """A name as YAML has it: quoted where it would be read as a number, a date or a truth value."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) and name.lower() not in {
        *("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    }
    return name if plain else json.dumps(name, ensure_ascii=False)


def parse_groups(text: str, file: str = NAME) -> Groups:
    """The groups of a text. ``file``: what mistakes name. Raises ``GroupsError`` as ``read_groups``."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise GroupsError([f"{where}: not YAML: {why}; the lines above `groups:` show how it is written"]) from None
    reader = _Reader()
    found = list(reader.groups(node))
    # Groups of which something could not be read would be told of a second time.
    wrong = reader.mistakes or mistakes_in(found)
    if wrong:
        raise GroupsError([f"{file}:{reader.line(place)}: {_called(place)}{what}" for place, what in wrong])
    return Groups(tuple(found))


def _called(place: Place) -> str:
    return f"{'.'.join(map(str, place))}: " if place else ""


class _Reader:
    """YAML's nodes as groups, with the line of each value and what is wrong with them."""

    def __init__(self) -> None:
        self.mistakes: list[tuple[Place, str]] = []
        self._lines: dict[Place, int] = {(): 1}

    def line(self, place: Place) -> int:
        """The line, from 1, that the value stands on, or what it stands in."""
        while place not in self._lines:
            place = place[:-1]
        return self._lines[place]

    def groups(self, node: Any) -> Iterator[Group]:
        if node is None:
            return
        top = self._mapping(node, (), ("groups",))
        rows = top.get("groups")
        if rows is None or rows.tag.endswith(":null"):
            return
        for at, row in enumerate(self._list(rows, ("groups",))):
            group = self._group(row, ("groups", at))
            if group is not None:
                yield group

    def _group(self, node: Any, place: Place) -> Group | None:
        before = len(self.mistakes)
        fields = self._mapping(node, place, FIELDS)
        if len(self.mistakes) == before and "name" not in fields:
            self.mistakes.append((place, "has no name; add name: membrane, or what it shows"))
        texts = {f: self._text(fields[f], (*place, f)) for f in ("name", "kind", "colour") if f in fields}
        numbers = self._numbers(fields["clusters"], (*place, "clusters")) if "clusters" in fields else ()
        if len(self.mistakes) > before:
            return None
        kind: Any = texts.get("kind") or "other"
        return Group(texts["name"], kind, numbers, texts.get("colour", ""))

    def _numbers(self, node: Any, place: Place) -> tuple[int, ...]:
        if node.tag.endswith(":null"):
            return ()
        found = []
        for i, item in enumerate(self._list(node, place)):
            self._lines[(*place, i)] = item.start_mark.line + 1
            if item.tag.endswith(":int") and re.fullmatch(r"[+-]?[0-9]{1,9}", item.value):
                found.append(int(item.value))
            else:
                given = getattr(item, "value", "") if isinstance(getattr(item, "value", ""), str) else "a list"
                self.mistakes.append(((*place, i), f"{given!r} is no number of a cluster; write such as [3, 7, 12]"))
        return tuple(found)

    def _text(self, node: Any, place: Place) -> str:
        if isinstance(node.value, str):
            return str(node.value)
        self.mistakes.append((place, "is a list; write a word"))
        return ""

    def _list(self, node: Any, place: Place) -> list[Any]:
        if isinstance(node.value, list) and node.tag.endswith(":seq"):
            return node.value
        self.mistakes.append((place, "a list is expected; write such as [3, 7, 12], or a line with - for each group"))
        return []

    def _mapping(self, node: Any, place: Place, known: tuple[str, ...]) -> Mapping[str, Any]:
        self._lines[place] = node.start_mark.line + 1
        if not node.tag.endswith(":map"):
            wanted = "groups: and a list of them" if not place else "{name: membrane, kind: surface, clusters: [3, 7]}"
            self.mistakes.append((place, f"cannot be read; write {wanted}"))
            return {}
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            self._lines.setdefault((*place, name), key.start_mark.line + 1)
            if name not in known:
                close = difflib.get_close_matches(name, known, 1, 0.6)
                remedy = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
                self.mistakes.append(((*place, name), f"unknown; {remedy}"))
            elif name in found:
                self.mistakes.append(((*place, name), "said twice; keep one"))
            found[name] = value
        return found
