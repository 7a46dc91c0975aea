"""The sending side of a stream: a push, pub or rep socket that sends multipart messages, or says that it cannot."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Sequence
from typing import Literal, TypeAlias

import zmq

Side: TypeAlias = Literal["push", "pub", "rep"]
Part: TypeAlias = bytes | memoryview

_KINDS = {"push": zmq.PUSH, "pub": zmq.PUB, "rep": zmq.REP}
_HWM = {"push": 1, "pub": 16, "rep": 1}
_SLICE_S = 0.1
_LINGER_MS = 2000
_REMEDIES: dict[int, str] = {
    zmq.EADDRINUSE: "another process is bound to it: stop that one, or choose a free port",
    zmq.EADDRNOTAVAIL: "no such address on this machine: bind to tcp://*:PORT, or connect to the receiver (--connect)",
    errno.ENODEV: "no such address on this machine: bind to tcp://*:PORT, or connect to the receiver (--connect)",
    zmq.EPROTONOSUPPORT: "unknown transport: use tcp://HOST:PORT or ipc://PATH",
}


def refused(error: zmq.ZMQError, endpoint: str, bind: bool) -> OSError:
    """ZeroMQ's refusal of an endpoint, with endpoint and remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "write it as tcp://HOST:PORT or ipc://PATH")
    doing = "bind to" if bind else "connect to"
    return OSError(error.errno, f"cannot {doing} {endpoint!r}: {zmq.strerror(error.errno or 0)}; {remedy}")


class Server:
    """A sending socket, bound to ``endpoint`` or connected to it. Not for several threads.

    ``hwm`` messages wait in ZeroMQ for each receiver, by default 1, which can be a gigabyte; 16 for a pub, which drops
    what is beyond. A rep answers ``b"next"`` with a message and anything else with an error text, as karabo-bridges do.
    """

    def __init__(self, endpoint: str, side: Side, bind: bool = True, hwm: int | None = None) -> None:
        self._side = side
        self._asked = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(_KINDS[side])
        try:
            self._socket.set(zmq.LINGER, _LINGER_MS)
            self._socket.set_hwm(_HWM[side] if hwm is None else hwm)
            (self._socket.bind if bind else self._socket.connect)(endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise refused(error, endpoint, bind) from error
        self.endpoint = self._socket.get_string(zmq.LAST_ENDPOINT)

    def send(self, parts: Sequence[Part], stop: threading.Event, until: float | None = None) -> bool:
        """Send one message; wait for room, or for a request, until ``until`` (monotonic s; None: as long as it takes).

        Returns False when the time was up, or ``stop`` was set, before anybody took it. A pub always sends at once.
        """
        while not self._ready():
            left = _SLICE_S if until is None else min(until - time.monotonic(), _SLICE_S)
            if stop.is_set() or left <= 0:
                return False
            self._socket.poll(int(left * 1000) or 1, zmq.POLLIN if self._side == "rep" else zmq.POLLOUT)
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        self._asked = False
        return True

    def close(self) -> None:
        """Close; what was sent goes on being delivered for up to two seconds."""
        self._socket.close(linger=_LINGER_MS)
        self._context.term()

    def _ready(self) -> bool:
        if self._side != "rep":
            return bool(self._socket.poll(0, zmq.POLLOUT))
        while not self._asked and self._socket.poll(0, zmq.POLLIN):
            request = self._socket.recv()
            self._asked = request == b"next"
            if not self._asked:
                self._socket.send(b"Error: bad request " + request[:100])
        return self._asked
