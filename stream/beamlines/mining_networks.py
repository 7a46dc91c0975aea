"""Which networks a session uses: the configured ones, or those that are trained on it while it runs.

One training at a time, since it takes a core: the segmentation first, because somebody waits for it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...models.bundle import BundleError
from ...models.tomograms.codec import Codec
from ..flow.mined import Mined
from ..live.mining_view import Job
from .mining_bench import Benches, load_codec
from .mining_marks import Marks, key_of
from .mining_records import Records
from .mining_settings import ClusterSettings, MinerSettings, SegmentSettings
from .mining_store import CODES, SEGMENTS, Store
from .mining_trainings import Ended, Training, broken

log = logging.getLogger(__name__)

COMMAND = ("-m", "beamsieve.stream", "train")
REPORT = "report.json"
#: Marks are left alone for so long before a training begins: a person marks one cluster after the other.
SETTLED_S = 5.0
#: With fewer sub-volumes in marked clusters nothing can be learned.
LEAST_MARKED = 20


class Session(Protocol):
    """What is asked of the session; ``mining_keeper.Keeper`` is one."""

    benches: Benches
    marks: Marks
    records: Records

    def happened(self, text: str) -> None:
        """Something that an operator may want to know."""

    def note(self) -> None:
        """There is something new to see."""

    def marked_members(self) -> int:
        """Sub-volumes of marked clusters."""


class Networks:
    """For the worker's thread. ``wanted``: a better autoencoder, which takes over with clusters of its own codes."""

    def __init__(
        self,
        store: Store,
        model: MinerSettings,
        clusters: ClusterSettings,
        segment: SegmentSettings,
        facts: Mined,
        *,
        clock: Callable[[], float] = time.monotonic,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self.wanted: Codec | None = None
        self._wanted_path: Path | None = None
        self._store, self._model, self._clusters, self._segment = store, model, clusters, segment
        self._facts, self._clock, self._command = facts, clock, command
        self._codes = Training(store.directory, CODES)
        self._segments = Training(store.directory, SEGMENTS)
        self._seen: tuple[str, float] = ("", 0.0)

    def begin(self, session: Session) -> None:
        """Take up a network that was trained and better, and that no daemon adopted yet."""
        for about, ended in self._codes.last()[:1]:
            if ended.kind == "done" and about.get("base") == session.benches.now.codec.sha256:
                self._want(session, ended)

    def job(self) -> Job | None:
        """The training under way, for the page."""
        for what, training in (("segments", self._segments), ("training", self._codes)):
            state = training.state()
            if state is not None:
                return what, *state
        return None

    def path_of(self, codec: Codec) -> Path | None:
        """The file of a network that was trained here; None of the configured one."""
        return None if codec.sha256 == self._store.base.codec.sha256 else codec.bundle.path

    def adopted(self) -> None:
        """``wanted`` has taken over."""
        self.wanted = self._wanted_path = None

    def poll(self, session: Session) -> bool:
        """Look after trainings; whether one has ended."""
        found = self._segments.poll()
        if found is not None:
            self._judge_segments(session, *found)
            return True
        found = self._codes.poll()
        if found is not None:
            self._judge_codes(session, *found)
            return True
        if self._segments.running and self._segments.wanted.get("marks") != self._key(session):
            session.happened("The marks have changed: the segmentation in training is given up.")
            self._segments.close()
        return False

    def begin_due(self, session: Session) -> None:
        """Begin a training where one is due."""
        if self._segments.running:
            return
        key = self._key(session)
        if key != self._seen[0]:
            self._seen = key, self._clock()
        try:
            if self._segments_due(session, key):
                self._codes.close()
                self._begin_segments(session, key)
            elif not self._codes.running and self._codes_due(session):
                self._begin_codes(session)
        except OSError as error:
            self._codes.gave_up = self._segments.gave_up = True
            session.happened(f"A training cannot be started: {error.strerror or error}.")

    def close(self) -> None:
        """End trainings; the next start goes on with them."""
        self._codes.close()
        self._segments.close()

    # Segmentation

    def _key(self, session: Session) -> str:
        return key_of(session.marks.groups, session.benches.now.codec.sha256)

    def _segments_due(self, session: Session, key: str) -> bool:
        bench, s = session.benches.now, self._segment
        if not s.on or s.bundle or self._segments.gave_up or bench.assigns is None or not session.marks.groups:
            return False
        if bench.marks == key or self._clock() - self._seen[1] < SETTLED_S:
            return False
        if any(about.get("marks") == key for about, _ in self._segments.last()):
            # It was trained for these marks before, and failed, or cannot be used.
            return False
        stale = session.records.stale(bench.assigns, session.marks.groups)
        return not stale and session.marked_members() >= LEAST_MARKED

    def _begin_segments(self, session: Session, key: str) -> None:
        s, m = self._segment, self._model
        line = [*self._command, "segments", str(self._store.directory.absolute()), "--most", str(s.train_most)]
        line += ["--epochs", str(s.epochs), "--minutes", str(s.minutes)]
        line += ["--from", s.start]
        line += ["--threads", str(s.threads), "--device", m.device, "--resume"]
        classes = list(session.marks.groups.classes)
        self._segments.start(line, {"marks": key, "classes": classes}, self._where())
        session.happened("Training of the segmentation has begun.")

    def _judge_segments(self, session: Session, out: Path, code: int) -> None:
        paths = sorted(out.glob("*.json"))
        bundles = [path.with_suffix(".pt") for path in paths if path.with_suffix(".pt").exists()]
        if code == 0 and bundles:
            ended = Ended("done", "the segmentation is trained", bundles[0])
        elif code == 0:
            ended = Ended("failed", f"{out}: the training ended without a network")
        else:
            ended = broken(out, code)
        if ended.path is not None:
            ended = self._take_up(session, ended.path, str(self._segments.wanted_in(out).get("marks", ""))) or ended
        # Told of last: who waits for it finds it in force.
        self._note(session, "voxels", self._segments, out, ended)

    def _take_up(self, session: Session, path: Path, key: str) -> Ended | None:
        """Segment with this network from now on; why not, where it cannot be."""
        found = self._store.segmenter(path, session.benches.now.codec.voxel_a)
        if found is None:
            return Ended("failed", f"{path}: the segmentation that was trained cannot be used")
        try:
            found.warm_up()
        except BundleError as error:
            return Ended("failed", error.detail)
        session.benches.put(segmenter=found, marks=key)
        session.happened("From now on tomograms are segmented: the segmentation is trained.")
        return None

    def _where(self) -> dict[str, str]:
        """Where the commands find the configured network by its name."""
        return {"BEAMSIEVE_MODELS": str(self._store.base.codec.bundle.path.absolute().parent)}

    # Autoencoder

    def _codes_due(self, session: Session) -> bool:
        bench, s = session.benches.now, self._clusters
        if not s.retrain or self._codes.gave_up or self.wanted is not None or bench.assigns is None:
            return False
        if self._model.posed not in (None, bench.codec.posed):
            # What is kept is turned another way than what the network learned from.
            return False
        kept = session.records.kept()
        used = max((int(about.get("kept", 0)) for about, _ in self._codes.last()), default=0)
        return kept >= s.retrain_at and (used == 0 or (kept >= 2 * used and used < s.keep_most))

    def _begin_codes(self, session: Session) -> None:
        s, m, bench = self._clusters, self._model, session.benches.now
        line = [*self._command, "tomograms", "--from", str(bench.codec.bundle.path)]
        line += ["--session", str(self._store.directory.absolute()), "--most", str(s.keep_most)]
        line += ["--epochs", str(s.retrain_epochs), "--name", f"{self._store.base.codec.name}-session"]
        line += ["--threads", "1", "--device", m.device, "--resume"]
        last = self._codes.unfinished()
        kept = int(last.get("kept", 0)) if last.get("base") == bench.codec.sha256 else 0
        self._codes.start(line, {"base": bench.codec.sha256, "kept": kept or session.records.kept()})
        session.happened("Training of the network on this session's sub-volumes has begun.")

    def _judge_codes(self, session: Session, out: Path, code: int) -> None:
        ended = _codes_ended(out, code)
        self._note(session, "codes", self._codes, out, ended)
        if ended.kind == "done":
            self._want(session, ended)

    def _want(self, session: Session, ended: Ended) -> None:
        assert ended.path is not None
        try:
            found = load_codec(self._model, str(ended.path))
            found.warm_up()
        except BundleError as error:
            self._facts.training("codes", "failed")
            session.happened(f"What was trained cannot be used: {error.detail}.")
            return
        old = session.benches.now.codec
        if (found.edge, found.posed) != (old.edge, old.posed) or abs(found.voxel_a / old.voxel_a - 1) > 1e-3:
            session.happened(f"What was trained is for other sub-volumes: {ended.path}.")
            return
        self.wanted = found
        session.happened(f"A better network: {ended.text}; it takes over with clusters of its own.")

    def _note(self, session: Session, what: str, training: Training, out: Path, ended: Ended) -> None:
        self._facts.training(what, ended.kind)
        if ended.kind == "stopped":
            training.gave_up = True
        try:
            training.end(out, ended)
        except OSError as error:
            training.gave_up = True
            log.warning("%s: cannot be written: %s", out, error.strerror or error)
        if ended.kind != "done":
            session.happened(f"{ended.text[:1].upper()}{ended.text[1:]}.")
        session.note()


def _codes_ended(out: Path, code: int) -> Ended:
    """What came of training the autoencoder further: better on held-out sub-volumes, or not."""
    if code != 0:
        return broken(out, code)
    try:
        report = json.loads((out / REPORT).read_text(encoding="utf-8"))
        before, after = float(report["before"]), float(report["after"])
        path = out / Path(str(report["path"])).name
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Ended("failed", f"{out / REPORT}: cannot be used ({error})")
    numbers = f"error of held-out sub-volumes {before:.4f} before, {after:.4f} after"
    if after < before:
        return Ended("done", numbers, path)
    return Ended("worse", f"training on this session made it no better: {numbers}")
