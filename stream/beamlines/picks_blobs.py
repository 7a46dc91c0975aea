"""What a browser fetches of a micrograph: its overview, tiles in full resolution, and its picks."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from ..live.common import finite
from ..live.micrographs import Micrograph
from ..live.page import Blob
from ..live.reviewed import PickReview
from ..live.table import Table
from ..live.views import Views
from .picks_stored import Stored, picked_now


class PicksBlobs:
    """Answers by the id of a row in ``table``. For any thread; an image that must be read again takes a second."""

    def __init__(self, table: Table, views: Views, stored: Stored, review: PickReview) -> None:
        self._table, self._views, self._stored, self._review = table, views, stored, review

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        """``micrograph``: uint8, at most 2048 pixels; ``tile`` (``x``, ``y``, ``size``): uint8; ``picks``: JSON.

        None where the row, its image or its picks are not there any more, and for anything else.
        """
        found = self._table.get(name)
        if found is None:
            return None
        if kind == "micrograph":
            return self._overview(found)
        if kind == "tile":
            return self._tile(found, query)
        return self._picks(found) if kind == "picks" else None

    def _overview(self, found: Micrograph) -> Blob | None:
        large = self._views.large(found)
        if large is None:
            return None
        pixels, factor = large
        ny, nx = found.shape
        head = {"shape": list(pixels.shape), "dtype": "u1", "factor": factor, "ny": ny, "nx": nx}
        return Blob(pixels.tobytes(), head={**head, "pixel_a": finite(found.pixel_a)}, lasting=True)

    def _tile(self, found: Micrograph, query: Mapping[str, str]) -> Blob | None:
        words = [query.get(word, "") for word in ("x", "y", "size")]
        if not all(word.isascii() and word.isdecimal() and len(word) < 7 for word in words):
            return None
        x, y, size = map(int, words)
        pixels = self._views.tile(found, x, y, size)
        if pixels is None:
            return None
        return Blob(pixels.tobytes(), head={"shape": list(pixels.shape), "dtype": "u1", "x": x, "y": y}, lasting=True)

    def _picks(self, found: Micrograph) -> Blob | None:
        candidates = self._stored.candidates(found)
        if candidates is None:
            return None
        numbers, places = self._review.of(found)
        ny, nx = found.shape
        said = {
            "id": found.id,
            "name": found.name,
            **{axis: np.round(getattr(candidates, axis).astype(np.float64), 1).tolist() for axis in ("x", "y")},
            "score": np.round(candidates.score.astype(np.float64), 4).tolist(),
            "picked": picked_now(found, candidates).astype(int).tolist(),
            "truth": [numbers.get(number) for number in range(len(candidates))],
            "marked": places,
            "diameter_px": found.diameter_a / found.pixel_a,
            "box_px": found.box_px,
            "pixel_a": found.pixel_a,
            "threshold": finite(found.threshold),
            "ny": ny,
            "nx": nx,
        }
        return Blob(json.dumps(said, allow_nan=False, separators=(",", ":")).encode(), kind="application/json")
