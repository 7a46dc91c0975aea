"""Groups of clusters that a person named: which cluster is membrane, which ribosome-like. Label values follow them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Kind: TypeAlias = Literal["surface", "globule", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MOST = 20
LONGEST = 40
BACKGROUND = "background"
#: Names that mean something else in label volumes, file names and metrics.
RESERVED = frozenset({BACKGROUND, "unmarked", "other", "none", "labels", "probabilities", "con", "nul", "aux", "prn"})
#: Surfaces yellow and large globules red, as in the paper; further groups in colours that can be told apart on grey.
PALETTE: Mapping[Kind, tuple[str, ...]] = {
    "surface": ("#e6c229", "#f2913d", "#b8d936", "#c98b4a"),
    "globule": ("#e5484d", "#d667c9", "#ff8fa3", "#9b6bdf"),
    "other": (
        "#3ba7e0",
        "#4cc38a",
        "#8ab4f8",
        "#7ad7d0",
        "#a8b3a0",
        "#6e7fd1",
        "#5c9f8a",
        "#c0c6cc",
        "#a3a1e8",
        "#b0e0a8",
        "#e0b0a8",
        "#5f8f3a",
    ),
}
_NAME = re.compile(r"[^\W_](?:[\w .+-]*[\w+-])?")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


class GroupsError(ValueError):
    """Groups that cannot be used. ``mistakes`` holds a line each: where, what, remedy."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Group:
    """``name``: free text that makes a file name; ``clusters``: their numbers, sorted; ``colour``: ``#rrggbb``."""

    name: str
    kind: Kind = "other"
    clusters: tuple[int, ...] = ()
    colour: str = ""

    @property
    def file_name(self) -> str:
        """The name without spaces, for parts of file names."""
        return "-".join(self.name.split())


