"""What a pre-training leaves behind: the bundle with its card, the scores, the pictures."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..particles.maps import Volume
from .bundles import write
from .cdae import BLOCKS, Cdae
from .recipes import Options
from .simulator import Particles, particles
from .working import EDGE, Floats

SNRS = (0.3, 0.1, 0.05, 0.02)
BOX = 1.5
"""Edge of the box in diameters."""
_CHUNK = 64
_SEED = 900_000
_SHOWN = 6


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """Particles of one map at one SNR, with or without a transfer function."""

    name: str
    snr: float
    ctf: bool
    data: Particles


class Held:
    """Simulated particles that are never trained on: each map at each SNR, with and without a transfer function."""

    def __init__(self, options: Options, volumes: Sequence[Volume]) -> None:
        self.conditions = [
            Condition(volume.name, snr, ctf, self._made(options, volume, number, snr, ctf))
            for number, volume in enumerate(volumes)
            for ctf in (False, True)
            for snr in SNRS
            if options.held
        ]

    @staticmethod
    def _made(o: Options, volume: Volume, number: int, snr: float, ctf: bool) -> Particles:
        pixel_a = volume.diameter_a * BOX / EDGE
        seed = _SEED + o.seed + 100 * number
        defocus = o.defocus if ctf else None
        return particles(volume, o.held, seed=seed, snr=snr, pixel_a=pixel_a, ctf=defocus, shift_px=2.0)

    def gain_db(self, net: Cdae, blocks: int) -> float:
        """Mean gain in decibels, over all conditions, of the first ``blocks`` of the cascade; NaN without any."""
        gains = []
        for one in self.conditions:
            some = slice(0, min(32, len(one.data.images)))
            denoised = _steps(net, one.data.images[some], blocks)[-1]
            gains.append(gain_db(one.data.images[some], denoised, one.data.clean[some]).mean())
        return float(np.mean(gains)) if gains else float("nan")

    def rows(self, net: Cdae) -> list[dict[str, Any]]:
        """For every condition: decibels gained, and correlation with the clean image, after each block."""
        found = []
        for one in self.conditions:
            steps = _steps(net, one.data.images)
            row = {
                "map": one.name,
                "snr": one.snr,
                "ctf": one.ctf,
                "noisy_correlation": _round(correlation(one.data.images, one.data.clean).mean()),
                "gain_db": [_round(gain_db(one.data.images, step, one.data.clean).mean()) for step in steps],
                "correlation": [_round(correlation(step, one.data.clean).mean()) for step in steps],
            }
            found.append(row)
        return found


def gain_db(noisy: Floats, denoised: Floats, clean: Floats) -> Floats:
    """How many decibels of PSNR each image won, float32 (n,); all of one scale, so that its peak cancels."""
    before, after = (np.square(x - clean, dtype=np.float64).mean((1, 2)) for x in (noisy, denoised))
    found: Floats = (10 * np.log10(before / np.maximum(after, 1e-12))).astype(np.float32)
    return found


def correlation(images: Floats, clean: Floats) -> Floats:
    """Pearson's correlation of each image with its clean one, float32 (n,); 0 where an image is constant."""
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (images, clean))
    below = np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    found: Floats = ((a * b).sum((1, 2)) / np.maximum(below, 1e-12)).astype(np.float32)
    return found


