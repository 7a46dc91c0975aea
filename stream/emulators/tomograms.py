"""A reconstruction program that is not there: it drops tomograms into a folder, slowly and untidily; truth beside.

Files grow in pieces, or are renamed when they are whole; on demand one stays cut short, one is filled after it was
allocated, one is overwritten by another tomogram later. The truth is in a folder of its own, named as the tomograms.
"""

from __future__ import annotations

import csv
import heapq
import itertools
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ..formats.mrc_write import MrcWriter
from .micrographs import Clock

if TYPE_CHECKING:
    from ...models.tomograms.simulator import Simulated

Make: TypeAlias = Callable[[int], "Simulated"]
"""Tomogram ``number``, from 1; called in a thread of its own, ahead of need."""
Voxels: TypeAlias = Literal["float32", "int16", "int8"]
MANNERS: Mapping[str, str] = {
    "changed": "overwritten by another tomogram after a while",
    "truncated": "cut short, and never finished",
    "preallocated": "as large as it will be from the start, zeros at its end until it is filled",
    "renamed": "written under another name with .tmp, and renamed at the end",
}
# Mode of the file, and what one standard deviation becomes.
_STORED: Mapping[str, tuple[int, float]] = {"float32": (2, 1.0), "int16": (1, 1000.0), "int8": (0, 16.0)}
_ANOTHER = 1_000_000
_PIECES, _SHARE, _CUT = 16, 0.5, 0.6


@dataclass(frozen=True, slots=True)
class Session:
    """How tomograms come: ``count`` (0: until stopped), ``every_s`` from one's first byte to the next one's.

    ``hostile``: manners, each of one tomogram, the second, the fourth and so on in the order given; ``manner``: of all
    others, ``plain`` (in pieces) or ``renamed``. ``change_s``: after how long the ``changed`` one is overwritten.
    ``truth``: folder for labels and particles; ``clean``: also for volumes without noise.
    """

    out: Path
    count: int = 10
    every_s: float = 10.0
    hostile: tuple[str, ...] = ()
    manner: Literal["plain", "renamed"] = "plain"
    change_s: float = 20.0
    truth: Path | None = None
    clean: bool = False
    suffix: str = ".mrc"
    voxels: Voxels = "float32"

    def __post_init__(self) -> None:
        unknown = [manner for manner in self.hostile if manner not in MANNERS]
        if unknown:
            raise ValueError(f"hostile: {', '.join(unknown)} unknown; known are {', '.join(MANNERS)}")
        if 0 < self.count <= len(self.hostile):
            least = len(self.hostile) + 1
            raise ValueError(f"count {self.count}: {len(self.hostile)} hostile ones need {least} or more")
        if self.truth is not None and self.truth.resolve() == self.out.resolve():
            raise ValueError(f"truth: {self.truth} is the folder of the tomograms; name another")

    def manners(self) -> Iterator[str]:
        """The manner of each tomogram in turn."""
        step = 2 if self.count == 0 or self.count > 2 * len(self.hostile) else 1
        places = {1 + step * i: manner for i, manner in enumerate(self.hostile)}
        numbers = range(self.count) if self.count else itertools.count()
        return (places.get(number, self.manner) for number in numbers)


@dataclass(slots=True)
class Dropped:
    """What was written so far: names, those of each manner, and particles of each class by the tomogram's name."""

    written: list[str] = field(default_factory=list)
    by_manner: dict[str, list[str]] = field(default_factory=lambda: {manner: [] for manner in MANNERS})
    particles: dict[str, dict[str, int]] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """For ``--json``: particles are of the tomograms as they now are, none of those that were cut short."""
        total: dict[str, int] = {}
        for of in self.particles.values():
            for name, number in of.items():
                total[name] = total.get(name, 0) + number
        return {"written": len(self.written), "names": self.written, **self.by_manner, "particles": total}


