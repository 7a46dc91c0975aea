"""What people and the machine around it make of a daemon, counted: threshold, pauses, runs, changes, marks, free disk.

``Metrics`` holds one of these. Every method may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from .families import counter, gauge, single

CHANGES = ("threshold", "pause", "run", "model", "candidate", "class", "group", "clusters")
LONGEST_TITLE = 80
LOG_OF_CHANGES = "changes.jsonl"
"""The file, where a daemon's results go, that says what people changed: a line of JSON each."""


class Operation:
    """Facts of operation.

    ``free_bytes``: asks for the room left where files go, None where that cannot be told. ``clients``: asks how many
    browsers watch the page. ``threshold``: the one in force; None before there is one.
    """

    def __init__(self) -> None:
        self.started = time.time()
        self.threshold: Callable[[], float | None] = lambda: None
        self.free_bytes: Callable[[], float | None] = lambda: None
        self.clients: Callable[[], int] = lambda: 0
        self._lock = threading.Lock()
        self._paused = False
        self._run = ("", "", self.started)
        self._changes: Counter[str] = Counter(dict.fromkeys(CHANGES, 0))
        self._marks: Counter[str] = Counter({"right": 0, "wrong": 0})
        self._shadow: Counter[tuple[str, str]] = Counter()

    # --- facts -------------------------------------------------------------------------------------------------

    def changed(self, what: str) -> None:
        """Somebody changed ``what`` (one of ``CHANGES``)."""
        with self._lock:
            self._changes[what] += 1

    def paused(self, paused: bool) -> None:
        """Writing was paused, or goes on."""
        with self._lock:
            self._paused = paused

    def run(self, name: str, title: str) -> None:
        """A run began."""
        with self._lock:
            self._run = (name, title[:LONGEST_TITLE], time.time())

    def marked(self, right: bool) -> None:
        """A person said of a verdict that it is right, or wrong."""
        with self._lock:
            self._marks["right" if right else "wrong"] += 1

    def shadowed(self, table: Iterable[tuple[bool, bool]]) -> None:
        """A candidate judged what the model in force judged too: (hit for the one in force, hit for the candidate)."""
        words = {True: "hit", False: "miss"}
        with self._lock:
            self._shadow.update((words[current], words[candidate]) for current, candidate in table)

    # --- answers -----------------------------------------------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """Whether writing is paused."""
        with self._lock:
            return self._paused

    @property
    def current_run(self) -> tuple[str, str, float]:
        """(name, title, Unix seconds since when) of the run; names are empty before the first."""
        with self._lock:
            return self._run

    def collect(self) -> Iterable[Metric]:
        """Prometheus' view."""
        with self._lock:
            name, title, _ = self._run
            changes, marks, shadow = dict(self._changes), dict(self._marks), list(self._shadow.items())
            writing = float(not self._paused)
        yield gauge("beamsieve_started_timestamp_seconds", "When the daemon started.", [((), self.started)])
        threshold, free = self.threshold(), self.free_bytes()
        if threshold is not None:
            yield gauge("beamsieve_threshold", "The threshold in force.", [((), threshold)])
        yield gauge(
            "beamsieve_writing", "1 while what is worth keeping is kept, 0 while a person paused it.", [((), writing)]
        )
        if name:
            yield gauge(
                "beamsieve_run_info", "The run, as source and operator named it.", [((name, title), 1)], "run", "title"
            )
        if free is not None:
            yield gauge("beamsieve_disk_free_bytes", "Room left where files go.", [((), free)])
        yield gauge("beamsieve_page_clients", "Browsers that watch the page.", [((), self.clients())])
        yield counter("beamsieve_changes", "What people changed on the page.", single(changes), "what")
        yield counter("beamsieve_review_marks", "Verdicts people called right or wrong.", single(marks), "verdict")
        text = "Frames that a candidate model judged beside the one in force."
        yield counter("beamsieve_shadow_frames", text, shadow, "current", "candidate")
