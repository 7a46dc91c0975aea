"""The daemon as a user runs it: ``beamsieve run`` with a configuration, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

PATIENCE_S = 120.0
_COUNT = re.compile(r"^(beamsieve_[a-z_]+)(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


class Broken(RuntimeError):
    """A process of the benchmark did not do what it must; the message says which and how."""


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """A context manager: inside, the daemon is ready. ``changes`` are laid over the settings, block by block."""

    def __init__(self, folder: Path, endpoint: str, changes: Mapping[str, Any]) -> None:
        self._folder = folder
        self.port = free_port()
        self._json = folder / "summary.json"
        settings: dict[str, Any] = {
            "beamline": "xfel_hits",
            "source": {"kind": "dectris", "endpoint": endpoint},
            "files": {"directory": "files"},
            # Nothing may be lost, or the rate would not count: a full queue holds up the sender.
            "flow": {"when_full": "wait"},
            "service": {"port": self.port, "silent_s": 600},
        }
        for block, values in changes.items():
            if isinstance(values, Mapping):
                settings[block] = {**settings.get(block, {}), **values}
            else:
                settings[block] = values
        self._config = folder / "xfel_hits.yaml"
        self._config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        command = ["run", str(self._config), "--quiet", "--json", str(self._json)]
        self._process = spawn(["-m", "beamsieve.stream", *command], log=self._folder / "daemon.log")
        deadline = time.monotonic() + PATIENCE_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"the daemon is not ready: {tail(self._folder / 'daemon.log')}")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def counts(self) -> dict[str, float]:
        """The counters without their labels, summed over them."""
        found: dict[str, float] = {}
        for name, value in _COUNT.findall(self._get("/metrics")):
            found[name] = found.get(name, 0.0) + float(value)
        return found

    def drained(self, sent: int) -> None:
        """Wait until all that was sent has come out. Raises ``Broken`` when it does not."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            counts = self.counts()
            if counts["beamsieve_frames_read_total"] >= sent and not counts["beamsieve_frames_in_flight"]:
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"{sent} shots sent, after {PATIENCE_S:g} s the daemon has {counts}")
            time.sleep(0.2)

    def finish(self, sent: int) -> dict[str, Any]:
        """Stop the daemon with SIGTERM once all is out, and give its summary.

        Raises ``Broken`` where a shot was lost, dropped or failed: a rate with losses is none.
        """
        assert self._process is not None
        self.drained(sent)
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE_S)
        found: dict[str, Any] = json.loads(self._json.read_text())["xfel_hits"]
        if code != 0 or found["read"] != sent or found["accepted"] + found["rejected"] != sent:
            raise Broken(f"{sent} shots sent; the daemon ended with {code} and {found}")
        return found

    def _ready(self) -> bool:
        try:
            self._get("/readyz")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


def spawn(arguments: Sequence[str], log: Path, policy: str = "") -> subprocess.Popen[bytes]:
    """Start Python with these arguments; what it says goes into ``log``."""
    environment = {**os.environ, "BEAMSIEVE_LOG": "WARNING"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    with log.open("wb") as out:
        return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=out, stderr=subprocess.STDOUT)


def complete(
    arguments: Sequence[str],
    folder: Path,
    name: str,
    other: subprocess.Popen[bytes] | None = None,
    policy: str = "",
) -> dict[str, Any]:
    """Run Python with these arguments and ``--json`` to its end, and give what it wrote.

    ``policy``: what OpenMP's threads do while they wait (``OMP_WAIT_POLICY``).

    Raises ``Broken`` when it fails, or when the ``other`` process, without which it would wait for ever, is over.
    """
    path = folder / f"{name}.json"
    path.unlink(missing_ok=True)
    process = spawn([*arguments, "--json", str(path)], folder / f"{name}.log", policy)
    return collect(process, path, folder / f"{name}.log", other)


def collect(
    process: subprocess.Popen[bytes], path: Path, log: Path, other: subprocess.Popen[bytes] | None = None
) -> dict[str, Any]:
    """Wait for the end of a process that writes ``path``, and give what it wrote. Raises ``Broken``."""
    try:
        while process.poll() is None:
            if other is not None and other.poll() not in (None, 0):
                raise Broken(f"{log.stem} has nobody left to talk to")
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise Broken(f"{log.stem} ended with {process.returncode}: {tail(log)}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def tail(log: Path) -> str:
    """The last lines a process said."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:])
