"""The daemon's HTTP server: the live page, /metrics, /healthz and /readyz on one port, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..flow.metrics import Metrics
from .access import Access
from .answers import Site
from .connection import connection_type
from .events import Troubles
from .guard import Guard
from .lanes import Lane
from .limits import Limits
from .page import Page
from .vitals import Vitals

log = logging.getLogger(__name__)

START_S = 10.0
GOODBYE_S = 0.3  # for answers that are under way when the server closes
CLOSE_S = 5.0
COUNTED = (
    "signed_in",
    "sign_ins_refused",
    "acts",
    "acts_refused",
    "browsers_refused",
    "pictures_missed",
    "refused",
    "connections_refused",
    "requests_late",
    "readers_stalled",
)


class Logged(logging.Handler):
    """Passes on what uvicorn reports as an error; its warnings only tell of malformed requests."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        log.handle(record)


class LiveServer:
    """Listens at ``host:port`` (0 takes a free one) until closed.

    ``problems``: why the daemon is not ready, empty when it is. ``page``: what is shown; without one there are only
    /metrics, /healthz and /readyz. Raises OSError, naming the remedy, when it cannot listen.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        metrics: Metrics,
        problems: Callable[[], list[str]],
        page: Page | None,
        access: Access,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or Limits()
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._vitals = Lane("vitals", 2)
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        troubles = Troubles()
        cookie = f"beamsieve_{self.port}"  # cookies do not know of ports: two daemons would take each other's away
        self._site = Site(page, access, limits, cookie, troubles, self._counts) if page is not None else None
        routes = Vitals(metrics, problems, self._vitals).routes()
        routes += self._site.routes() if self._site is not None else [Route("/", _no_page)]
        guard = Guard(routes, access, limits, cookie, troubles, self._counts)
        self._uvicorn = uvicorn.Server(_configuration(guard, limits, self._counts))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="page-http", daemon=True)
        self._thread.start()
        self._wait()

    @property
    def clients(self) -> int:
        """Browsers that watch now."""
        return len(self._site.hub) if self._site is not None else 0

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each of ``COUNTED`` happened."""
        return dict(self._counts)

    def close(self) -> None:
        """Stop answering: within a second, whoever is connected."""
        if self._thread.is_alive() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(CLOSE_S)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("the page's server ended by a bug")

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_report)
        ticker = asyncio.create_task(self._site.hub.run()) if self._site is not None else None
        try:
            await self._uvicorn.serve(sockets=[self._socket])
        finally:
            if ticker is not None:
                ticker.cancel()

    def _end(self) -> None:
        assert self._loop is not None
        self._vitals.close()
        if self._site is not None:
            self._site.close()
        self._uvicorn.should_exit = True
        self._loop.call_later(GOODBYE_S, self._abort)

    def _abort(self) -> None:
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while not self._uvicorn.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                self._socket.close()
                raise RuntimeError("the page's server did not start; the log says why")
            time.sleep(0.005)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError, naming the remedy, when there cannot be one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio would not switch Nagle's delay off, and every answer would take 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise OSError(
            f"service.port: cannot listen on {host}:{port}: {error.strerror}; "
            "is another daemon running? choose another port (0 takes a free one)"
        ) from None
    return found


def _configuration(guard: Guard, limits: Limits, counts: Counter[str]) -> uvicorn.Config:
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.handlers, uvicorn_log.propagate = [Logged()], False
    uvicorn_log.setLevel(logging.ERROR)
    return uvicorn.Config(
        guard,
        http=connection_type(limits, counts),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.idle_s,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=limits.head,
    )


async def _no_page(_: Request) -> Response:
    return PlainTextResponse("beamsieve runs here, without a page; see /metrics, /healthz and /readyz\n")


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("live page: %s", context.get("message"), exc_info=context.get("exception"))
