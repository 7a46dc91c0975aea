"""Scores the frames of files with the functions the daemon runs; reads the next batch while the model has this one."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ...models.bundle import BundleError
from ...models.hits.infer import CLASSES, to_input, verdicts
from ...models.runner import Batch, Runner
from ..decode.geometry import Assembler
from ..decode.layout import GeometryError
from ..errors import plain
from ..flow.frame import BadData
from ..flow.rates import Rate
from ..terminal import percent
from .stack_files import Stack, StackError, open_stack

T = TypeVar("T")
COLUMNS = ("file", "index", *(f"p{i}" for i in range(len(CLASSES))), "label")
_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
_BLOCK_BYTES = 64 << 20
_LISTED = 5


@dataclass(frozen=True, slots=True)
class View:
    """Which part of a frame the model sees.

    ``size``: of the model's input, in pixels. ``centre``, ``bin``: as for ``to_input``. ``mask``: CXI's pixel bits for
    all frames; ``own_mask``: take the mask beside the frames instead. ``geometry``: assembles (n, module, y, x).
    """

    size: int
    bin: int = 1
    centre: tuple[float, float] | None = None
    mask: npt.NDArray[np.uint32] | None = None
    own_mask: bool = True
    geometry: Path | None = None


@dataclass(slots=True)
class FileReport:
    """What became of one file: frames scored, frames lost, and why; each error names the file and the frame."""

    file: str
    dataset: str = ""
    frames: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)

    def lose(self, frames: int, error: str) -> None:
        """Note an error and how many frames it cost; of many, the first few are listed."""
        self.failed += frames
        if len(self.errors) < _LISTED:
            self.errors.append(error)


@dataclass(slots=True)
class Tally:
    """Hits and labels of all frames, at ``threshold``."""

    threshold: float
    frames: int = 0
    hits: int = 0
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))

    def add(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Judge (n, 5) probabilities, count them, and give their labels."""
        found = verdicts(probabilities, self.threshold)
        self.frames += len(probabilities)
        self.hits += int(found.accepted.sum())
        self.labels += np.bincount(found.labels, minlength=len(CLASSES))
        return found.labels

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Counts and rates, as plain values."""
        return {
            "frames": self.frames,
            "hits": self.hits,
            "hit_rate": self.hits / self.frames if self.frames else None,
            "labels": dict(zip(CLASSES, self.labels.tolist(), strict=True)),
            "seconds": seconds,
            "frames_per_second": self.frames / seconds,
        }

    def describe(self, seconds: float) -> str:
        """One line for a person."""
        labels = ", ".join(f"{name}: {n}" for name, n in zip(CLASSES, self.labels.tolist(), strict=True))
        rate = percent(Rate(self.hits, self.frames, seconds))
        speed = f"{self.frames / seconds:.0f} frames/s"
        return f"{self.frames} frames in {seconds:.1f} s ({speed}), hit rate {rate}, particles {labels}"


def score_files(
    files: Sequence[Path],
    dataset: str | None,
    view: View,
    runner: Runner,
    out: Path,
    tally: Tally,
    watch: Callable[[Path, int, int], None] = lambda _file, _done, _of: None,
) -> list[FileReport]:
    """Score every frame of ``files`` into the table ``out``, which appears when it is complete. One report per file.

    A file that cannot be read costs its own frames and no others; what could be read of it stays in the table.
    ``watch`` is told of (file, frames done, frames in all). Raises ``OSError`` where ``out`` cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".inprogress")
    reports: list[FileReport] = []
    with part.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for path in files:
            reports.append(FileReport(str(path)))
            for indices, probabilities in _score(path, dataset, view, runner, reports[-1], watch):
                labels = tally.add(probabilities)
                rows = zip(indices, probabilities, labels.tolist(), strict=True)
                table.writerows((path, index, *map(str, row), label) for index, row, label in rows)
    part.replace(out)
    return reports


def _score(
    path: Path,
    dataset: str | None,
    view: View,
    runner: Runner,
    report: FileReport,
    watch: Callable[[Path, int, int], None],
) -> Iterator[tuple[list[int], npt.NDArray[np.float32]]]:
    total = 0
    try:
        with open_stack(path, dataset) as stack:
            report.dataset, total = stack.dataset, len(stack)
            for indices, batch in _ahead(_batches(stack, view, runner, report)):
                probabilities = runner.run(batch)
                report.frames += len(indices)
                watch(path, report.frames + report.failed, total)
                yield indices, probabilities
    except StackError as error:
        report.lose(0, str(error))
    except GeometryError as error:
        report.lose(total, f"{path}: {plain(error)}")
    except (BadData, BundleError, *_DAMAGED) as error:
        lost = total - report.frames - report.failed
        report.lose(lost, f"{path}: {report.dataset}: {lost} of {total} frames were not scored: {plain(error)}")


def _batches(stack: Stack, view: View, runner: Runner, report: FileReport) -> Iterator[tuple[list[int], Batch]]:
    """Full batches, as far as that goes, from blocks of frames that are small enough for the memory."""
    place = _assembler(stack, view)
    indices: list[int] = []
    inputs: list[npt.NDArray[Any]] = []
    frame_bytes = int(np.prod(stack.shape[1:], dtype=np.int64)) * stack.dtype.itemsize
    step = max(1, min(runner.batch, _BLOCK_BYTES // max(frame_bytes, 1)))
    for first, frames, mask in _blocks(stack, view, step, report):
        if len(indices) + len(frames) > runner.batch:
            yield indices, runner.prepare(np.concatenate(inputs))
            indices, inputs = [], []
        indices += range(first, first + len(frames))
        inputs.append(_input(frames, mask, place, view))
    if indices:
        yield indices, runner.prepare(np.concatenate(inputs))


def _blocks(
    stack: Stack, view: View, step: int, report: FileReport
) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[Any] | None]]:
    """Frames and their mask; of a block that is damaged, the frames that are not."""

    def read(first: int, last: int) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any] | None]:
        return first, stack.read(first, last), stack.mask(first, last) if view.own_mask else view.mask

    for first in range(0, len(stack), step):
        last = min(first + step, len(stack))
        try:
            block = read(first, last)
        except _DAMAGED:
            if not stack.at_random:
                raise
        else:
            yield block
            continue
        for index in range(first, last):
            try:
                single = read(index, index + 1)
            except _DAMAGED as error:
                report.lose(1, f"{stack.path}: {stack.dataset}: frame {index} cannot be read: {plain(error)}")
            else:
                yield single


def _assembler(stack: Stack, view: View) -> Assembler | None:
    if view.geometry is not None:
        return Assembler(view.geometry, stack.shape[1:])
    if len(stack.shape) > 3:
        detail = f"{stack.path}: {stack.dataset} has frames of {stack.shape[1:]}; place the modules with --geometry"
        raise StackError(detail)
    return None


def _input(
    frames: npt.NDArray[Any], mask: npt.NDArray[Any] | None, place: Assembler | None, view: View
) -> npt.NDArray[Any]:
    centre = view.centre
    if place is not None:
        frames, mask = place.assemble(frames, mask)
        centre = place.centre if centre is None else centre
    return to_input(frames, mask, size=view.size, centre=centre, bin=view.bin)


def _ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items, ``depth`` of them made in another thread while the caller is busy."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[T | None]] = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
