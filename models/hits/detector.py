"""From expected intensities to photons: masks, scatter that is not the particle's, Poisson counts, readout noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .conditions import Conditions, log_uniform

Image = npt.NDArray[np.float32]

SATURATION = 65535
_NORMAL_FROM = 64.0


def poisson(mean: Tensor, uniform: Tensor) -> Tensor:
    """Poisson counts by inversion: the smallest k whose cumulative probability reaches ``uniform``, float32.

    One uniform number per pixel, whatever the mean: rounding on another device can move a count by one in a rare
    pixel, but never shifts the random numbers of the others. From a mean of 64 on, the normal deviate corrected to
    second order (Cornish-Fisher; Giles, ACM TOMS 42, 2016) stands in for the search; it is off by less than one count.
    """
    lam, u = mean.reshape(-1).to(torch.float64), uniform.reshape(-1).to(torch.float64)
    counts = torch.zeros_like(lam)
    large = lam >= _NORMAL_FROM
    counts[large] = _poisson_large(lam[large], u[large])
    index = torch.nonzero(~large & (lam > 0)).squeeze(1)
    lam, u = lam[index], u[index]
    term = torch.exp(-lam)
    cumulative = term.clone()
    k = 0
    while len(index):
        above = u > cumulative
        counts[index[~above]] = k
        index, lam, u, term, cumulative = index[above], lam[above], u[above], term[above], cumulative[above]
        k += 1
        term = term * lam / k
        # A term that no longer changes the sum ends the search: u lies in the last rounding step below 1.
        moved = cumulative + term
        u = torch.where(moved == cumulative, torch.zeros_like(u), u)
        cumulative = moved
    return counts.reshape(mean.shape).to(torch.float32)


def _poisson_large(lam: Tensor, u: Tensor) -> Tensor:
    w = torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
    root = torch.sqrt(lam)
    return torch.floor(lam + root * w + (2 + w * w) / 6 - (w + w**3) / (72 * root)).clamp_min_(0)


def mask(rng: np.random.Generator, c: Conditions, size: int, centre: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Pixels that this detector lacks, True = no data, bool (size, size)."""
    dead = np.zeros((size, size), dtype=bool)
    unit = size / 128
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    if c.beam_stop_px is not None:
        radius = unit * rng.uniform(*c.beam_stop_px)
        dead |= np.hypot(row - centre[0], column - centre[1]) < radius
        if rng.random() < 0.5:
            dead |= (np.abs(column - centre[1]) < max(1.0, radius / 4)) & (row > centre[0])
    if c.gap_px is not None:
        half = unit * rng.uniform(*c.gap_px) / 2
        offset = unit * rng.uniform(-4, 4)
        dead |= np.abs(row - offset) < half
        if rng.random() < 0.5:
            dead |= np.abs(column + offset) < half
    if c.missing_modules and rng.random() < c.missing_modules:
        parts = int(rng.choice([2, 4]))
        for _ in range(int(rng.integers(1, parts))):
            a, b = rng.integers(parts, size=2) * (size // parts)
            dead[a : a + size // parts, b : b + size // parts] = True
    if c.dead_pixels:
        dead |= rng.random((size, size)) < c.dead_pixels * rng.random()
    return dead


def smooth_scatter(rng: np.random.Generator, size: int, centre: tuple[float, float]) -> Image:
    """Scatter of gas and apertures, sum 1, float32 (size, size): a halo with a power-law tail, and a flat floor."""
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    turn = rng.uniform(0, np.pi)
    stretch = rng.uniform(0.7, 1.0)
    a = (row - centre[0]) * np.cos(turn) + (column - centre[1]) * np.sin(turn)
    b = (column - centre[1]) * np.cos(turn) - (row - centre[0]) * np.sin(turn)
    width = size * rng.uniform(0.03, 0.35)
    halo = (1 + (a**2 + (b / stretch) ** 2) / width**2) ** -rng.uniform(1.0, 3.0)
    floor = rng.uniform(0, 0.7)
    both: Image = ((1 - floor) * halo / halo.sum() + floor / size**2).astype(np.float32)
    return both


def streak(rng: np.random.Generator, size: int, centre: tuple[float, float]) -> Image:
    """A streak through the beam, as a liquid jet or an aperture's edge makes it, sum 1, float32 (size, size)."""
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    turn, width = rng.uniform(0, np.pi), size * rng.uniform(0.006, 0.02)
    across = (row - centre[0]) * np.cos(turn) + (column - centre[1]) * np.sin(turn)
    along = (column - centre[1]) * np.cos(turn) - (row - centre[0]) * np.sin(turn)
    line = np.exp(-((across / width) ** 2) / 2) / (1 + np.abs(along) / (0.1 * size)) ** rng.uniform(1, 2)
    scaled: Image = (line / line.sum()).astype(np.float32)
    return scaled


def extra(
    rng: np.random.Generator, c: Conditions, labels: npt.NDArray[np.int8], size: int, centre: tuple[float, float]
) -> Image:
    """Expected photons (n, size, size) that do not come from particles: residual scatter, background, streaks."""
    added = np.zeros((len(labels), size, size), dtype=np.float32)
    for i, label in enumerate(labels):
        if label == 0 and rng.random() >= c.empty:
            added[i] += log_uniform(rng, c.residual_photons) * smooth_scatter(rng, size, centre)
        if c.background_photons is not None:
            added[i] += log_uniform(rng, c.background_photons) * smooth_scatter(rng, size, centre)
        if c.streak_photons is not None and rng.random() < 0.3:
            added[i] += log_uniform(rng, c.streak_photons) * streak(rng, size, centre)
    return added


def count(rng: np.random.Generator, c: Conditions, mean: Tensor, dead: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """Photons uint16 (n, size, size) that a detector reports for expected photons ``mean``; 0 where it is ``dead``."""
    uniform = torch.from_numpy(rng.random(tuple(mean.shape), dtype=np.float32)).to(mean.device)
    photons = poisson(mean, uniform).cpu().numpy()
    if c.readout_photons is not None:
        noise = rng.standard_normal(photons.shape, dtype=np.float32) * np.float32(rng.uniform(*c.readout_photons))
        photons = np.rint(photons + noise)
    photons[:, dead] = 0
    whole: npt.NDArray[np.uint16] = np.clip(photons, 0, SATURATION).astype(np.uint16)
    return whole
