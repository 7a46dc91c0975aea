"""Particles of three views of blobs, and a denoiser that has learnt a little: what fine-tuning is tested with."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from beamsieve.models.classes2d import bundles
from beamsieve.models.classes2d.cdae import Cdae

Floats = npt.NDArray[np.float32]
SMALL: dict[str, Any] = {"encoder": (4, 8, 8), "decoder": (8, 8, 4), "kernel": 2}


Views = tuple[tuple[tuple[int, int], ...], ...]
VIEWS: Views = (((0, 0), (12, 4)), ((0, 0), (-9, 10)), ((4, -8), (-4, 8)))
OTHERS: Views = (((0, 0), (-12, -4)), ((0, 0), (9, -10)), ((0, 0),))
"""Where the blobs of each view are, x and y from the middle."""


@lru_cache
def particles(count: int, seed: int = 0, places: Views = VIEWS) -> tuple[Floats, Floats]:
    """Working images, noisy (SNR 0.3) and clean in the same units, (n, 64, 64)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] - 32.0
    views = [sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 40) for px, py in view) for view in places]
    clean = np.stack(views)[rng.integers(0, len(views), count)]
    clean /= clean.std((1, 2), keepdims=True)
    noisy = clean + rng.normal(0, math.sqrt(1 / 0.3), clean.shape)
    mean, spread = noisy.mean((1, 2), keepdims=True), noisy.std((1, 2), keepdims=True)
    return ((noisy - mean) / spread).astype(np.float32), ((clean - mean) / spread).astype(np.float32)


def write_beginner(folder: Path) -> Path:
    """A bundle called ``beginner``: a small cascade that was shown a few particles of another kind, noisy and clean."""
    torch.manual_seed(1)
    net = Cdae(**SMALL, dropout=0.0)
    noisy, clean = (torch.from_numpy(part)[:, None] for part in particles(48, 9, OTHERS))
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(45):
        rows = torch.arange(8) + 8 * (step % 6)
        shown, loss = noisy[rows], torch.zeros(())
        for block in net.blocks:
            shown = block(shown)
            loss = loss + (shown - clean[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return bundles.write(folder, "beginner", net, training={"options": {"dropout": 0.0}}, scores={"psnr": 1.0})
