"""Runs a bundle on batches: fixed shapes, warmed up, in the fastest way that gives the same scores.

``prepare`` may be called by any thread, ``run`` by one at a time: while the device works on one batch, the next is
padded, converted and (on CUDA) copied.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .bundle import Bundle, BundleError
from .lanes import Batch, open_lane
from .plans import DTYPES, Forward, compile_plan, measure
from .warmup import WarmUp, choose

__all__ = ["Batch", "Runner", "WarmUp"]

_AS_IT_CAME = {np.dtype(name): getattr(torch, name) for name in ("uint8", "int16", "uint16", "int32")}
_TRIAL_FRAMES = 16


class Runner:
    """Runs one bundle on one device.

    ``batch``: most frames in one call. Calls are padded to a power of two, or to ``batch``, so that the device sees few
    shapes. ``device``: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``. ``dtype``: ``auto``
    (measured), ``float32`` or ``bfloat16``. ``threads``: torch's threads inside one operation on the CPU, for the whole
    process; None: one per usable core, or ``OMP_NUM_THREADS``. Raises ``BundleError`` (``device``) where there is no
    such device, ``ValueError`` for the rest.

    On CUDA, TensorFloat-32 is switched off for the whole process: it keeps ten bits, and float32 means float32 here.
    """

    def __init__(
        self, bundle: Bundle, *, batch: int, device: str = "auto", dtype: str = "auto", threads: int | None = None
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch: {batch} is not at least 1")
        if dtype not in ("auto", *DTYPES):
            raise ValueError(f"dtype: {dtype!r} is not one of auto, {', '.join(DTYPES)}")
        self.bundle = bundle
        self.batch = batch
        self.buckets = _buckets(batch)
        self.device, self._lane = open_lane(device)
        self.threads = threads or usable_cores()
        self.report: WarmUp | None = None
        self._dtype = dtype
        self._shape = bundle.card.input.shape
        self.frame_shape = _frame_shape(self._shape)
        self._input_dtype: torch.dtype = getattr(torch, bundle.card.input.dtype)
        self._forward: Forward | None = None
        self._pieces: dict[int, int] = {}
        self._one_at_a_time = threading.Lock()

    def prepare(self, arrays: npt.NDArray[Any] | Sequence[npt.NDArray[Any]]) -> Batch:
        """Copy up to ``batch`` frames, (n, y, x) or a sequence of (y, x), into a padded batch. Any thread.

        Any real dtype is taken. For a model that takes integers, numbers are rounded and cut off at the ends of its
        range. Raises ``BundleError`` (``shape``, ``dtype``) with what the model takes, ``ValueError`` for more than
        ``batch`` frames.
        """
        count = len(arrays)
        bucket = next((size for size in self.buckets if size >= count), None)
        if bucket is None:
            raise ValueError(f"{count} frames in a batch of at most {self.batch}; prepare them in pieces")
        host = self._lane.staging((bucket, *self._shape), self._input_dtype, self._check(arrays))
        rows = host.numpy().reshape(bucket, *self.frame_shape)
        if isinstance(arrays, np.ndarray):
            _copy(rows[:count], arrays)
        else:
            for row, frame in zip(rows, arrays, strict=False):
                _copy(row, frame)
        rows[count:] = 0
        return self._lane.send(host, self._input_dtype, count)

    def run(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Probabilities (batch.count, classes) of the frames. One thread at a time; others wait.

        The first call warms up, if ``warm_up`` was not called.
        """
        if self._forward is None:
            self.warm_up()
        assert self._forward is not None
        size, step = len(batch.tensor), self._pieces[len(batch.tensor)]
        with self._one_at_a_time, torch.inference_mode():
            if step == size:
                answer = self._lane.run(self._forward, batch)
            else:
                # A piece that holds nothing but padding is not run.
                pieces = (batch.tensor[first : first + step] for first in range(0, max(batch.count, 1), step))
                answer = torch.cat([self._lane.run(self._forward, Batch(piece, step, batch.ready)) for piece in pieces])
        rows: npt.NDArray[np.float32] = answer.numpy()
        return rows[: batch.count]

    def scores(self, frames: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Probabilities (n, classes) of any number of frames (n, y, x): ``prepare`` and ``run``, piece by piece."""
        firsts = range(0, len(frames), self.batch)
        pieces = [self.run(self.prepare(frames[first : first + self.batch])) for first in firsts]
        classes = len(self.bundle.card.output.classes)
        return np.concatenate(pieces) if pieces else np.empty((0, classes), np.float32)

    def warm_up(self) -> WarmUp:
        """Try the ways to run the model, keep the fastest that agrees with it, and run every bucket that way.

        Call it in the thread that will call ``run``: torch keeps its worker threads per calling thread. Raises
        ``BundleError``: ``output`` where the module does not answer (n, classes) finite numbers, ``tolerance`` where no
        way that was asked for gives the scores that it gives in float32 on the CPU.
        """
        began = time.perf_counter()
        torch.set_num_threads(self.threads)
        with self._one_at_a_time, torch.inference_mode():
            best, trials = choose(self.bundle, self.device, self._dtype, min(self.batch, _TRIAL_FRAMES))
            forward = compile_plan(best.plan, self.bundle.card, self.bundle.module, self.device)
            alone = {size: self._settle(forward, size) for size in self.buckets}
        self._pieces = {size: _best_piece(size, alone) for size in self.buckets}
        times = {size: alone[piece][0] * size / piece for size, piece in self._pieces.items()}
        self._forward = forward
        self.report = WarmUp(
            device=str(self.device),
            plan=best.plan,
            graph=alone[self._pieces[self.batch]][1],
            threads=self.threads,
            ms_per_frame=times[self.batch] / self.batch,
            difference=best.difference,
            buckets=times,
            pieces=self._pieces,
            trials=trials,
            seconds=time.perf_counter() - began,
        )
        return self.report

    def _settle(self, forward: Forward, size: int) -> tuple[float, bool]:
        """Milliseconds for a batch of ``size``, and whether it is replayed from a graph, which must be the faster."""
        batch = self.prepare(np.zeros((size, *self.frame_shape), self.bundle.card.input.dtype))
        called = measure(lambda: self._lane.run(forward, batch))
        if not self._lane.record(forward, batch):
            return 1e3 * called, False
        replayed = measure(lambda: self._lane.run(forward, batch))
        if replayed < called:
            return 1e3 * replayed, True
        self._lane.forget(size)
        return 1e3 * called, False

    def _check(self, arrays: npt.NDArray[Any] | Sequence[npt.NDArray[Any]]) -> torch.dtype | None:
        """Refuse frames of another shape; answer their dtype, if torch knows it and all its values fit."""
        if isinstance(arrays, np.ndarray):
            shapes, dtypes = {arrays.shape[1:]}, {arrays.dtype}
        else:
            shapes, dtypes = {frame.shape for frame in arrays}, {frame.dtype for frame in arrays}
        path, takes = self.bundle.path, self.bundle.card.input.dtype
        for shape in shapes - {self.frame_shape}:
            needed, given = (" × ".join(map(str, extents)) for extents in (self.frame_shape, shape))
            raise BundleError("shape", f"{path}: takes frames of {needed}, was given {given}; crop, pad or bin them")
        for dtype in dtypes:
            if dtype.kind not in "biuf":
                raise BundleError("dtype", f"{path}: takes {takes}, was given {dtype}; give real numbers")
        came = dtypes.pop() if len(dtypes) == 1 else None
        return _AS_IT_CAME.get(came) if came is not None and np.can_cast(came, takes, "same_kind") else None


def _copy(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Copy numbers into another dtype: into integers, rounded and cut off at the ends, and 0 for NaN."""
    if target.dtype.kind != "f" and not np.can_cast(source.dtype, target.dtype, "safe"):
        ends = np.iinfo(target.dtype)
        rounded = np.nan_to_num(np.rint(source), nan=0, posinf=ends.max, neginf=ends.min)
        source = rounded.clip(ends.min, ends.max)
    np.copyto(target, source, casting="unsafe")


def _buckets(batch: int) -> tuple[int, ...]:
    return (*(1 << i for i in range(batch.bit_length()) if 1 << i < batch), batch)


def _best_piece(size: int, alone: Mapping[int, tuple[float, bool]]) -> int:
    """Into pieces of which size to cut a batch: on a CPU, smaller ones may stay in its caches, and allocate less."""
    return min((piece for piece in alone if size % piece == 0), key=lambda piece: (alone[piece][0] / piece, -piece))


def _frame_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a frame for an input of ``shape``: one channel is not an axis of the data."""
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return shape


def usable_cores() -> int:
    """How many threads are worth having: ``OMP_NUM_THREADS``, or the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
