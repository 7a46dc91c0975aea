"""The warm-up: try every plan, keep the fastest that agrees with the model as trained, and say what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .bundle import Bundle, BundleError
from .card import Card
from .plans import PLAIN, PLANS, Forward, Plan, compile_plan, measure, trial


@dataclass(frozen=True, slots=True)
class Trial:
    """What a plan was measured to do: milliseconds per frame, largest difference of a probability, or its fault."""

    plan: Plan
    ms_per_frame: float = float("inf")
    difference: float = float("inf")
    fault: str = ""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What the warm-up found and chose.

    ``ms_per_frame``: milliseconds per frame at the largest batch. ``difference``: the largest absolute difference of a
    probability from the module as loaded, in float32 on the CPU. ``buckets``: milliseconds per batch of each size;
    ``pieces``: into pieces of which size it is cut, where that is faster. ``trials``: every plan that was tried.
    ``graph``: whether CUDA graphs are replayed. ``seconds``: the warm-up itself.
    """

    device: str
    plan: Plan
    graph: bool
    threads: int
    ms_per_frame: float
    difference: float
    buckets: Mapping[int, float]
    pieces: Mapping[int, int]
    trials: tuple[Trial, ...]
    seconds: float

    @property
    def dtype(self) -> str:
        """``float32`` or ``bfloat16``, as chosen."""
        return self.plan.dtype

    def to_json(self) -> dict[str, Any]:
        """A mapping that JSON can hold."""
        found = asdict(self)
        for name in ("buckets", "pieces"):
            found[name] = {str(size): value for size, value in found[name].items()}
        found["trials"] = [
            {key: value for key, value in asdict(trial).items() if value not in ("", float("inf"))}
            for trial in self.trials
        ]
        return found

    def __str__(self) -> str:
        where = f"{self.device} ({self.threads} threads)" if self.device == "cpu" else self.device
        graph = ", CUDA graphs" if self.graph else ""
        return f"{where}, {self.plan}{graph}: {self.ms_per_frame:.3f} ms per frame"


def choose(bundle: Bundle, device: torch.device, dtype: str, count: int) -> tuple[Trial, tuple[Trial, ...]]:
    """Try the plans of ``dtype`` (``auto``: all) on ``count`` frames and give the best trial, and all of them.

    Raises ``BundleError``: ``output`` where the module does not answer (n, classes) finite numbers on photon counts,
    ``tolerance`` where no plan agrees with it, run as loaded in float32 on the CPU, to the tolerance on its card.
    """
    card = bundle.card
    frames = trial(card, count)
    truth = _truth(bundle, frames)
    there = frames.to(device)
    trials = tuple(
        _try(plan, bundle, there, truth) for plan in PLANS if dtype in ("auto", plan.dtype) and plan.suits(card)
    )
    agree = [trial for trial in trials if trial.difference <= getattr(card.tolerance, trial.plan.dtype)]
    if agree:
        return min(agree, key=lambda trial: trial.ms_per_frame), trials
    tried = "; ".join(f"{trial.plan}: {trial.fault or f'differs by {trial.difference:.1e}'}" for trial in trials)
    raise BundleError(
        "tolerance",
        f"{bundle.path}: on {device} its scores are not those of a CPU in float32, to the tolerance on its card "
        f"({tried}); use another dtype or device",
    )


def _truth(bundle: Bundle, frames: torch.Tensor) -> torch.Tensor:
    remedy = "export it again as its card describes it"
    try:
        answer = compile_plan(PLAIN, bundle.card, bundle.module, torch.device("cpu"))(frames)
    except RuntimeError as error:
        detail = f"{bundle.path}: fails on input of shape {tuple(frames.shape)}: {last_line(error)}; {remedy}"
        raise BundleError("output", detail) from error
    needed = _answer_shape(bundle.card, len(frames))
    if tuple(answer.shape) != needed or not bool(answer.isfinite().all()):
        given = f"{tuple(answer.shape)} numbers" if tuple(answer.shape) != needed else "numbers that are not finite"
        raise BundleError("output", f"{bundle.path}: answers {given}, needed are {needed} finite numbers; {remedy}")
    return answer


def _answer_shape(card: Card, count: int) -> tuple[int, ...]:
    """Of probabilities, (count, classes); of images, (count, classes, y, x)."""
    images = card.input.shape[-2:] if card.output.kind == "images" else ()
    return (count, len(card.output.classes), *images)


def _try(plan: Plan, bundle: Bundle, frames: torch.Tensor, truth: torch.Tensor) -> Trial:
    try:
        forward: Forward = compile_plan(plan, bundle.card, bundle.module, frames.device)
        answer = forward(frames).cpu()
        if not bool(answer.isfinite().all()):
            return Trial(plan, fault="answers numbers that are not finite")
        seconds = measure(lambda: forward(frames).cpu())
    except RuntimeError as error:
        return Trial(plan, fault=last_line(error))
    return Trial(plan, 1e3 * seconds / len(frames), float((answer - truth).abs().max()))


def last_line(error: Exception) -> str:
    """The line of a TorchScript error that says what went wrong (the last), shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:160]
