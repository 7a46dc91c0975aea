"""Train ResNet-10 on simulated patterns: ``python -m beamsieve.models.hits.train --out DIR``.

Three recipes. ``paper`` is Han & Li's (sections 4.1 and 5.1): Adam at 1e-3, 20 epochs, dropout 0.25, λ = 0.01 on the
convolution kernels, flips, 60 000 patterns of which 1 000 validate and 1 000 test, split by particle model. ``tuned``
has the paper's conditions, more patterns, and a longer training at a falling rate; ``robust`` adds to half of the
patterns what real detectors add. The epoch with the best
validation accuracy is kept. A killed run goes on with ``--resume`` and ends with the same weights to rounding.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..progress import Lines
from .recipes import RECIPES, Options, Progress, make_options, parse_mix
from .report import finish
from .resnet10 import INPUTS, ResNet10, compress
from .simulator import join
from .training_data import OnDevice, Split, choose_device, normalisation, simulate_for, split_by_model


def augment(x: Tensor, code: Tensor) -> Tensor:
    """Flip horizontally (bit 0), vertically (bit 1), transpose (bit 2)."""
    pick = [((code >> bit) & 1).bool()[:, None, None, None] for bit in range(3)]
    x = torch.where(pick[0], x.flip(3), x)
    x = torch.where(pick[1], x.flip(2), x)
    return torch.where(pick[2], x.transpose(2, 3), x)


class Trainer:
    """The state of one training: network, optimiser, normalisation, history, best weights."""

    def __init__(self, options: Options, data: OnDevice, device: torch.device) -> None:
        self.options, self.data, self.device = options, data, device
        torch.manual_seed(options.seed)
        self.net = ResNet10(options.dropout).to(device)
        if device.type == "cuda":
            self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean, self.std = normalisation(data, options.input)
        kernels = self.net.kernels()
        rest = [p for p in self.net.parameters() if all(p is not k for k in kernels)]
        # The gradient of λ‖W‖² is 2λW, which is what Adam's own (coupled) weight decay adds.
        decay = options.decay if options.decay else 2 * options.l2
        groups = [{"params": kernels, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
        kind = torch.optim.AdamW if options.decay else torch.optim.Adam
        self.optimiser = kind(groups, lr=options.rate, fused=device.type == "cuda")
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def _rate(self, step: int, of: int) -> float:
        """The learning rate: constant, or a short linear rise and a half cosine to zero."""
        if self.options.schedule == "constant":
            return self.options.rate
        rise = max(1, of // 50)
        if step < rise:
            return self.options.rate * (step + 1) / rise
        return self.options.rate * 0.5 * (1 + float(np.cos(np.pi * (step - rise) / max(1, of - rise))))

    def epoch(self, number: int) -> tuple[float, float]:
        """One pass. All its random numbers come from the seed and the epoch's number. Returns loss and accuracy."""
        o, n = self.options, len(self.data)
        chance = torch.Generator().manual_seed(o.seed * 100_003 + number)
        order = torch.randperm(n, generator=chance).to(self.device)
        codes = torch.randint(0, 8 if o.turns else 4, (n,), generator=chance).to(self.device)
        torch.manual_seed(o.seed * 100_003 + number)
        self.net.train()
        batches = n // o.batch if n >= o.batch else 1
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        for step in range(batches):
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate((number - 1) * batches + step, o.epochs * batches)
            index = order[step * o.batch : (step + 1) * o.batch]
            x = (compress(self.data.photons(index), o.input) - self.mean) / self.std
            y = self.data.labels[index]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=o.amp and self.device.type == "cuda"):
                scores = self.net(augment(x, codes[index]))
            loss = cross_entropy(scores.float(), y)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            loss_sum += loss.detach()
            right += (scores.argmax(1) == y).float().mean()
        penalty = o.l2 * float(sum(k.detach().square().sum() for k in self.net.kernels()))
        return float(loss_sum) / batches + penalty, float(right) / batches

    @torch.inference_mode()
    def scores(self, data: OnDevice) -> Tensor:
        """Scores before the softmax, float32 (n, 5), in evaluation mode."""
        self.net.eval()
        parts = []
        for at in range(0, len(data), 512):
            x = (compress(data.photons(slice(at, at + 512)), self.options.input) - self.mean) / self.std
            parts.append(self.net(x).float())
        return torch.cat(parts)

    def finish_epoch(self, number: int, validation: OnDevice, started: float) -> dict[str, float]:
        """Train one epoch, validate, keep the weights if no epoch was better."""
        loss, accuracy = self.epoch(number)
        scores = self.scores(validation)
        row = {
            "epoch": number,
            "loss": loss,
            "accuracy": accuracy,
            "validation_loss": float(cross_entropy(scores, validation.labels)),
            "validation_accuracy": float((scores.argmax(1) == validation.labels).float().mean()),
            "seconds": time.monotonic() - started,
        }
        merit = (row["validation_accuracy"], -row["validation_loss"])
        if all(merit > (old["validation_accuracy"], -old["validation_loss"]) for old in self.history):
            self.best = {k: v.detach().cpu().clone() for k, v in self.net.state_dict().items()}
        self.history.append(row)
        return row

    def save(self, path: Path) -> None:
        """Write the checkpoint beside its name, then rename it."""
        state = {
            "options": json.dumps(self.options.identity()),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "history": self.history,
        }
        partial = path.with_suffix(".inprogress")
        torch.save(state, partial)
        partial.replace(path)
        path.with_name("log.json").write_text(json.dumps(self.history, indent=1))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; ``ValueError`` when it was made with other options."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        old, new = json.loads(state["options"]), self.options.identity()
        if old != new:
            changed = [f"{k}: {old.get(k)} then, {new.get(k)} now" for k in new if old.get(k) != new.get(k)]
            raise ValueError(f"{path}: cannot resume with other options ({'; '.join(changed)}); use another --out")
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best = {k: v.cpu() for k, v in state["best"].items()}
        self.history = state["history"]


