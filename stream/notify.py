"""Telling the service manager how the daemon is: the protocol of ``sd_notify(3)``, without its library.

systemd sets ``NOTIFY_SOCKET`` for units of ``Type=notify``, and ``WATCHDOG_USEC`` where they have ``WatchdogSec=``.
Without them every call does nothing, so the daemon need not know who started it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from .flow.ledger import Tally

log = logging.getLogger(__name__)

LONGEST_STATUS = 400


class Notifier:
    """Sends READY, STATUS, WATCHDOG and STOPPING to the service manager, if there is one.

    ``living`` says whether the daemon still does its work; the watchdog is fed only while it does, at half the
    manager's period, from a thread of its own that ``ready`` starts: a caller that waits (draining, loading a model)
    must not look dead, and a process whose interpreter hangs cannot feed it. ``environ`` is the environment to read.
    """

    def __init__(self, living: Callable[[], bool] = lambda: True, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._living = living
        self._address = address(environ.get("NOTIFY_SOCKET", ""))
        self.beat_s = period(environ) / 2 if self._address else 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = ""
        self._starved = self._leaving = False
        self._failed = False

    def ready(self) -> None:
        """The daemon runs: what was ordered after it may start, and from now on the watchdog wants to be fed."""
        self._send("READY=1")
        if self.beat_s and self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="watchdog", daemon=True)
            self._thread.start()

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; sent when it changed."""
        line = " ".join(text.split())[:LONGEST_STATUS]
        if line != self._said:
            self._said = line
            self._send(f"STATUS={line}")

    def alive(self) -> bool:
        """Feed the watchdog if the daemon lives; whether it does."""
        living = self._living()
        if living:
            self._send("WATCHDOG=1")
        elif not self._starved and not self._leaving:
            log.error("the pipeline does nothing any more: the watchdog is not fed, and the manager will restart us")
        self._starved = not living
        return living

    def stopping(self) -> None:
        """The daemon is about to end: the manager's patience is ``TimeoutStopSec=`` from now on."""
        self._leaving = True
        self._send("STOPPING=1")

    def close(self) -> None:
        """Feed no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _beat(self) -> None:
        while not self._over.wait(self.beat_s):
            self.alive()

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            # Never blocks: a manager that does not read must not hold the daemon up.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("NOTIFY_SOCKET: the service manager does not take what we say: %s", error.strerror)
            self._failed = True


class Progress:
    """Whether work still ends: the ``living`` of a pipeline, called now and then from one thread.

    A stage that hangs (a device that answers no more, a library's deadlock) is a living thread, and a first queue that
    drops its oldest still counts. So: not living when frames are in flight and none was judged or failed for
    ``patience_s`` seconds. ``tally`` gives the ledger, ``running`` whether the threads run, ``now`` monotonic seconds.
    """

    def __init__(
        self,
        tally: Callable[[], Tally],
        patience_s: float = 300.0,
        running: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally, self._patience_s, self._running, self._now = tally, patience_s, running, now
        self._ended, self._since = -1, now()

    def __call__(self) -> bool:
        """Whether the daemon still does its work."""
        tally = self._tally()
        ended = tally.accepted + tally.rejected + tally.failed
        if ended != self._ended or tally.in_flight == 0:
            self._ended, self._since = ended, self._now()
        return self._running() and self._now() - self._since <= self._patience_s


def address(name: str) -> str:
    """The socket's address of ``NOTIFY_SOCKET``: a path, or ``@name`` in the abstract namespace; "" where none is."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def period(environ: Mapping[str, str]) -> float:
    """Seconds within which the manager wants a sign of life of this very process; 0 where it wants none."""
    meant = environ.get("WATCHDOG_PID", "")
    if meant and meant != str(os.getpid()):
        return 0.0
    try:
        return max(0, int(environ.get("WATCHDOG_USEC", "0"))) / 1e6
    except ValueError:
        return 0.0
