"""Detector calibration of a burst of frames: gain stage, dark, common mode, gain, photons; and the mask of each frame.

Order and reasons: the dark is subtracted first; the common mode is an offset of the readout, so it is found and
removed in ADU before the gain; photons come last. Masked pixels are 0 in calibrated data, so that no NaN reaches a
network or a sum; whether a 0 was measured is what the mask says. Saturated pixels keep their value.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from . import jungfrau
from .calibration_settings import CalibrateSettings, CommonModeSettings
from .common_mode import subtract_common_mode
from .constants import Constants, ConstantsError, load_constants
from .masks import Mask, PixelMask, usable
from .photons import to_photons

__all__ = ["CalibrateSettings", "Calibrated", "Calibrator", "CommonModeSettings", "ConstantsError", "load_constants"]

Array = npt.NDArray[Any]
BLOCK = 65536  # pixels worked on at a time: 256 KiB of float32 stay in a core's cache from one step to the next
BELIEVABLE = 1e9  # no detector reads this many ADU; a larger number (or NaN) in floating-point data is not a reading


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A calibrated burst of n frames.

    ``data`` (n, …, ss, fs): uint16 photons, float32, or the array that came in where nothing is changed. ``masks``:
    per frame a uint32 array (…, ss, fs) of CXI bits, or None where the calibrator's static ``mask`` says all.
    ``clipped``: pixels with more photons than uint16 holds; they are 65535 and marked saturated.
    """

    data: Array
    masks: tuple[Mask | None, ...]
    clipped: int = 0


