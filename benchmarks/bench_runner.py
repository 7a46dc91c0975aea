"""Frames per second of the runner beside the bare TorchScript forward pass, measured in one process.

    python benchmarks/bench_runner.py [--bundle NAME] [--device cpu|cuda] [--threads N] [--json FILE]

``bare``: the module as loaded, called on a batch that is there already. ``run``: the runner on a prepared batch;
``prepare+run``: with copying and padding uint16 frames, one after the other. Ratios are to ``bare`` at the same batch.
Without a bundle, an untrained ResNet-10 is timed: speed does not depend on the weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.hits.infer import CLASSES, SIZE
from beamsieve.models.runner import Runner

BATCHES = (1, 2, 4, 8, 16, 32, 64)
DTYPES = ("float32", "bfloat16", "auto")


def untrained(directory: Path) -> Bundle:
    """A ResNet-10 as it would ship, with random weights."""
    from beamsieve.models.hits.resnet10 import ResNet10, export

    torch.manual_seed(0)
    with quiet_torchscript():
        module = export(ResNet10().eval(), torch.zeros(1, 1, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE), "sqrt")
    card = {
        "version": "0",
        "task": "hits",
        "input": {"name": "photons", "shape": [1, SIZE, SIZE], "dtype": "uint16", "normalisation": "in the module"},
        "output": {"classes": list(CLASSES), "kind": "probabilities"},
        "threshold": 0.5,
        "training": {},
        "scores": {},
        "trained_by": "nobody",
        "licence": "Apache-2.0",
    }
    return load_bundle(save_bundle(directory, "untrained", module, card))


def rate(call: Callable[[], Any], frames: int, seconds: float) -> float:
    """Frames per second of the fastest call within ``seconds``, after three that do not count."""
    for _ in range(3):
        call()
    best, end = float("inf"), time.perf_counter() + seconds
    while (began := time.perf_counter()) < end or best == float("inf"):
        call()
        best = min(best, time.perf_counter() - began)
    return frames / best


def bare(bundle: Bundle, frames: np.ndarray[Any, Any], device: torch.device, seconds: float) -> float:
    """The module as loaded, on a batch that is on the device already."""
    with torch.inference_mode():
        with quiet_torchscript():
            module = torch.jit.load(str(bundle.path), map_location=device).eval()  # type: ignore[no-untyped-call]
        dtype = getattr(torch, bundle.card.input.dtype)
        there = torch.from_numpy(frames).reshape(-1, *bundle.card.input.shape).to(device).to(dtype)
        return rate(lambda: module(there).cpu(), len(frames), seconds)


def measure(bundle: Bundle, device: str, threads: int | None, seconds: float) -> list[dict[str, Any]]:
    """One row per batch size: frames per second, and ratios to the bare forward pass."""
    runners = {
        dtype: Runner(bundle, batch=BATCHES[-1], device=device, dtype=dtype, threads=threads) for dtype in DTYPES
    }
    for name, runner in list(runners.items()):
        try:
            print(f"{name:9s} {runner.warm_up()}")
        except BundleError as error:
            print(f"{name:9s} {error}")
            del runners[name]
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    print(
        f"{'batch':>5s} {'bare':>9s}"
        + "".join(f" {name + ' run':>15s} ratio {'prepare+run':>11s} ratio" for name in runners)
    )
    for size in BATCHES:
        frames = rng.poisson(0.3, (size, *runners["float32"].frame_shape)).astype(np.uint16)
        base = bare(bundle, frames, runners["float32"].device, seconds)
        row: dict[str, Any] = {"batch": size, "bare": base}
        line = f"{size:5d} {base:9.0f}"
        for name, runner in runners.items():
            row[name] = compare(runner, frames, base, seconds)
            line += f" {row[name]['run']:15.0f} {row[name]['run_ratio']:5.2f} {row[name]['prepare_run']:11.0f}"
            line += f" {row[name]['prepare_run_ratio']:5.2f}"
        print(line)
        rows.append(row)
    return rows


def compare(runner: Runner, frames: np.ndarray[Any, Any], base: float, seconds: float) -> dict[str, float]:
    """Frames per second of one runner, without and with preparing the batch, beside ``base``."""
    batch = runner.prepare(frames)
    run = rate(lambda: runner.run(batch), len(frames), seconds)
    both = rate(lambda: runner.run(runner.prepare(frames)), len(frames), seconds)
    return {"run": run, "run_ratio": run / base, "prepare_run": both, "prepare_run_ratio": both / base}


def main() -> None:
    """Print the table; write it as JSON where asked to."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bundle", help="name or path; default: an untrained ResNet-10")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options.add_argument("--threads", type=int, help="torch's threads on the CPU; default: one per core")
    options.add_argument("--seconds", type=float, default=0.3, help="spent on each number")
    options.add_argument("--json", type=Path, help="write the numbers to this file")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bundle = load_bundle(asked.bundle) if asked.bundle else untrained(Path(directory))
        print(f"{bundle.card.name}, torch {torch.__version__}")
        rows = measure(bundle, asked.device, asked.threads, asked.seconds)
    if asked.json:
        asked.json.write_text(json.dumps({"benchmark": "runner", "torch": torch.__version__, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
