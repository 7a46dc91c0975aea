"""From a signal in units of one photon to whole photons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST = np.float32(65535)


def to_photons(signal: npt.NDArray[np.float32], threshold: float, out: npt.NDArray[np.uint16]) -> bool:
    """Write whole photons into ``out``; say whether any pixel had more than uint16 holds (it gets 65535).

    A pixel has k photons when its signal is at least k - 1 + ``threshold`` and less than k + ``threshold``: 0.5
    rounds to the nearest, 0.7 counts a photon only where most of its charge arrived, which suppresses noise and
    shared charge. Negative signal is 0 photons. ``signal`` is finite, C-contiguous, of ``out``'s shape, and is used
    as scratch: it holds no meaning afterwards.
    """
    np.add(signal, np.float32(1 - threshold), out=signal)
    clipped = bool(signal.max(initial=0) >= LARGEST + 1)
    # clip is one pass and vectorised, maximum against a scalar is five times slower; the cast rounds towards 0
    np.clip(signal, np.float32(0), LARGEST, out=signal)
    np.copyto(out, signal, casting="unsafe")
    return clipped
