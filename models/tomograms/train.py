"""Train an Autoencoder3D: ``train(sample, options)``, for ``beamsieve train tomograms``, also on a session's own boxes.

A killed run goes on with ``resume`` and ends with the same weights to rounding.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..progress import Lines
from .practice import Sample
from .recipes import Options, make_options
from .report import finish
from .told import Progress, Stop
from .trainer import Trainer, told

__all__ = ["Options", "Trainer", "make_options", "train"]


def checkpoint_in(options: Options, resume: bool) -> Path:
    """Where the checkpoint is, or will be; makes the folder. Raises ``ValueError`` for one that nobody asked for."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "checkpoint.pt"
    if path.exists() and not resume:
        raise ValueError(f"{options.out}: holds a training; go on with --resume, or name another folder")
    return path


def train(
    sample: Sample,
    options: Options,
    progress: Progress | None = None,
    stop: Stop | None = None,
    *,
    resume: bool = False,
    check: Sample | None = None,
) -> Path | None:
    """Train on ``sample``, write bundle, pictures and ``scores.json`` to ``options.out``; the path of the ``.pt`` file.

    ``check``: sub-volumes of tomograms that were neither trained nor validated on, to tell the scores of. With
    ``options.start``, ``report.json`` has the error on what is held back before and after. Returns None
    when ``stop()`` or ``stop_after`` ended the run early: the checkpoint holds the epochs that were finished. Raises
    ``ValueError`` for options and a checkpoint that cannot be, ``BundleError``, ``OSError`` where ``options.out``
    cannot be written.
    """
    progress = progress or Lines()
    checkpoint = checkpoint_in(options, resume)
    if options.threads:
        torch.set_num_threads(options.threads)
    trainer = Trainer(options, sample)
    if checkpoint.exists():
        trainer.load(checkpoint)
    while not trainer.done:
        if options.stop_after is not None and len(trainer.history) >= options.stop_after:
            return None
        row = trainer.finish_epoch(stop)
        if row is None:
            return None
        trainer.save(checkpoint)
        words = f"loss {row.loss:.4f}, validation {row.validation:.4f}{' (best)' if row.best else ''}"
        progress(f"train: {words}, {100 * row.alive:.0f} % of the code in use", len(trainer.history), options.epochs)
    return finish(trainer.finished(), options, sample, trainer.held, told(trainer.history), check)
