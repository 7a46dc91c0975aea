"""Which part of a karabo train is the detector, as the operator says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from .axes import parse_axes
from .sockets import SocketSettings

IdTest: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]


class TrainSettings(SocketSettings):
    """Which part of a train is the detector, and how to read its axes."""

    source: str = Field(
        description="the detector's source name, such as SPB_DET_AGIPD1M-1/CAL/APPEND_CORRECTED, or a pattern that "
        "matches one source per module, such as SPB_DET_AGIPD1M-1/DET/*CH0:xtdf"
    )
    image_key: str = Field(default="image.data", description="the property that holds the pixels")
    mask_key: str | None = Field(default="image.mask", description="bad pixels of each shot, used where it is sent")
    pulse_key: str = Field(default="image.pulseId", description="the property that names the pulses of a train")
    cell_key: str = Field(default="image.cellId", description="the property that names the memory cells")
    axes: str = Field(
        description="order of the array's axes: online (module fs ss pulse), file (pulse module ss fs), camera (one "
        "image), or words of pulse, module, ss, fs, gain, one"
    )
    modules: int | None = Field(default=None, ge=1, description="modules of the detector; none: not checked")
    module_shape: tuple[int, int] | None = Field(
        default=None, description="pixels of a module or camera, [ss, fs] = [y, x]; none: as the first train has it"
    )
    module_pattern: str = Field(
        default=r"/[^/\d]*(\d+)[^/]*$", description="regular expression whose first group is a source's module number"
    )
    first_module: int = Field(default=0, ge=0, description="number of the first module in the source names")
    pulses: str = Field(default="all", description="pulse ids to analyse: all, a list 0,8,16 or a range 0:352:8")
    cells: str = Field(default="all", description="memory cells to analyse, written like pulses")
    values: Mapping[str, str] = Field(
        default_factory=dict, description="further values to keep with each train: name: SOURCE property"
    )

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, text: str) -> str:
        return parse_axes(text)

    @field_validator("pulses", "cells")
    @classmethod
    def _known_ids(cls, text: str) -> str:
        parse_ids(text)
        return text

    @field_validator("module_pattern")
    @classmethod
    def _known_pattern(cls, text: str) -> str:
        try:
            groups = re.compile(text).groups
        except re.error as error:
            raise ValueError(f"module_pattern {text!r} is not a regular expression: {error}") from error
        if groups < 1:
            raise ValueError(f"module_pattern {text!r}: put the module number in parentheses")
        return text

    @field_validator("values")
    @classmethod
    def _known_values(cls, values: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in values.items():
            if len(text.split()) != 2:
                raise ValueError(f"values: {name}: {text!r} is not 'SOURCE property'")
        return values

    @model_validator(mode="after")
    def _modules_for_pattern(self) -> TrainSettings:
        if is_pattern(self.source) and self.modules is None:
            raise ValueError("modules: say how many there are, since source is a pattern that matches one per module")
        return self


def is_pattern(source: str) -> bool:
    """Whether a source name is a pattern that can match several."""
    return any(c in source for c in "*?[")


def parse_ids(text: str) -> IdTest | None:
    """``all``, ``0,8,16`` or ``start:stop:step`` as a test on an array of ids; None for all. Raises ``ValueError``."""
    if text.strip() == "all":
        return None
    try:
        if ":" in text:
            ids = np.array(range(1 << 16)[slice(*(int(n) if n.strip() else None for n in text.split(":")))])
        else:
            ids = np.array([int(n) for n in text.split(",")])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: write all, a list 0,8,16 or a range start:stop:step") from error
    return lambda values: np.isin(values, ids)
