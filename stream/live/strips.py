"""The small pictures of the page: encoded once for all browsers, the last ones of each kind kept."""

from __future__ import annotations

import base64
import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .page import Picture

Bytes = npt.NDArray[np.uint8]


class Strips:
    """Pictures by group, the newest of each up to ``most``. Any thread may call any method."""

    def __init__(self, most: Mapping[str, int]) -> None:
        self._lock = threading.Lock()
        self._seq = 0
        self._groups: dict[str, deque[tuple[str, Picture]]] = {group: deque(maxlen=n) for group, n in most.items()}

    def add(self, group: str, pixels: Bytes, fields: Mapping[str, Any]) -> None:
        """Keep a picture (h, w), uint8, in place of one of its id; ``fields``: JSON with an ``id``, without NaN."""
        height, width = pixels.shape
        said = {
            **fields,
            "group": group,
            "w": width,
            "h": height,
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
        }
        encoded = json.dumps(said, allow_nan=False, separators=(",", ":")).encode()
        with self._lock:
            self._seq += 1
            kept = self._groups[group]
            for at, (name, _) in enumerate(kept):
                if name == fields["id"]:
                    del kept[at]
                    break
            kept.append((str(fields["id"]), Picture(self._seq, encoded)))

    def after(self, seq: int) -> Sequence[Picture]:
        """Those with a higher number, oldest first."""
        with self._lock:
            found = [picture for kept in self._groups.values() for _, picture in kept if picture.seq > seq]
        return sorted(found, key=lambda picture: picture.seq)

    def ids(self, group: str) -> list[str]:
        """Which are kept, oldest first."""
        with self._lock:
            return [name for name, _ in self._groups[group]]
