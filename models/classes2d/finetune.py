"""Fine-tune a denoiser on a session's own particles: ``finetune(bundle, images, options)``.

As published (Lei and Yang 2021, sections 3.3 and 3.4), block by block, see ``tuner``. A fifth of the images is held out
and tells whether the new model is better, see ``tuning_score``; a model that is not is thrown away. The checkpoint is
written after every epoch, so that a killed run goes on with ``resume`` and ends with the same weights to rounding. The
bundle that it starts from is read and never written.

What is averaged decides what can be learnt. Means of a block's outputs, the published target, hold what the block
answers already, blurred by neighbours that are not quite alike; means of the raw images hold what it misses, too:
``beamsieve evaluate classes2d`` has both as rows, and its results stand in ``benchmarks/results``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..bundle import Bundle
from ..progress import Lines
from .bundles import write
from .neighbours import Floats
from .tuner import Progress, Stopped, Tuner
from .tuning_options import TuneOptions
from .tuning_report import write_report

__all__ = ["CHECKPOINT", "LEAST", "REPORT", "TuneOptions", "Tuned", "finetune"]

TRAINED_BY = "beamsieve finetune classes2d"
CHECKPOINT, REPORT = "checkpoint.pt", "tuning.json"
LEAST = 200
"""Fewer images do not hold 30 neighbours of a view each, and leave too few to tell better from worse."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of a fine-tuning. ``path``: the new bundle's ``.pt``; None where it was not better and not kept.

    ``before``, ``after``: mean scores of the held-out images (``tuning_score``); ``error``: standard error of their
    difference; ``better``: whether the difference exceeds it. ``images``: used, of which ``held_out`` only score.
    ``seconds``: of this run alone. ``history``: a row per epoch.
    """

    path: Path | None
    before: float
    after: float
    error: float
    better: bool
    images: int
    held_out: int
    seconds: float
    base: str
    base_sha256: str
    history: tuple[Mapping[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, the path as text; numbers of a training that diverged are None."""
        told = {**asdict(self), "path": None if self.path is None else str(self.path)}
        told["after"], told["error"] = _plain(self.after), _plain(self.error)
        told["history"] = [{name: _plain(value) for name, value in row.items()} for row in self.history]
        return told


def finetune(
    bundle: Bundle,
    images: Floats,
    options: TuneOptions,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Tuned | None:
    """Fine-tune ``bundle`` on ``images``, float32 (n, 64, 64) as ``working`` gives them, and write what came of it.

    In ``options.out``: ``checkpoint.pt``, ``tuning.json``, ``tuned.png``, ``losses.png``, and the new bundle where it
    is better (or with ``anyway``). ``stop`` is asked at every batch; once it says yes, the answer is None, and the
    checkpoint keeps all finished epochs for ``options.resume``. ``progress(what, done, of)``; none: lines on standard
    error.

    Raises ``ValueError`` for images and options that cannot be, naming what to do; ``BundleError`` for a bundle of
    another task or a device that is not there; ``OSError`` where ``options.out`` cannot be written.
    """
    began = time.monotonic()
    bundle.expect(task="classes2d")
    _check(bundle, images)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    told = progress or Lines()
    try:
        tuner = Tuner(bundle, images, options, told, stop or _never)
        checkpoint = options.out / CHECKPOINT
        if options.resume and checkpoint.exists():
            tuner.load(checkpoint)
        tuner.prepare()
        _train(tuner, checkpoint, told)
        return _finish(tuner, began)
    except Stopped:
        return None


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _never() -> bool:
    return False


def _check(bundle: Bundle, images: Floats) -> None:
    edge = bundle.card.input.shape[-1]
    if images.ndim != 3 or images.shape[1:] != (edge, edge):
        raise ValueError(f"images of shape {images.shape}: {edge} × {edge} pixels are needed; see working()")
    if len(images) < LEAST:
        raise ValueError(f"{len(images)} images: fine-tuning needs {LEAST} or more, to find neighbours of each view")


def _train(tuner: Tuner, checkpoint: Path, progress: Progress) -> None:
    of = len(tuner.net.blocks) * tuner.options.epochs
    while not (tuner.done or tuner.diverged):
        row = tuner.finish_epoch()
        tuner.save(checkpoint)
        score = f", score {row['score']:.4f} ({tuner.before.mean():.4f} before)" if "score" in row else ""
        losses = f"loss {row['loss']:.4f}, held out {row['validation_loss']:.4f}{score}"
        progress(f"train: block {row['block']:.0f}, epoch {row['epoch']:.0f}, {losses}", len(tuner.history), of)


def _finish(tuner: Tuner, began: float) -> Tuned:
    change, o = tuner.change(), tuner.options
    tuned = Tuned(
        path=None,
        before=change.before,
        after=change.after,
        error=change.error,
        better=change.better,
        images=len(tuner.images),
        held_out=len(tuner.parts.held),
        seconds=time.monotonic() - began,
        base=tuner.bundle.card.name,
        base_sha256=tuner.bundle.card.sha256,
        history=tuple(tuner.history),
    )
    # Weights that are no numbers are of use to nobody.
    if (change.better or o.anyway) and not tuner.diverged:
        tuned = Tuned(**{**_fields(tuned), "path": _write_bundle(tuner, tuned)})
    write_report(o.out, tuner, tuned.to_json(), o.out / REPORT)
    return tuned


def _fields(tuned: Tuned) -> dict[str, Any]:
    return {name: getattr(tuned, name) for name in Tuned.__dataclass_fields__}


def _write_bundle(tuner: Tuner, tuned: Tuned) -> Path:
    o, old = tuner.options, tuner.bundle.card
    name = o.name or f"{old.name.removesuffix('-tuned')}-tuned"
    training = {
        "method": "fine-tuned block by block on means of neighbours (Lei and Yang 2021, section 3.3)",
        "base": {"name": old.name, "sha256": old.sha256, "training": dict(old.training)},
        "images": {"count": tuned.images, "held_out": tuned.held_out, "source": o.source},
        "options": o.identity(),
        "command": o.command,
        "seconds": round(tuned.seconds, 1),
    }
    measured = {"before": tuned.before, "after": tuned.after, "standard_error": tuned.error, "better": tuned.better}
    scores = {"held_out_share_of_differences_explained": measured, "base": dict(old.scores)}
    return write(o.out, name, tuner.net.cpu(), training=training, scores=scores, trained_by=TRAINED_BY)
