"""Training the denoiser further on the session's own particles, in a process of its own that gives way to all others.

``classes/model-N`` in the session's folder holds what ``beamsieve finetune classes2d`` makes: its checkpoint, its log,
``tuning.json`` when it is finished, and the new bundle if that is better. All that has to be remembered is there, so
that a daemon that starts again goes on with what was begun.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .background import STOPPED, Background, Series, last_line, progress_in

log = logging.getLogger(__name__)

FOLDER, REPORT, LOG, FAILED = "classes", "tuning.json", "finetune.log", "failed"
EPOCHS = 6
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
        self._process = Background()
        self._folders = Series(directory / FOLDER, "model")
        self._gave_up = False
        self._text = ""

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._process.running

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
        self._process.start([*self._command, str(self._session.absolute()), *options], out / LOG)
        self._text = ""

    def poll(self) -> Outcome | None:
        """What came of it, once, when it has ended."""
        code = self._process.poll()
        if code is None:
            return None
        out = self._folders.latest()
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
        out = self._folders.latest()
        report = None if out is None else _report(out)
        if out is None or report is None or report.get("base_sha256") != base_sha256:
            return None
        found = self._judged(out, report)
        return found if found.kind == "better" else None

    def state(self) -> tuple[str, int, int, str] | None:
        """For the page: state in a word, done of how many steps, a text; None before the first."""
        if not self.running:
            return ("done", 1, 1, self._text) if self._text else None
        out = self._folders.latest()
        assert out is not None, "a training has a folder"
        what, done, of = progress_in(out / LOG)
        return "training", done, of, what

    def close(self) -> None:
        """End it; the next start goes on with it."""
        self._process.close()

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
        last = last_line(out / LOG)
        return Outcome("failed", f"the training ended with exit code {code}: {last} (all of it: {out / LOG})")

    def _out(self) -> Path:
        """The folder to work in: the last one, if it is not finished, or the next."""
        last = self._folders.latest()
        if last is not None and not (last / REPORT).exists() and not (last / FAILED).exists():
            return last
        return self._folders.after(last)

    def _used(self) -> int:
        """How many particles the largest finished training used; 0 before the first."""
        reports = (_report(path) for path in self._folders.all())
        return max((int(report.get("images", 0)) for report in reports if report is not None), default=0)


def _report(out: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((out / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
