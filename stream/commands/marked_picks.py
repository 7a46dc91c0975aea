"""Micrographs of which some picks were marked right or wrong on the live page, made whole for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..flow.settings import ConfigError
from ..formats.coordinates import same_micrograph
from ..formats.marks import Mark, is_marks, read_marks, read_picks
from .labelled import load

if TYPE_CHECKING:
    from ...models.particles.pick import Picker
    from ...models.particles.recipes import Progress
    from .training_set import Files

Floats = npt.NDArray[np.float64]

NEAR = 0.5
"""A pick this near to a mark, in diameters, is what was marked."""


def marks_among(add: Sequence[Path]) -> bool:
    """Whether ``--add`` names marks of the live page; files that are not there are not. Raises ``ConfigError``."""
    kinds = {path.is_file() and is_marks(path) for path in add}
    if len(kinds) > 1:
        raise ConfigError(["--add: some are marks of the live page and some are not; train with one kind, then on"])
    return kinds == {True}


def marked_micrographs(add: Sequence[Path], named: Sequence[Path]) -> list[Path]:
    """The micrographs that have marks: of those ``named``, or where the marks say they lie. Raises ``ConfigError``."""
    places = [_place(name, path) for path in add for name in read_picks(path)]
    if named:
        found = [one for one in named if any(same_micrograph(one.name, place.name) for place in places)]
        if not found:
            raise ConfigError(["--add: holds no marks of the micrographs that are named; name others, or none"])
        return found
    places = list(dict.fromkeys(places))
    gone = [f"{one}: was marked, and is not there; name the micrographs where they lie now" for one in places]
    gone = [text for text, one in zip(gone, places, strict=True) if not one.exists()]
    if gone:
        raise ConfigError(gone)
    return places


def _place(name: str, marks: Path) -> Path:
    # A path that is not absolute is one from where the marks lie.
    return (marks.parent / name).resolve()


def completed(files: Files, add: Sequence[Path], picker: Picker, progress: Progress) -> Files:
    """With what nobody marked: training takes what is not a particle for background, and few picks are ever marked.

    Every micrograph is picked with ``picker`` at the threshold in force when it was marked; picks near a mark follow
    the mark, those marked right are particles also where it finds none, and all other picks count as particles. Raises
    ``ValueError`` and ``BadData`` as picking does.
    """
    marks = [mark for path in add for mark in read_marks(path).values() if mark.kind == "pick"]
    entries = []
    for number, entry in enumerate(files.entries, 1):
        entries.append(_completed(entry, _threshold(marks, entry, picker), picker))
        progress("pick what is not marked", number, len(files.entries))
    return replace(files, entries=tuple(entries))


def _threshold(marks: Sequence[Mark], entry: Mapping[str, Any], picker: Picker) -> float:
    """The one in force when the micrograph was last marked; the card's where that was not noted."""
    name = Path(entry["path"]).name
    noted = [
        mark
        for mark in marks
        if np.isfinite(mark.threshold) and same_micrograph(Path(str(mark.extra["micrograph"])).name, name)
    ]
    return max(noted, key=lambda mark: mark.time).threshold if noted else picker.threshold


def _completed(entry: Mapping[str, Any], threshold: float, picker: Picker) -> dict[str, Any]:
    found = picker.pick(load(Path(entry["path"])), entry["pixel_a"])
    picked = found.take(found.picked(threshold, picker.options.sd_range))
    right, wrong = (_points(entry[f"{kind}x"], entry[f"{kind}y"]) for kind in ("", "wrong_"))
    rest = _points(picked.x, picked.y)
    reach = NEAR * picker.diameter_a / entry["pixel_a"]
    rest = rest[_distance(rest, np.concatenate([right, wrong])) > reach]
    x, y = np.concatenate([right, rest]).round(3).T
    return {**entry, "x": x.tolist(), "y": y.tolist()}


def _points(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    return np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], 1)


def _distance(points: Floats, others: Floats) -> Floats:
    """Of each point (n, 2) to the nearest of the others (m, 2); infinite where there are none."""
    from scipy.spatial import cKDTree

    if not len(others):
        return np.full(len(points), np.inf)
    found: Floats = cKDTree(others).query(points)[0] if len(points) else np.zeros(0)
    return found
