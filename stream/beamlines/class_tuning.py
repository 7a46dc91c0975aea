"""Training the denoiser further on the session's own particles, in a process of its own that gives way to all others.

``classes/model-N`` in the session's folder holds what ``beamsieve finetune classes2d`` makes: its checkpoint, its log,
``tuning.json`` when it is finished, and the new bundle if that is better. All that has to be remembered is there, so
that a daemon that starts again goes on with what was begun.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger(__name__)

FOLDER, REPORT, LOG, FAILED = "classes", "tuning.json", "finetune.log", "failed"
EPOCHS = 6
NICE = 19
PATIENCE_S = 5.0
#: It ended because it was told to, as shells say it of SIGTERM.
STOPPED = frozenset({143, -15})
_DIRECTORY = re.compile(r"^model-(\d+)$")
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
COMMAND = ("-m", "beamsieve.stream", "finetune", "classes2d")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended. ``path``: the new bundle, where it is better. ``text``: for a person."""

    kind: Literal["better", "worse", "failed"]
    text: str
    path: Path | None = None


class Tuning:
    """One training at a time. For the worker's thread.

    ``at``: particles from which on it is tried; ``most``: how many are used at most. ``command``: what is run, after
    the interpreter.
    """

    def __init__(
        self, directory: Path, *, at: int, most: int, device: str = "auto", command: Sequence[str] = COMMAND
    ) -> None:
        self._session = directory
        self._at, self._most, self._device, self._command = at, most, device, tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = directory / FOLDER
        self._gave_up = False
        self._text = ""

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._process is not None

    def due(self, particles: int) -> bool:
        """Whether to begin one now that there are so many particles: the first, or one with twice as many as before."""
        if self.running or self._gave_up or particles < self._at:
            return False
        used = self._used()
        return used == 0 or (used < self._most and particles >= 2 * used)

    def start(self, base: Path) -> None:
        """Begin, or go on with what was begun. ``base``: the bundle it starts from. Raises ``OSError``."""
        out = self._out()
        out.mkdir(parents=True, exist_ok=True)
        options = ["--from", str(base), "--out", str(out), "--most", str(self._most), "--epochs", str(EPOCHS)]
        options += ["--threads", "1", "--device", self._device, "--json", str(out / "outcome.json"), "--resume"]
        line = [sys.executable, "-c", _LAUNCH, str(os.getpid()), *self._command, str(self._session.absolute())]
        with (out / LOG).open("ab") as told:
            self._process = subprocess.Popen(
                [*line, *options],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
        self._text = ""

    def poll(self) -> Outcome | None:
        """What came of it, once, when it has ended."""
        if self._process is None or self._process.poll() is None:
            return None
        code, self._process = self._process.returncode, None
        out = self._latest()
        assert out is not None, "a training has a folder"
        report = _report(out)
        if report is not None:
            found = self._judged(out, report)
        elif code in STOPPED:
            self._gave_up = True
            found = Outcome("failed", "the training was stopped; the next start goes on with it")
        else:
            found = self._broken(out, code)
        self._text = found.text
        return found

    def give_up(self) -> None:
        """It cannot be started; not again before the next daemon."""
        self._gave_up = True

    def left_over(self, base_sha256: str) -> Outcome | None:
        """A training from this bundle that was better, and that a daemon which ended meanwhile did not adopt."""
        out = self._latest()
        report = None if out is None else _report(out)
        if out is None or report is None or report.get("base_sha256") != base_sha256:
            return None
        found = self._judged(out, report)
        return found if found.kind == "better" else None

    def state(self) -> tuple[str, int, int, str] | None:
        """For the page: state in a word, done of how many steps, a text; None before the first."""
        if self._process is None:
            return ("done", 1, 1, self._text) if self._text else None
        out = self._latest()
        steps = _PROGRESS.findall(_tail(out / LOG)) if out is not None else []
        what, done, of = steps[-1] if steps else ("starting", 0, 1)
        return "training", int(done), int(of), what

    def close(self) -> None:
        """End it; the next start goes on with it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # Inside

    def _judged(self, out: Path, report: dict[str, Any]) -> Outcome:
        try:
            before, after, error = (float(report[name]) for name in ("before", "after", "error"))
            path = None if report["path"] is None else out / Path(str(report["path"])).name
            better = bool(report["better"]) and path is not None
        except (KeyError, TypeError, ValueError) as mistake:
            return Outcome("failed", f"{out / REPORT}: cannot be used ({mistake})")
        numbers = f"{before:.4f} before, {after:.4f} after, ± {error:.4f}"
        if better:
            return Outcome("better", f"trained on {report.get('images', '?')} particles: {numbers}", path)
        return Outcome("worse", f"training on {report.get('images', '?')} particles made it no better: {numbers}")

    def _broken(self, out: Path, code: int) -> Outcome:
        # Not again with what failed, and not again and again in one night.
        self._gave_up = True
        with suppress(OSError):
            (out / FAILED).touch()
        last = next((line for line in reversed(_tail(out / LOG).splitlines()) if line.strip()), "it said nothing")
        return Outcome(
            "failed", f"the training ended with exit code {code}: {last.strip()[:200]} (all of it: {out / LOG})"
        )

    def _out(self) -> Path:
        """The folder to work in: the last one, if it is not finished, or the next."""
        last = self._latest()
        if last is not None and not (last / REPORT).exists() and not (last / FAILED).exists():
            return last
        number = 0 if last is None else int(last.name.removeprefix("model-"))
        return self._folder / f"model-{number + 1}"

    def _latest(self) -> Path | None:
        return max(self._all(), key=lambda path: int(path.name.removeprefix("model-")), default=None)

    def _all(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if _DIRECTORY.match(path.name)]
        except OSError:
            return []

    def _used(self) -> int:
        """How many particles the largest finished training used; 0 before the first."""
        reports = (_report(path) for path in self._all())
        return max((int(report.get("images", 0)) for report in reports if report is not None), default=0)


def _report(out: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((out / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _tail(path: Path, most: int = 4096) -> str:
    """The end of a file, from the beginning of a line on."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
