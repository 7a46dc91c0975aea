"""What reviewers said of frames and picks: one mark per line of a ``marks.jsonl``, pixels in ``marks/`` beside it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .centres import Sorted, Tables
from .lines import read_lines

FILE, FOLDER = "marks.jsonl", "marks"
KINDS = ("frame", "pick")
REASON = "marks"


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mark:
    """What one person said of one frame or pick.

    ``id``: of the frame or pick, the same whenever it is marked again. ``kind``: ``frame`` or ``pick``. ``truth``:
    whether it is a single hit, or a particle; None: an earlier mark is withdrawn. ``by``: the reviewer's name;
    ``time``: Unix seconds. ``score``, ``accepted``, ``threshold``, ``model`` (hash), ``run``: the verdict that was
    shown. ``weight``: how many frames it stands for, 1 for an accepted one, 1/f for one of a random fraction f of the
    misses.
    ``extra``: ``group`` (``accepted``, ``rejected``, ``random_miss``, ``by_hand``); of a frame its ``key`` and ``by``
    (``model`` or ``prescreen``); of a pick ``micrograph`` (path), ``x`` and ``y`` (pixels of the micrograph).
    """

    id: str
    kind: str
    truth: bool | None
    by: str = ""
    time: float = 0.0
    score: float = math.nan
    accepted: bool = True
    weight: float = 1.0
    threshold: float = math.nan
    model: str = ""
    run: str = ""
    extra: Mapping[str, Any] = field(default_factory=_nothing)

    @property
    def right(self) -> bool | None:
        """Whether the verdict was right: of a frame, accepted as it is a hit; of a pick, that it is a particle."""
        if self.truth is None:
            return None
        return self.truth if self.kind == "pick" else self.truth == self.accepted

    def to_json(self) -> dict[str, Any]:
        """A line of the file; numbers that are not known are None."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)} | {"extra": dict(self.extra)}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}


def mark_of(line: Mapping[str, Any]) -> Mark:
    """The inverse of ``Mark.to_json``. Raises ``ValueError`` naming the field that is wrong."""
    numbers = {"time": 0.0, "score": math.nan, "weight": 1.0, "threshold": math.nan}
    found: dict[str, Any] = {name: _number(line, name, default) for name, default in numbers.items()}
    found |= {name: _text(line, name) for name in ("by", "model", "run")}
    name, kind, truth = line.get("id"), line.get("kind"), line.get("truth")
    accepted, extra = line.get("accepted", True), line.get("extra", {})
    wrong = {
        f"id: {name!r} is not a name": not (isinstance(name, str) and name),
        f"kind: {kind!r} is not one of {', '.join(KINDS)}": kind not in KINDS,
        f"truth: {truth!r} is not true, false or null": not (truth is None or isinstance(truth, bool)),
        f"accepted: {accepted!r} is not true or false": not isinstance(accepted, bool),
        f"extra: {extra!r} is not a mapping": not isinstance(extra, Mapping),
        f"weight: {found['weight']} is not above 0": not found["weight"] > 0,
    }
    for text, so in wrong.items():
        if so:
            raise ValueError(text)
    return Mark(str(name), str(kind), truth, accepted=accepted, extra=dict(extra), **found)


def _number(line: Mapping[str, Any], name: str, default: float) -> float:
    value = line.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: {value!r} is not a number")
    return float(value)


def _text(line: Mapping[str, Any], name: str) -> str:
    value = line.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name}: {value!r} is not text")
    return value


def read_marks(path: Path) -> dict[str, Mark]:
    """The last mark of every id that is not withdrawn, in the order of the file; lines cut short are left out.

    ``path``: a ``marks.jsonl``, or the folder that holds one. Raises ``OSError``, and ``BadData`` (line, field) for
    what is no mark.
    """
    path = path / FILE if path.is_dir() else path
    found: dict[str, Mark] = {}
    for number, line in read_lines(path)[0]:
        try:
            mark = mark_of(line)
        except ValueError as error:
            raise BadData(REASON, f"{path}:{number}: {error}; correct or remove the line") from None
        found.pop(mark.id, None)
        if mark.truth is not None:
            found[mark.id] = mark
    return found


def is_marks(path: Path) -> bool:
    """Whether a file holds marks, by its first whole line. Raises ``OSError``."""
    with path.open("rb") as file:
        first = file.read(1 << 16).lstrip().split(b"\n")[0]
    return first.startswith(b"{") and all(f'"{name}"'.encode() in first for name in ("id", "kind", "truth"))


def pixels_path(folder: Path, mark_id: str) -> Path:
    """Where a mark's pixels lie, for a ``marks.jsonl`` in ``folder``: a name that is safe whatever the id holds."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", mark_id).strip("-")[:60]
    # Different ids that read alike stay apart, also where upper and lower case are one.
    return folder / FOLDER / f"{readable or 'mark'}-{hashlib.sha256(mark_id.encode()).hexdigest()[:12]}.npy"


def read_pixels(path: Path) -> npt.NDArray[Any]:
    """The pixels of a mark, as they were written. Raises ``OSError``, and ``BadData`` for what is no array."""
    try:
        found: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BadData(REASON, f"{path}: is no array ({error}); remove it, and its mark trains no more") from None
    return found


def read_picks(path: Path) -> Tables:
    """Marked picks by micrograph (its path), as ``read_coordinates`` gives corrected ones.

    Raises ``OSError``, and ``BadData`` for marks without micrograph or place, and where there are none of picks.
    """
    rows = Sorted()
    picks = [mark for mark in read_marks(path).values() if mark.kind == "pick"]
    if not picks:
        raise BadData(REASON, f"{path}: holds no marks of picks; name the marks of a cryo-EM session")
    for mark in picks:
        micrograph = mark.extra.get("micrograph")
        if not isinstance(micrograph, str) or not micrograph:
            raise BadData(REASON, f"{path}: mark {mark.id}: extra.micrograph: missing; remove the mark")
        place = [mark.extra.get(name) for name in ("x", "y")]
        for name, value in zip("xy", place, strict=True):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise BadData(REASON, f"{path}: mark {mark.id}: extra.{name}: {value!r} is no number; remove the mark")
        score = mark.score if math.isfinite(mark.score) else None
        rows.of(micrograph).add(float(place[0]), float(place[1]), score, not mark.truth)  # type: ignore[arg-type]
    return rows.done()
