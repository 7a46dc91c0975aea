"""How a batch gets to a device and its answer back: directly on the CPU, over pinned memory and streams on CUDA."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from .bundle import BundleError
from .plans import Forward


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Frames ready for the device: ``tensor`` (bucket, …shape), of which the first ``count`` are frames, the rest 0."""

    tensor: torch.Tensor
    count: int
    ready: torch.cuda.Event | None = field(default=None, repr=False)


class Lane(Protocol):
    """A device as the runner sees it. Any thread calls ``staging`` and ``send``, one at a time the others."""

    def staging(self, shape: tuple[int, ...], wanted: torch.dtype, came: torch.dtype | None) -> torch.Tensor:
        """Host memory to write a batch into; nobody else uses it while the tensor lives.

        ``wanted`` is the dtype that the model takes, ``came`` the one the frames have, if torch knows it.
        """

    def send(self, host: torch.Tensor, wanted: torch.dtype, count: int) -> Batch:
        """Start a staged batch on its way to the device, where it has the dtype ``wanted``."""

    def run(self, forward: Forward, batch: Batch) -> torch.Tensor:
        """Give the answer to a batch in host memory, float32 (bucket, classes)."""

    def record(self, forward: Forward, batch: Batch) -> bool:
        """Prepare to replay ``forward`` for batches of this size; False where the device cannot."""

    def forget(self, size: int) -> None:
        """Do not replay batches of this size."""


class CpuLane:
    """The CPU: nothing travels."""

    def staging(self, shape: tuple[int, ...], wanted: torch.dtype, came: torch.dtype | None) -> torch.Tensor:  # noqa: ARG002
        """Plain memory; converting while copying costs the least."""
        return torch.empty(shape, dtype=wanted)

    def send(self, host: torch.Tensor, wanted: torch.dtype, count: int) -> Batch:  # noqa: ARG002
        """It is there."""
        return Batch(host, count)

    def run(self, forward: Forward, batch: Batch) -> torch.Tensor:
        """Call it."""
        return forward(batch.tensor)

    def record(self, forward: Forward, batch: Batch) -> bool:  # noqa: ARG002
        """Nothing to record."""
        return False

    def forget(self, size: int) -> None:
        """Nothing is recorded."""


class CudaLane:
    """A CUDA device: pinned memory, one stream for copies and one for the model, graphs replayed by batch size."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._work, self._copies = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}

    def staging(self, shape: tuple[int, ...], wanted: torch.dtype, came: torch.dtype | None) -> torch.Tensor:
        """Pinned memory, from torch's cache, which waits for unfinished copies before a block is used again."""
        return torch.empty(shape, dtype=came or wanted, pin_memory=True)

    def send(self, host: torch.Tensor, wanted: torch.dtype, count: int) -> Batch:
        """Copy without waiting; counts travel in as few bytes as they came in, and are converted on the device."""
        with torch.inference_mode(), torch.cuda.stream(self._copies):
            tensor = host.to(self._device, non_blocking=True).to(wanted)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return Batch(tensor, count, ready)

    def run(self, forward: Forward, batch: Batch) -> torch.Tensor:
        """Queue everything on the work stream, and wait for the answer without holding the interpreter lock."""
        with torch.cuda.stream(self._work):
            if batch.ready is not None:
                self._work.wait_event(batch.ready)
            batch.tensor.record_stream(self._work)
            answer = self._replay_or_call(forward, batch.tensor)
            host = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True)
            host.copy_(answer, non_blocking=True)
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record()
        done.synchronize()
        return host

    def record(self, forward: Forward, batch: Batch) -> bool:
        """Record ``forward`` as a CUDA graph; False where the module does something that a graph cannot hold."""
        entry = batch.tensor.clone()
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._work):
                answer = forward(entry)
        except RuntimeError:
            return False
        self._graphs[len(entry)] = (graph, entry, answer)
        return True

    def forget(self, size: int) -> None:
        """Call the module for batches of this size."""
        self._graphs.pop(size, None)

    def _replay_or_call(self, forward: Forward, tensor: torch.Tensor) -> torch.Tensor:
        recorded = self._graphs.get(len(tensor))
        if recorded is None:
            return forward(tensor)
        graph, entry, answer = recorded
        entry.copy_(tensor)
        graph.replay()
        return answer


def open_lane(name: str) -> tuple[torch.device, Lane]:
    """Give the device of that name (``auto``: CUDA where there is one) and its lane; ``BundleError`` (``device``)."""
    there = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if there else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise BundleError("device", f"device: {name!r} is not auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device, CpuLane()
    if device.type != "cuda":
        raise BundleError("device", f"device: {name!r} is not auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if there else 0
    if (device.index or 0) >= count:
        raise BundleError("device", f"device: {name!r}: there are {count} CUDA devices here; use auto or cpu")
    device = torch.device("cuda", device.index or 0)
    return device, CudaLane(device)
