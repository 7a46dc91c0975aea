"""What holds for every request: its size, the host it names, who may look, the headers of every answer, no traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from .access import Access, Denied, cookie
from .events import Troubles
from .lanes import Busy
from .limits import Limits
from .vitals import say

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Sent with every answer."""
VITALS = ("/metrics", "/readyz")
SHELL = ("/", "/login", "/logout", "/live/me")
ELSEWHERE = "not here; try /metrics, /healthz or /readyz"


class Guard:
    """The ASGI application: looks at a request before any address is looked up, and at every answer."""

    def __init__(
        self,
        routes: Sequence[Route],
        access: Access,
        limits: Limits,
        cookie_name: str,
        troubles: Troubles,
        counts: Counter[str],
    ) -> None:
        self._router = Router(routes, redirect_slashes=False, default=_nowhere)
        self._access = access
        self._limits = limits
        self._cookie = cookie_name
        self._troubles = troubles
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        begun = False

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(raw=message["headers"])
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope)
            await self._router({**scope, "app": self}, receive, dressed)
        except ClientDisconnect:
            return
        except Exception as error:
            if begun:
                raise
            await self._explained(error, scope)(scope, receive, dressed)

    def _check(self, scope: Scope) -> None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > self._limits.url:
            raise Denied(414, f"the address is too long: at most {self._limits.url} characters")
        # h11 minds the size of what is incomplete only: a large head that comes at once would pass it.
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._limits.head:
            raise Denied(431, f"too many headers: at most {self._limits.head} bytes")
        path = scope["path"]
        if path == "/healthz":
            return
        headers = Headers(scope=scope)
        if not self._access.host_allowed(headers.get("host", "")):
            raise Denied(403, "Host: the daemon does not go by this name; add it to service.names if it should")
        if path in SHELL or path.startswith("/static/"):
            return
        name = self._access.signed_in(cookie(headers.getlist("cookie"), self._cookie))
        client = scope["client"][0] if scope.get("client") else ""
        self._access.look(path, client, headers.get("authorization", ""), name)

    def _explained(self, error: Exception, scope: Scope) -> Response:
        self._counts["refused"] += 1
        if isinstance(error, HTTPException):
            text = ELSEWHERE if error.status_code == 404 else str(error.detail)
            return say(error.status_code, {"error": text}, dict(error.headers or {}))
        if isinstance(error, Denied):
            extra = {"Retry-After": f"{max(1, round(error.wait_s))}"} if error.wait_s else {}
            if error.status == 401:
                extra["WWW-Authenticate"] = "Bearer"
            return say(error.status, {"error": str(error)}, extra)
        if isinstance(error, Busy):
            return say(503, {"error": str(error)}, {"Retry-After": "1"})
        what = scope["path"] if scope["path"] in VITALS else "a request"
        return say(500, {"error": self._troubles.add(what, error)})


async def _nowhere(_: Scope, _receive: Receive, _send: Send) -> None:
    raise Denied(404, ELSEWHERE)
