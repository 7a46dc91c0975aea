"""Segmentation of tomograms: windows of one network pass beside the naive way, whole tomograms, training.

The naive way is one box of 32³ voxels at a time through the module as it was loaded, boxes every 16 voxels, and the
mean of the probabilities where they overlap. Ours are large windows that reach over their tiles by what the network
sees, in the fastest way that agrees, interpolated to the file's voxels. Weights are random: speed does not depend on
them.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import torch
from beamsieve.models.bundle import load_bundle
from beamsieve.models.tomograms.bundles import save_segmenter
from beamsieve.models.tomograms.nets import Edss3d
from beamsieve.models.tomograms.segment import Segmenter
from beamsieve.models.tomograms.segment_set import Examples
from beamsieve.models.tomograms.segment_train import Options, train_segments
from beamsieve.models.tomograms.volume import ArrayVolume, Shape, Volume
from beamsieve.models.tomograms.working import VOXEL_A, Working
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.formats.volumes import open_volume

from .picking import best, memory_mb
from .report import Report, Target

COLUMNS = {
    "what": "s", "voxels": "s", "seconds": ",.2f", "ms per 32³": ",.2f", "naive ms per 32³": ",.2f", "× naive": ".1f",
    "memory MB": ",.0f",
}  # fmt: skip
CLASSES = ("background", "membrane", "ribosome", "other")
BOX_MS, PAPER_MS, EPOCH_MS = 22.0, 11.0, 11.0
"""Asked for; and what a GTX 1080 took (Zeng et al., 2018) to segment a box, and to train on it for an epoch."""
BOX = 32
WHOLE: Shape = (300, 928, 928)
FILE_A = 10.0


def measure(folder: Path, *, device: str, threads: int, quick: bool) -> Report:
    """All rows."""
    report = Report("tomograms_segment", f"Segmentation of tomograms, {device}, {threads} threads", COLUMNS)
    torch.manual_seed(0)
    bundle = save_segmenter(folder, "random", Edss3d(len(CLASSES)), CLASSES)
    segmenter = Segmenter(bundle, device=device, threads=threads)
    report.notes.append(segmenter.warm_up())
    torch.set_num_threads(threads)
    shape = (64, 96, 96) if quick else (64, 160, 160)
    report.rows.append(_beside_naive(segmenter, bundle, shape, device, 1 if quick else 3))
    report.targets.append(
        Target("a 32³ sub-volume segmented", BOX_MS, report.rows[-1]["ms per 32³"], "ms", at_least=False)
    )
    report.notes.append(f"the paper, on a GTX 1080: {PAPER_MS:g} ms per sub-volume, boxes that do not overlap")
    if not quick:
        report.rows.append(_whole(segmenter, folder))
        report.targets.append(
            Target("memory for 928 × 928 × 300 voxels", 4000, report.rows[-1]["memory MB"], "MB", at_least=False)
        )
    report.rows.append(_training(folder, device, threads, 8 if quick else 24))
    report.notes.append(f"the paper's training, on a GTX 1080: {EPOCH_MS:g} ms per sub-volume and epoch")
    return report


def _boxes(shape: Shape) -> float:
    """How many 32³ sub-volumes a volume is."""
    return float(np.prod(shape)) / BOX**3


def _beside_naive(segmenter: Segmenter, bundle: Path, shape: Shape, device: str, times: int) -> dict[str, object]:
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    work = Working(ArrayVolume(noise, VOXEL_A), VOXEL_A, bright=True)
    ours = best(lambda: sum(len(slab.labels) for slab in segmenter.segment(work)), times)
    module = load_bundle(bundle).module.to(device)
    began = time.perf_counter()
    _naive(module, work, device)
    naive = time.perf_counter() - began
    return {
        "what": "segment, no rescaling",
        "voxels": _said(shape),
        "seconds": ours,
        "ms per 32³": 1e3 * ours / _boxes(shape),
        "naive ms per 32³": 1e3 * naive / _boxes(shape),
        "× naive": naive / ours,
        "memory MB": memory_mb("VmHWM"),
    }


def _naive(module: torch.jit.ScriptModule, volume: Volume, device: str) -> np.ndarray:
    """Boxes every half edge, one by one; the mean of the probabilities where they overlap."""
    total = np.zeros((len(CLASSES), *volume.shape), np.float32)
    seen = np.zeros(volume.shape, np.float32)
    starts = [[*range(0, n - BOX, BOX // 2), n - BOX] for n in volume.shape]
    with torch.inference_mode():
        for z, y, x in itertools.product(*starts):
            box = torch.from_numpy(volume.read((z, y, x), (z + BOX, y + BOX, x + BOX)))[None, None].to(device)
            place = (slice(z, z + BOX), slice(y, y + BOX), slice(x, x + BOX))
            total[(slice(None), *place)] += module(box)[0].cpu().numpy()
            seen[place] += 1
    return total / seen


def _whole(segmenter: Segmenter, folder: Path) -> dict[str, object]:
    """A tomogram of int8 voxels of 10 Å from its file, rescaled, and probabilities on its own voxels."""
    path = folder / "whole.mrc"
    random = np.random.default_rng(1)
    with MrcWriter(path, WHOLE, 0, FILE_A) as writer:
        for _ in range(0, WHOLE[0], 20):
            writer.write(random.integers(-90, 90, (20, *WHOLE[1:]), np.int8))
    with open_volume(path) as volume:
        work = Working(volume, VOXEL_A)
        began = time.perf_counter()
        planes = sum(len(slab.labels) for slab in segmenter.segment(work))
        seconds = time.perf_counter() - began
    path.unlink()
    assert planes == WHOLE[0]
    return {
        "what": f"segment, {FILE_A:g} Å to {VOXEL_A:g} Å and back",
        "voxels": _said(WHOLE),
        "seconds": seconds,
        "ms per 32³": 1e3 * seconds / _boxes(work.shape),
        "memory MB": memory_mb("VmHWM"),
    }


def _training(folder: Path, device: str, threads: int, count: int) -> dict[str, object]:
    random = np.random.default_rng(2)
    shape = (count, BOX, BOX, BOX)
    data = Examples(
        random.standard_normal(shape, dtype=np.float32),
        random.integers(0, len(CLASSES), shape, np.uint8),
        np.zeros(count, np.int32),
    )
    times: list[float] = []
    options = Options(folder / "training", epochs=2, batch=4, held=1 / count, device=device, threads=threads)

    def tell(what: str, *_: int) -> None:
        if what.startswith("train"):
            times.append(time.perf_counter())

    train_segments(data, CLASSES, options, progress=tell)
    seconds = times[1] - times[0]
    return {
        "what": "train, an epoch",
        "voxels": f"{count - 1} × {BOX}³",
        "seconds": seconds,
        "ms per 32³": 1e3 * seconds / count,
        "memory MB": memory_mb("VmHWM"),
    }


def _said(shape: Shape) -> str:
    return " × ".join(map(str, shape))
