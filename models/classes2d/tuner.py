"""The state of one fine-tuning: the blocks, what each learns from, what survives an interruption.

As published (Lei and Yang 2021, sections 3.3 and 3.4): the blocks are tuned in turn. The input of a block are the
images as the tuned blocks before it leave them; its target for an image is the mean of its own outputs, as they were
before it was tuned, over the image's neighbours (``neighbours``; similarity is that of those outputs). RMSprop on the
mean square error; how its rate falls is not published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..bundle import Bundle
from ..lanes import open_lane
from .bundles import network
from .cdae import Cdae
from .neighbours import Floats, find, means
from .rate import set_rate
from .tuning_options import TuneOptions, trained_dropout
from .tuning_score import Change, Split, compare_scores, references, scores, split

Progress = Callable[[str, int, int], None]
_AT_ONCE = 128


class Stopped(Exception):
    """Told to stop; the checkpoint holds everything up to the last finished epoch."""


class Tuner:
    """Blocks, optimiser, history. ``images``: working images, float32 (n, s, s). ``stop`` is asked at every batch.

    Raises ``BundleError`` for a bundle that is no cascade of this package, or a device that is not there.
    """

    def __init__(
        self, bundle: Bundle, images: Floats, options: TuneOptions, progress: Progress, stop: Callable[[], bool]
    ) -> None:
        self.bundle, self.images, self.options = bundle, images, options
        self._progress, self._stop = progress, stop
        self.device = open_lane(options.device)[0]
        self.dropout = trained_dropout(bundle) if options.dropout is None else options.dropout
        self.base = network(bundle).to(self.device).eval()
        self.net = network(bundle, dropout=self.dropout).to(self.device)
        self.parts: Split = split(len(images), options.validation, options.seed)
        self.block, self.epoch = 0, 0
        self.history: list[dict[str, float]] = []
        self.optimiser = self._optimiser()
        self._data: tuple[Floats, Floats] | None = None
        self._pixels = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()

    def _optimiser(self) -> torch.optim.RMSprop:
        return torch.optim.RMSprop(self.net.blocks[self.block].parameters(), lr=self.options.rate)

    def prepare(self) -> None:
        """Denoise everything with the model as it is, and choose the references that both models are scored with."""
        # Not of self.net, which may have been tuned by the run that this one goes on from.
        start = self.run(self.images, range(len(self.net.blocks)), "denoise", self.base)
        self.wanted = references(
            self.images, start, self.parts, self.options.k, aligned=self.options.aligned, each=self.tell("references")
        )
        self.start = start[self.parts.held]
        self.before = scores(self.start, self.wanted)

    def tell(self, what: str) -> Callable[[int, int], None]:
        """A progress of one kind of work, which raises ``Stopped`` when told to stop."""

        def told(done: int, of: int) -> None:
            if self._stop():
                raise Stopped
            self._progress(what, done, of)

        return told

    @torch.inference_mode()
    def run(self, images: Floats, blocks: range, what: str, net: Cdae | None = None) -> Floats:
        """Outputs float32 (n, s, s) of some blocks in a row, in evaluation mode: as they are now, or of ``net``."""
        net = (net or self.net).eval()
        out = np.empty_like(images)
        told = self.tell(what)
        for first in range(0, len(images), _AT_ONCE):
            x = torch.from_numpy(images[first : first + _AT_ONCE]).to(self.device)[:, None]
            for block in blocks:
                x = net.blocks[block](x)
            out[first : first + _AT_ONCE] = x[:, 0].float().cpu().numpy()
            told(min(len(images), first + _AT_ONCE), len(images))
        return out

    def data(self) -> tuple[Floats, Floats]:
        """Inputs and targets (n, s, s) of the block whose turn it is; rows of the held-out part validate.

        Neighbours are of the training part, for held-out images too, so that no held-out pixel reaches the weights.
        """
        if self._data is not None:
            return self._data
        o, parts, name = self.options, self.parts, f"block {self.block + 1}"
        inputs = self.run(self.images, range(self.block), f"{name}, input") if self.block else self.images
        outputs = self.run(inputs, range(self.block, self.block + 1), f"{name}, output", self.base)
        ours = outputs[parts.training]
        averaged = ours if o.target == "outputs" else self.images[parts.training]
        targets = np.empty_like(outputs)
        found = find(ours, o.k, aligned=o.aligned, each=self.tell(f"{name}, neighbours"))
        targets[parts.training] = means(averaged, found, each=self.tell(f"{name}, means"))
        found = find(outputs[parts.held], o.k, among=ours, aligned=o.aligned, each=self.tell(f"{name}, held out"))
        targets[parts.held] = means(averaged, found)
        self._data = inputs, targets
        return self._data

    @property
    def diverged(self) -> bool:
        """Whether the last epoch left numbers that are none; no further epoch mends that."""
        return bool(self.history) and not np.isfinite(self.history[-1]["loss"])

    def finish_epoch(self) -> dict[str, float]:
        """Train one epoch of the block whose turn it is; its random numbers come from the seed, block and epoch."""
        inputs, targets = self.data()
        rng = np.random.default_rng([self.options.seed, self.block, self.epoch])
        order = rng.permutation(self.parts.training)
        # Dropout draws from torch's own numbers, which belong to the caller.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(1 << 31)))
            loss = self._pass(inputs, targets, order)
        held = self._loss(inputs[self.parts.held], targets[self.parts.held])
        row = {"block": self.block + 1, "epoch": self.epoch + 1, "loss": loss, "validation_loss": held}
        self.epoch += 1
        if self.epoch >= self.options.epochs:
            row["score"] = float(self.after().mean())
            self._next_block()
        self.history.append(row)
        return row

    def _next_block(self) -> None:
        self.block, self.epoch, self._data = self.block + 1, 0, None
        if not self.done:
            self.optimiser = self._optimiser()

    def _pass(self, inputs: Floats, targets: Floats, order: np.ndarray[Any, Any]) -> float:
        block = self.net.blocks[self.block].train()
        total = 0.0
        for first in range(0, len(order), self.options.batch):
            if self._stop():
                raise Stopped
            rows = order[first : first + self.options.batch]
            set_rate(self.optimiser, self.options.rate, (self.epoch + first / len(order)) / self.options.epochs)
            x, wanted = (torch.from_numpy(part[rows]).to(self.device)[:, None] for part in (inputs, targets))
            loss = functional.mse_loss(block(x), wanted)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += float(loss.detach()) * len(rows)
        return total / len(order)

    def _loss(self, inputs: Floats, targets: Floats) -> float:
        found = self.run(inputs, range(self.block, self.block + 1), "validate")
        return float(np.square(found - targets).mean())

    @property
    def done(self) -> bool:
        """Whether the last block is tuned."""
        return self.block >= len(self.net.blocks)

    def denoised(self) -> Floats:
        """The held-out images as the cascade leaves them now."""
        return self.run(self.images[self.parts.held], range(len(self.net.blocks)), "score")

    def after(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Scores of the held-out images now."""
        return scores(self.denoised(), self.wanted)

    def change(self) -> Change:
        """Before and now."""
        return compare_scores(self.before, self.after(), seed=self.options.seed)

    def identity(self) -> str:
        """What must not change between a run and its continuation, as JSON."""
        told = {**self.options.identity(), "bundle": self.bundle.card.sha256, "images": self._pixels[:16]}
        return json.dumps(told, sort_keys=True)

    def save(self, path: Path) -> None:
        """Write the checkpoint beside its name, then rename it."""
        state = {
            "identity": self.identity(),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "block": self.block,
            "epoch": self.epoch,
            "history": self.history,
        }
        partial = path.with_name(path.name + ".inprogress")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; ``ValueError`` where it is of other options, images or bundle, or damaged."""
        try:
            state = torch.load(path, weights_only=True, map_location=self.device)
            old, new = json.loads(state["identity"]), json.loads(self.identity())
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: is no checkpoint of a fine-tuning ({error}); name another folder") from None
        if old != new:
            changed = [f"{k}: {old.get(k)} then, {new.get(k)} now" for k in new if old.get(k) != new.get(k)]
            raise ValueError(f"{path}: cannot go on with other options ({'; '.join(changed)}); use another --out")
        self.net.load_state_dict(state["net"])
        self.block, self.epoch, self.history = state["block"], state["epoch"], state["history"]
        if not self.done:
            self.optimiser = self._optimiser()
            if self.epoch:
                self.optimiser.load_state_dict(state["optimiser"])
