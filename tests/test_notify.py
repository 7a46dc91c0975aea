"""What the daemon tells the service manager, over a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from beamsieve.stream.flow.ledger import Tally
from beamsieve.stream.notify import LONGEST_STATUS, Notifier, Progress, period


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and the NOTIFY_SOCKET that leads to it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@beamsieve-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        server.settimeout(5)
        yield server, name


def heard(server: socket.socket, count: int) -> list[str]:
    return [server.recv(4096).decode() for _ in range(count)]


def nothing_more(server: socket.socket) -> bool:
    server.setblocking(False)
    try:
        server.recv(4096)
    except BlockingIOError:
        return True
    return False


def test_ready_status_and_stopping_arrive_one_datagram_each(manager: tuple[socket.socket, str]) -> None:
    server, name = manager
    with Notifier(environ={"NOTIFY_SOCKET": name}) as notifier:
        notifier.ready()
        notifier.status("hits 5 %\nready")
        notifier.status("hits 5 % ready")  # the same line: not sent again
        notifier.status("é" * 1000)
        notifier.stopping()
    assert heard(server, 4) == ["READY=1", "STATUS=hits 5 % ready", "STATUS=" + "é" * LONGEST_STATUS, "STOPPING=1"]
    assert nothing_more(server)


def test_the_watchdog_is_fed_from_ready_on_at_half_its_period(manager: tuple[socket.socket, str]) -> None:
    server, name = manager
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())}
    with Notifier(environ=environ) as notifier:
        assert notifier.beat_s == pytest.approx(0.02)
        assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]
        notifier.ready()
        assert heard(server, 4) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_a_pipeline_that_is_stuck_starves_it_and_the_log_says_so_once(
    manager: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture
) -> None:
    server, name = manager
    living = [True]
    notifier = Notifier(lambda: living[0], {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
    with caplog.at_level(logging.ERROR):
        assert notifier.alive()
        living[0] = False
        assert not notifier.alive()
        assert not notifier.alive()
        assert len(caplog.records) == 1
        living[0] = True
        assert notifier.alive()
        notifier.stopping()
        living[0] = False
        assert not notifier.alive()
    assert len(caplog.records) == 1, "what ends because it was told to is not stuck"
    assert heard(server, 3) == ["WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]
    assert nothing_more(server)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative/name"}])
def test_without_a_manager_nothing_is_sent(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with Notifier(environ=environ | {"WATCHDOG_USEC": "1000"}) as notifier:
        notifier.ready()
        notifier.status("ready")
        notifier.stopping()
        assert notifier.beat_s == 0
    assert not caplog.records


def test_a_manager_that_is_gone_is_said_once_and_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.stopping()
    assert [record.getMessage() for record in caplog.records] == [
        "NOTIFY_SOCKET: the service manager does not take what we say: No such file or directory"
    ]


def test_a_manager_that_reads_nothing_does_not_hold_the_daemon_up(manager: tuple[socket.socket, str]) -> None:
    _, name = manager
    notifier = Notifier(environ={"NOTIFY_SOCKET": name})
    for number in range(5000):  # far more than a socket's queue holds
        notifier.status(f"{number} {'x' * 300}")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "60000000"}, 60),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0),  # meant for our parent
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "-5"}, 0),
    ],
)
def test_whom_the_watchdog_means(environ: dict[str, str], seconds: float) -> None:
    assert period(environ) == seconds


def test_progress_is_judged_by_what_ends_and_not_by_what_is_dropped() -> None:
    now, tally, running = [0.0], [Tally()], [True]
    living = Progress(lambda: tally[0], patience_s=300, running=lambda: running[0], now=lambda: now[0])
    now[0] = 10_000
    assert living(), "no beam for hours"
    tally[0] = Tally(read=10, rejected=4)
    assert living()
    now[0] += 299
    tally[0] = Tally(read=9000, rejected=4, dropped=8000)  # the first queue drops its oldest while the device hangs
    assert living()
    now[0] += 2
    assert not living()
    tally[0] = Tally(read=9000, rejected=5, dropped=8000)
    assert living(), "it went on"
    now[0] += 1000
    assert not living()
    tally[0] = Tally(read=9000, rejected=1000, dropped=8000)
    assert living(), "nothing is in flight"
    running[0] = False
    assert not living()
