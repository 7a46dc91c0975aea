"""What classes are found by: denoised images, smoothed originals, or their sum, which is what ships.

Particles are cut out of simulated micrographs (``paper`` conditions: ice noise, transfer function, neighbours), 4 views
in random turns, centres off by 1.5 pixels, and grouped into 8 classes from two seeds. Maps that no training saw, and
that the choice was made on.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from beamsieve.models.bundle import load_bundle
from beamsieve.models.classes2d.compared import compared, smoothed
from beamsieve.models.classes2d.denoise import Denoiser
from beamsieve.models.classes2d.kmeans import kmeans
from beamsieve.models.classes2d.polar import features
from beamsieve.models.classes2d.working import working
from beamsieve.models.evaluate import cluster_scores
from beamsieve.models.particles.extract import extract
from beamsieve.models.particles.maps import Volume, load_map
from beamsieve.models.particles.simulator import named, simulate

from .report import Report

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "maps"
MAPS = ("emd_1066.map", "emd_1099.map")
RATIOS = (0.1, 0.05)
PARTICLES, CLASSES, VIEWS = 900, 8, 4
OFF_PX = 1.5


def measure(*, denoiser: str, device: str, threads: int) -> Report:
    """A row for each map and signal-to-noise ratio. Raises ``ImportError`` where the maps are not at hand."""
    if not all((DATA / name).exists() for name in MAPS):
        raise ImportError(f"no {', '.join(MAPS)} in {DATA} (BEAMSIEVE_DATA names the data's folder)")
    run = Denoiser(load_bundle(denoiser), device=device, threads=threads)
    report = Report(
        "compared",
        f"Purity of {CLASSES} classes by what is compared ({denoiser}), {PARTICLES} particles in {VIEWS} views",
        {"map": "", "SNR": "g", "denoised": ".3f", "smoothed": ".3f", "sum": ".3f"},
    )
    for name in MAPS:
        volume = load_map(DATA / name)
        for snr in RATIOS:
            images, view = _particles(volume, snr)
            denoised = run(images)
            shown = {"denoised": denoised, "smoothed": smoothed(images), "sum": compared(images, denoised)}
            found = {what: _purity(these, view) for what, these in shown.items()}
            report.rows.append({"map": name, "SNR": snr, **found})
    return report


def _particles(volume: Volume, snr: float) -> tuple[np.ndarray, np.ndarray]:
    """Working images and their views, from as many micrographs as it takes."""
    conditions = replace(named("paper"), snr=snr, views=VIEWS)
    images: list[np.ndarray] = []
    view: list[np.ndarray] = []
    number = 0
    while sum(map(len, view)) < PARTICLES:
        found = simulate(3, number, conditions, volume)
        rng = np.random.default_rng(number)
        x, y = (c + rng.normal(0, OFF_PX, len(c)) for c in (found.x, found.y))
        diameter = found.diameter_a / found.pixel_a
        box = int(4 * np.ceil(1.5 * diameter / 4))
        cut = extract(found.image, x, y, box_px=box, size=min(128, box), diameter_px=diameter, invert=True)
        images.append(working(cut)[0])
        view.append(found.view)
        number += 1
    return np.concatenate(images)[:PARTICLES], np.concatenate(view)[:PARTICLES]


def _purity(images: np.ndarray, view: np.ndarray) -> float:
    spectra = features(images.astype(np.float32)).spectra
    return float(
        np.mean(
            [
                cluster_scores(view, kmeans(spectra, CLASSES, seed=seed).label, resamples=1).purity.value
                for seed in (0, 1)
            ]
        )
    )
