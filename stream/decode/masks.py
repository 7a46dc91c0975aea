"""Pixel masks: CXI's bits, other people's conventions translated into them, and how masks are put together.

The mask is the truth about a pixel; the value under a masked pixel is only a filling (0 after calibration).
"""

from __future__ import annotations

from enum import IntFlag
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.uint32]
MaskIs: TypeAlias = Literal["bad", "good", "cxi", "nexus"]


class PixelMask(IntFlag):
    """The bits of CXI's ``mask`` (CXI file format 1.6, table "Definition of each bit in the mask"); 0 is a good pixel.

    ``VIRTUAL`` is ours: CXI leaves the high bits to its users, and NeXus has a bit for interpolated pixels.
    """

    INVALID = 0x1
    SATURATED = 0x2
    HOT = 0x4
    DEAD = 0x8
    SHADOWED = 0x10
    BAD = 0x80
    MISSING = 0x200
    NOISY = 0x400
    HAS_SIGNAL = 0x1000
    VIRTUAL = 0x80000000


#: A pixel with one of these bits says nothing about the photons. A saturated one does: there were at least so many.
UNUSABLE = PixelMask(0x1 | 0x4 | 0x8 | 0x10 | 0x80 | 0x200 | 0x400)

#: Bits of NeXus' ``pixel_mask`` (NXdetector; DECTRIS sends the same) and what each becomes. Bits 0 to 7 tell analysis
#: to leave the pixel out, also where NeXus gives no reason (5 and 7); bits 9 to 30 have no meaning and are dropped.
NEXUS_TO_CXI: dict[int, PixelMask] = {
    0: PixelMask.MISSING,  # gap, no sensor
    1: PixelMask.DEAD,
    2: PixelMask.BAD,  # under-responding
    3: PixelMask.HOT,  # over-responding
    4: PixelMask.NOISY,
    5: PixelMask.BAD,
    6: PixelMask.BAD,  # part of a cluster of problematic pixels
    7: PixelMask.BAD,
    8: PixelMask.BAD,  # masked by the user
    31: PixelMask.VIRTUAL,  # interpolated at a corner: marked, not left out
}


def from_nexus(pixel_mask: npt.NDArray[Any]) -> Mask:
    """Translate a NeXus or DECTRIS ``pixel_mask`` (any shape, any integer dtype) into CXI bits, uint32, same shape."""
    source = pixel_mask.astype(np.int64).astype(np.uint32)
    mask = np.zeros(source.shape, np.uint32)
    for bit, meaning in NEXUS_TO_CXI.items():
        np.bitwise_or(mask, np.uint32(meaning), out=mask, where=(source & np.uint32(1 << bit)) != 0)
    return mask


def from_bits(
    values: npt.NDArray[Any], good: int = 0, bad: int = 0xFFFFFFFF, meaning: PixelMask = PixelMask.BAD
) -> Mask:
    """Read a mask by CrystFEL's rule: bad unless all bits of ``good`` are set, and bad if any bit of ``bad`` is set.

    ``values`` has any shape and integer dtype; the answer has ``meaning`` at bad pixels (uint32, same shape).
    Source of the rule: crystfel_geometry(5), ``maskN_goodbits`` and ``maskN_badbits``.
    """
    bits = values.astype(np.int64)
    broken = ((bits & good) != good) | ((bits & bad) != 0)
    return np.where(broken, np.uint32(meaning), np.uint32(0))


def from_flags(values: npt.NDArray[Any], mask_is: MaskIs) -> Mask:
    """Translate a mask read from a file into CXI bits (uint32, same shape).

    ``bad``: non-zero pixels are bad. ``good``: non-zero pixels are good. ``cxi``: the bits are CXI's already.
    ``nexus``: the bits are those of ``pixel_mask``. NaN counts as bad under ``bad`` and ``good``.
    """
    if mask_is == "cxi":
        return values.astype(np.int64).astype(np.uint32)
    if mask_is == "nexus":
        return from_nexus(values)
    broken = values != 0 if mask_is == "bad" else (values == 0) | (values != values)  # noqa: PLR0124 (finds NaN)
    return np.where(broken, np.uint32(PixelMask.BAD), np.uint32(0))


def combine(shape: tuple[int, ...], *masks: npt.NDArray[Any] | None) -> Mask:
    """Put masks of CXI bits together: a new uint32 array of ``shape`` with every bit that any of them has.

    A mask of fewer dimensions is repeated over the leading ones; None is no mask. Raises ``ValueError`` for a mask
    that does not fit ``shape``.
    """
    result = np.zeros(shape, np.uint32)
    for mask in masks:
        if mask is not None:
            np.bitwise_or(result, mask.astype(np.uint32, copy=False), out=result)
    return result


def usable(mask: Mask) -> npt.NDArray[np.bool_]:
    """Which pixels carry a measurement (bool, the mask's shape): none of the bits of ``UNUSABLE`` is set."""
    good: npt.NDArray[np.bool_] = (mask & np.uint32(UNUSABLE)) == 0
    return good
