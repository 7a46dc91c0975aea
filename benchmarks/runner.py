"""The runner beside the bare TorchScript forward pass, batch by batch; on CUDA also without its staging and streams.

``bare``: the module as loaded, on a batch that is on the device already. ``runner``: on a prepared batch. ``stream of
batches``: frames in host memory, prepared in one thread while the device works on the last batch in another, as in the
daemon. ``plain copies``: the same with ordinary memory and one stream, which is what ``tensor.to(device)`` does.
Needs torch and numpy only. Without a bundle an untrained ResNet-10 is timed: speed does not depend on the weights.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.hits.infer import CLASSES, SIZE
from beamsieve.models.lanes import Batch, CpuLane
from beamsieve.models.plans import Forward
from beamsieve.models.runner import Runner

from .forward import rate
from .report import Report, Target

COLUMNS = {
    "batch": "d", "bare /s": ",.0f", "runner /s": ",.0f", "of bare": ".2f", "stream /s": ",.0f", "of bare ": ".2f",
    "plain copies /s": ",.0f", "stream : plain": ".2f",
}  # fmt: skip
BATCHES = {"cpu": (1, 4, 16, 32), "cuda": (1, 8, 32, 128, 512)}


def measure(bundle_name: str, *, device: str, threads: int, quick: bool) -> Report:
    """One row per batch size."""
    seconds = 0.5 if quick else 2.0
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = load_bundle(bundle_name)
        except BundleError:
            bundle = untrained(Path(folder))
        kind = torch.device(device).type
        report = Report("runner", f"{bundle.card.name} on {device}, 128² uint16 frames in host memory", COLUMNS)
        for size in BATCHES[kind]:
            report.rows.append(_row(bundle, size, device, threads, seconds, report))
    return report


def _row(bundle: Bundle, size: int, device: str, threads: int, seconds: float, report: Report) -> dict[str, Any]:
    runner = Runner(bundle, batch=size, device=device, threads=threads)
    how = runner.warm_up()
    report.notes.append(f"batches of {size}: {how}")
    frames = np.random.default_rng(0).poisson(0.3, (size, *runner.frame_shape)).astype(np.uint16)
    base = bare(bundle, frames, runner.device, seconds)
    batch = runner.prepare(frames)
    row: dict[str, Any] = {"batch": size, "bare /s": base}
    row["runner /s"] = rate(lambda: runner.run(batch), size, seconds)
    row["stream /s"] = stream(runner, frames, seconds)
    if runner.device.type == "cuda":
        runner._lane, lane = PlainCopies(runner.device), runner._lane
        row["plain copies /s"] = stream(runner, frames, seconds)
        runner._lane = lane
        row["stream : plain"] = row["stream /s"] / row["plain copies /s"]
    row["of bare"], row["of bare "] = row["runner /s"] / base, row["stream /s"] / base
    if size == max(BATCHES[runner.device.type]):
        report.targets.append(Target(f"stream of batches of {size}, of the bare forward rate", 0.8, row["of bare "]))
    return row


class PlainCopies(CpuLane):
    """What one would write first: pageable memory, the default stream, every copy waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, host: torch.Tensor, wanted: torch.dtype, count: int) -> Batch:
        with torch.inference_mode():
            return Batch(host.to(self._device).to(wanted), count)

    def run(self, forward: Forward, batch: Batch) -> torch.Tensor:
        return forward(batch.tensor).cpu()


def stream(runner: Runner, frames: npt.NDArray[np.uint16], seconds: float) -> float:
    """Frames per second of a stream of batches: one thread prepares the next while this one runs the last."""
    ready: Queue[Batch | None] = Queue(1)
    over = threading.Event()

    def prepare() -> None:
        while not over.is_set():
            ready.put(runner.prepare(frames))
        ready.put(None)

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    for _ in range(3):
        runner.run(_next(ready))
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        runner.run(_next(ready))
        count += len(frames)
    taken = time.perf_counter() - began
    over.set()
    while ready.get() is not None:
        pass
    thread.join()
    return count / taken


def _next(ready: Queue[Batch | None]) -> Batch:
    batch = ready.get()
    assert batch is not None
    return batch


def bare(bundle: Bundle, frames: npt.NDArray[np.uint16], device: torch.device, seconds: float) -> float:
    """The module as loaded, on a batch that is on the device already."""
    with torch.inference_mode():
        with quiet_torchscript():
            module = torch.jit.load(str(bundle.path), map_location=device).eval()  # type: ignore[no-untyped-call]
        there = torch.from_numpy(frames).reshape(-1, *bundle.card.input.shape).to(device)
        there = there.to(getattr(torch, bundle.card.input.dtype))
        call: Callable[[], Any] = lambda: module(there).cpu()  # noqa: E731
        return rate(call, len(frames), seconds)


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
