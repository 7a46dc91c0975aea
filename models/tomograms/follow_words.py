"""What became of clusters when they were made anew, in words for those who marked them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ..classes2d.matching2d import Change, changes
from .book import Event
from .cluster import Counts


def told(shared: Counts, before: Sequence[int], after: Sequence[int], marks: Mapping[int, str]) -> tuple[Event, ...]:
    """Splits, merges, new and vanished clusters between the numbers ``before`` and ``after``.

    ``shared`` int64 (k_before, k_after); ``marks``: the group of each marked cluster, before. What became of marked
    clusters is said one by one; of the others, those that are new and those that went everywhere share a line.
    """
    found = changes(shared, before, after)
    return (*_splits(found), *_merges(found), *_new(found), *_gone(found, marks))


def _splits(found: Sequence[Change]) -> Iterator[Event]:
    parts: dict[int, list[int]] = {}
    for change in found:
        if change.kind == "split":
            parts.setdefault(change.others[0], []).append(change.id)
    for source, fresh in parts.items():
        text = f"cluster {source} split into {listed([source, *fresh])}"
        yield Event("split", source, tuple(fresh), text)


def _merges(found: Sequence[Change]) -> Iterator[Event]:
    for change in found:
        if change.kind == "merged":
            yield Event("merged", change.id, change.others, f"cluster {change.id} merged into {change.others[0]}")


def _new(found: Sequence[Change]) -> Iterator[Event]:
    numbers = [change.id for change in found if change.kind == "new"]
    if numbers:
        yield Event("new", numbers[0], tuple(numbers[1:]), f"{_clusters(numbers)} new: members came from several")


def _gone(found: Sequence[Change], marks: Mapping[int, str]) -> Iterator[Event]:
    numbers = [change.id for change in found if change.kind == "gone"]
    plain = [number for number in numbers if number not in marks]
    for number in (number for number in numbers if number in marks):
        yield Event("gone", number, (), f"cluster {number} is no more: its members went to several")
    if plain:
        yield Event("gone", plain[0], tuple(plain[1:]), f"{_clusters(plain)} no more: members went to several")


def _clusters(numbers: Collection[int]) -> str:
    return f"cluster {listed(numbers)} is" if len(numbers) == 1 else f"clusters {listed(numbers)} are"


def listed(numbers: Collection[int]) -> str:
    """Numbers as a sentence has them: 3, 7 and 12."""
    texts = [str(number) for number in numbers]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
