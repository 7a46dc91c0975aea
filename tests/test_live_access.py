"""Who may look and who may change, by a fake clock, and every way around it that came to mind."""

from __future__ import annotations

import hmac
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from beamsieve.stream.live.access import (
    SESSION_S,
    SESSIONS,
    Access,
    Denied,
    cookie,
    hostname,
    is_loopback,
    network,
    token_in,
)
from beamsieve.stream.live.attempts import KNOWN, Pace, Tries
from beamsieve.stream.live.requests import parse, word

TOKEN = "a-token-of-some-length"
OWN = {"x-beamsieve": "1", "content-type": "application/json", "host": "127.0.0.1:9464"}


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def local(clock: Clock) -> Access:
    return Access(host="127.0.0.1", token=TOKEN, names=["proxy.facility.org", "tunnel:8080"], now=clock)


@pytest.fixture
def remote(clock: Clock) -> Access:
    return Access(host="0.0.0.0", token=TOKEN, now=clock)


@contextmanager
def denied(status: int) -> Iterator[None]:
    with pytest.raises(Denied) as raised:
        yield
    assert raised.value.status == status


# --- which names the daemon goes by ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9464", "localhost", "LOCALHOST:1", "localhost.:9464", "[::1]:9464", "127.8.8.8", "proxy.facility.org"],
)
def test_loopback_names_are_its_own(local: Access, host: str) -> None:
    assert local.host_allowed(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1:9464",
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost:9464:1",
        "localhost\x00",
        "[::1",
        "::1",
        "2130706433",
        "0x7f.1",
        "proxy.facility.org.evil.example",
        "ⓛocalhost",
    ],
)
def test_a_rebound_name_is_refused_on_loopback(local: Access, host: str) -> None:
    assert not local.host_allowed(host)


def test_elsewhere_addresses_and_configured_names_do(clock: Clock) -> None:
    named = Access(host="0.0.0.0", token=TOKEN, names=["daq.facility.org:9464"], now=clock)
    assert named.host_allowed("daq.facility.org:9464")
    assert named.host_allowed("10.1.2.3:9464"), "Prometheus goes by addresses, and those cannot be rebound"
    assert not named.host_allowed("evil.example:9464")
    assert Access(host="0.0.0.0", token=TOKEN, now=clock).host_allowed("any.name"), "nothing is shown without the token"
    assert not Access(host="0.0.0.0", token=TOKEN, now=clock).host_allowed("a b")


def test_what_counts_as_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.255.0.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "", "::", "192.168.1.1", "example.org", "::2")] == [False] * 6
    assert (hostname("[::1]:80"), hostname("A.B:80"), hostname("a/b"), hostname("a:")) == ("::1", "a.b", "", "")


# --- looking --------------------------------------------------------------------------------------------------------


def test_loopback_is_looked_at_freely(local: Access) -> None:
    for path in ("/live/facts", "/metrics", "/readyz"):
        local.look(path, "127.0.0.1", "", None)


def test_elsewhere_only_healthz_is_open(remote: Access, clock: Clock) -> None:
    remote.look("/healthz", "10.0.0.9", "", None)
    for path in ("/metrics", "/readyz", "/live/facts", "/healthz/", "/healthz?", ""):
        with denied(401):
            remote.look(path, "10.0.0.9", "", None)
    opened = Access(host="0.0.0.0", token=TOKEN, open_metrics=True, now=clock)
    opened.look("/metrics", "10.0.0.9", "", None)
    opened.look("/readyz", "10.0.0.9", "", None)
    with denied(401):
        opened.look("/live/facts", "10.0.0.9", "", None)


def test_a_bearer_may_look(remote: Access) -> None:
    remote.look("/metrics", "10.0.0.9", f"Bearer {TOKEN}", None)
    remote.look("/metrics", "10.0.0.9", f"bearer {TOKEN}", None)
    for wrong in (f"Basic {TOKEN}", TOKEN, "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \ud800"):
        with denied(401):
            remote.look("/metrics", "10.0.0.9", wrong, None)


def test_guessing_bearers_is_slowed_down_and_not_for_others(remote: Access, clock: Clock) -> None:
    for _ in range(5):
        with denied(401):
            remote.look("/metrics", "10.0.0.9", "Bearer wrong", None)
    with denied(429):
        remote.look("/metrics", "10.0.0.9", f"Bearer {TOKEN}", None)
    remote.look("/metrics", "10.0.0.8", f"Bearer {TOKEN}", None)
    clock.s += 1.01
    remote.look("/metrics", "10.0.0.9", f"Bearer {TOKEN}", None)


def test_a_daemon_without_token_lets_nobody_in(clock: Clock) -> None:
    shut = Access(host="0.0.0.0", token="", now=clock)
    with denied(403):
        shut.sign_in("10.0.0.9", "", "Ada")
    with denied(401):
        shut.look("/metrics", "10.0.0.9", "Bearer ", None)


