"""Receives raw messages over any client socket: pull, sub, or req with one request always under way."""

from __future__ import annotations

import time
from typing import NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from ..flow.ports import Facts
from ..flow.turns import TURNS
from .sockets import Pattern, SocketSettings, open_socket

_MOST_MESSAGES = 256
_MOST_BYTES = 256 * 10**6
_RECONNECT_S = 0.2
_GONE_S = 1.0
_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECT_RETRIED


class Message(NamedTuple):
    """One multipart message as it came, with ``time.monotonic()`` and ``time.time()`` of its arrival in seconds."""

    parts: list[memoryview]
    arrived: float
    wall: float


class Receiver:
    """A client socket. Call it from one thread. Parts stay in ZeroMQ's memory: nothing is copied.

    A request (req) is sent before the previous answer is looked at, so that the next train is under way meanwhile. If
    the server goes away, taking our request with it, or stays silent for ``request_timeout_s``, the request is made
    again on a new socket: a req socket cannot ask twice. ZeroMQ itself reconnects a lost connection, but not one that
    it closed because of a too long part; then, too, a new socket is opened. Tells ``facts`` of each ``disconnected``.
    """

    def __init__(
        self, settings: SocketSettings, pattern: Pattern, facts: Facts, request_timeout_s: float = 60.0
    ) -> None:
        self._settings, self._pattern, self._facts = settings, pattern, facts
        self._timeout = request_timeout_s
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._poller = zmq.Poller()
        self._asked = 0.0
        self._lost = False
        self._gone: float | None = None

    def open(self) -> None:
        """Connect or bind, and make the first request. Raises ``OSError`` with endpoint and remedy."""
        self._context = zmq.Context()
        try:
            self._connect()
        except OSError:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        """The address in use; where port 0 or * was asked for, the one that was found."""
        assert self._socket is not None
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def receive(self, timeout: float) -> list[Message]:
        """Wait up to ``timeout`` seconds for a message, then give all that has come, at most 256 or about 256 MB."""
        ready = dict(self._poller.poll(max(int(timeout * 1000), 0)))
        if self._monitor in ready:
            self._look()
        if self._socket not in ready:
            self._renew(time.monotonic())
            return []
        found: list[Message] = []
        size = 0
        with TURNS:
            while len(found) < _MOST_MESSAGES and size < _MOST_BYTES:
                parts = self._message()
                if parts is None:
                    break
                found.append(Message(parts, time.monotonic(), time.time()))
                size += sum([part.nbytes for part in parts])
        return found

    def close(self) -> None:
        """Close socket and context; what has not been read is lost."""
        self._disconnect()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _message(self) -> list[memoryview] | None:
        assert self._socket is not None
        # Not recv_multipart, which asks the socket after each part whether there are more: the part knows.
        try:
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        parts = [frame.buffer]
        while frame.more:
            frame = self._socket.recv(copy=False)
            parts.append(frame.buffer)
        self._lost = False
        if self._pattern == "req":
            self._ask()
        return parts

    def _look(self) -> None:
        """What ZeroMQ says of the connection."""
        assert self._monitor is not None
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self._facts.event("disconnected")
                self._lost, self._gone = True, time.monotonic()
            else:
                self._gone = None

    def _renew(self, now: float) -> None:
        """Open a new socket where the old one would wait for ever; called when there is nothing left to read in it."""
        if self._pattern == "req":
            overdue = now - self._asked > self._timeout
            needed = overdue or (self._lost and now - self._asked > _RECONNECT_S)
        else:
            needed = self._gone is not None and now - self._gone > _GONE_S and not self._settings.bind
        if needed:
            self._disconnect()
            self._connect()

    def _ask(self) -> None:
        assert self._socket is not None
        self._asked = time.monotonic()
        try:
            self._socket.send(b"next", zmq.NOBLOCK)
        except zmq.Again:  # nobody is there to be asked
            self._lost = True

    def _connect(self) -> None:
        assert self._context is not None
        s = self._settings
        self._socket = open_socket(
            self._context,
            self._pattern,
            s.endpoint,
            bind=s.bind,
            curve=s.curve,
            hwm=s.hwm,
            max_message_mb=s.max_message_mb,
        )
        self._poller.register(self._socket, zmq.POLLIN)
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._lost, self._gone = False, None
        if self._pattern == "req":
            self._ask()

    def _disconnect(self) -> None:
        if self._socket is None:
            return
        if self._monitor is not None:
            self._poller.unregister(self._monitor)
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        self._poller.unregister(self._socket)
        self._socket.close(linger=0)
        self._socket = None
