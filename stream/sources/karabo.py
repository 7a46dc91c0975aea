"""karabo-bridge, European XFEL's ZeroMQ stream of trains: REQ/REP, PUB/SUB and PUSH/PULL, all protocol versions.

A bridge that answers requests (REP) gives every train to one client only: a second client, also a forgotten one, takes
trains away from the first, which shows as ``missing`` numbers. PUB drops trains silently when we are slow, REP sends
only what is asked for. Nothing on the wire says that a run is over (see ``runs.RunClock``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from ..flow.frame import BadData, Discard, Failure, Incoming, Key, Raw, RunEnd, RunStart
from ..flow.ports import Facts
from .axes import extent
from .receiver import Receiver
from .runs import RunClock
from .train_settings import TrainSettings
from .trains import Reading, TrainReader, value_of
from .wire.karabo import Part, Train, decode

log = logging.getLogger(__name__)

_MOST_RUNS = 1 << 31


class KaraboSettings(TrainSettings):
    """A karabo-bridge, and the detector in its trains."""

    kind: Literal["karabo"] = Field(default="karabo", description="karabo-bridge")
    pattern: Literal["req", "sub", "pull"] = Field(
        default="req", description="our side of the socket pair: req (server REP), sub (PUB) or pull (PUSH)"
    )
    hwm: int = Field(default=2, ge=1, description="trains ZeroMQ may hold for us; each can be over a gigabyte")
    train_step: int = Field(default=1, ge=1, description="train ids between two trains that are sent; 10 Hz: 1")
    idle_s: float = Field(default=30.0, gt=0, description="the run is over when no train came for so long")
    request_timeout_s: float = Field(
        default=60.0, gt=0, description="ask again when a request stays unanswered; a short time loses trains (req)"
    )
    run_source: str | None = Field(default=None, description="source that says the run number, if the bridge sends it")
    run_key: str = Field(default="runDetails.runId.value", description="property of run_source with the run number")

    @model_validator(mode="after")
    def _asking_connects(self) -> KaraboSettings:
        if self.bind and self.pattern == "req":
            raise ValueError("bind: a req socket connects to the bridge: set bind to false, or pattern to pull or sub")
        return self


def _shot_shape(reading: Reading) -> tuple[int, ...]:
    """(y, x) or (module, y, x) of one shot."""
    extents = (extent(word, reading.axes, reading.image.shape) for word in ("module", "ss", "fs"))
    return tuple(n for n in extents if n is not None)


class KaraboSource:
    """The karabo-bridge as a ``Source``. ``feed`` is the whole of it but the socket, for replays and tests."""

    def __init__(self, settings: KaraboSettings, facts: Facts) -> None:
        self._settings, self._facts = settings, facts
        self._reader = TrainReader(settings)
        self._clock = RunClock(settings.train_step, settings.idle_s)
        self._receiver = Receiver(settings, settings.pattern, facts, settings.request_timeout_s)
        self._warned = False

    def open(self) -> None:
        """Connect (or bind), and ask for the first train. Raises ``OSError`` with endpoint and remedy."""
        self._receiver.open()

    def read(self, timeout: float) -> Sequence[Incoming]:
        """Trains that came within ``timeout`` seconds, or the end of a run that fell silent. Never None."""
        found: list[Incoming] = []
        for message in self._receiver.receive(timeout):
            found += self.feed(*message)
        if not found and (run := self._clock.silent(time.monotonic())):
            found.append(RunEnd(run, "idle"))
        return found

    def feed(self, parts: Sequence[Part], arrived: float, wall: float) -> list[Incoming]:
        """Read one message that ``arrived`` (monotonic s, ``wall`` in s since 1970). Never raises for its content."""
        found: list[Incoming] = []
        if run := self._clock.silent(arrived):
            found.append(RunEnd(run, "idle"))
        try:
            train = decode(parts, self._wanted)
            if not any(map(self._reader.is_detector, train.names)):
                self._foreign(train)
                return found
            train_id = self._reader.train_id(train)
            if train_id is None:
                raise BadData("train_id", f"{self._settings.source}: no train id in metadata or image.trainId")
        except BadData as bad:
            found.append(Failure(Key(self._clock.run, -1), bad.reason, bad.detail, raw=tuple(parts)))
            return found
        return found + self._sorted(train, train_id, parts, arrived, wall)

    def finish(self) -> list[Incoming]:
        """The end of the open run, where nothing more will ever come (a replay)."""
        run = self._clock.finish()
        return [RunEnd(run)] if run else []

    def done(self, keys: Sequence[Key]) -> None:
        """A stream keeps no record of what was done."""

    def close(self) -> None:
        """Close socket and context."""
        self._receiver.close()

    def _wanted(self, source: str) -> bool:
        return source == self._settings.run_source or self._reader.wanted(source)

    def _sorted(
        self, train: Train, train_id: int, parts: Sequence[Part], arrived: float, wall: float
    ) -> list[Incoming]:
        """The train with the marks of its run, or why it is not to be used."""
        reading: Reading | None = None
        bad: BadData | None = None
        try:
            reading = self._reader.read(train, train_id)
        except BadData as error:
            bad = error
        if bad is not None and not self._clock.run:
            return [Failure(Key("", train_id), bad.reason, bad.detail, raw=tuple(parts))]
        found = self._marks(train, train_id, reading, arrived, wall)
        key = Key(self._clock.run, train_id)
        if found is None:
            return [Discard(key, "duplicate", reading.count if reading else 1)]
        if reading is not None and reading.count:
            r = reading
            found.append(Raw(key, r.image, arrived, wall, r.count, r.pulses, r.mask, r.info, tuple(parts)))
        elif reading is not None:
            self._facts.event("no_pulses")
        elif bad is not None:
            found.append(Failure(key, bad.reason, bad.detail, raw=tuple(parts)))
        return found

    def _marks(
        self, train: Train, train_id: int, reading: Reading | None, arrived: float, wall: float
    ) -> list[Incoming] | None:
        """What the train's number says of the run; None for a train that came before."""
        before = self._clock.run
        seen = self._clock.see(train_id, arrived, wall, self._run_number(train))
        if seen.duplicate:
            return None
        if seen.missing:
            self._facts.event("missing", seen.missing)
        if seen.late:
            self._facts.event("late")
        if seen.ended == "aborted":
            self._facts.event("restart")
        found: list[Incoming] = [RunEnd(before, seen.ended)] if seen.ended else []
        if seen.opened:
            found.append(RunStart(self._clock.run, self._described(reading)))
        return found

    def _described(self, reading: Reading | None) -> dict[str, Any]:
        info: dict[str, Any] = {"source": self._settings.source, "first_train_timestamp": None}
        if reading is not None:
            info |= {
                "first_train_timestamp": reading.info["timestamp"],
                "axes": reading.axes,
                "image_size": _shot_shape(reading),
                "train_shape": reading.image.shape,
                "dtype": reading.image.dtype.str,
            }
        return info

    def _run_number(self, train: Train) -> int | None:
        if self._settings.run_source is None:
            return None
        number = value_of(train, self._settings.run_source, self._settings.run_key)
        return int(number) if isinstance(number, int | float) and 0 <= number < _MOST_RUNS else None

    def _foreign(self, train: Train) -> None:
        self._facts.event("foreign")
        if not self._warned:
            self._warned = True
            there = ", ".join(train.names)[:500] or "none"
            log.warning("no source in the train matches %r; it holds: %s", self._settings.source, there)
