"""ZeroMQ sockets as every network source opens them: bounded queues, bounded messages, encryption, clear errors."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Literal, Self, TypeAlias

import zmq
import zmq.auth
from pydantic import Field, model_validator

from ..errors import plain
from ..flow.settings import Place, Settings

Pattern: TypeAlias = Literal["pull", "sub", "req"]

_KINDS = {
    "pull": zmq.PULL,
    "sub": zmq.SUB,
    "req": zmq.REQ,
    "push": zmq.PUSH,
    "pub": zmq.PUB,
    "rep": zmq.REP,
}
_NOT_OURS = "no such address on this machine: bind to tcp://*:PORT or to one of its own addresses"
_REMEDIES: dict[int, str] = {
    zmq.EADDRINUSE: "another process is bound to it: stop that one, or choose another port",
    zmq.EADDRNOTAVAIL: _NOT_OURS,
    errno.ENODEV: _NOT_OURS,
    zmq.EPROTONOSUPPORT: "unknown transport: use tcp://HOST:PORT or ipc://PATH",
}


class CurveSettings(Settings):
    """CURVE encryption (RFC 26) with certificate files as ``zmq.auth.create_certificates`` writes them."""

    key_file: Path | None = Field(
        default=None,
        description="our own certificate with its secret key (*.key_secret); none: a fresh pair each start",
    )
    server_key_file: Path | None = Field(
        default=None,
        description="the public certificate of the side that binds (*.key); none: we are that side, "
        "and accept every client that knows our public key",
    )

    @model_validator(mode="after")
    def _a_key(self) -> Self:
        if self.key_file is None and self.server_key_file is None:
            raise ValueError(
                "names no key: without server_key_file we are the side that clients must know, and with a fresh pair "
                "at each start none can; name server_key_file (the sender's *.key), or key_file (our *.key_secret)"
            )
        return self

    def at(self, base: Path) -> Self:
        """The same with relative names of files starting at ``base``."""
        files = {name: path and base / path for name, path in self}
        return self.model_copy(update=files)

    def mistakes(self) -> list[tuple[Place, str]]:
        """Which key files cannot be used, and why."""
        found: list[tuple[Place, str]] = []
        for name, path, read in (
            ("key_file", self.key_file, _own_certificate),
            ("server_key_file", self.server_key_file, _certificate),
        ):
            try:
                if path is not None:
                    read(path)
            except OSError as error:
                found.append((("curve", name), plain(error)))
        return found


class SocketSettings(Settings):
    """Where the messages come from. Sources derive their own settings from this block."""

    endpoint: str = Field(description="ZeroMQ address, for example tcp://detector:9999 or ipc:///tmp/stream")
    bind: bool = Field(default=False, description="listen at the endpoint instead of connecting to it")
    hwm: int = Field(default=16, ge=1, description="messages ZeroMQ may hold for us before the sender waits or drops")
    max_message_mb: int = Field(
        default=4096, ge=1, description="a message part longer than this closes the connection (10^6 bytes)"
    )
    curve: CurveSettings | None = Field(default=None, description="encrypt the connection; none: plain")

    def at(self, base: Path) -> Self:
        """The same with relative names of files starting at ``base``, the folder of the configuration."""
        return self.model_copy(update={"curve": self.curve and self.curve.at(base)})

    def mistakes(self) -> list[tuple[Place, str]]:
        """What is wrong with the files that are named: which setting, and why."""
        return [] if self.curve is None else self.curve.mistakes()


def open_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: str,
    endpoint: str,
    *,
    bind: bool = False,
    curve: CurveSettings | None = None,
    hwm: int = 16,
    max_message_mb: int = 4096,
) -> zmq.Socket[bytes]:
    """Open a socket of ``kind`` (pull, sub, req, push, pub, rep); a sub hears everything.

    The queue holds ``hwm`` messages each way and a part may have ``max_message_mb`` · 10⁶ bytes: libzmq reads the
    length field first, so a larger one closes the connection before anything is allocated. CONFLATE is never set,
    because it keeps one part of a multipart message. Raises ``OSError`` naming endpoint and remedy.
    """
    socket = context.socket(_KINDS[kind])
    try:
        socket.set(zmq.LINGER, 0)
        socket.set_hwm(hwm)
        socket.set(zmq.MAXMSGSIZE, max_message_mb * 10**6)
        if kind == "sub":
            socket.set(zmq.SUBSCRIBE, b"")
        if curve is not None:
            _encrypt(socket, curve)
        if bind:
            socket.bind(endpoint)
        else:
            socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise _explained(error, endpoint, bind) from error
    except BaseException:
        socket.close()
        raise
    return socket


def _explained(error: zmq.ZMQError, endpoint: str, bind: bool) -> OSError:
    remedy = _REMEDIES.get(error.errno or 0, "write it as tcp://HOST:PORT or ipc://PATH")
    doing, why = "bind to" if bind else "connect to", zmq.strerror(error.errno or 0)
    return OSError(error.errno, f"cannot {doing} {endpoint!r}: {why}; {remedy}")


def _encrypt(socket: zmq.Socket[bytes], curve: CurveSettings) -> None:
    if curve.key_file is not None:
        public, secret = _own_certificate(curve.key_file)
    else:
        public, secret = zmq.curve_keypair()
    socket.curve_publickey, socket.curve_secretkey = public, secret
    if curve.server_key_file is None:
        socket.curve_server = True
    else:
        socket.curve_serverkey = _certificate(curve.server_key_file)[0]


def _own_certificate(path: Path) -> tuple[bytes, bytes]:
    public, secret = _certificate(path)
    if secret is None:
        raise OSError(f"{path}: holds no secret key; name the *.key_secret file as curve.key_file")
    return public, secret


def _certificate(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else plain(error)
        raise OSError(
            f"{path}: not a CURVE certificate ({reason}); make one with zmq.auth.create_certificates"
        ) from error
