"""Pre-train the cascade on simulated pairs: ``train(options, volumes, held)``, ``beamsieve train classes2d``.

Lei and Yang (2021), section 3.2: each block learns to make of images at one signal-to-noise ratio those at the next,
by RMSprop and the mean squared error. ``paper`` shows four views of one protein. The authors train the blocks at the
same time, apart from each other (``together``); here each is trained on what those before it leave, because a block
that has only seen noisy images makes nothing of clean ones. ``general`` shows many views of many proteins at many
signal-to-noise ratios, and trains all blocks at once in the end: a block cannot bring back what the one before left
out, and one that was trained to give the best image by itself leaves out much. A killed run goes on with ``resume`` and
ends with the same weights to rounding.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..lanes import open_lane
from ..particles.maps import Volume
from ..progress import Lines
from .cdae import BLOCKS, Cdae
from .pairs import Batch, Pool
from .recipes import Options, Progress, make_options
from .report import Held, finish
from .working import Floats

JOINT_RATE = 0.5
"""Of the learning rate, where all blocks learn at once."""
SHARES = (0.2, 0.2, 1.0)
"""What the error after each block counts there."""

__all__ = ["Options", "Trainer", "make_options", "train"]


class Trainer:
    """The state of one training: cascade, optimiser of the block at work, history."""

    def __init__(self, options: Options, pool: Pool, held: Held) -> None:
        self.options, self.pool, self.held = options, pool, held
        self.device, _ = open_lane(options.device)
        torch.manual_seed(options.seed)
        net = Cdae(options.encoder, options.decoder, kernel=options.kernel, dropout=options.dropout)
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.history: list[dict[str, float]] = []
        self.dropping = True
        self.optimiser = self._optimiser(0)

    @property
    def place(self) -> tuple[int, int]:
        """Block and epoch, both from 0, that come next; block 3 stands for all at once."""
        alone = BLOCKS * self.options.epochs
        seen = len(self.history)
        return divmod(seen, self.options.epochs) if seen < alone else (BLOCKS, seen - alone)

    def _optimiser(self, block: int) -> torch.optim.RMSprop:
        trained = self.net.blocks[block] if block < BLOCKS else self.net
        return torch.optim.RMSprop(trained.parameters(), lr=self.options.rate)

    def finish_epoch(self) -> dict[str, float]:
        """Train one epoch of the block whose turn it is, and see how the cascade does so far on what is held back."""
        started = time.monotonic()
        block, epoch = self.place
        if epoch == 0:
            self.optimiser = self._optimiser(block)
            if 0 < block < BLOCKS and self.options.carry:
                self.net.blocks[block].load_state_dict(self.net.blocks[block - 1].state_dict())
        loss = self._epoch(block, epoch)
        row = {
            "block": block + 1,
            "epoch": epoch + 1,
            "loss": loss,
            "gain_db": self.held.gain_db(self.net, min(block + 1, BLOCKS)),
            "seconds": time.monotonic() - started,
        }
        self.history.append(row)
        return row

    def _epoch(self, block: int, epoch: int) -> float:
        """Mean loss. What is dropped out comes from seed, block and epoch."""
        o = self.options
        self.dropping = epoch < o.dropped * self._length(block)
        torch.manual_seed((o.seed * 1009 + block) * 1009 + epoch)
        total, steps = 0.0, math.ceil(len(self.pool) / o.batch)
        for step, batch in enumerate(self.pool.batches(block, epoch)):
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate(block, epoch + step / steps)
            total += self._step(block, batch) * len(batch.start)
        return total / len(self.pool)

    def _length(self, block: int) -> int:
        return self.options.epochs if block < BLOCKS else self.options.joint

    def _rate(self, block: int, at: float) -> float:
        """Constant, or half a cosine to zero after a short rise; ``at`` in epochs."""
        o = self.options
        rate = o.rate if block < BLOCKS else JOINT_RATE * o.rate
        return (
            rate * min(1.0, 0.05 + 2 * at) * 0.5 * (1 + math.cos(math.pi * at / self._length(block)))
            if o.cosine
            else rate
        )

    def _step(self, block: int, batch: Batch) -> float:
        o = self.options
        after = self._there(batch.after if o.targets == "noisy" else batch.clean)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=o.reduced):
            answers = self._answers(block, batch)
        wrong = sum(
            share * (answer.float() - after).square().mean((1, 2, 3))
            for answer, share in zip(answers, SHARES[-len(answers) :], strict=True)
        )
        assert isinstance(wrong, Tensor)
        if o.weight:
            wrong = wrong / self._there(batch.clean).var((1, 2, 3)) ** o.weight
        loss = wrong.mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(loss.detach())

    def _answers(self, block: int, batch: Batch) -> list[Tensor]:
        """Of the block at work; or of all, each of which should be better than the one before."""
        if block < BLOCKS:
            alone = self.options.together
            before = self._there(batch.before) if alone else self._through(block, self._there(batch.start))
            return [self.net.blocks[block].train(self.dropping)(before)]
        images, answers = self._there(batch.start), []
        for one in self.net.train(self.dropping).blocks:
            images = one(images)
            answers.append(images)
        return answers

    @torch.no_grad()
    def _through(self, block: int, images: Tensor) -> Tensor:
        """What the blocks before this one leave."""
        for earlier in list(self.net.blocks)[:block]:
            images = earlier.eval()(images)
        return images

    def _there(self, images: Floats) -> Tensor:
        return torch.from_numpy(images)[:, None].to(self.device)

    def save(self, path: Path) -> None:
        """Write the checkpoint beside its name, then rename it; ``log.json`` beside it."""
        state = {
            "identity": json.dumps(self.options.identity()),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
        }
        partial = path.with_suffix(".inprogress")
        torch.save(state, partial)
        partial.replace(path)
        path.with_name("log.json").write_text(json.dumps(self.history, indent=1))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; ``ValueError`` when it was made with other options, or is none."""
        try:
            state = torch.load(path, weights_only=True)
            old, new = json.loads(state["identity"]), self.options.identity()
        except (RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
            said = str(error).splitlines()[0][:120]
            raise ValueError(f"{path}: is no checkpoint of this training ({said}); use another --out") from None
        if old != new:
            changed = [f"{k}: {old.get(k)} then, {new.get(k)} now" for k in new if old.get(k) != new.get(k)]
            raise ValueError(f"{path}: cannot resume with other options ({'; '.join(changed)}); use another --out")
        self.net.load_state_dict(state["net"])
        self.history = state["history"]
        block, epoch = self.place
        # At a block's first epoch its own optimiser is made; the one saved is that of the block before.
        if epoch:
            self.optimiser = self._optimiser(block)
            self.optimiser.load_state_dict(state["optimiser"])


def train(
    options: Options, volumes: Sequence[Volume], held: Sequence[Volume] = (), progress: Progress | None = None
) -> Path | None:
    """Pre-train on ``volumes``, measure on ``held`` (other proteins), write bundle and pictures to ``options.out``.

    Without ``held``, it is measured on other images of the volumes it was trained on. Returns the path of the ``.pt``
    file, or ``None`` when ``stop_after`` ended the run early. Raises ``ValueError`` for options and a checkpoint that
    cannot be, ``BundleError`` (``device``), ``OSError`` where ``options.out`` cannot be written.
    """
    progress = progress or Lines()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    checkpoint = options.out / "checkpoint.pt"
    if checkpoint.exists() and not options.resume:
        raise ValueError(f"{options.out}: holds a training; go on with --resume, or name another folder")
    trainer = Trainer(options, Pool(options, volumes, progress), Held(options, held or volumes))
    if checkpoint.exists():
        trainer.load(checkpoint)
    while len(trainer.history) < options.total_epochs:
        if options.stop_after is not None and len(trainer.history) >= options.stop_after:
            return None
        row = trainer.finish_epoch()
        trainer.save(checkpoint)
        which = f"block {row['block']:.0f}" if row["block"] <= BLOCKS else "all blocks"
        told = f"{which}, loss {row['loss']:.4f}, {row['gain_db']:.2f} dB better than noisy"
        progress(f"train: {told}", len(trainer.history), options.total_epochs)
    return finish(trainer.net.cpu(), options, trainer.history, trainer.held)
