"""What the stages of ``cryoem_picks`` do with a micrograph: judge its quality, pick it, cut out its particles.

``beamsieve pick`` does the same without a daemon around it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ...models.bundle import Bundle
from ...models.particles.candidates import Candidates
from ...models.particles.extract import extract
from ...models.particles.matching import match
from ...models.particles.pick import Picker, PickOptions
from ..decode.quality import QualitySettings, judge, measure
from ..flow.frame import BadData, Frame, Outcome, Result
from ..flow.metrics import Metrics
from ..flow.settings import Settings
from ..flow.yields import Yield
from ..live.trial import Trial
from ..sinks.picks.micrograph import PickedMicrograph
from ..sinks.picks.settings import PickSettings
from ..sinks.picks.threshold import Followed, Moved, move_of, picked_again, read_moved
from .candidates import tell_model

log = logging.getLogger(__name__)

USUAL = PickOptions()
# Pixels this much coarser than the network's are blown up, and blown-up noise looks like particles to it.
COARSE = 0.95
# Two pickers mean the same particle when they are at most this far apart, in its diameters.
SAME = 0.3


class PickerSettings(Settings):
    """The network that scores micrographs, and which maxima of its score are picks."""

    bundle: str = Field("particles-general", description="name of a bundle, or the path of its .pt file")
    threshold: float | None = Field(
        None, ge=0, le=1, description="candidates with at least this score are picks; default: the card's"
    )
    floor: float = Field(
        USUAL.floor,
        ge=0,
        lt=1,
        description="maxima from this score on are kept as candidates, for thresholds chosen later",
    )
    diameter_a: float | None = Field(
        None,
        gt=0,
        description="the particle's diameter in ångström; default: the card's. Another one rescales the model",
    )
    sd_range: tuple[float, float] = Field(
        (0.5, 2.0), description="picks lie in this band of the pixels' standard deviation, in units of the micrograph's"
    )
    min_distance: float = Field(
        USUAL.min_distance, gt=0, le=4, description="picks are this far apart, in particle diameters"
    )
    border: float = Field(
        USUAL.border, ge=0, le=4, description="centres keep this distance from the edge, in diameters"
    )
    min_picks: int = Field(0, ge=0, description="a micrograph with fewer picks is rejected")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, description="CPU threads of the scan; default: one per core")
    tile_px: int = Field(
        USUAL.tile_px, ge=256, description="score maps are made in tiles of about this many pixels of the model"
    )

    def options(self) -> PickOptions:
        """The same for ``Picker``."""
        return PickOptions(
            threshold=self.threshold,
            floor=self.floor,
            sd_range=self.sd_range,
            min_distance=self.min_distance,
            border=self.border,
            tile_px=self.tile_px,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A picker, and the threshold it has by configuration. ``name``: as a configuration would name its bundle."""

    name: str
    bundle: Bundle
    picker: Picker

    @classmethod
    def of(cls, name: str, bundle: Bundle, settings: PickerSettings) -> Loaded:
        """Not yet warm. The settings' threshold is for the bundle they name; another has its card's."""
        options = settings.options()
        if name != settings.bundle:
            options = replace(options, threshold=None)
        picker = Picker(
            bundle, options, device=settings.device, threads=settings.threads, diameter_a=settings.diameter_a
        )
        return cls(name, bundle, picker)

    @property
    def threshold(self) -> float:
        """The configured one, or the card's."""
        return self.picker.threshold

    def tell(self, metrics: Metrics) -> None:
        """Say that this model answers."""
        tell_model(metrics, self.bundle.card, str(self.picker.device), "float32")


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """A candidate, and how it does beside the picker in force."""

    loaded: Loaded
    trial: Trial


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A micrograph ready for the device: the picker and its view of it, its quality, and the seconds that took.

    ``shadow``: the candidate and its view, where it shall pick this micrograph too.
    """

    loaded: Loaded
    prepared: Any
    pixel_a: float
    quality: dict[str, float]
    seconds: dict[str, float]
    shadow: tuple[Shadow, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A micrograph with its score map, and the candidate's where it was asked."""

    ready: Ready
    scores: Any
    seconds: float
    shadow_scores: Any = None


