"""The 2-D classes on the live page of ``cryoem_picks``: their numbers as JSON, their pictures, and marks of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..live.changes import Changes
from ..live.class_view import MOST_CLASSES, MOST_EVENTS, MOST_MEMBERS, Classes, ClassLevers, ClassView
from ..live.common import finite
from ..live.page import JSON, Blob, Refused

#: Kinds of blobs, each by the number of a class.
BLOBS = ("class", "class-denoised", "class-members")
WORDS: Mapping[str, str] = {"good": "good", "bad": "bad", "none": ""}
LOW_PERCENT, HIGH_PERCENT = 1.0, 99.5
_LONGEST = 200  # characters of a text that goes to every browser each second
_DIGITS = 10

Bytes = npt.NDArray[np.uint8]


class ClassPanel:
    """What the page answers of the classes of ``levers``. For any thread; ``act`` by one at a time.

    ``life``: class 3 of another session has the number and maybe the version of class 3 of this one, but not this word:
    with it in the address a browser may keep a picture.
    """

    def __init__(self, levers: ClassLevers, changes: Changes) -> None:
        self._levers, self._changes = levers, changes
        self.life = secrets.token_hex(4)
        self._made: tuple[Classes, JSON] | None = None

    @classmethod
    def of(cls, levers: ClassLevers, changes: Changes | None) -> ClassPanel:
        """The panel. Raises ``TypeError`` without ``changes``: no mark may be made that is not written down."""
        if changes is None:
            raise TypeError("classes need changes, the log that marks of them are written to")
        return cls(levers, changes)

    def state(self) -> JSON:
        """The field ``classes`` of the snapshot: made anew only where the classes have another version."""
        current, made = self._levers.current(), self._made
        if made is None or made[0].version != current.version:
            made = self._made = (current, {"life": self.life, **classes_json(current)})
        return made[1]

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        """Pictures of class ``name``, uint8: ``class``, ``class-denoised`` (64, 64), ``class-members`` (m, 2, 64, 64).

        None for classes that are not there (any more), and where nothing is denoised. Lasting where ``query`` names the
        ``life`` and, as ``v``, the version that is there.
        """
        view = _named(self._levers.current(), name)
        floats = None if view is None else _pixels(view, kind)
        if view is None or floats is None:
            return None
        pixels = np.stack([stretched(one) for one in floats.reshape(-1, *floats.shape[-2:])]) if floats.size else floats
        head = {"shape": list(floats.shape), "dtype": "u1", "id": view.id, "version": view.version}
        lasting = query.get("v") == str(view.version) and query.get("life") == self.life
        return Blob(pixels.astype(np.uint8).tobytes(), head=head, lasting=lasting)

    def act(self, body: Mapping[str, Any], by: str) -> JSON:
        """``class``: mark class ``id`` as ``mark``: good, bad or none. Raises ``Refused``."""
        number, word = body.get("id"), body.get("mark")
        if isinstance(number, bool) or not isinstance(number, int):
            raise Refused("id: give the number of a class")
        if not isinstance(word, str) or word not in WORDS:
            raise Refused(f"mark: is not one of {', '.join(WORDS)}")
        view = _named(self._levers.current(), str(number))
        if view is None:
            raise Refused(f"id: there is no class {number}, or no longer; mark one that is shown now")
        if view.mark != WORDS[word]:
            self._mark(view, WORDS[word], by or "somebody")
        return {"classes": self.state()}

    def _mark(self, view: ClassView, mark: str, by: str) -> None:
        old, new = ({"id": view.id, "mark": one} for one in (view.mark, mark))
        self._changes.note("class", by, old, new)
        try:
            self._levers.mark(view.id, mark, by)
        except Refused:
            # It was written down and not made.
            self._changes.note("class", by, new, old)
            raise


def classes_json(found: Classes) -> JSON:
    """``found`` without its pictures, as browsers read it; what is no finite number is None."""
    whole = max(1, found.particles)
    why = None if found.pass_ is None else dict(zip(("why", "done", "of"), found.pass_, strict=True))
    tuning = None if found.tuning is None else dict(zip(("state", "done", "of", "text"), found.tuning, strict=True))
    if tuning is not None:
        tuning["text"] = str(tuning["text"])[:_LONGEST]
    return {
        "version": found.version,
        "state": found.state,
        "error": found.error[:_LONGEST],
        "have": found.have,
        "need": found.need,
        "particles": found.particles,
        "unlabelled": found.unlabelled,
        "rejected": found.rejected,
        "pixel_a": finite(found.pixel_a),
        "model": {"name": found.model, "sha256": found.model_sha256, "tuned": found.tuned},
        "pass": why,
        "tuning": tuning,
        "events": [{"time": at, "text": text[:_LONGEST]} for at, text in found.events[-MOST_EVENTS:]],
        "list": [_class_json(view, whole) for view in found.classes[:MOST_CLASSES]],
    }


def _class_json(view: ClassView, whole: int) -> JSON:
    return {
        "id": view.id,
        "count": view.count,
        "share": view.count / whole,
        "growth_per_min": finite(view.growth_per_min),
        "spread": finite(view.spread),
        "resolution_a": finite(view.resolution_a),
        "mark": view.mark,
        "since": view.since,
        "version": view.version,
    }


def stretched(image: npt.NDArray[Any]) -> Bytes:
    """(n, n) of any real numbers as uint8: black to white from percentile 1 to 99.5 of the circle that fits inside.

    The corners belong to the neighbours of a particle and to the carbon beside it: they must not take its contrast.
    What is constant becomes grey, what is no finite number black.
    """
    values = np.asarray(image, np.float64)
    ny, nx = values.shape
    y, x = np.ogrid[:ny, :nx]
    finite_ = np.isfinite(values)
    inside = finite_ & ((y - (ny - 1) / 2) ** 2 + (x - (nx - 1) / 2) ** 2 <= (min(ny, nx) / 2) ** 2)
    low, high = np.percentile(values[inside], (LOW_PERCENT, HIGH_PERCENT)) if inside.any() else (0.0, 0.0)
    if not high > low:
        return np.where(finite_, 128, 0).astype(np.uint8)
    levels = np.clip((np.where(finite_, values, low) - low) * (255 / (high - low)), 0, 255)
    found: Bytes = np.rint(levels).astype(np.uint8)
    return found


def _named(found: Classes, name: str) -> ClassView | None:
    if not (name.isascii() and name.isdecimal() and len(name) < _DIGITS):
        return None
    return next((view for view in found.classes if view.id == int(name)), None)


def _pixels(view: ClassView, kind: str) -> npt.NDArray[np.float32] | None:
    if kind == "class":
        return view.average
    return view.denoised_average if kind == "class-denoised" else view.members[-MOST_MEMBERS:]