def _steps(net: Cdae, images: Floats, blocks: int = 3) -> list[Floats]:
    """What each of the first blocks leaves of images (n, e, e)."""
    device = next(net.parameters()).device
    found: list[list[Floats]] = [[] for _ in range(blocks)]
    for first in range(0, len(images), _CHUNK):
        for at, step in enumerate(
            net.eval().steps(torch.from_numpy(images[first : first + _CHUNK, None]).to(device), blocks)
        ):
            found[at].append(step[:, 0].cpu().numpy())
    return [np.concatenate(parts) for parts in found]


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over maps: by SNR, with and without a transfer function; and over everything."""

    def mean(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            name: [_round(v) for v in np.mean([row[name] for row in some], axis=0)]
            for name in ("gain_db", "correlation")
        }

    if not rows:
        return {}
    found = {}
    for ctf in (False, True):
        for snr in SNRS:
            some = [row for row in rows if row["snr"] == snr and row["ctf"] == ctf]
            found[f"SNR {snr:g}{', CTF' * ctf}"] = mean(some)
    return {**found, "all": mean(rows)}


def finish(net: Cdae, options: Options, history: Sequence[Mapping[str, float]], held: Held) -> Path:
    """Write ``<name>.pt``, ``<name>.json``, ``scores.json`` and pictures to ``options.out``; path of the ``.pt``."""
    rows = held.rows(net)
    scores = {"validation": means(rows), "after_blocks": [1, 2, 3]}
    (options.out / "scores.json").write_text(json.dumps({**scores, "rows": rows}, indent=1) + "\n")
    told = _told(options, history)
    by = options.command or f"beamsieve train classes2d --recipe {options.recipe} --seed {options.seed}"
    path = write(options.out, options.name, net, training=told, scores=scores, trained_by=by)
    draw_curves(options.out / "curves.png", history)
    for ctf in (False, True):
        draw_examples(options.out / f"examples{'-ctf' * ctf}.png", net, [c for c in held.conditions if c.ctf == ctf])
    return path


def _told(options: Options, history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What the card says of the training."""
    identity = options.identity()
    return {
        **identity,
        "validation_maps": list(options.validation),
        "targets_of_blocks": "4 and 6 times the SNR of the start, then no noise"
        if options.targets == "noisy"
        else "no noise, for all blocks; the steps of 4 and 6 times the SNR of the start are not taken",
        "method": "Lei and Yang, Frontiers in Genetics 11 (2021); widths of the layers are this project's",
        "optimiser": "RMSprop, mean squared error",
        "last_loss": [[_round(r["loss"]) for r in history if r["block"] == b][-1] for b in _blocks(history)],
        "minutes": _round(sum(row["seconds"] for row in history) / 60),
    }


def _blocks(history: Sequence[Mapping[str, float]]) -> list[float]:
    return sorted({row["block"] for row in history})


def _round(value: float) -> float:
    return round(float(value), 4)


def _figure(width: float, height: float) -> Any:
    # Figure, not pyplot: no window, no global list of figures, and the Agg canvas wherever this runs.
    return importlib.import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def draw_curves(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Loss of each block and gain on the validation maps against epochs. Raises ``OSError``."""
    figure = _figure(9, 4)
    left, right = figure.subplots(1, 2)
    for block in _blocks(history):
        some = [row for row in history if row["block"] == block]
        epochs = [row["epoch"] for row in some]
        left.plot(
            epochs, [row["loss"] for row in some], ".-", label=f"block {block:.0f}" if block <= BLOCKS else "all blocks"
        )
        right.plot(
            epochs,
            [row["gain_db"] for row in some],
            ".-",
            label=f"blocks 1 to {block:.0f}" if block <= BLOCKS else "all blocks",
        )
    left.set(xlabel="epoch", ylabel="mean squared error of training", yscale="log")
    right.set(xlabel="epoch", ylabel="PSNR gained on validation maps (dB)")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_examples(path: Path, net: Cdae, conditions: Sequence[Condition]) -> None:
    """Noisy, after each block, truth: columns of a few particles of each map and SNR. Raises ``OSError``."""
    names = ("noisy", "block 1", "block 2", "block 3", "truth")
    chosen = [c for c in conditions if c.snr in (0.1, 0.02)] or list(conditions)
    if not chosen:
        return
    figure = _figure(1.05 * _SHOWN * len(chosen) / 2 + 0.6, 2 * 1.05 * len(names) + 1)
    cells = figure.subplots(2, (len(chosen) + 1) // 2, squeeze=False).ravel()
    for axes, one in zip(cells, chosen, strict=False):
        images = one.data.images[:_SHOWN]
        shown = [images, *_steps(net, images), one.data.clean[:_SHOWN]]
        axes.imshow(np.concatenate([np.concatenate(_grey(row), axis=1) for row in shown]), cmap="gray", vmin=0, vmax=1)
        axes.set_yticks([EDGE * (i + 0.5) for i in range(len(names))], names, fontsize=8)
        axes.set_xticks([])
        axes.set_title(f"{one.name}, SNR {one.snr:g}", fontsize=9)
    for axes in cells[len(chosen) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def _grey(images: Floats) -> Floats:
    """Images (n, e, e) as grey values 0..1, each between its own 1st and 99.5th percentile."""
    low, high = (np.percentile(images, q, axis=(1, 2), keepdims=True) for q in (1, 99.5))
    found: Floats = np.clip((images - low) / np.maximum(high - low, 1e-9), 0, 1).astype(np.float32)
    return found
