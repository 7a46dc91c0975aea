"""What the stages of ``xfel_hits`` do: lit pixels, the model's view of a frame, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...models.hits.infer import bad_pixels, to_input
from ...models.hits.litpixel import LitPixels, photon_sums
from ..decode.crystfel import read_geometry
from ..decode.frames import Decode, DetectorSettings
from ..decode.geometry import Assembler
from ..decode.layout import GeometryError
from ..flow.frame import BadData, Frame, Mark, Outcome, Result
from ..flow.ports import Facts, NoFacts
from ..flow.settings import Settings
from ..flow.stages import Made


class ScreenSettings(Settings):
    """The lit-pixel hit finder: a frame with too few lit pixels is rejected and never reaches the network."""

    kind: Literal["lit", "adaptive"] = Field(
        "lit", description="lit: a fixed number of lit pixels. adaptive: above a running background"
    )
    adu_threshold: float = Field(1, description="a pixel above this is lit (in the unit of the calibrated frame)")
    hitscore_threshold: int = Field(
        200,
        ge=0,
        description="a frame with at least this many lit pixels passes (lit, and the first 32 shots of adaptive)",
    )
    sigmas: float = Field(4, gt=0, description="a frame this many spreads above the background passes (adaptive)")
    window: int = Field(1000, ge=10, description="frames the running background looks back on (adaptive)")


class KeepSettings(Settings):
    """Which frames beside the hits are worth keeping."""

    miss_fraction: float = Field(
        0.001, ge=0, le=1, description="share of the misses kept at random, so that recall can be measured"
    )
    seed: int | None = Field(None, description="seed of that choice; default: a new one at each start")
    failures: int = Field(20, ge=0, description="messages that cannot be used: the first ones are kept for replay")


class Keep:
    """Chooses the random share of the misses, and gives it its sampling weight."""

    def __init__(self, settings: KeepSettings, facts: Facts | None = None) -> None:
        self.paused = False
        self._fraction = settings.miss_fraction
        self._random = np.random.default_rng(settings.seed)
        self._facts = facts or NoFacts()

    def weights(self, hits: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Per frame: 1 for a hit, 1/fraction for a miss that was chosen, 0 for the others. Paused: 0 for all."""
        if self.paused:
            if hits.any():
                self._facts.event("not_kept", int(hits.sum()))
            return np.zeros(len(hits))
        if not self._fraction:
            return hits.astype(np.float64)
        chosen = self._random.random(len(hits)) < self._fraction
        return np.where(hits, 1.0, np.where(chosen, 1 / self._fraction, 0.0))


def photons_of(frame: Frame, weight: float, bad: npt.NDArray[np.bool_] | None) -> float | None:
    """Photons on the good pixels of a frame that is kept; None for the others, whose sum nobody will ask for.

    ``bad``: the bad pixels of the run's static mask, for a frame without a mask of its own.
    """
    if not weight:
        return None
    return float(photon_sums(frame.data[np.newaxis], bad if frame.mask is None else frame.mask)[0])


class Screen:
    """Counts lit pixels; too few are a rejection. Alone, it also accepts."""

    def __init__(self, settings: ScreenSettings, decode: Decode, keep: Keep, *, alone: bool) -> None:
        self._lit = LitPixels(
            adu_threshold=settings.adu_threshold,
            hitscore_threshold=settings.hitscore_threshold,
            adaptive=settings.kind == "adaptive",
            sigmas=settings.sigmas,
            window=settings.window,
        )
        self._decode = decode
        self._bad = Bad()
        self._keep = keep
        self._alone = alone

    def mark(self, mark: Mark) -> Mark:
        """A run's start changes nothing: the background is the beam's, not the run's."""
        return mark

    def __call__(self, frames: Sequence[Frame]) -> Sequence[Made]:
        """Results for the frames that are decided; the others go on to the network."""
        static = self._decode.mask_of(frames[0].key.run)
        bad = self._bad(static)
        screened = [self._lit.screen(stack, bad if masks is None else masks) for stack, masks in stacks(frames, static)]
        lit, hits = (np.concatenate(parts).tolist() for parts in zip(*screened, strict=True))
        weights = self._keep.weights(np.asarray(hits, np.bool_)).tolist()
        if not self._alone:
            return [
                frame if hit else self._result(frame, Outcome.REJECTED, 0, n, weight, bad)
                for frame, n, hit, weight in zip(frames, lit, hits, weights, strict=True)
            ]
        return [
            self._result(frame, Outcome.ACCEPTED if hit else Outcome.REJECTED, n, n, weight, bad)
            for frame, n, hit, weight in zip(frames, lit, hits, weights, strict=True)
        ]

    def _result(
        self, frame: Frame, outcome: Outcome, score: int, lit: int, weight: float, bad: npt.NDArray[np.bool_] | None
    ) -> Result:
        found = {"lit": lit, "photons": photons_of(frame, weight, bad)}
        return Result(frame, outcome, float(score), "prescreen", weight, found)


