"""The picker: a DeepEM bundle, run on whole micrographs.

``prepare`` may be called by any thread, ``run`` by one (the device's), ``decide`` by any; ``pick`` is all three.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..bundle import Bundle, BundleError
from ..lanes import open_lane
from .candidates import Candidates, Floats
from .deepem import layout_of
from .dense import DenseScan, patch_by_patch, single_thread
from .options import PickOptions
from .peaks import apart, disc_sd, maxima
from .prepare import normalise, rescale, scale_factor, to_full

__all__ = ["PickOptions", "Picker", "PickerReport", "Prepared", "ScoreMap"]

_REMEDY = "state it in the configuration (decode.pixel_a) or on the command line (--pixel-size)"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A micrograph as the network sees it: ``image`` float32, rescaled by ``factor`` from ``shape`` as read."""

    image: Floats
    factor: float
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMap:
    """Scores of a micrograph on a grid. ``log_odds``: float32 (ny, nx).

    Point (i, j) speaks for the centre (``origin`` + i * ``stride``, ``origin`` + j * ``stride``), in pixels of the
    rescaled micrograph.
    """

    log_odds: Floats
    origin: float
    stride: int

    @property
    def scores(self) -> Floats:
        """The mean of the rotations, 0..1."""
        scores: Floats = torch.sigmoid(torch.from_numpy(self.log_odds)).numpy()
        return scores


@dataclass(frozen=True, slots=True)
class PickerReport:
    """What the warm-up found: the largest difference of a score from the network's own, and the seconds it took."""

    device: str
    threads: int
    difference: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A mapping that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        where = f"{self.device} ({self.threads} threads)" if self.device == "cpu" else self.device
        return f"{where}: the scan's scores are the network's to {self.difference:.1e} ({self.seconds:.1f} s)"