@dataclass(frozen=True, slots=True)
class Groups:
    """All groups, in the order that says their label values, from 1. Raises ``GroupsError`` for groups that clash."""

    groups: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
        found = [text for _, text in mistakes_in(self.groups)]
        if found:
            raise GroupsError(found)
        tidy = [replace(g, clusters=tuple(sorted(g.clusters)), colour=g.colour.lower()) for g in self.groups]
        object.__setattr__(self, "groups", tuple(_coloured(tidy)))

    def __bool__(self) -> bool:
        """Whether any cluster is marked: then a session annotates, before that it explores."""
        return any(group.clusters for group in self.groups)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups; the label value of ``names[i]`` is i + 1."""
        return tuple(group.name for group in self.groups)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label value: ``background``, then the groups."""
        return (BACKGROUND, *self.names)

    def value(self, name: str) -> int:
        """The label value of a group. Raises ``KeyError``."""
        if name not in self.names:
            raise KeyError(f"no group is named {name!r}; there are: {', '.join(self.names) or 'none yet'}")
        return self.names.index(name) + 1

    def marks(self) -> dict[int, str]:
        """The group's name of each marked cluster."""
        return {cluster: group.name for group in self.groups for cluster in group.clusters}

    def of(self, cluster: int) -> Group | None:
        """The group that the cluster is marked with, if it is."""
        return next((group for group in self.groups if cluster in group.clusters), None)

    def values(self, clusters: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """The label value of each cluster number, uint8 of the same shape; 0 for unmarked ones and for 0."""
        given = np.asarray(clusters)
        found = np.zeros(given.shape, np.uint8)
        for value, group in enumerate(self.groups, 1):
            found[np.isin(given, group.clusters)] = value
        return found

    def unknown(self, clusters: Iterable[int]) -> tuple[int, ...]:
        """Numbers that are marked and are not among ``clusters``."""
        return tuple(sorted(self.marks().keys() - {int(c) for c in clusters}))

    def add(self, name: str, kind: Kind = "other", colour: str = "") -> Groups:
        """With one group more. Raises ``GroupsError`` where the name is taken, or makes no file name."""
        return Groups((*self.groups, Group(name, kind, (), colour)))

    def remove(self, name: str) -> Groups:
        """Without the group; its clusters are unmarked. Raises ``KeyError``."""
        value = self.value(name)
        return Groups(self.groups[: value - 1] + self.groups[value:])

    def mark(self, name: str, clusters: Iterable[int], *, kind: Kind | None = None, colour: str = "") -> Groups:
        """With ``clusters`` in the group ``name``, which is made where there is none, and in no other any more.

        ``kind`` and ``colour``: of the group from now on; without them a group there is keeps its own. Raises
        ``GroupsError``.
        """
        moved = frozenset(int(cluster) for cluster in clusters)
        rest = self.unmark(moved)
        if name not in rest.names:
            return Groups((*rest.groups, Group(name, kind or "other", tuple(moved), colour)))
        at = rest.value(name) - 1
        old = rest.groups[at]
        # The palette goes by kinds: a group that becomes a surface looks like one, unless a colour was chosen.
        shade = colour or ("" if kind and kind != old.kind else old.colour)
        new = Group(name, kind or old.kind, (*old.clusters, *moved), shade)
        return Groups((*rest.groups[:at], new, *rest.groups[at + 1 :]))

    def unmark(self, clusters: Iterable[int]) -> Groups:
        """With ``clusters`` in no group. Groups stay, also empty ones: their label values do not move."""
        gone = frozenset(int(cluster) for cluster in clusters)
        return Groups(tuple(replace(g, clusters=tuple(c for c in g.clusters if c not in gone)) for g in self.groups))


def mistakes_in(groups: Sequence[Group]) -> list[tuple[tuple[str | int, ...], str]]:
    """What is wrong with these groups, each with its place in the file."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    if len(groups) > MOST:
        found.append((("groups", MOST), f"{len(groups)} groups: at most {MOST} can be told apart; join some"))
    seen: dict[str, str] = {}
    owner: dict[int, str] = {}
    for at, group in enumerate(groups):
        place: tuple[str | int, ...] = ("groups", at)
        wrong = _wrong_name(group.name, seen)
        if wrong:
            found.append(((*place, "name"), wrong))
        seen.setdefault(_key(group), group.name)
        if group.kind not in KINDS:
            found.append(((*place, "kind"), f"{group.kind!r} is not one of {', '.join(KINDS)}"))
        if group.colour and not _COLOUR.fullmatch(group.colour):
            found.append(((*place, "colour"), f'{group.colour!r} is no colour; write it as "#e6c229", with quotes'))
        for i, number in enumerate(group.clusters):
            wrong = _wrong_number(number, group.name, owner)
            if wrong:
                found.append(((*place, "clusters", i), wrong))
            owner.setdefault(number, group.name)
    return found


def _wrong_name(name: str, seen: Mapping[str, str]) -> str:
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        return (
            f"{name!r} makes no file name; use up to {LONGEST} letters, digits, spaces and . + - _, "
            "a letter or digit first"
        )
    key = _key(Group(name))
    if key in RESERVED:
        return f"{name!r} is a word with a meaning of its own; choose another, such as {name}-like"
    if key in seen:
        return f"{name!r} and {seen[key]!r} would be the same file name; rename one, or join them"
    return ""


def _key(group: Group) -> str:
    """What tells groups apart: of some disks capitals do not, and copick writes spaces and ``_`` as ``-``."""
    return re.sub(r"[_-]+", "-", group.file_name.casefold()).strip("-.")


def _wrong_number(number: int, name: str, owner: Mapping[int, str]) -> str:
    if number < 1:
        return f"{number} is no number of a cluster; they count from 1"
    if number in owner:
        twice = "twice" if owner[number] == name else f"in {owner[number]!r} and in {name!r}"
        return f"cluster {number} is {twice}; keep one"
    return ""


def _coloured(groups: Sequence[Group]) -> Iterable[Group]:
    """Groups without a colour get one that no other has, as far as the palette goes."""
    taken = {group.colour for group in groups}
    for group in groups:
        if group.colour:
            yield group
            continue
        shades = (*PALETTE[group.kind], *(shade for kind in KINDS for shade in PALETTE[kind]))
        colour = next((shade for shade in shades if shade not in taken), shades[0])
        taken.add(colour)
        yield replace(group, colour=colour)
