"""What flows: keys, encoded messages, frames, results, and the two in-band marks that open and close a run.

Everything here is frozen and slotted, because the same object is seen by several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

EMPTY: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return EMPTY


class Outcome(StrEnum):
    """How a frame ends. Every frame read ends as exactly one of these."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one shot: ``run`` (a series, a karabo run), ``number`` (image or train id), ``pulse`` (-1: no trains)."""

    run: str
    number: int
    pulse: int = -1

    def __str__(self) -> str:
        """CXI's experiment identifier without the run: ``number`` or ``train:pulse``."""
        return f"{self.number}:{self.pulse}" if self.pulse >= 0 else f"{self.run}:{self.number}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """An array as it came over the wire: bytes, and what is needed to decode them.

    ``compression`` is ``none``, ``bslz4``, ``lz4`` or ``bszstd``. For ``bslz4`` and ``bszstd`` the buffer starts with
    the 12-byte header of HDF5 filter 32008 (u64 BE size in bytes, u32 BE block size in bytes), so that it is a chunk
    HDF5 can store as it is. ``dtype`` includes the byte order, ``shape`` is row-major (y, x last).
    """

    buffer: memoryview | bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: str = "none"

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        n = self.dtype.itemsize
        for extent in self.shape:
            n *= extent
        return n


STILL_A_FILE = Encoded(b"", (), np.dtype("u1"), "file")
"""The image of a ``Raw`` that names a file, which is read only when it is decoded."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run begins: what the sender said of the detector and the beam (SI units, names of the CXI file)."""

    run: str
    info: Mapping[str, Any] = field(default_factory=_nothing)
    count: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class RunEnd:
    """A run is over. ``reason``: ``end``, ``aborted``, ``superseded``, ``idle``, ``operator``, ``stopped``."""

    run: str
    reason: str = "end"
    count: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Raw:
    """One message of a source: a shot, or a train of ``count`` shots. Nothing in it is decoded yet.

    ``arrived`` is ``time.monotonic()`` and ``wall`` is ``time.time()`` at reception, both in seconds. ``pulses`` names
    the pulse of each shot of a train. ``mask`` is a per-message bad-pixel map as it came (its bits are the source's).
    ``info`` holds what the sender said of this message (exposure times, pulse energy …). ``message`` is the whole of
    it as it came, part by part, so that one that fails can be kept and replayed.

    A file is a ``Raw`` with an empty ``image`` of compression ``file``; ``info`` has its ``path``, ``name``, ``bytes``.
    """

    key: Key
    image: Encoded
    arrived: float
    wall: float
    count: int = 1
    pulses: tuple[int, ...] = ()
    mask: Encoded | None = None
    info: Mapping[str, Any] = field(default_factory=_nothing)
    message: tuple[bytes | memoryview, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of images as they came; of a file that is still to be read, its size (``info["bytes"]``)."""
        return len(self.image.buffer) or int(self.info.get("bytes", 0))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded shot.

    ``data``: (y, x) or (module, y, x), any numeric dtype, the pixels that are stored. ``mask``: same shape, uint32 with
    CXI's pixel bits (0 = good), or None where the run's static mask says all. ``chunk``: the bytes as they came, when
    no pixel was changed, for the writer to store without compressing again.
    """

    key: Key
    data: npt.NDArray[Any]
    arrived: float
    wall: float
    mask: npt.NDArray[np.uint32] | None = None
    chunk: Encoded | None = None
    info: Mapping[str, Any] = field(default_factory=_nothing)
    count: int = field(default=1, init=False)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The verdict on one frame: ACCEPTED or REJECTED, its score, and what was found.

    ``score`` is the number the threshold was compared with (probability of a single hit; lit pixels). ``found`` holds
    the rest: ``probabilities`` (float32, classes), ``label`` (int), ``lit`` (int), ``model`` (hash) and ``threshold``.
    ``by`` says who decided: ``model`` or ``prescreen``. ``weight`` says whether the frame is worth keeping: 0 = not
    kept, 1 = kept for what it is, 1/f = kept as one of a random fraction f of the misses (its sampling weight).
    """

    frame: Frame
    outcome: Outcome
    score: float
    by: str = "model"
    weight: float = 0.0
    found: Mapping[str, Any] = field(default_factory=_nothing)
    count: int = field(default=1, init=False)


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """A message or frame that could not be used, and why. ``reason`` is a short fixed word (a metric's label).

    ``raw`` is what failed: the ``Raw``, or the parts of the message where not even that could be made of it.
    """

    key: Key
    reason: str
    detail: str
    count: int = 1
    raw: object | None = None


@dataclass(frozen=True, slots=True)
class Discard:
    """A frame that was read and deliberately not analysed: ``stale``, ``duplicate``, ``full`` (a queue), ``abort``."""

    key: Key
    reason: str
    count: int = 1


Mark: TypeAlias = RunStart | RunEnd
Incoming: TypeAlias = Raw | Failure | Discard | RunStart | RunEnd


class BadData(Exception):
    """Raised for data that cannot be used; never for a bug.

    ``reason`` is a short fixed word such as ``decompress`` or ``shape`` (it becomes a metric's label); the message
    names the message or file, the field, and the remedy.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
