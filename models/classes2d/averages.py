"""Class averages of the original images, aligned to their class's centre; constant memory for each class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .frc import LEAST_PER_HALF, resolution
from .polar import Floats
from .working import EDGE

Arrays = dict[str, npt.NDArray[Any]]
Doubles = npt.NDArray[np.float64]


def turned(images: Floats, angle: npt.ArrayLike, shift: npt.ArrayLike) -> Floats:
    """Images (n, s, s) moved by minus ``shift`` and then turned by ``angle``, in one cubic spline interpolation.

    ``shift`` (n, 2): x and y of the particle from pixel [s / 2, s / 2], in pixels; afterwards it lies there. ``angle``
    (n,): degrees from x towards y. What comes from outside an image is the mean of its outermost pixels. float32.
    """
    images = np.asarray(images, np.float32)
    angles = np.broadcast_to(np.radians(np.asarray(angle, np.float64)), len(images))
    shifts = np.broadcast_to(np.asarray(shift, np.float64), (len(images), 2))
    result = np.empty_like(images)
    middle = np.full(2, images.shape[-1] // 2, np.float64)
    for image, a, move, out in zip(images, angles, shifts, result, strict=True):
        c, s = math.cos(a), math.sin(a)
        # affine_transform asks where each pixel (y, x) comes from: turned back, then moved by the shift.
        back = np.array([[c, -s], [s, c]])
        rim = float(np.concatenate([image[[0, -1]].ravel(), image[1:-1, [0, -1]].ravel()]).mean())
        ndimage.affine_transform(image, back, middle + move[::-1] - back @ middle, output=out, order=3, cval=rim)
    return result


class Averages:
    """Sums of aligned images for each class number, in two half sets by turns. One thread at a time."""

    def __init__(self) -> None:
        self._sums: dict[int, Doubles] = {}
        self._weights: dict[int, Doubles] = {}
        self._similar: dict[int, float] = {}

    def add(
        self, ids: npt.ArrayLike, images: Floats, angle: npt.ArrayLike, shift: npt.ArrayLike, similarity: npt.ArrayLike
    ) -> None:
        """Add working images (n, 64, 64) to their classes ``ids`` (n,); 0 is left out.

        ``angle``, ``shift`` as in ``turned``; ``similarity`` (n,) to the class's centre, for ``spread``.
        """
        numbers = np.asarray(ids)
        likeness = np.asarray(similarity, np.float64)
        inside = np.flatnonzero(numbers > 0)
        angles, shifts = np.asarray(angle, np.float64)[inside], np.asarray(shift, np.float64)[inside]
        aligned = turned(images[inside], angles, shifts)
        for number in np.unique(numbers[inside]):
            mine = numbers[inside] == number
            self._add(int(number), aligned[mine], likeness[inside][mine])

    def _add(self, number: int, aligned: Floats, similarity: Doubles) -> None:
        sums = self._sums.setdefault(number, np.zeros((2, EDGE, EDGE)))
        counts = self._weights.setdefault(number, np.zeros(2))
        first = int(counts[0] > counts[1])
        for half in (0, 1):
            part = aligned[(half - first) % 2 :: 2]
            sums[half] += part.sum(0, dtype=np.float64)
            counts[half] += len(part)
        self._similar[number] = self._similar.get(number, 0.0) + float(similarity.sum())

    def classes(self) -> tuple[int, ...]:
        """The numbers there are images of, ascending."""
        return tuple(sorted(self._sums))

    def count(self, number: int) -> int:
        """How many images were added to a class; 0 for one that is not known."""
        return int(self._weights[number].sum()) if number in self._weights else 0

    def mean(self, number: int) -> Floats:
        """The average of a class, float32 (64, 64). Raises ``KeyError`` for a number without images."""
        mean: Floats = (self._sums[number].sum(0) / self._weights[number].sum()).astype(np.float32)
        return mean

    def halves(self, number: int) -> Floats:
        """Averages of the two half sets, float32 (2, 64, 64); zeros for an empty half."""
        counts = np.maximum(self._weights[number], 1)[:, None, None]
        halves: Floats = (self._sums[number] / counts).astype(np.float32)
        return halves

    def spread(self, number: int) -> float:
        """1 minus the mean similarity of the members to their centre: 0 for members all alike."""
        return 1 - self._similar[number] / self.count(number)

    def resolution_a(self, number: int, pixel_a: float) -> float:
        """Resolution of the average in ångström (``frc.resolution``), ``pixel_a`` being that of a working image.

        NaN with fewer than ten images in a half set. It flatters: both halves are aligned to the same centre, so that
        noise, too, is aligned. Noise alone, grouped and aligned, was given 5 to 10 pixels.
        """
        if number not in self._weights or self._weights[number].min() < LEAST_PER_HALF:
            return math.nan
        one, two = self.halves(number)
        return resolution(one, two, pixel_a)

    def state(self) -> Arrays:
        """All there is to know, as arrays that HDF5 and NPZ take; for ``restore``."""
        ids = self.classes()
        return {
            "ids": np.array(ids, np.int32),
            "sums": np.array([self._sums[i] for i in ids], np.float64).reshape(-1, 2, EDGE, EDGE),
            "counts": np.array([self._weights[i] for i in ids], np.int64).reshape(-1, 2),
            "similarity": np.array([self._similar[i] for i in ids], np.float64),
        }

    @classmethod
    def restore(cls, state: Mapping[str, npt.NDArray[Any]]) -> Averages:
        """The averages of which ``state`` was taken. Raises ``ValueError`` for what is no state."""
        try:
            ids, sums, counts, similar = (state[name] for name in ("ids", "sums", "counts", "similarity"))
        except KeyError as error:
            raise ValueError(f"no state of class averages: {error} is missing") from None
        k = len(ids)
        if sums.shape != (k, 2, EDGE, EDGE) or counts.shape != (k, 2) or similar.shape != (k,):
            raise ValueError(f"state of class averages of another layout: sums {sums.shape} for {k} classes")
        found = cls()
        for i, number in enumerate(int(n) for n in ids):
            found._sums[number] = np.array(sums[i], np.float64)
            found._weights[number] = np.array(counts[i], np.float64)
            found._similar[number] = float(similar[i])
        return found