class Picker:
    """Picks particles with a bundle of task ``particles``.

    ``device``: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``. ``threads``: blocks of the scan
    that are worked on at once on a CPU; None: one per usable core, or ``OMP_NUM_THREADS``. ``diameter_a``: of the
    particle, in Å, where it is not the card's: micrographs are then rescaled so that it fills as many pixels as the
    particle that the model was trained on. Raises ``BundleError``: ``task``, ``shape``, ``classes``, ``card`` (no pixel
    size or diameter), ``format`` (not a DeepEM network), ``device``.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: PickOptions | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        diameter_a: float | None = None,
    ) -> None:
        self.bundle, self.options = bundle.expect(task="particles", classes=1), options or PickOptions()
        card = bundle.card
        if card.input.pixel_a is None or card.input.diameter_a is None:
            raise BundleError("card", f"{bundle.path}: its card does not state input.pixel_a and input.diameter_a")
        try:
            layout = layout_of(bundle.module)
        except ValueError as error:
            raise BundleError("format", f"{bundle.path}: {error}; choose another bundle") from error
        bundle.expect(shape=(layout.box, layout.box))
        if diameter_a is not None and not (math.isfinite(diameter_a) and diameter_a > 0):
            raise ValueError(f"diameter_a: {diameter_a} Å is not above 0")
        self.threshold = card.threshold if self.options.threshold is None else self.options.threshold
        self.diameter_a = card.input.diameter_a if diameter_a is None else float(diameter_a)
        self.pixel_a = card.input.pixel_a * self.diameter_a / card.input.diameter_a
        self.diameter_px = card.input.diameter_a / card.input.pixel_a
        self.box = layout.box
        self.device, _ = open_lane(device)
        self.threads = threads or _usable_cores()
        self.scan = DenseScan(
            bundle.module,
            rotations=self.options.rotations,
            fine=self.options.fine,
            tile_px=max(self.options.tile_px, 2 * layout.box),
            device=self.device,
            threads=self.threads,
        )

    def warm_up(self) -> PickerReport:
        """Compare the scan with the module itself, patch by patch, on noise. Call it in the thread that will ``run``.

        Raises ``BundleError`` (``tolerance``) where a score differs by more than the card's tolerance for float32.
        """
        began = time.perf_counter()
        edge, stride = self.box, self.scan.stride
        noise = np.random.default_rng(0).normal(size=(edge + stride + 1, edge + 3 * stride - 1)).astype(np.float32)
        dense = self.scan.scores(noise)
        with single_thread():
            difference = float(np.abs(dense - patch_by_patch(self.bundle.module, noise, self.scan)).max())
        limit = self.bundle.card.tolerance.float32
        if not difference <= limit:
            raise BundleError(
                "tolerance",
                f"{self.bundle.path}: on {self.device} the scan of a whole micrograph differs by {difference:.1e} from "
                f"the network patch by patch (allowed: {limit:.1e}); use another device or another bundle",
            )
        return PickerReport(str(self.device), self.threads, difference, time.perf_counter() - began)

    def prepare(self, image: npt.NDArray[Any], pixel_a: float | None) -> Prepared:
        """Rescale and normalise a micrograph (ny, nx) of any real dtype, of ``pixel_a`` Å per pixel.

        Raises ``ValueError`` with the remedy: no or an absurd pixel size, no pixel that is finite, all the same, or
        less than one box.
        """
        if pixel_a is None:
            raise ValueError(f"pixel size: the micrograph does not state it; {_REMEDY}")
        try:
            factor = scale_factor(pixel_a, self.pixel_a)
        except ValueError as error:
            raise ValueError(f"{error}; or {_REMEDY}") from error
        small = rescale(image, pixel_a, self.pixel_a)
        if min(small.shape) < self.box:
            ny, nx = image.shape
            raise ValueError(
                f"image: {ny} × {nx} pixels of {pixel_a:.4g} Å are {small.shape[0]} × {small.shape[1]} of the model's "
                f"{self.pixel_a:.4g} Å, less than one box of {self.box}; check the pixel size, or {_REMEDY}"
            )
        flat = normalise(small, diameter_px=self.diameter_px)
        return Prepared(flat, factor, (int(image.shape[0]), int(image.shape[1])))

    def run(self, prepared: Prepared) -> ScoreMap:
        """Score a micrograph. One thread at a time."""
        padded, before = self._padded(prepared.image)
        return ScoreMap(self.scan.log_odds(padded), (self.box - 1) / 2 - before, self.scan.stride)

    def decide(self, prepared: Prepared, scores: ScoreMap) -> Candidates:
        """All candidates, in pixels of the micrograph as read, the best first; ``picked`` says which are picks."""
        options = self.options
        i, j, height = maxima(scores.log_odds, options.floor)
        y, x = scores.origin + i * scores.stride, scores.origin + j * scores.stride
        # Before those at the edge go: what is left of a particle beyond the border is not to be taken for another.
        best = apart(x, y, height, options.min_distance * self.diameter_px)
        best = best[self._inside(x[best], y[best], prepared)]
        x, y = x[best], y[best]
        score = torch.sigmoid(torch.from_numpy(height[best])).numpy()
        spread = disc_sd(prepared.image, x, y, self.diameter_px)
        full_x, full_y = (to_full(at, prepared.factor).astype(np.float32) for at in (x, y))
        return Candidates(full_x, full_y, score, spread)

    def _inside(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], prepared: Prepared
    ) -> npt.NDArray[np.bool_]:
        """Which points of the rescaled micrograph are as far from the edge of the one as read as they have to be."""
        border = max(self.options.border * self.diameter_px * prepared.factor, 0.5)
        inside = np.ones(len(x), bool)
        for at, extent in ((y, prepared.shape[0]), (x, prepared.shape[1])):
            edge = (at + 0.5) * prepared.factor  # 0 at the outer edge of the first pixel
            inside &= (edge >= border) & (edge <= extent - border)
        return inside

    def picked(self, candidates: Candidates) -> npt.NDArray[np.bool_]:
        """Which candidates are picks, by the threshold and the band in force."""
        return candidates.picked(self.threshold, self.options.sd_range)

    def pick(self, image: npt.NDArray[Any], pixel_a: float | None) -> Candidates:
        """All candidates of a micrograph; see ``prepare``, ``run``, ``decide``."""
        prepared = self.prepare(image, pixel_a)
        return self.decide(prepared, self.run(prepared))

    def _padded(self, image: Floats) -> tuple[Floats, int]:
        """The micrograph with a mirrored margin, and how many pixels of it lie before the first one.

        Wide enough for boxes in the middle of which a particle at the border lies, and for one grid point more, which
        is the neighbour that makes a maximum there; at the end also for the grid to reach it.
        """
        stride = self.scan.stride
        before = max(0, math.ceil((self.box - 1) / 2 - self.options.border * self.diameter_px) + stride)
        after = [before + -(extent + 2 * before - self.box) % stride for extent in image.shape]
        padded: Floats = np.pad(image, [(before, after[0]), (before, after[1])], mode="symmetric")
        return padded, before


def _usable_cores() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
