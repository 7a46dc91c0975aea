"""Who may look at a daemon and who may change it: tokens, sessions, and where a request comes from.

A daemon on a loopback address may be looked at without a token, by requests that name it by a loopback name (else a
foreign page could read it through DNS rebinding). On any other address everything but ``/healthz`` and the empty page
that asks for the token needs it. Changes always need a session, which the token opens.

Nothing here logs, and no message holds a token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .attempts import Tries

SESSION_S = 24 * 3600
SESSIONS = 256
NAME_LENGTH = 40
LEAST_TOKEN = 16
OTHER_S = 0.5
NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)


class Denied(Exception):
    """A request that is refused, with the HTTP status that says so, and the seconds to wait before another try."""

    def __init__(self, status: int, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Session:
    """Who signed in, and until when (monotonic seconds)."""

    name: str
    until: float


class Access:
    """The rules of one daemon. Every method may be called from any thread.

    ``host``: the address the daemon listens on. ``token``: what opens a session; the empty one opens none. ``names``:
    further names under which browsers reach the daemon, as ``host`` or ``host:port`` (a reverse proxy, a tunnel).
    ``open_metrics``: ``/metrics`` and ``/readyz`` need no token. ``now``: a monotonic clock, seconds.
    """

    def __init__(
        self,
        *,
        host: str,
        token: str,
        names: Sequence[str] = (),
        open_metrics: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loopback = is_loopback(host)
        self._token = _digest(token) if token else b""
        self._names = frozenset(name.lower() for name in names)
        self._hosts = frozenset(hostname(name) for name in names)
        self._open = {"/healthz", "/metrics", "/readyz"} if open_metrics else {"/healthz"}
        self._now = now
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}
        self._logins, self._bearers = Tries(now), Tries(now)

    # --- looking -----------------------------------------------------------------------------------------------

    def host_allowed(self, host: str) -> bool:
        """Whether a request may name the daemon like this (its ``Host`` header)."""
        name = hostname(host)
        if not name:
            return False
        if name in self._hosts or is_loopback(name):
            return True
        return not self.loopback and (not self._hosts or _address(name) is not None)

    def look(self, path: str, client: str, authorization: str, name: str | None) -> None:
        """Let somebody look at ``path``, or raise ``Denied``.

        ``authorization``: the header, ``Bearer`` and the token. ``name``: of the session, None without one.
        """
        if self.loopback or path in self._open or name is not None:
            return
        kind, _, given = authorization.partition(" ")
        if kind.lower() != "bearer":
            raise Denied(401, "sign in with the daemon's token to look at this")
        self._check(self._bearers, client, given.strip(), 401)

    # --- sessions ----------------------------------------------------------------------------------------------

    def sign_in(self, client: str, token: str, name: str) -> str:
        """Open a session; returns its secret, for a cookie. Raises ``Denied``.

        ``client``: the address that tries. ``name``: 1 to 40 printable characters, with which changes are logged.
        """
        name = " ".join(name.split())
        if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
            raise Denied(400, f"name: give 1 to {NAME_LENGTH} printable characters; changes are logged with it")
        self._check(self._logins, client, token, 403)
        secret = secrets.token_urlsafe(32)
        with self._lock:
            self._forget_old()
            self._sessions[_digest(secret)] = Session(name, self._now() + SESSION_S)
        return secret

    def signed_in(self, secret: str | None) -> str | None:
        """The name of the session with this secret; None when there is no such session, or no longer."""
        if not secret:
            return None
        with self._lock:
            session = self._sessions.get(_digest(secret))
        return session.name if session is not None and self._now() < session.until else None

    def sign_out(self, secret: str | None) -> None:
        """End a session; nothing happens when there is none."""
        if secret:
            with self._lock:
                self._sessions.pop(_digest(secret), None)

    # --- changes -----------------------------------------------------------------------------------------------

    def same_site(self, headers: Mapping[str, str]) -> None:
        """Let a change pass that this daemon's own page asks for, or raise ``Denied``.

        ``X-Beamsieve`` and the JSON type cannot be sent by a foreign page without asking first (a CORS preflight, which
        is never granted); ``Origin`` and ``Sec-Fetch-Site`` are what the browser itself says of where it comes from.
        """
        self.not_foreign(headers)
        if headers.get("x-beamsieve") != "1":
            raise Denied(403, "header X-Beamsieve: 1 is missing; changes are made from the daemon's own page")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Denied(415, "Content-Type: a change is sent as application/json")

    def not_foreign(self, headers: Mapping[str, str]) -> None:
        """Raise ``Denied`` for what a browser asks on behalf of another site."""
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Denied(403, "asked from another site; open the daemon's own page")
        origin = headers.get("origin")
        if origin is not None and not self._own(origin.lower(), headers.get("host", "").lower()):
            raise Denied(403, "Origin: asked from another site; a proxy's name belongs into service.names")

    def _own(self, origin: str, host: str) -> bool:
        scheme, _, netloc = origin.partition("://")
        return scheme in ("http", "https") and bool(netloc) and (netloc == host or netloc in self._names)

    # --- inside ------------------------------------------------------------------------------------------------

    def _check(self, tries: Tries, client: str, token: str, status: int) -> None:
        who = network(client)
        with self._lock:
            wait_s = tries.wait_s(who)
            if wait_s > 0:
                raise Denied(429, f"too many wrong tokens; try again in {math.ceil(wait_s)} s", wait_s)
            if not hmac.compare_digest(_digest(token), self._token):
                tries.failed(who)
                raise Denied(status, "the token is wrong; it is in the daemon's token file")
            tries.forget(who)

    def _forget_old(self) -> None:
        now = self._now()
        self._sessions = {key: session for key, session in self._sessions.items() if now < session.until}
        while len(self._sessions) >= SESSIONS:
            del self._sessions[next(iter(self._sessions))]  # dicts keep their order: the oldest goes


def token_in(path: Path) -> str:
    """The token in a file; a file that is not there is made, readable by its owner only, with a new random token.

    Raises OSError, saying what to do, when the file cannot be read or made, when others can read it, or when what it
    holds is too short.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_token(path)
    except OSError as error:
        raise OSError(f"token file {path}: cannot be made: {error.strerror}; choose another place for it") from None
    token = secrets.token_urlsafe(24)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token