class TomogramWriter:
    """Writes a session. ``run`` returns when all is written, or after the file in work once ``stop`` is set."""

    def __init__(
        self, session: Session, make: Make, *, clock: Clock | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        self.dropped = Dropped()
        self._session, self._make = session, make
        self._clock, self._tell = clock or Clock(), tell or (lambda _: None)
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, stop: threading.Event) -> Dropped:
        """Write until done or stopped. Raises ``OSError`` where a folder cannot be written."""
        self._session.out.mkdir(parents=True, exist_ok=True)
        due = self._clock.now()
        with ThreadPoolExecutor(1, thread_name_prefix="simulator") as pool:
            try:
                for number, manner, made in self._made(pool):
                    self._pass(due - self._clock.now(), stop)
                    if stop.is_set():
                        break
                    # A simulation that is too slow does not catch up in a burst.
                    due = max(due, self._clock.now()) + self._session.every_s
                    self._drop(number, manner, made.result(), pool, stop)
                while self._later and not stop.is_set():
                    self._pass(self._later[0][0] - self._clock.now(), stop)
            finally:
                pool.shutdown(cancel_futures=True)
        return self.dropped

    def _made(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, str, Future[Simulated]]]:
        """Each tomogram while the next one is already in the making."""
        ahead: tuple[int, str, Future[Simulated]] | None = None
        for number, manner in enumerate(self._session.manners(), 1):
            coming = (number, manner, pool.submit(self._make, number))
            if ahead is not None:
                yield ahead
            ahead = coming
        if ahead is not None:
            yield ahead

    def _drop(self, number: int, manner: str, made: Simulated, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        name = f"TS_{number:04d}{self._session.suffix}"
        path = self._session.out / name
        if manner != "truncated":
            self._true(name, made)
        beside = path.with_name(name + ".tmp") if manner == "renamed" else path
        size = self._fill(beside, made, manner, stop)
        if beside != path:
            beside.replace(path)
        self.dropped.written.append(name)
        if manner in MANNERS and manner != "changed":
            self.dropped.by_manner[manner].append(name)
        self._tell(f"{name}: {size / 1e6:.1f} MB{'' if manner == 'plain' else ', ' + MANNERS[manner]}")
        if manner == "changed":
            another = pool.submit(self._make, number + _ANOTHER)
            due = self._clock.now() + self._session.change_s
            heapq.heappush(self._later, (due, next(self._order), lambda: self._change(path, another.result(), stop)))

    def _change(self, path: Path, made: Simulated, stop: threading.Event) -> None:
        self._true(path.name, made)
        self._fill(path, made, "plain", stop)
        self.dropped.by_manner["changed"].append(path.name)
        self._tell(f"{path.name}: overwritten")

    def _fill(self, path: Path, made: Simulated, manner: str, stop: threading.Event) -> int:
        """Write piece by piece, over half of the time until the next tomogram; at once when stopped. Returns bytes."""
        mode, scale = _STORED[self._session.voxels]
        with tempfile.TemporaryDirectory(prefix="beamsieve-tomogram-") as folder:
            whole = Path(folder) / "whole.mrc"
            _write(whole, made.data if mode == 2 else _rounded(made.data, scale, mode), mode, made.voxel_a)
            size = whole.stat().st_size
            wanted = int(_CUT * size) if manner == "truncated" else size
            with whole.open("rb") as source, path.open("wb") as stream:
                if manner == "preallocated":
                    os.truncate(stream.fileno(), size)
                step = -(-wanted // _PIECES)
                for at in range(0, wanted, step):
                    stream.write(source.read(min(step, wanted - at)))
                    stream.flush()
                    if self._session.every_s and not stop.is_set():
                        self._clock.wait(_SHARE * self._session.every_s / _PIECES, stop)
        return wanted

    def _pass(self, seconds: float, stop: threading.Event) -> None:
        """Let so much time pass, and do what falls due in it."""
        until = self._clock.now() + seconds
        while not stop.is_set():
            now = self._clock.now()
            if self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
                continue
            if now >= until:
                return
            self._clock.wait(min(until, self._later[0][0] if self._later else until) - now, stop)

    def _true(self, name: str, made: Simulated) -> None:
        of = made.particles
        self.dropped.particles[name] = {
            made.classes[label]: int((of.label == label).sum()) for label in np.unique(of.label)
        }
        if self._session.truth is not None:
            write_truth(self._session.truth, name.rpartition(".")[0], made, clean=self._session.clean)


def write_truth(folder: Path, stem: str, made: Simulated, *, clean: bool = False) -> None:
    """A tomogram's truth, whole files each: ``STEM_labels.mrc`` (mode 0), ``STEM_hidden.mrc``, ``STEM_particles.csv``.

    ``classes.json`` names the labels' values. Hidden is 1 where a membrane faces what no tilt shows. ``clean``: also
    ``STEM_clean.mrc``, without noise. Raises ``OSError``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "classes.json", json.dumps(dict(enumerate(made.classes)), indent=1) + "\n")
    _write(folder / f"{stem}_labels.mrc", made.labels.astype(np.int8), 0, made.voxel_a)
    _write(folder / f"{stem}_hidden.mrc", made.hidden.astype(np.int8), 0, made.voxel_a)
    if clean:
        _write(folder / f"{stem}_clean.mrc", made.clean, 2, made.voxel_a)
    rows = zip(made.particles.xyz, made.particles.label, made.particles.name, made.particles.diameter_a, strict=True)
    path = folder / f"{stem}_particles.csv"
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(("x", "y", "z", "class", "map", "diameter_a"))
        for (x, y, z), label, name, diameter in rows:
            table.writerow((f"{x:.2f}", f"{y:.2f}", f"{z:.2f}", made.classes[label], name, f"{diameter:.1f}"))
    beside.replace(path)


def _rounded(data: np.ndarray[Any, Any], scale: float, mode: int) -> np.ndarray[Any, Any]:
    ends = np.iinfo(np.int8) if mode == 0 else np.iinfo(np.int16)
    return np.clip(np.rint(data * scale), ends.min, ends.max).astype(ends.dtype)


def _write(path: Path, data: np.ndarray[Any, Any], mode: int, voxel_a: float) -> None:
    z, y, x = data.shape
    with MrcWriter(path, (z, y, x), mode, voxel_a, labels=("beamsieve emulate tomograms",)) as file:
        file.write(data)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
