"""Sub-volumes to codes and back: a bundle of an Autoencoder3D, run batch by batch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..bundle import Bundle, load_bundle
from ..lanes import open_lane
from ..runner import usable_cores
from .bundles import codec_network
from .volume import Floats


class Codec:
    """Encodes and decodes sub-volumes with the network of one bundle.

    ``bundle``: a loaded one, or what ``load_bundle`` takes. ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    ``threads``: torch's, for the whole process; None: one per usable core. ``batch``: sub-volumes per call of the
    network. Methods may be called by any thread; they take turns. Raises ``BundleError`` where the bundle is no
    autoencoder of tomograms, or there is no such device.
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
        self.threads, self.batch = threads or usable_cores(), batch
        self._net.to(self.device)
        self._turn = threading.Lock()

    def warm_up(self) -> str:
        """Run it once; says on what it runs."""
        torch.set_num_threads(self.threads)
        self.error(np.zeros((1, self.edge, self.edge, self.edge), np.float32))
        return f"{self.name} on {self.device}"

    def encode(self, boxes: npt.NDArray[np.floating]) -> Floats:
        """Codes (n, 32) float32 of sub-volumes (n, e, e, e), each of mean 0 and standard deviation 1 (``boxes``)."""
        self._check(boxes)
        found = np.empty((len(boxes), self.codes), np.float32)
        with self._turn, torch.inference_mode():
            for some in self._pieces(len(boxes)):
                found[some] = self._net.encode(self._there(boxes[some])[:, None]).cpu().numpy()
        return found

    def decode(self, codes: npt.NDArray[np.floating]) -> Floats:
        """Sub-volumes (n, e, e, e) float32 of codes (n, 32)."""
        if codes.ndim != 2 or codes.shape[1] != self.codes:
            raise ValueError(f"codes: {codes.shape} is not (n, {self.codes})")
        found = np.empty((len(codes), self.edge, self.edge, self.edge), np.float32)
        with self._turn, torch.inference_mode():
            for some in self._pieces(len(codes)):
                found[some] = self._net.decode(self._there(codes[some]))[:, 0].cpu().numpy()
        return found

    def error(self, boxes: npt.NDArray[np.floating]) -> Floats:
        """Mean squared error (n,) float32 of each sub-volume's reconstruction."""
        found = np.empty(len(boxes), np.float32)
        for some in self._pieces(len(boxes)):
            back = self.decode(self.encode(boxes[some]))
            found[some] = np.square(back - boxes[some]).mean((1, 2, 3))
        return found

    def _pieces(self, count: int) -> list[slice]:
        return [slice(first, min(first + self.batch, count)) for first in range(0, count, self.batch)]

    def _there(self, array: npt.NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)

    def _check(self, boxes: npt.NDArray[np.floating]) -> None:
        edge = self.edge
        if boxes.ndim != 4 or boxes.shape[1:] != (edge, edge, edge):
            raise ValueError(f"sub-volumes: {boxes.shape} is not (n, {edge}, {edge}, {edge})")
