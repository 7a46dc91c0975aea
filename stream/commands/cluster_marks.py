"""Marks of clusters as they are typed: ``membrane=3,7,12-15`` and ``3,5``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import cast

from ...models.tomograms.groups import KINDS, Groups, Kind

_MOST = 10_000


def changes(
    mark: Sequence[str], unmark: Sequence[str], kind: str | None, known: Collection[int]
) -> Callable[[Groups], Groups]:
    """What the options do to the groups. Raises ``ValueError`` with every mistake in them.

    ``known``: numbers of the clusters there are.
    """
    wrong: list[str] = []
    marks = [found for text in mark if (found := _mark(text, wrong)) is not None]
    gone = [number for text in unmark for number in _numbers(text, f"--unmark {text}", wrong)]
    if kind is not None and kind not in KINDS:
        wrong.append(f"--kind {kind}: is not one of {', '.join(KINDS)}")
    if kind is not None and not mark:
        wrong.append("--kind: says what a group of --mark is; add --mark, such as --mark membrane=3,7")
    missing = sorted({number for _, numbers in marks for number in numbers} - set(known))
    if missing:
        wrong.append(f"--mark: there is no cluster {', '.join(map(str, missing[:10]))}; see --list for those there are")
    wrong += _twice(marks)
    both = sorted({number for _, numbers in marks for number in numbers} & set(gone))
    if both:
        wrong.append(f"--unmark: cluster {', '.join(map(str, both[:10]))} is in --mark as well; keep one")
    if wrong:
        raise ValueError("\n".join(wrong))

    def change(groups: Groups) -> Groups:
        groups = groups.unmark(gone)
        for name, numbers in marks:
            groups = groups.mark(name, numbers, kind=cast(Kind | None, kind))
        return groups

    return change


def _mark(text: str, wrong: list[str]) -> tuple[str, list[int]] | None:
    name, equals, numbers = text.partition("=")
    if not equals or not name.strip():
        wrong.append(f"--mark {text}: write a name, = and numbers of clusters, such as --mark membrane=3,7,12-15")
        return None
    return name.strip(), _numbers(numbers, f"--mark {text}", wrong)


def _numbers(text: str, option: str, wrong: list[str]) -> list[int]:
    """Numbers and ranges between commas."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = (end.strip() for end in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 12:
            wrong.append(f"{option}: {part.strip()!r} is no number of a cluster; write such as 3,7,12-15")
            continue
        low, high = int(first), int(last or first)
        if not 1 <= low <= high or high - low > _MOST:
            wrong.append(f"{option}: {part.strip()!r} is no range of numbers from 1 on; write the lower first")
            continue
        found += range(low, high + 1)
    return found


def _twice(marks: Sequence[tuple[str, list[int]]]) -> list[str]:
    owner = {number: name for name, numbers in reversed(marks) for number in numbers}
    return [
        f"--mark: cluster {number} is for {owner[number]} and for {name}; keep one"
        for name, numbers in marks
        for number in numbers
        if owner[number] != name
    ]
