"""Keeps clusters, marks and networks of a session up to date while it runs, in a thread that gives way to the mining.

One thread owns all of it (``Keeper``): a piece of work at a time, a look around between them. Others read what is
frozen (``current``), or change marks, which have a lock of their own. Networks are trained in processes of their own.

    waiting for the folder's lock ─▶ working ──(``finish``)──▶ what is left, within a time ─▶ ended
                                        └──(a bug)──▶ failed: mining goes on; the next start does what is left
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import plain
from ..flow.frame import Failure, Result, RunEnd, RunStart
from ..flow.ports import Listener
from ..live.mining_view import Mining, Network
from ..sinks.tomograms.marks import claimed
from .class_passes import be_modest
from .class_watch import DRAINED_S, STOPPED_S
from .mining_keeper import LOOK_S, Keeper
from .mining_views import Pictures, cluster_views, group_views, regrouped

log = logging.getLogger(__name__)

IDLE_S = 0.5
PUBLISH_S = 1.0
CLOSE_S = 60.0
_DRAINED = frozenset({"end", "idle"})


class LiveMining:
    """Implements ``live.mining_view.MiningLevers``. ``changed``: called when rows of the page may be others."""

    def __init__(self, keeper: Keeper, clock: Callable[[], float] = time.monotonic) -> None:
        self.keeper, self._clock = keeper, clock
        self.changed: Callable[[], None] = lambda: None
        self._something = threading.Event()
        self._deadline: float | None = None
        self._pictures = Pictures()
        self._lock = threading.Lock()
        self._published = (-1, -1.0)
        self._looked = 0.0
        self._state = ""
        self._snapshot = self._made(1)
        self._thread = threading.Thread(target=self._run, name="clusters", daemon=True)
        keeper.breathe = self._breathe

    # For the daemon

    def open(self) -> None:
        """Begin; more than once does no harm."""
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        """There is something to do. Any thread."""
        self._something.set()

    def finish(self, seconds: float) -> None:
        """No more tomograms will come: do what is left, for about so long. Returns at once; any thread."""
        if self._deadline is None:
            self._deadline = self._clock() + seconds
        self.wake()

    def close(self) -> None:
        """Wait until all is written and no thread is left.

        A thread that is in HDF5 when Python ends would hang for ever.
        """
        self.finish(STOPPED_S)
        if self._thread.ident is None:
            return
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.error("clusters: still at work after %.0f s; the next start does the rest", CLOSE_S)

    # For the page

    def current(self) -> Mining:
        """See ``MiningLevers``."""
        groups = self.keeper.marks.groups
        with self._lock:
            if self._snapshot.groups != group_views(groups):
                # A mark is seen at once, whatever the thread is busy with.
                self._snapshot = regrouped(self._snapshot, groups, self._snapshot.version + 1)
            return self._snapshot

    def mark(self, ids: tuple[int, ...], group: str, by: str) -> None:  # noqa: ARG002 - the page writes down who
        """See ``MiningLevers``, as the two that follow."""
        self.keeper.marks.mark(ids, group)
        self.wake()

    def unmark(self, ids: tuple[int, ...], by: str) -> None:  # noqa: ARG002
        """Clusters leave their group."""
        self.keeper.marks.unmark(ids)
        self.wake()

    def new_group(self, name: str, kind: str, by: str) -> None:  # noqa: ARG002
        """A group without clusters."""
        self.keeper.marks.new_group(name, kind)
        self.wake()

    # The thread

    def _run(self) -> None:
        be_modest()
        try:
            self._work()
        except Exception as error:
            # What is in the background must never cost a tomogram.
            log.exception("clusters: a bug; mining goes on, and the next start does what is left")
            self._state = "failed"
            self.keeper.errors["bug"] = f"a bug: {plain(error) or type(error).__name__}"
            self._publish()
        finally:
            self._end()

    def _work(self) -> None:
        while True:
            with claimed(self.keeper.store.directory) as mine:
                if mine:
                    self.keeper.say("lock", "")
                    self.keeper.begin()
                    self._publish()
                    self._go_on()
                    return
            self.keeper.say("lock", "another process makes the clusters of this folder")
            self.keeper.follow_files()
            self._publish()
            if self._deadline is not None:
                return
            self._wait(LOOK_S)

    def _go_on(self) -> None:
        while True:
            deadline = self._deadline
            if deadline is not None and deadline - self._clock() <= STOPPED_S:
                self.keeper.ending = True
            worked = self.keeper.step()
            self._publish_if_due()
            if deadline is not None and (self._clock() >= deadline or (not worked and self._is_over())):
                return
            if not worked:
                self._wait(IDLE_S)

    def _is_over(self) -> bool:
        """Whether nothing is left that the daemon waits for; once, after a look at what came last."""
        self.keeper.look()
        return self.keeper.idle

    def _wait(self, seconds: float) -> None:
        self._something.wait(seconds)
        self._something.clear()

    def _breathe(self) -> None:
        """Called often while something takes long: look around, and tell."""
        now = self._clock()
        if self._deadline is not None and self._deadline - now <= STOPPED_S:
            self.keeper.ending = True
        if now - self._looked >= PUBLISH_S:
            self._looked = now
            self.keeper.look_at_marks()
            self._publish()

    def _publish_if_due(self) -> None:
        version, at = self._published
        jobs = self.keeper.networks.job() is not None or self.keeper.job is not None
        if (version != self.keeper.version or jobs) and self._clock() - at >= PUBLISH_S:
            self._publish()

    def _publish(self) -> None:
        seen = self._published[0]
        self._published = self.keeper.version, self._clock()
        with self._lock:
            version = self._snapshot.version + 1
        found = self._made(version)
        with self._lock:
            # A mark may have been shown meanwhile.
            self._snapshot = replace(found, version=max(found.version, self._snapshot.version + 1))
        if seen != self.keeper.version:
            self.changed()

    def _made(self, version: int) -> Mining:
        keeper, bench = self.keeper, self.keeper.benches.now
        groups, entries = keeper.marks.groups, keeper.records.entries
        have, first = keeper.records.count(), keeper.settings.first_at
        need = first if bench.clusters is None else round(keeper.settings.growth * max(keeper.clustered_at, first / 2))
        state = self._state or ("waiting" if bench.clusters is None else "ready")
        return Mining(
            version=version,
            mode="annotate" if groups else "explore",
            state="failed" if state == "failed" else "ready" if state == "ready" else "waiting",
            have=have,
            need=need,
            network=Network(bench.codec.name, bench.codec.sha256, bench.trained),
            clusters=cluster_views(bench.clusters, groups, entries, self._pictures),
            groups=group_views(groups),
            job=keeper.job or keeper.networks.job(),
            events=tuple(keeper.events),
            error="; ".join(keeper.errors.values()),
            pixel_a=bench.codec.voxel_a,
        )

    def _end(self) -> None:
        try:
            self.keeper.networks.close()
            self._publish()
        except Exception:
            log.exception("clusters: at the end")


class MiningWake(Listener):
    """Wakes the thread when a tomogram was written, and tells it when no more will come."""

    def __init__(self, live: LiveMining) -> None:
        self._live = live
        self._drained = False

    def start(self, mark: RunStart) -> None:  # noqa: ARG002 - whichever it is
        """More will come."""
        self._drained = False

    def write(self, results: Sequence[Result]) -> Sequence[Failure]:
        """There is another record."""
        if results:
            self._live.wake()
        return ()

    def end(self, mark: RunEnd) -> None:
        """Remember whether it ended by itself."""
        self._drained = mark.reason in _DRAINED

    def close(self) -> None:
        """The pipeline is over."""
        self._live.finish(DRAINED_S if self._drained else STOPPED_S)
