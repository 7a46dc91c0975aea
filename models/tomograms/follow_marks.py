"""What becomes of marks when clusters are made anew: they go with the numbers, and to what was split off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .book import Event
from .cluster import Counts
from .groups import Groups

Shares: TypeAlias = npt.NDArray[np.float64]

#: A cluster with a new number has more than this share of its sub-volumes from a group, to be marked as the group is.
MOST_OF = 0.5
#: A marked cluster of which less than this was in its group before should be looked at.
LITTLE = 1 / 3


@dataclass(frozen=True, slots=True)
class Marks:
    """Groups as they are now, and what to say of it."""

    groups: Groups
    events: tuple[Event, ...]


def follow_marks(groups: Groups, shared: Counts, before: Sequence[int], after: Sequence[int]) -> Marks:
    """Groups for the clusters ``after``; ``shared`` int64 (k_before, k_after): whose members went where.

    Numbers that are marked and were no clusters before stay as they are: a person may have them from elsewhere.
    """
    # One row more for the unmarked, so that columns add up to all members.
    value = groups.values(np.array(before, np.int32))
    by_group = np.stack([shared[value == v].sum(0) for v in range(len(groups.groups) + 1)])
    events: list[Event] = []
    gone = sorted(set(before) - set(after))
    moved = groups
    for column, number in enumerate(after):
        shares = by_group[:, column] / max(1, int(by_group[:, column].sum()))
        if number in before:
            events += _kept(number, groups, shares)
        elif shares[1:].max(initial=0) > MOST_OF:
            name = groups.names[int(shares[1:].argmax())]
            moved = moved.mark(name, [number])
            events.append(Event("mark", number, (), f"cluster {number} is marked {name}, as most of its members were"))
        elif shares[1:].sum() > MOST_OF:
            events.append(Event("mark", number, (), _torn(number, groups, shares)))
    events += _lost(groups, moved, shared, gone, before, after)
    return Marks(moved.unmark(gone), tuple(events))


def _kept(number: int, groups: Groups, shares: Shares) -> Iterator[Event]:
    """What a person should look at: members that changed under a number that stayed."""
    if not shares.any():
        return
    group = groups.of(number)
    if group is not None and shares[groups.value(group.name)] < LITTLE:
        percent = 100 * shares[groups.value(group.name)]
        text = f"cluster {number} stays {group.name}, though only {percent:.0f} % of its members were; look at it"
        yield Event("mark", number, (), text)
    elif group is None and shares[1:].max(initial=0) > MOST_OF:
        name = groups.names[int(shares[1:].argmax())]
        text = f"cluster {number} is not marked, though {100 * shares[1:].max():.0f} % of its members were {name}"
        yield Event("mark", number, (), f"{text}; look at it")


def _torn(number: int, groups: Groups, shares: Shares) -> str:
    parts = [f"{100 * s:.0f} % {name}" for name, s in zip(groups.names, shares[1:], strict=True) if s > 0]
    return f"cluster {number} is not marked: its members were {', '.join(parts)}; look at it"


def _lost(
    groups: Groups, now: Groups, shared: Counts, gone: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> Iterator[Event]:
    """Marks that go with a cluster that is no more, unless most of its members are marked the same."""
    marks = now.marks()
    for number in gone:
        group = groups.of(number)
        if group is None:
            continue
        members = shared[before.index(number)]
        same = np.array([marks.get(other) == group.name for other in after], bool)
        if 2 * members[same].sum() <= members.sum():
            text = f"the mark {group.name} of cluster {number} is gone with it: most of its members are not so marked"
            yield Event("mark", number, (), f"{text} now")
