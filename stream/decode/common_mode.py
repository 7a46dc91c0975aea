"""Common mode: the offset that the pixels of one ASIC, row or column share in one frame."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Over = Literal["median", "row", "column"]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def masked_median(values: Floats, unlit: Bools) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Median over the last axis of the values where ``unlit``, and how many those are.

    ``values`` float32 (…, k) and finite, ``unlit`` bool (…, k) or what broadcasts to it. An even count takes the
    mean of the two in the middle; no pixel gives 0.
    """
    chosen = np.where(unlit, values, np.float32(np.inf))
    # sort is vectorised in numpy 2 and takes counts that differ from group to group; a partition would need one each
    chosen.sort(axis=-1)
    count = np.count_nonzero(np.broadcast_to(unlit, values.shape), axis=-1)
    low = np.take_along_axis(chosen, np.maximum((count - 1) // 2, 0)[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(chosen, np.minimum(count // 2, values.shape[-1] - 1)[..., None], axis=-1)[..., 0]
    median = np.where(count > 0, low, np.float32(0))
    even = (count > 0) & (count % 2 == 0)
    np.add(low, high, out=median, where=even)
    np.multiply(median, np.float32(0.5), out=median, where=even)
    return median, count


def subtract_common_mode(
    values: Floats,
    usable: Bools,
    over: Over,
    *,
    asic_shape: tuple[int, int] | None = None,
    unlit: float | None = None,
    largest: float | None = None,
    min_pixels: int = 16,
) -> Floats:
    """Subtract from each ASIC, row or column the median of its unlit pixels, in place, and return ``values``.

    ``values`` float32 (…, ss, fs), dark already subtracted, finite, ADU, C-contiguous. ``usable`` bool, of the same
    shape or what broadcasts to it. ``asic_shape`` divides (ss, fs); by default a module is one ASIC. Pixels further
    than ``unlit`` from 0 are taken as lit. Groups of fewer than ``min_pixels`` unlit pixels, or with an offset
    larger than ``largest``, stay as they are: on a bright frame a wrong offset is worse than none. Raises
    ``ValueError`` for an ``asic_shape`` that does not divide the module.
    """
    slow, fast = asic_shape or (values.shape[-2], values.shape[-1])
    if values.shape[-2] % slow or values.shape[-1] % fast:
        raise ValueError(f"asic_shape {(slow, fast)} does not divide the module {values.shape[-2:]}; give a divisor")
    tiled = (*values.shape[:-2], values.shape[-2] // slow, slow, values.shape[-1] // fast, fast)
    tiles = values.reshape(tiled)
    quiet = np.broadcast_to(usable, values.shape).reshape(tiled)
    if unlit is not None:
        quiet = quiet & (np.abs(tiles) <= np.float32(unlit))
    axes = {"median": (-3, -1), "row": (-1,), "column": (-3,)}[over]
    last = tuple(range(-len(axes), 0))
    groups = np.moveaxis(tiles, axes, last)
    offset, count = masked_median(_flat(groups, len(axes)), _flat(np.moveaxis(quiet, axes, last), len(axes)))
    offset[count < min_pixels] = 0
    if largest is not None:
        offset[np.abs(offset) > largest] = 0
    groups -= offset.reshape(*offset.shape, *(1,) * len(axes))
    return values


def _flat(groups: npt.NDArray[Any], axes: int) -> npt.NDArray[Any]:
    return groups.reshape(*groups.shape[: groups.ndim - axes], -1)
