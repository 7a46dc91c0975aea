"""Sends recordings again, with their original timing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..recording import Reader, Record
from .servers import Server
from .tally import Pace


@dataclass(slots=True)
class Replayed:
    """What was sent: messages, bytes, seconds; records skipped as damaged, and where reading had to stop."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    loops: int = 0
    damaged: int = 0
    truncated: list[str] = field(default_factory=list)


class _Recorded:
    """Due times from the recorded arrival times, ``speed`` times as fast."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first: int | None = None
        self._began = 0.0

    def wait(self, stop: threading.Event, record: Record) -> None:
        if not self._speed or record.monotonic_ns is None:
            return
        if self._first is None or record.monotonic_ns < self._first:
            self._first, self._began = record.monotonic_ns, time.monotonic()
        due = self._began + (record.monotonic_ns - self._first) / 1e9 / self._speed
        if (ahead := due - time.monotonic()) > 0:
            stop.wait(ahead)


def replay(
    readers: Iterable[Reader],
    server: Server,
    stop: threading.Event,
    speed: float = 1.0,
    rate_hz: float | None = None,
    loop: bool = False,
    progress: Callable[[Replayed], None] = lambda _: None,
) -> Replayed:
    """Send every message of ``readers`` in order. A receiver that is slow is waited for, but not by a pub, which drops.

    ``speed`` 1 keeps the recorded intervals, 0 sends as fast as possible; ``rate_hz`` replaces the recorded times, and
    is the only pace of captures that have none. ``loop`` begins again until ``stop``.
    """
    readers = list(readers)
    began, sent = time.monotonic(), Replayed()
    while not stop.is_set():
        recorded, pace = _Recorded(speed), Pace(rate_hz) if rate_hz else None
        before = sent.messages
        for reader in readers:
            _one(reader, server, stop, pace or recorded, sent, progress)
            if sent.loops == 0:
                sent.damaged += reader.damaged
                sent.truncated += [reader.truncated] if reader.truncated else []
        sent.loops += 1
        sent.seconds = time.monotonic() - began
        if not loop or sent.messages == before:
            break
    return sent


def _one(
    reader: Reader,
    server: Server,
    stop: threading.Event,
    clock: Pace | _Recorded,
    sent: Replayed,
    progress: Callable[[Replayed], None],
) -> None:
    for record in reader:
        if isinstance(clock, Pace):
            clock.wait(stop)
        else:
            clock.wait(stop, record)
        if stop.is_set() or not server.send(record.parts, stop):
            return
        sent.messages += 1
        sent.bytes += sum(map(len, record.parts))
        progress(sent)
