"""The live page of ``cryoet_mining``: tomograms, clusters of their sub-volumes, groups, labels, what waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ... import __version__
from ..flow.frame import Failure, Result
from ..flow.metrics import Metrics
from ..flow.ports import Listener
from ..live.changes import Changes
from ..live.common import Common, finite
from ..live.mining_view import MiningLevers, Tomogram
from ..live.page import JSON, Blob, Controls, Page, Picture
from .mining_blobs import BLOBS, MiningBlobs
from .page_mining_panel import CLUSTER, MiningPanel
from .page_mining_rows import MOST_ROWS, TomogramRows, names_of, row_json

SHOWN_ROWS = 20
WAITING_FILES = 50


class MiningWatch(Listener):
    """Hears of every tomogram in the sinks' thread, after its files are written."""

    def __init__(self, page: MiningPage, describe: Callable[[Result], Tomogram | None]) -> None:
        self._page, self._describe = page, describe

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """A row each, of those that were mined."""
        for found in map(self._describe, results):
            if found is not None:
                self._page.add(found)
        return ()

    def flush(self) -> None:
        """Called about every second: note the counters, for rates over the last seconds."""
        self._page.common.tick()


class MiningPage(Page):
    """Implements ``Page``; see there who calls what. ``watch`` goes into the pipeline's sinks, after what writes files.

    ``levers``, ``changes``: the clusters, and the log that groups of them are written to. ``describe``: the row of a
    result, None where it has none. ``waiting``: files that wait as (name, reason, seconds).
    """

    beamline = "cryoet_mining"

    def __init__(
        self,
        *,
        metrics: Metrics,
        controls: Controls,
        levers: MiningLevers,
        changes: Changes,
        describe: Callable[[Result], Tomogram | None],
        waiting: Callable[[], Sequence[tuple[str, str, float]]] = tuple,
        most_rows: int = MOST_ROWS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.metrics, self.controls = metrics, controls
        self.common = Common(metrics, wall=wall)
        self.rows = TomogramRows(most_rows)
        self.panel = MiningPanel(levers, changes)
        self.watch = MiningWatch(self, describe)
        self._blobs = MiningBlobs(self.rows.get)
        self._waiting, self._wall = waiting, wall
        self._groups: object = None

    # From the pipeline

    def add(self, found: Tomogram) -> None:
        """A tomogram was mined, now or before the start, or its record was written again: its row. Returns at once."""
        self.rows.put(found)

    # For the server

    def facts(self) -> JSON:
        """See ``Page.facts``."""
        version = self._rows_version()
        names = names_of(self.panel.current().groups)
        rows = [row_json(row, names) for row in self.rows.all()]
        return {
            "beamline": self.beamline,
            "version": __version__,
            "labels": [],
            "rows": rows,
            "rows_version": version,
        }

    def snapshot(self) -> JSON:
        """See ``Page.snapshot``."""
        version = self._rows_version()
        groups = self.panel.current().groups
        names = names_of(groups)
        return {
            **self.common.snapshot(),
            **self.controls.state(),
            "mining": self.panel.state(),
            "totals": self.rows.totals(groups, self._wall()),
            "waiting": self._waits(),
            "rows": [row_json(row, names) for row in self.rows.all()[-SHOWN_ROWS:]],
            "rows_version": version,
        }

    def pictures(self, after: int) -> Sequence[Picture]:  # noqa: ARG002 - all pictures are fetched by who sees them
        """None: all pictures are blobs."""
        return ()

    def blob(self, kind: str, name: str, query: Mapping[str, str]) -> Blob | None:
        """See ``MiningPanel.blob`` (``cluster``) and ``MiningBlobs`` (``slice``, ``labels``, ``picks``)."""
        if kind == CLUSTER:
            return self.panel.blob(name, query)
        return self._blobs.blob(kind, name, query) if kind in BLOBS else None

    def act(self, action: str, body: Mapping[str, Any], by: str) -> JSON:
        """``group`` is ours, everything else the controls'."""
        return self.panel.act(body, by) if action == "group" else self.controls.act(action, body, by)

    # Inside

    def _rows_version(self) -> int:
        """Groups change the counts of all rows, so that browsers fetch them anew."""
        names = names_of(self.panel.current().groups)
        if names != self._groups:
            if self._groups is not None:
                self.rows.tell()
            self._groups = names
        return self.rows.version

    def _waits(self) -> JSON:
        waits = None if self.metrics.mined is None else self.metrics.mined.waiting()
        files = [
            {"name": name, "reason": reason, "seconds": finite(seconds)}
            for name, reason, seconds in self._waiting()[:WAITING_FILES]
        ]
        return {
            "reasons": {} if waits is None else dict(waits.reasons),
            "oldest_s": 0.0 if waits is None else finite(waits.oldest_s),
            "files": files,
        }
