"""Runs a denoiser on any number of working images: in small pieces, side by side, in the fastest way that agrees."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..bundle import Bundle
from ..lanes import open_lane
from ..plans import Forward, compile_plan, measure
from ..runner import usable_cores
from ..warmup import choose
from .working import EDGE

Floats = npt.NDArray[np.float32]
_TRIAL_IMAGES = 16
_PIECES = (8, 16, 32, 64)
"""Sizes of pieces that are tried on a CPU: what a small one needs stays in the caches."""


class Denoiser:
    """Denoises working images with a bundle of task ``classes2d``.

    ``device``: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``. ``threads``: how many pieces are
    worked on side by side on a CPU; None: one per usable core, or ``OMP_NUM_THREADS``. They are threads of this object,
    so that other models keep theirs. ``batch``: most images in one piece. Raises ``BundleError``: ``device`` where
    there is no such device, ``task`` or ``shape`` where the bundle is no denoiser of 64 × 64 pixels; ``ValueError`` for
    the rest.
    """

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None, batch: int = 128) -> None:
        if batch < 1 or (threads is not None and threads < 1):
            raise ValueError(f"batch: {batch}, threads: {threads}: both must be at least 1")
        self.bundle = bundle.expect(task="classes2d", shape=(EDGE, EDGE))
        self.device, _ = open_lane(device)
        self.threads = (threads or usable_cores()) if self.device.type == "cpu" else 1
        self.batch = batch
        self.report = ""
        self._piece = batch
        self._forward: Forward | None = None
        self._one_at_a_time = threading.Lock()
        # Two pieces on two threads are faster than one piece cut in two, and a busy core does not hold up the other.
        self._pool = ThreadPoolExecutor(self.threads, "denoise", initializer=torch.set_num_threads, initargs=(1,))

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.bundle.card.name

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bundle's file, 64 hexadecimal digits."""
        return self.bundle.card.sha256

    @property
    def edge(self) -> int:
        """Edge of the images in pixels."""
        return EDGE

    def warm_up(self) -> str:
        """Choose the fastest way to run that gives the same images, and say which; a few seconds.

        Raises ``BundleError``: ``output`` where the module does not answer images, ``tolerance`` where no way agrees
        with float32 on the CPU to the tolerance on its card.
        """
        with self._one_at_a_time:
            if self._forward is None:
                self.report = self._pool.submit(self._settle).result()
            return self.report

    def __call__(self, images: npt.NDArray[Any]) -> Floats:
        """Denoised images, float32 (n, 64, 64), in the units of ``images`` (n, 64, 64; see ``working``).

        One caller at a time, others wait; the first call warms up. Raises ``ValueError`` for another shape.
        """
        given = np.asarray(images)
        if given.ndim != 3 or given.shape[1:] != (EDGE, EDGE):
            raise ValueError(f"images: a shape of {given.shape} is not (n, {EDGE}, {EDGE}); make them with working()")
        if self._forward is None:
            self.warm_up()
        found = np.empty(given.shape, np.float32)
        with self._one_at_a_time:
            firsts = range(0, len(given), self._piece)
            # list() hands on what a piece raised.
            list(self._pool.map(lambda first: self._run(given, found, first), firsts))
        return found

    def _run(self, given: npt.NDArray[Any], found: Floats, first: int) -> None:
        assert self._forward is not None
        some = given[first : first + self._piece]
        # Always the same shape, because torch compiles for each; what is left over is 0.
        piece = torch.zeros((self._piece, 1, EDGE, EDGE))
        piece[: len(some), 0] = torch.from_numpy(np.ascontiguousarray(some, np.float32))
        with torch.inference_mode():
            answer = self._forward(piece.to(self.device)).cpu()
        found[first : first + len(some)] = answer[: len(some), 0].numpy()

    def _settle(self) -> str:
        with torch.inference_mode():
            best, _ = choose(self.bundle, self.device, "auto", min(self.batch, _TRIAL_IMAGES))
            forward = compile_plan(best.plan, self.bundle.card, self.bundle.module, self.device)
            sizes = [size for size in _PIECES if size <= self.batch and self.device.type == "cpu"] or [self.batch]
            times = {size: measure(self._call(forward, size)) / size for size in sizes}
        self._piece = min(times, key=lambda size: times[size])
        self._forward = forward
        where = f"cpu ({self.threads} thread{'s' * (self.threads > 1)})" if self.device.type == "cpu" else self.device
        return f"{where}, {best.plan}: {1e3 * times[self._piece]:.3f} ms per image in pieces of {self._piece}"

    def _call(self, forward: Forward, size: int) -> Callable[[], torch.Tensor]:
        images = torch.zeros((size, 1, EDGE, EDGE), device=self.device)
        return lambda: forward(images).cpu()
