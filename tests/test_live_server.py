"""The page's server over real sockets: what it answers, to how many, and what a slow or broken one costs the others."""

from __future__ import annotations

import json
import logging
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.live.access import Access
from beamsieve.stream.live.assets import read_assets
from beamsieve.stream.live.events import Troubles, encode, framed
from beamsieve.stream.live.limits import Limits
from beamsieve.stream.live.page import JSON, Blob, Page, Picture, Refused
from beamsieve.stream.live.server import LiveServer

TOKEN = "a-token-of-some-length"
OWN = {"X-Beamsieve": "1"}
QUICK = Limits(tick_s=0.05)


class Shown:
    """A page that shows what a test puts into it, and counts how often it is asked."""

    beamline = "xfel_hits"

    def __init__(self) -> None:
        self.asked = 0
        self.facts_asked = 0
        self.state: JSON = {"ready": True}
        self.kept: list[Picture] = [picture(number) for number in (1, 2, 3)]
        self.hold = threading.Event()
        self.inside = threading.Event()
        self.together = self.most = 0
        self.acted: list[tuple[str, Mapping[str, Any], str]] = []
        self.broken: Exception | None = None

    def facts(self) -> JSON:
        self.facts_asked += 1
        return {"beamline": self.beamline, "asked": self.facts_asked}

    def snapshot(self) -> JSON:
        self.asked += 1
        if self.broken is not None:
            raise self.broken
        return self.state | {"asked": self.asked}

    def pictures(self, after: int) -> Sequence[Picture]:
        return [one for one in list(self.kept) if one.seq > after]

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        if kind == "large":
            return Blob(b"x" * int(name))
        if kind == "bug":
            raise ValueError(f"/secret/path {name}")
        if kind == "head":
            return Blob(b"", head={"text": "x" * int(name)})
        if (kind, name) != ("frame", "7"):
            return None
        head = {"shape": (1, 2), "dtype": "<u2", "score": np.float32(0.5), "asked": dict(query)}
        return Blob(b"\1\0\2\0", head=head, lasting=True)

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        self.together += 1
        self.most = max(self.most, self.together)
        try:
            if action == "slow":
                self.inside.set()
                self.hold.wait(20)
            if action == "refused":
                raise Refused("the candidate is still loading; wait")
            if action == "bug":
                raise KeyError("/secret/path")
            self.acted.append((action, body, by))
            return {"done": action}
        finally:
            self.together -= 1


def picture(number: int, size: int = 4) -> Picture:
    return Picture(number, encode({"id": str(number), "pixels": "A" * size}))


def serve(page: Page | None, limits: Limits | None = None, host: str = "127.0.0.1", **access: Any) -> LiveServer:
    return LiveServer(
        host=host,
        port=0,
        metrics=Metrics("xfel_hits"),
        problems=lambda: ["cold"],
        page=page,
        access=Access(host=host, token=TOKEN, **access),
        limits=limits,
    )


@pytest.fixture
def page() -> Iterator[Shown]:
    page = Shown()
    yield page
    page.hold.set()


@pytest.fixture
def server(page: Shown) -> Iterator[LiveServer]:
    server = serve(page, QUICK)
    yield server
    server.close()


@pytest.fixture
def web(server: LiveServer) -> Iterator[httpx.Client]:
    with browser(server) as web:
        yield web


@pytest.fixture
def person(web: httpx.Client) -> httpx.Client:
    assert web.post("/login", json={"token": TOKEN, "name": "Ada"}).json() == {"signed_in": True, "name": "Ada"}
    return web


def browser(server: LiveServer, like: httpx.Client | None = None) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}",
        headers=OWN,
        cookies=like.cookies if like is not None else None,
        timeout=20,
        verify=False,
        trust_env=False,
    )


def until(say: Callable[[], Any], what: str, timeout_s: float = 10) -> Any:
    end = time.monotonic() + timeout_s
    while not (said := say()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)
    return said


