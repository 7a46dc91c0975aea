"""Raw messages to calibrated frames: the work of the stage ``decode``, and the settings of the detector."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from pydantic import Field

from ..flow.frame import BadData, Failure, Frame, Key, Mark, Raw, RunEnd, RunStart
from ..flow.settings import Settings
from .calibrate import CalibrateSettings, Calibrator, load_constants
from .constants import read_dataset
from .decompress import decompress, decompress_many
from .geometry import GeometrySettings
from .masks import Mask, from_nexus
from .trains import split_mask, split_train

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20
REMEMBERED_RUNS = 8


class DetectorSettings(Settings):
    """The detector: its shape and geometry, and the part of it that the model sees."""

    shape: tuple[int, ...] | None = Field(
        None, description="(y, x) or (module, ss, fs); default: that of the constants, or of the first frame"
    )
    geometry: GeometrySettings = Field(GeometrySettings(), description="where the modules of the detector are")
    centre_px: tuple[float, float] | None = Field(
        None, description="the beam's (y, x) in pixels of the assembled image; default: the geometry's, or the middle"
    )
    bin: int = Field(1, ge=1, le=64, description="pixels summed along each side, before the model's crop")
    max_image_mb: int = Field(512, ge=1, description="a decoded image larger than this is refused (10^6 bytes)")


class Decode:
    """Decompresses and calibrates bursts.

    Raises ``ConstantsError`` when the named constants cannot be used.
    """

    def __init__(self, calibrate: CalibrateSettings, detector: DetectorSettings, base: Path) -> None:
        self._settings = calibrate
        self._base = base
        self._max_bytes = detector.max_image_mb * 10**6
        self._shape = detector.shape or self._shape_of_constants()
        self._start = RunStart("")
        self._lock = threading.Lock()
        # Without a shape the constants cannot be used either, and loading them for any says why.
        self._calibrator = self._make(self._shape or (1, 1)) if self._shape or self._has_constants() else None
        self._masks: OrderedDict[str, Mask] = OrderedDict()

    def mask_of(self, run: str) -> Mask | None:
        """The static mask of a run (uint32, CXI bits), or None while the shape is not known. Any thread.

        The last few runs are remembered, because later stages may still be busy with an earlier one.
        """
        calibrator = self._calibrator
        return self._masks.get(run, calibrator.mask if calibrator else None)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The detector's shape where the configuration or the constants tell it."""
        return self._shape

    def mark(self, mark: Mark) -> Mark:
        """A run starts: take what the sender says of its pixels, and tell the writer the mask."""
        if isinstance(mark, RunEnd):
            return mark
        self._start = mark
        size = mark.info.get("image_size")
        shape = self._shape or (tuple(size) if size else None)
        self._calibrator = self._make(shape) if shape else None
        self._remember()
        return RunStart(mark.run, {**mark.info, "mask": self.mask_of(mark.run)})

    def __call__(self, raws: Sequence[Raw]) -> Sequence[Frame | Failure]:
        """Frames for every shot, or a failure for each message that cannot be decoded.

        Raises ``BadData`` where nothing in a burst can be; the engine then tries its messages singly.
        """
        made: list[Frame | Failure] = []
        for _, group in groupby(raws, key=lambda raw: None if is_train(raw) else (raw.image.shape, raw.image.dtype)):
            burst = list(group)
            if is_train(burst[0]):
                for raw in burst:
                    made += self._train(raw)
            else:
                made += self._shots(burst)
        return made

    def _shots(self, raws: list[Raw]) -> list[Frame | Failure]:
        made: list[Frame | Failure] = []
        step = max(1, PIECE_BYTES // max(1, raws[0].image.nbytes))
        for first in range(0, len(raws), step):
            part = raws[first : first + step]
            try:
                made += self._piece(part)
            except BadData as bad:
                if len(part) > 1:
                    raise
                made.append(Failure(part[0].key, bad.reason, bad.detail, raw=part[0]))
        return made

    def _piece(self, raws: list[Raw]) -> list[Frame | Failure]:
        """As many shots as stay in a processor's cache; a large one alone, which saves copying it into an array."""
        bad: dict[int, BadData] = {}
        if len(raws) == 1:
            stack = decompress(raws[0].image, max_bytes=self._max_bytes)[np.newaxis]
        else:
            stack = decompress_many([raw.image for raw in raws], errors=bad, max_bytes=self._max_bytes)
        calibrator = self._calibrator_for(stack.shape[1:])
        found = calibrator.apply(stack)
        as_it_came = not calibrator.changes_pixels
        made: list[Frame | Failure] = []
        for i, (raw, data, mask) in enumerate(zip(raws, found.data, found.masks, strict=True)):
            if i in bad:
                made.append(Failure(raw.key, bad[i].reason, bad[i].detail, raw=raw))
            else:
                chunk = raw.image if as_it_came else None
                made.append(Frame(raw.key, data, raw.arrived, raw.wall, mask, chunk, raw.info))
        return made

    def _train(self, raw: Raw) -> list[Frame | Failure]:
        try:
            shots = split_train(raw, decompress(raw.image, max_bytes=self._max_bytes))
            came = None if raw.mask is None else decompress(raw.mask, max_bytes=self._max_bytes)
            masks = split_mask(raw, came, shots[0].shape)
            stack = np.stack(shots)
            found = self._calibrator_for(stack.shape[1:]).apply(stack, None if masks is None else np.stack(masks))
        except BadData as bad:
            return [Failure(raw.key, bad.reason, bad.detail, raw.count, raw)]
        pulses = raw.pulses or (-1,) * len(shots)
        return [
            Frame(Key(raw.key.run, raw.key.number, pulse), data, raw.arrived, raw.wall, mask, None, raw.info)
            for pulse, data, mask in zip(pulses, found.data, found.masks, strict=True)
        ]

    def _calibrator_for(self, shape: tuple[int, ...]) -> Calibrator:
        with self._lock:
            if self._calibrator is None:
                self._calibrator = self._make(shape)
                self._remember()
            return self._calibrator

    def _remember(self) -> None:
        if self._calibrator is not None:
            self._masks[self._start.run] = self._calibrator.mask
            if len(self._masks) > REMEMBERED_RUNS:
                self._masks.popitem(last=False)

    def _make(self, shape: tuple[int, ...]) -> Calibrator:
        info = self._start.info
        sender = info.get("pixel_mask")
        sender_mask = None if sender is None else from_nexus(sender)
        if sender_mask is not None and sender_mask.shape != shape:
            log.warning("run %s: pixel mask %s for frames %s is ignored", self._start.run, sender_mask.shape, shape)
            sender_mask = None
        constants = load_constants(self._settings, shape, self._base, sender_mask)
        return Calibrator(self._settings, constants, info.get("error_value"), info.get("saturation_value"))

    def _has_constants(self) -> bool:
        return any(getattr(self._settings, name) is not None for name in ("mask", "noise", "dark", "gain"))

    def _shape_of_constants(self) -> tuple[int, ...] | None:
        """The detector's shape as the first constant tells it; JUNGFRAU's may have three stages in front."""
        for name in ("mask", "noise", "dark", "gain"):
            reference = getattr(self._settings, name)
            if reference is None:
                continue
            stages = self._settings.kind == "jungfrau" and isinstance(reference, str) and name in ("dark", "gain")
            try:
                shape = read_dataset(reference if isinstance(reference, str) else reference[0], self._base).shape
            except (OSError, KeyError, ValueError):
                continue  # load_constants will say what is wrong, once there is a shape
            return shape[1:] if stages else shape
        return None


def is_train(raw: Raw) -> bool:
    """Whether a message holds more than one image, or one whose axes or mask have to be sorted out first."""
    return raw.count != 1 or bool(raw.pulses) or raw.mask is not None or "axes" in raw.info
