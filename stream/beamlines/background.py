"""Long work in a process of its own: it gives way to all others, ends with its daemon, and is gone on with after that.

A ``Series`` of numbered folders holds what such processes make, so that all that has to be remembered is on the disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

EMPTY: Mapping[str, str] = MappingProxyType({})
NICE = 19
PATIENCE_S = 5.0
#: It ended because it was told to, as shells say it of SIGTERM.
STOPPED = frozenset({143, -15})
_PROGRESS = re.compile(r"^\d\d:\d\d:\d\d +(.*?) +(\d+)/(\d+)$", re.MULTILINE)

# Ends with the thread that started it (PR_SET_PDEATHSIG, Linux), so that none is left over by a daemon that was killed.
_LAUNCH = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 15)
except (AttributeError, OSError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Background:
    """One process at a time. For one thread: the process ends with the thread that started it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._process is not None

    def start(self, arguments: Sequence[str], told: Path, more: Mapping[str, str] = EMPTY) -> None:
        """Run the interpreter with these arguments; what it says is added to ``told``. Raises ``OSError``.

        ``more``: of the environment.
        """
        line = [sys.executable, "-c", _LAUNCH, str(os.getpid()), *arguments]
        with told.open("ab") as file:
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1", **more},
            )
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)

    def poll(self) -> int | None:
        """Its exit code, once, when it has ended."""
        if self._process is None or self._process.poll() is None:
            return None
        code, self._process = self._process.returncode, None
        return code

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Series:
    """Folders ``<prefix>-1``, ``<prefix>-2`` … in ``folder``."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self._prefix = folder, prefix
        self._name = re.compile(rf"^{re.escape(prefix)}-(\d+)$")

    def all(self) -> list[Path]:
        """Those that there are, by number."""
        try:
            found = [path for path in self.folder.iterdir() if self._name.match(path.name)]
        except OSError:
            return []
        return sorted(found, key=self._number)

    def latest(self) -> Path | None:
        """The last one."""
        return max(self.all(), key=self._number, default=None)

    def after(self, last: Path | None) -> Path:
        """The one that comes after ``last``; nothing is made."""
        return self.folder / f"{self._prefix}-{(0 if last is None else self._number(last)) + 1}"

    def _number(self, path: Path) -> int:
        return int(path.name.removeprefix(f"{self._prefix}-"))


def progress_in(log: Path) -> tuple[str, int, int]:
    """What a process says in its log: what it does, done of how many steps. ``starting`` before the first line."""
    steps = _PROGRESS.findall(tail(log))
    what, done, of = steps[-1] if steps else ("starting", 0, 1)
    return what, int(done), int(of)


def last_line(log: Path, most: int = 200) -> str:
    """The last thing that it said."""
    last = next((line for line in reversed(tail(log).splitlines()) if line.strip()), "it said nothing")
    return last.strip()[:most]


def tail(path: Path, most: int = 4096) -> str:
    """The end of a file, from the beginning of a line on."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
