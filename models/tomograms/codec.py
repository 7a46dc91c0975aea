"""Sub-volumes to codes and back: a bundle of an Autoencoder3D, run in the fastest way that gives the same codes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..bundle import Bundle, load_bundle
from ..lanes import open_lane
from ..runner import usable_cores
from .bundles import codec_network
from .codec_plans import Half, Plan, choose
from .volume import Floats


class Codec:
    """Encodes and decodes sub-volumes with the network of one bundle.

    ``bundle``: a loaded one, or what ``load_bundle`` takes. ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    ``threads``: pieces that are worked on side by side on a CPU; None: one per usable core. ``batch``: sub-volumes per
    call of the network, at most. Methods may be called by any thread; they take turns. Raises ``BundleError`` where the
    bundle is no autoencoder of tomograms, or there is no such device.
    """

    def __init__(
        self, bundle: Bundle | str | Path, *, device: str = "auto", threads: int | None = None, batch: int = 32
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch: {batch} is not at least 1")
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._net = codec_network(self.bundle).eval()
        card = self.bundle.card
        self.name, self.sha256 = card.name, card.sha256
        self.edge = card.input.shape[-1]
        self.codes = len(card.output.classes)
        self.voxel_a = card.input.pixel_a or 0.0
        self.posed = bool(card.training.get("posed", False))
        self.device, _ = open_lane(device)
        self.threads = (threads or usable_cores()) if self.device.type == "cpu" else 1
        self.batch = batch
        self._net.to(self.device)
        self._plan: Plan | None = None
        # Each piece on one thread of its own: threads that share a piece wait for each other at every layer, and on a
        # busy machine for most of the time.
        self._pool = ThreadPoolExecutor(self.threads, "codec", initializer=torch.set_num_threads, initargs=(1,))
        self._turn = threading.Lock()

    def warm_up(self) -> str:
        """Find the fastest way that gives the codes of the network as trained, and say which, and how fast it is.

        Else the first call does it. Raises ``BundleError`` (``tolerance``) where the device does not give them.
        """
        with self._turn:
            plan = self._ready()
        side = f", {self.threads} side by side" if self.threads > 1 else ""
        return f"{self.name} on {self.device}{side}: {plan}"

    def encode(self, boxes: npt.NDArray[np.floating]) -> Floats:
        """Codes (n, 32) float32 of sub-volumes (n, e, e, e), each of mean 0 and standard deviation 1 (``boxes``).

        What comes out for a sub-volume does not depend on those beside it.
        """
        edge = self.edge
        if boxes.ndim != 4 or boxes.shape[1:] != (edge, edge, edge):
            raise ValueError(f"sub-volumes: {boxes.shape} is not (n, {edge}, {edge}, {edge})")
        with self._turn:
            return self._run(self._ready().encode, boxes[:, None], (self.codes,))

    def decode(self, codes: npt.NDArray[np.floating]) -> Floats:
        """Sub-volumes (n, e, e, e) float32 of codes (n, 32), in units of the sub-volumes that were encoded."""
        if codes.ndim != 2 or codes.shape[1] != self.codes:
            raise ValueError(f"codes: {codes.shape} is not (n, {self.codes})")
        with self._turn:
            return self._run(self._ready().decode, codes, (1, *(self.edge,) * 3))[:, 0]

    def error(self, boxes: npt.NDArray[np.floating], codes: Floats | None = None) -> Floats:
        """How much of each sub-volume is not reconstructed, (n,) float32: 0 nothing, 1 as if nothing were.

        The mean squared error over the variance, both of the sub-volume as the network smooths it: it is not held
        against the network that finer noise, which it was told to ignore, is not in the reconstruction. ``codes``:
        theirs, where they are known.
        """
        found = np.empty(len(boxes), np.float32)
        for first in range(0, len(boxes), self.batch):
            some = slice(first, first + self.batch)
            given = np.asarray(boxes[some], np.float32)
            back = self.decode(self.encode(given) if codes is None else codes[some])
            with self._turn, torch.inference_mode():
                there = torch.from_numpy(given)[:, None].to(self.device)
                seen = self._net.smoothed(there).div(self._net.gain)[:, 0].cpu().numpy()
            spread = np.square(seen - seen.mean((1, 2, 3), keepdims=True)).mean((1, 2, 3))
            found[some] = np.square(back - seen).mean((1, 2, 3)) / np.maximum(spread, 1e-9)
        return found

    def _ready(self) -> Plan:
        if self._plan is None:
            tolerance = self.bundle.card.tolerance.float32
            self._plan = self._pool.submit(choose, self._net, self.batch, tolerance).result()
        return self._plan

    def _run(self, half: Half, given: npt.NDArray[np.floating], shape: tuple[int, ...]) -> Floats:
        """Piece by piece, the last one filled up: another size would be computed, and rounded, another way."""
        assert self._plan is not None
        piece, found = self._plan.piece, np.empty((len(given), *shape), np.float32)

        def one(first: int) -> None:
            some = given[first : first + piece]
            host = np.zeros((piece, *given.shape[1:]), np.float32)
            host[: len(some)] = some
            with torch.inference_mode():
                answer = half(torch.from_numpy(host).to(self.device))
                found[first : first + piece] = answer[: len(some)].cpu().numpy()

        # Its answers are all taken, so that an exception of any comes out here.
        for _ in self._pool.map(one, range(0, len(given), piece)):
            pass
        return found
