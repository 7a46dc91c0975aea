"""Going on with a hit classifier: the last of its layers learn from marks, the rest stays as it is.

What is before the last block of two convolutions is computed once for every pattern (in all its turns for the marks),
so an epoch takes a second. The simulated patterns ask for what the old network said of them, not for their labels:
that keeps what it can from being lost (Li & Hoiem, Learning without Forgetting, IEEE PAMI 40 (2018) 2935).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, relu

from ..bundle import Bundle
from .infer import SINGLE
from .marked import Marked, MarkedOptions, split_marks
from .recipes import Progress
from .resnet10 import HitClassifier, ResNet10, compress, fold
from .simulator import Patterns
from .train import augment
from .training_data import choose_device

MARKS = 1 / 3
"""Share of marks in a step; the rest is rehearsed."""
KEPT = 2.0
"""How much a change of what was known costs, beside what the marks cost."""
HELD_BACK = 0.2
"""Share of the rehearsed patterns that validate."""


def trainable(bundle: Bundle) -> tuple[ResNet10, Tensor, Tensor, str]:
    """The bundle's network, with mean, deviation and kind of its input (see ``HitClassifier``).

    Its batch normalisations are folded into the convolutions, and stay so: at a low rate they are not missed. Raises
    ``ValueError`` for a module that is no ResNet-10 of this package.
    """
    state = bundle.module.state_dict()
    net = fold(ResNet10(0.0))
    try:
        net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        return net, state["mean"], state["std"], str(bundle.module.kind)
    except (RuntimeError, KeyError, AttributeError):
        raise ValueError(f"{bundle.path}: is no network of `beamsieve train hits`; name one with --from") from None


def mark_losses(scores: Tensor, single: Tensor) -> Tensor:
    """What each mark costs, (n,): scores (n, 5) before the softmax, single bool (n,)."""
    logs = torch.log_softmax(scores.float(), 1)
    others = torch.cat([logs[:, :SINGLE], logs[:, SINGLE + 1 :]], 1)
    return -torch.where(single, logs[:, SINGLE], torch.logsumexp(others, 1))


def balanced(losses: Tensor, single: Tensor) -> Tensor:
    """Mean of the means over single hits and over others, so that neither drowns the other."""
    return (losses[single].mean() + losses[~single].mean()) / 2


class Tuning:
    """The state of going on: the network, what is held back, and the history, whose row 0 is the old network."""

    def __init__(
        self, options: MarkedOptions, bundle: Bundle, marked: Marked, simulated: Patterns, progress: Progress
    ) -> None:
        self.options = options
        self.device = choose_device(options.device)
        net, mean, std, self.kind = trainable(bundle)
        self.net, self.mean, self.std = net.to(self.device).eval(), mean.to(self.device), std.to(self.device)
        self.last = nn.ModuleList([self.net.blocks[-1], self.net.score])
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(any(parameter is one for one in self.last.parameters()))
            assert parameter.dtype == torch.float32, name
        train, held = split_marks(marked, options.validation, options.seed)
        self.marks, self.held = marked.take(train), marked.take(held)
        self.rehearsed = len(simulated)
        self._prepare(simulated, 8 if _turned(bundle) else 4, progress)
        self.optimiser = torch.optim.AdamW(self.last.parameters(), lr=options.rate, weight_decay=0.0)
        self.best = self._weights()
        self.history = [self._row(0, float("nan"))]

    def _prepare(self, simulated: Patterns, turns: int, progress: Progress) -> None:
        """Compute once what never changes: features of all patterns, and what the old network says of the simulated."""
        rng = np.random.default_rng([self.options.seed, 0])
        progress("features of the patterns", 0, turns + 2)
        shown = self._features(simulated.images, rng.integers(0, turns, len(simulated)))
        with torch.inference_mode():
            said = torch.softmax(self._scores(shown), 1)
        cut = len(shown) - max(1, round(HELD_BACK * len(shown)))
        self._shown, self._said = shown[:cut].clone(), said[:cut].clone()
        self._simulated, self._simulated_said = shown[cut:].clone(), said[cut:].clone()
        progress("features of the patterns", 1, turns + 2)
        self._turned = []
        for code in range(turns):
            self._turned.append(self._features(self.marks.images, np.full(len(self.marks), code)))
            progress("features of the patterns", code + 2, turns + 2)
        self._held = self._features(self.held.images, np.zeros(len(self.held), int))
        self._single = torch.from_numpy(self.held.single).to(self.device)
        progress("features of the patterns", turns + 2, turns + 2)

    @torch.inference_mode()
    def _features(self, images: npt.NDArray[Any], codes: npt.NDArray[Any]) -> Tensor:
        """What the last block is given, float16 (n, 64, 16, 16), of photons (n, 128, 128) turned as ``codes`` say."""
        parts = []
        for at in range(0, len(images), 128):
            photons = torch.from_numpy(images[at : at + 128].astype(np.float32))[:, None].to(self.device)
            x = augment((compress(photons, self.kind) - self.mean) / self.std, torch.from_numpy(codes[at : at + 128]))
            parts.append(self.net.blocks[:-1](relu(self.net.stem(x))).half())
        return torch.cat(parts).clone()

    def _head(self, features: Tensor) -> Tensor:
        """The last layers: features to scores (n, 5) before the softmax, as in ``ResNet10.forward``."""
        x = self.net.blocks[-1](features)
        scores: Tensor = self.net.score(avg_pool2d(x, 2).flatten(1))
        return scores

    def _scores(self, features: Tensor) -> Tensor:
        """``_head`` of many, a part at a time: what is between takes 100 kB a pattern."""
        return torch.cat([self._head(features[at : at + 512].float()) for at in range(0, len(features), 512)])

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.net.state_dict().items()}

    def epoch(self, number: int) -> float:
        """``steps`` steps; the random numbers come from the seed and the epoch's number. Mean loss."""
        o, total = self.options, 0.0
        rng = np.random.default_rng([o.seed, number])
        of_marks = max(2, round(o.batch * MARKS))
        for step in range(o.steps):
            done = ((number - 1) * o.steps + step) / (o.epochs * o.steps)
            for group in self.optimiser.param_groups:
                group["lr"] = o.rate * min(1.0, 10 * done + 0.1) * 0.5 * (1 + float(np.cos(np.pi * done)))
            which = torch.from_numpy(rng.integers(0, len(self._shown), o.batch - of_marks)).to(self.device)
            marks, single = self._drawn(rng, of_marks)
            scores = self._head(torch.cat([self._shown[which], marks]).float())
            loss = KEPT * cross_entropy(scores[: len(which)], self._said[which])
            loss = loss + balanced(mark_losses(scores[len(which) :], single), single)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += float(loss.detach())
        return total / o.steps

    def _drawn(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """As many single hits as others, drawn from the marks: their features, and which are single, bool (count,)."""
        kinds = (np.flatnonzero(self.marks.single), np.flatnonzero(~self.marks.single))
        half = (count // 2, count - count // 2)
        index = np.concatenate([rng.choice(kind, n) for kind, n in zip(kinds, half, strict=True)])
        turned = self._turned[int(rng.integers(len(self._turned)))]
        single = torch.from_numpy(self.marks.single[index]).to(self.device)
        return turned[torch.from_numpy(index).to(self.device)], single

    @torch.inference_mode()
    def _row(self, number: int, loss: float) -> dict[str, float]:
        marks = balanced(mark_losses(self._head(self._held.float()), self._single), self._single)
        scores = self._scores(self._simulated)
        # Above what the old network's own doubt costs, so that row 0 has 0.
        said = self._simulated_said
        moved = cross_entropy(scores, said) + (said * said.clamp_min(1e-30).log()).sum(1).mean()
        return {"epoch": number, "loss": loss, "marks_loss": float(marks), "simulated_moved": float(moved)}

    def finish_epoch(self) -> dict[str, float]:
        """Train the next epoch, validate, keep the weights if none, nor the old network, was better."""
        number = len(self.history)
        row = self._row(number, self.epoch(number))
        if all(_merit(row) < _merit(old) for old in self.history):
            self.best = self._weights()
        self.history.append(row)
        return row

    @property
    def best_epoch(self) -> int:
        """0 is the old network."""
        return int(min(self.history, key=_merit)["epoch"])

    def classifier(self) -> HitClassifier:
        """The best epoch, as it is exported."""
        net = fold(ResNet10(0.0))
        net.load_state_dict(self.best)
        module = HitClassifier(net, self.mean.cpu(), self.std.cpu(), self.kind).eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        return module

    def write_log(self, path: Path) -> None:
        """The history as JSON, but for the old network's row."""
        path.write_text(json.dumps(self.history[1:], indent=1))


def _turned(bundle: Bundle) -> bool:
    """Whether the bundle was trained with all symmetries of the square, not with flips alone."""
    told = bundle.card.training.get("options")
    return bool(isinstance(told, dict) and told.get("turns"))


def _merit(row: dict[str, float]) -> float:
    return row["marks_loss"] + KEPT * row["simulated_moved"]
