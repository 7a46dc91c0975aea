"""The state of a training of an Autoencoder3D: epochs, validation, what survives an interruption.

Zeng et al. (2018), sections 2.2 and 3.2: mean squared error with an L1 penalty on the code, Adam, batches of 8, the
best epoch of a validation kept, an end after 20 epochs without a better one.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from ..bundle import load_bundle
from ..lanes import open_lane
from . import swift
from .bundles import codec_network, codec_shape
from .nets import Autoencoder3D
from .practice import Rows, Sample, split
from .recipes import Options
from .told import Stop

_FLOOR = 0.02
"""Added to a target's variance before errors are taken relative to it: where there is nothing, nothing counts much."""
_LEAST = 0.05
"""Share of the rate that is left in the end."""


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch: mean losses, share of the code's numbers that are ever above 0, whether it was the best so far."""

    loss: float
    validation: float
    alive: float
    best: bool
    seconds: float


class Trainer:
    """The state of one training: network, optimiser, the best weights so far, history."""

    def __init__(self, options: Options, sample: Sample) -> None:
        self.options, self.sample = options, sample
        self.device, _ = open_lane(options.device)
        self.rows, self.held = split(sample, options.held, options.seed)
        torch.manual_seed(options.seed)
        self.net = _network(options, sample.edge, self._gain()).to(self.device, memory_format=swift.LAYOUT)  # type: ignore[call-overload]
        self.norm = nn.BatchNorm1d(options.codes, momentum=0.02).to(self.device) if options.normalise else None
        self.optimiser = self._optimiser()
        self.best = self._weights()
        self.history: list[Row] = []
        self._known = sample.clean is not None and options.target == "clean"

    def _gain(self) -> float:
        """What brings smoothed sub-volumes to a standard deviation of 1, from some of them."""
        if not self.options.smooth:
            return 1.0
        sd = self.options.smooth
        some = self.rows[np.linspace(0, len(self.rows) - 1, 64).astype(int)]
        boxes = ndimage.gaussian_filter(np.asarray(self.sample.boxes[some], np.float32), (0, sd, sd, sd))
        return round(1 / max(float(boxes.std()), 1e-3), 3)

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or ``patience`` of them without a better validation."""
        seen = len(self.history)
        best = max((number for number, row in enumerate(self.history) if row.best), default=-1)
        return seen >= self.options.epochs or (seen > 0 and seen - 1 - best >= self.options.patience)

    @property
    def best_loss(self) -> float:
        """The lowest validation loss so far."""
        return min((row.validation for row in self.history), default=math.inf)

    def finish_epoch(self, stop: Stop | None = None) -> Row | None:
        """One epoch, or None where ``stop()`` ended it in its middle: go on from the checkpoint before it."""
        began, epoch = time.monotonic(), len(self.history)
        rng = np.random.default_rng([self.options.seed, epoch])
        order = rng.permutation(self.rows)
        steps, total = math.ceil(len(order) / self.options.batch), 0.0
        self._train(True)
        for step in range(steps):
            if stop is not None and stop():
                return None
            for group in self.optimiser.param_groups:
                group["lr"] = group["share"] * self._rate(epoch + step / steps)
            rows = order[step * self.options.batch : (step + 1) * self.options.batch]
            total += self.step(np.sort(rows), rng) * len(rows)
        validation, alive = self.validation()
        row = Row(
            total / len(order), validation, alive, validation < self.best_loss, round(time.monotonic() - began, 3)
        )
        self.history.append(row)
        if row.best:
            self.best = self._weights()
        return row

    def _optimiser(self) -> torch.optim.Adam:
        """Adam; the dense layer of the encoder has its own rate."""
        o, dense = self.options, set(self.net.encoder.dense.parameters())
        others = [p for p in self.net.parameters() if p not in dense]
        others += list(self.norm.parameters()) if self.norm is not None else []
        groups = [{"params": others, "share": 1.0}, {"params": list(dense), "share": o.dense_rate}]
        return torch.optim.Adam(groups, o.rate, o.betas)

    def _rate(self, at: float) -> float:
        o = self.options
        if not o.falling:
            return o.rate
        return o.rate * (_LEAST + (1 - _LEAST) * 0.5 * (1 + math.cos(math.pi * at / o.epochs)))

    def step(self, rows: Rows, rng: np.random.Generator) -> float:
        """One step of the optimiser. Gradients of pieces are added up, unless the norm has to see the whole batch."""
        boxes, target = self._batch(rows, rng)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        size = len(rows) if self.norm is not None else swift.PIECE
        for first in range(0, len(rows), size):
            some = slice(first, first + size)
            loss = self._loss(boxes[some], target[some]).sum() / len(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self.optimiser.step()
        return total

    def _train(self, on: bool) -> None:
        self.net.train(on)
        if self.norm is not None:
            self.norm.train(on)

    def _loss(self, boxes: Tensor, target: Tensor) -> Tensor:
        """Of each sub-volume (n, 1, e, e, e) that was smoothed, (n,)."""
        encoder, decoder = self.net.encoder, self.net.decoder
        code = encoder.before(boxes)
        # A batch of one has no spread to be normalised by.
        if self.norm is not None and (len(code) > 1 or not self.norm.training):
            code = self.norm(code)
        code = functional.relu(code)
        wrong: Tensor = (swift.decode(decoder, code, swift.kernels(decoder)) - target).square().mean((1, 2, 3, 4))
        if self.options.weight:
            wrong = wrong / (target.var((1, 2, 3, 4)) + _FLOOR) ** self.options.weight
        return wrong + self.options.sparsity * code.sum(1)

    def _batch(self, rows: Rows, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Sub-volumes and targets (n, 1, e, e, e) of rows; mirrored where the recipe says so."""
        boxes = np.asarray(self.sample.boxes[rows], np.float32)
        known = self.sample.clean
        target = np.asarray(known[rows], np.float32) if self._known and known is not None else boxes
        if self.options.mirror and rng is not None:
            # The wedge is open along z and its tilt axis is y: mirrored along these, a missing wedge stays where it is.
            flips = [axes for axes, chosen in (((2,), rng.random() < 0.5), ((1, 3), rng.random() < 0.5)) if chosen]
            for axes in flips:
                boxes, target = np.flip(boxes, axes), np.flip(target, axes)
        seen = self._there(boxes)
        return seen, seen if target is boxes else self._there(target)

    def _there(self, array: npt.NDArray[np.float32]) -> Tensor:
        """As the encoder is given them, and as the decoder is to give them back."""
        found = self.net.smoothed(torch.from_numpy(np.ascontiguousarray(array))[:, None].to(self.device))
        last: Tensor = found.contiguous(memory_format=swift.LAYOUT)
        return last

    @torch.no_grad()
    def validation(self) -> tuple[float, float]:
        """Mean loss on what is held back, and the share of the code's numbers that are above 0 anywhere in it."""
        self._train(False)
        total, alive = 0.0, torch.zeros(self.options.codes, dtype=torch.bool, device=self.device)
        for first in range(0, len(self.held), swift.PIECE):
            boxes, target = self._batch(self.held[first : first + swift.PIECE], None)
            total += float(self._loss(boxes, target).sum())
            alive |= (self._codes(boxes) > 0).any(0)
        return total / len(self.held), float(alive.float().mean())

    def _codes(self, boxes: Tensor) -> Tensor:
        code: Tensor = self.net.encoder.before(boxes)
        normed: Tensor = code if self.norm is None else self.norm(code)
        return normed

    def _weights(self) -> dict[str, Tensor]:
        """The network's weights now, on the CPU, the norm folded into the dense layer: the published layers."""
        found = {name: value.detach().cpu().clone() for name, value in self.net.state_dict().items()}
        if self.norm is not None:
            norm = {name: value.detach().cpu() for name, value in self.norm.state_dict().items()}
            scale = norm["weight"] / (norm["running_var"] + self.norm.eps).sqrt()
            found["encoder.dense.weight"] *= scale[:, None]
            found["encoder.dense.bias"] = (found["encoder.dense.bias"] - norm["running_mean"]) * scale + norm["bias"]
        return found

    def save(self, path: Path) -> None:
        """Write the checkpoint beside its name, then rename it; ``log.json`` beside it."""
        state = {
            "identity": json.dumps(self._identity()),
            "net": self.net.state_dict(),
            "norm": {} if self.norm is None else self.norm.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "history": json.dumps(told(self.history)),
        }
        partial = path.with_suffix(".inprogress")
        torch.save(state, partial)
        partial.replace(path)
        path.with_name("log.json").write_text(json.dumps(told(self.history), indent=1) + "\n")

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; ``ValueError`` when it was made with other options, or is none."""
        try:
            state = torch.load(path, weights_only=True)
            old, new = json.loads(state["identity"]), json.loads(json.dumps(self._identity()))
            history = [Row(**row) for row in json.loads(state["history"])]
        except (RuntimeError, KeyError, EOFError, TypeError, ValueError, pickle.UnpicklingError) as error:
            said = str(error).splitlines()[0][:120]
            raise ValueError(f"{path}: is no checkpoint of this training ({said}); use another --out") from None
        if old != new:
            changed = [f"{k}: {old.get(k)} then, {new.get(k)} now" for k in new if old.get(k) != new.get(k)]
            raise ValueError(f"{path}: cannot resume with other options ({'; '.join(changed)}); use another --out")
        self.net.load_state_dict(state["net"])
        if self.norm is not None:
            self.norm.load_state_dict(state["norm"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.history = state["best"], history

    def _identity(self) -> dict[str, Any]:
        return {**self.options.identity(), "sub-volumes": len(self.sample), "edge": self.sample.edge}

    def finished(self) -> Autoencoder3D:
        """The network of the best epoch, on the CPU."""
        net = Autoencoder3D(*codec_shape(self.best))
        net.load_state_dict(self.best)
        return net.eval()


def told(history: list[Row]) -> list[dict[str, Any]]:
    """Rows as JSON holds them."""
    return [{name: getattr(row, name) for name in Row.__slots__} for row in history]


def _network(options: Options, edge: int, gain: float) -> Autoencoder3D:
    """A new network, or that of the bundle to go on from."""
    if not options.start:
        return Autoencoder3D(edge, options.channels, options.codes, options.smooth, gain)
    net = codec_network(load_bundle(options.start))
    if (net.decoder.small * 4, net.decoder.channels) != (edge, options.channels):
        raise ValueError(
            f"--from {options.start}: a network for sub-volumes of {net.decoder.small * 4} voxels and of "
            f"{net.decoder.channels} channels; needed are {edge} and {options.channels}"
        )
    return net
