"""The live page of ``cryoem_picks``: micrographs with their picks, particles, yield, what a threshold would give."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ..flow.frame import Failure, Result, RunStart
from ..flow.metrics import Metrics
from ..flow.ports import Listener
from ..live.changes import Changes
from ..live.class_view import ClassLevers
from ..live.common import Common, finite
from ..live.drawing import KEPT, Drawing, Job
from ..live.latest import Latest
from ..live.marks import Marks
from ..live.micrographs import Micrograph
from ..live.page import JSON, Blob, Controls, Page, Picture
from ..live.reviewed import PickReview
from ..live.strips import Strips
from ..live.table import MOST_ROWS, Table
from ..live.views import BUDGET, Image, Views, still_image
from ..sinks.picks.micrograph import PickedMicrograph
from .page_classes import BLOBS, ClassPanel
from .picks_blobs import PicksBlobs
from .picks_stored import Stored, micrograph_of, picked_now

SHOWN_ROWS = 20
WAITING_FILES = 50
#: Micrographs that come faster than this are not all drawn; every one has its row.
DRAW_S = 2.0
REDRAWN = 3
NUMBERS: Mapping[str, tuple[str, str]] = {
    "picks": ("picks", ""),
    "candidates": ("candidates", ""),
    "seconds": ("time of work", "s"),
    "mean": ("mean of the pixels", ""),
    "sd": ("standard deviation of the pixels", ""),
    "saturated_fraction": ("saturated pixels", "fraction"),
    "missing_fraction": ("pixels without a number", "fraction"),
    "gradient": ("rise across the picture", "s.d."),
    "carbon_fraction": ("carbon", "fraction"),
    "ice_fraction": ("ice crystals", "fraction"),
    "contrast": ("contrast against noise", ""),
    "falloff": ("exponent of the spectrum", ""),
}


class PicksWatch(Listener):
    """Hears of every micrograph in the sinks' thread; notes its numbers, and leaves its pixels to another."""

    def __init__(self, page: PicksPage) -> None:
        self._page = page

    def start(self, mark: RunStart) -> None:
        """A run begins: counts of the run start anew."""
        self._page.begin(mark)

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """A row each."""
        for result in results:
            found = result.found.get("micrograph")
            if isinstance(found, PickedMicrograph):
                self._page.add(found, result.frame.data, sum(result.found.get("seconds", {}).values()))
        return ()

    def flush(self) -> None:
        """Called about every second: note the counters, for rates over the last seconds."""
        self._page.common.tick()

    def close(self) -> None:
        """The pipeline is over."""
        self._page.close()


