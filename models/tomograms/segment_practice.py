"""A segmentation to begin with: windows of simulated tomograms with their true labels.

From random weights EDSS3D needs more passes over noisy windows than a session of two cores has time for. What tells
structure from noise is the same everywhere, so hidden layers are learned here once, and a session's training starts
from them (``segment_start.begin_with``). Truth of simulated tomograms is used for this alone; a session's own labels
are weak ones, of its marked clusters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .labels import BACKGROUND, IGNORED, Labels
from .scene import CLASSES, SceneOptions
from .segment_set import Examples, read_windows
from .simulator import TRAIN, Simulated, simulate
from .told import Progress, Stop, Told
from .volume import ArrayVolume, Floats
from .working import Working

_JITTER = 8


@dataclass(frozen=True, slots=True)
class PracticeOptions:
    """``tomograms``: how many, their seeds count on from ``seed``. ``windows``: of each. ``edge``: of a window.

    ``snr``: least and most, drawn evenly on a logarithmic scale. ``background``: share of windows that lie anywhere,
    the others are about voxels of classes, each of which gets as many. ``scene``: what is simulated.
    """

    tomograms: int = 12
    seed: int = TRAIN
    windows: int = 100
    edge: int = 40
    snr: tuple[float, float] = (0.05, 0.3)
    background: float = 0.25
    scene: SceneOptions = field(default_factory=SceneOptions)


def simulated_examples(
    options: PracticeOptions, *, progress: Progress | None = None, stop: Stop | None = None
) -> Examples:
    """Windows with true labels, by the simulator's ``CLASSES``; 255 where a membrane is in the missing wedge.

    Raises ``Stopped``, and what the simulator does.
    """
    told, found = Told(progress, stop), []
    for number in range(options.tomograms):
        told("simulate tomograms", number, options.tomograms)
        seed = options.seed + number
        rng = np.random.default_rng([seed, 11])
        snr = float(np.exp(rng.uniform(*np.log(options.snr))))
        made = simulate(seed, replace(options.scene, snr=snr))
        found.append(_windows(made, options, rng))
    told("simulate tomograms", options.tomograms, options.tomograms)
    tomogram = np.concatenate([np.full(len(windows), i, np.int32) for i, (windows, _) in enumerate(found)])
    return Examples(np.concatenate([w for w, _ in found]), np.concatenate([v for _, v in found]), tomogram)


def _windows(made: Simulated, options: PracticeOptions, rng: np.random.Generator) -> tuple[Floats, Labels]:
    truth = np.where(made.hidden, np.uint8(IGNORED), made.labels)
    middle = _middles(truth, options, rng)
    working = Working(ArrayVolume(made.data, made.voxel_a), made.voxel_a)
    labels = read_windows(ArrayVolume(truth, made.voxel_a), middle, options.edge).astype(np.uint8)
    return read_windows(working, middle, options.edge), labels


def _middles(truth: Labels, options: PracticeOptions, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Whole voxels (n, 3), x, y, z, near voxels of each class, and anywhere."""
    there = [value for value in range(len(CLASSES)) if value != BACKGROUND and (truth == value).any()]
    share = int(options.windows * (1 - options.background) / max(1, len(there)))
    shape = np.array(truth.shape)
    picked = [rng.integers(0, shape, (options.windows - share * len(there), 3))]
    for value in there:
        voxels = np.flatnonzero(truth == value)
        at = np.stack(np.unravel_index(rng.choice(voxels, share), truth.shape), 1)
        picked.append(at + rng.integers(-_JITTER, _JITTER + 1, at.shape))
    return np.clip(np.concatenate(picked), 0, shape - 1)[:, ::-1].astype(np.intp)
