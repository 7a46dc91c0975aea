"""Simulated micrographs with known particle centres, as the microscope gives them: particles dark on lighter ice.

Projections of a density map in random orientations, each with its own shift below a pixel, pass the contrast transfer
function of one defocus per micrograph; ice noise passes it too; the detector's noise is added. A micrograph depends on
(seed, index, conditions, volume) only, and each of its parts draws from its own random numbers, so that the same seed
at another signal-to-noise ratio shows the same particles in the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch

from .background import background
from .candidates import Labelled
from .conditions import NAMED, Conditions, named
from .ctf import Ctf
from .maps import Volume
from .projector import projector_for
from .scenery import Blob, Room, bead, carbon_film, ice_crystal, smooth_noise, stamp
from .views import orientations

__all__ = ["NAMED", "Conditions", "Simulated", "named", "picture", "simulate"]

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LEVEL = 12.0  # mean of a picture without a dose, in standard deviations of its noise
_STREAMS = ("optics", "scenery", "places", "poses", "solvent", "detector", "flaws")


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """A micrograph and what is true of it.

    ``image``: (ny, nx), float32, or uint16 counts where the conditions give a dose. ``x``, ``y``: float32 (n,), centres
    of mass of the particles, in pixels (a whole number is the middle of a pixel). ``carbon``: bool (ny, nx), or None
    where there is none. ``other_x``, ``other_y``, ``other_kind``: centres of what should not be picked (``aggregate``
    and ``overlap``: of each particle in it; ``ice``, ``gold``). ``ctf``: of this micrograph. ``view``: int32 (n,),
    which of the conditions' few views each particle shows, from 1; 0 where it may be any.
    """

    image: npt.NDArray[Any]
    x: Floats
    y: Floats
    pixel_a: float
    diameter_a: float
    carbon: Mask | None
    other_x: Floats
    other_y: Floats
    other_kind: tuple[str, ...]
    name: str
    ctf: Ctf
    view: npt.NDArray[np.int32]

    def labelled(self) -> Labelled:
        """As training and evaluation take it. Holds the image in memory, float32."""
        image = self.image.astype(np.float32, copy=False)
        return Labelled(self.name, lambda: image, self.pixel_a, self.x, self.y, self.other_x[:0], self.other_y[:0])


def simulate(seed: int, index: int, conditions: Conditions, volume: Volume) -> Simulated:
    """Micrograph ``index`` of the endless series ``seed`` (both from 0 on). See ``Simulated`` and ``Conditions``."""
    if seed < 0 or index < 0:
        raise ValueError(f"seed {seed}, index {index}: both must be 0 or more")
    rng = {name: np.random.default_rng([seed, index, at]) for at, name in enumerate(_STREAMS)}
    c = conditions
    ctf = _optics(rng["optics"], c)
    film, blobs = _scenery(rng["scenery"], c, volume.diameter_a)
    places, overlapping, clumped = _places(rng["places"], c, volume.diameter_a, film, blobs)
    everything = np.array([*places, *overlapping, *clumped], dtype=np.float64).reshape(-1, 2)
    # All micrographs of a seed show the same views: they depend on no index.
    few = np.random.default_rng([seed, 0, 0, len(_STREAMS)])
    turns, view = orientations(rng["poses"], few, c.views, len(everything))
    signal = _signal(turns, c, volume, ctf, everything, len(places))
    image = signal + background(rng["solvent"], c, ctf, film, blobs)
    other = [(x, y, "overlap") for x, y in overlapping] + [(x, y, "aggregate") for x, y in clumped]
    other += [(b.x, b.y, kind) for kind, b in blobs]
    centres = everything[: len(places)].astype(np.float32)
    return Simulated(
        image=_detected(rng["detector"], rng["flaws"], c, image),
        x=np.ascontiguousarray(centres[:, 0]),
        y=np.ascontiguousarray(centres[:, 1]),
        pixel_a=c.pixel_a,
        diameter_a=volume.diameter_a,
        carbon=None if film is None else film > 0.5,
        other_x=np.array([o[0] for o in other], np.float32),
        other_y=np.array([o[1] for o in other], np.float32),
        other_kind=tuple(o[2] for o in other),
        name=f"simulated-{seed}-{index:05d}",
        ctf=ctf,
        view=view[: len(places)],
    )


def _optics(rng: np.random.Generator, c: Conditions) -> Ctf:
    defocus = rng.uniform(*c.defocus_um) * 1e4
    half = rng.uniform(0, c.astigmatism_a) / 2
    return Ctf(
        defocus_u_a=defocus + half,
        defocus_v_a=defocus - half,
        angle_deg=rng.uniform(0, 180),
        voltage_kv=c.voltage_kv,
        cs_mm=c.cs_mm,
        amplitude_contrast=c.amplitude_contrast,
        b_factor_a2=c.b_factor_a2,
    )


def _number(rng: np.random.Generator, pair: tuple[int, int]) -> int:
    return int(rng.integers(pair[0], pair[1] + 1))


def _scenery(
    rng: np.random.Generator, c: Conditions, diameter_a: float
) -> tuple[Floats | None, list[tuple[str, Blob]]]:
    fraction = rng.uniform(*c.carbon)
    film = carbon_film(rng, c.shape, c.pixel_a, fraction) if fraction > 0 else None
    blobs = [("ice", ice_crystal(rng, c.shape, c.pixel_a, diameter_a)) for _ in range(_number(rng, c.ice))]
    blobs += [("gold", bead(rng, c.shape, c.pixel_a)) for _ in range(_number(rng, c.gold))]
    return film, blobs


def _places(
    rng: np.random.Generator, c: Conditions, diameter_a: float, film: Floats | None, blobs: list[tuple[str, Blob]]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]], list[tuple[float, float]]]:
    """Centres of single particles, of overlapping ones, of those in aggregates. All are clear of carbon and ice."""
    d = diameter_a / c.pixel_a
    room = Room(c.shape, c.border * d, None if film is None else film > 0, d / 2)
    for _, blob in blobs:
        room.take(blob.x, blob.y, blob.radius + d / 2)
    clumped: list[tuple[float, float]] = []
    for _ in range(_number(rng, c.aggregates)):
        n = int(rng.integers(5, 13))
        spread = 0.33 * d * np.sqrt(n)
        spot = room.find(rng, spread + 1.5 * d)
        if spot is not None:
            angle, away = rng.uniform(0, 2 * np.pi, n), spread * np.sqrt(rng.uniform(0, 1, n))
            clumped += [(spot[0] + r * np.cos(a), spot[1] + r * np.sin(a)) for a, r in zip(angle, away, strict=True)]
            room.take(*spot, spread + c.distance * d)
    overlapping: list[tuple[float, float]] = []
    for _ in range(_number(rng, c.overlaps)):
        spot = room.find(rng, (c.distance + 0.45) * d)
        if spot is not None:
            a, r = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75) * d / 2
            overlapping += [(spot[0] + s * r * np.cos(a), spot[1] + s * r * np.sin(a)) for s in (-1, 1)]
            room.take(*spot, (c.distance + 0.45) * d)
    places: list[tuple[float, float]] = []
    for _ in range(_number(rng, c.particles)):
        spot = room.find(rng, c.distance * d)
        if spot is None:
            break
        places.append(spot)
        room.take(*spot, c.distance * d)
    return places, overlapping, clumped


def _signal(
    turns: npt.NDArray[np.float64],
    c: Conditions,
    volume: Volume,
    ctf: Ctf,
    centres: npt.NDArray[np.float64],
    singles: int,
) -> Floats:
    """What the particles add to the picture, in standard deviations of the noise."""
    canvas = np.zeros(c.shape, np.float32)
    if not len(centres):
        return canvas
    extent = 1.25 * volume.diameter_a + 2 * ctf.delocalisation_a(c.pixel_a)
    size = 2 * scipy.fft.next_fast_len(int(np.ceil(extent / c.pixel_a / 2)), real=True)
    whole = np.rint(centres)
    waves = projector_for(volume).slices(turns, size, c.pixel_a, centres - whole)
    waves *= torch.from_numpy(ctf.image((size, size), c.pixel_a))
    images: Floats = scipy.fft.irfft2(waves.numpy(), s=(size, size))
    measured = images[:singles] if singles else images
    scale = np.sqrt(c.snr / disc_variance(measured, volume.diameter_a / c.pixel_a))
    for image, (x, y) in zip(images * np.float32(scale), whole, strict=True):
        stamp(canvas, image, x, y)
    return canvas


def disc_variance(images: Floats, diameter_px: float) -> float:
    """Mean over images (n, m, m) of the variance of the pixels in the disc of ``diameter_px`` around [m//2, m//2]."""
    at = np.arange(images.shape[-1]) - images.shape[-1] // 2
    inside = np.hypot(at[:, None], at) <= diameter_px / 2
    return float(images[:, inside].var(axis=1).mean())


def _detected(rng: np.random.Generator, flaws: np.random.Generator, c: Conditions, image: Floats) -> npt.NDArray[Any]:
    """The picture on the detector: its level, uneven illumination, noise, hot and dead pixels."""
    mean = LEVEL if c.dose is None else c.dose * c.pixel_a**2
    one = 1.0 if c.dose is None else float(np.sqrt(mean / (1 - c.solvent)))
    image *= np.float32(one)
    image += np.float32(mean) * _illumination(flaws, c)
    if c.dose is None:
        image += np.float32(np.sqrt(1 - c.solvent)) * rng.standard_normal(c.shape, dtype=np.float32)
    else:
        image = rng.poisson(np.maximum(image, 0)).astype(np.float32)
    ny, nx = c.shape
    hot, dead = c.hot_pixels, c.hot_pixels // 3
    y, x = flaws.integers(0, ny, hot + dead), flaws.integers(0, nx, hot + dead)
    image[y[:hot], x[:hot]] = (mean + one * flaws.uniform(15, 80, hot)).astype(np.float32)
    image[y[hot:], x[hot:]] = 0
    return image if c.dose is None else np.clip(image, 0, 65535).astype(np.uint16)


def _illumination(rng: np.random.Generator, c: Conditions) -> Floats:
    """The beam's brightness, mean about 1: a slope, and a slow unevenness of the ice a third as strong."""
    angle = rng.uniform(0, 2 * np.pi)
    ny, nx = c.shape
    y, x = np.linspace(-0.5, 0.5, ny, dtype=np.float32)[:, None], np.linspace(-0.5, 0.5, nx, dtype=np.float32)
    slope = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    slow = smooth_noise(rng, c.shape, max(c.shape) / 3)
    found: Floats = 1 + np.float32(c.gradient) * (slope + np.float32(0.1) * slow)
    return found


def picture(simulated: Simulated, *, width: int = 1024) -> npt.NDArray[np.uint8]:
    """The micrograph binned to at most ``width`` columns, uint8 (ny', nx', 3); particles ringed green, others red."""
    image = np.asarray(simulated.image, np.float32)
    bin_by = max(1, -(-image.shape[1] // width))
    ny, nx = (side // bin_by for side in image.shape)
    small = image[: ny * bin_by, : nx * bin_by].reshape(ny, bin_by, nx, bin_by).mean((1, 3))
    low, high = np.percentile(small, (0.5, 99.5))
    grey = np.clip((small - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    found = np.repeat(grey[..., None], 3, axis=2)
    radius = simulated.diameter_a / simulated.pixel_a / 2 / bin_by
    around = np.linspace(0, 2 * np.pi, max(16, int(8 * radius)), endpoint=False)
    ringed = [(simulated.x, simulated.y, (60, 220, 60)), (simulated.other_x, simulated.other_y, (230, 60, 60))]
    for xs, ys, colour in ringed:
        for x, y in zip(xs, ys, strict=True):
            # Centre of pixel 0 is 0, of the first bin (bin_by - 1) / 2.
            column = np.rint((x - (bin_by - 1) / 2) / bin_by + radius * np.cos(around)).astype(int)
            row = np.rint((y - (bin_by - 1) / 2) / bin_by + radius * np.sin(around)).astype(int)
            inside = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
            found[row[inside], column[inside]] = colour
    return found
