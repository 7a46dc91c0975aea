"""The lit-pixel hit finder: a baseline without a network, and a pre-screen before one.

A pixel is lit above a threshold; a shot with many lit pixels is a hit. With fixed thresholds this is Hummingbird's
``countLitPixels`` (Daurer et al., J. Appl. Cryst. 49, 1042 (2016)); with ``adaptive``, the limit follows the
background, as hit finding for single particles does at the European XFEL.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .infer import bad_pixels

_SCRATCH_PIXELS = 1 << 18  # the comparison's answer stays in the processor's cache
_MAD_TO_SIGMA = 1.4826


class LitPixels:
    """Counts lit pixels and says which shots are hits. One thread; the memory is bounded by ``window``.

    ``adu_threshold``: a pixel above it is lit, in the frames' unit (ADU or photons). ``hitscore_threshold``: a shot
    with at least so many lit pixels is a hit. ``adaptive``: instead, a shot is a hit when its count is above
    median + ``sigmas`` · spread of the last ``window`` shots, where the spread is 1.4826 times the median absolute
    deviation, and at least the square root of the median, and 1: the noise of a count.

    Adaptive from the first shot on: the first ``update_every`` shots are judged by ``hitscore_threshold``, because
    there is no background yet; then the background is that of all shots so far, until there are ``window``. Hits are
    part of it, so that a background that rises for good is learned; the median does not mind while fewer than half of
    the shots are hits. The limit changes after every ``update_every`` shots, wherever bursts begin and end: the same
    shots give the same answers. Raises ``ValueError`` for settings that mean nothing.
    """

    def __init__(
        self,
        *,
        adu_threshold: float = 20,
        hitscore_threshold: int = 200,
        adaptive: bool = False,
        sigmas: float = 5,
        window: int = 1024,
        update_every: int = 32,
    ) -> None:
        if not math.isfinite(adu_threshold) or not math.isfinite(sigmas) or sigmas < 0:
            raise ValueError(f"adu_threshold {adu_threshold}, sigmas {sigmas}: give numbers, sigmas at least 0")
        if hitscore_threshold < 0 or window < 1 or update_every < 1:
            raise ValueError("hitscore_threshold must be at least 0, window and update_every at least 1")
        self._adu_threshold = adu_threshold
        self._adaptive, self._sigmas = adaptive, sigmas
        self._every = min(update_every, window)
        self._limit = hitscore_threshold - 1.0
        self._past = np.zeros(window, np.int64)
        self._seen = 0
        self._scratch = np.empty(0, np.bool_)

    @property
    def limit(self) -> float:
        """The next shot is a hit with more lit pixels than this."""
        return self._limit

    def screen(
        self, stack: npt.NDArray[Any], mask: npt.NDArray[Any] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Count lit pixels in (n, y, x) or (n, module, y, x), and judge: ``counts`` int64 (n,), ``hits`` bool (n,).

        ``mask``: as for ``to_input``, of one frame or of each; bad pixels are never lit, nor is a NaN. Raises
        ``ValueError`` for a mask of another shape.
        """
        counts = self.count(stack, mask)
        return counts, self._judge(counts)

    def count(self, stack: npt.NDArray[Any], mask: npt.NDArray[Any] | None = None) -> npt.NDArray[np.int64]:
        """Lit pixels of each frame, int64 (n,), without judging or learning from them."""
        counts = np.empty(len(stack), np.int64)
        limit = self._adu_threshold
        # An integer pixel is above 20.5 where it is above 20; comparing integers with integers is ten times as fast.
        above: float = math.floor(limit) if stack.dtype.kind in "iu" else limit
        good = _good(stack, mask)
        pixels = math.prod(stack.shape[1:])
        step = max(1, _SCRATCH_PIXELS // max(pixels, 1))
        if self._scratch.size < step * pixels:
            self._scratch = np.empty(step * pixels, np.bool_)
        for first in range(0, len(stack), step):
            part = stack[first : first + step]
            frames = part.reshape(len(part), pixels)
            lit = self._scratch[: frames.size].reshape(frames.shape)
            np.greater(frames, above, out=lit)
            if good is not None:
                np.bitwise_and(lit, good if good.ndim == 1 else good[first : first + step], out=lit)
            counts[first : first + step] = np.fromiter(map(np.count_nonzero, lit), np.int64, len(lit))
        return counts

    def _judge(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        if not self._adaptive:
            return counts > self._limit
        hits = np.empty(len(counts), np.bool_)
        first = 0
        while first < len(counts):
            part = slice(first, first + self._every - self._seen % self._every)
            hits[part] = counts[part] > self._limit
            self._learn(counts[part])
            first = part.stop
        return hits

    def _learn(self, counts: npt.NDArray[np.int64]) -> None:
        self._past[np.arange(self._seen, self._seen + len(counts)) % len(self._past)] = counts
        self._seen += len(counts)
        if self._seen % self._every == 0:
            self._limit = _limit(self._past[: self._seen], self._sigmas)


def photon_sums(stack: npt.NDArray[Any], mask: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Sum of the good pixels of each frame of (n, …): int64 (n,) for integers, float64 (n,) for floats."""
    dtype = np.dtype(np.int64 if stack.dtype.kind in "iub" else np.float64)
    pixels = math.prod(stack.shape[1:])
    flat, good = stack.reshape(len(stack), pixels), _good(stack, mask)
    sums = np.empty(len(stack), dtype)
    kept = np.zeros(pixels, stack.dtype)
    for i, frame in enumerate(flat):
        if good is not None:
            # Not a product: a bad pixel may hold NaN.
            kept[...] = 0
            np.copyto(kept, frame, where=good if good.ndim == 1 else good[i])
        sums[i] = (frame if good is None else kept).sum(dtype=dtype)
    return sums


def _good(stack: npt.NDArray[Any], mask: npt.NDArray[Any] | None) -> npt.NDArray[np.bool_] | None:
    """Which pixels count: (pixels,) for all frames or (n, pixels), or None for all."""
    if mask is None:
        return None
    if mask.shape not in (stack.shape, stack.shape[1:]):
        raise ValueError(
            f"mask: has shape {mask.shape}, the frames have {stack.shape[1:]}; give one frame's or all frames'"
        )
    good = ~bad_pixels(mask)
    pixels = math.prod(stack.shape[1:])
    return good.reshape(pixels) if mask.ndim == stack.ndim - 1 else good.reshape(len(stack), pixels)


def _limit(counts: npt.NDArray[np.int64], sigmas: float) -> float:
    median = float(np.median(counts))
    deviation = float(np.median(np.abs(counts - median)))
    return median + sigmas * max(_MAD_TO_SIGMA * deviation, math.sqrt(median), 1.0)
