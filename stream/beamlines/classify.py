"""The network of ``xfel_hits`` behind the engine's seam, and a candidate that judges beside it.

Which model is in force, and at which threshold, is one value that is exchanged as a whole: a batch is prepared, scored
and decided by the same one, whatever is changed meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...models.bundle import Bundle
from ...models.hits.infer import verdicts
from ...models.runner import Batch, Runner
from ..decode.frames import Decode
from ..flow.frame import Frame, Outcome, Result
from ..flow.metrics import Metrics
from ..flow.settings import Settings
from ..live.trial import Trial
from .candidates import tell_model
from .hits import Bad, Keep, View, photons_of, stacks

log = logging.getLogger(__name__)


class ModelSettings(Settings):
    """The network and how it is run."""

    bundle: str = Field("hits-resnet10", description="name of a bundle, or the path of its .pt file")
    threshold: float | None = Field(
        None, ge=0, le=1, description="accept frames whose score for one particle is at least this; default: the card's"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: the faster one, as measured")
    batch: int = Field(32, ge=1, le=4096, description="most frames in a batch")
    wait_ms: float = Field(4, ge=0, description="a batch that is not full leaves after this time")
    threads: int | None = Field(None, ge=1, description="CPU threads of one forward pass; default: one per core")


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model ready to answer, and the threshold it is held to. ``name``: as a configuration would name it."""

    name: str
    bundle: Bundle
    runner: Runner
    threshold: float

    @classmethod
    def of(cls, name: str, bundle: Bundle, settings: ModelSettings, threshold: float | None = None) -> Loaded:
        """On the device that the settings name, not yet warm. ``threshold``: None is the card's."""
        runner = Runner(
            bundle, batch=settings.batch, device=settings.device, dtype=settings.dtype, threads=settings.threads
        )
        return cls(name, bundle, runner, bundle.card.threshold if threshold is None else threshold)

    @property
    def size(self) -> int:
        """Edge of the model's input in pixels."""
        return int(self.bundle.card.input.shape[-1])

    def tell(self, metrics: Metrics) -> None:
        """Say that this model answers. Only once it is warm."""
        report = self.runner.report
        assert report is not None, "a model that answers is warm"
        tell_model(metrics, self.bundle.card, report.device, report.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """A candidate, and how it does beside the model in force."""

    loaded: Loaded
    trial: Trial


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A batch on its way to the device: prepared for the model in force, and for a candidate where one is due."""

    loaded: Loaded
    batch: Batch
    shadow: Shadow | None = None
    shadow_batch: Batch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A batch with its probabilities (n, 5), and the candidate's where it was asked."""

    job: Job
    scores: npt.NDArray[np.float32]
    shadow_scores: npt.NDArray[np.float32] | None = None


class Classify:
    """The network behind the engine's seam: prepare, run, decide."""

    def __init__(self, settings: ModelSettings, bundle: Bundle, decode: Decode, view: View, keep: Keep) -> None:
        self.settings = settings
        self.loaded = Loaded.of(settings.bundle, bundle, settings, settings.threshold)
        self.shadow: Shadow | None = None
        self._decode = decode
        self._view = view
        self._bad = Bad()
        self._keep = keep

    def warm_up(self, metrics: Metrics) -> None:
        """Run every batch size once, and say which model answers."""
        report = self.loaded.runner.warm_up()
        log.info("%s: %s", self.loaded.bundle.card.name, report)
        self.loaded.tell(metrics)

    def move(self, threshold: float) -> None:
        """Hold the model in force to this threshold from the next batch on."""
        self.loaded = replace(self.loaded, threshold=threshold)

    def promote(self, metrics: Metrics) -> None:
        """Let the candidate answer from the next batch on."""
        assert self.shadow is not None, "only a candidate can be promoted"
        self.loaded, self.shadow = self.shadow.loaded, None
        self.loaded.tell(metrics)

    def input_of(self, frame: Frame) -> npt.NDArray[Any]:
        """One frame as the model sees it, (size, size) photons. Raises ``BadData`` for one that does not fit."""
        seen: npt.NDArray[Any] = self._inputs([frame], self.loaded.size)[0]
        return seen

    def prepare(self, frames: Sequence[Frame]) -> Job:
        """(n, y, x) or (n, module, y, x) frames to the model's input, and to a candidate's where it is due."""
        loaded, shadow = self.loaded, self.shadow
        inputs = self._inputs(frames, loaded.size)
        batch = loaded.runner.prepare(inputs)
        if shadow is None or not shadow.trial.due(len(frames)):
            return Job(loaded, batch)
        with shadow.trial.apart():
            if shadow.loaded.size != loaded.size:
                inputs = self._inputs(frames, shadow.loaded.size)
            return Job(loaded, batch, shadow, shadow.loaded.runner.prepare(inputs))
        return Job(loaded, batch)

    def run(self, job: Job) -> Judged:
        """Probabilities (n, 5)."""
        scores = job.loaded.runner.run(job.batch)
        if job.shadow is None or job.shadow_batch is None:
            return Judged(job, scores)
        others = None
        with job.shadow.trial.apart():
            began = time.perf_counter()
            others = job.shadow.loaded.runner.run(job.shadow_batch)
            job.shadow.trial.spent(time.perf_counter() - began)
        return Judged(job, scores, others)

    def decide(self, frames: Sequence[Frame], judged: Judged) -> Sequence[Result]:
        """Accepted when the probability of exactly one particle reaches the threshold."""
        loaded, scores, shadow = judged.job.loaded, judged.scores, judged.job.shadow
        labels, singles, accepted = verdicts(scores, loaded.threshold)
        if shadow is not None and judged.shadow_scores is not None:
            with shadow.trial.apart():
                _, _, others = verdicts(judged.shadow_scores, shadow.loaded.threshold)
                shadow.trial.compare(accepted, others, len(frames))
        weights = self._keep.weights(accepted)
        hash_, threshold = loaded.bundle.card.sha256, loaded.threshold
        bad = self._bad(self._decode.mask_of(frames[0].key.run))
        return [
            Result(
                frame,
                Outcome.ACCEPTED if hit else Outcome.REJECTED,
                score,
                "model",
                weight,
                {
                    "label": label,
                    "probabilities": row,
                    "model": hash_,
                    "threshold": threshold,
                    "photons": photons_of(frame, weight, bad),
                },
            )
            for frame, hit, score, weight, label, row in zip(
                frames, accepted, singles.tolist(), weights.tolist(), labels.tolist(), scores, strict=True
            )
        ]

    def _inputs(self, frames: Sequence[Frame], size: int) -> Any:
        static = self._decode.mask_of(frames[0].key.run)
        inputs = [
            self._view.input(stack, static if masks is None else masks, size) for stack, masks in stacks(frames, static)
        ]
        return inputs[0] if len(inputs) == 1 else [frame for part in inputs for frame in part]
