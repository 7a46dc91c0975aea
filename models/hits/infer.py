"""From calibrated photons to the network's input, and from its probabilities to verdicts.

The daemon and the offline ``classify`` both call these functions, so that they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SIZE = 128
SINGLE = 1
"""The class that counts as a hit: exactly one particle."""

CLASSES = ("0", "1", "2", "3", "4+")
_UNUSABLE = 0x1 | 0x4 | 0x8 | 0x10 | 0x80 | 0x200 | 0x400


class Verdicts(NamedTuple):
    """``labels`` int64 (n,): likeliest class; ``scores`` float32 (n,): probability of one particle; ``accepted``."""

    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    accepted: npt.NDArray[np.bool_]


def to_input(
    images: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
    mask: npt.NDArray[Any] | None = None,
    size: int = SIZE,
    centre: tuple[float, float] | None = None,
    bin: int = 1,
) -> npt.NDArray[np.uint16] | npt.NDArray[np.float32]:
    """Cut the central ``size`` × ``size`` pixels (after binning) out of each frame, in photons.

    ``images``: (n, y, x) or a sequence of (y, x), any numeric dtype. ``mask``: see ``bad_pixels``; (y, x) for all or
    (n, y, x). ``centre``: the beam's (y, x) in pixels, the first of which reaches from 0 to 1; the window is the one
    whose middle is nearest to it (default: the middle of the frame), and may reach over the detector's edge. Photons
    of ``bin`` × ``bin`` pixels are summed. Masked pixels, pixels off the detector, and numbers that are not finite
    count 0; a negative sum becomes 0, because photons are counted.

    Gives (n, size, size): uint16 for uint8 and uint16 images that are not binned, otherwise float32. The array may
    share memory with ``images`` where there is nothing to change. Raises ``ValueError`` for shapes that do not match,
    and a window that misses the detector.
    """
    n = len(images)
    shape, dtype = _common(images, (size, size))
    across = size * bin
    if size < 1 or bin < 1:
        raise ValueError(f"size {size} and bin {bin} must be at least 1")
    y0, x0 = (math.floor(c - across / 2 + 0.5) for c in centre or (shape[0] / 2, shape[1] / 2))
    rows, columns = slice(max(y0, 0), min(y0 + across, shape[0])), slice(max(x0, 0), min(x0 + across, shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise ValueError(f"centre {centre}: a window of {across} × {across} pixels there misses the {shape} detector")
    bad = None if mask is None else bad_pixels(_cut_mask(mask, (n, *shape), rows, columns))
    counts = dtype in (np.dtype(np.uint8), np.dtype(np.uint16)) and bin == 1
    whole = (rows.stop - rows.start, columns.stop - columns.start) == (across, across)
    if isinstance(images, np.ndarray) and whole and bad is None and dtype == np.dtype(np.uint16) and counts:
        view: npt.NDArray[np.uint16] = images[:, rows, columns]
        return view
    window = np.zeros((n, across, across), np.uint16 if counts else np.float32)
    inside = window[:, rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
    _copy(inside, images, rows, columns)
    if bad is not None:
        np.copyto(inside, 0, where=bad)
    if counts:
        return window
    if dtype.kind == "f":
        finite = np.isfinite(inside)
        if not finite.all():
            np.copyto(inside, 0, where=~finite)
    binned = _bin(window, bin)
    return np.maximum(binned, 0, out=binned) if dtype.kind != "u" else binned


def verdicts(probabilities: npt.NDArray[np.floating[Any]], threshold: float) -> Verdicts:
    """Judge (n, classes) probabilities: the score is that of a single hit, accepted from ``threshold`` on.

    A score that is not a number is never accepted.
    """
    scores = probabilities[:, SINGLE].astype(np.float32)
    # Both in float32: a score that prints as 0.9 must pass a threshold of 0.9.
    return Verdicts(probabilities.argmax(axis=1), scores, scores >= np.float32(threshold))


def bad_pixels(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which pixels of a mask hold nothing to be used: bool, True = bad, or the pixel bits of CXI 1.6 (0 = good).

    Of CXI's bits, invalid, hot, dead, shadowed, bad, missing and noisy count. A saturated pixel (0x2) is used: where
    there were at least so many photons, 0 would be the worst guess. Raises ``ValueError`` for a mask of floats.
    """
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind not in "iu":
        raise ValueError(f"mask: has dtype {mask.dtype}; give bool (True = bad) or CXI's pixel bits (integers)")
    bits = _UNUSABLE & int(np.iinfo(mask.dtype).max)
    bad: npt.NDArray[np.bool_] = np.bitwise_and(mask, mask.dtype.type(bits)) != 0
    return bad


def _common(
    images: npt.NDArray[Any] | Sequence[npt.NDArray[Any]], empty: tuple[int, int]
) -> tuple[tuple[int, int], np.dtype[Any]]:
    """The shape and dtype of all frames."""
    if isinstance(images, np.ndarray):
        if images.ndim != 3:
            raise ValueError(f"images: have shape {images.shape}, not (n, y, x)")
        return (images.shape[1], images.shape[2]), images.dtype
    shapes = {frame.shape for frame in images}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"images: have shapes {', '.join(map(str, sorted(shapes)))}, not one shape (y, x)")
    shape = next(iter(shapes), empty)
    return (shape[0], shape[1]), np.result_type(*images) if len(images) else np.dtype(np.uint16)


def _cut_mask(mask: npt.NDArray[Any], shape: tuple[int, int, int], rows: slice, columns: slice) -> npt.NDArray[Any]:
    if mask.shape not in (shape, shape[1:]):
        raise ValueError(f"mask: has shape {mask.shape}, the frames have {shape[1:]}; give (y, x) or (n, y, x)")
    return mask[..., rows, columns]


def _copy(
    target: npt.NDArray[Any], images: npt.NDArray[Any] | Sequence[npt.NDArray[Any]], rows: slice, columns: slice
) -> None:
    if isinstance(images, np.ndarray):
        np.copyto(target, images[:, rows, columns], casting="unsafe")
        return
    for place, frame in zip(target, images, strict=True):
        np.copyto(place, frame[rows, columns], casting="unsafe")


def _bin(window: npt.NDArray[np.float32], bin: int) -> npt.NDArray[np.float32]:
    """Sum blocks of (n, y, x): whole rows first, which the processor adds many pixels at a time."""
    if bin == 1:
        return window
    rows = window[:, ::bin].copy()
    for i in range(1, bin):
        rows += window[:, i::bin]
    binned = rows[:, :, ::bin].copy()
    for i in range(1, bin):
        binned += rows[:, :, i::bin]
    return binned
