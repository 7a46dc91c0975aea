"""The unit's command as a real process: its configuration, its system calls, what it tells systemd, how it ends."""

from __future__ import annotations

import ctypes.util
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from beamsieve.stream.commands.deploy import deploy
from typer.testing import CliRunner

CONFIG = """beamline: xfel_hits
source: {kind: dectris, endpoint: "tcp://127.0.0.1:1"}   # nobody is there: the daemon waits
model: {bundle: hits-resnet10}
files: {directory: out}
"""
#: Starts a program whose system calls are filtered as systemd would: all but those named fail with EPERM.
FILTERED = """import ctypes, errno, os, sys
seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
seccomp.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(seccomp.seccomp_init(0x00050000 | errno.EPERM))
for name in sys.argv[1].split(","):
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        assert seccomp.seccomp_rule_add(context, 0x7fff0000, number, 0) == 0, name
assert seccomp.seccomp_load(context) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "hits.yaml").write_text(CONFIG)
    app = typer.Typer()
    app.command()(deploy)
    names = {"--config": folder / "hits.yaml", "--data": folder / "data", "--config-dir": folder / "out/config"}
    options = [str(word) for pair in names.items() for word in pair]
    done = CliRunner().invoke(app, [str(folder / "out"), *options, "--port", str(port)])
    assert done.exit_code == 0, done.output
    (folder / "data").mkdir()
    (folder / "logs/beamsieve").mkdir(parents=True)
    return folder


def values(site: Path, name: str) -> list[str]:
    text = (site / "out/systemd/beamsieve@.service").read_text()
    return re.findall(rf"^{name}=(.*)$", text, re.M)


def command(site: Path) -> list[str]:
    """The words of ExecStart as systemd would make them."""
    words = shlex.split(values(site, "ExecStart")[0].replace("%i", "hits").replace("%L", str(site / "logs")))
    assert words.pop() == "$BEAMSIEVE_ARGS", "empty in the environment file, and then no word at all"
    return words


def allowed(site: Path) -> set[str]:
    """The system calls that the unit's filters leave, as systemd-analyze spells their groups out."""
    found = members("@default")
    for value in values(site, "SystemCallFilter"):
        names = {call for word in value.lstrip("~").split() for call in members(word)}
        found = found - names if value.startswith("~") else found | names
    return found


def members(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    inner = [line.strip() for line in told.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return {call for one in inner for call in members(one)}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(35)
        yield server, str(tmp_path / "notify")


def test_the_unit_starts_feeds_the_watchdog_and_drains(site: Path, manager: tuple[socket.socket, str]) -> None:
    server, address = manager
    words = command(site)
    if shutil.which("systemd-analyze") and ctypes.util.find_library("seccomp"):
        words = [sys.executable, "-c", FILTERED, ",".join(allowed(site)), *words]
    environ = os.environ | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, env=environ, cwd=site / "data", stderr=subprocess.PIPE, text=True) as daemon:
        try:
            assert server.recv(4096) == b"READY=1"
            told: list[str] = []
            while told.count("WATCHDOG=1") < 3 or not any(line.startswith("STATUS=") for line in told):
                told.append(server.recv(4096).decode())
            health = healthcheck(site)
            assert health.returncode == 0, health.stderr
            daemon.send_signal(signal.SIGTERM)
            _, err = daemon.communicate(timeout=20)
        finally:
            daemon.kill()
    assert daemon.returncode == 0, err
    server.setblocking(False)
    rest = [server.recv(4096).decode() for _ in range(20) if waiting(server)]
    assert "STOPPING=1" in rest
    assert json.loads((site / "logs/beamsieve/hits.json").read_text())["xfel_hits"]
    assert healthcheck(site).returncode != 0, "nobody answers any more"


def test_the_containers_command_opens_metrics_and_readiness_and_keeps_the_page_closed(
    site: Path, manager: tuple[socket.socket, str]
) -> None:
    server, address = manager
    service = yaml.safe_load((site / "out/compose/compose.yaml").read_text())["services"]["hits"]
    places = {"/etc/beamsieve": site / "out/config", "/run/secrets/page_token": site / "out/compose/page_token"}
    words = service["command"]
    for inside, outside in places.items():
        words = [word.replace(inside, str(outside)) for word in words]
    lit = ["--set", "model=null", "--set", "screen={}"]  # starts sooner
    program = shlex.split(values(site, "ExecStart")[0])[0]
    environ = os.environ | {"NOTIFY_SOCKET": address, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([program, *words, *lit], env=environ, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            assert server.recv(4096) == b"READY=1"
            port = int(service["environment"]["BEAMSIEVE_PORT"])
            assert ask(port, "/metrics") == 200
            assert ask(port, "/readyz") in {200, 503}
            assert ask(port, "/live/facts") == 401
            token = (site / "out/compose/page_token").read_text().strip()
            assert ask(port, "/live/facts", token) == 200
        finally:
            daemon.terminate()
            daemon.communicate(timeout=20)


def ask(port: int, path: str, token: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()


def waiting(server: socket.socket) -> bool:
    try:
        return bool(server.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def healthcheck(site: Path) -> subprocess.CompletedProcess[str]:
    """What the image runs to see whether the daemon is well, told its port as compose tells it."""
    text = (site / "out/container/Containerfile").read_text()
    words = json.loads(text.partition("HEALTHCHECK")[2].partition("CMD ")[2].partition("\n")[0])
    port = re.search(r'BEAMSIEVE_PORT: "(\d+)"', (site / "out/compose/compose.yaml").read_text())
    assert port
    environ = {"BEAMSIEVE_PORT": port[1], "http_proxy": "http://127.0.0.1:1"}  # a proxy must not be asked
    return subprocess.run(
        [sys.executable, *words[1:]], env=environ, capture_output=True, text=True, timeout=20, check=False
    )


def test_a_wrong_configuration_ends_with_the_code_that_is_not_restarted(site: Path, tmp_path: Path) -> None:
    words = command(site)
    wrong = tmp_path / "hits.yaml"
    wrong.write_text(CONFIG + "flaw: 1\n")
    words[words.index(str(site / "out/config/hits.yaml"))] = str(wrong)
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=False)
    assert str(done.returncode) in values(site, "RestartPreventExitStatus")
    assert f"{wrong}:5: flaw: unknown" in done.stderr
