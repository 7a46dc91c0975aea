"""Debian's own ``prometheus``, started on this machine to scrape daemons under test and to answer queries."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

PROMETHEUS = Path(__file__).parents[1] / "deploy" / "prometheus"
RULES = tuple(sorted((PROMETHEUS / "rules").glob("*.yml")))


@dataclass(frozen=True)
class Target:
    """A daemon to scrape: ``address`` is host:port; the labels are those of deploy/prometheus/prometheus.yml."""

    address: str
    beamline: str
    instrument: str = "test"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One series of an answer at one moment; the value may be NaN."""

    labels: Mapping[str, str]
    value: float


class QueryError(AssertionError):
    """Prometheus refused an expression; the message holds both."""


class Prometheus:
    """A running server. ``url`` without a slash at the end; ``log`` is what it wrote until now."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = log

    @property
    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text()

    def query(self, expr: str) -> list[Sample]:
        """The series of an expression now; raises ``QueryError`` for one that is not understood. A scalar is one."""
        found = self.get("/api/v1/query", query=expr)
        if found["resultType"] == "scalar":
            return [Sample({}, float(found["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    def over(self, expr: str, start: float, end: float, step: float) -> list[tuple[Mapping[str, str], list[float]]]:
        """The series of an expression from ``start`` to ``end`` (Unix seconds) each ``step`` seconds."""
        found = self.get("/api/v1/query_range", query=expr, start=start, end=end, step=step)
        return [(one["metric"], [float(value) for _, value in one["values"]]) for one in found["result"]]

    def get(self, path: str, **parameters: Any) -> Any:
        """``data`` of an answer of the HTTP API."""
        address = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise QueryError(f"{parameters.get('query', path)}\n{said}") from None

    def wait(self, expr: str, true: Callable[[list[Sample]], bool] = bool, seconds: float = 25) -> list[Sample]:
        """Ask until the answer is ``true`` (there is one); what is waited for is another process's scrapes."""
        deadline = time.monotonic() + seconds
        while not true(found := self.query(expr)):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {expr}: {found}\n{self.log[-2000:]}")
            time.sleep(0.2)
        return found

    def wait_for_scrapes(self, n: int = 3, seconds: float = 25) -> None:
        """Wait until every target that is up was scraped ``n`` times, and every group of rules evaluated after that."""
        self.wait(f"min(sum_over_time(up[1h]) > 0) >= {n}", seconds=seconds)
        # Twice: the first may have begun before the last scrape was stored, and groups build on one another.
        for _ in range(2):
            before, deadline = self._evaluated(), time.monotonic() + seconds
            while not all(when != before[name] for name, when in self._evaluated().items()):
                if time.monotonic() > deadline:
                    raise AssertionError(f"waited {seconds} s for rules to be evaluated\n{self.log[-2000:]}")
                time.sleep(0.2)

    def rules(self) -> dict[str, dict[str, Any]]:
        """Every rule and alert by its name, as the server tells it: ``health``, ``lastError``, ``query``, ``state``."""
        groups = self.get("/api/v1/rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def _evaluated(self) -> dict[str, str]:
        return {group["name"]: group["lastEvaluation"] for group in self.get("/api/v1/rules")["groups"]}


def configuration(targets: Sequence[Target], rules: Sequence[Path] = RULES, interval_s: int = 1) -> str:
    """A configuration as deploy/prometheus/prometheus.yml, but faster and with these targets."""
    jobs = [
        {
            "targets": [target.address],
            "labels": {"instrument": target.instrument, "beamline": target.beamline, **target.labels},
        }
        for target in targets
    ]
    every = f"{interval_s}s"
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "beamsieve", "static_configs": jobs}],
        }
    )


@contextmanager
def scraping(targets: Sequence[Target], *, rules: Sequence[Path] = RULES, interval_s: int = 1) -> Iterator[Prometheus]:
    """A Prometheus that scrapes ``targets`` and evaluates the rules as they are; the test is skipped without one."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    with tempfile.TemporaryDirectory(prefix="beamsieve-prometheus-") as folder:
        home = Path(folder)
        (home / "prometheus.yml").write_text(configuration(targets, rules, interval_s))
        port = free_port()
        command = [
            program,
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_until_ready(port, server, home / "log")
            yield Prometheus(port, home / "log")
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(port: int, server: subprocess.Popen[bytes], log: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"prometheus does not answer:\n{log.read_text()[-3000:]}")
