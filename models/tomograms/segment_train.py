"""Train EDSS3D on weak labels: ``train_segments(examples, classes, options)``, ``beamsieve train segments``.

Zeng et al. (2018), section 3.4.3: cross-entropy, Adam with rate 0.001 and decays 0.9 and 0.99, batches of 128, the best
epoch on validation data is kept, and training ends when 20 epochs were no better. Classes weigh inversely to their
voxels, to a power. A session has hundreds of windows, not tens of thousands: batches are smaller then, so that an
epoch has enough steps. Windows are mirrored along z, y and x at random. They are not turned: a missing wedge lies the
same way in all tomograms of a session, and mirroring nearly keeps it (exactly, were the tilts symmetric), while a
quarter turn would show the network wedges it will never meet.

A stopped run goes on from ``checkpoint.pt``.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..bundle import load_bundle
from ..lanes import open_lane
from ..progress import Lines
from .bundles import VOXEL_A
from .labels import BACKGROUND, IGNORED, Labels
from .nets import CHANNELS, Edss3d
from .segment_plan import logits
from .segment_report import finish, overlap
from .segment_set import Examples
from .segment_start import begin_with, begun
from .told import Progress, Stop
from .volume import Floats

BETAS = (0.9, 0.99)
CHECKPOINT = "checkpoint.pt"
HEAD_RATE = 5.0
"""Of the rate, where only the last layer learns."""
BALANCE = (0.5, 0.2)
"""For all layers, and for the last one alone."""
_STEPS = 24
"""At least so many steps in an epoch, where the published batch would leave fewer."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a training is told.

    ``epochs``: at most; ``patience``: epochs without a better one after which it ends; ``minutes``: after which it
    ends, 0 for no limit. ``batch``: windows per step, 0: up to the published 128, fewer where an epoch would have less
    than 24 steps. ``rate`` of Adam. ``balance``: power of the inverse frequency that weighs a class; None: 0.5, or
    0.2 where only the head learns (chosen on simulated validation tomograms). ``margin``: voxels
    at the faces of a window that are not counted, because zeros lie beside them. ``held``: share of validation windows.
    ``start``: a bundle to begin with (``segment_start``); nothing: random weights, as published. ``tune``: ``all``
    layers, or the ``head``: the last one, at five times the rate; ``auto``: the head of a segmentation to begin with,
    because weak labels are blurred and some are wrong, and more layers would learn that, too. ``reduced``: bfloat16
    where torch allows it. ``threads``: of torch, 0 as it is set. ``training``: what the card
    shall say of the data.
    """

    out: Path
    name: str = "segments"
    epochs: int = 100
    patience: int = 20
    minutes: float = 0.0
    batch: int = 0
    rate: float = 1e-3
    balance: float | None = None
    margin: int = 4
    held: float = 0.1
    start: str = ""
    tune: str = "auto"
    channels: int = CHANNELS
    voxel_a: float = VOXEL_A
    edge: int = 32
    reduced: bool = True
    seed: int = 1
    device: str = "auto"
    threads: int = 0
    resume: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation."""
        kept = ("batch", "rate", "balance", "margin", "held", "channels", "voxel_a", "seed", "start", "tune")
        return {name: value for name, value in asdict(self).items() if name in kept}