def _read_token(path: Path) -> str:
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
        until = time.monotonic() + OTHER_S
        while not token and time.monotonic() < until:  # another daemon has made it a moment ago, and will fill it
            time.sleep(0.01)
            token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise OSError(f"token file {path}: cannot be read: {why}; remove it and a new one is made") from None
    if mode & 0o077:
        remedy = f"run: chmod 600 {path}, or name a place where that can be done in service.token_file"
        raise OSError(f"token file {path}: others can read it; {remedy}")
    if len(token) < LEAST_TOKEN or not token.isprintable():
        raise OSError(f"token file {path}: holds no token of at least {LEAST_TOKEN} characters; remove it to get one")
    return token


def hostname(netloc: str) -> str:
    """The host of ``host:port`` in lower case, without brackets; empty for what is no such thing."""
    match = NETLOC.fullmatch(netloc)
    return match[1].strip("[]").rstrip(".").lower() if match else ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def network(client: str) -> str:
    """Who is asking, for counting tries: the address; of IPv6 the network, for a host may have all of its addresses."""
    address = _address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return client


def cookie(headers: Iterable[str], name: str) -> str | None:
    """The value of a cookie in the ``Cookie`` headers; None without it, and where it is given more than once."""
    pairs = (pair.partition("=") for header in headers for pair in header.split(";"))
    values = [value.strip() for key, _, value in pairs if key.strip() == name]
    return values[0] if len(values) == 1 else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _digest(text: str) -> bytes:
    """Of equal length for all, so that comparing says nothing of the length; lone surrogates are allowed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