class PickWork:
    """The picker behind the engine's seam: prepare, run, decide; a micrograph at a time.

    A threshold moved by ``beamsieve rethreshold`` in ``directory`` holds from the next micrograph on.
    """

    def __init__(
        self,
        settings: PickerSettings,
        bundle: Bundle,
        quality: QualitySettings,
        picks: PickSettings,
        metrics: Metrics,
        directory: Path,
    ) -> None:
        self.loaded = Loaded.of(settings.bundle, bundle, settings)
        self.shadow: Shadow | None = None
        self.settings = settings
        self._quality = quality
        self._picks = picks
        self._metrics = metrics
        self._directory = directory
        self._followed = Followed(directory)
        self.in_force = self.loaded.threshold

    def warm_up(self) -> None:
        """Check the dense scan against the network, and say which model answers."""
        report = self.loaded.picker.warm_up()
        log.info("%s: %s", self.loaded.bundle.card.name, report)
        self.loaded.tell(self._metrics)
        self.in_force = self._threshold_of(self.loaded)

    def moved(self, loaded: Loaded) -> Moved | None:
        """Where the threshold of this picker was moved in this folder, if it was."""
        try:
            return move_of(read_moved(self._directory), loaded.bundle.card.sha256, loaded.threshold)
        except (OSError, ValueError) as error:
            log.warning("%s; the configured threshold holds", error)
            return None

    def _threshold_of(self, loaded: Loaded) -> float:
        moved = self.moved(loaded)
        return loaded.threshold if moved is None else moved.threshold

    def promote(self) -> None:
        """Let the candidate pick from the next micrograph on."""
        assert self.shadow is not None, "only a candidate can be promoted"
        self.loaded, self.shadow = self.shadow.loaded, None
        self.in_force = self._threshold_of(self.loaded)
        self.loaded.tell(self._metrics)

    def prepare(self, frames: Sequence[Frame]) -> list[Ready]:
        """Quality numbers and the picker's input. Raises ``BadData`` (``pixel_size``, ``image``)."""
        return [self._prepare(frame) for frame in frames]

    def run(self, batch: list[Ready]) -> list[Scored]:
        """Score maps."""
        scored = []
        for ready in batch:
            began = time.perf_counter()
            scores = ready.loaded.picker.run(ready.prepared)
            seconds = time.perf_counter() - began
            scored.append(Scored(ready, scores, seconds, self._run_shadow(ready)))
        return scored

    def _run_shadow(self, ready: Ready) -> Any:
        if ready.shadow is None:
            return None
        shadow, prepared = ready.shadow
        scores = None
        with shadow.trial.apart():
            began = time.perf_counter()
            scores = shadow.loaded.picker.run(prepared)
            shadow.trial.spent(time.perf_counter() - began)
        return scores

    def decide(self, frames: Sequence[Frame], scores: list[Scored]) -> Sequence[Result]:
        """Candidates, picks and particles of each micrograph, and whether it is accepted."""
        return [self._decide(frame, scored) for frame, scored in zip(frames, scores, strict=True)]

    def _prepare(self, frame: Frame) -> Ready:
        path = frame.info.get("path", frame.key)
        pixel_a: float | None = frame.info.get("pixel_a")
        began = time.perf_counter()
        try:
            loaded = self.loaded
            prepared = loaded.picker.prepare(frame.data, pixel_a)
        except ValueError as error:
            raise BadData("pixel_size" if pixel_a is None else "image", f"{path}: {error}") from error
        assert pixel_a is not None, "the picker refuses a micrograph without a pixel size"
        rescaled = time.perf_counter()
        quality = measure(frame.data, pixel_a, saturation=frame.info.get("saturation"))
        seconds = {
            "read": float(frame.info.get("read_s", 0.0)),
            "prepare": rescaled - began,
            "quality": time.perf_counter() - rescaled,
        }
        return Ready(loaded, prepared, pixel_a, quality, seconds, self._prepare_shadow(frame, pixel_a))

    def _prepare_shadow(self, frame: Frame, pixel_a: float) -> tuple[Shadow, Any] | None:
        shadow = self.shadow
        if shadow is None or not shadow.trial.due(1):
            return None
        with shadow.trial.apart():
            try:
                return shadow, shadow.loaded.picker.prepare(frame.data, pixel_a)
            except ValueError as error:
                # What the picker in force takes may be too small for the candidate: it says nothing of this one.
                log.warning("candidate %s: %s", shadow.loaded.name, error)
        return None

    def _decide(self, frame: Frame, scored: Scored) -> Result:
        began = time.perf_counter()
        ready = scored.ready
        candidates = ready.loaded.picker.decide(ready.prepared, scored.scores)
        found = self._micrograph(frame, ready, candidates)
        # Of one that was skipped nothing is picked, which is not this picker's verdict.
        if ready.shadow is not None and scored.shadow_scores is not None and not found.skipped:
            with ready.shadow[0].trial.apart():
                self._compare(found, ready.shadow, scored.shadow_scores)
        peaks = time.perf_counter()
        if self._picks.particles.keep and not found.skipped:
            found = self._with_particles(frame, found)
        seconds = {
            **ready.seconds,
            "score": scored.seconds,
            "peaks": peaks - began,
            "extract": time.perf_counter() - peaks,
        }
        picks = int(found.picked.sum())
        told = Yield(picks, candidates.score.tolist(), ready.quality, seconds, found.warnings, found.skipped)
        self._metrics.micrograph(told)
        outcome = Outcome.REJECTED if found.skipped else Outcome.ACCEPTED
        return Result(frame, outcome, float(picks), "picker", 1.0, {"micrograph": found, "seconds": seconds})

    def _micrograph(self, frame: Frame, ready: Ready, candidates: Candidates) -> PickedMicrograph:
        warnings, skipped = judge(ready.quality, self._quality)
        if ready.prepared.factor < COARSE:
            warnings = (*warnings, "coarse_pixels")
        info, ny_nx = frame.info, frame.data.shape
        path = Path(str(info.get("path", frame.key)))
        found = PickedMicrograph(
            name=str(info.get("name", path.name)),
            path=path,
            shape=(int(ny_nx[0]), int(ny_nx[1])),
            pixel_a=ready.pixel_a,
            candidates=candidates,
            picked=np.zeros(len(candidates), bool),
            threshold=ready.loaded.threshold,
            model=ready.loaded.bundle.card.name,
            model_sha256=ready.loaded.bundle.card.sha256,
            diameter_a=ready.loaded.picker.diameter_a,
            box_px=self._picks.box_px or box_of(ready.loaded.picker.diameter_a, ready.pixel_a),
            quality=ready.quality,
            revision=int(info.get("revision", 0)),
            warnings=tuple(warnings),
            skipped=tuple(skipped),
            info=info.get("microscope", {}),
            sd_range=self.settings.sd_range,
            floor=self.settings.floor,
            configured=ready.loaded.threshold,
        )
        moved = self._followed.of(found)
        band = self.settings.sd_range if moved is None or moved.sd_range is None else moved.sd_range
        threshold = found.threshold if moved is None else moved.threshold
        if ready.loaded is self.loaded:
            # Not for one that was begun before a promotion.
            self.in_force = threshold
        found = picked_again(found, threshold, band)
        if int(found.picked.sum()) < self.settings.min_picks:
            found = replace(found, skipped=(*skipped, "picks"), picked=np.zeros_like(found.picked))
        return found

    def _compare(self, found: PickedMicrograph, shadow: tuple[Shadow, Any], scores: Any) -> None:
        """Which picks both have, only the one in force, and only the candidate: the same within ``SAME`` diameters."""
        picker, prepared, trial = shadow[0].loaded.picker, shadow[1], shadow[0].trial
        other = picker.decide(prepared, scores)
        theirs = other.picked(picker.threshold, self.settings.sd_range)
        ours, x, y = found.picks, other.x[theirs], other.y[theirs]
        both = len(match(ours.x, ours.y, x, y, SAME * found.diameter_a / found.pixel_a))
        table = [(True, True)] * both + [(True, False)] * (len(ours) - both) + [(False, True)] * (len(x) - both)
        pairs = np.array(table, bool).reshape(-1, 2)
        trial.compare(pairs[:, 0], pairs[:, 1], 1)

    def _with_particles(self, frame: Frame, found: PickedMicrograph) -> PickedMicrograph:
        size = min(self._picks.particles.size_px, found.box_px)
        particles = extract(
            frame.data,
            found.picks.x,
            found.picks.y,
            box_px=found.box_px,
            size=size,
            diameter_px=found.diameter_a / found.pixel_a,
            invert=self._picks.particles.invert,
        )
        return replace(found, particles=particles, particle_pixel_a=found.pixel_a * found.box_px / size)


def box_of(diameter_a: float, pixel_a: float) -> int:
    """A particle's box in pixels: half as wide again as the particle, and a multiple of 4."""
    return max(16, 4 * math.ceil(1.5 * diameter_a / pixel_a / 4))


def as_picks(result: Result) -> PickedMicrograph:
    """The micrograph of a result of this beamline."""
    found = result.found["micrograph"]
    assert isinstance(found, PickedMicrograph)
    return found