def watch(web: httpx.Client, want: Callable[[list[tuple[str, Any, str]]], bool], last: str = "") -> list[Any]:
    """(event, data, id) until ``want`` has enough."""
    headers = [(b"Last-Event-ID", last.encode("latin-1"))]
    found: list[tuple[str, Any, str]] = []
    event: dict[str, str] = {}
    with web.stream("GET", "/live/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "event" in event:
                found.append((event["event"], json.loads(event["data"]), event.get("id", "")))
                event = {}
                if want(found):
                    return found
    raise AssertionError(f"the stream ended with {found}")


def hang(port: int, path: str = "/live/events") -> socket.socket:
    """A browser that asks and then never reads."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port))
    peer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return peer


# --- without a page -------------------------------------------------------------------------------------------------


def test_without_a_page_there_are_the_metrics() -> None:
    server = serve(None)
    try:
        with browser(server) as web:
            assert "/metrics" in web.get("/").text
            answer = web.get("/readyz")
            assert (answer.status_code, answer.content) == (503, b'{"ready": false, "problems": ["cold"]}\n')
            answer = web.get("/healthz")
            assert (answer.status_code, answer.content) == (200, b'{"alive": true, "beamline": "xfel_hits"}\n')
            assert "beamsieve_frames_read_total 0.0" in web.get("/metrics?x=1").text
            for path in ("/live/facts", "/live/events", "/static/main.js", "/etc/passwd"):
                assert web.get(path).status_code == 404, path
            assert web.post("/login", json={}).status_code == 404
        assert server.clients == 0
    finally:
        server.close()


def test_metrics_in_the_format_asked_for(web: httpx.Client) -> None:
    plain = web.get("/metrics", headers={"Accept": "text/plain"})
    assert plain.headers["content-type"].startswith("text/plain; version=")
    opened = web.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


def test_a_taken_port_is_told_with_the_remedy(server: LiveServer) -> None:
    with pytest.raises(
        OSError,
        match=rf"service\.port: cannot listen on 127\.0\.0\.1:{server.port}: Address already in use; is another",
    ):
        LiveServer(
            host="127.0.0.1",
            port=server.port,
            metrics=Metrics("xfel_hits"),
            problems=list,
            page=None,
            access=Access(host="127.0.0.1", token=TOKEN),
        )
    with pytest.raises(OSError, match=r"service\.port: cannot listen on no\.such\.host\.invalid:0: "):
        serve(None, host="no.such.host.invalid")


def test_it_leaves_signals_alone_and_closes_twice() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server = serve(None)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    server.close()
    server.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_the_port_is_free_again_at_once() -> None:
    first = serve(None)
    with socket.create_connection(("127.0.0.1", first.port)):
        first.close()
    again = LiveServer(
        host="127.0.0.1",
        port=first.port,
        metrics=Metrics("xfel_hits"),
        problems=list,
        page=None,
        access=Access(host="127.0.0.1", token=TOKEN),
    )
    again.close()


def test_small_answers_are_not_held_back(web: httpx.Client, server: LiveServer) -> None:
    web.get("/healthz")
    (connection,) = server._uvicorn.server_state.connections
    peer = connection.transport.get_extra_info("socket")
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


# --- files and facts ------------------------------------------------------------------------------------------------


def test_files_known_at_start_are_sent_with_a_tag(web: httpx.Client) -> None:
    found = read_assets()
    for path, asset in found.items():
        answer = web.get(f"/static/{path}")
        assert (answer.status_code, answer.content) == (200, asset.body)
        assert answer.headers["content-type"] == asset.kind
        assert answer.headers["cache-control"] == "no-cache"
    tag = web.get("/static/net.js").headers["etag"]
    again = web.get("/static/net.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert web.get("/static/net.js", headers={"If-None-Match": '"other"'}).status_code == 200
    assert web.head("/static/net.js").content == b""
    if "index.html" in found:
        assert web.get("/").content == found["index.html"].body


def test_facts_are_made_once_for_many(page: Shown) -> None:
    server = serve(page, Limits(tick_s=30))
    try:
        with browser(server) as web:
            said = [web.get("/live/facts").json() for _ in range(5)]
        assert said == [{"beamline": "xfel_hits", "asked": 1}] * 5
    finally:
        server.close()


def test_facts_are_never_older_than_the_state_that_points_at_them(server: LiveServer, page: Shown) -> None:
    with browser(server) as web:
        web.get("/live/facts")
        watch(web, lambda found: len(found) > 0)
        assert web.get("/live/facts").json()["asked"] == 2


def test_a_blob_with_its_head(web: httpx.Client) -> None:
    answer = web.get("/live/blob/frame/7?x=1&y=")
    assert answer.content == b"\1\0\2\0"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "private, max-age=86400, immutable"
    assert json.loads(answer.headers["x-beamsieve"]) == {
        "shape": [1, 2],
        "dtype": "<u2",
        "score": 0.5,
        "asked": {"x": "1", "y": ""},
    }
    gone = web.get("/live/blob/frame/8")
    assert (gone.status_code, gone.json()) == (404, {"error": "no longer kept, or never there"})
    head = web.head("/live/blob/large/3000000")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "3000000")
    large = web.get("/live/blob/large/3000000")
    assert large.content == b"x" * 3_000_000
    assert large.headers["cache-control"] == "no-store"


# --- events ---------------------------------------------------------------------------------------------------------


def test_a_browser_gets_the_state_and_every_picture_once(web: httpx.Client, page: Shown) -> None:
    def enough(found: list[tuple[str, Any, str]]) -> bool:
        states = sum(name == "snapshot" for name, _, _ in found)
        if states == 2:
            page.kept = [*page.kept, picture(4)] if len(page.kept) == 3 else page.kept
        return states >= 5 and any(data.get("id") == "4" for _, data, _ in found)

    found = watch(web, enough)
    assert found[0][:2] == ("snapshot", {"ready": True, "asked": 1}), "the state comes before the pictures"
    assert [data["id"] for name, data, _ in found if name == "picture"] == ["1", "2", "3", "4"]
    asked = [data["asked"] for name, data, _ in found if name == "snapshot"]
    assert asked == sorted(set(asked))


def test_all_browsers_get_the_same_state(server: LiveServer, page: Shown) -> None:
    seen: list[dict[int, Any]] = [{} for _ in range(4)]

    def look(mine: dict[int, Any]) -> None:
        with browser(server) as own:
            for name, data, _ in watch(own, lambda found: sum(name == "snapshot" for name, _, _ in found) >= 12):
                if name == "snapshot":
                    mine[data["asked"]] = data

    people = [threading.Thread(target=look, args=(mine,)) for mine in seen]
    begun = time.monotonic()
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert page.asked <= (time.monotonic() - begun) / 0.05 + 2, "asked once a tick, not once a browser"
    assert any(sum(number in mine for mine in seen) == 4 for number in seen[0]), "some state was shown to all four"
    until(lambda: server.clients == 0, "the browsers to be gone")


def test_a_browser_that_comes_back_gets_only_what_it_missed(web: httpx.Client, page: Shown) -> None:
    pictures = [one for one in watch(web, lambda found: found[-1][2].endswith("-2")) if one[0] == "picture"]
    page.kept = [*page.kept, picture(4)]
    again = watch(web, lambda found: found[-1][2].endswith("-4"), last=pictures[-1][2])
    assert [data["id"] for name, data, _ in again if name == "picture"] == ["3", "4"]
    mark = pictures[-1][2].partition("-")[0]
    for other in ("00000000-3", "3", f"{mark}-2x", f"{mark}-", f"{mark}--2", "-", f"{mark}-²"):
        from_start = watch(web, lambda found: found[-1][2].endswith("-4"), last=other)
        assert [data["id"] for name, data, _ in from_start if name == "picture"] == ["1", "2", "3", "4"], other


def test_nobody_watches_nothing_is_asked(server: LiveServer, page: Shown, web: httpx.Client) -> None:
    web.get("/live/facts")
    assert page.asked == 0
    watch(web, lambda found: len(found) > 0)
    until(lambda: server.clients == 0, "the browser to be gone")
    asked = page.asked
    time.sleep(0.2)
    assert page.asked <= asked + 1


def test_numbers_that_are_none_become_null(web: httpx.Client, page: Shown) -> None:
    page.state = {"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": np.array([1.0, np.nan]), "d": (1, 2)}
    (_, state, _), *_ = watch(web, lambda found: len(found) > 0)
    assert {key: state[key] for key in "abcd"} == {"a": None, "b": [None, 3], "c": [1.0, None], "d": [1, 2]}
    with pytest.raises(TypeError, match="set does not go into JSON"):
        encode({"x": {1}})
    assert framed("x", b'{"a":\r\n1}\n') == b'event: x\ndata: {"a":1}\n\n'


def test_a_page_that_breaks_is_told_and_logged_once(
    web: httpx.Client, page: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    page.broken = RuntimeError("/secret/path")
    found = watch(web, lambda found: any(name == "trouble" for name, _, _ in found) and page.asked > 4)
    said = [data for name, data, _ in found if name == "trouble"]
    assert len(said) > 2, "said again every tick, in place of the state"
    assert all(one == {"problems": ["snapshot failed (RuntimeError); the daemon's log says more"]} for one in said)
    assert [data["id"] for name, data, _ in found if name == "picture"] == ["1", "2", "3"], "the rest goes on"
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in logged] == ["live page: snapshot: RuntimeError: /secret/path"]
    assert logged[0].name.startswith("beamsieve.")

    def mended(found: list[tuple[str, Any, str]]) -> bool:
        page.broken = None if any(name == "trouble" for name, _, _ in found) else page.broken
        return found[-1] == ("trouble", {"problems": []}, "")

    assert watch(web, mended)


def test_messages_that_always_differ_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    for number in range(1000):
        troubles.add("blob x", ValueError(str(number)))
    assert len(caplog.records) == 100
    assert troubles.texts() == ["blob x failed (ValueError); the daemon's log says more"]


# --- slow ones ------------------------------------------------------------------------------------------------------


def test_ten_browsers_that_never_read_cost_one_question_a_second_and_little_memory(page: Shown) -> None:
    page.state = {"text": "x" * 200_000}
    server = serve(page)
    peers = [hang(server.port) for _ in range(10)]
    try:
        until(lambda: server.clients == 10, "ten browsers")
        begun, asked = time.monotonic(), page.asked
        time.sleep(2.5)
        assert page.asked - asked <= (time.monotonic() - begun) + 1
        assert page.asked - asked >= 2
    finally:
        for peer in peers:
            peer.close()
        server.close()


def test_what_is_queued_for_browsers_that_never_read_does_not_grow(page: Shown) -> None:
    page.state = {"text": "x" * 200_000}
    server = serve(page, Limits(tick_s=0.01, stalled_s=60))
    peers = [hang(server.port) for _ in range(10)]

    def queued() -> list[int]:
        connections = list(server._uvicorn.server_state.connections)
        return [connection.transport.get_write_buffer_size() for connection in connections]

    try:
        until(lambda: server.clients == 10 and min(queued()) > 0, "ten stuck browsers")
        first = page.asked
        until(lambda: page.asked > first + 40, "more states, as 8 MB for each")
        assert max(queued()) < 2 * 200_000 + 100_000
        with browser(server) as web:
            states = watch(web, lambda found: sum(name == "snapshot" for name, _, _ in found) >= 5)
        asked = [data["asked"] for name, data, _ in states if name == "snapshot"]
        assert asked[-1] > first + 40, "one that reads gets the newest"
    finally:
        for peer in peers:
            peer.close()
        server.close()


def test_a_browser_that_takes_nothing_is_let_go(page: Shown) -> None:
    page.state = {"text": "x" * 200_000}
    server = serve(page, Limits(tick_s=0.02, stalled_s=0.3))
    peers = [hang(server.port) for _ in range(3)]
    try:
        until(lambda: server.clients == 3, "three browsers")
        until(lambda: server.clients == 0, "them to be let go")
        assert server.counts["readers_stalled"] == 3
    finally:
        for peer in peers:
            peer.close()
        server.close()


def test_a_slow_browser_misses_pictures_and_gets_the_newest(page: Shown) -> None:
    page.kept = [picture(number, 100_000) for number in range(1, 6)]
    server = serve(page, Limits(tick_s=0.01))
    peer = hang(server.port)
    try:
        until(lambda: server.clients == 1, "the browser")
        for number in range(6, 400):
            page.kept = [*page.kept[-4:], picture(number, 100_000)]
            time.sleep(0.001)
        said = b""
        peer.settimeout(5)
        while b'"id":"399"' not in said:
            said += peer.recv(1 << 20)
        assert said.count(b"event: picture") < 100
        numbers = [int(line.partition(b"-")[2]) for line in said.splitlines() if line.startswith(b"id: ")]
        assert numbers == sorted(set(numbers))
        assert server.counts["pictures_missed"] > 200
    finally:
        peer.close()
        server.close()


def test_a_reader_of_a_large_answer_that_stops_is_let_go(page: Shown) -> None:
    server = serve(page, Limits(stalled_s=0.3))
    with hang(server.port, "/live/blob/large/50000000") as peer:
        until(lambda: server.counts["readers_stalled"] == 1, "it to be let go")
        peer.settimeout(5)
        received = sum(len(part) for part in iter(lambda: peer.recv(1 << 20), b""))
        assert received < 10_000_000, "only what the system had taken already"
    server.close()


def test_large_answers_under_way_are_bounded(page: Shown) -> None:
    server = serve(page, Limits(bodies=2))
    peers = [hang(server.port, "/live/blob/large/50000000") for _ in range(2)]
    try:
        with browser(server) as web:
            answer = until(lambda: (a := web.get("/live/blob/frame/7")).status_code == 503 and a, "a refusal")
            assert answer.headers["retry-after"] == "1"
            peers[0].close()
            until(lambda: web.get("/live/blob/frame/7").status_code == 200, "room again")
    finally:
        for peer in peers:
            peer.close()
        server.close()


def test_the_sixty_fifth_browser_is_refused(page: Shown) -> None:
    server = serve(page)
    peers = [hang(server.port) for _ in range(64)]
    try:
        until(lambda: server.clients == 64, "64 browsers")
        with browser(server) as web:
            answer = web.get("/live/events")
            assert (answer.status_code, answer.json()) == (
                503,
                {"error": "64 browsers watch already; close one of them"},
            )
            assert web.get("/healthz").status_code == 200
            peers.pop().close()
            until(lambda: server.clients == 63, "one to go")
            assert watch(web, lambda found: len(found) > 0)
        assert server.counts["browsers_refused"] == 1
    finally:
        for peer in peers:
            peer.close()
        server.close()


@pytest.mark.parametrize("path", ["/live/events", "/live/blob/large/8000000"])
def test_browsers_that_go_while_they_are_sent_something_do_not_fill_the_log(
    page: Shown, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    page.kept = [picture(number, 4000) for number in range(1, 200)]
    server = serve(page, QUICK)
    try:
        for number in range(30):
            with socket.create_connection(("127.0.0.1", server.port)) as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it is a reset
                peer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                peer.recv(1 if number % 2 else 20_000)
        until(lambda: server.clients == 0, "all to be gone")
    finally:
        server.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_it_closes_within_a_second_whoever_is_there(page: Shown, caplog: pytest.LogCaptureFixture) -> None:
    page.state = {"text": "x" * 200_000}
    server = serve(page, QUICK)
    peers = [hang(server.port) for _ in range(5)] + [socket.create_connection(("127.0.0.1", server.port))]
    web = browser(server)
    web.post("/login", json={"token": TOKEN, "name": "Ada"})
    answers: list[Any] = []

    def slow() -> None:
        try:
            answers.append(web.post("/live/act/slow", json={}).status_code)
        except httpx.TransportError as error:
            answers.append(error)

    waiting = threading.Thread(target=slow)
    waiting.start()
    until(lambda: server.clients == 5 and page.inside.is_set(), "all to be there")
    time.sleep(0.2)
    begun = time.monotonic()
    server.close()
    assert time.monotonic() - begun < 1.2
    waiting.join(5)
    assert answers == [503], "who waits for a change is told"
    for peer in peers:
        peer.close()
    web.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_browser_that_reads_sees_the_end(page: Shown) -> None:
    server = serve(page)
    with browser(server) as web, web.stream("GET", "/live/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        closing = threading.Thread(target=server.close)
        closing.start()
        assert sum(1 for _ in lines) < 100, "to the last chunk, or this would raise"
        closing.join()


# --- acts -----------------------------------------------------------------------------------------------------------


def test_an_act_carries_who_asks(person: httpx.Client, page: Shown, server: LiveServer) -> None:
    answer = person.post("/live/act/threshold", json={"value": 0.5})
    assert (answer.status_code, answer.json()) == (200, {"done": "threshold"})
    assert person.post("/live/act/promote", headers={"Content-Type": "application/json"}).status_code == 200
    assert page.acted == [("threshold", {"value": 0.5}, "Ada"), ("promote", {}, "Ada")]
    refused = person.post("/live/act/refused", json={})
    assert (refused.status_code, refused.json()) == (409, {"error": "the candidate is still loading; wait"})
    assert (server.counts["acts"], server.counts["acts_refused"]) == (3, 1)


def test_a_slow_act_holds_up_only_acts(person: httpx.Client, page: Shown, server: LiveServer) -> None:
    done: list[int] = []

    def ask(action: str) -> None:
        with browser(server, person) as own:
            done.append(own.post(f"/live/act/{action}", json={}).status_code)

    asking = [threading.Thread(target=ask, args=(action,)) for action in ("slow", "slow", "pause")]
    for one in asking:
        one.start()
        assert page.inside.wait(5)
    begun = time.monotonic()
    assert person.get("/healthz").status_code == 200
    assert person.get("/metrics").status_code == 200
    assert person.get("/live/facts").status_code == 200
    assert person.get("/live/blob/frame/7").status_code == 200
    assert watch(person, lambda found: sum(name == "snapshot" for name, _, _ in found) >= 3)
    assert time.monotonic() - begun < 3
    assert done == []
    page.hold.set()
    for one in asking:
        one.join()
    assert done == [200, 200, 200]
    assert page.most == 1, "one at a time"


def test_acts_that_wait_are_bounded(person: httpx.Client, page: Shown, server: LiveServer) -> None:
    answers: list[int] = []

    def ask() -> None:
        with browser(server, person) as own:
            answers.append(own.post("/live/act/slow", json={}).status_code)

    asking = [threading.Thread(target=ask) for _ in range(20)]
    for one in asking:
        one.start()
    until(lambda: len(answers) == 4, "some to be refused")
    assert answers == [503] * 4
    page.hold.set()
    for one in asking:
        one.join()
    assert sorted(answers) == [200] * 16 + [503] * 4


def test_too_many_changes_are_slowed_down(page: Shown) -> None:
    server = serve(page, Limits(acts_per_s=0.001, acts_at_once=3))
    with browser(server) as web:
        web.post("/login", json={"token": TOKEN, "name": "Ada"})
        assert [web.post("/live/act/mark", json={}).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        web.post("/login", json={"token": TOKEN, "name": "Grace"})
        assert web.post("/live/act/mark", json={}).status_code == 200
    server.close()


def test_bugs_of_the_page_end_nothing_and_tell_nothing(
    person: httpx.Client, page: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/live/act/bug", "/live/act/bug"):
        answer = person.post(path, json={})
        assert answer.status_code == 500
        assert answer.json() == {"error": "act bug failed (KeyError); the daemon's log says more"}
    for name in ("1", "1", "2"):
        assert "secret" not in person.get(f"/live/blob/bug/{name}").text
    assert person.get("/live/blob/head/5000").status_code == 500
    assert person.get("/live/blob/head/4000").status_code == 200
    assert person.get("/live/facts").status_code == 200
    (_, told, _), *_ = watch(person, lambda found: found[-1][0] == "trouble")
    assert told["problems"][0].startswith("act bug failed")
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert logged == [
        "live page: act bug: KeyError: '/secret/path'",
        "live page: blob bug: ValueError: /secret/path 1",
        "live page: blob bug: ValueError: /secret/path 2",
        "live page: blob head: ValueError: its head has 5011 bytes; at most 4096 go",
    ]


def test_readiness_that_breaks_is_a_500_and_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def problems() -> list[str]:
        raise RuntimeError("/secret/path")

    server = LiveServer(
        host="127.0.0.1",
        port=0,
        metrics=Metrics("xfel_hits"),
        problems=problems,
        page=None,
        access=Access(host="127.0.0.1", token=TOKEN),
    )
    with browser(server) as web:
        for _ in range(3):
            answer = web.get("/readyz")
            assert (answer.status_code, "secret" in answer.text) == (500, False)
        assert web.get("/metrics").status_code == 200
    server.close()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
