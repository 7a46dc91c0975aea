"""Attempts to get in, out of the static files, or to bring the page's server down, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.live.access import Access
from beamsieve.stream.live.answers import Site
from beamsieve.stream.live.events import Troubles
from beamsieve.stream.live.guard import Guard
from beamsieve.stream.live.limits import Limits
from beamsieve.stream.live.page import JSON, Blob, Picture
from beamsieve.stream.live.server import LiveServer

TOKEN = "a-token-of-some-length"
OWN = {"X-Beamsieve": "1"}
SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Recorded:
    """A page that writes down what reaches it."""

    beamline = "cryoem_picks"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []
        self.acted: list[tuple[str, Mapping[str, Any], str]] = []

    def facts(self) -> JSON:
        return {"secret": "measurement"}

    def snapshot(self) -> JSON:
        return {"secret": "measurement"}

    def pictures(self, after: int) -> Sequence[Picture]:
        return []

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        self.asked.append((kind, name, query))
        return None

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        self.acted.append((action, body, by))
        return {}


def serve(page: Recorded, host: str = "127.0.0.1", limits: Limits | None = None, **access: Any) -> LiveServer:
    return LiveServer(
        host=host,
        port=0,
        metrics=Metrics(page.beamline),
        problems=list,
        page=page,
        access=Access(host=host, token=TOKEN, **access),
        limits=limits,
    )


def browser(server: LiveServer, **more: Any) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", headers=OWN, timeout=20, verify=False, trust_env=False, **more
    )


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[LiveServer, Recorded]]:
    page = Recorded()
    server = serve(page)
    yield server, page
    server.close()


@pytest.fixture
def page(shared: tuple[LiveServer, Recorded]) -> Recorded:
    """The page of ``server``, which one test after the other attacks; what reached it before is forgotten."""
    shared[1].asked.clear()
    shared[1].acted.clear()
    return shared[1]


@pytest.fixture
def server(shared: tuple[LiveServer, Recorded]) -> LiveServer:
    return shared[0]


@pytest.fixture
def web(server: LiveServer) -> Iterator[httpx.Client]:
    with browser(server) as web:
        yield web


@pytest.fixture
def elsewhere(page: Recorded) -> Iterator[LiveServer]:
    """As for the whole network: this machine's own address is asked, the rules are those of any other."""
    server = serve(page, host="0.0.0.0")
    yield server
    server.close()


def sign_in(web: httpx.Client, token: str = TOKEN, **headers: str) -> httpx.Response:
    return web.post("/login", json={"token": token, "name": "Ada"}, headers=headers)


