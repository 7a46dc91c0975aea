"""Networks of tomograms: encode, decode, segment and train, beside the naive way and the paper's GPU.

The naive way is the same network as a plain PyTorch module, run eagerly on one sub-volume at a time and on eight, in
the same process. The paper's figures are of a GTX 1080 (Zeng et al. 2018, section 3.2 and supplement); its training is
of one epoch, per sub-volume. All is float32, but our segmentation, which takes what its card allows.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beamsieve.models.bundle import load_bundle
from beamsieve.models.tomograms.bundles import codec_network, save_segmenter
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.nets import Autoencoder3D, Edss3d
from beamsieve.models.tomograms.practice import Sample
from beamsieve.models.tomograms.segment import Segmenter
from beamsieve.models.tomograms.train import Trainer, make_options
from torch.nn import functional

from .report import Report, Target

GPU_MS = {"encode": 1.2, "decode": 2.3, "segment": 11.0, "train": 13.0}
MOST_MS = {"encode": 1.8, "segment": 22.0}
CLASSES = ("background", "surface", "globule", "other")
_COLUMNS = {
    "what": "",
    "ms": ".2f",
    "naive_1_ms": ".2f",
    "naive_8_ms": ".2f",
    "times_naive_1": ".1f",
    "times_naive_8": ".1f",
    "of_gpu": ".2f",
}


def measure(*, codec: str = "tomograms-general", device: str = "cpu", threads: int = 2, quick: bool = False) -> Report:
    """Milliseconds per sub-volume of 32³ voxels: ours, the naive way with batches of 1 and 8, and over the paper's GPU.

    ``of_gpu``: ours over the paper's, 0.5 is twice as fast.
    """
    torch.set_num_threads(threads)
    seconds = 1.0 if quick else 4.0
    ours, how = _codec(codec, device, threads, seconds)
    ours |= {"train": _training(device, threads, 4 if quick else 16)}
    segmented, said = _segmenter(device, threads, seconds)
    ours |= {"segment": segmented}
    naive = _naive(load_bundle(codec), device, seconds / 4)
    report = Report("tomograms_networks", "Networks of tomograms: milliseconds per sub-volume of 32³", _COLUMNS)
    for what, gpu in GPU_MS.items():
        one, eight = naive[what]
        report.rows.append(
            {"what": what, "ms": ours[what], "naive_1_ms": one, "naive_8_ms": eight, "times_naive_1": one / ours[what],
             "times_naive_8": eight / ours[what], "of_gpu": ours[what] / gpu, "gpu_ms": gpu}
        )  # fmt: skip
    report.targets = [
        Target(f"{what} a sub-volume on {threads} threads", most, ours[what], "ms", at_least=False)
        for what, most in MOST_MS.items()
    ]
    report.notes = [f"codec: {how}", f"segmentation: {said}; {len(CLASSES)} classes, boxes of 32³"]
    report.notes.append(f"of_gpu: over the paper's GTX 1080 ({', '.join(f'{k} {v:g} ms' for k, v in GPU_MS.items())})")
    return report


def _per_box(call: Callable[[], Any], boxes: int, seconds: float) -> float:
    """Milliseconds per sub-volume over about ``seconds``, after two calls that do not count."""
    for _ in range(2):
        call()
    calls, began = 0, time.perf_counter()
    while not calls or time.perf_counter() - began < seconds:
        call()
        calls += 1
    return 1e3 * (time.perf_counter() - began) / (calls * boxes)


def _codec(name: str, device: str, threads: int, seconds: float) -> tuple[dict[str, float], str]:
    codec = Codec(name, device=device, threads=threads)
    how = codec.warm_up()
    boxes = np.random.default_rng(0).standard_normal((128, *(codec.edge,) * 3)).astype(np.float32)
    codes = codec.encode(boxes)
    return {
        "encode": _per_box(lambda: codec.encode(boxes), len(boxes), seconds),
        "decode": _per_box(lambda: codec.decode(codes), len(codes), seconds),
    }, how


def _segmenter(device: str, threads: int, seconds: float) -> tuple[float, str]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="beamsieve-bench-") as folder:
        path = save_segmenter(Path(folder), "bench", Edss3d(len(CLASSES)), CLASSES)
        segmenter = Segmenter(load_bundle(path), device=device, threads=threads)
        said = segmenter.warm_up()
        boxes = np.random.default_rng(0).standard_normal((16, 32, 32, 32)).astype(np.float32)
        return _per_box(lambda: segmenter.probabilities(boxes), len(boxes), seconds), said


def _training(device: str, threads: int, steps: int) -> float:
    """Steps of the published recipe: batches of 8, Adam."""
    rng = np.random.default_rng(0)
    sample = Sample(rng.standard_normal((40, 32, 32, 32)).astype(np.float16), np.zeros(40, np.int64))
    options = make_options(Path(os.devnull), "paper", device=device, threads=threads)
    trainer = Trainer(options, sample)
    rows = trainer.rows[:8]
    return _per_box(lambda: [trainer.step(rows, rng) for _ in range(steps)], 8 * steps, 0)


def _naive(bundle: Any, device: str, seconds: float) -> dict[str, tuple[float, float]]:
    """Plain modules, eagerly, with batches of 1 and of 8."""
    net, segment = codec_network(bundle).eval().to(device), Edss3d(len(CLASSES)).eval().to(device)
    learner = Autoencoder3D().to(device)
    adam = torch.optim.Adam(learner.parameters(), 1e-3, (0.9, 0.99))
    found: dict[str, list[float]] = {name: [] for name in GPU_MS}
    for n in (1, 8):
        boxes = torch.randn(n, 1, 32, 32, 32, device=device)
        codes = torch.rand(n, net.encoder.dense.out_features, device=device)

        def step(boxes: torch.Tensor = boxes) -> None:
            adam.zero_grad()
            codes = learner.encode(boxes)
            loss = functional.mse_loss(learner.decode(codes), boxes) + 1e-5 * codes.abs().sum(1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()

        with torch.inference_mode():
            found["encode"].append(_per_box(lambda b=boxes: net.encode(b).cpu(), n, seconds))  # type: ignore[misc]
            found["decode"].append(_per_box(lambda c=codes: net.decode(c).cpu(), n, seconds))  # type: ignore[misc]
            found["segment"].append(_per_box(lambda b=boxes: segment(b).cpu(), n, seconds))  # type: ignore[misc]
        found["train"].append(_per_box(step, n, seconds))
    return {name: (one, eight) for name, (one, eight) in found.items()}


if __name__ == "__main__":
    measure(codec="tomograms-general", threads=len(os.sched_getaffinity(0))).show()
