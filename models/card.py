"""The card of a model: what it is, what it takes and gives, how it was made, and the hash of the file it speaks for."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

TASKS = ("hits", "particles", "classes2d", "tomograms")
KINDS = ("probabilities", "logits", "images", "codes", "voxels")
DTYPES = ("float32", "uint8", "uint16", "int16", "int32")
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}


class CardError(ValueError):
    """A card with mistakes. ``mistakes`` lists all of them, each as ``field: what is wrong``."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class CardInput:
    """What the module's ``forward`` takes: (n, then ``shape``) of ``dtype``, in the unit that ``name`` says.

    ``name`` is ``photons`` for hits, ``micrograph`` for particles, ``particle`` for classes2d. ``normalisation`` says
    in words what is done to the input first: for hits by the module itself, so that nobody can forget it; for particles
    to the whole micrograph, before boxes are cut; for classes2d to each particle's image. ``pixel_um`` (pixel size in
    micrometres) and ``q_range_per_nm`` (lowest and highest momentum transfer in 1/nm) are there when known. ``pixel_a``
    and ``diameter_a`` are lengths in ångström: of a pixel of the input, to which micrographs are rescaled, and of the
    particle that it was trained to find. Where ``dtype`` is an integer, the model was trained on counts, and fractions
    of photons are rounded for it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    normalisation: str
    pixel_um: float | None = None
    q_range_per_nm: tuple[float, ...] | None = None
    pixel_a: float | None = None
    diameter_a: float | None = None


@dataclass(frozen=True, slots=True)
class CardOutput:
    """What the module answers: (n, len(classes)), either ``probabilities`` that add up to 1, or ``logits``.

    ``images``: one image of the input's shape for each of ``classes``, which are names of what it shows.
    """

    classes: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest absolute difference of a probability from float32 on a CPU that counts as the same answer."""

    float32: float = TOLERANCE["float32"]
    bfloat16: float = TOLERANCE["bfloat16"]


@dataclass(frozen=True, slots=True)
class Card:
    """A checked card. ``training`` and ``scores`` are free mappings; everything else has a fixed meaning.

    ``threshold``: the probability of the wanted class from which on a frame is accepted. ``torch``: the version that
    wrote the file. ``created``: ISO 8601.
    """

    name: str
    version: str
    task: str
    sha256: str
    input: CardInput
    output: CardOutput
    threshold: float
    training: Mapping[str, Any]
    scores: Mapping[str, Any]
    trained_by: str
    licence: str
    created: str
    torch: str
    tolerance: Tolerance = field(default_factory=Tolerance)

    @classmethod
    def parse(cls, card: object) -> Card:
        """Check a mapping read from JSON. Raises ``CardError`` with all mistakes at once."""
        mistakes: list[str] = []
        block = _Block(card, "", mistakes)
        parts = {name: block.take(name, rule) for name, rule in _CARD.items()}
        parts["input"] = _input(block.take("input", _MAPPING), mistakes)
        parts["output"] = _output(block.take("output", _MAPPING), mistakes)
        parts["tolerance"] = _tolerance(block.take("tolerance", _MAPPING, default={}), mistakes)
        block.finish()
        if mistakes:
            raise CardError(mistakes)
        return cls(**parts)

    def to_json(self) -> dict[str, Any]:
        """The mapping that ``parse`` reads, without what is not known."""
        card = asdict(self)
        card["input"] = {key: value for key, value in card["input"].items() if value is not None}
        return card


