"""JUNGFRAU raw data: the gain stage in bits 14 and 15, a pedestal and a gain per stage.

A pixel that collects more charge switches from the most sensitive stage G0 to G1 and then to G2, in which the reading
falls as the charge grows: their gains are negative. Energy = (ADC - pedestal of the stage) / gain of the stage;
photons = energy / photon energy. Gains are in ADU/keV, as in PSI's gain maps (Redford et al., JINST 13 C01027, 2018).

Checked against a real module (raw frames, three pedestals, the converted values of another program; its gain map is
missing and the units are not stated). There ``converted`` is (ADC - pedestal) times one factor per pixel and stage, to
float32 rounding. The factors' medians, one over 505, -17.9 and -1.43 ADU, have the ratios of JUNGFRAU's gains, and are
40.8, -1.45 and -0.116 ADU/keV if the unit is a photon of 12.4 keV. Not tested that way: the gain of pixels seen only
once in a stage. The reading 0xC000 becomes one fixed large number there: a pixel at the end of G2's range.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .masks import PixelMask

ADC_BITS = np.uint16(0x3FFF)
LARGEST_ADC = 0x3FFF
STAGE_SHIFT = 14
NEVER = 2  # bits 10 name no stage
SWITCHED = np.uint16(0x4000)  # the smallest reading outside G0
SATURATED = np.uint16(0xC000)  # G2 with an ADC of 0
NO_DATA = np.uint16(0xFFFF)

Raw16 = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


def stage(raw: Raw16) -> npt.NDArray[np.uint8]:
    """Gain stage of each pixel: 0, 1, 2, and 3 where the bits name none (uint8, the shape of ``raw``)."""
    return np.take(np.array([0, 1, 3, 2], np.uint8), raw >> STAGE_SHIFT)


def by_bits(per_stage: Floats) -> Floats:
    """Arrange (3, pixels) of G0, G1, G2 as (4, pixels) so that the two bits index it; bits that name no stage get 0."""
    table = np.zeros((4, per_stage[0].size), np.float32)
    table[[0, 1, 3]] = per_stage.reshape(3, -1)
    return table


def convert_switched(raw: Raw16, pedestal: Floats, factor: Floats, out: Floats) -> None:
    """Write (ADC - pedestal) * factor of every pixel not in G0 into ``out``; leave the others alone.

    ``raw`` uint16 (n, pixels), ``out`` float32 of the same shape, ``pedestal`` and ``factor`` from ``by_bits``.
    """
    frame, pixel = np.nonzero(raw >= SWITCHED)
    if frame.size:
        reading = raw[frame, pixel]
        row = reading >> STAGE_SHIFT
        out[frame, pixel] = ((reading & ADC_BITS).astype(np.float32) - pedestal[row, pixel]) * factor[row, pixel]


def convert(raw: Raw16, pedestal: Floats, gain: Floats) -> Floats:
    """Energy (float32, n, …; keV for gains in ADU/keV) of raw readings (n, …) with ``pedestal`` and ``gain`` (3, …).

    Pixels whose bits name no stage are 0; ``marks`` tells which.
    """
    flat = raw.reshape(len(raw), -1)
    offset, factor = by_bits(pedestal), by_bits(np.float32(1) / gain)
    out: Floats = ((flat & ADC_BITS).astype(np.float32) - offset[0]) * factor[0]
    convert_switched(flat, offset, factor, out)
    return out.reshape(raw.shape)


def marks(raw: Raw16) -> list[tuple[npt.NDArray[np.bool_], PixelMask]]:
    """Which pixels the reading itself says something of (bool, the shape of ``raw``), and what, in CXI's bits."""
    return [
        ((raw >> STAGE_SHIFT) == NEVER, PixelMask.INVALID),
        (raw == SATURATED, PixelMask.SATURATED),
        (raw == NO_DATA, PixelMask.MISSING),
    ]