def train(options: Options, progress: Progress | None = None) -> Path | None:
    """Simulate, train, choose the threshold, evaluate, and write the bundle and the pictures into ``options.out``.

    Returns the path of the ``.pt`` file, or ``None`` when ``stop_after`` ended the run early.
    """
    progress = progress or Lines()
    device = choose_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    splits = [split_by_model(p) for p in simulate_for(options, "train", options.patterns, progress)]
    split = Split(*(join([getattr(s, part) for s in splits]) for part in ("train", "validation", "test")))
    trainer = Trainer(options, OnDevice(split.train, device), device)
    checkpoint = options.out / "checkpoint.pt"
    if options.resume and checkpoint.exists():
        trainer.load(checkpoint)
    validation = OnDevice(split.validation, device)
    for number in range(len(trainer.history) + 1, options.epochs + 1):
        if options.stop_after is not None and number > options.stop_after:
            return None
        row = trainer.finish_epoch(number, validation, time.monotonic())
        trainer.save(checkpoint)
        progress(
            f"train: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, validation "
            f"{row['validation_accuracy']:.4f} ({row['seconds']:.1f} s)",
            number,
            options.epochs,
        )
    return finish(trainer, split, progress)


def parser() -> argparse.ArgumentParser:
    """The command line of ``python -m beamsieve.models.hits.train``."""
    p = argparse.ArgumentParser(prog="beamsieve.models.hits.train", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log, pictures and bundle")
    p.add_argument("--recipe", choices=sorted(RECIPES), default="paper")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--input", choices=INPUTS, help="how photons are compressed before they are normalised")
    p.add_argument("--name", help="name of the bundle")
    p.add_argument("--schedule", choices=("constant", "cosine"))
    p.add_argument("--turns", action=argparse.BooleanOptionalAction, help="augment with all symmetries of the square")
    p.add_argument("--amp", action=argparse.BooleanOptionalAction, help="bfloat16 on CUDA")
    for flag, text in (
        ("patterns", "simulated patterns"),
        ("epochs", "passes over them"),
        ("seed", "of everything random"),
        ("batch", "patterns per step"),
        ("calibration", "further patterns that choose the threshold"),
        ("test-patterns", "further patterns per row of the evaluation; 0: none"),
        ("workers", "processes that simulate (default: all cores)"),
        ("stop-after", "end after this epoch as if interrupted"),
    ):
        p.add_argument(f"--{flag}", type=int, help=text)
    for flag, text in (
        ("rate", "learning rate"),
        ("l2", "λ of the penalty λ‖W‖² on convolution kernels"),
        ("decay", "decoupled weight decay (AdamW) instead of the penalty"),
        ("dropout", "probability"),
    ):
        p.add_argument(f"--{flag}", type=float, help=text)
    p.add_argument("--cache", type=Path, help="folder that keeps simulated blocks")
    p.add_argument("--mix", help="conditions and shares, as paper:0.5,mixed:0.5")
    return p


def unwritable(error: OSError) -> str:
    """What a training says of a file or folder that it cannot write."""
    return f"{error.filename or 'output'}: cannot be written: {error.strerror or error}; give another --out or --cache"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; 2 for a wrong option, 1 where a file cannot be written."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    values = vars(parser().parse_args(given))
    values["command"] = shlex.join(["python", "-m", "beamsieve.models.hits.train", *given])
    try:
        values["mix"] = parse_mix(values["mix"])
        made = train(make_options(**values))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{unwritable(error)}\n")
        return 1
    sys.stderr.write(f"{made or 'stopped early; go on with --resume'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
