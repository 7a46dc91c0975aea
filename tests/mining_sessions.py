"""Small tomograms with two kinds of things in them, a tiny network, and settings of a daemon that is impatient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from beamsieve.models.tomograms.bundles import untrained
from beamsieve.stream.formats.mrc_write import MrcWriter
from scipy import ndimage

Floats = npt.NDArray[np.float32]

SHAPE = (48, 96, 96)
VOXEL_A = 14.2
EDGE = 16
#: A ball is dark all through, a shell only at its surface.
BALL, SHELL = 1, 2


def tomogram(seed: int, shape: tuple[int, int, int] = SHAPE, noise: float = 0.5) -> tuple[Floats, Floats]:
    """Voxels (z, y, x), density dark, and what is in them: (x, y, z, kind) a row each."""
    random = np.random.default_rng(seed)
    data = np.zeros(shape, np.float32)
    things = []
    for z in range(12, shape[0] - 8, 24):
        for y in range(12, shape[1] - 8, 24):
            for x in range(12, shape[2] - 8, 24):
                kind = BALL if random.random() < 0.5 else SHELL
                at = np.array([z, y, x]) + random.integers(-2, 3, 3)
                things.append((at[2], at[1], at[0], kind))
                far = np.sqrt(sum((g - a) ** 2 for g, a in zip(np.ogrid[tuple(map(slice, shape))], at, strict=True)))
                data -= (far < 5) * 2.0 if kind == BALL else (abs(far - 6) < 1.2) * 2.0
    noisy = data + random.normal(0, noise, shape).astype(np.float32)
    return ndimage.gaussian_filter(noisy, 0.7).astype(np.float32), np.array(things, np.float32)


def write(path: Path, seed: int) -> Floats:
    """Write such a tomogram; what is in it."""
    data, things = tomogram(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with MrcWriter(path, data.shape, 2, VOXEL_A) as writer:
        writer.write(data)
    return things


def network(folder: Path, seed: int = 0, name: str = "tiny") -> Path:
    """The file of a tiny network that was never trained."""
    return untrained(folder, name, edge=EDGE, channels=4, seed=seed)


def settings(folder: Path, bundle: Path, **changes: Any) -> dict[str, Any]:
    """A configuration with folders ``in`` and ``out``; ``changes``: blocks that are added to."""
    blocks: dict[str, Any] = {
        "source": {
            "directory": str(folder / "in"),
            "take": "tomograms",
            "settle_s": 0.0,
            "poll_s": 0.05,
            "end_idle_s": 1.0,
            "retry_s": 0.1,
            "incomplete_s": 0.5,
            "attempts": 2,
        },
        "model": {"bundle": str(bundle), "threads": 1, "device": "cpu", "threshold": 2.0, "sigma": 3.0},
        "clusters": {"number": 4, "first_at": 40, "retrain": False, "keep_per_tomogram": 20},
        "segment": {"on": False},
        "files": {"directory": str(folder / "out"), "formats": ["star"], "pictures": False, "min_free_gb": 0},
        "service": {"port": 0},
    }
    for name, values in changes.items():
        blocks[name] = {**blocks.get(name, {}), **values}
    return {"beamline": "cryoet_mining", **blocks}