def split(tomogram: npt.NDArray[np.int32], held: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which windows validate, bool (n,): all of some tomograms where there are three or more, else some windows."""
    rng = np.random.default_rng(seed)
    wanted = max(1, round(held * len(tomogram)))
    numbers = rng.permutation(np.unique(tomogram))
    if len(numbers) < 3:
        return np.asarray(rng.permutation(len(tomogram)) < wanted)
    found = np.zeros(len(tomogram), np.bool_)
    for number in numbers[:-2]:
        found |= tomogram == number
        if found.sum() >= wanted:
            break
    return found


def weights(labels: Labels, classes: int, balance: float) -> Floats:
    """Weight of each class, float32 (classes,): inverse frequency to the power ``balance``, mean 1 over the voxels."""
    counts = np.bincount(labels[labels != IGNORED].ravel(), minlength=classes)[:classes].astype(float)
    share = counts / max(counts.sum(), 1)
    found = np.where(share > 0, np.maximum(share, 1e-6) ** -balance, 0.0)
    balanced: Floats = (found / max((found * share).sum(), 1e-12)).astype(np.float32)
    return balanced


class Trainer:
    """The state of one training."""

    def __init__(self, options: Options, data: Examples, classes: Sequence[str]) -> None:
        self.options, self.data, self.classes = options, data, len(classes)
        self.device, _ = open_lane(options.device)
        torch.manual_seed(options.seed)
        net = begun(Edss3d(len(classes), options.channels))
        self.head = options.tune == "head"
        if options.start:
            begun_with = load_bundle(options.start)
            begin_with(net, begun_with, classes)
            self.head |= options.tune == "auto" and begun_with.card.output.kind == "voxels"
        self.net = net.to(self.device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimiser = self._optimiser()
        self.held = split(data.tomogram, options.held, options.seed)
        self.rows = np.flatnonzero(~self.held)
        self.batch = options.batch or max(1, min(128, len(self.rows) // _STEPS))
        self.balance = BALANCE[self.head] if options.balance is None else options.balance
        self.weights = torch.from_numpy(weights(data.labels[self.rows], len(classes), self.balance)).to(self.device)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def _optimiser(self) -> torch.optim.Adam:
        if not self.head:
            return torch.optim.Adam(self.net.parameters(), lr=self.options.rate, betas=BETAS)
        self.net.requires_grad_(False)
        return torch.optim.Adam(
            self.net.last.requires_grad_().parameters(), lr=HEAD_RATE * self.options.rate, betas=BETAS
        )

    @property
    def best_epoch(self) -> int:
        """From 1; 0 before the first."""
        losses = [row["validation"] for row in self.history]
        return 1 + int(np.argmin(np.nan_to_num(losses, nan=np.inf))) if losses else 0

    @property
    def over(self) -> bool:
        """Whether there are epochs enough, or the last ones were in vain."""
        done = len(self.history)
        return done >= self.options.epochs or done - self.best_epoch >= self.options.patience

    def finish_epoch(self, stop: Stop | None, tell: Callable[[int, int], None]) -> bool:
        """One epoch, and the loss on validation windows; False if it was stopped."""
        began = time.monotonic()
        rng = np.random.default_rng([self.options.seed, len(self.history)])
        order = rng.permutation(self.rows)
        total = 0.0
        for first in range(0, len(order), self.batch):
            if stop is not None and stop():
                return False
            some = order[first : first + self.batch]
            total += self._step(some, rng) * len(some)
            tell(first + len(some), len(order))
        loss, dice = self._validate()
        row = {"loss": total / len(order), "validation": loss, "seconds": time.monotonic() - began}
        self.history.append(row | {f"dice {value}": d for value, d in enumerate(dice) if value != BACKGROUND})
        if self.best_epoch == len(self.history):
            self.best = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        return True

    def _step(self, some: npt.NDArray[np.intp], rng: np.random.Generator) -> float:
        windows, labels = self.data.windows[some], self.data.labels[some]
        for axis in (1, 2, 3):
            if rng.random() < 0.5:
                windows, labels = np.flip(windows, axis), np.flip(labels, axis)
        loss, _ = self._loss(windows, labels, train=True)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(loss.detach())

    def _loss(self, windows: Floats, labels: Labels, *, train: bool) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the logits of what is counted."""
        m = self.options.margin
        inner = slice(m, labels.shape[-1] - m)
        truth = torch.from_numpy(labels[:, inner, inner, inner].astype(np.int64)).to(self.device)
        given = torch.from_numpy(np.ascontiguousarray(windows))[:, None].to(self.device)
        given = given.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.reduced):
            answer = logits(self.net.train(train), given)
        counted = answer[:, :, inner, inner, inner].float()
        return functional.cross_entropy(counted, truth, self.weights, ignore_index=IGNORED), counted

    @torch.no_grad()
    def _validate(self) -> tuple[float, list[float]]:
        """Mean loss on validation windows, and Dice of each class against their weak labels."""
        rows, m = np.flatnonzero(self.held), self.options.margin
        total, counts = 0.0, np.zeros((self.classes, 3), np.int64)
        for first in range(0, len(rows), self.batch):
            some = rows[first : first + self.batch]
            loss, answer = self._loss(self.data.windows[some], self.data.labels[some], train=False)
            total += float(loss) * len(some)
            inner = slice(m, self.data.labels.shape[-1] - m)
            truth = self.data.labels[some][:, inner, inner, inner]
            counts += overlap(answer.argmax(1).cpu().numpy().astype(np.uint8), truth, self.classes)
        both, here, there = counts.T
        return total / len(rows), (2 * both / np.maximum(here + there, 1)).tolist()

    def save(self, path: Path) -> None:
        """Write the checkpoint beside its name, then rename it."""
        state = {
            "identity": json.dumps(self._identity()),
            "net": self.net.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
        }
        partial = path.with_suffix(".inprogress")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises ``ValueError`` where it is of another training, or none."""
        try:
            state = torch.load(path, weights_only=True)
            old, new = json.loads(state["identity"]), json.loads(json.dumps(self._identity()))
        except (RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
            said = str(error).splitlines()[0][:120]
            raise ValueError(f"{path}: is no checkpoint of this training ({said}); use another folder") from None
        if old != new:
            changed = [f"{k}: {old.get(k)} then, {new.get(k)} now" for k in new if old.get(k) != new.get(k)]
            raise ValueError(f"{path}: cannot resume with other options ({'; '.join(changed)}); use another folder")
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.history = state["best"], state["history"]

    def _identity(self) -> dict[str, Any]:
        return self.options.identity() | {"windows": len(self.data), "edge": self.data.windows.shape[-1]}


def train_segments(
    data: Examples,
    classes: tuple[str, ...],
    options: Options,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Path | None:
    """Train on ``data``, write the bundle of kind ``voxels`` and its pictures to ``options.out``; the ``.pt`` file.

    ``classes``: names by label value, the background first. None when ``stop()`` said so: a checkpoint is left, from
    which ``resume`` goes on. Raises ``ValueError`` where there is too little to train on, or a checkpoint does not fit;
    ``BundleError`` (``device``); ``OSError`` where the folder cannot be written.
    """
    told = progress or Lines()
    if len(data) < 4:
        raise ValueError(f"{len(data)} windows are too few to train on; mark larger clusters, or take more tomograms")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    checkpoint = options.out / CHECKPOINT
    trainer = Trainer(options, data, classes)
    if options.resume and checkpoint.exists():
        trainer.load(checkpoint)
    began = time.monotonic()
    while not trainer.over:
        if not trainer.finish_epoch(stop, lambda done, of: told(f"epoch {len(trainer.history) + 1}", done, of)):
            return None
        trainer.save(checkpoint)
        last = trainer.history[-1]
        told(f"train: validation loss {last['validation']:.4f}", len(trainer.history), options.epochs)
        if options.minutes and time.monotonic() - began >= 60 * options.minutes:
            break
    trainer.net.load_state_dict(trainer.best)
    made = finish(trainer, classes)
    checkpoint.unlink(missing_ok=True)
    return made
