"""The learning rate of training by RMSprop, as it falls."""

from __future__ import annotations

import math

import torch


def set_rate(optimiser: torch.optim.Optimizer, rate: float, done: float) -> None:
    """The learning rate when ``done`` (0 … 1) of a training is behind: a short rise, then half a cosine to zero.

    The first steps of torch's RMSprop are ten times the rate: without the rise they undo what a network knows.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate * min(1.0, 10 * done + 0.02) * 0.5 * (1 + math.cos(math.pi * done))
