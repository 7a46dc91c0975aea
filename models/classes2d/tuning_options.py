"""How a fine-tuning is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from .cdae import DROPOUT

TARGETS = ("outputs", "images")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """How to fine-tune. ``out``: folder of checkpoint, bundle, pictures.

    ``name``: of the new bundle; empty: the old one's with ``-tuned``. ``k``: neighbours in a mean. ``target``: what is
    averaged over them: the block's ``outputs``, as published, or the raw ``images``, whose noise the mean takes away
    and whose detail the model cannot have lost. ``epochs``: of each block. ``aligned``: compare and average images at
    their best in-plane angle and centre. ``batch``: images per step. ``rate``: RMSprop's at its highest. ``dropout``:
    probability; None: the one that the bundle was trained with (0.5, the published, where its card does not say),
    because another changes what the network answers, and does harm until it has learnt anew. ``validation``: share of
    the images held out. ``resume``: go on from the checkpoint in ``out``. ``anyway``: write the bundle also where it is
    not better. ``source``: in words, what the images are. ``command``: goes into the card. Raises ``ValueError`` for
    numbers that cannot be.
    """

    out: Path
    name: str = ""
    k: int = 30
    target: str = "outputs"
    epochs: int = 20
    aligned: bool = True
    batch: int = 64
    rate: float = 3e-4
    dropout: float | None = None
    validation: float = 0.2
    seed: int = 1
    device: str = "cpu"
    threads: int | None = None
    resume: bool = False
    anyway: bool = False
    source: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        rules = {
            f"k: {self.k} neighbours; give 2 or more": self.k >= 2,
            f"target: {self.target}; give one of {', '.join(TARGETS)}": self.target in TARGETS,
            f"epochs: {self.epochs}; give 1 or more": self.epochs >= 1,
            f"batch: {self.batch}; give 1 or more": self.batch >= 1,
            f"rate: {self.rate:g}; give a number above 0 and up to 0.1": 0 < self.rate <= 0.1,
            f"dropout: {self.dropout}; give a probability from 0 to 0.9": 0 <= (self.dropout or 0) <= 0.9,
            f"validation: {self.validation:g}; give a share from 0.05 to 0.5": 0.05 <= self.validation <= 0.5,
            f"seed: {self.seed}; give 0 or more": self.seed >= 0,
        }
        wrong = [text for text, right in rules.items() if not right]
        if wrong:
            raise ValueError("; ".join(wrong))

    def identity(self) -> dict[str, Any]:
        """What must be the same in a run that goes on."""
        free = {"out", "name", "device", "threads", "resume", "anyway", "source", "command"}
        return {name: value for name, value in asdict(self).items() if name not in free}


def trained_dropout(bundle: Bundle) -> float:
    """The dropout that a bundle was trained with, as its card says it; 0.5 where it does not."""
    training: Any = bundle.card.training
    while isinstance(training, Mapping):
        options = training.get("options")
        for told in (training, options if isinstance(options, Mapping) else {}):
            found = told.get("dropout")
            if isinstance(found, int | float) and 0 <= found <= 0.9:
                return float(found)
        # A fine-tuned bundle keeps the card of the one it came from.
        base = training.get("base")
        training = base.get("training") if isinstance(base, Mapping) else None
    return DROPOUT
