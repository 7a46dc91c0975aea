"""A finer angle and shift for each member of a class: cross-correlation with the class's average of originals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from .averages import turned
from .frc import ring_correlation
from .polar import Complexes, Floats
from .working import EDGE

STEP_DEG = 4.0
_REACH = 3
_REACH_PX = 3
_AT_ONCE = 256
_INNER_PX, _OUTER_PX = 22.0, 28.0


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Transforms of an average at every fourth degree, complex64 (90, 64, 33)."""

    bank: Complexes


def references(halves: Floats) -> tuple[Reference, Reference]:
    """References of the two half-set averages, float32 (2, 64, 64), weighted ring by ring by what both have in common.

    The weight is the correlation that their ring correlation c foretells for the average of all with the truth,
    √(2c / (1 + c)) (Rosenthal and Henderson, J. Mol. Biol. 333, 2003). Each half set is to be aligned to its own
    average, so that noise that one picks up is not in the other.
    """
    common = np.clip(ring_correlation(halves[0], halves[1]), 0, 1)
    weight = np.sqrt(2 * common / (1 + common))
    f = scipy.fft.fftfreq(EDGE, 1 / EDGE)
    ring = np.minimum(np.rint(np.hypot(f[:, None], f[: EDGE // 2 + 1])), EDGE // 2).astype(int)
    at = np.arange(EDGE) - EDGE // 2
    fall = np.clip((np.hypot(at[:, None], at) - _INNER_PX) / (_OUTER_PX - _INNER_PX), 0, 1)
    mask = 0.5 + 0.5 * np.cos(np.pi * fall)
    one, two = (_bank(half, weight[ring], mask) for half in halves)
    return Reference(one), Reference(two)


def _bank(average: Floats, weight: npt.NDArray[np.float64], mask: npt.NDArray[np.float64]) -> Complexes:
    smooth = scipy.fft.irfft2(scipy.fft.rfft2(average) * weight, s=average.shape)
    smooth = (smooth - (smooth * mask).sum() / mask.sum()) * mask
    angles = np.arange(0, 360, STEP_DEG)
    pictures = turned(np.repeat(smooth[None].astype(np.float32), len(angles), 0), -angles, 0)
    bank: Complexes = scipy.fft.rfft2(pictures).conj().astype(np.complex64)
    return bank


def refined(images: Floats, reference: Reference, angle: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Angles (n,) and shifts (n, 2) at which images (n, 64, 64) correlate best with the reference.

    They are sought at most 12 degrees and 3 pixels (each way) from ``angle`` and ``shift``; parabolas make them finer
    than the steps of 4 degrees and one pixel.
    """
    angles, shifts = np.empty(len(images), np.float32), np.empty((len(images), 2), np.float32)
    for first in range(0, len(images), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        angles[some], shifts[some] = _refined(images[some], reference.bank, angle[some], shift[some])
    return angles, shifts


def _refined(images: Floats, bank: Complexes, angle: Floats, shift: Floats) -> tuple[Floats, Floats]:
    n = len(images)
    near = np.rint(np.asarray(angle) / STEP_DEG).astype(int)
    start = np.rint(shift).astype(int)
    waves = scipy.fft.rfft2(images)
    steps = np.arange(-_REACH - 1, _REACH + 2)
    tall = np.empty((n, len(steps), 2 * _REACH_PX + 3, 2 * _REACH_PX + 3), np.float32)
    reach = np.arange(-_REACH_PX - 1, _REACH_PX + 2)
    rows, columns = ((start[:, axis, None] + reach) % EDGE for axis in (1, 0))
    for i, step in enumerate(steps):
        maps = scipy.fft.irfft2(waves * bank[(near + step) % len(bank)], s=(EDGE, EDGE))
        tall[:, i] = maps[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    # The rim is there for the parabolas only.
    inner = tall[:, 1:-1, 1:-1, 1:-1]
    top = np.array(np.unravel_index(inner.reshape(n, -1).argmax(1), inner.shape[1:])).T + 1
    fine = np.stack([_parabola(tall, top, axis) for axis in range(3)], 1) + top
    found = (near + fine[:, 0] - _REACH - 1) * STEP_DEG
    moved = start + (fine[:, [2, 1]] - _REACH_PX - 1)
    return ((found + 180) % 360 - 180).astype(np.float32), moved.astype(np.float32)


def _parabola(tall: Floats, top: npt.NDArray[np.intp], axis: int) -> npt.NDArray[np.float64]:
    """How far beside the highest point the top of the parabola along one axis lies, -0.5..0.5."""
    each = np.arange(len(tall))
    low, high, after = (tall[(each, *(top + d * np.eye(3, dtype=int)[axis]).T)].astype(np.float64) for d in (-1, 0, 1))
    bend = low - 2 * high + after
    step: npt.NDArray[np.float64] = np.where(bend < 0, 0.5 * (low - after) / np.where(bend < 0, bend, -1), 0)
    return np.clip(step, -0.5, 0.5)
