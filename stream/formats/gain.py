"""The camera's gain reference: what each pixel is multiplied with, and what becomes of pixels that measure nothing.

Convention: corrected = raw × gain, as for the gain references that MotionCor and RELION take with MRC and TIFF movies
and for EPU's ``.gain`` files; references that are divided by (RELION's for EER in MRC) are turned over when they are
loaded. Zero, negative and non-finite values mark defects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData

Floats: TypeAlias = npt.NDArray[np.float32]
Flip: TypeAlias = Literal["none", "up_down", "left_right"]
_MOST_DEFECTS = 0.1
_REACH = 2


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """A gain reference: ``factor`` float32 (ny, nx), 0 at ``defects`` (bool, same shape)."""

    factor: Floats
    defects: npt.NDArray[np.bool_]
    name: str

    def apply(self, data: npt.NDArray[Any], name: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Multiply ``data`` (ny, nx), any real dtype; the answer is float32, with the defects.

        Raises ``BadData("gain_shape")`` for another shape, naming the remedy for one that is turned.
        """
        if data.shape != self.factor.shape:
            ny, nx = data.shape
            turned = data.shape == self.factor.shape[::-1]
            remedy = (
                "it is turned: set rotate to 90 or 270 degrees" if turned else "name the reference of this camera mode"
            )
            raise BadData(
                "gain_shape",
                f"{name}: {ny} × {nx} pixels, gain reference {self.name} "
                f"{self.factor.shape[0]} × {self.factor.shape[1]}; {remedy}",
            )
        return np.multiply(data, self.factor, dtype=np.float32, casting="unsafe"), self.defects


def make_gain(
    reference: npt.NDArray[Any], name: str, *, divide: bool = False, rotate: int = 0, flip: Flip = "none"
) -> Gain:
    """Prepare a reference (ny, nx): ``rotate`` it counter-clockwise as arrays are printed (degrees), then ``flip`` it.

    ``divide``: the reference is divided by, so its reciprocal is multiplied with. Raises ``BadData("gain")`` for one
    that is no image, or mostly zero or not finite, and ``ValueError`` for an angle that is no multiple of 90.
    """
    if reference.ndim != 2:
        raise BadData("gain", f"{name}: shape {reference.shape}; a gain reference is one image")
    if rotate % 90:
        raise ValueError(f"rotate {rotate}: use 0, 90, 180 or 270")
    turned = np.rot90(reference, rotate // 90)
    turned = {"none": turned, "up_down": turned[::-1], "left_right": turned[:, ::-1]}[flip]
    with np.errstate(over="ignore"):
        factor = turned.astype(np.float32)
    good = np.isfinite(factor) & (factor > 0)
    if np.count_nonzero(~good) > _MOST_DEFECTS * good.size:
        raise BadData(
            "gain", f"{name}: {np.count_nonzero(~good)} of {good.size} pixels are zero or not finite; is it a gain?"
        )
    if divide:
        np.divide(1, factor, out=factor, where=good)
    factor[~good] = 0
    return Gain(np.ascontiguousarray(factor), np.ascontiguousarray(~good), name)


def repair(data: npt.NDArray[Any], bad: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Give each ``bad`` pixel (bool, same shape) the mean of the good ones within two pixels, in place where possible.

    A pixel with no such neighbour gets the mean of all good pixels. ``data`` (ny, nx) is floating-point.
    """
    y, x = np.nonzero(bad)
    ny, nx = data.shape
    sums, counts = np.zeros(len(y), np.float64), np.zeros(len(y), np.int64)
    for dy in range(-_REACH, _REACH + 1):
        for dx in range(-_REACH, _REACH + 1):
            at_y, at_x = y + dy, x + dx
            use = (at_y >= 0) & (at_y < ny) & (at_x >= 0) & (at_x < nx)
            use[use] = ~bad[at_y[use], at_x[use]]
            sums[use] += data[at_y[use], at_x[use]]
            counts[use] += 1
    fill = data[~bad].mean(dtype=np.float64) if not counts.all() else 0.0
    data[y, x] = np.where(counts > 0, sums / np.maximum(counts, 1), fill)
    return data
