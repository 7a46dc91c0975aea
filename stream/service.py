"""A daemon's life: signals, readiness, the grace period, the exit code, the page and /metrics /healthz /readyz.

Exit codes: 0 drained, 1 a bug or a resource that is not there, 2 a wrong configuration (decided before it gets here).
"""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from .errors import plain
from .flow.frame import BadData
from .flow.life import ServiceSettings
from .flow.metrics import Metrics
from .flow.pipeline import Pipeline
from .live.access import Access, is_loopback, token_in
from .live.page import Page
from .live.server import LiveServer
from .notify import Notifier, Progress

log = logging.getLogger(__name__)

DRAINED, BROKEN, WRONG_CONFIG = 0, 1, 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES, LARGEST_KEPT_BYTES = 1 << 29, 1 << 25


class Readiness:
    """Decides whether the daemon is ready to be relied on, and says why not.

    Ready only after warm-up; not ready while the share of failed frames lately is over its limit, while the source is
    silent for too long, or while a sink cannot keep what it is given. ``now`` is a monotonic clock, seconds; ``where``
    says what the source listens to.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: ServiceSettings,
        sinks_say: Callable[[], str | None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
        where: str = "",
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._sinks_say = sinks_say
        self._now = now
        self._where = f", {where}" if where else ""
        self._past: deque[tuple[float, int, int]] = deque([(now(), 0, 0)])
        self._lock = threading.Lock()

    def problems(self) -> list[str]:
        """Why not ready; empty when ready."""
        if not self._pipeline.warm:
            return ["warming up: the model has not run yet"]
        if self._pipeline.finished.is_set():
            return ["stopped"]
        found = []
        silent = self._now() - self._pipeline.metrics.last_read
        # While a person has paused it, a folder gives nothing on purpose.
        if silent > self._settings.silent_s and not self._pipeline.metrics.operation.is_paused:
            found.append(f"source silent for {silent:.0f} s (limit {self._settings.silent_s:g} s){self._where}")
        failed, read = self._lately()
        if read >= self._settings.failure_least and failed > self._settings.failure_limit * read:
            reasons = self._pipeline.metrics.tally().failures
            worst = max(reasons, key=lambda reason: reasons[reason])
            found.append(
                f"{failed} of the last {read} frames failed (limit {self._settings.failure_limit:.1%}), mostly {worst}"
            )
        said = self._sinks_say()
        return [*found, said] if said else found

    def _lately(self) -> tuple[int, int]:
        tally = self._pipeline.metrics.tally()
        now = self._now()
        with self._lock:
            if now - self._past[-1][0] >= 1:
                self._past.append((now, tally.failed, tally.read))
            while len(self._past) > 1 and self._past[1][0] <= now - self._settings.failure_window_s:
                self._past.popleft()
            _, failed, read = self._past[0]
        return tally.failed - failed, tally.read - read


def open_server(
    settings: ServiceSettings,
    metrics: Metrics,
    problems: Callable[[], list[str]],
    page: Page | None,
    token: Path | None,
) -> LiveServer:
    """The page, /metrics, /healthz and /readyz. Raises ``OSError`` with the remedy.

    The token is read, or made, where anything needs it: the page, and any address but this machine's own.
    """
    secret = ""
    if token is not None and (page is not None or not is_loopback(settings.host)):
        token.parent.mkdir(parents=True, exist_ok=True)
        secret = token_in(token)
    access = Access(
        host=settings.host,
        token=secret,
        names=settings.names,
        open_metrics=settings.open_metrics,
    )
    server = LiveServer(
        host=settings.host, port=settings.port, metrics=metrics, problems=problems, page=page, access=access
    )
    metrics.operation.clients = lambda: server.clients
    return server


@contextmanager
def signals(stop: threading.Event, hurry: Callable[[], None], *, leaving: bool = False) -> Iterator[None]:
    """While inside, SIGTERM and SIGINT set ``stop``, and a second Ctrl-C, a second or more later, calls ``hurry``.

    Repeated SIGTERMs do nothing more: ``timeout`` and process managers may send it to the process and to its group.
    ``leaving`` is for a process that ends after this: once asked to, it hears nothing more until it is gone, or the
    repetition would kill it with its summary half written.
    """
    first, asked = 0.0, False

    def heard(number: int, _: FrameType | None) -> None:
        nonlocal first, asked
        asked = True
        if not stop.is_set():
            first = time.monotonic()
            stop.set()
        elif number == signal.SIGINT and time.monotonic() - first > 1:
            # In a thread: the one that was interrupted may hold a lock that this needs.
            threading.Thread(target=hurry, name="hurry", daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, heard)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_IGN if leaving and asked else handler)


def serve(
    pipeline: Pipeline,
    settings: ServiceSettings,
    *,
    stop: threading.Event | None = None,
    sinks_say: Callable[[], str | None] = lambda: None,
    show: Callable[[Pipeline, Sequence[str]], None] | None = None,
    show_s: float = 1.0,
    ready: Callable[[int], None] | None = None,
    where: str = "",
    listens: bool = True,
    page: Page | None = None,
    token: Path | None = None,
) -> int:
    """Run a pipeline as a daemon until its source ends or a signal comes; returns the exit code.

    ``show`` is called every ``show_s`` seconds with what keeps the daemon from being ready; ``ready`` once, with the
    port, when the daemon runs. ``where`` says what the source listens to. ``listens``: to signals; a caller that does
    so itself (``signals``) says False. ``page``: what the browser shows, beside the metrics; ``token``: the file with
    what opens it to changes.
    """
    stop = stop or threading.Event()
    readiness = Readiness(pipeline, settings, sinks_say, where=where)
    pipeline.metrics.problems = readiness.problems
    try:
        server = open_server(settings, pipeline.metrics, readiness.problems, page, token)
    except OSError as error:
        log.error("%s", plain(error))
        return BROKEN
    working = Progress(pipeline.metrics.tally, running=lambda: not pipeline.finished.is_set())
    try:
        with signals(stop, pipeline.abort) if listens else nullcontext(), Notifier(working) as manager:
            try:
                pipeline.start()
            except (OSError, BadData) as error:
                log.error("%s", plain(error))
                return BROKEN
            steady_memory()
            log.info("running; %s on http://%s:%d/", "page" if page else "metrics", settings.host, server.port)
            if ready:
                ready(server.port)
            manager.ready()

            def say() -> None:
                problems = readiness.problems()
                manager.status("; ".join(problems) or "ready")
                if show:
                    show(pipeline, problems)

            _until_over(pipeline, stop, say, show_s)
            manager.stopping()
            _drain(pipeline, settings.grace_s)
        left = pipeline.settle()
        if left:
            log.warning("%d frames were in flight and are counted as dropped (abort)", left)
        return BROKEN if pipeline.error else DRAINED
    finally:
        server.close()


def steady_memory() -> None:
    """Settle the process's memory for a steady stream, once everything is loaded.

    Python looks for cycles of garbage rarely, and never among what was there before the first shot: shots are no
    cycles, and are freed as soon as nobody has them, but looking for cycles among the thousands that wait in queues,
    and in all of torch, took a quarter of the daemon's time. The C library keeps what frames were in for the next ones,
    instead of giving it back and having every page cleared again (glibc only; others are left as they are).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)


def _until_over(pipeline: Pipeline, stop: threading.Event, show: Callable[[], None], show_s: float) -> None:
    # One event ends the waiting, whoever sets it: a signal, or the pipeline's own end.
    def watch() -> None:
        pipeline.wait()
        stop.set()

    threading.Thread(target=watch, name="watch", daemon=True).start()
    while not stop.wait(show_s):
        show()
    show()


def _drain(pipeline: Pipeline, grace_s: float) -> None:
    pipeline.stop()
    if pipeline.wait(0.75 * grace_s):
        return
    in_flight = pipeline.metrics.tally().in_flight
    log.warning("grace period: aborting with %d frames in flight after %g s", in_flight, 0.75 * grace_s)
    pipeline.abort()
    if not pipeline.wait(0.25 * grace_s):
        log.error("a stage did not end within the grace period; its files were flushed at most a second before")