class PicksPage(Page):
    """Implements ``Page``; see there who calls what. ``watch`` goes into the pipeline's sinks.

    ``sink_directory``: of the session's records, which are read in the background when the run starts (or ``open`` is
    called). ``waiting``: files that wait as (name, reason, seconds). ``budget``: bytes of pixels that are kept.
    ``load``: the pixels of an earlier micrograph from its path, None where they cannot be had. ``draw_s``: seconds
    between two micrographs that are drawn. ``classes``: the particles' 2-D classes, None where there are none, and then
    with ``changes``, where marks of them are written down.
    """

    beamline = "cryoem_picks"

    def __init__(
        self,
        *,
        metrics: Metrics,
        controls: Controls,
        marks: Marks,
        sink_directory: Path,
        waiting: Callable[[], Sequence[tuple[str, str, float]]] = tuple,
        budget: int = BUDGET,
        most_rows: int = MOST_ROWS,
        load: Callable[[Path, tuple[int, int]], Image | None] = still_image,
        draw_s: float = DRAW_S,
        wall: Callable[[], float] = time.time,
        classes: ClassLevers | None = None,
        changes: Changes | None = None,
    ) -> None:
        self.metrics, self.controls, self.marks = metrics, controls, marks
        self.common = Common(metrics, wall=wall)
        self.table = Table(most_rows)
        self.views = Views(budget, load)
        self.stored = Stored(sink_directory, self.table, most_rows)
        self._strips = Strips(KEPT)
        drawing = Drawing(self.views, self._strips)
        self.review = PickReview(marks, self.table, drawing, self.stored.candidates, metrics, wall)
        self.drawn: Latest[Job] = Latest("live pictures", drawing.draw, pause_s=draw_s)
        self._blobs = PicksBlobs(self.table, self.views, self.stored, self.review)
        self._classes = None if classes is None else ClassPanel.of(classes, changes)
        self.watch = PicksWatch(self)
        self._waiting, self._load, self._wall = waiting, load, wall
        self._run_since: float | None = None
        self._live = False

    # From the pipeline

    def open(self) -> None:
        """Begin to read what is stored, and to draw. More than once does no harm."""
        self.stored.on_loaded = self._redraw
        self.stored.start()
        self.drawn.start()

    def close(self) -> None:
        """Read and draw nothing more; what is known stays."""
        self.stored.close()
        self.drawn.close()

    def begin(self, mark: RunStart) -> None:  # noqa: ARG002 - the session's name is the same for all runs
        """A run begins."""
        self._run_since = self._wall()
        self.open()

    def add(self, found: PickedMicrograph, image: Image, seconds: float | None) -> None:
        """A micrograph was picked. Takes a fraction of a millisecond: its pixels (ny, nx) are drawn elsewhere."""
        micrograph = micrograph_of(found, self._wall(), seconds)
        self.stored.keep(micrograph.id, found.candidates)
        self.table.put(micrograph)
        self._live = True
        if image.ndim == 2 and image.size:
            self.drawn.put(Job(micrograph, image, found.candidates, found.picked))

    def refreshed(self, threshold: float | None = None) -> None:
        """The threshold of what is stored was moved. Any thread; returns at once.

        With ``threshold`` all rows have it at once, their bands stay; the records are read again in any case, in the
        background.
        """
        if threshold is not None:
            self.table.moved(threshold, self._wall())
        self.stored.ask()

    # For the server

    def facts(self) -> JSON:
        """See ``Page.facts``."""
        rows_version = self.table.version
        return {
            "beamline": self.beamline,
            "version": __version__,
            "labels": [],
            "rows": [self._row(found) for found in self.table.all()],
            "rows_version": rows_version,
            "numbers": {name: {"text": text, "unit": unit} for name, (text, unit) in NUMBERS.items()},
        }

    def snapshot(self) -> JSON:
        """See ``Page.snapshot``."""
        controls = self.controls.state()
        threshold = _in_force(controls, self.table)
        so_far = self.table.trend(self._wall())
        grid, picks, median = with_now(self.table.what_if(self._run_since), threshold, so_far)
        return {
            **self.common.snapshot(),
            "rethreshold": None,
            **controls,
            "scores": self.table.scores(self._run_since),
            "what_if": {
                "threshold": list(grid),
                "picks": picks,
                "median": median,
                **self.review.what_if(grid, threshold),
            },
            "review": self.review.state(threshold),
            "yield": so_far,
            "classes": None if self._classes is None else self._classes.state(),
            "waiting": self._waits(),
            "rows": [self._row(found) for found in self.table.last(SHOWN_ROWS)],
            "rows_version": self.table.version,
        }

    def pictures(self, after: int) -> Sequence[Picture]:
        """See ``Page.pictures``."""
        return self._strips.after(after)

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        """See ``PicksBlobs`` and ``ClassPanel``."""
        if kind in BLOBS:
            return None if self._classes is None else self._classes.blob(kind, name, query)
        return self._blobs.blob(kind, name, query)

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        """``mark`` and ``class`` are ours, everything else the controls'."""
        if action == "class" and self._classes is not None:
            return self._classes.act(body, by)
        if action != "mark":
            done = self.controls.act(action, body, by)
            if action == "threshold" and (threshold := _in_force(done, self.table)) is not None:
                # The records follow in the background; what is on the page need not wait for them.
                self.table.moved(threshold, self._wall())
            return done
        self.review.mark(body, by)
        return {"review": self.review.state(_in_force(self.controls.state(), self.table))}

    # Inside

    def _row(self, found: Micrograph) -> JSON:
        return found.row(self.views.has_full(found.id))

    def _waits(self) -> JSON:
        waits = None if self.metrics.yields is None else self.metrics.yields.waiting()
        files = [
            {"name": name, "reason": reason, "seconds": finite(seconds)}
            for name, reason, seconds in self._waiting()[:WAITING_FILES]
        ]
        return {
            "reasons": {} if waits is None else dict(waits.reasons),
            "oldest_s": 0.0 if waits is None else finite(waits.oldest_s),
            "files": files,
        }

    def _redraw(self) -> None:
        """After a restart: the last micrographs again, as far as they are stills."""
        for found in self.table.last(REDRAWN):
            if self._live or self.drawn.closed:
                return
            candidates = self.stored.candidates(found)
            image = None if candidates is None else self._load(found.path, found.shape)
            if candidates is not None and image is not None:
                self.drawn.put(Job(found, image, candidates, picked_now(found, candidates)))
                self.drawn.idle(30.0)


def with_now(
    what_if: tuple[Sequence[float], Sequence[int], Sequence[float]], threshold: float | None, so_far: Mapping[str, Any]
) -> tuple[list[float], list[int], list[float]]:
    """Thresholds, picks and medians with the threshold in force among them: there, what if is what is.

    ``so_far``: the field ``yield``. Between two of the thresholds a browser interpolates.
    """
    grid, picks, median = list(what_if[0]), list(what_if[1]), list(what_if[2])
    if threshold is None or so_far["median"] is None or not grid or not grid[0] <= threshold <= grid[-1]:
        return grid, picks, median
    at = bisect_left(grid, threshold)
    if grid[at] != threshold:
        grid.insert(at, threshold)
        picks.insert(at, so_far["particles"])
        median.insert(at, so_far["median"])
    return grid, picks, median


def _in_force(controls: Mapping[str, Any], table: Table) -> float | None:
    """The threshold in force: the controls know it, or else the newest micrograph."""
    said = controls.get("threshold")
    if isinstance(said, Mapping) and isinstance(said.get("value"), int | float):
        return float(said["value"])
    last = table.last(1)
    return last[0].threshold if last else None