def raw(server: LiveServer, request: bytes, timeout_s: float = 5) -> bytes:
    """What is answered to these bytes, until the server closes or says nothing more for a moment."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as peer:
        with contextlib.suppress(ConnectionError):
            peer.sendall(request)
        said = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := peer.recv(1 << 16):
                said += part
                peer.settimeout(0.3)
        return said


# --- without the token ----------------------------------------------------------------------------------------------


def test_elsewhere_nothing_but_health_and_the_empty_page_is_shown(elsewhere: LiveServer) -> None:
    with browser(elsewhere) as web:
        for path in ("/metrics", "/readyz", "/live/facts", "/live/events", "/live/blob/frame/1", "/unknown"):
            answer = web.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert "measurement" not in answer.text
        assert web.post("/live/act/threshold", json={"value": 1}).status_code == 401
        assert web.get("/healthz").status_code == 200
        assert web.get("/static/net.js").status_code == 200
        said = web.get("/live/me").json()
        assert said == {"signed_in": False, "name": "", "needs_sign_in": True, "beamline": "cryoem_picks"}
        assert sign_in(web).status_code == 200
        said = web.get("/live/me").json()
        assert said == {"signed_in": True, "name": "Ada", "needs_sign_in": False, "beamline": "cryoem_picks"}
        assert web.get("/live/facts").json() == {"secret": "measurement"}
        assert web.get("/metrics").status_code == 200


def test_the_token_is_taken_from_nowhere_but_the_body_and_the_bearer(elsewhere: LiveServer) -> None:
    with browser(elsewhere) as web:
        for path in (f"/metrics?token={TOKEN}", f"/live/facts?access_token={TOKEN}", f"/live/facts?token={TOKEN}"):
            assert web.get(path).status_code == 401
        for headers in ({"X-Token": TOKEN}, {"Cookie": f"token={TOKEN}"}, {"Authorization": f"Basic {TOKEN}"}):
            assert web.get("/metrics", headers=headers).status_code == 401
        assert web.post(f"/login?token={TOKEN}&name=Ada", json={}).status_code == 400
        assert web.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_bearer_may_look_but_change_nothing(elsewhere: LiveServer, page: Recorded) -> None:
    with browser(elsewhere) as web:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert web.get("/live/facts", headers=headers).status_code == 200
        assert web.post("/live/act/threshold", json={}, headers=headers).status_code == 401
    assert page.acted == []


def test_open_metrics_opens_only_those(page: Recorded) -> None:
    server = serve(page, host="0.0.0.0", open_metrics=True)
    with browser(server) as web:
        assert [web.get(path).status_code for path in ("/metrics", "/readyz", "/live/facts")] == [200, 200, 401]
    server.close()


def test_a_stream_ends_with_its_session(page: Recorded) -> None:
    server = serve(page, host="0.0.0.0", limits=Limits(tick_s=0.02))
    with browser(server) as web, browser(server) as other:
        sign_in(web)
        secret = web.cookies[f"beamsieve_{server.port}"]
        other.cookies.set(f"beamsieve_{server.port}", secret, domain="127.0.0.1")
        with other.stream("GET", "/live/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 2000"
            assert web.post("/logout", json={}).json() == {"signed_in": False}
            assert sum(1 for _ in lines) < 1000, "it ends"
        assert other.get("/live/facts").status_code == 401
    server.close()


def test_guessing_is_slowed_down(page: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(page)
    web = browser(server)
    assert [sign_in(web, f"guess {number}").status_code for number in range(7)] == [403] * 5 + [429] * 2
    answer = sign_in(web)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert server.counts["sign_ins_refused"] == 8
    forged = sign_in(web, **{"X-Forwarded-For": "10.9.9.9", "X-Real-IP": "10.9.9.9", "Forwarded": "for=10.9.9.9"})
    assert forged.status_code == 429, "what a request says of its sender is not believed"
    time.sleep(1.05)
    assert sign_in(web).status_code == 200
    assert sign_in(web, TOKEN).status_code == 200
    assert TOKEN not in caplog.text
    assert "guess" not in caplog.text
    web.close()
    server.close()


# --- sessions and cookies -------------------------------------------------------------------------------------------


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(web: httpx.Client, server: LiveServer) -> None:
    said = sign_in(web, **{"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    secret, *flags = said.split("; ")
    assert re.fullmatch(rf"beamsieve_{server.port}=[\w-]{{43}}", secret)
    assert {flag.lower() for flag in flags} == {"httponly", "samesite=strict", "path=/", "max-age=86400"}
    gone = web.post("/logout", json={}).headers["set-cookie"]
    assert f'beamsieve_{server.port}="";' in gone
    assert "max-age=0" in gone.lower()


def test_the_cookie_is_secure_over_https() -> None:
    async def ask() -> str:
        access, troubles, counts = Access(host="127.0.0.1", token=TOKEN), Troubles(), Counter[str]()
        site = Site(Recorded(), access, Limits(), "s", troubles, counts)
        guard = Guard(site.routes(), access, Limits(), "s", troubles, counts)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="https://localhost") as web:
            answer = await web.post("/login", json={"token": TOKEN, "name": "Ada"}, headers=OWN)
        site.close()
        return answer.headers["set-cookie"]

    assert "; Secure" in asyncio.run(ask())


def test_signing_in_again_ends_the_session_before(web: httpx.Client, server: LiveServer) -> None:
    sign_in(web)
    before = web.cookies[f"beamsieve_{server.port}"]
    sign_in(web)
    assert web.cookies[f"beamsieve_{server.port}"] != before
    with browser(server, cookies={f"beamsieve_{server.port}": before}) as old:
        assert old.post("/live/act/pause", json={}).status_code == 401


def test_a_cookie_given_twice_is_nobody(web: httpx.Client, server: LiveServer, page: Recorded) -> None:
    sign_in(web)
    name, secret = f"beamsieve_{server.port}", web.cookies[f"beamsieve_{server.port}"]
    with browser(server) as other:
        for given in (
            f"{name}=x; {name}={secret}",
            f"{name}={secret}; {name}={secret}",
            f"{name}={secret}x",
            f"{name}=",
        ):
            answer = other.post("/live/act/pause", json={}, headers={"Cookie": given})
            assert answer.status_code == 401, given
        assert page.acted == []
        assert other.post("/live/act/pause", json={}, headers={"Cookie": f"a=1; {name}={secret}"}).status_code == 200


# --- foreign pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Beamsieve": "no"},
        {"Host": "evil.example"},
    ],
)
def test_foreign_pages_change_nothing(web: httpx.Client, page: Recorded, headers: dict[str, str]) -> None:
    sign_in(web)
    for path in ("/live/act/threshold", "/login", "/logout"):
        answer = web.post(path, json={"token": TOKEN, "name": "Eve"}, headers=headers)
        assert answer.status_code == 403, path
        assert "set-cookie" not in answer.headers
    assert page.acted == []
    assert web.get("/live/me").json()["name"] == "Ada"


def test_forms_change_nothing(web: httpx.Client, page: Recorded) -> None:
    sign_in(web)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = web.post("/live/act/threshold", content=b'{"value": 0}', headers={"Content-Type": kind})
        assert answer.status_code == 415, kind
    assert page.acted == []


def test_foreign_pages_read_nothing(web: httpx.Client) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        for path in ("/live/facts", "/live/events", "/live/blob/frame/1"):
            assert web.get(path, headers=headers).status_code == 403, path
    assert web.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code in (200, 404), "a link may lead here"
    preflight = web.options(
        "/live/act/threshold", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_a_rebound_name_reads_nothing(web: httpx.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:9464", "", "localhost.evil"):
        for path in ("/", "/metrics", "/readyz", "/live/facts", "/live/me", "/static/net.js"):
            answer = web.get(path, headers={"Host": host})
            assert answer.status_code == 403, (host, path)
            assert "measurement" not in answer.text
    assert web.get("/live/facts", headers={"Host": "localhost:1"}).status_code == 200


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static/%252e%252e/server.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..%5cserver.py",
        "/static/net.js%00.png",
        "/static/net.js/",
        "/static/",
        "/static",
        "/static/%ff%fe",
        "/static/vendor/",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/live/blob/frame/..",
        "/live/blob/frame/%2e%2e",
        "/live/blob/frame/..%2f..%2fetc%2fpasswd",
        "/live/blob/../facts",
        "/live/blob/frame/7%00",
        "/live/blob/frame/%c3%a9",
        "/live/blob/frame/" + "x" * 201,
        "/live/facts/",
        "/LIVE/facts",
        "/metrics/",
    ],
)
def test_no_path_leads_out(server: LiveServer, page: Recorded, path: str) -> None:
    said = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 404 "), said[:200]
    for told in (b"root:", b"import", b"Traceback", b"measurement"):
        assert told not in said
    assert page.asked == []


def test_queries_that_are_too_much(web: httpx.Client, page: Recorded) -> None:
    for query in ("a=1&a=2", "&".join(f"a{n}=1" for n in range(17)), "a=%ff"):
        assert web.get(f"/live/blob/frame/7?{query}").status_code == 400, query
    assert web.get("/live/blob/frame/7?" + "a" * 3000).status_code == 414
    assert web.get("/" + "a" * 3000).status_code == 414
    assert page.asked == []


def test_methods_that_are_not_meant(web: httpx.Client, page: Recorded) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"):
        for path in ("/", "/metrics", "/live/facts", "/live/events", "/static/net.js", "/live/blob/a/b"):
            assert web.request(method, path).status_code == 405, (method, path)
    for path in ("/live/act/threshold", "/login", "/logout"):
        for method in ("GET", "HEAD", "PUT"):
            assert web.request(method, path).status_code == 405, (method, path)
    head = web.head("/live/events")
    assert (head.status_code, head.content) == (405, b"")
    assert web.head("/live/facts").content == b""
    assert page.acted == []


def test_a_websocket_is_not_opened(server: LiveServer) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    said = raw(server, f"GET /live/me HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n".encode())
    assert said.startswith(b"HTTP/1.1 200 "), "answered as what it also is, an ordinary question"
    assert b"upgrade: websocket" not in said.lower()


# --- bodies and heads -----------------------------------------------------------------------------------------------


def test_bodies_that_are_too_large_or_no_json(web: httpx.Client, page: Recorded) -> None:
    sign_in(web)
    headers = {"Content-Type": "application/json"}

    def send(content: Any) -> int:
        return web.post("/live/act/threshold", content=content, headers=headers).status_code

    assert send(b'{"a": "' + b"x" * (1 << 16) + b'"}') == 413
    assert send(iter([b'{"a": "'] + [b"x" * 10_000] * 8 + [b'"}'])) == 413, "in chunks, without a length"
    for body in (b"{", b"[" * 60_000, b'{"a":' * 10_000, b"[]", b"1", b'{"a": NaN}', b"\xff\xfe", b'{"a":1,"a":2}'):
        assert send(body) == 400, body[:20]
    assert page.acted == []
    assert send(b'{"a": "' + b"x" * 60_000 + b'"}') == 200


@pytest.mark.parametrize("body", [{}, {"token": TOKEN}, {"name": "Ada"}, {"token": 1, "name": "Ada"}])
def test_sign_ins_of_the_wrong_type(web: httpx.Client, body: dict[str, Any]) -> None:
    assert web.post("/login", json=body).status_code == 400


def test_more_sign_ins_of_the_wrong_type(web: httpx.Client) -> None:
    for token, name in (([TOKEN], "Ada"), (None, "Ada"), (TOKEN, ["Ada"]), (TOKEN, "A" * 300), ("t" * 300, "Ada")):
        assert web.post("/login", json={"token": token, "name": name}).status_code == 400
    assert web.post("/login", json={"token": TOKEN, "name": "\u202eadA"}).status_code == 400


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 300,
        b"\0" * 1000,
    ],
)
def test_heads_that_are_none(server: LiveServer, request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    said = raw(server, request_)
    assert said == b"" or re.match(rb"HTTP/1\.1 (400|403|431) ", said), said[:200]
    assert b"Traceback" not in said
    with browser(server) as web:
        assert web.get("/healthz").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], "no peer can fill the log"


def test_a_host_is_needed_also_in_http_1_0(server: LiveServer) -> None:
    assert raw(server, b"GET /live/facts HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")
    assert raw(server, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    absolute = b"GET http://evil.example/live/facts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert b"measurement" not in raw(server, absolute)


def test_every_answer_is_dressed(web: httpx.Client) -> None:
    answers = [
        web.get(path) for path in ("/", "/static/net.js", "/metrics", "/readyz", "/live/facts", "/live/me", "/x")
    ]
    answers += [web.post("/login", json={}), web.put("/metrics"), web.get("/", headers={"Host": "evil.example"})]
    answers += [sign_in(web), web.get("/live/blob/a/b"), web.get("/" + "x" * 3000)]
    with web.stream("GET", "/live/events") as stream:
        answers.append(stream)
    for answer in answers:
        assert SAFE.items() <= dict(answer.headers).items(), answer.url
        assert "server" not in answer.headers
        if "/static/" not in str(answer.url):
            assert answer.headers["cache-control"] in ("no-store", "no-cache"), answer.url
    assert all(json.loads(answer.text)["error"] for answer in answers[:-1] if answer.status_code >= 400)


# --- those who take their time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nX-Beamsieve: 1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he",
    ],
)
def test_requests_that_never_end_are_given_up(page: Recorded, begun: bytes) -> None:
    server = serve(page, limits=Limits(request_s=0.3))
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as peer:
        since = time.monotonic()
        peer.sendall(begun)
        with contextlib.suppress(ConnectionError):
            while peer.recv(1 << 16):
                pass
        assert 0.25 < time.monotonic() - since < 2
    assert server.counts["requests_late"] == 1
    server.close()


def test_a_letter_at_a_time_does_not_help(page: Recorded) -> None:
    server = serve(page, limits=Limits(request_s=0.4))
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as peer:
        since = time.monotonic()
        with contextlib.suppress(ConnectionError):
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            while time.monotonic() - since < 3:
                peer.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() - since < 2
    server.close()


def test_waiting_between_requests_is_no_crime(page: Recorded) -> None:
    server = serve(page, limits=Limits(request_s=0.1))
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as peer:
        for _ in range(3):
            peer.sendall(ask)
            said = b""
            while b"alive" not in said:
                said += peer.recv(1 << 16)
            time.sleep(0.2)
    assert server.counts["requests_late"] == 0
    server.close()


def test_connections_are_bounded_and_come_back(page: Recorded) -> None:
    server = serve(page, limits=Limits(connections=20, request_s=0.5))
    peers = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(40)]
    end = time.monotonic() + 5
    while server.counts["connections_refused"] < 20:
        assert time.monotonic() < end
        time.sleep(0.01)
    while server.counts["requests_late"] < 20:
        assert time.monotonic() < end
        time.sleep(0.01)
    with browser(server) as web:
        assert web.get("/healthz").status_code == 200
    for peer in peers:
        peer.close()
    server.close()


def test_many_requests_in_one_go(server: LiveServer) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    said = raw(server, ask * 200)
    assert said.count(b"HTTP/1.1 200") == 200
