"""Writes what a stream sends into a recording, message by message, without understanding any of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..recording import Writer
from .receiver import Receiver

_WAIT_S = 0.2


@dataclass(slots=True)
class Recorder:
    """From an open ``receiver`` to a ``writer``, until told to stop. Memory holds what one ``receive`` gives."""

    receiver: Receiver
    writer: Writer

    def run(
        self,
        stop: threading.Event,
        seconds: float | None = None,
        messages: int | None = None,
        progress: Callable[[Writer], None] = lambda _: None,
    ) -> None:
        """Record until ``stop`` is set, ``seconds`` have passed, or ``messages`` are written.

        After each batch everything is with the operating system, so a kill costs at most the batch under way.
        ``progress`` is called after every batch, at least five times a second. Raises ``OSError`` on a full disk.
        """
        began = time.monotonic()
        while not stop.is_set() and (seconds is None or time.monotonic() - began < seconds):
            for message in self.receiver.receive(_WAIT_S):
                self.writer.write(message.parts, int(message.arrived * 1e9), int(message.wall * 1e9))
                if messages is not None and self.writer.messages >= messages:
                    stop.set()
                    break
            self.writer.flush()
            progress(self.writer)