@dataclass(frozen=True, slots=True)
class _Rule(Generic[T]):
    """What a field must be, in words, and the function that gives its value, or None for a mistake."""

    expected: str
    read: Callable[[object], T | None]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _number(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good and isinstance(value, int | float) else None


def _within(low: float, high: float) -> Callable[[object], float | None]:
    def read(value: object) -> float | None:
        number = _number(value)
        return number if number is not None and low <= number <= high else None

    return read


def _one_of(words: tuple[str, ...]) -> _Rule[str]:
    return _Rule(
        f"one of {', '.join(words)}", lambda value: value if isinstance(value, str) and value in words else None
    )


def _matching(pattern: str) -> Callable[[object], str | None]:
    return lambda value: value if isinstance(value, str) and re.fullmatch(pattern, value) else None


def _several(read: Callable[[object], T | None]) -> Callable[[object], tuple[T, ...] | None]:
    def read_all(value: object) -> tuple[T, ...] | None:
        if not isinstance(value, list | tuple) or not value:
            return None
        items = [item for item in map(read, value) if item is not None]
        return tuple(items) if len(items) == len(value) else None

    return read_all


def _extent(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _range(value: object) -> tuple[float, ...] | None:
    both = _several(_within(0, 1e9))(value)
    return both if both is not None and len(both) == 2 and both[0] < both[1] else None


_TEXT = _Rule("text that is not empty", _text)
_MAPPING: _Rule[Any] = _Rule("a mapping", lambda value: value if isinstance(value, Mapping) else None)
_FRACTION = _Rule("a number from 0 to 1", _within(0, 1))
_ANGSTROM = _Rule("a length in ångström, from 0.01 to a million", _within(1e-2, 1e6))
_CARD: Mapping[str, _Rule[Any]] = {
    "name": _Rule("letters, digits, dots, dashes and underscores", _matching(r"\w[\w.-]*")),
    "version": _TEXT,
    "task": _one_of(TASKS),
    "sha256": _Rule("64 hexadecimal digits", _matching(r"[0-9a-f]{64}")),
    "threshold": _FRACTION,
    "training": _MAPPING,
    "scores": _MAPPING,
    "trained_by": _TEXT,
    "licence": _TEXT,
    "created": _TEXT,
    "torch": _TEXT,
}


class _Block:
    """Takes the fields of one mapping, and notes what is missing, wrong or unknown."""

    def __init__(self, source: object, where: str, mistakes: list[str]) -> None:
        self._source: Mapping[str, object] = source if isinstance(source, Mapping) else {}
        self._where, self._mistakes = where, mistakes
        self._taken: list[str] = []
        if not isinstance(source, Mapping):
            mistakes.append(f"{where or 'card'}: is not a mapping")

    def take(self, name: str, rule: _Rule[T], default: Any = ...) -> Any:
        self._taken.append(name)
        if name not in self._source:
            if default is ...:
                self._mistakes.append(f"{self._where}{name}: missing; give {rule.expected}")
            return default
        value = rule.read(self._source[name])
        if value is None:
            self._mistakes.append(f"{self._where}{name}: {self._source[name]!r} is not {rule.expected}")
        return value

    def finish(self) -> None:
        for name in self._source:
            if name not in self._taken:
                near = difflib.get_close_matches(str(name), self._taken, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self._mistakes.append(f"{self._where}{name}: unknown{hint}")


def _input(source: Any, mistakes: list[str]) -> CardInput | None:
    if not isinstance(source, Mapping):
        return None
    block = _Block(source, "input.", mistakes)
    found = CardInput(
        name=block.take("name", _TEXT),
        shape=block.take("shape", _Rule("a list of positive whole numbers", _several(_extent))),
        dtype=block.take("dtype", _one_of(DTYPES)),
        normalisation=block.take("normalisation", _TEXT),
        pixel_um=block.take("pixel_um", _Rule("a length in micrometres", _within(1e-6, 1e6)), default=None),
        q_range_per_nm=block.take("q_range_per_nm", _Rule("[lowest, highest] in 1/nm", _range), default=None),
        pixel_a=block.take("pixel_a", _ANGSTROM, default=None),
        diameter_a=block.take("diameter_a", _ANGSTROM, default=None),
    )
    block.finish()
    return found


def _output(source: Any, mistakes: list[str]) -> CardOutput | None:
    if not isinstance(source, Mapping):
        return None
    block = _Block(source, "output.", mistakes)
    classes = block.take("classes", _Rule("a list of names", _several(_text)))
    kind = block.take("kind", _one_of(KINDS))
    block.finish()
    return CardOutput(classes, kind)


def _tolerance(source: Any, mistakes: list[str]) -> Tolerance | None:
    if not isinstance(source, Mapping):
        return None
    block = _Block(source, "tolerance.", mistakes)
    limits = {name: block.take(name, _FRACTION, default=default) for name, default in TOLERANCE.items()}
    block.finish()
    return Tolerance(**limits)
