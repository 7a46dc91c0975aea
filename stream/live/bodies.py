"""Answers that are sent piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .events import Hub, Watcher
from .page import Blob

SLICE = 1 << 16


class Events(StreamingResponse):
    """The stream of events to one browser."""

    def __init__(self, hub: Hub, watcher: Watcher) -> None:
        super().__init__(hub.events(watcher), headers={"X-Accel-Buffering": "no"}, media_type="text/event-stream")
        self._hub = hub
        self._watcher = watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, until the browser goes or the server ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.leave(self._watcher)


class Sent(Response):
    """A blob, sent in slices: given whole, uvicorn would copy it into its buffer for everybody who reads slowly."""

    def __init__(self, blob: Blob, head: bytes, over: Callable[[], None]) -> None:
        headers = {"X-Beamsieve": head.decode("ascii"), "Content-Length": str(len(blob.body))}
        if blob.lasting:
            headers["Cache-Control"] = "private, max-age=86400, immutable"
        super().__init__(None, headers=headers, media_type=blob.kind)
        self._blob = blob.body
        self._over = over

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the head, then the slices, each when the one before has gone out."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for at in range(0, len(self._blob), SLICE):
                part = self._blob[at : at + SLICE]
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0)  # a peer that has gone is heard of between two slices, not within them
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._over()
