"""One connection of the page's server, with the time limits that uvicorn does not have."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits

LEAST_TAKEN = 1 << 15  # bytes a slow reader must take within ``stalled_s``
SEND_BUFFER = 1 << 16
HIGH_WATER = 1 << 14


class Connection(H11Protocol):
    """HTTP/1.1 that gives up on a peer which does not finish its request or does not read its answer.

    uvicorn limits the time between requests only: a peer that connects and says nothing, or a letter an hour, would
    hold a connection for good, and one that never reads would hold the answer in memory.
    """

    limits: ClassVar[Limits]
    counts: ClassVar[Counter[str]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {"connection": self}
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._give_up("connections_refused")
        else:
            self._expect()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._expect()
        elif self._late is not None:
            self._late.cancel()
            self._late = None

    def on_response_complete(self) -> None:
        """See H11Protocol; what came with the last request may be the beginning of another."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def small_buffer(self) -> None:
        """Keep little of what was not read yet: what is shown is to be new, and a stall to be seen."""
        self.transport.set_write_buffer_limits(HIGH_WATER)
        peer = self.transport.get_extra_info("socket")
        with suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.limits.request_s, self._give_up, "requests_late")

    def _watch(self, size: int) -> None:
        self._stalled = self.loop.call_later(self.limits.stalled_s, self._judge, size)

    def _judge(self, before: int) -> None:
        size = self.transport.get_write_buffer_size()
        if size > before - LEAST_TAKEN:
            self._give_up("readers_stalled")
        else:
            self._watch(size)

    def _give_up(self, why: str) -> None:
        self.counts[why] += 1
        self.transport.abort()


def connection_type(limits: Limits, counts: Counter[str]) -> type[Connection]:
    """``Connection`` with these limits, counting what it gives up (uvicorn makes one itself for every peer)."""
    return type("Connection", (Connection,), {"limits": limits, "counts": counts})
