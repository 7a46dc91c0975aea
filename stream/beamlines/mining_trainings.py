"""Networks that are trained on a session, in a process of their own: the autoencoder further, the segmentation anew.

``models/codes-N`` and ``models/segments-N`` in the session's folder hold what the commands make. ``wanted.json`` says
what a training is for, ``ended.json`` how it ended; what has no ``ended.json`` is gone on with by the next daemon.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..sinks.picks.files import write_whole
from .background import EMPTY, STOPPED, Background, Series, last_line, progress_in

log = logging.getLogger(__name__)

FOLDER, LOG, WANTED, ENDED = "models", "training.log", "wanted.json", "ended.json"

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a training ended. ``path``: the bundle, where there is one to use; ``text``: for a person."""

    kind: Literal["done", "worse", "failed", "stopped"]
    text: str
    path: Path | None = None


class Training:
    """Trainings of one kind, one at a time. For the worker's thread. ``prefix``: of their folders."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self.folders = Series(directory / FOLDER, prefix)
        self._process = Background()
        self._out: Path | None = None
        self._resumed = False
        self.gave_up = False

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._process.running

    @property
    def wanted(self) -> JSON:
        """What the one under way is for; nothing where there is none."""
        return {} if self._out is None or not self.running else _read(self._out / WANTED)

    def wanted_in(self, out: Path) -> JSON:
        """What the training in this folder is, or was, for."""
        return _read(out / WANTED)

    def unfinished(self) -> JSON:
        """What the last one was for, where it was stopped; nothing where it came to an end."""
        last = self.folders.latest()
        return {} if last is None or (last / ENDED).exists() else _read(last / WANTED)

    def start(self, arguments: Sequence[str], wanted: Mapping[str, Any], more: Mapping[str, str] = EMPTY) -> None:
        """Run ``arguments`` with ``--out FOLDER`` behind: anew, or on from where the same was stopped.

        ``more``: of the environment. Raises ``OSError``.
        """
        out = self._folder_for(wanted)
        self._resumed = out.exists()
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / WANTED, json.dumps(dict(wanted)).encode())
        self._process.start([*arguments, "--out", str(out)], out / LOG, more)
        self._out = out

    def poll(self) -> tuple[Path, int] | None:
        """(folder, exit code), once, when it has ended."""
        code = self._process.poll()
        if code is None or self._out is None:
            return None
        return self._out, code

    def end(self, out: Path, ended: Ended) -> None:
        """Remember how it ended; not so one that was stopped, nor one that could not be gone on with.

        That one is left behind, and begun anew in a folder of its own: the session has changed since, perhaps.
        """
        if ended.kind == "failed" and self._resumed:
            (out / WANTED).unlink(missing_ok=True)
        elif ended.kind != "stopped":
            told = asdict(ended) | {"path": None if ended.path is None else ended.path.name}
            write_whole(out / ENDED, json.dumps(told).encode())

    def last(self) -> Sequence[tuple[JSON, Ended]]:
        """What was trained for what, and how it ended, the newest first."""
        found = []
        for folder in reversed(self.folders.all()):
            ended = _read(folder / ENDED)
            if ended.get("kind") in {"done", "worse", "failed"}:
                path = None if ended.get("path") is None else folder / str(ended["path"])
                found.append((_read(folder / WANTED), Ended(ended["kind"], str(ended.get("text", "")), path)))
        return found

    def state(self) -> tuple[int, int, str] | None:
        """Done of how many steps, and what it does; None where none is under way."""
        if self._out is None or not self.running:
            return None
        what, done, of = progress_in(self._out / LOG)
        return done, of, what

    def close(self) -> None:
        """End it; the next start goes on with it."""
        self._process.close()

    def _folder_for(self, wanted: Mapping[str, Any]) -> Path:
        last = self.folders.latest()
        if last is not None and not (last / ENDED).exists() and _read(last / WANTED) == dict(wanted):
            return last
        return self.folders.after(last)


def broken(out: Path, code: int) -> Ended:
    """What to say of a process that ended with this exit code, and left nothing."""
    if code in STOPPED:
        return Ended("stopped", "the training was stopped; the next start goes on with it")
    return Ended("failed", f"the training ended with exit code {code}: {last_line(out / LOG)} (all of it: {out / LOG})")


def _read(path: Path) -> JSON:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
