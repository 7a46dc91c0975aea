"""The bare forward pass beside the daemon: a process that runs the bundle's TorchScript module on one batch.

    python -m benchmarks.forward --bundle NAME --batch N --threads N --seconds S --json FILE [--frames shots.npy]

``bare``: the module as ``torch.jit.load`` gives it, on a float32 batch that is there. ``runner``: the runner of the
daemon on a prepared batch, in the way its warm-up chose. Frames per second over all calls, not of the fastest one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beamsieve.models.bundle import load_bundle, quiet_torchscript
from beamsieve.models.runner import Runner


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bundle", required=True)
    options.add_argument("--batch", type=int, required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--device", default="cpu")
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--json", type=Path, required=True)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    bundle = load_bundle(asked.bundle)
    shape = bundle.card.input.shape
    frames = np.random.default_rng(0).poisson(0.3, (asked.batch, *shape[1:])).astype(np.uint16)
    runner = Runner(bundle, batch=asked.batch, device=asked.device, threads=asked.threads)
    report = runner.warm_up()
    with torch.inference_mode(), quiet_torchscript():
        module = torch.jit.load(str(bundle.path), map_location=runner.device).eval()  # type: ignore[no-untyped-call]
        there = torch.from_numpy(frames).reshape(-1, *shape).to(runner.device)
        there = there.to(getattr(torch, bundle.card.input.dtype))
        bare = rate(lambda: module(there).cpu(), asked.batch, asked.seconds)
    batch = runner.prepare(frames)
    found = {"bare": bare, "runner": rate(lambda: runner.run(batch), asked.batch, asked.seconds), "how": str(report)}
    asked.json.write_text(json.dumps(found))


def rate(call: Callable[[], Any], frames: int, seconds: float) -> float:
    """Frames per second over ``seconds``, after three calls that do not count."""
    for _ in range(3):
        call()
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()
        calls += 1
    return calls * frames / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
