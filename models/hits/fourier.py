"""From a density to a diffraction pattern: Fourier transform, Ewald sphere, coherent sum over particles.

Equation 1 of Han & Li: the scattered wave is ``∫ f(x) exp(-i x·(k_s - k_i)) d³x``. Frequencies ``q`` here are in
cycles per voxel, so that the wave is ``Σ f(x) exp(-2πi q·x)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .shapes import Particle

# The paper pads its 128³ box to 256³, where trilinear interpolation is off by 1-2 %; here, by less than half of that.
GRID = 384


@dataclass(frozen=True, slots=True)
class Transform:
    """The middle of the ``grid``³ Fourier transform of one particle.

    ``values``: float32 (1, 2, n, n, n), real and imaginary part, n = 2·half + 1, frequency step 1/grid cycles per
    voxel, zero frequency in the middle. It is prepared for trilinear interpolation, see ``transform``.
    """

    values: Tensor
    half: int
    grid: int


def transform(
    particle: Particle, highest: float, device: torch.device, grid: int = GRID, compensate: bool = True
) -> Transform:
    """Fourier transform of a particle on the grid of a ``grid``³ transform, up to ``highest`` cycles per voxel only.

    Detectors in this problem see the inner third of the grid, so three products with partial DFT matrices replace the
    full transform; the values are the same. The edge is blurred by a factor ``exp(-2π²σ²q²)``. Trilinear interpolation
    multiplies the density by ``sinc²(x/grid)`` along each axis; with ``compensate`` the density is divided by it
    beforehand, which leaves only the much smaller aliases as error.
    """
    half = min(grid // 2 - 1, int(np.ceil(highest * grid)) + 1)
    wave = torch.from_numpy(particle.density).to(device)
    frequency = torch.arange(-half, half + 1, device=device, dtype=torch.float64) / grid
    falloff = torch.exp(-2 * np.pi**2 * particle.blur**2 * frequency**2)
    # The last axis is contracted first and put in front, so three turns bring the axes back in their order.
    for axis in (2, 1, 0):
        x = particle.corner[axis] + torch.arange(particle.density.shape[axis], device=device, dtype=torch.float64)
        phases = torch.polar(falloff[:, None].expand(-1, len(x)), -2 * np.pi * frequency[:, None] * x)
        if compensate:
            phases = phases / torch.sinc(x / grid) ** 2
        matrix = phases.to(torch.complex64)
        if not wave.is_complex():
            wave = torch.complex(
                torch.tensordot(matrix.real.contiguous(), wave, dims=([1], [2])),
                torch.tensordot(matrix.imag.contiguous(), wave, dims=([1], [2])),
            )
        else:
            wave = torch.tensordot(matrix, wave, dims=([1], [2]))
    return Transform(torch.stack([wave.real, wave.imag])[None].contiguous(), half, grid)


@dataclass(frozen=True, slots=True)
class Geometry:
    """One detector and beam.

    ``edge``: |q| in cycles per voxel in the middle of the detector's side, ``angle``: scattering angle there in
    radians, ``centre``: of the beam in pixels (row, column), relative to the middle of the image.
    """

    edge: float
    angle: float
    centre: tuple[float, float] = (0.0, 0.0)

    def highest(self, size: int) -> float:
        """An upper limit of any component of q in cycles per voxel on a detector of ``size`` pixels."""
        shift = 1 + 2 * max(abs(self.centre[0]), abs(self.centre[1])) / size
        return self.edge * shift * 2**0.5


def ewald(geometries: Sequence[Geometry], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scattering vectors q = k (n - z) on the Ewald sphere, and the relative solid angles of the pixels.

    Float32 (n, size, size, 3) with components (x, y, z) in cycles per voxel, and (n, size, size). The beam runs along
    z, rows are y, columns x.
    """
    axis = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device, dtype=torch.float32)[:, None, None]

    y = (axis[None, :, None] - column([g.centre[0] for g in geometries])).expand(-1, size, size)
    x = (axis[None, None, :] - column([g.centre[1] for g in geometries])).expand(-1, size, size)
    distance = column([size / 2 / float(np.tan(g.angle)) for g in geometries])
    wave = column([g.edge / (2 * float(np.sin(g.angle / 2))) for g in geometries])
    flat = x * x + y * y
    path = torch.sqrt(flat + distance * distance)
    # distance/path - 1 without the cancellation that float32 would suffer at small angles
    along = -flat / (path * (path + distance))
    q = torch.stack([x / path * wave, y / path * wave, along * wave], dim=-1)
    return q, (distance / path) ** 3


def sample(particle: Transform, q: Tensor) -> Tensor:
    """Complex amplitude at frequencies q, float32 (…, 3) in cycles per voxel, by trilinear interpolation.

    Beyond the stored part it is zero.
    """
    points = (q * (particle.grid / particle.half)).flip(-1).reshape(1, 1, 1, -1, 3)
    # grid_sample counts the last axis first: its x is our third axis, and q runs (x, y, z) along axes (0, 1, 2)
    both = torch.nn.functional.grid_sample(particle.values, points, align_corners=True, padding_mode="zeros")
    return torch.complex(both[0, 0], both[0, 1]).reshape(q.shape[:-1])


def scatter(particle: Transform, q: Tensor, clusters: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> Tensor:
    """Intensities float32 (n, size, size) of n clusters of one kind of particle, per unit intensity of the first one.

    ``q``: (n, size, size, 3). Each cluster is ``rotations`` (m, 3, 3) and ``positions`` (m, 3) in voxels: the waves
    ``F(Rᵀq) exp(-2πi q·r)`` of its particles add up coherently. They are scaled so that the first particle of each
    cluster, alone, would scatter a total of 1 (before the solid angle) onto the detector.
    """
    total = torch.zeros(q.shape[:-1], dtype=torch.complex64, device=q.device)
    unit = torch.ones(len(clusters), device=q.device)
    first = torch.zeros_like(total)
    for slot in range(max((len(r) for r, _ in clusters), default=0)):
        chosen = [i for i, (r, _) in enumerate(clusters) if len(r) > slot]
        index = torch.tensor(chosen, device=q.device)
        turn = torch.tensor(np.stack([clusters[i][0][slot] for i in chosen]), dtype=torch.float32, device=q.device)
        place = torch.tensor(np.stack([clusters[i][1][slot] for i in chosen]), dtype=torch.float32, device=q.device)
        wave = first[index]
        own = [
            k for k, i in enumerate(chosen) if slot == 0 or not np.array_equal(clusters[i][0][slot], clusters[i][0][0])
        ]
        if own:
            wave[own] = sample(particle, torch.einsum("nyxi,nij->nyxj", q[index[own]], turn[own]))
        if slot == 0:
            first[index] = wave
            unit[index] = wave.abs().square().sum(dim=(1, 2))
        phase = torch.einsum("nyxi,ni->nyx", q[index], place) * (-2 * np.pi)
        total[index] += wave * torch.polar(torch.ones_like(phase), phase)
    return total.abs().square() / unit[:, None, None]
