"""The work in the background of a session on tomograms, a piece at a time: clusters, marks, networks, records.

    waiting ──(``first_at`` sub-volumes)──▶ pass "first" ──▶ ready ◀──┐
                                                               └─▶ pass "growth", "model"; trainings; records anew

All of it is for one thread, ``LiveMining``'s. What is to be done follows from what lies in the folder alone, so that a
start after a kill does what is left. ``clusters.h5`` is written before the records that name its clusters: a record of
an older version is stale, and is written anew.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable

from ...models.tomograms.codec import Codec
from ...models.tomograms.follow import Followed
from ...models.tomograms.regroup import regroup
from ..flow.mined import Mined
from ..live.mining_view import MOST_EVENTS, Job
from .mining_bench import Benches
from .mining_marks import Marks
from .mining_networks import Networks
from .mining_records import Records
from .mining_settings import ClusterSettings
from .mining_store import Store
from .mining_views import members

log = logging.getLogger(__name__)

LOOK_S = 2.0
#: Clusters grow so fast at the beginning of a session only.
LEAST_GROWN = 2
Event = tuple[float, str]


class Keeper:
    """See above. ``clock``: monotonic, ``wall``: Unix seconds. ``breathe``: called often while something takes long."""

    def __init__(
        self,
        settings: ClusterSettings,
        store: Store,
        benches: Benches,
        marks: Marks,
        networks: Networks,
        records: Records,
        facts: Mined,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.store, self.benches, self.marks = settings, store, benches, marks
        self.networks, self.records, self.facts = networks, records, facts
        self.events: list[Event] = []
        self.job: Job | None = None
        #: What hinders, by what it hinders; tried again.
        self.errors: dict[str, str] = {}
        self.breathe: Callable[[], None] = lambda: None
        self.ending = False
        #: Whether networks are trained.
        self.trains = True
        #: Grows with whatever there is to see.
        self.changes = itertools.count(1)
        self.version = 0
        self.clustered_at = 0
        self._clock, self._wall = clock, wall
        self._look_at = -math.inf
        self._drawn: object = None
        self._told = -1
        self._marks = marks.groups

    # Beginning and looking

    def begin(self) -> None:
        """Go on with what is in the folder. Raises ``OSError``."""
        clusters = self.benches.now.clusters
        if clusters is not None:
            self.events = [(event.when, event.text) for event in clusters.events][-MOST_EVENTS:]
        self.look()
        entries = sorted(self.records.entries, key=lambda entry: entry.row.time)
        if clusters is not None:
            self.clustered_at = sum(e.row.picks for e in entries if e.row.time <= clusters.written)
        network = self.benches.now.codec.sha256
        self.facts.errors([e.row.error for e in entries if e.network == network], network)
        self.networks.begin(self)
        self.tell()

    def look(self) -> None:
        """Look at marks and records now."""
        self._look_at = self._clock() + LOOK_S
        self.look_at_marks()
        try:
            if self.records.scan(self._stopped):
                self.note()
            self.say("records", "")
        except OSError as error:
            self.say("records", f"{self.store.directory}: cannot be read ({error.strerror or error})")

    def look_at_marks(self) -> None:
        """Look at the groups alone: somebody edited the file, or marked on the page."""
        self.marks.look()
        if self.marks.groups != self._marks:
            self._marks = self.marks.groups
            self._marked()
        self.say("groups", self.marks.error)

    def follow_files(self) -> None:
        """Another process makes the clusters: go by what it writes."""
        self.look()
        if self.store.changed():
            self.benches.put(clusters=self.store.clusters())
            self.note()
            self.tell()

    # A piece of work

    def step(self) -> bool:
        """Do what is most urgent; False where there is nothing to do now."""
        if self._clock() >= self._look_at:
            self.look()
        self.look_at_marks()
        if self.networks.poll(self):
            return True
        why = None if self.ending else self.why()
        if why is not None:
            return self.make_clusters(why)
        if self._relabel_one():
            return True
        if self.trains and not self.ending:
            self.networks.begin_due(self)
        return self._draw()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do but trainings."""
        bench = self.benches.now
        stale = not self.marks.unread and self.records.stale(bench.assigns, self.marks.groups)
        return self.why() is None and not stale

    def why(self) -> str | None:
        """Why clusters are to be made anew, if they are."""
        if self.marks.unread:
            # Marks would not follow the clusters, and what the records say of classes would be gone.
            return None
        bench, first = self.benches.now, self.settings.first_at
        codec = self.networks.wanted or bench.codec
        usable = self.records.usable(codec.sha256)
        if "clusters" in self.errors and usable == self._told:
            # What failed is not tried again with the same.
            return None
        if bench.clusters is None:
            return "first" if usable >= first else None
        if bench.clusters.network != codec.sha256:
            return "model" if usable >= min(first, self.records.kept()) > 0 else None
        grown = self.settings.growth * max(self.clustered_at, first / LEAST_GROWN)
        return "growth" if self.records.count() >= grown else None

    def make_clusters(self, why: str) -> bool:
        """All codes in clusters anew; whether they were made."""
        codec, began = self.networks.wanted or self.benches.now.codec, self._clock()
        self._told = self.records.usable(codec.sha256)
        log.info("clusters of %d sub-volumes are made (%s)", self._told, why)
        try:
            followed = self._grouped(codec)
        except ValueError as error:
            self.say("clusters", str(error))
            self.facts.training("clusters", "failed")
            followed = None
        finally:
            self._at(None)
        if followed is None:
            return False
        try:
            self._adopt(followed, codec)
        except OSError as error:
            self.say("clusters", f"clusters cannot be kept ({error.strerror or error})")
            return False
        self.say("clusters", "")
        self.facts.training("clusters", "done")
        n, k = self.records.count(), len(followed.clusters)
        self.happened(f"{k} clusters of {n} sub-volumes ({why}, {self._clock() - began:.0f} s).")
        for event in followed.events:
            self.happened(f"{event.text[:1].upper()}{event.text[1:]}.")
        return True

    def _grouped(self, codec: Codec) -> Followed | None:
        bench, s = self.benches.now, self.settings
        self._at(("clustering", 0, 1, "reading codes"))
        sample = self.records.sample(codec, bench.clusters, s.most, self._stopped)
        if sample is None:
            return None
        old = bench.clusters

        def told(what: str, done: int, of: int) -> None:
            self._at(("clustering", done, of, what))

        return regroup(
            sample.codes,
            codec,
            old=old,
            groups=self.marks.groups,
            bridge=sample.bridge,
            boxes=lambda: self.records.boxes(codec, self._stopped),
            k=s.number,
            seed=1 if old is None else old.version + 1,
            stop=self._stopped,
            progress=told,
        )

    def _adopt(self, followed: Followed, codec: Codec) -> None:
        """From now on these clusters hold, and the network they are of."""
        trained = self.networks.path_of(codec)
        self.store.write(followed.clusters, trained)
        if self.benches.now.codec is codec:
            self.benches.put(clusters=followed.clusters)
        else:
            self.benches.put(clusters=followed.clusters, codec=codec, trained=trained is not None)
            self.networks.adopted()
        self.clustered_at = self.records.count()
        # Not the groups as they were when it began: a person may have marked some meanwhile.
        self.marks.followed(followed.marks)
        self._marks = self.marks.groups
        self.tell()
        self.note()

    def _relabel_one(self) -> bool:
        """Bring one record up to date with clusters and marks."""
        bench = self.benches.now
        if self.marks.unread:
            return False
        for entry in self.records.stale(bench.assigns, self.marks.groups):
            assert bench.clusters is not None
            try:
                done = self.records.relabel(entry, bench.clusters, self.marks.groups)
                self.say("relabel", "")
            except OSError as error:
                self.say("relabel", f"{entry.path}: cannot be written ({error.strerror or error})")
                return False
            self.records.scan()
            self.note()
            return done
        return False

    def _draw(self) -> bool:
        """The contact sheet, once clusters or marks are others."""
        clusters, groups = self.benches.now.clusters, self.marks.groups
        if clusters is None or self._drawn == (clusters.version, groups):
            return False
        self._drawn = clusters.version, groups
        try:
            self.store.draw(clusters, groups)
            self.say("sheet", "")
        except OSError as error:
            self.say("sheet", f"the contact sheet cannot be written ({error.strerror or error})")
        return True

    # Telling

    def _marked(self) -> None:
        groups = self.marks.groups
        marked = ", ".join(f"{group.name} {list(group.clusters)}" for group in groups.groups if group.clusters)
        self.happened(f"Marked now: {marked or 'nothing'}.")
        self.tell()

    def tell(self) -> None:
        """Mode and clusters, to whoever counts."""
        groups, clusters = self.marks.groups, self.benches.now.clusters
        self.facts.mode("annotate" if groups else "explore")
        found = dict.fromkeys(groups.names, 0) | {"": 0}
        for number in () if clusters is None else clusters.ids.tolist():
            group = groups.of(number)
            found["" if group is None else group.name] += 1
        self.facts.clusters(found)

    def happened(self, text: str) -> None:
        """Something that an operator may want to know."""
        log.info("%s", text)
        self.events = [*self.events, (self._wall(), text)][-MOST_EVENTS:]
        self.note()

    def say(self, what: str, why: str) -> None:
        """What hinders ``what`` at present; empty: nothing."""
        if why != self.errors.get(what, ""):
            if why:
                log.warning("%s", why)
                self.errors[what] = why
            else:
                self.errors.pop(what, None)
            self.note()

    def note(self) -> None:
        """There is something new to see."""
        self.version = next(self.changes)

    def marked_members(self) -> int:
        """Sub-volumes of marked clusters."""
        counts, _ = members(self.records.entries)
        return sum(counts[number] for number in self.marks.groups.marks())

    def _at(self, job: Job | None) -> None:
        self.job = job
        self.note()
        self.breathe()

    def _stopped(self) -> bool:
        self.breathe()
        return self.ending