# --- sessions -------------------------------------------------------------------------------------------------------


def test_a_session_carries_the_name_and_ends(local: Access, clock: Clock) -> None:
    secret = local.sign_in("127.0.0.1", TOKEN, "  Ada   Lovelace ")
    assert local.signed_in(secret) == "Ada Lovelace"
    clock.s += SESSION_S - 1
    assert local.signed_in(secret) == "Ada Lovelace"
    clock.s += 1
    assert local.signed_in(secret) is None


def test_signing_out_ends_only_that_session(local: Access) -> None:
    one, other = (local.sign_in("127.0.0.1", TOKEN, name) for name in ("Ada", "Grace"))
    local.sign_out(one)
    local.sign_out("never there")
    local.sign_out(None)
    assert (local.signed_in(one), local.signed_in(other)) == (None, "Grace")


def test_made_up_sessions_are_none(local: Access) -> None:
    secret = local.sign_in("127.0.0.1", TOKEN, "Ada")
    for wrong in (None, "", secret[:-1], secret + "=", TOKEN, "\ud800", "Ada"):
        assert local.signed_in(wrong) is None


def test_secrets_are_long_and_differ_and_are_not_kept(local: Access) -> None:
    secrets = {local.sign_in("127.0.0.1", TOKEN, "Ada") for _ in range(50)}
    assert len(secrets) == 50
    assert min(map(len, secrets)) >= 43, "256 bits in base64"
    kept = repr(local.__dict__)
    assert TOKEN not in kept
    assert not any(secret in kept for secret in secrets)


def test_the_number_of_sessions_is_bounded_and_the_oldest_goes(local: Access) -> None:
    secrets = [local.sign_in("127.0.0.1", TOKEN, "Ada") for _ in range(SESSIONS + 3)]
    assert sum(local.signed_in(secret) is not None for secret in secrets) == SESSIONS
    assert [local.signed_in(secret) for secret in secrets[:4]] == [None, None, None, "Ada"]


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\x00b", "a\x1b[31mb", "a\u202eb", "a\u200bb", "\ud800"])
def test_names_that_cannot_stand_in_a_log_are_refused(local: Access, name: str) -> None:
    with denied(400):
        local.sign_in("127.0.0.1", TOKEN, name)


def test_forty_characters_of_any_script_are_a_name(local: Access) -> None:
    assert local.signed_in(local.sign_in("127.0.0.1", TOKEN, "é" * 39 + "中")) == "é" * 39 + "中"


def test_comparing_takes_constant_time(local: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        lengths.append((len(one), len(other)))
        return bool(real(one, other))

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for wrong in ("", "x", TOKEN[:-1], "y" * 5000):
        with denied(403):
            local.sign_in("127.0.0.1", wrong, "Ada")
    local.sign_in("127.0.0.1", TOKEN, "Ada")
    assert lengths == [(32, 32)] * 5, "digests of one length, so that not even the length is told"


# --- how often ------------------------------------------------------------------------------------------------------


def test_wrong_tokens_make_wait_longer_and_longer(local: Access, clock: Clock) -> None:
    for _ in range(5):
        with denied(403):
            local.sign_in("10.0.0.9", "wrong", "Mallory")
    for wait_s in (1, 2, 4, 8, 16, 32, 60, 60):
        clock.s += 0.7
        with pytest.raises(Denied, match=f"too many wrong tokens; try again in {wait_s} s") as raised:
            local.sign_in("10.0.0.9", TOKEN, "Mallory")
        clock.s -= 0.7  # a wait that is told as over is none
        with pytest.raises(Denied, match=f"too many wrong tokens; try again in {wait_s} s") as raised:
            local.sign_in("10.0.0.9", TOKEN, "Mallory")
        assert raised.value.status == 429
        assert raised.value.wait_s == pytest.approx(wait_s)
        clock.s += wait_s
        with denied(403):
            local.sign_in("10.0.0.9", "wrong", "Mallory")
    assert local.sign_in("10.0.0.8", TOKEN, "Ada"), "others do not wait"
    clock.s += 60
    assert local.sign_in("10.0.0.9", TOKEN, "Ada")
    with denied(403):
        local.sign_in("10.0.0.9", "wrong", "Ada")


def test_one_ipv6_host_is_one_guesser(remote: Access) -> None:
    for number in range(5):
        with denied(403):
            remote.sign_in(f"2001:db8:1:2::{number:x}", "wrong", "Mallory")
    with denied(429):
        remote.sign_in("2001:db8:1:2:ffff::1", TOKEN, "Mallory")
    assert remote.sign_in("2001:db8:1:3::1", TOKEN, "Ada")
    assert network("10.0.0.1") == "10.0.0.1"


def test_what_is_remembered_of_guessers_is_bounded_and_forgotten(clock: Clock) -> None:
    tries = Tries(clock)
    for number in range(3 * KNOWN):
        tries.failed(str(number))
    assert len(tries._failed) == KNOWN
    for _ in range(2000):
        tries.failed("x")
    assert tries.wait_s("x") == 60
    clock.s += 3601
    assert tries.wait_s("x") == 0


def test_the_pace_of_changes(clock: Clock) -> None:
    pace = Pace(clock, per_s=2, at_once=3)
    assert [pace.take("a") for _ in range(4)] == [True, True, True, False]
    assert pace.take("b")
    clock.s += 0.5
    assert [pace.take("a") for _ in range(2)] == [True, False]
    clock.s += 1000
    assert [pace.take("a") for _ in range(4)] == [True, True, True, False]
    for number in range(2 * KNOWN):
        pace.take(str(number))
    assert len(pace._left) == KNOWN


# --- where changes come from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"content-type": "Application/JSON; charset=utf-8"},
        {"origin": "http://127.0.0.1:9464"},
        {"origin": "https://127.0.0.1:9464", "sec-fetch-site": "same-origin"},
        {"origin": "https://proxy.facility.org"},
        {"origin": "http://tunnel:8080"},
    ],
)
def test_the_own_page_may_ask_for_changes(local: Access, extra: dict[str, str]) -> None:
    local.same_site(OWN | extra)