class View:
    """The part of the detector that the model sees: assembled, binned, cut around the beam. Raises ``GeometryError``.

    The geometry is fitted to the frames when their shape is known: now, or with the first of them.
    """

    def __init__(self, settings: DetectorSettings, base: Path, shape: tuple[int, ...] | None) -> None:
        self._settings = settings
        file = settings.geometry.file
        self._layout = None if file is None else read_geometry(base / file)
        self._assembler: Assembler | None = None
        self._bad = Bad()
        if shape is not None:
            self._assembler = self._fitted(shape)

    def input(
        self, stack: npt.NDArray[Any], mask: npt.NDArray[np.uint32] | None, size: int
    ) -> npt.NDArray[np.uint16] | npt.NDArray[np.float32]:
        """(n, y, x) or (n, module, ss, fs) frames to (n, size, size). Raises ``BadData`` for what does not fit."""
        if self._assembler is None or self._assembler.shape != stack.shape[1:]:
            try:
                self._assembler = self._fitted(stack.shape[1:])
            except GeometryError as error:
                raise BadData("geometry", str(error)) from error
        centre = self._settings.centre_px or self._assembler.centre
        if self._layout is not None:
            stack, mask = self._assembler.assemble(stack, mask)
        if stack.ndim != 3:
            raise BadData("shape", f"frames of {stack.shape[1:]} have modules; detector.geometry.file must place them")
        bad = mask if mask is None or mask.ndim == stack.ndim else self._bad(mask)
        try:
            return to_input(stack, bad, size=size, centre=centre, bin=self._settings.bin)
        except ValueError as error:
            raise BadData("input", f"{error}; check detector.centre_px and detector.bin") from error

    def _fitted(self, shape: tuple[int, ...]) -> Assembler:
        return Assembler(self._layout, shape, self._settings.geometry.mask_files)


class Bad:
    """Which pixels of a run's static mask are bad, as bool, or None where none is: worked out once for each mask."""

    def __init__(self) -> None:
        self._last: tuple[npt.NDArray[np.uint32] | None, npt.NDArray[np.bool_] | None] = (None, None)

    def __call__(self, mask: npt.NDArray[np.uint32] | None) -> npt.NDArray[np.bool_] | None:
        """The bad pixels of ``mask``."""
        known, bad = self._last
        if mask is not known and mask is not None:
            found = bad_pixels(mask)
            bad = found if found.any() else None
            self._last = mask, bad
        return None if mask is None else bad


def stacks(
    frames: Sequence[Frame], static: npt.NDArray[np.uint32] | None, most_pixels: int = 1 << 20
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.uint32] | None]]:
    """Frames in order as arrays (k, …), each with its frames' masks (k, …), or None where ``static`` is that of all.

    Frames that were decoded together come together and are not copied; others are copied, at most ``most_pixels`` at
    once, so that what is made of them stays in a processor's cache.
    """
    first = 0
    for end in range(1, len(frames) + 1):
        if end == len(frames) or frames[end].data.base is not frames[first].data.base:
            for at in range(first, end, step := max(1, most_pixels // frames[first].data.size)):
                some = frames[at : min(at + step, end)]
                yield stacked(some), masks_of(some, static)
            first = end


def stacked(frames: Sequence[Frame]) -> npt.NDArray[Any]:
    """Frames of one array, as rows of it: without a copy when they follow each other there."""
    if len(frames) == 1:
        return frames[0].data[np.newaxis]
    first, last = frames[0].data, frames[-1].data
    base, pixels = first.base, first.nbytes
    if isinstance(base, np.ndarray) and base.shape[1:] == first.shape and base.flags.c_contiguous:
        start = address(first)
        # No stage changes the order of frames, or repeats one, so those between first and last are where they belong.
        if address(last) - start == (len(frames) - 1) * pixels:
            row = (start - address(base)) // pixels
            rows: npt.NDArray[Any] = base[row : row + len(frames)]
            return rows
    return np.stack([frame.data for frame in frames])


def address(array: npt.NDArray[Any]) -> int:
    """Where the array's first element is."""
    where: int = array.__array_interface__["data"][0]
    return where


def masks_of(frames: Sequence[Frame], static: npt.NDArray[np.uint32] | None) -> npt.NDArray[np.uint32] | None:
    """The frames' masks (n, …), ``static`` for those without one of their own; None where none has one."""
    if all(frame.mask is None for frame in frames):
        return None
    others = np.zeros(frames[0].data.shape, np.uint32) if static is None else static
    return np.stack([others if frame.mask is None else frame.mask for frame in frames])
