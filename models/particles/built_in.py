"""Density maps that ship as code: particles with the size, outline and texture of well-known ones.

They are no structures. Each is a sum of simple bodies whose surface and inside vary at several length scales by a fixed
seed, so that no two orientations look alike, as those of real particles do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Body = Callable[[Floats], Floats]
Vector = tuple[float, float, float]


def _space(extent_a: float, voxel_a: float) -> Floats:
    """Coordinates in ångström, float32 (3, n, n, n) in the order x, y, z, of a grid in z, y, x."""
    n = 2 * int(np.ceil(extent_a / voxel_a / 2))
    at = ((np.arange(n) - n // 2) * voxel_a).astype(np.float32)
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    return np.stack([x, y, z])


def _ellipsoid(space: Floats, centre: Vector, half: Vector, edge_a: float = 10.0) -> Floats:
    """1 inside, 0 outside, with an edge about ``edge_a`` wide."""
    shape = (3, 1, 1, 1)
    away = (space - np.reshape(centre, shape)) / np.reshape(half, shape)
    radius = np.sqrt((away**2).sum(0))
    found: Floats = np.clip(0.5 + (1 - radius) * min(half) / edge_a, 0, 1).astype(np.float32)
    return found


def _texture(shape: tuple[int, ...], voxel_a: float, seed: int, scales_a: tuple[float, ...]) -> Floats:
    """Noise of mean 0 and standard deviation 1, blurred at several length scales in equal shares."""
    rng = np.random.default_rng(seed)
    total = np.zeros(shape, np.float32)
    for scale in scales_a:
        layer = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), scale / voxel_a, mode="wrap")
        total += layer / layer.std()
    found: Floats = (total / total.std()).astype(np.float32)
    return found


def _grained(body: Floats, voxel_a: float, seed: int, strength: float = 0.6) -> Floats:
    """A body whose outline is ragged and whose inside is made of lumps and holes."""
    noise = _texture(body.shape, voxel_a, seed, (3.5, 7.0, 14.0))
    found: Floats = body * np.clip(1 + strength * noise, 0.0, None)
    return found


def _threaded(body: Floats, voxel_a: float, seed: int) -> Floats:
    """A body of strands with channels between, as folded RNA makes one: solvent fills more than half of its outline."""
    strands = np.clip(0.5 + (_texture(body.shape, voxel_a, seed, (10.0,)) - 0.45) / 0.6, 0, 1)
    grain = np.clip(1 + 0.4 * _texture(body.shape, voxel_a, seed + 1, (4.0,)), 0, None)
    found: Floats = ndimage.gaussian_filter(body * strands * grain, 3.0 / voxel_a)
    return found


def ribosome() -> tuple[Floats, float]:
    """A 70S-like particle about 260 Å across: a round large subunit with stalks, a flat small one, a cleft between."""
    voxel = 3.6
    s = _space(320, voxel)
    large = _ellipsoid(s, (0, -22, 0), (98, 78, 92))
    for centre, half in [
        ((0, -10, 98), (22, 22, 34)),
        ((-104, 0, 40), (32, 17, 18)),
        ((98, 4, 52), (40, 13, 14)),
        ((30, -70, -60), (40, 34, 38)),
    ]:
        large = np.maximum(large, _ellipsoid(s, centre, half))
    small = _ellipsoid(s, (6, 72, -30), (54, 34, 78))
    for centre, half in [((-14, 74, 70), (48, 33, 36)), ((52, 66, 10), (34, 24, 30)), ((-10, 70, -105), (18, 16, 26))]:
        small = np.maximum(small, _ellipsoid(s, centre, half))
    # The cleft where transfer RNAs sit, and the tunnel that the new chain leaves by.
    cleft = _ellipsoid(s, (0, 38, 18), (72, 11, 34))
    tunnel = _ellipsoid(s, (8, -40, 6), (9, 85, 9))
    body = np.maximum(large, 0.9 * small) * (1 - 0.9 * cleft) * (1 - 0.8 * tunnel)
    # Drawn a little large, then shrunk to the width of the real one.
    return _threaded(body, voxel, 70), 0.95 * voxel


def _tube(s: Floats, low: float, high: float, inner: float, outer: float, edge_a: float = 8.0) -> Floats:
    radius = np.hypot(s[0], s[1])
    wall = np.clip(0.5 + (outer - radius) / edge_a, 0, 1) * np.clip(0.5 + (radius - inner) / edge_a, 0, 1)
    ends = np.clip(0.5 + (s[2] - low) / edge_a, 0, 1) * np.clip(0.5 + (high - s[2]) / edge_a, 0, 1)
    found: Floats = (wall * ends).astype(np.float32)
    return found


def proteasome() -> tuple[Floats, float]:
    """A 26S-like particle about 450 Å long: a barrel of four seven-fold rings with a lopsided cap on either end."""
    voxel = 5.2
    s = _space(540, voxel)
    body = np.zeros(s.shape[1:], np.float32)
    for ring, outer in zip((-57, -19, 19, 57), (54, 58, 58, 54), strict=True):
        for at in range(7):
            angle = 2 * np.pi * (at + 0.25 * (abs(ring) == 57)) / 7
            body = np.maximum(body, _ellipsoid(s, (38 * np.cos(angle), 38 * np.sin(angle), ring), (21, 21, 19)))
        body *= 1 - _tube(s, ring - 19, ring + 19, -20, 13 if abs(ring) == 57 else 20)
        body *= np.hypot(s[0], s[1]) < outer + 6
    for sign in (-1, 1):
        for centre, half in [
            ((0, 0, 100), (50, 46, 24)),
            ((34, 10, 140), (52, 40, 30)),
            ((62, 24, 172), (40, 30, 34)),
            ((-20, -14, 160), (34, 30, 40)),
        ]:
            # The caps face each other: the second is the first turned by half a turn about x.
            body = np.maximum(body, 0.9 * _ellipsoid(s, (centre[0], sign * centre[1], sign * centre[2]), half))
    return _grained(body, voxel, 26, 0.55), voxel


def apoferritin() -> tuple[Floats, float]:
    """A hollow sphere about 122 Å across with a wall of 24 subunits in cubic order."""
    voxel = 2.4
    s = _space(168, voxel)
    radius = np.sqrt((s**2).sum(0))
    shell = np.clip(0.5 + (61 - radius) / 5, 0, 1) * np.clip(0.5 + (radius - 39) / 5, 0, 1)
    lumps = np.zeros_like(radius)
    # The 24 rotations of a cube: every order of the axes with every choice of signs of determinant one.
    axes = np.eye(3)
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
        for signs in np.ndindex(2, 2, 2):
            matrix = axes[list(order)] * (1 - 2 * np.array(signs))[:, None]
            if np.linalg.det(matrix) > 0:
                x, y, z = matrix @ np.array([0.32, 0.52, 0.79]) * 50
                lumps = np.maximum(lumps, _ellipsoid(s, (x, y, z), (17, 17, 17), 12))
    return _grained((shell * (0.35 + 0.65 * lumps)).astype(np.float32), voxel, 24, 0.35), voxel


def hemocyanin() -> tuple[Floats, float]:
    """A keyhole-limpet-hemocyanin-like cylinder, about 300 Å wide and 350 Å long: six ribbed tiers around a channel."""
    voxel = 5.2
    s = _space(540, voxel)
    angle = np.arctan2(s[1], s[0])
    body = _tube(s, -175, 175, 92, 142)
    for tier in range(6):
        z = (tier - 2.5) * 58
        band = np.exp(-(((s[2] - z) / 16) ** 2))
        twist = 10 * angle + 0.6 * tier + 0.02 * s[2]
        body = body * (1 - 0.12 * band) + body * band * (0.35 + 0.25 * np.cos(twist))
    # The collar: an arc of density inside each end that does not close.
    for sign in (-1, 1):
        collar = _tube(s, sign * 150 - 22, sign * 150 + 22, 52, 92) * (np.cos(angle * 1 - sign) > -0.6)
        body = np.maximum(body, 0.7 * collar)
    return _grained(body.astype(np.float32), voxel, 8, 0.45), voxel


BUILDERS: Mapping[str, Callable[[], tuple[Floats, float]]] = MappingProxyType(
    {"ribosome": ribosome, "proteasome": proteasome, "apoferritin": apoferritin, "hemocyanin": hemocyanin}
)
