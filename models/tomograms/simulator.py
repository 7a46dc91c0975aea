"""Simulated tomograms with truth: a scene, its tilt series through a transfer function, noise, back-projection.

The transfer function is one for all tilts and for the whole of each image: that defocus differs along a tilted specimen
is left out, and so are the detector's transfer, the dose's damage, and errors of alignment. Noise is white in the tilt
images and hence coloured by the weighting in the tomogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..particles.ctf import Ctf
from .assemble import build, particles
from .scene import CLASSES, Labels, Particles, Scene, SceneOptions
from .tilts import angles, back_project, filtered, project, weighted
from .volume import Floats

TRAIN, VALIDATION, TEST = 1000, 2000, 3000
"""First seeds of tomograms to train on, to choose with, and to tell of; a thousand each, never mixed."""


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """A tomogram and its truth; arrays (z, y, x).

    ``data``: float32, density dark, mean 0 and standard deviation 1. ``clean``: the same without noise, in the same
    units, with the same missing wedge. ``labels``: uint8, index into ``classes``, whose first is the background.
    ``hidden``: bool, voxels of membranes that face where no tilt of the series shows them. ``noise_sd``: of a voxel of
    ``data``. ``defocus_um``: under focus.
    """

    data: Floats
    clean: Floats
    labels: Labels
    hidden: npt.NDArray[np.bool_]
    particles: Particles
    voxel_a: float
    noise_sd: float
    defocus_um: float
    seed: int
    classes: tuple[str, ...] = CLASSES


def simulate(seed: int, options: SceneOptions | None = None) -> Simulated:
    """The tomogram of a seed: the same seed and options give the same voxels. Raises what ``assemble.build`` does."""
    options = options or SceneOptions()
    rng = np.random.default_rng([seed, 7])
    scene = build(rng, options)
    defocus = float(rng.uniform(*options.defocus_um))
    signal, noise = _series(scene, options, defocus, rng)
    tilts, depth = angles(*options.tilts), options.shape[0]
    edge = slice(options.margin, -options.margin or None)
    clean = back_project(weighted(signal), tilts, depth)[:, edge, edge]
    noisy = clean
    if noise is not None:
        noisy = clean + back_project(weighted(noise), tilts, depth)[:, edge, edge]
    mean, scale = float(noisy.mean(dtype=np.float64)), float(noisy.std(dtype=np.float64)) or 1.0
    return Simulated(
        data=np.ascontiguousarray((noisy - mean) / scale),
        clean=np.ascontiguousarray((clean - mean) / scale),
        labels=np.ascontiguousarray(scene.labels[:, edge, edge]),
        hidden=np.ascontiguousarray(scene.hidden[:, edge, edge]),
        particles=particles(scene, options),
        voxel_a=options.voxel_a,
        noise_sd=float((noisy - clean).std(dtype=np.float64)) / scale,
        defocus_um=defocus,
        seed=seed,
    )


def _series(
    scene: Scene, options: SceneOptions, defocus_um: float, rng: np.random.Generator
) -> tuple[Floats, Floats | None]:
    """Tilt images of all there is through the transfer function, and their noise; float32 (tilts, y, x)."""
    tilts = angles(*options.tilts)
    ctf = Ctf(defocus_um * 1e4, defocus_um * 1e4, voltage_kv=options.voltage_kv)
    matter = project(scene.matter, tilts)
    transfer = ctf.image(matter.shape[-2:], options.voxel_a)
    signal = filtered(matter, transfer)
    noise = None
    if options.snr is not None:
        # Gold and carbon are left out: a bead would make any membrane's noise small.
        variance = float(signal.var(axis=(1, 2), dtype=np.float64).mean())
        # A field with nothing in it has noise all the same.
        sd = np.sqrt(variance / options.snr) if variance > 0 else 1.0
        noise = (sd * rng.standard_normal(signal.shape, dtype=np.float32)).astype(np.float32)
    if scene.other.any():
        signal = signal + filtered(project(scene.other, tilts), transfer)
    return signal, noise
