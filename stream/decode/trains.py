"""A train of shots, decoded as one array, taken apart into frames and their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData, Raw

MISSING = np.uint32(0x200)
"""CXI's pixel-mask bit for pixels that were not there (cxi_file_format, PIXEL_IS_MISSING)."""

_BLOCK = 32
_ORDER = ("pulse", "module", "ss", "fs")


def stack_train(raw: Raw, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The shots of a train, in the order of ``raw.pulses``: (``raw.count``, y, x) or (``raw.count``, module, ss, fs).

    ``array`` is ``raw.image`` decoded, in the shape it came in. ``raw.info["axes"]`` names its axes (words ``pulse``,
    ``module``, ``ss``, ``fs``, ``gain``: index 0 is taken, ``one``: dropped); without it a message of one shot is one
    image, and a train has its pulses first. ``raw.info["select"]`` holds the positions of the pulses that are wanted,
    all of them where it is missing. A view of ``array`` where the pulses come first and all are wanted, else a copy.
    Raises ``BadData("axes")`` where the array does not have these axes or holds too few pulses.
    """
    select: Sequence[int] | None = raw.info.get("select")
    pulses = _by_pulse(raw, array, select)
    if len(pulses) != raw.count:
        raise BadData("axes", f"train {raw.key}: {len(pulses)} pulses in the array, {raw.count} announced")
    return pulses


def split_train(raw: Raw, array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The shots of ``stack_train``, one array each: ``raw.count`` of (y, x) or (module, ss, fs)."""
    return list(stack_train(raw, array))


def split_mask(raw: Raw, array: npt.NDArray[Any] | None, shape: tuple[int, ...]) -> list[npt.NDArray[np.uint32]] | None:
    """The masks of the shots, ``raw.count`` of ``shape``, uint32: what came with the train, and what is missing.

    ``array`` is ``raw.mask`` decoded (any integer type, 0 = good; its bits are the sender's) or None. Modules named in
    ``raw.info["missing_modules"]`` are marked with CXI's bit 0x200. None where nothing is known to be bad.
    """
    missing: Sequence[int] = raw.info.get("missing_modules", ())
    if array is None and not missing:
        return None
    if array is None:
        mask = np.zeros(shape, np.uint32)
        mask[list(missing)] = MISSING
        return [mask] * raw.count
    masks = [np.array(m, dtype=np.uint32) for m in split_train(raw, array)]
    for mask in masks if missing else ():
        mask[list(missing)] |= MISSING
    return masks


def _by_pulse(raw: Raw, array: npt.NDArray[Any], select: Sequence[int] | None) -> npt.NDArray[Any]:
    """(pulse, [module,] ss, fs): a view where the pixels are already in that order, else a copy."""
    words: tuple[str, ...] = raw.info.get("axes", ())
    if not words:
        view, first = (array if raw.pulses else array[np.newaxis]), True
    elif len(words) != array.ndim:
        raise BadData("axes", f"train {raw.key}: array of shape {array.shape} has not the axes {' '.join(words)}")
    else:
        taken = array[tuple(0 if word in ("gain", "one") else slice(None) for word in words)]
        left = [word for word in words if word not in ("gain", "one")]
        view = taken.transpose([left.index(word) for word in _ORDER if word in left])
        view = view if "pulse" in left else view[np.newaxis]
        first = left[0] == "pulse" or "pulse" not in left
    if select and max(select) >= len(view):
        raise BadData("axes", f"train {raw.key}: pulse {max(select)} selected of {len(view)}")
    if first:
        return view if select is None else view[list(select)]
    return _materialised(view, slice(None) if select is None else list(select))


def _materialised(view: npt.NDArray[Any], wanted: slice | list[int]) -> npt.NDArray[Any]:
    """A C-ordered copy of the wanted pulses of (pulse, [module,] ss, fs), made in blocks that stay in the cache.

    A shot's pixels lie a whole train apart in memory: copied in one go, every cache line is fetched once per pulse.
    """
    pulses = len(view) if isinstance(wanted, slice) else len(wanted)
    out = np.empty((pulses, *view.shape[1:]), view.dtype)
    flat_in = view if view.ndim == 4 else view[:, np.newaxis]
    flat_out = out if view.ndim == 4 else out[:, np.newaxis]
    for module in range(flat_in.shape[1]):
        for row in range(0, flat_in.shape[2], _BLOCK):
            flat_out[:, module, row : row + _BLOCK] = flat_in[wanted, module, row : row + _BLOCK]
    return out