@pytest.mark.parametrize(
    "extra",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:9465"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:9464.evil.example"},
        {"origin": "file://127.0.0.1:9464"},
        {"origin": "https://tunnel:8081"},
        {"origin": "https://proxy.facility.org:444"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:9464"},
        {"x-beamsieve": ""},
        {"x-beamsieve": "0"},
    ],
)
def test_no_other_page_may(local: Access, extra: dict[str, str]) -> None:
    with denied(403):
        local.same_site(OWN | extra)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_forms_change_nothing(local: Access, kind: str) -> None:
    with denied(415):
        local.same_site(OWN | {"content-type": kind})


# --- cookies, bodies, words -----------------------------------------------------------------------------------------


def test_cookies_given_twice_count_as_none() -> None:
    assert cookie(["a=1; s=secret; b=2"], "s") == "secret"
    assert cookie(["s=a=b"], "s") == "a=b"
    for headers in (["s=1; s=2"], ["s=1", "s=1"], ["a=1"], [], ["s"], ["xs=1; sx=1"]):
        assert not cookie(headers, "s"), headers


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"[1]",
        b'"text"',
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -1e999}',
        b'{"a": ' + b"9" * 6000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": 1} x',
        "{}".encode("utf-16"),
    ],
)
def test_bodies_that_are_refused(body: bytes) -> None:
    with denied(400):
        parse(body)


def test_a_body_that_is_understood() -> None:
    assert parse(b' {"value": 0.5, "marks": [{"id": "7", "x": -1e3}], "t": "\xc3\xa9"} ') == {
        "value": 0.5,
        "marks": [{"id": "7", "x": -1000.0}],
        "t": "é",
    }


@pytest.mark.parametrize("text", ["", ".", "..", "...", "a/b", "a\\b", "a\0", "é", "a b", "x" * 201, "%2e", "a\n"])
def test_words_that_are_none(text: str) -> None:
    with denied(404):
        word(text)


def test_words() -> None:
    for text in ("hits-sum", "r0012:4711", "FoilHole_1_2.mrc", "a" * 200):
        assert word(text) == text


# --- the token's file -----------------------------------------------------------------------------------------------


def test_a_token_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "token"
    before = os.umask(0)
    try:
        token = token_in(path)
    finally:
        os.umask(before)
    assert len(token) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_in(path) == token
    assert token_in(tmp_path / "other") != token


def test_two_daemons_that_start_together_have_one_token(tmp_path: Path) -> None:
    path, found, together = tmp_path / "token", [], threading.Barrier(8)

    def start() -> None:
        together.wait()
        found.append(token_in(path))

    daemons = [threading.Thread(target=start) for _ in range(8)]
    for daemon in daemons:
        daemon.start()
    for daemon in daemons:
        daemon.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_token_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o640)
    with pytest.raises(OSError, match=f"others can read it; run: chmod 600 {path}"):
        token_in(path)
    path.chmod(0o400)
    assert token_in(path) == TOKEN


@pytest.mark.parametrize("held", [b"", b"short\n", b"\xff" * 30, b"a" * 20 + b"\n" + b"b" * 20])
def test_a_file_without_a_fit_token_is_refused(tmp_path: Path, held: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(held)
    path.chmod(0o600)
    with pytest.raises(OSError, match="remove it"):
        token_in(path)


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be made: No such file or directory; choose another place"):
        token_in(tmp_path / "missing" / "token")
    with pytest.raises(OSError, match="cannot be read"):
        token_in(tmp_path)
