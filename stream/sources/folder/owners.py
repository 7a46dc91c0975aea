"""Who holds a claim, and whether that process still lives.

On the same host a process is asked for by its id and its start time, within the same boot and the same PID namespace (a
container's process 7 is not the host's). For all others only their heartbeat counts: a number that goes up. Clocks of
other hosts are never compared with ours.
"""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """One daemon of the past or present. ``place``: boot and PID namespace, "" where unknown; ``started``: ticks."""

    owner: str
    host: str
    place: str
    pid: int
    started: str

    @classmethod
    def ourselves(cls) -> Owner:
        """The process we are, under a new name."""
        pid = os.getpid()
        state = _state(pid)
        return cls(uuid.uuid4().hex, socket.gethostname(), _place(), pid, state[1] if state else "")

    def is_alive(self) -> bool | None:
        """Whether the process lives; None where that cannot be known from here."""
        if not self.place or self.place != _place():
            return None
        state = _state(self.pid)
        if state is not None:
            return state[0] not in "ZX" and state[1] == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return None  # it is there, and /proc hides the processes of others
        return None


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _state(pid: int) -> tuple[str, str] | None:
    """State letter and start time of a process, None where there is none (proc(5), /proc/pid/stat)."""
    try:
        # The name in parentheses may hold anything, parentheses and blanks too.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None
