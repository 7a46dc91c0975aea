"""The work of ``beamsieve train segments``: from the marks of a session, or simulated tomograms, to a segmentation."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...models.tomograms.segment_train import Options
    from .segment_session import MarkedSession

FOLDER, PREFIX = "models", "segments"
MOST, EPOCHS, MINUTES = 1000, 60, 10.0
AUTO, NONE, START = "auto", "none", "tomograms-segments"


@dataclass(frozen=True, slots=True)
class Training:
    """How to train; see the command's options."""

    most: int = MOST
    epochs: int = EPOCHS
    minutes: float = MINUTES
    batch: int = 0
    start: str = AUTO
    seed: int = 1
    device: str = "auto"
    threads: int | None = None
    name: str = PREFIX


def practised(
    tomograms: int,
    training: Training,
    out: Path,
    *,
    resume: bool,
    stop: Callable[[], bool],
    progress: Callable[[str, int, int], None] | None,
) -> Path | None:
    """Train on the truth of simulated tomograms; the ``.pt`` file, None if stopped. Raises as ``trained``."""
    from ...models.progress import Lines
    from ...models.tomograms.scene import CLASSES
    from ...models.tomograms.segment_practice import PracticeOptions, simulated_examples
    from ...models.tomograms.segment_start import TRUTH
    from ...models.tomograms.segment_train import train_segments as train
    from ...models.tomograms.told import Stopped

    told_to = progress or Lines()
    practice = PracticeOptions(tomograms, windows=max(4, training.most // tomograms))
    try:
        data = simulated_examples(practice, progress=told_to, stop=stop)
    except Stopped:
        return None
    said = {
        "labels": TRUTH,
        "seeds": [practice.seed, practice.seed + tomograms - 1],
        "snr": list(practice.snr),
        "command": _command(),
    }
    start = "" if training.start in {AUTO, NONE} else training.start
    options = _options(training, out, start, resume, voxel_a=practice.scene.voxel_a, edge=32, said=said)
    return train(data, CLASSES, options, progress=told_to, stop=stop)


def _options(
    training: Training, out: Path, start: str, resume: bool, *, voxel_a: float, edge: int, said: dict[str, Any]
) -> Options:
    from ...models.tomograms.segment_train import Options

    return Options(
        out,
        name=training.name,
        epochs=training.epochs,
        minutes=training.minutes,
        batch=training.batch,
        start=start,
        voxel_a=voxel_a,
        edge=edge,
        seed=training.seed,
        device=training.device,
        threads=training.threads or 0,
        resume=resume,
        training=said,
    )


def start_of(training: Training, voxel_a: float) -> str:
    """The bundle that a training begins with: the one asked for, or one that ships for voxels of about this size."""
    from ...models.bundle import available, read_card

    if training.start != AUTO:
        return "" if training.start == NONE else training.start
    path = available().get(START)
    if path is None:
        return ""
    theirs = read_card(path).input.pixel_a or voxel_a
    return START if abs(theirs / voxel_a - 1) < 0.25 else ""


def trained(
    session: MarkedSession,
    training: Training,
    out: Path | None,
    *,
    resume: bool,
    stop: Callable[[], bool],
    progress: Callable[[str, int, int], None] | None,
) -> Path | None:
    """Train, and give the ``.pt`` file; None if stopped. ``out``: None for the session's next ``models/segments-N``.

    Raises ``ValueError`` for what cannot be trained on, ``BadData`` and ``OSError`` for files, ``BundleError``.
    """
    from ...models.progress import Lines
    from ...models.tomograms.segment_set import SetOptions, examples
    from ...models.tomograms.segment_train import CHECKPOINT
    from ...models.tomograms.segment_train import train_segments as train
    from ...models.tomograms.told import Stopped
    from ..beamlines.background import Series
    from .segment_session import marked_in, records_to_use

    series, told_to = Series(session.directory / FOLDER, PREFIX), progress or Lines()
    out = out or series.after(series.latest())
    if (out / CHECKPOINT).exists() and not resume:
        raise ValueError(f"{out}: holds a training that was stopped; go on with --resume, or name another folder")
    paths = records_to_use(session)
    codec = session.codec
    try:
        data = examples(
            marked_in(session, paths),
            len(paths),
            codec,
            SetOptions(most=training.most, seed=training.seed),
            progress=told_to,
            stop=stop,
        )
    except Stopped:
        return None
    start = start_of(training, codec.voxel_a)
    options = _options(
        training, out, start, resume, voxel_a=codec.voxel_a, edge=codec.edge, said=_said(session) | {"start": start}
    )
    return train(data, session.groups.classes, options, progress=told_to, stop=stop)


def _said(session: MarkedSession) -> dict[str, Any]:
    """What the card tells of the session: enough to see whether a network is for these marks."""
    groups = {group.name: list(group.clusters) for group in session.groups.groups}
    return {
        "codec": session.clusters.network,
        "codec name": session.clusters.name,
        "clusters version": session.clusters.version,
        "groups": groups,
        "command": _command(),
    }


def _command() -> str:
    """As it was typed, without the folders of this machine."""
    return shlex.join(["beamsieve", *(os.path.basename(word) for word in sys.argv[1:])])


def told(made: Path) -> dict[str, Any]:
    """Plain values of a trained segmentation, from its card."""
    from ...models.bundle import read_card

    card = read_card(made)
    keys = ("windows", "tomograms", "epochs", "best epoch")
    return {
        "bundle": str(made),
        "sha256": card.sha256,
        "classes": list(card.output.classes),
        **card.scores,
        **{f"training {key}": card.training[key] for key in keys},
    }
