"""Within which ranges a micrograph's quality numbers are ordinary: what the YAML says under ``quality``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from ..flow.settings import Settings

NAMES = (
    "mean",
    "sd",
    "saturated_fraction",
    "missing_fraction",
    "gradient",
    "carbon_fraction",
    "ice_fraction",
    "contrast",
    "falloff",
)

Bounds = tuple[float | None, float | None]


class Limits(Settings):
    """Within which range a number is ordinary (``warn``), and within which a micrograph is used at all (``skip``)."""

    warn: Bounds = Field(default=(None, None), description="[low, high]; outside, a warning. null: open")
    skip: Bounds = Field(default=(None, None), description="[low, high]; outside, nothing is picked. null: open")

    @field_validator("warn", "skip")
    @classmethod
    def _ordered(cls, bounds: Bounds) -> Bounds:
        low, high = bounds
        if any(b is not None and not math.isfinite(b) for b in bounds):
            raise ValueError("a bound is a finite number, or null where there is none")
        if low is not None and high is not None and low > high:
            raise ValueError(f"low {low:g} is above high {high:g}; write [low, high]")
        return bounds


class QualitySettings(Settings):
    """The ranges of a micrograph's numbers. Unless told otherwise, only hopeless pictures are skipped."""

    mean: Limits = Field(default=Limits(), description="mean of the pixels, in the picture's units")
    sd: Limits = Field(default=Limits(), description="standard deviation of the pixels, in the picture's units")
    saturated_fraction: Limits = Field(
        default=Limits(warn=(None, 0.001), skip=(None, 0.5)), description="fraction of saturated pixels"
    )
    missing_fraction: Limits = Field(
        default=Limits(warn=(None, 0.001), skip=(None, 0.5)), description="fraction of pixels that are no numbers"
    )
    gradient: Limits = Field(default=Limits(warn=(None, 3.0)), description="rise across the picture, in its s.d.")
    carbon_fraction: Limits = Field(
        default=Limits(warn=(None, 0.3)), description="fraction of the picture with carbon's texture"
    )
    ice_fraction: Limits = Field(default=Limits(warn=(None, 0.02)), description="fraction of dark blobs' area")
    contrast: Limits = Field(
        default=Limits(warn=(1.05, 6.0)),
        description="variation over 30 to 120 Å against that of white noise, 1 for noise alone",
    )
    falloff: Limits = Field(
        default=Limits(warn=(-2.5, None)), description="exponent of the power spectrum, 0 for white noise"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: Any) -> Any:
        """A number whose ``skip`` is given keeps its usual ``warn``, and the other way round."""
        if not isinstance(data, Mapping):
            return data
        usual = {name: field.default.model_dump() for name, field in cls.model_fields.items()}
        return {
            name: {**usual[name], **value} if name in usual and isinstance(value, Mapping) else value
            for name, value in data.items()
        }
