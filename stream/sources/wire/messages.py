"""What both DECTRIS streams say, in one vocabulary: a series starts, an image, a series ends, something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from ...flow.frame import Encoded


class Start(NamedTuple):
    """A series begins. ``unique`` tells two series of the same number apart; ``info`` has SI units (see ``facts``)."""

    series: int
    unique: str
    info: Mapping[str, Any]
    problems: tuple[str, ...] = ()


class Image(NamedTuple):
    """One image, one array per channel (threshold), none of them decoded."""

    series: int
    unique: str
    number: int
    images: Mapping[str, Encoded]
    info: Mapping[str, Any]


class End(NamedTuple):
    """A series is over."""

    series: int
    unique: str


class Foreign(NamedTuple):
    """A well-formed message of a type not meant for us."""

    kind: str


Message: TypeAlias = Start | Image | End | Foreign