class Calibrator:
    """Applies one detector's constants to bursts of frames. May be used by several threads at once."""

    def __init__(
        self,
        settings: CalibrateSettings,
        constants: Constants,
        error_value: int | None = None,
        saturation_value: int | None = None,
    ) -> None:
        """Prepare the constants (from ``load_constants``) for speed.

        ``error_value`` and ``saturation_value`` are what the sender said of its raw values; the settings' own words
        come first. Raises ``ConstantsError`` where ASICs do not divide the module.
        """
        self.settings = settings
        self.mask = constants.mask
        self.shape = constants.mask.shape
        self._error_value = error_value
        self._saturation = settings.saturation_adu if settings.saturation_adu is not None else saturation_value
        self._static = np.ascontiguousarray(constants.mask).reshape(-1)
        self._good = usable(self._static)
        self._scratch = threading.local()
        self._threshold = 0.5 if settings.round == "nearest" else settings.round_threshold_photons
        self._prepare(constants)
        asic = settings.common_mode.asic_shape
        if asic and (len(self.shape) < 2 or self.shape[-2] % asic[0] or self.shape[-1] % asic[1]):
            raise ConstantsError([f"common_mode.asic_shape: {asic} does not divide {self.shape}; give a divisor"])

    def _prepare(self, constants: Constants) -> None:
        """Fold gain, photon size and mask into one factor per pixel, (1 or 4, pixels)."""
        stages = self.settings.kind == "jungfrau"
        full = (3, *self.shape) if stages else self.shape
        dark = np.zeros(full, np.float32) if constants.dark is None else constants.dark
        gain = constants.gain
        if gain is None:
            gain = np.ones(full, np.float32)
            if stages:
                gain *= np.array(self.settings.stage_gain_adu_per_kev, np.float32).reshape(3, *(1,) * len(self.shape))
        factor = np.float32(1) / (gain * np.float32(self.settings.unit_of_photon))
        if stages:
            self._dark, self._factor = jungfrau.by_bits(dark), jungfrau.by_bits(factor)
        else:
            self._dark, self._factor = dark.reshape(1, -1), factor.reshape(1, -1)
        # a factor of 0 fills masked pixels with 0 at no cost
        self._factor = self._factor * self._good

    @property
    def changes_pixels(self) -> bool:
        """Whether ``apply`` changes any pixel. If not, the bytes on the wire can be stored as they came."""
        return self.settings.changes_pixels

    def apply(self, stack: Array, masks: Mask | None = None) -> Calibrated:
        """Calibrate a burst (n, …, ss, fs) of raw frames, any integer or floating-point dtype.

        ``masks``: CXI bits that came with the data, (…, ss, fs) for all or (n, …, ss, fs) for each frame. NaN, ±inf
        and values beyond belief become masked pixels (``INVALID``). Raises ``BadData`` for another shape or dtype.
        """
        self._check(stack, masks)
        flat = np.ascontiguousarray(stack).reshape(len(stack), self._static.size)
        found = self._frame_masks(flat)
        if masks is not None:
            given = np.broadcast_to(masks.astype(np.uint32, copy=False).reshape(-1, flat.shape[1]), flat.shape)
            found = [more | (self._static if mask is None else mask) for mask, more in zip(found, given, strict=True)]
        data, clipped = stack, 0
        if self.changes_pixels:
            result = self._convert(_believable(flat), found)
            clipped = self._mark_clipped(result, found) if result.dtype == np.uint16 else 0
            data = result.reshape(stack.shape)
        return Calibrated(data, tuple(None if m is None else m.reshape(self.shape) for m in found), clipped)

    def _check(self, stack: Array, masks: Mask | None) -> None:
        if stack.shape[1:] != self.shape:
            raise BadData("shape", f"frames of {stack.shape[1:]}, constants of {self.shape}; check detector and axes")
        if stack.dtype.kind not in "uif" or (self.settings.kind == "jungfrau" and stack.dtype != np.uint16):
            wanted = "uint16 with gain bits" if self.settings.kind == "jungfrau" else "integers or floats"
            raise BadData("dtype", f"pixels of {stack.dtype}; calibrate.kind: {self.settings.kind} needs {wanted}")
        if masks is not None and masks.shape not in (stack.shape, self.shape):
            raise BadData(
                "mask", f"mask of {masks.shape} with frames of {stack.shape}; leave it out or send one per pixel"
            )

    def _frame_masks(self, flat: Array) -> list[Mask | None]:
        """Per frame the static mask and what its readings say, or None where they say nothing new."""
        missing = self._missing_value(flat.dtype)
        highest = flat.max(axis=1) if flat.size else np.zeros(len(flat), flat.dtype)
        lowest = flat.min(axis=1) if flat.size and (flat.dtype.kind == "f" or missing is not None) else highest
        suspect = np.zeros(len(flat), np.bool_)
        if flat.dtype.kind == "f":
            suspect |= ~((highest <= BELIEVABLE) & (lowest >= -BELIEVABLE))
        if self._saturation is not None:
            suspect |= highest >= self._saturation
        if missing is not None:
            suspect |= (lowest <= missing) & (highest >= missing)
        if self.settings.kind == "jungfrau":
            suspect |= highest >= np.uint16(jungfrau.NEVER << jungfrau.STAGE_SHIFT)
        return [self._new_bits(frame, missing) if odd else None for frame, odd in zip(flat, suspect, strict=True)]

    def _missing_value(self, dtype: np.dtype[Any]) -> int | None:
        word = self.settings.missing_value
        if isinstance(word, int):
            return word
        if word == "none":
            return None
        if self._error_value is not None:
            return self._error_value
        return int(np.iinfo(dtype).max) if self.settings.kind == "none" and dtype.kind == "u" else None

    def _new_bits(self, frame: Array, missing: int | None) -> Mask | None:
        found: list[tuple[npt.NDArray[np.bool_], PixelMask]] = []
        if self.settings.kind == "jungfrau":
            found += jungfrau.marks(frame)
        if missing is not None:
            found.append((frame == missing, PixelMask.MISSING))
        if self._saturation is not None:
            full = frame >= self._saturation
            found.append((full if missing is None else full & (frame != missing), PixelMask.SATURATED))
        if frame.dtype.kind == "f":
            found.append((~(np.abs(frame) <= BELIEVABLE), PixelMask.INVALID))
        mask: Mask | None = None
        for where, bit in found:
            new = where & self._good
            if new.any():
                mask = self._static.copy() if mask is None else mask
                np.bitwise_or(mask, np.uint32(bit), out=mask, where=new)
        return mask

    def _convert(self, flat: Array, masks: list[Mask | None]) -> npt.NDArray[np.float32] | npt.NDArray[np.uint16]:
        """Raw readings (n, pixels) to photons or float32, block by block."""
        whole = self.settings.round != "none"
        count, pixels = flat.shape
        out = np.empty(flat.shape, np.uint16 if whole else np.float32)
        width = pixels if self.settings.common_mode.over != "none" else min(pixels, BLOCK)
        height = max(1, BLOCK // max(width, 1))
        for top in range(0, count, height):
            for left in range(0, pixels, max(width, 1)):
                part = np.s_[top : top + height, left : left + width]
                signal = self._signal(flat[part], part[1], masks[part[0]])
                if whole:
                    to_photons(signal, self._threshold, out[part])
                else:
                    out[part] = signal
        return out

    def _signal(self, raw: Array, columns: slice, masks: list[Mask | None]) -> npt.NDArray[np.float32]:
        """One block in units of a photon (or what the settings lead to), in this thread's scratch."""
        signal = self._block(raw.shape)
        dark, factor = self._dark[:, columns], self._factor[:, columns]
        stages = self.settings.kind == "jungfrau"
        odd = [(row, mask[columns]) for row, mask in enumerate(masks) if mask is not None]
        unusable = [(row, ~usable(mask)) for row, mask in odd]
        np.copyto(signal, raw & jungfrau.ADC_BITS if stages else raw, casting="same_kind")
        np.subtract(signal, dark[0], out=signal)
        if self.settings.common_mode.over != "none":
            self._common_mode(signal, raw, unusable)
        np.multiply(signal, factor[0], out=signal)
        if stages:
            jungfrau.convert_switched(raw, dark, factor, signal)
        for row, bad in unusable:
            signal[row, bad] = 0
        return signal

    def _common_mode(
        self, signal: npt.NDArray[np.float32], raw: Array, unusable: list[tuple[int, npt.NDArray[np.bool_]]]
    ) -> None:
        words = self.settings.common_mode
        if words.over == "none":
            return
        good = np.tile(self._good, (len(signal), 1))
        for row, bad in unusable:
            good[row, bad] = False
        if self.settings.kind == "jungfrau":
            good &= raw < jungfrau.SWITCHED
        shape = (len(signal), *self.shape)
        subtract_common_mode(
            signal.reshape(shape),
            good.reshape(shape),
            words.over,
            asic_shape=words.asic_shape,
            unlit=words.unlit_adu,
            largest=words.max_adu,
            min_pixels=words.min_pixels,
        )

    def _block(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Scratch of this shape, one per thread, reused from burst to burst."""
        size = shape[0] * shape[1]
        buffer: npt.NDArray[np.float32] | None = getattr(self._scratch, "buffer", None)
        if buffer is None or buffer.size < size:
            buffer = self._scratch.buffer = np.empty(size, np.float32)
        return buffer[:size].reshape(shape)

    def _mark_clipped(self, photons: Array, masks: list[Mask | None]) -> int:
        clipped = 0
        for row in np.flatnonzero(photons.max(axis=1, initial=0) == np.iinfo(np.uint16).max):
            full = photons[row] == np.iinfo(np.uint16).max
            mask = masks[row]
            masks[row] = (self._static if mask is None else mask) | np.where(full, np.uint32(PixelMask.SATURATED), 0)
            clipped += int(np.count_nonzero(full))
        return clipped


def _believable(flat: Array) -> Array:
    """The readings with 0 for NaN, infinities and numbers beyond belief; the array itself where there are none."""
    if flat.dtype.kind != "f" or not flat.size:
        return flat
    odd = ~((flat.max(axis=1) <= BELIEVABLE) & (flat.min(axis=1) >= -BELIEVABLE))
    if not odd.any():
        return flat
    clean = flat.copy()
    clean[odd] = np.where(np.abs(flat[odd]) <= BELIEVABLE, flat[odd], 0)
    return clean
