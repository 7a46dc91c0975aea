"""Recorded messages as a source, without a socket: what a daemon made of a stream can be made again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field

from ..errors import plain
from ..flow.frame import BadData, Incoming, Key, Raw
from ..flow.ports import Facts
from ..flow.settings import Place, Settings
from ..recording import Reader, Record
from .dectris import Assembler, DectrisSettings
from .karabo import KaraboSettings, KaraboSource

log = logging.getLogger(__name__)

_MOST_MESSAGES = 64
_MOST_BYTES = 64 * 10**6


class Feed(Protocol):
    """A stream's decoder without its socket."""

    def feed(self, parts: Sequence[memoryview], arrived: float, wall: float) -> list[Incoming]:
        """What one message amounts to; ``arrived`` is monotonic, ``wall`` since 1970, in seconds."""

    def finish(self) -> list[Incoming]:
        """What the end of everything amounts to."""


class RecordedDectris(DectrisSettings):
    """A DECTRIS detector's stream that was recorded."""

    endpoint: str = Field("", description="where the messages came from; not opened, may be left out")


class RecordedKarabo(KaraboSettings):
    """A karabo-bridge's stream that was recorded."""

    endpoint: str = Field("", description="where the messages came from; not opened, may be left out")


class ReplaySettings(Settings):
    """Recordings instead of a live stream."""

    kind: Literal["replay"] = Field(default="replay", description="recorded messages")
    files: tuple[Path, ...] = Field(
        min_length=1,
        description="recordings (beamsieve record) or .cbors captures",
    )
    speed: float = Field(
        default=0.0, ge=0, description="1: as it was recorded, 2: twice as fast, 0: as fast as possible"
    )
    stream: Annotated[RecordedDectris | RecordedKarabo, Field(discriminator="kind")] = Field(
        description="the source whose messages these are, as it was configured live; without its endpoint"
    )

    def at(self, base: Path) -> Self:
        """The same with relative names of files starting at ``base``, the folder of the configuration."""
        return self.model_copy(update={"files": tuple(base / file for file in self.files)})

    def mistakes(self) -> list[tuple[Place, str]]:
        """What is wrong with the files that are named: which setting, and why."""
        found: list[tuple[Place, str]] = []
        for number, file in enumerate(self.files):
            try:
                Reader(file)
            except (OSError, BadData) as error:
                found.append((("files", number), f"{plain(error)}; name a file that beamsieve record wrote"))
        return found


class ReplaySource:
    """Recordings as a ``Source``. The runs, gaps and idle times are those of the recording, whatever the speed.

    ``feed`` makes the messages of the recorded time; ``arrived`` of what comes out is the time of the replay, so that
    latencies are those of this daemon. Files are read one message at a time. Messages without times (``.cbors``)
    count as one millisecond apart.
    """

    def __init__(self, settings: ReplaySettings, facts: Facts) -> None:
        self._files, self._speed, self._facts = settings.files, settings.speed, facts
        self._feed = _feed_of(settings.stream, facts)
        self._records: Iterator[Record] = iter(())
        self._next: Record | None = None
        self._began = self._first = self._last = 0.0
        self._done = False

    def open(self) -> None:
        """Check every file. Raises ``OSError``, and ``BadData`` for a file that is no recording."""
        self._records = self._all([Reader(path) for path in self._files])
        self._began = time.monotonic()
        self._advance()
        self._first = self._last

    def read(self, timeout: float) -> Sequence[Incoming] | None:
        """What the next messages amount to; None after the last. Waits where the recorded pace says so."""
        if self._next is None:
            return self._finish()
        if (wait := self._wait()) > 0:
            time.sleep(min(wait, timeout))
            if wait > timeout:
                return []
        found: list[Incoming] = []
        size = 0
        for _ in range(_MOST_MESSAGES):
            if self._next is None or size > _MOST_BYTES or self._wait() > 0:
                break
            size += sum(map(len, self._next.parts))
            found += self._take(self._next)
            self._advance()
        return found

    def done(self, keys: Sequence[Key]) -> None:
        """A recording stays as it is."""

    def close(self) -> None:
        """Files are closed as soon as they are read."""

    def _all(self, readers: Sequence[Reader]) -> Iterator[Record]:
        for reader in readers:
            yield from reader
            if reader.truncated:
                log.warning("%s", reader.truncated)
                self._facts.event("truncated")
            if reader.damaged:
                self._facts.event("damaged", reader.damaged)

    def _advance(self) -> None:
        self._next = next(self._records, None)
        if self._next is not None:
            recorded = self._next.monotonic_ns
            self._last = self._last + 1e-3 if recorded is None else recorded / 1e9

    def _wait(self) -> float:
        if not self._speed:
            return 0.0
        return self._began + (self._last - self._first) / self._speed - time.monotonic()

    def _take(self, record: Record) -> list[Incoming]:
        now, wall = time.monotonic(), time.time() if record.wall_ns is None else record.wall_ns / 1e9
        found = self._feed.feed([memoryview(part) for part in record.parts], self._last, wall)
        return [replace(item, arrived=now) if isinstance(item, Raw) else item for item in found]

    def _finish(self) -> list[Incoming] | None:
        if self._done:
            return None
        self._done = True
        return self._feed.finish() or None


class _DectrisFeed:
    """DECTRIS's assembler as a ``Feed``."""

    def __init__(self, settings: DectrisSettings, facts: Facts) -> None:
        self._assembler, self._idle_s = Assembler(settings, facts), settings.series_idle_s
        self._heard: float | None = None

    def feed(self, parts: Sequence[memoryview], arrived: float, wall: float) -> list[Incoming]:
        found: list[Incoming] = []
        if self._heard is not None and arrived - self._heard > self._idle_s:
            found += self._assembler.idle(arrived)
        self._heard = arrived
        self._assembler.take(parts, arrived, wall, found)
        return found

    def finish(self) -> list[Incoming]:
        return self._assembler.idle(self._heard or 0.0)


def _feed_of(stream: DectrisSettings | KaraboSettings, facts: Facts) -> Feed:
    return KaraboSource(stream, facts) if isinstance(stream, KaraboSettings) else _DectrisFeed(stream, facts)
