"""What the page's server answers to each address of the page."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .access import SESSION_S, Access, Denied, cookie
from .assets import Asset, read_assets
from .attempts import Pace
from .bodies import Events, Sent
from .connection import Connection
from .events import Full, Hub, Troubles, encode
from .lanes import Busy, Lane
from .limits import Limits
from .page import Blob, Page, Refused
from .requests import read_body, read_query, text_of, word
from .vitals import say

T = TypeVar("T")
HEAD_BYTES = 4096


class Site:
    """The page, its files, and what it asks for."""

    def __init__(
        self,
        page: Page,
        access: Access,
        limits: Limits,
        cookie_name: str,
        troubles: Troubles,
        counts: Counter[str],
    ) -> None:
        self._ticks, self._reads, self._acts = Lane("ticks", 1), Lane("reads", 2), Lane("acts", 1, room=16)
        self.hub = Hub(page, self._ticks, limits, troubles, counts)
        self._counts = counts
        self._troubles = troubles
        self._page = page
        self._access = access
        self._limits = limits
        self._cookie = cookie_name
        self._assets = read_assets()
        self._pace = Pace(time.monotonic, limits.acts_per_s, limits.acts_at_once)
        self._facts: asyncio.Task[bytes] | None = None
        self._facts_made = -float("inf")
        self._sending = 0

    def routes(self) -> list[Route]:
        """All addresses of the page."""
        return [
            Route("/", self.index),
            Route("/static/{path:path}", self.static),
            Route("/live/me", self.me),
            Route("/live/facts", self.facts),
            Route("/live/events", self.events),
            Route("/live/blob/{kind}/{name}", self.blob),
            Route("/live/act/{action}", self.act, methods=["POST"]),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]

    # --- files -------------------------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        """The page itself; it holds no data."""
        return self._asset(request, self._assets.get("index.html"))

    async def static(self, request: Request) -> Response:
        """A file that was there at start."""
        return self._asset(request, self._assets.get(request.path_params["path"]))

    def _asset(self, request: Request, asset: Asset | None) -> Response:
        if asset is None:
            raise Denied(404, "not here")
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache", "Content-Type": asset.kind}
        if asset.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.body, headers=headers)

    # --- people ------------------------------------------------------------------------------------------------

    async def me(self, request: Request) -> Response:
        """Who is asking, and whether a token is needed before anything is shown."""
        name = self._name(request)
        needs = name is None and not self._may_look(request)
        said = {"signed_in": name is not None, "name": name or "", "needs_sign_in": needs}
        return say(200, said | {"beamline": self._page.beamline})

    async def login(self, request: Request) -> Response:
        """The token opens a session, which a cookie holds."""
        self._access.same_site(request.headers)
        body = await read_body(request, self._limits.body)
        token, name = text_of(body, "token"), text_of(body, "name")
        try:
            secret = self._access.sign_in(client(request), token, name)
        except Denied:
            self._counts["sign_ins_refused"] += 1
            raise
        self._access.sign_out(self._secret(request))
        self._counts["signed_in"] += 1
        answer = say(200, {"signed_in": True, "name": self._access.signed_in(secret)})
        self._set_cookie(request, answer, secret, SESSION_S)
        return answer

    async def logout(self, request: Request) -> Response:
        """The session ends."""
        self._access.same_site(request.headers)
        self._access.sign_out(self._secret(request))
        answer = say(200, {"signed_in": False})
        self._set_cookie(request, answer, "", 0)
        return answer

    def _set_cookie(self, request: Request, answer: Response, secret: str, age_s: int) -> None:
        answer.set_cookie(
            self._cookie,
            secret,
            max_age=age_s,
            path="/",
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
        )

    def _secret(self, request: Request) -> str | None:
        return cookie(request.headers.getlist("cookie"), self._cookie)

    def _name(self, request: Request) -> str | None:
        return self._access.signed_in(self._secret(request))

    def _may_look(self, request: Request) -> bool:
        try:
            self._access.look("/live/me", client(request), request.headers.get("authorization", ""), None)
        except Denied:
            return False
        return True

    # --- data --------------------------------------------------------------------------------------------------

    async def facts(self, request: Request) -> Response:
        """All that a browser needs when it comes; made at most about once a second for all of them."""
        self._access.not_foreign(request.headers)
        now = time.monotonic()
        if self._facts is None or self._facts_made < max(self.hub.looked, now - self._limits.tick_s):
            self._facts_made = now
            self._facts = asyncio.create_task(self._reads.do(lambda: encode(self._page.facts())))
        body = await self._asked("facts", self._facts)
        return Response(body, media_type="application/json")

    async def events(self, request: Request) -> Response:
        """The stream of events."""
        self._access.not_foreign(request.headers)
        if request.method != "GET":
            raise Denied(405, "GET only")
        try:
            watcher = self.hub.join(request.headers.get("last-event-id", ""), self._may_go_on(request))
        except Full as error:
            raise Denied(503, str(error), 30) from None
        connection = request.scope["state"]["connection"]
        assert isinstance(connection, Connection)
        connection.small_buffer()
        return Events(self.hub, watcher)

    def _may_go_on(self, request: Request) -> Callable[[], bool]:
        secret = self._secret(request)
        if self._access.loopback or self._access.signed_in(secret) is None:
            return lambda: True
        return lambda: self._access.signed_in(secret) is not None

    async def blob(self, request: Request) -> Response:
        """An array or a picture that is fetched when somebody wants to see it."""
        self._access.not_foreign(request.headers)
        kind, name = word(request.path_params["kind"]), word(request.path_params["name"])
        query = read_query(request)
        if self._sending >= self._limits.bodies:
            raise Denied(503, "too many pictures are under way; ask again in a moment", 1)
        self._sending += 1
        try:
            found = await self._asked(f"blob {kind}", self._reads.do(lambda: self._fetch(kind, name, query)))
            if found is None:
                raise Denied(404, "no longer kept, or never there")
        except BaseException:
            self._sending -= 1
            raise
        return Sent(*found, self._sent)

    def _fetch(self, kind: str, name: str, query: dict[str, str]) -> tuple[Blob, bytes] | None:
        found = self._page.blob(kind, name, query)
        if found is None:
            return None
        head = encode(dict(found.head))
        if len(head) > HEAD_BYTES:
            raise ValueError(f"its head has {len(head)} bytes; at most {HEAD_BYTES} go")
        return found, head

    def _sent(self) -> None:
        self._sending -= 1

    async def act(self, request: Request) -> Response:
        """A signed-in person changes something."""
        self._access.same_site(request.headers)
        secret = self._secret(request)
        name = self._access.signed_in(secret)
        if secret is None or name is None:
            raise Denied(401, "sign in first")
        if not self._pace.take(secret):
            raise Denied(429, "too often; wait a moment", 1)
        action = word(request.path_params["action"])
        body = await read_body(request, self._limits.body)
        self._counts["acts"] += 1
        try:
            done = await self._asked(f"act {action}", self._acts.do(lambda: encode(self._page.act(action, body, name))))
        except Denied:
            self._counts["acts_refused"] += 1
            raise
        return Response(done, media_type="application/json")

    async def _asked(self, what: str, answer: Awaitable[T]) -> T:
        try:
            result = await answer
        except Refused as error:
            raise Denied(409, str(error)) from None
        except Busy as error:
            raise Denied(503, str(error), 1) from None
        except Exception as error:
            raise Denied(500, self._troubles.add(what, error)) from None
        self._troubles.over(what)
        return result

    def close(self) -> None:
        """Let go of everybody. Called in the event loop."""
        self.hub.end()
        for lane in (self._ticks, self._reads, self._acts):
            lane.close()


def client(request: Request) -> str:
    """The address of the peer; what proxies say of others is not believed."""
    return request.client.host if request.client is not None else ""
