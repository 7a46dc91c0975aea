"""Train DeepEM from labelled micrographs: ``train(options, micrographs)``, ``beamsieve train particles``.

Two recipes. ``paper`` is Zhu, Ouyang and Mao's (2017): sigmoids, squared error, gradient descent with a learning rate
of 1 in batches of 50 (the default of the toolbox they built on), as many background boxes as particles, four turns of
each, until 95 % of the boxes are told right at 0.5. ``modern`` shows pieces of micrographs with many boxes each, asks
for a score that falls off from the particle's centre, and adds what it picked wrongly. The epoch with the lowest
validation loss is kept. A killed run goes on with ``resume`` and ends with the same weights to rounding.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..progress import Lines
from .candidates import Labelled
from .dataset import Ground, Scaled, check, divide, scale_all, split
from .deepem import Layout, folded
from .mining import mine
from .recipes import Options, Progress, geometry, make_options
from .sampling import Boxes, sampler
from .start import fresh, logits, unfolded
from .trained import finish

__all__ = ["Options", "Trainer", "make_options", "train"]


class Trainer:
    """The state of one training: network, optimiser, history, best weights, what was mined."""

    def __init__(
        self, options: Options, layout: Layout, pixel_a: float, parts: tuple[list[Scaled], list[Scaled]]
    ) -> None:
        self.options, self.layout, self.pixel_a = options, layout, pixel_a
        self.diameter_px = options.diameter_a / pixel_a
        self.training, self.validation = parts
        self.net = fresh(options, layout)
        self.sampler = sampler(Ground(self.training), options, layout, self.diameter_px)
        self.held = list(sampler(Ground(self.validation), options, layout, self.diameter_px).epoch(0))
        if options.start is not None and options.batch_norm:
            self.net = unfolded(self.net, next(iter(self.sampler.epoch(0)))[0])
        kind = torch.optim.AdamW if options.optimiser == "adamw" else torch.optim.SGD
        self.optimiser = kind(self.net.parameters(), lr=options.rate, weight_decay=options.decay)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def identity(self) -> dict[str, object]:
        """What must not change between a run and its continuation: the options, and what is trained on."""
        seen = hashlib.sha256()
        for one in (*self.training, *self.validation):
            seen.update(one.name.encode())
            seen.update(one.image[:: max(1, len(one.image) // 64)].tobytes())
            seen.update(np.concatenate([one.particles, one.wrong]).tobytes())
        return {**self.options.identity(), "micrographs": seen.hexdigest()[:16]}

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """The options' loss of logits against targets of the same shape."""
        if self.options.loss == "bce":
            return functional.binary_cross_entropy_with_logits(scores, target)
        return (torch.sigmoid(scores) - target).square().sum() / (2 * len(target))

    def _rate(self, number: int, done: float) -> float:
        """Learning rate at a fraction of an epoch: constant, or a short linear rise and a half cosine to zero."""
        if not self.options.cosine:
            return self.options.rate
        at = (number - 1 + done) / self.options.epochs
        return self.options.rate * min(1.0, at / 0.03 + 0.01) * 0.5 * (1 + math.cos(math.pi * at))

    def epoch(self, number: int) -> tuple[float, float]:
        """One epoch; its random numbers come from the seed and the number. Mean loss, and share told right at 0.5."""
        self.net.train()
        batches = self.options.steps or -(-4 * self._boxes() // self.options.batch)
        sums = np.zeros(3)
        for step, (images, target) in enumerate(self.sampler.epoch(number)):
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate(number, step / batches)
            scores = logits(self.net, images)
            loss = self.loss(scores, target)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            sums += _counts(loss, scores.detach(), target)
        return float(sums[0] / sums[2]), float(sums[1] / sums[2])

    def _boxes(self) -> int:
        assert isinstance(self.sampler, Boxes)
        return len(self.sampler.positives) + len(self.sampler.background) + len(self.sampler.ground.wrong)

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """Mean loss, and share told right at 0.5, of the held-back micrographs."""
        self.net.eval()
        sums = np.zeros(3)
        for images, target in self.held:
            scores = logits(self.net, images)
            sums += _counts(self.loss(scores, target), scores, target)
        return float(sums[0] / sums[2]), float(sums[1] / sums[2])

    def finish_epoch(self, number: int) -> dict[str, float]:
        """Train one epoch, validate, keep the weights if no epoch was better, mine if it is time."""
        started = time.monotonic()
        o = self.options
        loss, accuracy = self.epoch(number)
        held_loss, held_accuracy = self.validate()
        if all(held_loss < row["validation_loss"] for row in self.history):
            self.best = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        if any(number == math.ceil(o.epochs * i / (o.mining + 1)) for i in range(1, o.mining + 1)):
            self.sampler.ground.add(mine(folded(self.net), self.sampler.ground, self.diameter_px))
        row = {
            "epoch": number,
            "loss": loss,
            "accuracy": accuracy,
            "validation_loss": held_loss,
            "validation_accuracy": held_accuracy,
            "false_positives_shown": len(self.sampler.ground.wrong),
            "seconds": time.monotonic() - started,
        }
        self.history.append(row)
        return row

    @property
    def normalised(self) -> bool:
        """Whether the network has batch normalisation."""
        return isinstance(self.net.norm1, torch.nn.BatchNorm2d)

    @property
    def done(self) -> bool:
        """Whether the last epoch is behind, or as many training boxes are told right as were asked for."""
        if not self.history:
            return False
        last = self.history[-1]
        return last["epoch"] >= self.options.epochs or 0 < self.options.accuracy <= last["accuracy"]

    def save(self, path: Path) -> None:
        """Write the checkpoint beside its name, then rename it; ``log.json`` beside it."""
        state = {
            "identity": json.dumps(self.identity()),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "history": self.history,
            "wrong": torch.from_numpy(self.sampler.ground.wrong),
        }
        partial = path.with_suffix(".inprogress")
        torch.save(state, partial)
        partial.replace(path)
        path.with_name("log.json").write_text(json.dumps(self.history, indent=1))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; ``ValueError`` when it was made with other options or micrographs."""
        state = torch.load(path, weights_only=True)
        old, new = json.loads(state["identity"]), json.loads(json.dumps(self.identity()))
        if old != new:
            changed = [f"{k}: {old.get(k)} then, {new.get(k)} now" for k in new if old.get(k) != new.get(k)]
            raise ValueError(f"{path}: cannot resume with other options ({'; '.join(changed)}); use another --out")
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.history = state["best"], state["history"]
        self.sampler.ground.wrong = state["wrong"].numpy()


def _counts(loss: Tensor, scores: Tensor, target: Tensor) -> tuple[float, float, float]:
    """Loss and how many are told right, each times the boxes, and the boxes."""
    right = ((scores > 0) == (target > 0.5)).float().mean()
    return float(loss.detach()) * len(target), float(right) * len(target), float(len(target))


def train(
    options: Options,
    micrographs: Sequence[Labelled],
    progress: Progress | None = None,
    *,
    held: Sequence[str] = (),
) -> Path | None:
    """Train on ``micrographs``, choose the threshold on those held back, write bundle and pictures to ``options.out``.

    ``held``: names of the micrographs that validate; none: a share of them, see ``split``. Returns the path of the
    ``.pt`` file, or ``None`` when ``stop_after`` ended the run early. Raises ``ValueError`` for options and data that
    cannot be (too few particles, coordinates outside), with file and remedy, ``BundleError`` for a bundle to start from
    that cannot be read, ``OSError`` where ``options.out`` cannot be written.
    """
    progress = progress or Lines()
    check(micrographs)
    layout, pixel_a = geometry(options, max(m.pixel_a for m in micrographs))
    options.out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    parts = divide(micrographs, held) if held else split(micrographs, options.validation, options.seed)
    training, validation = (scale_all(part, pixel_a, options.diameter_a, progress) for part in parts)
    if options.positives:
        training = limited(training, options.positives, layout.box)
    trainer = Trainer(options, layout, pixel_a, (training, validation))
    checkpoint = options.out / "checkpoint.pt"
    if options.resume and checkpoint.exists():
        trainer.load(checkpoint)
    while not trainer.done:
        number = len(trainer.history) + 1
        if options.stop_after is not None and number > options.stop_after:
            return None
        row = trainer.finish_epoch(number)
        trainer.save(checkpoint)
        told = f"loss {row['loss']:.4f}, validation {row['validation_loss']:.4f}"
        progress(f"train: {told}, accuracy {row['accuracy']:.3f}", number, options.epochs)
    return finish(trainer, progress)


def limited(fields: list[Scaled], positives: int, box: int) -> list[Scaled]:
    """Micrographs with at most ``positives`` particles in all; the last one is cut above the first that is too many.

    The cut leaves no particle unlabelled in sight, which a training would take for background.
    """
    found: list[Scaled] = []
    for one in fields:
        wanted = positives - sum(len(f.particles) for f in found)
        if len(one.particles) > wanted:
            row = int(np.sort(one.particles[:, 1])[wanted])
            return [*found, _cut(one, row)] if row >= box else found
        found.append(one)
    return found


def _cut(one: Scaled, row: int) -> Scaled:
    particles, wrong = (points[points[:, 1] < row] for points in (one.particles, one.wrong))
    return Scaled(one.labelled, one.image[:row], particles, wrong, one.factor)
