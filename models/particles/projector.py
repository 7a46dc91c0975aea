"""Projections of a density map in any orientation, by central slices of its Fourier transform.

The transform of a projection is the plane through the middle of the volume's transform at right angles to the beam
(Bracewell 1956; De Rosier and Klug, Nature 217, 1968). The plane is interpolated trilinearly in the transform of the
volume padded to at least twice its size; that kernel multiplies the volume by sinc² along each axis, which is divided
out before (gridding; Jackson et al., IEEE Trans. Med. Imaging 10, 1991).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
from torch import Tensor

from .maps import Volume

Floats = npt.NDArray[np.float32]
_POINTS_AT_ONCE = 1 << 20


def random_rotations(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    """N rotation matrices, float64 (n, 3, 3), uniform over all orientations (unit quaternions; Shoemake 1992)."""
    q = rng.standard_normal((n, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


class Projector:
    """The transform of one volume, ready to be cut. Threads may share it; it is never written to after ``__init__``.

    ``padding``: how many times larger the transformed cube is at least (2 and more).
    """

    def __init__(self, volume: Volume, *, padding: float = 2.0, device: torch.device | str = "cpu") -> None:
        if not padding >= 1:
            raise ValueError(f"padding: {padding:g} would cut the volume; use 2")
        n = len(volume.data)
        size = 2 * scipy.fft.next_fast_len(int(np.ceil(padding * n / 2)))
        at = np.arange(n) - n // 2
        kernel = np.sinc(at / size) ** 2
        even = volume.data / (kernel[:, None, None] * kernel[None, :, None] * kernel[None, None, :])
        cube = np.zeros((size,) * 3, np.float32)
        lowest = size // 2 - n // 2
        cube[(slice(lowest, lowest + n),) * 3] = even
        wave = scipy.fft.fftshift(scipy.fft.fftn(scipy.fft.ifftshift(cube)))
        self.voxel_a = volume.voxel_a
        self._size = size
        self._parts = torch.from_numpy(np.stack([wave.real, wave.imag]).astype(np.float32))[None].to(device)

    def slices(self, rotations: npt.ArrayLike, size: int, pixel_a: float, shifts_px: npt.ArrayLike = 0.0) -> Tensor:
        """Transforms of projections as ``rfft2`` gives them: complex64 (n, size, size // 2 + 1).

        ``rotations`` (n, 3, 3) take the volume's x, y, z to the microscope's, whose z is the beam. ``irfft2`` of a
        slice is the projection (density × Å) with the volume's middle voxel on pixel [size // 2, size // 2], moved by
        ``shifts_px`` (n, 2; x, y). Frequencies that the volume does not hold are zero. ``size`` must be even.
        """
        if size < 2 or size % 2:
            raise ValueError(f"size: {size} is not even; use {size + 1}")
        turn = torch.as_tensor(np.asarray(rotations, np.float32), device=self._parts.device).reshape(-1, 3, 3)
        move = np.broadcast_to(np.asarray(shifts_px, np.float32), (len(turn), 2)) + np.float32(size // 2)
        shift = torch.as_tensor(np.ascontiguousarray(move), device=turn.device)
        rows = max(1, _POINTS_AT_ONCE // (size * (size // 2 + 1)))
        parts = [self._cut(turn[i : i + rows], shift[i : i + rows], size, pixel_a) for i in range(0, len(turn), rows)]
        return torch.cat(parts) if parts else torch.zeros((0, size, size // 2 + 1), dtype=torch.complex64)

    def _cut(self, turn: Tensor, shift: Tensor, size: int, pixel_a: float) -> Tensor:
        fy, fx = torch.meshgrid(
            torch.fft.fftfreq(size, device=turn.device), torch.fft.rfftfreq(size, device=turn.device), indexing="ij"
        )
        k = self.voxel_a / pixel_a
        known = k * torch.hypot(fx, fy) <= 0.5 - 1 / self._size
        fx, fy = fx[known], fy[known]
        # The inverse of a rotation is its transpose, so the plane's axes in the volume are the matrix's first two rows.
        plane = k * (fx[:, None] * turn[:, None, 0] + fy[:, None] * turn[:, None, 1])
        where = (plane * self._size + self._size / 2) * (2 / (self._size - 1)) - 1
        found = torch.nn.functional.grid_sample(
            self._parts, where[None, None], mode="bilinear", padding_mode="zeros", align_corners=True
        )[0, :, 0]
        angle = -2 * torch.pi * (fx * shift[:, 0, None] + fy * shift[:, 1, None])
        scale = torch.full_like(angle, self.voxel_a**3 / pixel_a**2)
        wave = torch.zeros((len(turn), *known.shape), dtype=torch.complex64, device=turn.device)
        wave[:, known] = torch.complex(found[0], found[1]) * torch.polar(scale, angle)
        return wave

    def project(self, rotations: npt.ArrayLike, size: int, pixel_a: float, shifts_px: npt.ArrayLike = 0.0) -> Floats:
        """Projections, float32 (n, size, size), of what ``slices`` gives; the same arguments."""
        waves = self.slices(rotations, size, pixel_a, shifts_px)
        if not len(waves):
            return np.zeros((0, size, size), np.float32)
        found: Floats = torch.fft.irfft2(waves, s=(size, size)).cpu().numpy()
        return found


@lru_cache(maxsize=4)
def projector_for(volume: Volume) -> Projector:
    """The projector of a volume on the CPU, remembered, because thousands of micrographs are made of one volume."""
    return Projector(volume)
