"""Frames and powders as browsers get them: small pictures in the stream of events, whole arrays on demand."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData, Frame, Key, Result
from .common import finite
from .page import Blob, Picture
from .powder import HITS, MISSES, Powder
from .shots import REVIEWED, Shot
from .thumbs import fitting, thumbnail

Array: TypeAlias = npt.NDArray[Any]
Drawn: TypeAlias = tuple[Array, npt.NDArray[np.bool_] | None]
POWDERS = {f"{kind}-{what}": (kind, what == "max") for kind in (HITS, MISSES) for what in ("sum", "max")}
HEAD_BYTES = 3500
LONGEST_TEXT = 120
INT32 = np.iinfo(np.int32)
EXACT = 1 << 24  # whole numbers up to here are the same in float32


class Draw(Protocol):
    """Draws the whole detector."""

    def __call__(self, data: Array, mask: npt.NDArray[np.uint32] | None, run: str) -> Drawn:
        """A frame, or what has the shape of one, as a picture (y, x), and which of its pixels are bad (None: none).

        ``mask``: CXI's bits in the shape of ``data``; None: the run's static mask says all.
        """


class FrameViews:
    """Makes pictures and blobs. Any thread.

    ``to_input``: what the model sees of a frame, (size, size); None where no model answers: then thumbnails show the
    whole detector. ``labels``: the model's classes. ``from_below``: row 0 of what ``draw`` gives belongs at the bottom.
    """

    def __init__(
        self, draw: Draw, to_input: Callable[[Frame], Array] | None, labels: Sequence[str], *, from_below: bool = False
    ) -> None:
        self._draw, self._to_input, self._labels = draw, to_input, tuple(labels)
        self._origin = "lower" if from_below else "upper"
        self._lock = threading.Lock()
        self._powders: dict[str, tuple[int, Blob]] = {}

    def render(self, shot: Shot, frame: Frame) -> tuple[Array | None, Picture]:
        """What the model sees of a frame (a copy), and its thumbnail, ready for the stream of events."""
        view = self.seen(frame)
        small, high = thumbnail(self._drawn(frame.data, frame.mask, frame.key.run) if view is None else view)
        if self._origin == "lower":
            small = small[::-1]  # pictures have no origin of their own: as the enlarged frame and the powder are shown
        result = shot.result
        fields = {
            "id": shot.id,
            "group": shot.group,
            "w": small.shape[1],
            "h": small.shape[0],
            "pixels": base64.b64encode(small.tobytes()).decode(),
            "high": high,
            "score": finite(result.score),
            "label": self._label(result),
            "key": named(frame.key),
            "time": frame.wall,
            "weight": result.weight,
            "review": shot.group in REVIEWED,
            "by": result.by,
        }
        return view, Picture(shot.seq, json.dumps(fields, allow_nan=False).encode())

    def seen(self, frame: Frame) -> Array | None:
        """What the model sees of a frame, an array of its own; None where no model answers, or it does not fit."""
        if self._to_input is None:
            return None
        try:
            return np.array(self._to_input(frame))
        except BadData:
            return None

    def frame(self, shot: Shot) -> Blob | None:
        """The whole frame, or what the model saw of it once the frame's room was needed; None when both are gone.

        Values as they are stored; masked pixels are NaN, for which whole numbers become float32 (those that float32
        cannot hold stay as they are, masked ones too). ``factor``: block means above 2048 × 2048.
        """
        frame, view = shot.frame, shot.view
        if frame is not None:
            image = self._drawn(frame.data, frame.mask, frame.key.run)
            return self._blob(image, {**self._facts(shot), "part": "whole"}, lasting=True)
        return None if view is None else self._blob(view, {**self._facts(shot), "part": "view"})

    def powder(self, powder: Powder, name: str) -> Blob | None:
        """``hits-sum`` and the like, f4, NaN where pixels are masked; the same until the powder's version changes."""
        if name not in POWDERS:
            return None
        version = powder.version
        with self._lock:
            known = self._powders.get(name)
        if known is not None and known[0] == version:
            return known[1]
        found = powder.array(*POWDERS[name])
        if found is None:
            return None
        array, frames, run = found
        image, bad = self._draw(array, None, run)
        image = image if bad is None else np.where(bad, np.float32(np.nan), image)
        blob = self._blob(image, {"frames": frames, "run": run[:LONGEST_TEXT], "version": version})
        with self._lock:
            self._powders[name] = version, blob
        return blob

    def _drawn(self, data: Array, mask: npt.NDArray[np.uint32] | None, run: str) -> Array:
        image, bad = self._draw(data, mask, run)
        if bad is None or not bad.any():
            return image
        if image.dtype.kind != "f":
            good = np.where(bad, 0, image)
            if max(int(good.max()), -int(good.min())) > EXACT:
                return image
            image = good.astype(np.float32)
        return np.where(bad, image.dtype.type(np.nan), image)

    def _blob(self, image: Array, head: Mapping[str, Any], *, lasting: bool = False) -> Blob:
        image, factor = fitting(image)
        body = little(image)
        facts = {"shape": list(body.shape), "dtype": body.dtype.str, "factor": factor, "origin": self._origin, **head}
        return Blob(body.tobytes(), head=short(facts), lasting=lasting)

    def _facts(self, shot: Shot) -> dict[str, Any]:
        result, key = shot.result, shot.result.frame.key
        known = {name: _plain(value) for name, value in result.found.items() if name != "label"}
        return {
            "id": shot.id,
            "group": shot.group,
            "score": finite(result.score),
            "label": self._label(result),
            "by": result.by,
            "weight": result.weight,
            "time": result.frame.wall,
            "run": key.run[:LONGEST_TEXT],
            "number": key.number,
            "pulse": key.pulse if key.pulse >= 0 else None,
            "key": named(key),
            "probabilities": None,
            "threshold": None,
            "model": None,
            **known,
            "info": {name: _plain(value) for name, value in result.frame.info.items()},
        }

    def _label(self, result: Result) -> str | None:
        label = result.found.get("label")
        return self._labels[label] if isinstance(label, int) and 0 <= label < len(self._labels) else None


def named(key: Key) -> str:
    """``run:number``, and ``run:number:pulse`` of a train."""
    pulse = f":{key.pulse}" if key.pulse >= 0 else ""
    return f"{key.run[:LONGEST_TEXT]}:{key.number}{pulse}"


def little(image: Array) -> Array:
    """The array as ``<u2``, ``<i4`` or ``<f4``, whichever holds its values."""
    kind, size = image.dtype.kind, image.dtype.itemsize
    if kind in "bu" and size <= 2:
        return image.astype("<u2")
    if kind in "iu" and (size < 4 or (image.min() >= INT32.min and image.max() <= INT32.max)):
        return image.astype("<i4")
    return image.astype("<f4")


def short(head: Mapping[str, Any]) -> dict[str, Any]:
    """The head within what may travel in an HTTP header: of ``info``, the last entries are left out until it fits."""
    found = dict(head)
    info = dict(found.get("info", {}))
    while info and len(json.dumps({**found, "info": info})) > HEAD_BYTES:
        info.popitem()
    return {**found, "info": info} if "info" in found else found


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value[:LONGEST_TEXT] if isinstance(value, str) else value
